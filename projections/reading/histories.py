"""Histories of what is more than one aggregate: an operation, a dataset with records, a user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from recordledger.domain.streams import Stream, stream_number

from ..ledger import Ledger, Placed
from ..log import user_blocks
from ..log.mapper import Recorded
from ..store.database import Db
from ..store.statements import statements
from ..tables import jobs, operations
from .event_log import HIDDEN

_OPERATIONS_SQL = statements("tables.operations")
_DATASETS_SQL = statements("tables.datasets")

Place = tuple[int, int]
"""Where a page has ended that goes record by record: a record, and the version of its event."""


def of_operation(ledger: Ledger, operation_id: UUID, after: Place, limit: int) -> list[Placed]:
    """Return what an operation did to records, record by record, after a place; a page of it.

    Raises:
        OperationNotFound: there is none with this id.
    """
    with ledger.datastore.reading() as db:
        if jobs.of_operation(db, operation_id) is None:
            operations.get(db, operation_id)
        return operation_page(ledger, db, operation_id, after, limit)


def operation_page(
    ledger: Ledger, db: Db, operation_id: UUID, after: Place, limit: int
) -> list[Placed]:
    """Return a page of what an operation did, as `of_operation` does."""
    parameters = {"id": operation_id, "limit": limit, "record_id": after[0], "version": after[1]}
    return _placed(ledger, db.execute(_OPERATIONS_SQL["events"], parameters, prepare=True))


def dataset_page(ledger: Ledger, db: Db, dataset_id: int, after: Place, limit: int) -> list[Placed]:
    """Return a page of the events of the records that a dataset has, record by record."""
    parameters = {
        "dataset_id": dataset_id,
        "limit": limit,
        "record_id": after[0],
        "version": after[1],
    }
    return _placed(ledger, db.execute(_DATASETS_SQL["record_events"], parameters, prepare=True))


class UserPage(NamedTuple):
    """What a user did, and the position from which to go on; None if there is no more."""

    events: list[Placed]
    next_edge: int | None


def of_user(
    ledger: Ledger,
    user: str,
    limit: int,
    *,
    edge: int | None = None,
    newest_first: bool = True,
    kinds: Sequence[str] | None = None,
) -> UserPage:
    """Return what a user did to anything but tokens; a page, which may be empty and not the last.

    Args:
        ledger: where.
        user: by name.
        limit: maximum number of events.
        edge: the position where the page before has ended; None for the first page.
        newest_first: or oldest first.
        kinds: only these; None for all.
    """
    actor = user_blocks.USER + user
    with ledger.datastore.reading() as db:
        rows, next_edge = user_blocks.page(
            db,
            actor,
            limit,
            edge=edge,
            newest_first=newest_first,
            kinds=kinds,
            hidden=HIDDEN,
        )
    event_of = ledger.event_mapper.event_of
    found = [
        Placed(at, Recorded(*stream_number(id_), version, event_of(topic, bytes(state))))
        for at, id_, version, topic, state in rows
    ]
    return UserPage([each for each in found if each.recorded.event.actor == actor], next_edge)


def _placed(ledger: Ledger, rows: Iterable[Any]) -> list[Placed]:
    event_of = ledger.event_mapper.event_of
    return [
        Placed(at, Recorded(Stream.record, record_id, version, event_of(topic, bytes(state))))
        for record_id, version, at, topic, state in rows
    ]
