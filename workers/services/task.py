"""What the services' specifications have in common: a task, and how its result is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.specs.fingerprint import FUNCTION_CHARACTERS_MAX, FUNCTION_PATTERN
from recordledger.domain.specs.service import Broken, Child, Ended

from .coordinates import Coordinates, flatten

MESSAGE_CHARACTERS_MAX: Final = 500

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.+-]+$")]
Step = str | int


class Specified(BaseModel):
    """A part of a specification: what it does not know is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StatePart(BaseModel):
    """A part of a state, which goes through JSON between any two decisions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskRequest(Specified):
    """What a service wants to be computed, as for any record.

    Attributes:
        function: an entry point's name, or `module:function`; the name of a service if `kind` is
            `service`.
        kwargs: JSON.
        tag, priority: the service's own, if not said.
        retries, retry_delay_s, retry_on: how often an error is tried again, after which pause (it
            doubles), and for which types of errors; any, if not said.
        find_existing: take a record of the same specification if there is one, also of another
            service, or of another part of this one.
    """

    function: Annotated[
        str,
        Field(max_length=FUNCTION_CHARACTERS_MAX, pattern=f"^{FUNCTION_PATTERN.pattern}$"),
    ]
    kwargs: dict[str, Any] = Field(default_factory=dict[str, Any])
    required_programs: list[str] = Field(default_factory=list[str])
    kind: Literal["task", "service"] = "task"
    tag: str | None = None
    priority: Literal["low", "normal", "high"] | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    retry_delay_s: Annotated[float, Field(ge=0)] | None = None
    retry_on: list[str] | None = None
    find_existing: bool = True

    def child(self, kwargs: Mapping[str, Any]) -> Child:
        """Return the record that computes this with `kwargs` instead of its own."""
        return Child(
            self.function,
            dict(kwargs),
            required_programs=tuple(self.required_programs),
            kind=Kind(self.kind),
            tag=self.tag,
            priority=None if self.priority is None else Priority[self.priority],
            retries=self.retries,
            retry_delay_s=self.retry_delay_s,
            retry_on=None if self.retry_on is None else tuple(self.retry_on),
            find_existing=self.find_existing,
        )


class GradientTask(TaskRequest):
    """A function that returns an energy and its gradient.

    The services do not convert units. If coordinates are in bohr and energies in hartree, gradients
    must be in hartree/bohr.

    Attributes:
        argument: under which name the function takes the coordinates.
        energy_path, gradient_path: keys and indices that lead to both in its result. The gradient
            has the shape of the coordinates.
    """

    argument: str = "coordinates"
    energy_path: list[Step] = Field(default_factory=lambda: list[Step](["energy"]))
    gradient_path: list[Step] = Field(default_factory=lambda: list[Step](["gradient"]))

    def at(self, coordinates: Coordinates) -> Child:
        """Return the record that computes energy and gradient there."""
        return self.child({**self.kwargs, self.argument: coordinates})

    def read(self, ended: Ended, n_coordinates: int) -> Computed:
        """Return what a child computed.

        Raises:
            ResultUnusable: its result is no energy and gradient.
        """
        result = ended.result
        where = f"the result of record {ended.record_id}"
        energy = found_at(result, self.energy_path, where)
        if not _is_number(energy):
            raise ResultUnusable(f"{where}: the energy is {shown(energy)}, not a finite number")
        gradient = flatten(found_at(result, self.gradient_path, where))
        if gradient is None or not all(math.isfinite(value) for value in gradient):
            raise ResultUnusable(
                f"{where}: the gradient has components that are not finite numbers"
            )
        if len(gradient) != n_coordinates:
            raise ResultUnusable(
                f"{where}: the gradient has {len(gradient)} components, and there are "
                f"{n_coordinates} coordinates"
            )
        return Computed(float(energy), gradient, ended.record_id)


@dataclass(frozen=True, slots=True)
class Computed:
    """An energy and its gradient, and which record they are from."""

    energy: float
    gradient: list[float]
    record_id: int


class ResultUnusable(Exception):
    """The result of a child is not what the specification says it is."""

    def broken(self) -> Broken:
        """Return the decision that says so."""
        return Broken("ResultUnusable", str(self))


def result_of(ended: Ended) -> Any:
    """Return the result of a complete child; None if it has none to read."""
    return ended.result if ended.payload is not None else None


def found_at(result: Any, path: Sequence[Step], where: str) -> Any:
    """Return the part of a result that keys and indices lead to.

    >>> found_at({"energies": [1.5, 2.5]}, ["energies", 1], "the result of record 7")
    2.5

    Raises:
        ResultUnusable: the path leads nowhere in the result.
    """
    found: Any = result
    for number, step in enumerate(path):
        # A text leads into an object, a number into a list; nothing else is meant.
        is_fitting = type(found) is (dict if isinstance(step, str) else list)
        if is_fitting:
            try:
                found = found[step]
            except LookupError:
                pass
            else:
                continue
        way = f" at {shown(list(path[:number]))}" if number else ""
        raise ResultUnusable(f"{where}{way} has no {step!r}: it is {shown(found)}")
    return found


def shown(value: Any) -> str:
    """Return a value as a message can bear it.

    >>> shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... (102 characters)"
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:64]}... ({len(text)} characters)"


def short(message: str | None) -> str | None:
    """Return the beginning of an error's message, for a state or a result."""
    if message is None or len(message) <= MESSAGE_CHARACTERS_MAX:
        return message
    return message[:MESSAGE_CHARACTERS_MAX] + "..."


def closeness(first: float, now: float, wanted: float) -> float:
    """Return how much of the way down to what is wanted is behind, by orders of magnitude.

    >>> closeness(1.0, 0.01, 0.0001)
    0.5
    """
    if now <= wanted:
        return 1.0
    if now >= first:
        return 0.0
    return math.log(first / now) / math.log(first / wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
