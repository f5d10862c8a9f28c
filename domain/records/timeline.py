"""A record's life as periods: in which status it was, from when to when, and who had it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from .events import Event
from .record import RecordAggregate, evolve
from .status import Status


@dataclass(frozen=True, slots=True)
class StatusPeriod:
    """A time in which a record was in one status, and in one attempt if it ran.

    Attributes:
        status: in which it was.
        start: from when.
        began_by: topic of the event that it began with.
        end: until when; None while it is so.
        ended_by: topic of the event that it ended with.
        attempt: which attempt ran; None if none did.
        manager_id: who had that attempt; None for a service's.
        is_pause: whether it could not be claimed before the time of a retry had come.
    """

    status: Status
    start: datetime
    began_by: str
    end: datetime | None = None
    ended_by: str | None = None
    attempt: int | None = None
    manager_id: int | None = None
    is_pause: bool = False

    def duration_s(self, now: datetime) -> float:
        """Return how long it was, in seconds; until `now` if it has not ended."""
        return max(0.0, ((self.end or now) - self.start).total_seconds())


def periods(history: Iterable[Event]) -> list[StatusPeriod]:
    """Return the periods of a record from its whole history, oldest first, without gaps.

    Each begins where the one before has ended. What changes neither status nor attempt (a comment,
    an iteration) is inside of one. A period may be of no length: an error that was reset at once.

    Raises:
        ImpossibleHistory: the log was damaged or rewritten.
    """
    found: list[StatusPeriod] = []
    record, before = RecordAggregate(0), None
    for event in history:
        record = evolve(record, event)
        after = _period_of(record, event)
        if _period_key(after) == _period_key(before):
            continue
        if found:
            # A clock that was set back does not make periods that end before they begin.
            moment = max(event.timestamp, found[-1].start)
            found[-1] = replace(found[-1], end=moment, ended_by=event.topic)
            after = after and replace(after, start=moment)
        if after is not None:
            found.append(after)
        before = after
    return found


def _period_of(record: RecordAggregate, event: Event) -> StatusPeriod | None:
    """Return the period that an event would begin; None if the record was erased."""
    if record.status is None:
        return None
    runs = record.status is Status.running
    return StatusPeriod(
        record.status,
        event.timestamp,
        event.topic,
        attempt=record.attempt if runs else None,
        manager_id=record.manager_id if runs else None,
        is_pause=record.status is Status.waiting and record.not_before is not None,
    )


def _period_key(period: StatusPeriod | None) -> tuple[Status, int | None, bool] | None:
    """Return what distinguishes consecutive periods."""
    return None if period is None else (period.status, period.attempt, period.is_pause)
