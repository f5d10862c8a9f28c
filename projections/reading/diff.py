"""What changed between two moments: which records, from which status to which, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, NamedTuple

from recordledger.domain.records.events import Event
from recordledger.domain.records.status import Status

from ..ledger import Ledger
from ..store.database import Db
from ..store.statements import shipped, statements
from . import timeline
from .as_of import Moment

_SQL: Final = statements("reading.diff")
_STATUSES: Final = tuple(Status)
# Of a record to which more has happened, only the newest is looked at for who did it.
NEWEST_MAX: Final = 20

Place = Status | None
"""A status, or None for a record that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFilter:
    """Which changes: those that meet every condition that is not None.

    `from_statuses` and `to_statuses` may have a None, for records that were not there. `tags` are
    met by a record that had one of them at any time between.
    """

    from_statuses: tuple[Place, ...] | None = None
    to_statuses: tuple[Place, ...] | None = None
    tags: tuple[str, ...] | None = None


EVERYTHING: Final = ChangeFilter()


class RecordDifference(NamedTuple):
    """How a record changed between two moments.

    Status and tag are None where it was not there. `newest` are its newest events, the last first.
    """

    record_id: int
    from_status: Place
    from_tag: str | None
    to_status: Place
    to_tag: str | None
    n_events: int
    newest: tuple[Event, ...]


class Between(NamedTuple):
    """Two moments, of which the first is not later than the second."""

    a: Moment
    b: Moment


def changes(
    ledger: Ledger,
    between: Between,
    limit: int,
    after_id: int = 0,
    which: ChangeFilter = EVERYTHING,
) -> list[RecordDifference]:
    """Return the changes of records with ids after `after_id`, at most `limit`, by id.

    Raises:
        TimelineBehind: what happened is not in tables yet.
    """
    timeline.reach(ledger, between.b.position)
    sql, parameters = ids_sql(between, limit, after_id, which)
    with ledger.datastore.reading() as db:
        # Planned for these values: how much lies between them decides about the index.
        ids = [row[0] for row in db.execute(sql, parameters, prepare=False)]
        return _changes_of(ledger, db, between, ids)


def ids_sql(
    between: Between, limit: int, after_id: int, which: ChangeFilter
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page, and its parameters."""
    parameters = _parameters(between) | {"after": after_id, "limit": limit}
    return shipped(_SQL["ids"].format(having=_having(which, parameters))), parameters


def counts(
    ledger: Ledger, between: Between, which: ChangeFilter = EVERYTHING
) -> dict[tuple[Place, Place], int]:
    """Return how many records went from one status to another; they may be the same.

    Raises:
        TimelineBehind: what happened is not in tables yet.
    """
    timeline.reach(ledger, between.b.position)
    parameters = _parameters(between)
    having = _having(which, parameters)
    sql = _SQL["counts"].format(
        from_status=_SQL["from_status"], to_status=_SQL["to_status"], having=having
    )
    with ledger.datastore.reading() as db:
        rows = db.execute(shipped(sql), parameters, prepare=False).fetchall()
    return {(_place(before), _place(after)): n for before, after, n in rows}


def _parameters(between: Between) -> dict[str, Any]:
    positions = {"a": between.a.position, "b": between.b.position}
    return positions | {"statuses": list(_STATUSES)}


def _having(which: ChangeFilter, parameters: dict[str, Any]) -> LiteralString:
    conditions: list[LiteralString] = []
    if which.from_statuses is not None:
        parameters["from_statuses"] = list(map(_number, which.from_statuses))
        conditions.append(_SQL["from_status"] + " = ANY(%(from_statuses)s::integer[])")
    if which.to_statuses is not None:
        parameters["to_statuses"] = list(map(_number, which.to_statuses))
        conditions.append(_SQL["to_status"] + " = ANY(%(to_statuses)s::integer[])")
    if which.tags is not None:
        parameters["tags"] = list(which.tags)
        conditions.append(_SQL["tagged"])
    return "\n   AND ".join(conditions) or "true"


def _number(place: Place) -> int:
    return 0 if place is None else _STATUSES.index(place) + 1


def _place(number: int) -> Place:
    return _STATUSES[number - 1] if number else None


def _changes_of(
    ledger: Ledger, db: Db, between: Between, ids: Sequence[int]
) -> list[RecordDifference]:
    parameters = {
        "ids": list(ids),
        "a": between.a.position,
        "b": between.b.position,
        "newest": NEWEST_MAX,
    }
    rows = db.execute(_SQL["rows"], parameters, prepare=True).fetchall()
    wanted = [position for row in rows for position in row[-1]]
    found = db.execute(_SQL["events"], {"positions": wanted}, prepare=True)
    event_of = ledger.event_mapper.event_of
    events = {position: event_of(topic, state) for position, topic, state in found}
    return [
        RecordDifference(
            record_id,
            None if old_status is None else Status(old_status),
            old_tag,
            None if new_status is None else Status(new_status),
            new_tag,
            n_events,
            tuple(events[position] for position in newest),
        )
        for record_id, old_status, old_tag, new_status, new_tag, n_events, newest in rows
    ]
