"""Attempts: one claim of a record each, and its outcome, read from the record's history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from . import events as e
from .events import Event, Outcome
from .transitions import ENDS


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim (or service start) of a record.

    Attributes:
        number: from 1; the fencing token.
        manager_id: who had it; None for a service, which the server itself runs.
        started_at: when it was claimed.
        ended_at: when it was over; None while it runs.
        ended_by: topic of the event that ended it; None while it runs.
        outcome: what was returned for it, in time or late; None if nothing ever came.
        late: whether the outcome came when the attempt was over.
    """

    number: int
    manager_id: int | None
    started_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    outcome: Outcome | None = None
    late: bool = False


def attempts(history: Iterable[Event]) -> dict[int, Attempt]:
    """Return the attempts of a record by number, in order, from its whole history."""
    found: dict[int, Attempt] = {}
    current: int | None = None

    def end(event: Event, outcome: Outcome | None = None) -> None:
        if current is not None:
            found[current] = replace(
                found[current],
                ended_at=event.timestamp,
                ended_by=event.topic,
                outcome=outcome,
            )

    for event in history:
        match event:
            case e.Claimed(attempt=number, manager_id=manager_id):
                found[number] = Attempt(number, manager_id, event.timestamp)
                current = number
            case e.ServiceStarted(attempt=number):
                found[number] = Attempt(number, None, event.timestamp)
                current = number
            case e.Completed(outcome=outcome) | e.Errored(outcome=outcome):
                end(event, outcome)
                current = None
            case e.LateResult(attempt=number, outcome=outcome):
                found[number] = replace(found[number], outcome=outcome, late=True)
            case _ if type(event) in ENDS:
                end(event)
                current = None
            case _:
                pass
    return found
