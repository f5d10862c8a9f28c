"""An optimization drives SciPy's optimizers one evaluation at a time, to known minima."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import pytest
from pydantic import ValidationError

from recordledger.workers.services.optimization import OptimizationSpec

from .driver import ChildError, Driver, always

optimize = pytest.importorskip("scipy.optimize", reason="the optimizers are SciPy's")

METHODS = ("BFGS", "L-BFGS-B", "CG")


def wanted(function: str, start: Any, **changes: Any) -> dict[str, Any]:
    return {"gradient": {"function": function}, "start": start, **changes}


@pytest.mark.parametrize("method", METHODS)
def test_a_quadratic_ends_in_its_minimum(method: str) -> None:
    gradient = {
        "function": "harmonic_well",
        "kwargs": {"minimum": [1.0, -2.0, 0.5], "stiffness": [1.0, 4.0, 0.3]},
    }
    spec = {"gradient": gradient, "start": [0, 0, 0], "method": method, "gradient_max": 1e-6}
    ran = Driver().run("optimization", spec)
    assert ran.result["coordinates"] == pytest.approx([1.0, -2.0, 0.5], abs=1e-5)
    assert ran.result["energy"] == pytest.approx(0.0, abs=1e-10)
    assert ran.result["gradient_max"] <= 1e-6
    assert ran.result["record_id"] in [asked.record_id for asked in ran.asked]
    assert ran.result["n_evaluations"] == len(ran.asked) == ran.n_decisions - 1
    assert ran.output.count("iteration") == ran.result["n_iterations"] + 1
    assert ran.progress == sorted(ran.progress)


@pytest.mark.parametrize("method", METHODS)
def test_each_evaluation_is_the_one_that_scipy_asks_for_by_itself(method: str) -> None:
    """What is replayed is SciPy's own run: the same points in the same order, none twice."""
    from recordledger.workers.demo.gradients import rosenbrock

    asked: list[list[float]] = []

    def directly(x: Any) -> tuple[float, Any]:
        # The conjugate gradients ask for some points twice.
        if x.tolist() not in asked:
            asked.append(x.tolist())
        found = rosenbrock(x.tolist())
        return found["energy"], found["gradient"]

    options = {"gtol": 0.0, "ftol": 0.0} if method == "L-BFGS-B" else {"gtol": 0.0}
    optimize.minimize(directly, [-1.2, 1.0], jac=True, method=method, options=options)
    ran = Driver().run("optimization", wanted("rosenbrock", [-1.2, 1.0], method=method))
    points = [one.child.kwargs["coordinates"] for one in ran.asked]
    assert points == asked[: len(points)]
    assert len({json.dumps(point) for point in points}) == len(points)
    assert ran.result["coordinates"] == pytest.approx([1.0, 1.0], abs=2e-3)


@pytest.mark.parametrize(
    ("start", "minimum", "energy"),
    [
        # The three minima of the surface, as its authors have them.
        ([-0.7, 1.3], [-0.558, 1.442], -146.700),
        ([0.6, 0.1], [0.623, 0.028], -108.167),
        ([-0.1, 0.45], [-0.050, 0.467], -80.768),
    ],
)
def test_the_minima_of_mueller_and_brown_are_found(
    start: list[float], minimum: list[float], energy: float
) -> None:
    ran = Driver().run("optimization", wanted("mueller_brown", start, method="L-BFGS-B"))
    assert ran.result["coordinates"] == pytest.approx(minimum, abs=2e-3)
    assert ran.result["energy"] == pytest.approx(energy, abs=1e-3)


def test_the_energy_can_be_a_criterion_too() -> None:
    loose = {"gradient_max": 1e-2}
    without = Driver().run("optimization", wanted("rosenbrock", [-1.2, 1.0], **loose)).result
    changed = abs(without["energies"][-1] - without["energies"][-2])
    strict = wanted("rosenbrock", [-1.2, 1.0], **loose, energy_change_max=changed / 100)
    energies = Driver().run("optimization", strict).result["energies"]
    assert abs(energies[-1] - energies[-2]) <= changed / 100
    assert len(energies) > len(without["energies"])


def test_where_it_starts_in_the_minimum_one_evaluation_is_enough() -> None:
    ran = Driver().run("optimization", wanted("rosenbrock", [1.0, 1.0], energy_change_max=1e-9))
    assert ran.result["n_evaluations"] == 1
    assert ran.result["n_iterations"] == 0


def test_an_optimizer_that_can_get_no_lower_has_converged_if_the_gradient_vanishes() -> None:
    flat = {"energy": 5.0, "gradient": [1e-5]}
    spec = wanted("flat", [0.0], energy_change_max=1e-30)
    assert Driver({"flat": always(flat)}).run("optimization", spec).result["energy"] == 5.0
    # The criterion of the gradient is met on the way, the one of the energy never is.
    gradient = {
        "function": "harmonic_well",
        "kwargs": {"minimum": [0.1, 0.7], "stiffness": [1.0, 3.0]},
    }
    spec = {"gradient": gradient, "start": [1.0, 2.0], "energy_change_max": 1e-300}
    assert Driver().run("optimization", spec).result["gradient_max"] <= 4.5e-4


def test_what_does_not_converge_says_how_far_it_came() -> None:
    spec = wanted("rosenbrock", [-1.2, 1.0], evaluations_max=10)
    ran = Driver().run("optimization", spec)
    assert ran.error.error_type == "NotConverged"
    assert "not within 10 evaluations" in ran.error.message
    assert "but 0.00045 is required" in ran.error.message
    assert len(ran.asked) == 10


def test_a_gradient_that_is_not_that_of_the_energy_stops_the_optimizer() -> None:
    def uphill(coordinates: list[float]) -> dict[str, Any]:
        return {"energy": coordinates[0] ** 2, "gradient": [-2 * coordinates[0]]}

    for method in METHODS:
        spec = wanted("uphill", [1.0], method=method)
        error = Driver({"uphill": uphill}).run("optimization", spec).error
        assert error.error_type == "OptimizerStopped"
        assert "is the gradient that of the energy?" in error.message


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"gradient": [1.0]}, "record 1 has no 'energy'"),
        ({"energy": None, "gradient": [1.0]}, "the energy is None, not a finite number"),
        ({"energy": True, "gradient": [1.0]}, "the energy is True"),
        (
            {"energy": 1.0, "gradient": ["a"]},
            "the gradient has components that are not finite numbers",
        ),
        (
            {"energy": 1.0, "gradient": 2.0},
            "the gradient has components that are not finite numbers",
        ),
        ({"energy": 1.0, "gradient": [1.0, 2.0]}, "has 2 components, and there are 1"),
        (3.5, "has no 'energy': it is 3.5"),
    ],
)
def test_a_result_that_is_no_gradient_is_named(found: Any, says: str) -> None:
    driver = Driver({"strange": always(found)})
    error = driver.run("optimization", wanted("strange", [0.0])).error
    assert error.error_type == "ResultUnusable"
    assert says in error.message


def test_paths_and_the_name_of_the_argument_can_be_said() -> None:
    def named(x: list[list[float]], k: float) -> dict[str, Any]:
        flat = [number for row in x for number in row]
        return {"out": [k * sum(n * n for n in flat) / 2, [[k * n for n in row] for row in x]]}

    gradient = {
        "function": "named",
        "kwargs": {"k": 2.0},
        "argument": "x",
        "energy_path": ["out", 0],
        "gradient_path": ["out", 1],
    }
    spec = {"gradient": gradient, "start": [[1.0, 2.0], [3.0, 4.0]]}
    found = Driver({"named": named}).run("optimization", spec).result["coordinates"]
    assert [len(row) for row in found] == [2, 2]
    assert found[1][1] == pytest.approx(0.0, abs=1e-3)


def test_an_evaluation_that_fails_is_reset_and_the_optimization_goes_on() -> None:
    from recordledger.workers.demo.gradients import rosenbrock

    calls: list[list[float]] = []

    def flaky(coordinates: list[float]) -> dict[str, Any]:
        calls.append(coordinates)
        if len(calls) == 5:
            raise OSError("node lost")
        return rosenbrock(coordinates)

    with pytest.raises(ChildError, match="evaluation-5"):
        Driver({"flaky": flaky}).run("optimization", wanted("flaky", [-1.2, 1.0]))
    calls.clear()
    ran = Driver({"flaky": flaky}, resets=1).run("optimization", wanted("flaky", [-1.2, 1.0]))
    undisturbed = Driver().run("optimization", wanted("rosenbrock", [-1.2, 1.0]))
    assert ran.result == undisturbed.result


def test_a_state_from_a_machine_whose_last_digit_differs_is_gone_on_with() -> None:
    from recordledger.workers.services.optimization import Evaluation, replay

    spec = OptimizationSpec.model_validate(wanted("rosenbrock", [-1.2, 1.0]))
    ran = Driver().run("optimization", wanted("rosenbrock", [-1.2, 1.0]))
    evaluations: list[Evaluation] = []
    from recordledger.workers.demo.gradients import rosenbrock

    for one in ran.asked:
        x = [math.nextafter(number, math.inf) for number in one.child.kwargs["coordinates"]]
        evaluations.append(Evaluation(x=x, **rosenbrock(x), record_id=1))
    run = replay(spec, evaluations)
    assert run.wanted is None
    assert run.converged is not None


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    error = Driver().run("optimization", wanted("rosenbrock", [0.0, 0.0])).error
    assert error.error_type == "ProgramMissing"
    assert "recordledger[services]" in error.message


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"start": []}, "at least 1 item"),
    ({"start": [[]]}, "no coordinates"),
    ({"start": [math.nan]}, "finite number"),
    ({"start": [0.0] * 1_000}, "`evaluations_max` can be 99 at most"),
    ({"gradient_max": 0}, "greater than 0"),
    ({"method": "Nelder-Mead"}, "'BFGS', 'L-BFGS-B' or 'CG'"),
    ({"steps": 3}, "Extra inputs"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_cannot_be_optimized_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        OptimizationSpec.model_validate(wanted("rosenbrock", [0.0, 0.0]) | changes)
