"""What managers say of themselves: that they are there, what they have, and that they end."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from recordledger.domain.routing.manager_state import ManagerState

from .base import Answer, Message
from .claims import AttemptRef
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
    """The manager's id, new at every boot, and how often it must give a heartbeat."""

    manager_id: int
    lease_s: float
    heartbeat_s: float


class HeartbeatRequest(Message):
    """A heartbeat, with everything that the manager has and has not had acknowledged."""

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
