"""What can be read: records, histories, payloads and counts, a page at the most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from recordledger.domain.errors import RecordNotFound
from recordledger.domain.record import Record
from recordledger.domain.status import Status
from recordledger.domain.streams import Stream

from . import payloads, records, status_counts
from .ledger import Ledger, Placed
from .statements import shipped, statements

_SQL = statements("queries")
_LOG_SQL = statements("ledger_events")


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records: those that meet every condition that is not None."""

    ids: tuple[int, ...] | None = None
    status: tuple[Status, ...] | None = None
    tag: tuple[str, ...] | None = None
    owner: tuple[str, ...] | None = None
    manager_id: tuple[int, ...] | None = None
    function: tuple[str, ...] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    modified_after: datetime | None = None
    modified_before: datetime | None = None


# How each condition reads in SQL. A list of one becomes an equality, which an index on
# (column, id) answers in the order of ids without sorting.
_IN: Final[dict[str, LiteralString]] = {
    "ids": "r.id",
    "status": "r.status",
    "tag": "r.tag",
    "owner": "r.owner",
    "manager_id": "r.manager_id",
    "function": "r.function",
}
_COMPARE: Final[dict[str, LiteralString]] = {
    "created_after": "r.created_at >= %(created_after)s",
    "created_before": "r.created_at < %(created_before)s",
    "modified_after": "r.modified_at >= %(modified_after)s",
    "modified_before": "r.modified_at < %(modified_before)s",
}


def get_records(ledger: Ledger, ids: Iterable[int]) -> dict[int, Record]:
    """Return the records with these ids that exist, by id.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    wanted = sorted(set(ids))
    with ledger.datastore.reading() as db:
        return {record.id: record for record in records.get(db, wanted, ledger.lanes)}


def query_records(
    ledger: Ledger, which: RecordFilter, limit: int, before_id: int | None = None
) -> list[Record]:
    """Return at most `limit` records, newest first, with ids below `before_id`.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    sql, parameters = page_sql(which, limit, before_id)
    with ledger.datastore.reading() as db:
        rows = db.execute(sql, parameters).fetchall()
        return records.from_rows(db, rows, ledger.lanes)


def page_sql(
    which: RecordFilter, limit: int, before_id: int | None
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page of a query, and its parameters.

    With several statuses, one page of each is read through the index and the pages are merged:
    `status = ANY (...) ORDER BY id` would read and sort everything in these statuses.
    """
    conditions: list[LiteralString] = []
    parameters: dict[str, Any] = {"limit": limit}
    for name, column in _IN.items():
        values = getattr(which, name)
        if values is None:
            continue
        parameters[name] = values[0] if len(values) == 1 else list(values)
        if name == "status" and len(values) > 1:
            conditions.append("r.status = each.status")
        else:
            place: LiteralString = "%(" + shipped(name) + ")s"
            conditions.append(column + (" = " + place if len(values) == 1 else f" = ANY({place})"))
    for name, comparison in _COMPARE.items():
        if getattr(which, name) is not None:
            parameters[name] = getattr(which, name)
            conditions.append(comparison)
    if before_id is not None:
        parameters["before_id"] = before_id
        conditions.append("r.id < %(before_id)s")
    several = which.status is not None and len(which.status) > 1
    text = _SQL["page_of_several_statuses" if several else "page"]
    where: LiteralString = " AND ".join(conditions) or "true"
    columns: list[LiteralString] = ["r." + name for name in records.COLUMNS]
    return shipped(text.format(columns=", ".join(columns), where=where)), parameters


def history(ledger: Ledger, record_id: int) -> list[Placed]:
    """Return every event of a record with its position, oldest first.

    Raises:
        RecordNotFound: it has none.
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        placed = ledger.history(db, Stream.record, record_id)
    if not placed:
        raise RecordNotFound(record_id)
    return placed


def payload_contents(ledger: Ledger, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the contents of payloads by digest; those that were destroyed are left out.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        return payloads.load(db, digests)


def counts(ledger: Ledger) -> dict[Status, int]:
    """Return how many records are in each status, zeros included.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        return dict.fromkeys(Status, 0) | status_counts.by_status(db)


def ledger_id(ledger: Ledger) -> UUID:
    """Return which ledger this is; cursors and exports of another one are told apart by it.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    found: UUID = _one(ledger, _SQL["ledger_id"])
    return found


def head(ledger: Ledger) -> int:
    """Return the newest position of the log; 0 if it is empty.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    return int(_one(ledger, _LOG_SQL["head"]))


def _one(ledger: Ledger, sql: LiteralString, parameters: Sequence[Any] = ()) -> Any:
    with ledger.datastore.reading() as db:
        row = db.execute(sql, parameters).fetchone()
    assert row is not None  # noqa: S101 - these statements return one row
    return row[0]
