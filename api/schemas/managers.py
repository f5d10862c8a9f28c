"""Managers: their heartbeat, and how they are listed."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from recordledger.domain.routing.manager_state import ManagerState

from .base import Answer


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
