"""What can be read: records, histories, payloads and counts, a page at the most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, LiteralString, NamedTuple
from uuid import UUID

from recordledger.domain.errors import ManagerNotFound, RecordNotFound
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream

from ..ledger import Ledger, Placed
from ..store.database import one
from ..store.statements import shipped, statements
from ..tables import payloads, records, status_counts
from ..tables.late_results import Rescued, totals

_SQL = statements("reading.queries")
_LOG_SQL = statements("log.ledger_events")


@dataclass(frozen=True, slots=True)
class DatasetCells:
    """Some cells of a dataset, all by number; None for all of them."""

    dataset_id: int
    specifications: tuple[int, ...] | None = None
    entries: tuple[int, ...] | None = None


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
    cells: DatasetCells | None = None


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


def get_records(ledger: Ledger, ids: Iterable[int]) -> dict[int, RecordAggregate]:
    """Return the records with these ids that exist, by id.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    wanted = sorted(set(ids))
    with ledger.datastore.reading() as db:
        return {record.id: record for record in records.get(db, wanted, ledger.lanes)}


def query_records(
    ledger: Ledger, which: RecordFilter, limit: int, before_id: int | None = None
) -> list[RecordAggregate]:
    """Return at most `limit` records, newest first, with ids below `before_id`.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    sql, parameters = page_sql(which, limit, before_id)
    with ledger.datastore.reading() as db:
        # Planned for these values: a plan for any status and any limit may read the whole table.
        rows = db.execute(sql, parameters, prepare=False).fetchall()
        return records.from_rows(db, rows, ledger.lanes)


def select_ids(ledger: Ledger, which: RecordFilter, limit: int) -> list[int]:
    """Return the ids of at most `limit` records that meet every condition, ascending.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    conditions, parameters = conditions_of(which)
    where: LiteralString = " AND ".join(conditions) or "true"
    source = _source(which.cells, parameters, "ASC")
    sql = shipped(_SQL["ids"].format(source=source, where=where, key=_key(which.cells)))
    with ledger.datastore.reading() as db:
        # Planned for these values, as the pages.
        rows = db.execute(sql, parameters | {"limit": limit}, prepare=False)
        return [row[0] for row in rows]


class ErrorGroupRow(NamedTuple):
    """Records in error with the same type and message; `newest_ids` are a few of them."""

    error_type: str | None
    error_message: str | None
    n_records: int
    newest_ids: list[int]
    newest_at: datetime | None


def error_groups(ledger: Ledger, limit: int, *, among: int = 100_000) -> list[ErrorGroupRow]:
    """Return how many of the newest `among` records in error say the same, most frequent first.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    parameters = {"among": among, "limit": limit}
    with ledger.datastore.reading() as db:
        return [ErrorGroupRow(*row) for row in db.execute(_SQL["error_groups"], parameters)]


def page_sql(
    which: RecordFilter, limit: int, before_id: int | None
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page of a query, and its parameters.

    With several statuses, one page of each is read through the index and the pages are merged:
    `status = ANY (...) ORDER BY id` would read and sort everything in these statuses. Each is a
    query of its own, so that PostgreSQL sees the status and knows how many records are in it.
    """
    # A status that is named twice has one page.
    statuses = list(dict.fromkeys(which.status or ()))
    if len(statuses) > 1:
        which = replace(which, status=None)
    else:
        statuses = []
    conditions, parameters = conditions_of(which)
    parameters["limit"] = limit
    if before_id is not None:
        parameters["before_id"] = before_id
        conditions.append("r.id < %(before_id)s")
    columns: LiteralString = ", ".join("r." + name for name in records.COLUMNS)
    source, key = _source(which.cells, parameters, "DESC"), _key(which.cells)

    def page(*more: LiteralString) -> LiteralString:
        where: LiteralString = " AND ".join([*conditions, *more]) or "true"
        return shipped(_SQL["page"].format(columns=columns, source=source, where=where, key=key))

    if not statuses:
        return page(), parameters
    pages: list[LiteralString] = []
    for number, status in enumerate(statuses):
        parameter = shipped(f"status_{number}")
        parameters[parameter] = status
        pages.append("(" + page("r.status = %(" + parameter + ")s") + ")")
    return shipped(_SQL["merged"].format(pages=" UNION ALL ".join(pages))), parameters


def _source(
    cells: DatasetCells | None, parameters: dict[str, Any], direction: Literal["ASC", "DESC"]
) -> LiteralString:
    """Return what is read: all records, or those of a dataset in the order of their ids.

    A record that is in several cells is there once. What the page before has left is told to the
    inner query too, which reads an index from there.
    """
    if cells is None:
        return "records r"
    parameters["dataset_id"] = cells.dataset_id
    conditions: list[LiteralString] = [
        "dataset_id = %(dataset_id)s",
        "removed_in IS NULL",
    ]
    if "before_id" in parameters:
        conditions.append("record_id < %(before_id)s")
    if cells.specifications is not None:
        parameters["specifications"] = list(cells.specifications)
        conditions.append("specification = ANY(%(specifications)s::integer[])")
    if cells.entries is not None:
        parameters["entries"] = list(cells.entries)
        conditions.append("entry = ANY(%(entries)s::integer[])")
    where: LiteralString = " AND ".join(conditions)
    return shipped(_SQL["of_dataset"].format(where=where, direction=direction))


def _key(cells: DatasetCells | None) -> LiteralString:
    """Return by what the rows of `_source` are ordered."""
    return "r.id" if cells is None else "d.record_id"


def conditions_of(which: RecordFilter) -> tuple[list[LiteralString], dict[str, Any]]:
    """Return a filter's conditions in SQL, and their parameters."""
    conditions: list[LiteralString] = []
    parameters: dict[str, Any] = {}
    for name, column in _IN.items():
        given = getattr(which, name)
        if given is None:
            continue
        values = list(dict.fromkeys(given))
        parameters[name] = values[0] if len(values) == 1 else values
        place: LiteralString = "%(" + shipped(name) + ")s"
        conditions.append(column + (" = " + place if len(values) == 1 else f" = ANY({place})"))
    for name, comparison in _COMPARE.items():
        if getattr(which, name) is not None:
            parameters[name] = getattr(which, name)
            conditions.append(comparison)
    return conditions, parameters


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


def manager_history(ledger: Ledger, manager_id: int) -> list[Placed]:
    """Return every event of a manager with its position, oldest first.

    Raises:
        ManagerNotFound: it has none.
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        placed = ledger.history(db, Stream.manager, manager_id)
    if not placed:
        raise ManagerNotFound(manager_id)
    return placed


def payload_contents(ledger: Ledger, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the contents of payloads by digest; those that were destroyed are left out.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    wanted = set(digests)
    if not wanted:
        return {}
    with ledger.datastore.reading() as db:
        return payloads.load(db, wanted)


def payload_sizes(ledger: Ledger, digests: Iterable[bytes]) -> dict[bytes, int]:
    """Return how large payloads are, by digest; those that were destroyed are left out.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        return payloads.sizes(db, digests)


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


def now(ledger: Ledger) -> datetime:
    """Return the ledger's time, which is the database's.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    found: datetime = _one(ledger, _LOG_SQL["now"])
    return found


def head(ledger: Ledger) -> int:
    """Return the newest position of the log; 0 if it is empty.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    return int(_one(ledger, _LOG_SQL["head"]))


def _one(ledger: Ledger, sql: LiteralString, parameters: Sequence[Any] = ()) -> Any:
    with ledger.datastore.reading() as db:
        return one(db, sql, parameters)[0]


def rescues(ledger: Ledger) -> dict[str, Rescued]:
    """Return how many results came late, and how many of these were adopted.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with ledger.datastore.reading() as db:
        return totals(db)
