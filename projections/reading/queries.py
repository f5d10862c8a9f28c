"""What can be read: records, histories, payloads and counts, a page at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, LiteralString, NamedTuple
from uuid import UUID

from recordledger.domain.errors import ManagerNotFound, RecordNotFound
from recordledger.domain.records.filters import CONDITIONS, RecordFilter
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


def get_records(ledger: Ledger, ids: Iterable[int]) -> dict[int, RecordAggregate]:
    """Return the records with these ids that exist, by id."""
    wanted = sorted(set(ids))
    with ledger.datastore.reading() as db:
        return {record.id: record for record in records.get(db, wanted, ledger.lanes)}


def query_records(
    ledger: Ledger, which: RecordFilter, limit: int, before_id: int | None = None
) -> list[RecordAggregate]:
    """Return at most `limit` records, newest first, with ids below `before_id`."""
    sql, parameters = page_sql(which, limit, before_id)
    with ledger.datastore.reading() as db:
        # Planned for these values: a plan for any status and any limit may read the whole table.
        rows = db.execute(sql, parameters, prepare=False).fetchall()
        return records.from_rows(db, rows, ledger.lanes)


def select_ids(ledger: Ledger, which: RecordFilter, limit: int) -> list[int]:
    """Return the ids of at most `limit` records that meet every condition, ascending."""
    conditions, parameters = conditions_of(which)
    where: LiteralString = " AND ".join(conditions) or "true"
    source = _present(which, parameters, "ASC")
    sql = shipped(_SQL["ids"].format(source=source.text, where=where, key=source.key))
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
    """Return how many of the newest `among` records in error say the same, most frequent first."""
    parameters = {"among": among, "limit": limit}
    with ledger.datastore.reading() as db:
        return [ErrorGroupRow(*row) for row in db.execute(_SQL["error_groups"], parameters)]


class Source(NamedTuple):
    """What a page is read from.

    Attributes:
        text: tables and joins; the rows are called `r`.
        key: the column with the ids by which the rows are ordered.
        conditions: that the rows must meet besides those of the query.
    """

    text: LiteralString
    key: LiteralString = "r.id"
    conditions: tuple[LiteralString, ...] = ()


def page_sql(
    which: RecordFilter, limit: int, before_id: int | None
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page of a query, and its parameters."""
    columns: LiteralString = ", ".join("r." + name for name in records.COLUMNS)
    return page_of(which, limit, before_id, columns, _present)


def page_of(
    which: RecordFilter,
    limit: int,
    before_id: int | None,
    columns: LiteralString,
    source_of: Callable[[RecordFilter, dict[str, Any]], Source],
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page of records, newest first, and its parameters.

    With several statuses, one page of each is read through the index and the pages are merged:
    `status = ANY (...) ORDER BY id` would read and sort everything in these statuses. Each is a
    query of its own, so that PostgreSQL sees the status and knows how many records are in it.

    Args:
        which: the conditions.
        limit: the most rows.
        before_id: only ids below this one.
        columns: what to select of each row.
        source_of: returns what to read for these conditions; it may look at the parameters that
            there are, which have `before_id` then, and add its own.
    """
    # A status that is named twice has one page.
    statuses = list(dict.fromkeys(which.status or ()))
    merges = len(statuses) > 1
    conditions, parameters = conditions_of(replace(which, status=None) if merges else which)
    parameters["limit"] = limit
    if before_id is not None:
        parameters["before_id"] = before_id
        conditions.append("r.id < %(before_id)s")
    source = source_of(which, parameters)
    conditions += source.conditions

    def page(*more: LiteralString) -> LiteralString:
        where: LiteralString = " AND ".join([*conditions, *more]) or "true"
        sql = _SQL["page"].format(columns=columns, source=source.text, where=where, key=source.key)
        return shipped(sql)

    if not merges:
        return page(), parameters
    pages: list[LiteralString] = []
    for number, status in enumerate(statuses):
        parameter = shipped(f"status_{number}")
        parameters[parameter] = status
        pages.append("(" + page("r.status = %(" + parameter + ")s") + ")")
    return shipped(_SQL["merged"].format(pages=" UNION ALL ".join(pages))), parameters


def _present(
    which: RecordFilter, parameters: dict[str, Any], direction: Literal["ASC", "DESC"] = "DESC"
) -> Source:
    """Return all records, or those of a dataset in the order of their ids.

    A record that is in several cells is there once. What the page before has left is passed to the
    inner query too, which reads an index from there.
    """
    if which.dataset is None:
        return Source("records r")
    conditions: list[LiteralString] = ["removed_in IS NULL", *cells_of(which, parameters)]
    where: LiteralString = " AND ".join(conditions)
    return Source(
        shipped(_SQL["of_dataset"].format(where=where, direction=direction)), "d.record_id"
    )


def cells_of(which: RecordFilter, parameters: dict[str, Any]) -> list[LiteralString]:
    """Return the conditions on cells of the dataset in SQL; their parameters are added."""
    conditions: list[LiteralString] = ["dataset_id = %(dataset_id)s"]
    parameters["dataset_id"] = which.dataset
    if "before_id" in parameters:
        conditions.append("record_id < %(before_id)s")
    if which.specification is not None:
        parameters["specifications"] = list(which.specification)
        conditions.append("specification = ANY(%(specifications)s::integer[])")
    if which.entry is not None:
        parameters["entries"] = list(which.entry)
        conditions.append("entry = ANY(%(entries)s::integer[])")
    return conditions


def conditions_of(which: RecordFilter) -> tuple[list[LiteralString], dict[str, Any]]:
    """Return a filter's conditions on records in SQL, and their parameters.

    A list of one becomes an equality, which an index on (column, id) answers in the order of ids
    without sorting.
    """
    conditions: list[LiteralString] = []
    parameters: dict[str, Any] = {}
    for name, condition in CONDITIONS.items():
        given = getattr(which, name)
        if given is None or condition.attribute is None:
            continue
        column: LiteralString = "r." + condition.attribute
        place: LiteralString = "%(" + shipped(name) + ")s"
        if not condition.is_list:
            parameters[name] = given
            conditions.append(column + " " + condition.comparison + " " + place)
            continue
        values = list(dict.fromkeys(given))
        parameters[name] = values[0] if len(values) == 1 else values
        conditions.append(column + (" = " + place if len(values) == 1 else f" = ANY({place})"))
    return conditions, parameters


def history(ledger: Ledger, number: int, stream: Stream = Stream.record) -> list[Placed]:
    """Return every event of a record, or of a manager, with its position, oldest first.

    Raises:
        RecordNotFound: there is no such record.
        ManagerNotFound: there is no such manager.
    """
    with ledger.datastore.reading() as db:
        placed = ledger.history(db, stream, number)
    if not placed:
        raise _NOT_FOUND[stream](number)
    return placed


_NOT_FOUND: Final = {Stream.record: RecordNotFound, Stream.manager: ManagerNotFound}


def payload_contents(ledger: Ledger, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the contents of payloads by digest; those that were destroyed are left out."""
    wanted = set(digests)
    if not wanted:
        return {}
    with ledger.datastore.reading() as db:
        return payloads.load(db, wanted)


def payload_sizes(ledger: Ledger, digests: Iterable[bytes]) -> dict[bytes, int]:
    """Return how large payloads are, by digest; those that were destroyed are left out."""
    with ledger.datastore.reading() as db:
        return payloads.sizes(db, digests)


def counts(ledger: Ledger) -> dict[Status, int]:
    """Return how many records are in each status, zeros included."""
    with ledger.datastore.reading() as db:
        return dict.fromkeys(Status, 0) | status_counts.by_status(db)


def ledger_id(ledger: Ledger) -> UUID:
    """Return which ledger this is; cursors and exports of another one are distinguished by it."""
    found: UUID = _one(ledger, _SQL["ledger_id"])
    return found


def now(ledger: Ledger) -> datetime:
    """Return the ledger's time, which is the database's."""
    found: datetime = _one(ledger, _LOG_SQL["now"])
    return found


def head(ledger: Ledger) -> int:
    """Return the newest position of the log; 0 if it is empty."""
    return int(_one(ledger, _LOG_SQL["head"]))


def _one(ledger: Ledger, sql: LiteralString, parameters: Sequence[Any] = ()) -> Any:
    with ledger.datastore.reading() as db:
        return one(db, sql, parameters)[0]


def rescues(ledger: Ledger) -> dict[str, Rescued]:
    """Return how many results came late, and how many of these were adopted."""
    with ledger.datastore.reading() as db:
        return totals(db)
