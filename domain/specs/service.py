"""Services: workflows that the server advances, one decision at a time.

A service is a class. It never waits, computes little, and has no memory of its own: each decision
is made from its specification, the state that the previous decision returned, and what its children
have become. So a decision that was lost with its process is simply made again, and any iteration
can be looked at, or repeated, years later.

    class Scan(Service[ScanSpec, ScanState]):
        name = "scan"
        version = "1"

        def start(self, spec: ScanSpec, now: Now) -> Step[ScanState]:
            points = {str(x): Child(spec.function, {"x": x}) for x in spec.grid}
            return Wait(ScanState(), points, progress=0.0)

        def advance(self, spec: ScanSpec, state: ScanState, now: Now) -> Step[ScanState]:
            return Done({key: ended.result for key, ended in now.ended.items()})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from ..records.events import Kind, Payload, Priority
from ..records.status import Status

SpecT = TypeVar("SpecT", bound=BaseModel)
StateT = TypeVar("StateT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Child:
    """A record that a service wants: it inherits the service's tag and priority unless it says.

    Attributes:
        function, kwargs, required_programs: what to compute, as for any record; the name of a
            service if `kind` is `service`. `kwargs` is JSON, and may contain a `Reference`.
        find_existing: take a record of the same specification if there is one; several services
            may then wait for the same child.
    """

    function: str
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    required_programs: tuple[str, ...] = ()
    kind: Kind = Kind.task
    tag: str | None = None
    priority: Priority | None = None
    retries: int = 0
    retry_delay_s: float | None = None
    retry_on: tuple[str, ...] | None = None
    find_existing: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of a child that a service waited for.

    Attributes:
        status: complete, or one of those of which nothing can be expected: error, failed,
            cancelled, deleted, invalid.
        payload: where the result is; None without one.
        load: reads the result.
    """

    record_id: int
    status: Status
    payload: Payload | None
    load: Callable[[], Any]
    error_type: str | None = None
    error_message: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether there is a result."""
        return self.status is Status.complete

    @property
    def result(self) -> Any:
        """The result, as JSON says it; read when it is asked for."""
        return self.load()


@dataclass(frozen=True, slots=True)
class Now:
    """What a decision may know beside the specification and the state.

    Attributes:
        at: the database's time of this decision.
        iteration: its number, from 1 for `start`.
        ended: those of the awaited children that have ended, by key.
        open: the keys of the awaited children that have not.
    """

    at: datetime
    iteration: int
    ended: Mapping[str, Ended] = field(default_factory=dict[str, Ended])
    open: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wait(Generic[StateT]):
    """Go on when the children have ended.

    Attributes:
        state: all that the next decision has to know.
        children: new children by key, a key being new to this service; they are awaited.
        awaited: keys of older children that are awaited (again).
        until: whether all that are awaited must have ended, or any of them.
        wake_at: when to go on in any case.
        takes_errors: the service decides about children that have not ended well. Otherwise one of
            them makes the service an error, `ChildError`, which it leaves when that child is reset.
        output: what to add to what the service says (`stdout`).
        progress: from 0 to 1, if it is known.
    """

    state: StateT
    children: Mapping[str, Child] = field(default_factory=dict[str, Child])
    awaited: frozenset[str] = frozenset()
    until: Literal["all", "any"] = "all"
    wake_at: datetime | None = None
    takes_errors: bool = False
    output: str = ""
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The service is complete, with this result (JSON)."""

    result: Any
    output: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """The service cannot go on: it becomes an error. It goes on from its last state when reset."""

    error_type: str
    message: str
    output: str = ""


Step: TypeAlias = Wait[StateT] | Done | Broken


@dataclass(frozen=True, slots=True)
class Reference:
    """The result of another record, or a part of it, in the `kwargs` of a child.

    It is put in place when the child is claimed: the service copies nothing. The specification
    holds the digest, so the same inputs make the same specification.

    Attributes:
        payload: the result, as `Ended.payload` has it.
        path: keys and indices that lead to the wanted part.
    """

    payload: Payload
    path: tuple[str | int, ...] = ()


class Service(ABC, Generic[SpecT, StateT]):
    """A workflow, found under `name` among the entry points `recordledger.services`.

    Class attributes:
        name: the `function` of its records.
        version: of the code; a text that is changed when the meaning of a state changes.
        continues: earlier versions whose states this one can go on with, as they are. A service
            that has a state of any other version becomes the error `ServiceVersionMismatch`.
        Spec, State: what the specification's `kwargs` and the states are validated with.

    Both methods must decide the same if they are asked the same: no clock, no random numbers that
    are not seeded from the specification, nothing but their arguments.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    continues: ClassVar[frozenset[str]] = frozenset()
    Spec: ClassVar[type[BaseModel]]
    State: ClassVar[type[BaseModel]]

    @abstractmethod
    def start(self, spec: SpecT, now: Now) -> Step[StateT]:
        """Make the first decision."""

    @abstractmethod
    def advance(self, spec: SpecT, state: StateT, now: Now) -> Step[StateT]:
        """Make the next decision, from the state that the last one returned."""
