"""The life of a record, as periods."""

from __future__ import annotations

from pydantic import AwareDatetime

from recordledger.domain.records.status import Status

from .base import Answer


class PeriodOut(Answer):
    """A time in which a record was in one status, and in one attempt if it ran.

    `end` is null while it is so, and `duration_s` then goes up to now. `began_by` and `ended_by`
    are kinds of events. `is_pause`: it could not be claimed before the time of a retry had come.
    """

    status: Status
    start: AwareDatetime
    end: AwareDatetime | None
    duration_s: float
    attempt: int | None
    manager_id: int | None
    is_pause: bool
    began_by: str
    ended_by: str | None


class TimelineAnswer(Answer):
    """The life of one record, as periods without gaps, and what the time is by the ledger."""

    record_id: int
    as_of: AwareDatetime
    periods: list[PeriodOut]
