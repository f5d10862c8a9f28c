"""A scan: one function at every point of a grid, and a table of the results."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from recordledger.domain.specs.service import Broken, Done, Ended, Now, Service, Step, Wait

from .task import (
    ResultUnusable,
    Specified,
    StatePart,
    TaskRequest,
    found_at,
    result_of,
    short,
    shown,
)
from .task import Step as PathStep

POINTS_MAX: Final = 10_000


class ScanAxis(Specified):
    """One argument of the function, and the values it takes: JSON, in this order."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    values: Annotated[list[Any], Field(min_length=1, max_length=POINTS_MAX)]

    @model_validator(mode="after")
    def _has_each_value_once(self) -> Self:
        seen: set[str] = set()
        for value in self.values:
            text = json.dumps(value, sort_keys=True)
            if text in seen:
                raise ValueError(f"the axis {self.name!r} has the value {shown(value)} twice")
            seen.add(text)
        return self


class ScanSpec(Specified):
    """What to scan.

    Attributes:
        task: the function; its `kwargs` are the same at each point.
        axes: arguments that differ. The last one varies fastest. No more than 10,000 points.
        on_error: `fail`: a point without a result is the error `ChildError` of the scan, which goes
            on when that point is reset; `skip`: its entry in the table says what happened.
        path: keys and indices that lead to what the table has of each result; all of it, if not
            said.
    """

    task: TaskRequest
    axes: Annotated[list[ScanAxis], Field(min_length=1, max_length=20)]
    on_error: Literal["fail", "skip"] = "fail"
    path: list[PathStep] = Field(default_factory=list[PathStep])

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        names = [axis.name for axis in self.axes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are {names.count(name)} axes with the name {name!r}")
            if name in self.task.kwargs:
                raise ValueError(f"{name!r} is an axis and also in `task.kwargs`; give it once")
        n_points = math.prod(len(axis.values) for axis in self.axes)
        if n_points > POINTS_MAX:
            sizes = " x ".join(str(len(axis.values)) for axis in self.axes)
            raise ValueError(f"{sizes} are {n_points} points; the maximum is {POINTS_MAX}")
        return self

    def points(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and arguments of each point, in the order of the table."""
        names = [axis.name for axis in self.axes]
        numbered = [list(enumerate(axis.values)) for axis in self.axes]
        for chosen in itertools.product(*numbered):
            key = ",".join(str(number) for number, _ in chosen)
            yield key, dict(zip(names, (value for _, value in chosen), strict=True))


class ScanState(StatePart):
    """Nothing: the specification says which points there are."""


class Scan(Service[ScanSpec, ScanState]):
    """All points at once, then the table."""

    name = "scan"
    version = "1"
    Spec: ClassVar[type[BaseModel]] = ScanSpec
    State: ClassVar[type[BaseModel]] = ScanState

    def start(self, spec: ScanSpec, now: Now) -> Step[ScanState]:
        """Ask for every point."""
        children = {
            key: spec.task.child({**spec.task.kwargs, **point}) for key, point in spec.points()
        }
        return Wait(
            ScanState(),
            children,
            takes_errors=spec.on_error == "skip",
            output=f"{len(children)} points of {spec.task.function}\n",
            progress=0.0,
        )

    def advance(self, spec: ScanSpec, state: ScanState, now: Now) -> Step[ScanState]:
        """Make the table."""
        try:
            rows = [self._row(spec, point, now.ended[key]) for key, point in spec.points()]
        except ResultUnusable as unusable:
            return unusable.broken()
        n_skipped = sum("result" not in row for row in rows)
        if n_skipped == len(rows):
            return Broken(
                "NothingComplete",
                f"none of the {n_skipped} points has a result; the first one, "
                f"{shown(rows[0]['at'])}, is {rows[0]['status']}: record {rows[0]['record_id']}, "
                f"{rows[0]['error_type']}: {rows[0]['error_message']}",
            )
        axes = [axis.model_dump() for axis in spec.axes]
        said = f"{len(rows)} points" + (f", {n_skipped} without a result" if n_skipped else "")
        return Done({"axes": axes, "points": rows, "n_skipped": n_skipped}, output=f"{said}\n")

    def _row(self, spec: ScanSpec, point: dict[str, Any], ended: Ended) -> dict[str, Any]:
        row = {"at": point, "record_id": ended.record_id, "status": str(ended.status)}
        if ended.is_complete:
            where = f"at {shown(point)}: the result of record {ended.record_id}"
            return {**row, "result": found_at(result_of(ended), spec.path, where)}
        return {
            **row,
            "error_type": ended.error_type,
            "error_message": short(ended.error_message),
        }
