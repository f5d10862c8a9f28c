"""An optimization: SciPy's own optimizer, asked from outside for one evaluation after the other.

SciPy calls the function it minimizes; a service cannot wait inside such a call. So each decision
runs the optimizer again from the start, on the evaluations that the state holds, up to the first
point of which nothing is known yet. That point is the next child. The optimizer is deterministic,
and costs microseconds where the gradients cost minutes. This needs nothing of SciPy but its public
interface, no thread that lives between decisions, and no arrays whose meaning differs from one
version of SciPy to the next; the price is a state that grows with each evaluation, so there is a
limit. Where another version of SciPy would have gone elsewhere, it asks for other points.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from recordledger.domain.specs.service import Broken, Done, Now, Service, Step, Wait

from .coordinates import Coordinates, flatten, largest, like
from .task import Computed, GradientTask, ResultUnusable, Specified, StatePart, closeness

NUMBERS_MAX: Final = 200_000

# Two points nearer than this, relative to their size, are the same one: the arithmetic of another
# machine may differ in the last digit.
_SAME: Final = 1e-12


class OptimizationSpec(Specified):
    """What to minimize.

    Attributes:
        gradient: the function.
        start: where to begin: a list of numbers, or of rows of numbers (atoms).
        method: of `scipy.optimize.minimize`: `BFGS`; `L-BFGS-B`, for many coordinates; `CG`.
        gradient_max: converged when no component of the gradient is larger, in units of energy per
            unit of a coordinate. The default is common for molecules, in hartree/bohr.
        energy_change_max: if said, the energy must also have changed by no more than this in the
            last iteration, in units of energy.
        evaluations_max: how many evaluations may be needed.
    """

    gradient: GradientTask
    start: Annotated[Coordinates, Field(min_length=1)]
    method: Literal["BFGS", "L-BFGS-B", "CG"] = "BFGS"
    gradient_max: Annotated[float, Field(gt=0)] = 4.5e-4
    energy_change_max: Annotated[float, Field(gt=0)] | None = None
    evaluations_max: Annotated[int, Field(ge=1, le=10_000)] = 200

    @model_validator(mode="after")
    def _has_a_state_that_fits(self) -> Self:
        n_coordinates = len(flatten(self.start) or ())
        if n_coordinates == 0:
            raise ValueError("`start` has no coordinates")
        most = NUMBERS_MAX // (2 * n_coordinates + 1)
        if self.evaluations_max > most:
            raise ValueError(
                f"with {n_coordinates} coordinates `evaluations_max` can be {most} at most: the "
                f"state holds every point and gradient, up to {NUMBERS_MAX} numbers"
            )
        return self


class Evaluation(StatePart):
    """What is known about one point."""

    x: list[float]
    energy: float
    gradient: list[float]
    record_id: int


class OptimizationState(StatePart):
    """The evaluations, in the order they were asked for, and the one that is under way.

    `n_logged`: number of iterates in the output, including the start.
    """

    evaluations: list[Evaluation]
    asked: list[float]
    n_logged: int


class Optimization(Service[OptimizationSpec, OptimizationState]):
    """One evaluation after the other, until the gradient vanishes."""

    name = "optimization"
    version = "1"
    Spec: ClassVar[type[BaseModel]] = OptimizationSpec
    State: ClassVar[type[BaseModel]] = OptimizationState

    def start(self, spec: OptimizationSpec, now: Now) -> Step[OptimizationState]:
        """Ask for the first point."""
        return _ask(spec, (), flatten(spec.start) or [], 0)

    def advance(
        self, spec: OptimizationSpec, state: OptimizationState, now: Now
    ) -> Step[OptimizationState]:
        """Take the evaluation, and ask the optimizer what it wants next."""
        try:
            found = spec.gradient.read(now.ended[_key(len(state.evaluations))], len(state.asked))
        except ResultUnusable as unusable:
            return unusable.broken()
        evaluations = [*state.evaluations, _evaluation(state.asked, found)]
        try:
            run = replay(spec, evaluations)
        except ImportError as error:
            return Broken("ProgramMissing", f"{error}: pip install 'recordledger[services]'")
        output = run.output_after(state.n_logged)
        if run.converged is not None:
            return Done(_result(spec, evaluations, run, run.converged), output)
        reached = f"the largest component of the gradient is {largest(run.best.gradient):.3g} at "
        reached += f"record {run.best.record_id}, but {spec.gradient_max:.3g} is required"
        if run.wanted is None:
            return Broken(
                "OptimizerStopped",
                f"{spec.method} ended after {len(evaluations)} evaluations: {run.message} "
                f"{reached}; is the gradient that of the energy?",
                output,
            )
        if len(evaluations) >= spec.evaluations_max:
            return Broken(
                "NotConverged",
                f"not within {len(evaluations)} evaluations ({len(run.iterates) - 1} iterations of "
                f"{spec.method}): {reached}; raise `evaluations_max`, or start closer to the "
                "minimum",
                output,
            )
        return _ask(spec, evaluations, run.wanted, len(run.iterates), output)


@dataclass(slots=True)
class Run:
    """How far the optimizer comes with what is known.

    Attributes:
        iterates: where it stood before the first and after each finished iteration.
        best: the last of these.
        wanted: the point it needs to go on; None if it ended.
        converged: the iterate that meets the criteria; None if none does.
        message: what SciPy says about its end.
    """

    iterates: list[Evaluation] = field(default_factory=list[Evaluation])
    wanted: list[float] | None = None
    converged: Evaluation | None = None
    message: str = ""

    @property
    def best(self) -> Evaluation:
        """The last iterate."""
        return self.iterates[-1]

    def output_after(self, n_logged: int) -> str:
        """Return a line for each iterate but the first `n_logged`."""
        lines = [
            f"iteration {number}: energy {iterate.energy:.8f}, "
            f"largest gradient {largest(iterate.gradient):.2e}\n"
            for number, iterate in enumerate(self.iterates)
            if number >= n_logged
        ]
        return "".join(lines)


class _Unknown(Exception):
    """The optimizer wants a point that has not been evaluated."""

    def __init__(self, x: list[float]) -> None:
        super().__init__()
        self.x = x


def replay(spec: OptimizationSpec, evaluations: Sequence[Evaluation]) -> Run:
    """Run the optimizer on what is known, up to the first point that is not.

    Raises:
        ImportError: SciPy is not installed.
    """
    # SciPy has no types, and need not be installed.
    np, optimize = import_module("numpy"), import_module("scipy.optimize")
    known = np.array([evaluation.x for evaluation in evaluations])

    def look_up(x: Any) -> Evaluation:
        tolerances = _SAME * np.maximum(1.0, np.abs(x))
        matching = np.flatnonzero((np.abs(known - x) <= tolerances).all(axis=1))
        if not len(matching):
            raise _Unknown(x.tolist())
        return evaluations[int(matching[0])]

    def energy_and_gradient(x: Any) -> tuple[float, Any]:
        evaluation = look_up(x)
        return evaluation.energy, np.array(evaluation.gradient)

    run = Run([evaluations[0]])

    def on_iteration(x: Any) -> None:
        run.iterates.append(look_up(x))
        if _is_converged(spec, run.iterates):
            run.converged = run.best
            raise StopIteration

    if _is_converged(spec, run.iterates):
        run.converged = run.best
        return run
    # The criteria are ours, and SciPy's are never met.
    endless = {"maxiter": 10**9, "gtol": 0.0}
    if spec.method == "L-BFGS-B":
        endless |= {"maxfun": 10**9, "ftol": 0.0}
    # SciPy runs on stored evaluations until it asks for a point that is not among them.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended = optimize.minimize(
                energy_and_gradient,
                known[0],
                jac=True,
                method=spec.method,
                callback=on_iteration,
                options=endless,
            )
    except _Unknown as unknown:
        run.wanted = unknown.x
        return run
    if run.converged is None:
        run.message = f"{str(ended.message).rstrip('.')}."
        # It can get no lower. That is no failure where the gradient vanishes.
        last = look_up(ended.x)
        if largest(last.gradient) <= spec.gradient_max:
            run.converged = last
    return run


def _is_converged(spec: OptimizationSpec, iterates: Sequence[Evaluation]) -> bool:
    if largest(iterates[-1].gradient) > spec.gradient_max:
        return False
    if spec.energy_change_max is None or len(iterates) == 1:
        return True
    return abs(iterates[-1].energy - iterates[-2].energy) <= spec.energy_change_max


def _ask(
    spec: OptimizationSpec,
    evaluations: Sequence[Evaluation],
    x: list[float],
    n_logged: int,
    output: str = "",
) -> Wait[OptimizationState]:
    forces = [largest(evaluation.gradient) for evaluation in evaluations]
    return Wait(
        OptimizationState(evaluations=list(evaluations), asked=x, n_logged=n_logged),
        {_key(len(evaluations)): spec.gradient.at(like(x, spec.start))},
        output=output,
        progress=closeness(forces[0], min(forces), spec.gradient_max) if forces else 0.0,
    )


def _key(number: int) -> str:
    return f"evaluation-{number + 1}"


def _evaluation(x: list[float], found: Computed) -> Evaluation:
    return Evaluation(x=x, energy=found.energy, gradient=found.gradient, record_id=found.record_id)


def _result(
    spec: OptimizationSpec, evaluations: Sequence[Evaluation], run: Run, last: Evaluation
) -> dict[str, Any]:
    return {
        "coordinates": like(last.x, spec.start),
        "energy": last.energy,
        "gradient_max": largest(last.gradient),
        "record_id": last.record_id,
        "n_iterations": len(run.iterates) - 1,
        "n_evaluations": len(evaluations),
        "energies": [iterate.energy for iterate in run.iterates],
    }
