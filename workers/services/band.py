"""A nudged elastic band: the way of lowest energy from one minimum to another, and its barrier.

A chain of images of the system, held apart by springs, slides down until the force on each image
has no part across the path. The sources:

- tangents, the springs' force along them and the nudging: G. Henkelman and H. Jonsson, Improved
  tangent estimate in the nudged elastic band method, J. Chem. Phys. 113, 9978 (2000);
- the climbing image: G. Henkelman, B. P. Uberuaga and H. Jonsson, J. Chem. Phys. 113, 9901 (2000);
- FIRE: E. Bitzek et al., Structural relaxation made simple, Phys. Rev. Lett. 97, 170201 (2006);
- quick-min, a projected velocity Verlet: H. Jonsson, G. Mills and K. W. Jacobsen, in Classical and
  Quantum Dynamics in Condensed Phase Simulations, World Scientific (1998), chapter 16.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from recordledger.domain.specs.service import Broken, Child, Done, Ended, Now, Service, Step, Wait

from .coordinates import Coordinates, Vector, dot, flatten, largest, like, minus, norm, plus, times
from .coordinates import shape as shape_of
from .task import Computed, GradientTask, ResultUnusable, Specified, StatePart, closeness

NUMBERS_MAX: Final = 100_000

# Images nearer to each other than this part of the path have no direction between them.
_SAME: Final = 1e-9

# Of FIRE, as its authors recommend them.
_FIRE_PATIENCE: Final = 5
_FIRE_FASTER: Final = 1.1
_FIRE_SLOWER: Final = 0.5
_FIRE_MIXING: Final = 0.1
_FIRE_MIXING_DECAY: Final = 0.99


class BandSpec(Specified):
    """Between what to find the way, and how.

    Lengths are in the unit of the coordinates (bohr, for the functions that come along), energies
    in that of the energy (hartree), forces in energy per length.

    Attributes:
        gradient: the function.
        path: at least both ends; between them, if wanted, geometries that the first guess of the
            path leads through. It is a chain of straight lines, so atoms must not run into each
            other on it, and the ends must not be turned or shifted against each other.
        n_images: how many images there are between the ends.
        spring: what holds them apart: energy per squared length.
        ends: `fixed`, if they are minima; `relaxed`: they slide into them meanwhile.
        climb: whether the highest image climbs to the saddle point instead of being held by
            springs, from when no force is larger than `climb_below`.
        optimizer: `fire`; `quick-min` is simpler, and slower.
        time_step: of either, in units in which masses are 1; FIRE goes up to four times this. If
            the band shakes, it is too long.
        step_max: no image moves farther than this in one iteration: a length.
        force_max: converged when no component of the force on any image is larger.
        iterations_max: how many iterations may be needed.
    """

    gradient: GradientTask
    path: Annotated[list[Coordinates], Field(min_length=2, max_length=1_000)]
    n_images: Annotated[int, Field(ge=1, le=1_000)] = 5
    spring: Annotated[float, Field(gt=0)] = 0.05
    ends: Literal["fixed", "relaxed"] = "fixed"
    climb: bool = True
    climb_below: Annotated[float, Field(gt=0)] = 0.02
    optimizer: Literal["fire", "quick-min"] = "fire"
    time_step: Annotated[float, Field(gt=0)] = 1.0
    step_max: Annotated[float, Field(gt=0)] = 0.2
    force_max: Annotated[float, Field(gt=0)] = 1e-3
    iterations_max: Annotated[int, Field(ge=1, le=10_000)] = 200

    @model_validator(mode="after")
    def _is_a_path(self) -> Self:
        first, *others = self.path
        n_coordinates = len(flatten(first) or ())
        if n_coordinates == 0:
            raise ValueError("the first geometry of `path` has no coordinates")
        for number, geometry in enumerate(others, start=1):
            if shape_of(geometry) != shape_of(first):
                raise ValueError(
                    f"geometry {number} of `path` has a different shape than the first"
                )
            if flatten(geometry) == flatten(self.path[number - 1]):
                raise ValueError(f"geometry {number} of `path` is the same as the one before it")
        if (self.n_images + 2) * n_coordinates > NUMBERS_MAX:
            raise ValueError(
                f"{self.n_images + 2} images of {n_coordinates} coordinates are more than the "
                f"{NUMBERS_MAX} numbers that a state may hold"
            )
        return self


class BandState(StatePart):
    """The band as it is computed now, and how it moves.

    Attributes:
        iteration: from 1.
        images: where all of them are, ends included.
        velocities: of all of them.
        ends: energy and gradient of the ends, once known, if they are fixed.
        is_climbing: whether the highest image climbs.
        time_step, mixing, n_downhill: of FIRE.
        force_first: the largest component of a force in the first iteration.
        progress: the best so far.
    """

    iteration: int
    images: list[list[float]]
    velocities: list[list[float]]
    ends: list[EndPoint]
    is_climbing: bool
    time_step: float
    mixing: float
    n_downhill: int
    force_first: float | None = None
    progress: float = 0.0


class EndPoint(StatePart):
    """What is known about an end that does not move."""

    energy: float
    gradient: list[float]
    record_id: int


@dataclass(frozen=True, slots=True)
class Band:
    """The band with the forces that move it.

    Attributes:
        images: where they are.
        computed: energy and gradient of each.
        tangents: of length 1; of an end, towards its neighbour.
        forces: on each image; nothing for fixed ends.
        highest: which of the images between the ends is the highest.
    """

    images: list[Vector]
    computed: list[Computed]
    tangents: list[Vector]
    forces: list[Vector]
    highest: int

    @property
    def energies(self) -> list[float]:
        """The energy of each image."""
        return [found.energy for found in self.computed]

    @property
    def force_max(self) -> float:
        """The largest component of any force."""
        return max(largest(force) for force in self.forces)

    @property
    def barrier(self) -> float:
        """The highest energy above that of the first end."""
        return max(self.energies) - self.energies[0]


class NudgedElasticBand(Service[BandSpec, BandState]):
    """In each iteration, the gradients of all images at once; then all of them move."""

    name = "nudged_elastic_band"
    version = "1"
    Spec: ClassVar[type[BaseModel]] = BandSpec
    State: ClassVar[type[BaseModel]] = BandState

    def start(self, spec: BandSpec, now: Now) -> Step[BandState]:
        """Lay the first guess of the path, and ask for its gradients."""
        images = interpolate([flatten(geometry) or [] for geometry in spec.path], spec.n_images)
        state = BandState(
            iteration=1,
            images=images,
            velocities=[[0.0] * len(images[0]) for _ in images],
            ends=[],
            is_climbing=False,
            time_step=spec.time_step,
            mixing=_FIRE_MIXING,
            n_downhill=0,
        )
        return Wait(state, _children(spec, state), progress=0.0)

    def advance(self, spec: BandSpec, state: BandState, now: Now) -> Step[BandState]:
        """Take the gradients, and move the band, unless it has come to rest."""
        try:
            computed = _read(spec, state, now.ended)
        except ResultUnusable as unusable:
            return unusable.broken()
        if clash := _coinciding(state.images):
            return Broken("ImagesCoincide", f"images {clash - 1} and {clash} are the same geometry")
        band = nudge(spec, state.images, computed, is_climbing=state.is_climbing)
        begins = spec.climb and not state.is_climbing and band.force_max <= spec.climb_below
        if begins:
            band = nudge(spec, state.images, computed, is_climbing=True)
            state = state.model_copy(update={"is_climbing": True})
        output = _log_text(state, band, climbs="; the highest image climbs" if begins else "")
        if band.force_max <= spec.force_max and state.is_climbing == spec.climb:
            return Done(_result(spec, state, band), output)
        if state.iteration >= spec.iterations_max:
            return Broken(
                "NotConverged",
                f"not within {state.iteration} iterations: the largest component of a force is "
                f"{band.force_max:.3g}, but {spec.force_max:.3g} is required; raise "
                "`iterations_max`, or give more geometries in `path` as a better first guess",
                output,
            )
        moved = _moved(spec, state, band)
        kept = [] if spec.ends == "relaxed" else [_end(computed[0]), _end(computed[-1])]
        force_first = state.force_first or band.force_max
        progress = closeness(force_first, band.force_max, spec.force_max)
        following = moved.model_copy(
            update={
                "iteration": state.iteration + 1,
                "ends": kept,
                "force_first": force_first,
                "progress": max(state.progress, progress),
            }
        )
        return Wait(
            following,
            _children(spec, following),
            output=output,
            progress=following.progress,
        )


def _log_text(state: BandState, band: Band, *, climbs: str) -> str:
    above = " ".join(f"{energy - band.energies[0]:.6f}" for energy in band.energies)
    return (
        f"iteration {state.iteration}: barrier {band.barrier:.6f}, "
        f"largest force {band.force_max:.2e}{climbs}\n  energies {above}\n"
    )


def interpolate(path: Sequence[Vector], n_images: int) -> list[Vector]:
    """Return both ends of a chain of straight lines and, between them, images at equal distances.

    >>> interpolate([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]], 3)
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [3.0, 1.0]]
    """
    lengths = [norm(minus(end, begin)) for begin, end in itertools.pairwise(path)]
    reached = list(itertools.accumulate(lengths, initial=0.0))
    images = [path[0]]
    for number in range(1, n_images + 1):
        wanted = reached[-1] * number / (n_images + 1)
        part = max(n for n in range(len(lengths)) if reached[n] <= wanted)
        fraction = (wanted - reached[part]) / lengths[part]
        images.append(plus(path[part], minus(path[part + 1], path[part]), fraction))
    return [*images, path[-1]]


def _coinciding(images: list[Vector]) -> int | None:
    """Return the number of an image that is where the one before it is, if there is one."""
    lengths = [norm(minus(right, left)) for left, right in itertools.pairwise(images)]
    shortest = min(range(len(lengths)), key=lambda number: lengths[number])
    return shortest + 1 if lengths[shortest] <= _SAME * sum(lengths) else None


def nudge(
    spec: BandSpec, images: list[Vector], computed: list[Computed], *, is_climbing: bool
) -> Band:
    """Return the forces on the images, as Henkelman and Jonsson have them."""
    energies = [found.energy for found in computed]
    last = len(images) - 1
    steps = [minus(right, left) for left, right in itertools.pairwise(images)]
    tangents = [
        _unit(steps[0]),
        *(_tangent(steps[n - 1], steps[n], energies[n - 1 : n + 2]) for n in range(1, last)),
        _unit(steps[-1]),
    ]
    highest = max(range(1, last), key=lambda n: energies[n])
    forces: list[Vector] = []
    for number, (found, tangent) in enumerate(zip(computed, tangents, strict=True)):
        downhill = times(-1.0, found.gradient)
        if number in (0, last):
            forces.append(downhill if spec.ends == "relaxed" else [0.0] * len(downhill))
            continue
        along = dot(downhill, tangent)
        if is_climbing and number == highest:
            forces.append(plus(downhill, tangent, -2 * along))
            continue
        stretch = norm(steps[number]) - norm(steps[number - 1])
        forces.append(plus(downhill, tangent, spec.spring * stretch - along))
    return Band(images, computed, tangents, forces, highest)


def _tangent(before: Vector, after: Vector, energies: Sequence[float]) -> Vector:
    """Return the direction of the path at an image: towards the higher neighbour.

    At an extremum both neighbours count, the more the more their energies differ, so that the
    direction does not jump when the image passes it.
    """
    left, here, right = energies
    if left < here < right:
        return _unit(after)
    if left > here > right:
        return _unit(before)
    less, more = sorted((abs(right - here), abs(left - here)))
    if more == 0:
        return _unit(plus(before, after))
    weights = (more, less) if right > left else (less, more)
    return _unit(plus(times(weights[0], after), before, weights[1]))


def _unit(vector: Vector) -> Vector:
    return times(1 / norm(vector), vector)


def _moved(spec: BandSpec, state: BandState, band: Band) -> BandState:
    """Return the state with the band where its forces drive it."""
    drive = _by_fire if spec.optimizer == "fire" else _by_quick_min
    state = drive(spec, state, band.forces)
    images: list[Vector] = []
    for image, velocity in zip(state.images, state.velocities, strict=True):
        length = state.time_step * norm(velocity)
        shortened = min(1.0, spec.step_max / length) if length else 1.0
        images.append(plus(image, velocity, state.time_step * shortened))
    return state.model_copy(update={"images": images})


def _by_fire(spec: BandSpec, state: BandState, forces: list[Vector]) -> BandState:
    """Return the state with the velocities of the fast inertial relaxation engine."""
    force, velocity = _joined(forces), _joined(state.velocities)
    time_step, mixing, n_downhill = state.time_step, state.mixing, state.n_downhill
    if dot(force, velocity) > 0:
        steered = times(mixing * norm(velocity) / norm(force), force)
        velocity = plus(steered, velocity, 1 - mixing)
        n_downhill += 1
        if n_downhill > _FIRE_PATIENCE:
            time_step = min(time_step * _FIRE_FASTER, 4 * spec.time_step)
            mixing *= _FIRE_MIXING_DECAY
    elif state.iteration > 1:
        velocity = [0.0] * len(velocity)
        time_step, mixing, n_downhill = time_step * _FIRE_SLOWER, _FIRE_MIXING, 0
    velocity = plus(velocity, force, time_step)
    return state.model_copy(
        update={
            "velocities": _split(velocity, len(forces)),
            "time_step": time_step,
            "mixing": mixing,
            "n_downhill": n_downhill,
        }
    )


def _by_quick_min(spec: BandSpec, state: BandState, forces: list[Vector]) -> BandState:
    """Return the state with the part of each image's velocity that is along its force."""
    velocities: list[Vector] = []
    for force, velocity in zip(forces, state.velocities, strict=True):
        along = dot(force, velocity)
        kept = times(along / dot(force, force), force) if along > 0 else [0.0] * len(force)
        velocities.append(plus(kept, force, spec.time_step))
    return state.model_copy(update={"velocities": velocities})


def _joined(vectors: list[Vector]) -> Vector:
    return list(itertools.chain.from_iterable(vectors))


def _split(vector: Vector, n_parts: int) -> list[Vector]:
    size = len(vector) // n_parts
    return [vector[n * size : (n + 1) * size] for n in range(n_parts)]


def _wanted(spec: BandSpec, state: BandState) -> Mapping[str, int]:
    """Return the keys of this iteration's children, and which image each is for."""
    last = len(state.images) - 1
    numbers = range(1, last) if state.ends else range(last + 1)
    return {f"{state.iteration}/{number}": number for number in numbers}


def _children(spec: BandSpec, state: BandState) -> dict[str, Child]:
    return {
        key: spec.gradient.at(like(state.images[number], spec.path[0]))
        for key, number in _wanted(spec, state).items()
    }


def _read(spec: BandSpec, state: BandState, ended: Mapping[str, Ended]) -> list[Computed]:
    """Return energy and gradient of each image.

    Raises:
        ResultUnusable: a child's result has no energy or gradient.
    """
    size = len(state.images[0])
    found = [spec.gradient.read(ended[key], size) for key in _wanted(spec, state)]
    ends = [Computed(end.energy, end.gradient, end.record_id) for end in state.ends]
    return [ends[0], *found, ends[1]] if ends else found


def _end(found: Computed) -> EndPoint:
    return EndPoint(energy=found.energy, gradient=found.gradient, record_id=found.record_id)


def _result(spec: BandSpec, state: BandState, band: Band) -> dict[str, Any]:
    lengths = (norm(minus(right, left)) for left, right in itertools.pairwise(band.images))
    energies = band.energies
    top = max(range(len(energies)), key=lambda number: energies[number])
    return {
        "energies": energies,
        "distances": list(itertools.accumulate(lengths, initial=0.0)),
        "slopes": [
            dot(found.gradient, tangent)
            for found, tangent in zip(band.computed, band.tangents, strict=True)
        ],
        "images": [like(image, spec.path[0]) for image in band.images],
        "record_ids": [found.record_id for found in band.computed],
        "saddle": top,
        "barrier": energies[top] - energies[0],
        "reverse_barrier": energies[top] - energies[-1],
        "force_max": band.force_max,
        "n_iterations": state.iteration,
        "n_gradients": len(energies) + (state.iteration - 1) * len(_wanted(spec, state)),
    }
