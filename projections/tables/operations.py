"""The tables `operations` and `operation_changes`: what was done to records, by whom, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from recordledger.domain.errors import OperationNotFound
from recordledger.domain.records.events import Event
from recordledger.domain.streams import Stream

from ..log.mapper import Recorded
from ..store.database import Db
from ..store.statements import statements
from .changes import Changes, EventOfMany, SharedChanges
from .table import CountedFrom, Owner, Parts, ProjectionTable

_SQL = statements("tables.operations")


class OperationRow(NamedTuple):
    """An operation: what was asked for, by whom, why and when, and how much it changed."""

    id: UUID
    action: str
    actor: str
    reason: str | None
    started_at: datetime
    undoes: UUID | None
    n_changes: int


class OperationPart(NamedTuple):
    """The operation of some events, and the event that describes it.

    That is the one of the earliest moment, and of these, which share a transaction, the last by
    record and version: so it does not matter in which order events are looked at.
    """

    row: OperationRow
    number: int
    version: int


def parts_of(changes: Changes) -> list[OperationPart]:
    """Return the operations that these events belong to, by id."""
    managed = _managed(changes)
    counts = Counter(recorded.event.operation_id for recorded in managed)
    speakers: dict[UUID, Recorded] = {}
    for recorded in managed:
        other = speakers.setdefault(recorded.event.operation_id, recorded)
        if _precedes(recorded, other):
            speakers[recorded.event.operation_id] = recorded
    return [
        OperationPart(
            _row(speakers[id_].event, counts[id_]), speakers[id_].number, speakers[id_].version
        )
        for id_ in sorted(counts)
    ]


def _managed(changes: Changes) -> list[Recorded]:
    """Return the events of records that belong to operations."""
    return [
        recorded
        for recorded in changes.happened
        if recorded.event.action is not None and recorded.stream is Stream.record
    ]


def _precedes(one: Recorded, other: Recorded) -> bool:
    if one.event.timestamp != other.event.timestamp:
        return one.event.timestamp < other.event.timestamp
    return (one.number, one.version) > (other.number, other.version)


def _row(event: Event, n_changes: int) -> OperationRow:
    assert event.action is not None  # noqa: S101 - only such events belong to operations
    return OperationRow(
        event.operation_id,
        event.action,
        event.actor,
        event.reason,
        event.timestamp,
        event.undoes,
        n_changes,
    )


def write(db: Db, changes: Changes) -> None:
    """Add the operations that these events belong to, and how much each of them changed."""
    _add(db, [part.row for part in parts_of(changes)])


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Add the operations of events that records share."""
    _add(db, [_row(each.event, len(each.ids)) for each in _managed_together(changes)])


def _add(db: Db, found: Sequence[OperationRow]) -> None:
    if found:
        rows = map(list[Any], zip(*found, strict=True))
        names: Sequence[str] = ("ids", "actions", "actors", "reasons", "times", "undoes", "counts")
        db.execute(_SQL["add"], dict(zip(names, rows, strict=True)), prepare=True)


def write_shared_changes(db: Db, changes: SharedChanges) -> None:
    """Add which records an event that they share has changed."""
    for each in _managed_together(changes):
        parameters = {
            "operation_id": each.event.operation_id,
            "record_ids": each.ids,
            "versions": each.versions,
        }
        db.execute(_SQL["add_shared_changes"], parameters, prepare=True)


def _managed_together(changes: SharedChanges) -> list[EventOfMany]:
    return [each for each in changes.events if each.event.action is not None]


TABLES: Final = (
    ProjectionTable(
        name="operations",
        key=("id",),
        counted=CountedFrom(sources=("operation_changes",), columns=("n_changes",)),
        actions=True,
        write=write,
        write_shared=write_shared,
        columns={
            "id": "uuid",
            "action": "text",
            "actor": "text",
            "reason": "text",
            "started_at": "timestamptz",
            "undoes": "uuid",
            "n_changes": "bigint",
            "number": "bigint",
            "version": "integer",
        },
        rows=lambda _, changes: [(*p.row, p.number, p.version) for p in parts_of(changes)],
        parts=Parts("operation_parts", _SQL["add_up"], {"number": "bigint", "version": "integer"}),
    ),
    # A change is an operation, a record, and the version of it that the operation made.
    ProjectionTable(
        name="operation_changes",
        key=("operation_id", "record_id", "version"),
        owner=Owner("record_id", Stream.record),
        actions=True,
        write_shared=write_shared_changes,
        columns={"operation_id": "uuid", "record_id": "bigint", "version": "integer"},
        rows=lambda _, changes: [
            (each.event.operation_id, each.number, each.version) for each in _managed(changes)
        ],
        key_last=True,
    ),
)


def get(db: Db, operation_id: UUID) -> OperationRow:
    """Return an operation.

    Raises:
        OperationNotFound: there is none with this id.
    """
    row = db.execute(_SQL["get"], {"id": operation_id}).fetchone()
    if row is None:
        raise OperationNotFound(operation_id)
    return OperationRow(*row)


def undone_by(db: Db, operation_id: UUID) -> list[UUID]:
    """Return the operations that undid this one, oldest first."""
    return [row[0] for row in db.execute(_SQL["undone_by"], {"id": operation_id})]


def page(
    db: Db,
    limit: int,
    *,
    actor: str | None = None,
    action: str | None = None,
    before: tuple[datetime, UUID] | None = None,
) -> list[OperationRow]:
    """Return operations, newest first, at most `limit`, before this place in that order."""
    before_at, before_id = before or (None, None)
    parameters = {
        "limit": limit,
        "actor": actor,
        "action": action,
        "before_at": before_at,
        "before_id": before_id,
    }
    return [OperationRow(*row) for row in db.execute(_SQL["page"], parameters)]


def changed_records(db: Db, operation_id: UUID, after: int, limit: int) -> list[int]:
    """Return ids above `after` of records that an operation changed, ascending."""
    parameters = {"id": operation_id, "after": after, "limit": limit}
    return [row[0] for row in db.execute(_SQL["changed_records"], parameters, prepare=True)]


def versions_in(db: Db, operation_id: UUID, record_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return, by record, which of its events belong to an operation."""
    parameters = {"id": operation_id, "record_ids": record_ids}
    found: dict[int, list[int]] = {}
    for record_id, version in db.execute(_SQL["of_records"], parameters, prepare=True):
        found.setdefault(record_id, []).append(version)
    return found
