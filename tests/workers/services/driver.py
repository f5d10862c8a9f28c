"""A service runner in memory: it really runs the functions, and plays time.

Every decision is made twice, from states that went through JSON in two ways, and must be the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from recordledger.domain.records.events import Kind, Payload
from recordledger.domain.records.status import Status
from recordledger.domain.specs.service import (
    Broken,
    Child,
    Done,
    Ended,
    Now,
    Reference,
    Service,
    Wait,
)

ROOT: Final = Path(__file__).resolve().parents[3]
BEGIN: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
DECISIONS_MAX: Final = 5_000

AnyService = Service[Any, Any]


class ChildError(Exception):
    """A child did not end well, and the service does not take errors."""


@cache
def provided(group: str) -> dict[str, Any]:
    """Return what the package provides as entry points of a group, by name."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    found: dict[str, Any] = {}
    for name, target in table[group].items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(import_module(module), attribute)
    return found


@dataclass(slots=True)
class Asked:
    """A child, and what became of it. `ends_s`: when, in seconds after the beginning."""

    key: str
    child: Child
    record_id: int
    ends_s: float
    ended: Ended | None = None


@dataclass(slots=True)
class Ran:
    """How a service ended, and what it did on the way."""

    last: Done | Broken
    asked: list[Asked]
    output: str
    n_decisions: int
    progress: list[float]
    states_bytes: list[int]
    took_s: float

    @property
    def result(self) -> Any:
        """The result, as whoever asks for it reads it."""
        assert isinstance(self.last, Done), self.last
        return json.loads(json.dumps(self.last.result, allow_nan=False))

    @property
    def error(self) -> Broken:
        """Why it could not go on."""
        assert isinstance(self.last, Broken), self.last
        return self.last


@dataclass(slots=True)
class Driver:
    """What services are run with.

    Attributes:
        functions: by name, beside those that the package provides.
        duration_s: how long a child takes, by key.
        resets: how often an error of the service or its children is reset.
    """

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Any])
    duration_s: Callable[[str], float] = lambda _: 1.0
    resets: int = 0
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _payloads: dict[bytes, Any] = field(default_factory=dict[bytes, Any])

    def run(self, name: str, kwargs: Mapping[str, Any]) -> Ran:
        """Run a service to its end."""
        service: AnyService = provided("recordledger.services")[name]()
        assert service.name == name
        text = json.dumps(kwargs, allow_nan=False)
        specs = (
            service.Spec.model_validate_json(text),
            service.Spec.model_validate(json.loads(text)),
        )
        at_s, resets = 0.0, self.resets
        asked: dict[str, Asked] = {}
        waited: Wait[Any] | None = None
        output, progress, sizes = "", list[float](), list[int]()
        decided = [service.start(spec, Now(BEGIN, 1)) for spec in specs]
        for iteration in range(2, DECISIONS_MAX):
            step, again = decided
            assert step == again
            output += step.output
            if isinstance(step, Broken) and resets and waited:
                resets -= 1
                step = waited
                self._reset(asked, at_s)
            elif isinstance(step, Done | Broken):
                return Ran(step, list(asked.values()), output, iteration - 1, progress, sizes, at_s)
            else:
                for key, child in step.children.items():
                    assert key not in asked, f"the key {key} is not new"
                    ends_s = at_s + self.duration_s(key)
                    asked[key] = Asked(key, child, next(self._ids), ends_s)
                assert step.progress is None or 0 <= step.progress <= 1
                progress.append(step.progress or 0.0)
            waited = step
            awaited = [asked[key] for key in sorted({*step.children, *step.awaited})]
            while True:
                at_s = max(at_s, _next_s(step, awaited))
                for one in awaited:
                    if one.ends_s <= at_s and one.ended is None:
                        one.ended = self._ended(one)
                bad = [one for one in awaited if one.ended and not one.ended.is_complete]
                if step.takes_errors or not bad:
                    break
                if not resets:
                    raise ChildError(", ".join(one.key for one in bad))
                resets -= 1
                self._reset(asked, at_s)
            state = step.state.model_dump_json()
            sizes.append(len(state))
            now = Now(
                BEGIN + timedelta(seconds=at_s),
                iteration,
                {one.key: one.ended for one in awaited if one.ended},
                frozenset(one.key for one in awaited if not one.ended),
            )
            states = (
                service.State.model_validate_json(state),
                service.State.model_validate(json.loads(state)),
            )
            decided = [
                service.advance(spec, kept, now) for spec, kept in zip(specs, states, strict=True)
            ]
        raise AssertionError("the service does not come to an end")

    def _reset(self, asked: Mapping[str, Asked], at_s: float) -> None:
        for one in asked.values():
            if one.ended and not one.ended.is_complete:
                one.ended, one.ends_s = None, at_s + self.duration_s(one.key)

    def _ended(self, one: Asked) -> Ended:
        kwargs = self._put_in_place(one.child.kwargs)
        try:
            result = self._compute(one.child, cast("dict[str, Any]", kwargs))
        except Exception as error:
            said = (type(error).__name__, str(error))
            return Ended(one.record_id, Status.error, None, _nothing, *said)
        encoded = json.dumps(result, allow_nan=False)
        digest = hashlib.sha256(encoded.encode()).digest()
        self._payloads[digest] = encoded
        if result is None:  # a runner may have nothing stored, and nothing to read
            return Ended(one.record_id, Status.complete, None, _nothing)
        payload = Payload(digest=digest, size_bytes=len(encoded))
        return Ended(one.record_id, Status.complete, payload, lambda: json.loads(encoded))

    def _compute(self, child: Child, kwargs: dict[str, Any]) -> Any:
        if child.kind is Kind.service:
            return self.run(child.function, kwargs).result
        functions = provided("recordledger.functions") | dict(self.functions)
        return functions[child.function](**kwargs)

    def _put_in_place(self, value: Any) -> Any:
        match value:
            case Reference(payload, path):
                found = json.loads(self._payloads[payload.digest])
                for step in path:
                    found = found[step]
                return found
            case dict():
                pairs = cast("dict[str, Any]", value).items()
                return {key: self._put_in_place(item) for key, item in pairs}
            case list():
                return [self._put_in_place(item) for item in cast("list[object]", value)]
            case _:
                return value


def always(found: Any) -> Callable[..., Any]:
    """Return a function that returns this, whatever it is given."""

    def function(**_: Any) -> Any:
        return found

    return function


def _next_s(step: Wait[Any], awaited: list[Asked]) -> float:
    """Return when the service goes on, at the earliest."""
    assert awaited or step.wake_at, "it waits for nothing"
    times = [one.ends_s for one in awaited]
    wanted = (max if step.until == "all" else min)(times, default=float("inf"))
    if step.wake_at is None:
        return wanted
    return min(wanted, (step.wake_at - BEGIN).total_seconds())


def _nothing() -> Any:
    raise AssertionError("there is no result")
