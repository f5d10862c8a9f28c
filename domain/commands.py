"""What can be asked of a record. A command is refused or causes events, never both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .attempts import Attempt
from .events import Kind, Outcome, Payload, Priority, Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make the record; it waits."""

    stamp: Stamp
    kind: Kind
    spec: Payload
    function: str
    required_programs: tuple[str, ...]
    tag: str
    priority: Priority
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Give the task to a manager until the lease expires."""

    stamp: Stamp
    manager_id: int
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Hand in what came of an attempt.

    `past` is the attempt as the history has it; it is looked up only when the attempt is not
    the current one, and stays None when the record never had such an attempt.
    """

    stamp: Stamp
    manager_id: int
    attempt: int
    outcome: Outcome
    past: Attempt | None = None


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


RecordCommand = Create | Claim | Return | Relinquish | LoseManager | ExpireLease
