"""The tables `operations` and `operation_changes`: what was done to records, by whom, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from recordledger.domain.errors import OperationNotFound
from recordledger.domain.events import Event
from recordledger.domain.streams import Stream

from .database import Db
from .mapper import Recorded
from .statements import statements

_SQL = statements("operations")


class OperationRow(NamedTuple):
    """An operation: what was asked for, by whom, why and when, and how much it changed."""

    id: UUID
    action: str
    actor: str
    reason: str | None
    started_at: datetime
    undoes: UUID | None
    n_changes: int


def write(db: Db, happened: Iterable[Recorded]) -> None:
    """Add the operations that these events belong to, and what each of them changed."""
    managed = [
        recorded
        for recorded in happened
        if recorded.stream is Stream.record and recorded.event.action is not None
    ]
    if not managed:
        return
    counts = Counter(recorded.event.operation_id for recorded in managed)
    firsts: dict[UUID, Event] = {}
    for recorded in managed:
        event = recorded.event
        if event.timestamp <= firsts.setdefault(event.operation_id, event).timestamp:
            firsts[event.operation_id] = event
    ids = sorted(counts)
    found = [firsts[id_] for id_ in ids]
    parameters: dict[str, list[Any]] = {
        "ids": ids,
        "actions": [event.action for event in found],
        "actors": [event.actor for event in found],
        "reasons": [event.reason for event in found],
        "times": [event.timestamp for event in found],
        "undoes": [event.undoes for event in found],
        "counts": [counts[id_] for id_ in ids],
    }
    db.execute(_SQL["add"], parameters, prepare=True)
    parameters = {
        "operation_ids": [recorded.event.operation_id for recorded in managed],
        "record_ids": [recorded.number for recorded in managed],
        "versions": [recorded.version for recorded in managed],
    }
    db.execute(_SQL["add_changes"], parameters, prepare=True)


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
