"""Services for tests. Each does what its specification says, so that a test can make it do it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from recordledger.domain.records.events import Kind
from recordledger.domain.specs.service import (
    Broken,
    Child,
    Done,
    Now,
    Reference,
    Service,
    Step,
    Wait,
)


class Strict(BaseModel):
    """A model that takes nothing it does not know."""

    model_config = ConfigDict(extra="forbid")


class FanSpec(Strict):
    n: int
    rounds: int = 1
    function: str = "psi4"
    tag: str | None = None
    takes_errors: bool = False
    shared: bool = True
    of: str = ""


class FanState(Strict):
    round: int = 1


class Fan(Service[FanSpec, FanState]):
    """Some tasks, as often as wanted; its result is what each of the last round returned."""

    name = "fan"
    version = "1"
    Spec = FanSpec
    State = FanState

    def start(self, spec: FanSpec, now: Now) -> Step[FanState]:
        return self._round(spec, 1)

    def advance(self, spec: FanSpec, state: FanState, now: Now) -> Step[FanState]:
        if state.round < spec.rounds:
            return self._round(spec, state.round + 1)
        results = {
            key: ended.result if ended.is_complete else str(ended.status)
            for key, ended in now.ended.items()
        }
        return Done(results, output=f"{len(results)} results\n")

    def _round(self, spec: FanSpec, number: int) -> Step[FanState]:
        children = {
            f"{number}/{x}": Child(
                spec.function,
                {"x": x, "round": number, "of": spec.of},
                tag=spec.tag,
                find_existing=spec.shared,
            )
            for x in range(spec.n)
        }
        return Wait(
            FanState(round=number),
            children,
            takes_errors=spec.takes_errors,
            output=f"round {number}\n",
            progress=(number - 1) / spec.rounds,
        )


class NestSpec(Strict):
    depth: int
    n: int = 2


class Nothing(Strict):
    pass


class Nest(Service[NestSpec, Nothing]):
    """Services in services; at the bottom there is a task."""

    name = "nest"
    version = "1"
    Spec = NestSpec
    State = Nothing

    def start(self, spec: NestSpec, now: Now) -> Step[Nothing]:
        if spec.depth == 0:
            return Wait(Nothing(), {"leaf": Child("psi4", {"n": spec.n})})
        below = {"depth": spec.depth - 1, "n": spec.n}
        return Wait(Nothing(), {"below": Child("nest", below, kind=Kind.service)})

    def advance(self, spec: NestSpec, state: Nothing, now: Now) -> Step[Nothing]:
        [ended] = now.ended.values()
        return Done({"depth": spec.depth, "below": ended.result})


class OddSpec(Strict):
    """`at` is the iteration in which it is odd."""

    how: str
    at: int = 1
    of: str = ""


class Odd(Service[OddSpec, FanState]):
    """Does what a service must not do."""

    name = "odd"
    version = "1"
    Spec = OddSpec
    State = FanState

    def start(self, spec: OddSpec, now: Now) -> Any:
        return self._step(spec, now)

    def advance(self, spec: OddSpec, state: FanState, now: Now) -> Any:
        return self._step(spec, now)

    def _step(self, spec: OddSpec, now: Now) -> Any:
        task = Child("psi4", {"x": "odd", "of": spec.of, "at": now.iteration})
        if now.iteration < spec.at:
            return Wait(FanState(round=now.iteration), {f"{now.iteration}": task})
        match spec.how:
            case "raises":
                raise ZeroDivisionError("nothing can be divided by it")
            case "exits":
                raise SystemExit(3)
            case "nothing":
                return None
            case "wrong state":
                return Wait(Nothing(), {"a": task})
            case "wrong child":
                return Wait(FanState(), {"a": {"function": "psi4"}})  # type: ignore[dict-item]
            case "child without a form":
                return Wait(FanState(), {"a": Child("psi4", {"x": object()})})
            case "child of no function":
                return Wait(FanState(), {"a": Child("no function", {})})
            case "old key":
                return Wait(FanState(), {"1": task})
            case "unknown key":
                return Wait(FanState(), {}, awaited=frozenset({"who"}))
            case "bad key":
                return Wait(FanState(), {"": task})
            case "result without a form":
                return Done(object())
            case "spawns":
                return Wait(FanState(), {f"{now.iteration}/{x}": task for x in range(30)})
            case "turns":
                return Wait(FanState())
            case "itself":
                own = spec.model_dump()
                return Wait(FanState(), {"me": Child("odd", own, kind=Kind.service)})
            case "deeper":
                deeper = {"how": "deeper", "of": spec.of + "."}
                return Wait(FanState(), {"a": Child("odd", deeper, kind=Kind.service)})
            case "gives up":
                return Broken("NoConvergence", "after 3 rounds", output="it does not converge\n")
            case _:
                return Done("odd")


class ClockSpec(Strict):
    wait_s: float
    until: Literal["all", "any"] = "all"
    n: int = 0


class Clock(Service[ClockSpec, FanState]):
    """Waits for some tasks, and for its alarm."""

    name = "clock"
    version = "1"
    Spec = ClockSpec
    State = FanState

    def start(self, spec: ClockSpec, now: Now) -> Step[FanState]:
        children = {str(x): Child("psi4", {"clock": x}) for x in range(spec.n)}
        wake_at = now.at + timedelta(seconds=spec.wait_s) if spec.wait_s else None
        return Wait(FanState(), children, until=spec.until, wake_at=wake_at)

    def advance(self, spec: ClockSpec, state: FanState, now: Now) -> Step[FanState]:
        if spec.until == "any" and now.open:
            done = f"{sorted(now.ended)}\n"
            return Wait(FanState(round=state.round + 1), awaited=now.open, until="any", output=done)
        return Done({"ended": sorted(now.ended), "open": sorted(now.open)})


class ChainSpec(Strict):
    start: float


class Chain(Service[ChainSpec, FanState]):
    """A second task takes the result of the first one by reference."""

    name = "chain"
    version = "1"
    Spec = ChainSpec
    State = FanState
    path: ClassVar[tuple[str, ...]] = ("energy",)

    def start(self, spec: ChainSpec, now: Now) -> Step[FanState]:
        return Wait(FanState(), {"first": Child("psi4", {"x": spec.start})})

    def advance(self, spec: ChainSpec, state: FanState, now: Now) -> Step[FanState]:
        if state.round == 1:
            first = now.ended["first"]
            assert first.payload is not None
            reference = Reference(first.payload, self.path)
            child = Child("psi4", {"x": {"y": [reference, 1]}})
            return Wait(FanState(round=2), {"second": child})
        return Done(now.ended["second"].result)


SERVICES: Mapping[str, type[Service[Any, Any]]] = {
    service.name: service for service in (Fan, Nest, Odd, Clock, Chain)
}
