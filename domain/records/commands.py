"""What can be asked of a record. A command is refused or causes events, never both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .attempts import Attempt
from .events import Event, Kind, Outcome, Payload, Priority, Stamp
from .retries import NO_RETRY, Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make the record; it waits. `cause` is the service that asked for it, if one did."""

    stamp: Stamp
    kind: Kind
    spec: Payload
    function: str
    required_programs: tuple[str, ...]
    tag: str
    priority: Priority
    retry: Retry = NO_RETRY
    resubmission_of: int | None = None
    refers_to: tuple[Payload, ...] = ()
    cause: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Give the task to a manager until the lease expires."""

    stamp: Stamp
    manager_id: int
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Return the result or the error of an attempt.

    `past` is the attempt as the history has it; it is looked up only when the attempt is not
    the current one, and stays None when the record never had such an attempt. `auto_resets` and
    `adopt_late` are what the server's policies say: how many automatic resets a record may have
    whose error is of this type, and whether a late result may become the record's.
    """

    stamp: Stamp
    manager_id: int
    attempt: int
    outcome: Outcome
    past: Attempt | None = None
    auto_resets: int = 0
    adopt_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relinquish:
    """Give an attempt back unfinished."""

    stamp: Stamp
    manager_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseManager:
    """Take back the attempt of a manager that has fallen silent."""

    stamp: Stamp
    manager_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireLease:
    """Take back an attempt that its manager's heartbeats have not named for a whole lease."""

    stamp: Stamp
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRetryPause:
    """Let the record be claimed if the pause before its retry is over."""

    stamp: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class StartService:
    """Begin to iterate a waiting service."""

    stamp: Stamp
    runner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IterateService:
    """Give a running service its next state, and say what it waits for.

    The fields are those of `ServiceIterated`.
    """

    stamp: Stamp
    state: Payload
    children: tuple[int, ...]
    output: Payload | None = None
    keys: tuple[str, ...] | None = None
    awaits: tuple[str, ...] | None = None
    any_child: bool | None = None
    takes_errors: bool | None = None
    wake_at: datetime | None = None
    progress: float | None = None
    code_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishService:
    """End a running service, well or badly; `cause` is the child that made it an error."""

    stamp: Stamp
    outcome: Outcome
    cause: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Apply this action to the record if the rules allow it: cancel, reset, hold, comment ...

    One command, and one event, serve all records of an operation.
    """

    event: Event


ServiceCommand = StartService | IterateService | FinishService
ManagerCommand = Claim | Return | Relinquish | LoseManager | ExpireLease | EndRetryPause
RecordCommand = Create | ManagerCommand | ServiceCommand | Change
