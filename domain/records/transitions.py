"""The whole state machine of a record, as data.

Tests, the diagram in the docs, the database's CHECK and the refusals derive from `TRANSITIONS`.
Replay reads it too: add rows, never remove one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from . import events as e
from .events import Event
from .status import Status


class Destination(Enum):
    """Where an event leads when that is not one fixed status."""

    prior = "what it was"
    unchanged = "unchanged"
    gone = "gone"
    stated = "what the event says"


S = Status
_any: Final = tuple(Status)
_unfinished: Final = (S.waiting, S.running, S.error, S.held)
# What `Reverted` leads from, and all that it may say that it leads to.
REVERTIBLE: Final = (S.waiting, S.held, S.complete, S.error, S.failed)
_not_deleted: Final = tuple(status for status in Status if status is not S.deleted)
# What nobody begins to run because of it: an import leaves it as it is.
_settled: Final = (S.complete, S.error, S.cancelled, S.deleted, S.invalid, S.failed)


def _rows(
    *rules: tuple[Iterable[Status | None], type[Event], Status | Destination],
) -> Iterator[tuple[tuple[Status | None, type[Event]], Status | Destination]]:
    for sources, event_type, target in rules:
        for source in sources:
            yield (source, event_type), target


# fmt: off
TRANSITIONS: Final[Mapping[tuple[Status | None, type[Event]], Status | Destination]] = dict(_rows(
    ((None,),                              e.Created,         S.waiting),
    ((S.waiting,),                         e.Claimed,         S.running),
    ((S.waiting,),                         e.ServiceStarted,  S.running),
    ((S.running,),                         e.ServiceIterated, S.running),
    ((S.running,),                         e.Completed,       S.complete),
    ((S.running,),                         e.Errored,         S.error),
    ((*_unfinished, S.failed),             e.ResultAdopted,   S.complete),
    ((S.running,),                         e.LeaseExpired,    S.waiting),
    ((S.running,),                         e.ManagerLost,     S.waiting),
    ((S.running,),                         e.Relinquished,    S.waiting),
    ((S.error,),                           e.Reset,           S.waiting),
    ((S.waiting,),                         e.RetryDue,        Destination.unchanged),
    ((S.error,),                           e.Failed,          S.failed),
    ((S.failed,),                          e.Revived,         S.waiting),
    ((S.waiting,),                         e.Held,            S.held),
    ((S.held,),                            e.Released,        S.waiting),
    (_unfinished,                          e.Cancelled,       S.cancelled),
    ((S.cancelled,),                       e.Uncancelled,     Destination.prior),
    ((S.complete,),                        e.Invalidated,     S.invalid),
    ((S.invalid,),                         e.Uninvalidated,   S.complete),
    (_not_deleted,                         e.SoftDeleted,     S.deleted),
    ((S.deleted,),                         e.Undeleted,       Destination.prior),
    ((S.complete, S.error, S.failed,
      S.cancelled, S.invalid),             e.Resubmitted,     Destination.unchanged),
    (_any,                                 e.Commented,       Destination.unchanged),
    (_any,                                 e.LateResult,      Destination.unchanged),
    (_unfinished,                          e.Rerouted,        Destination.unchanged),
    (REVERTIBLE,                           e.Reverted,        Destination.stated),
    (_any,                                 e.Erased,          Destination.gone),
    ((S.waiting, S.running, S.held),       e.Imported,        S.held),
    (_settled,                             e.Imported,        Destination.unchanged),
))
# fmt: on

ENDS: Final[frozenset[type[Event]]] = frozenset(
    event_type
    for (source, event_type), target in TRANSITIONS.items()
    if source is Status.running and target not in (Status.running, Destination.unchanged)
)
"""The events that end an attempt, if one is running."""


def sources(event_type: type[Event]) -> tuple[Status | None, ...]:
    """Return the statuses in which an event of this type can happen; None is 'not there yet'."""
    return tuple(source for source, listed in TRANSITIONS if listed is event_type)


def remembered(status: Status) -> Status:
    """Return what a record becomes when it is brought back: a lost attempt does not resume."""
    return Status.waiting if status is Status.running else status
