"""Managers: their sign of life, and how they are listed."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from recordledger.domain.routing.manager import ManagerState

from .base import Answer, Message
from .claims import AttemptRef
from .events import EventOut
from .fields import ShortText, Text


class RegisterRequest(Message):
    """How a manager presents itself. Seconds; None takes the server's defaults."""

    name: ShortText
    hostname: ShortText
    tags: list[str] = Field(min_length=1, max_length=100)
    programs: dict[ShortText, ShortText | None] = Field(
        default_factory=dict[str, str | None], max_length=1000
    )
    lease_s: float | None = Field(default=None, gt=0, le=86_400)
    heartbeat_s: float | None = Field(default=None, gt=0, le=86_400)


class RegisterAnswer(Answer):
    """The manager's id, new at every boot, and how often it must give a sign of life."""

    manager_id: int
    lease_s: float
    heartbeat_s: float


class HeartbeatRequest(Message):
    """A sign of life, with everything that the manager has and has not had acknowledged."""

    held: list[AttemptRef] = Field(default_factory=list[AttemptRef], max_length=100_000)


class HeartbeatAnswer(Answer):
    """Until when the lease runs, and which attempts are not the manager's any more.

    `draining`: the manager gets no more tasks, and shall end when it has none left.
    """

    lease_expires_at: AwareDatetime
    stale: list[AttemptRef]
    draining: bool = False


class DeactivateRequest(Message):
    """End a manager; what it has waits again."""

    reason: Text | None = None


class DrainRequest(Message):
    """Give a manager nothing more to do; it ends when it has finished what it has."""

    reason: Text | None = None


class DrainAnswer(Answer):
    """What the manager is now: draining, or what it was if it has ended."""

    state: ManagerState


class ProgramsRequest(Message):
    """All programs that the manager has now, name to version."""

    programs: dict[ShortText, ShortText | None] = Field(max_length=1000)


class ProgramsAnswer(Answer):
    """Whether they are others than before."""

    changed: bool


class SuspensionOut(Answer):
    """Why a manager gets no tasks of a program, and until when.

    `n_times` counts suspensions on end, `n_failures` the failures in a row. At `until` one task is
    tried; `probing` says that one is.
    """

    program: str
    n_times: int
    n_failures: int
    error_type: str
    since: AwareDatetime
    until: AwareDatetime
    probing: bool


class RescuedOut(Answer):
    """Results of one kind: how many, and what computing them had taken."""

    n_results: int
    compute_s: float
    core_hours: float


class RescuesAnswer(Answer):
    """Results that came when their attempt was over, and those of them that were adopted."""

    late: RescuedOut
    adopted: RescuedOut


class ManagerOut(Answer):
    """A manager as it is now."""

    id: int
    state: ManagerState
    name: str
    hostname: str
    owner: str
    tags: list[str]
    programs: dict[str, str | None]
    suspended: list[SuspensionOut] = Field(default_factory=list[SuspensionOut])
    lease_s: float
    heartbeat_s: float
    registered_at: AwareDatetime
    modified_at: AwareDatetime
    heartbeat_at: AwareDatetime | None = None
    lease_expires_at: AwareDatetime | None = None


class ManagersAnswer(Answer):
    """One page of managers; `next_cursor` is None on the last."""

    managers: list[ManagerOut]
    next_cursor: str | None


class ManagerHistoryAnswer(Answer):
    """Every event of one manager, oldest first."""

    manager_id: int
    events: list[EventOut]
