"""Why a record is where it is, and what waits."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager_state import ManagerState

from .base import Answer
from .fields import PriorityName


class LackOut(Answer):
    """A required program that a manager does not have as it is required.

    `version` is the one that it has; None if it is absent, or if nobody knows.
    """

    requirement: str
    is_absent: bool
    version: str | None


class NearestOut(Answer):
    """A manager that can take a task, or would need least to be able to."""

    manager_id: int
    name: str
    state: ManagerState
    tags: list[str]
    claims_tag: bool
    lacks: list[LackOut]
    suspended_until: AwareDatetime | None
    heartbeat_at: AwareDatetime | None


class WhyAnswer(Answer):
    """Why a record is where it is; what does not apply is None or empty.

    `code` is stable, `text` says it in words, and `remedy` is the command that would change it.
    `n_before` counts tasks of the same tag and programs that are claimed before, up to 1,001.
    """

    record_id: int
    status: Status | None = Field(description="None: it was erased.")
    code: str
    text: str
    remedy: str | None
    nearest: list[NearestOut] = Field(
        description="Managers that can take it, or lack least for it; at most five."
    )
    retry_at: AwareDatetime | None
    retries: int | None
    retries_used: int | None
    error_type: str | None
    error_message: str | None
    tag: str | None
    required_programs: list[str]
    claimed_tags: list[str]
    n_able: int | None
    n_waiting: int | None
    n_before: int | None
    manager_id: int | None
    attempt: int | None
    started_at: AwareDatetime | None
    heartbeat_at: AwareDatetime | None
    lease_expires_at: AwareDatetime | None
    at: AwareDatetime | None
    actor: str | None
    reason: str | None
    operation_id: str | None
    caused_by: int | None
    children: dict[Status, int]


class OldestOut(Answer):
    """The oldest task of a priority that can be claimed."""

    record_id: int
    created_at: AwareDatetime


class QueueLaneOut(Answer):
    """Tasks of one tag that require the same programs, and who could take them.

    `n_waiting` counts pausing tasks and services too; `oldest` is of what can be claimed, by
    priority. `blocked` is the code of why no manager can take them; None if one can.
    """

    tag: str
    required_programs: list[str]
    n_waiting: int
    n_running: int
    n_paused: int
    oldest_id: int | None
    oldest_created_at: AwareDatetime | None
    oldest: dict[PriorityName, OldestOut]
    n_managers: int
    manager_ids: list[int] = Field(description="At most five of those that can take them.")
    blocked: str | None


class QueueAnswer(Answer):
    """The lanes with tasks to claim: first those that nobody can take, then the deepest.

    The totals count lanes that are left out as well; `n_managers` are alive.
    """

    lanes: list[QueueLaneOut]
    n_lanes: int
    n_blocked: int
    n_waiting: int
    n_paused: int
    n_managers: int
