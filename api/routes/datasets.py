"""Datasets as one reads them: what is in them, how far they are, their tables and histories."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from recordledger.domain.dataset import specifications_named
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.ledger import Placed
from recordledger.projections.reading import histories
from recordledger.projections.tables import datasets

from ..http.cursors import Cursor, Limit, Listing
from ..http.rendering import log_out
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.datasets import (
    DatasetAnswer,
    DatasetHistoryAnswer,
    DatasetsAnswer,
    DatasetStatusAnswer,
    EntriesAnswer,
    TableAnswer,
)
from .dataset_requests import (
    dataset_answer,
    dataset_out,
    entries_out,
    status_out,
    table_out,
)
from .histories import Wanted
from .records import Reader

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

DatasetId = Annotated[int, Path(ge=1, le=ID_MAX)]
LockedVersion = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="A locked version; what it is now if none.")
]


@router.get("", response_model=DatasetsAnswer)
@endpoint(Reader)
def list_datasets(
    call: Call,
    name: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the datasets, newest first, or the one of this name."""
    pages = call.pages(Stream.dataset)
    before = pages.last_id(cursor, ID_MAX)
    with call.desk.ledger.datastore.reading() as db:
        if name is None:
            found = datasets.page(db, limit + 1, before)
        else:
            named = datasets.id_of(db, name)
            found = [] if named is None else [datasets.get(db, named)]
        counts = datasets.counts_of_all(db, [each.id for each in found])
    shown, next_cursor = pages.cut(found, limit, lambda dataset: dataset.id)
    rows = [dataset_out(each, counts.get(each.id, {})) for each in shown]
    return {"datasets": rows, "next_cursor": next_cursor}


@router.get("/{dataset_id}", response_model=DatasetAnswer)
@endpoint(Reader)
def get_dataset(call: Call, dataset_id: DatasetId, version: LockedVersion = None) -> Reply:
    """Get a dataset, its locked versions, and the specifications that it has, or had."""
    with call.desk.ledger.datastore.reading() as db:
        return dataset_answer(db, datasets.get(db, dataset_id), version)


@router.get("/{dataset_id}/entries", response_model=EntriesAnswer)
@endpoint(Reader)
def list_entries(
    call: Call,
    dataset_id: DatasetId,
    content: Annotated[bool, Query(description="Whether with input and attributes.")] = True,
    version: LockedVersion = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of a dataset's entries, in the order in which they came."""
    desk, pages = call.desk, call.pages(Listing.entries)
    after = pages.last_id(cursor, 0)
    with desk.ledger.datastore.reading() as db:
        dataset = datasets.get(db, dataset_id)
        at = datasets.version_numbered(db, dataset, version)
        found = datasets.entries(db, dataset_id, at, after, limit + 1)
        if content:
            shown = entries_out(db, found[:limit], desk.settings.answer_bytes_max)
        else:
            shown = [{"name": entry.name} for entry in found[:limit]]
    _, next_cursor = pages.cut(found, len(shown), lambda entry: entry.number)
    return {"entries": shown, "next_cursor": next_cursor}


@router.get("/{dataset_id}/status", response_model=DatasetStatusAnswer)
@endpoint(Reader)
def get_dataset_status(call: Call, dataset_id: DatasetId) -> Reply:
    """Get how far a dataset is, by specification and in all. The counts are kept, not counted."""
    with call.desk.ledger.datastore.reading() as db:
        return status_out(datasets.get(db, dataset_id), datasets.counts(db, dataset_id))


@router.get("/{dataset_id}/table", response_model=TableAnswer)
@endpoint(Reader)
def get_dataset_table(
    call: Call,
    dataset_id: DatasetId,
    specification: Annotated[list[str] | None, Query(max_length=1_000)] = None,
    version: LockedVersion = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of a dataset's table: its entries with their records, and these' statuses.

    A locked version has the entries, specifications and records that it had; the statuses are
    those of now.
    """
    desk, pages = call.desk, call.pages(Listing.entries)
    after = pages.last_id(cursor, 0)
    with desk.ledger.datastore.reading() as db:
        dataset = datasets.get(db, dataset_id)
        at = datasets.version_numbered(db, dataset, version)
        known = {each.name: each for each in datasets.specifications(db, dataset_id, at)}
        columns = specifications_named(dataset.with_specifications(known), specification)
        found = datasets.entries(db, dataset_id, at, after, limit + 1)
        numbers = [each.number for each in columns]
        shown, next_cursor = pages.cut(found, limit, lambda entry: entry.number)
        rows = table_out(db, dataset_id, at, shown, numbers)
    return {
        "specifications": [each.name for each in columns],
        "rows": rows,
        "next_cursor": next_cursor,
    }


@router.get("/{dataset_id}/events", response_model=DatasetHistoryAnswer)
@endpoint(Reader)
def get_dataset_history(
    call: Call,
    dataset_id: DatasetId,
    wanted: Wanted,
    records: Annotated[
        bool, Query(description="Whether its records' events follow, record by record.")
    ] = False,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of a dataset's events, oldest first; of long lists only the beginning.

    With `records`, those of the records that it has now come after its own, record by record. A
    page may be empty before the end, for conditions are looked at in what was read.
    """
    ledger, pages = call.desk.ledger, call.pages(Listing.dataset_events)
    # Record 0 stands for the dataset itself.
    after = pages.last_pair(cursor)
    placed: list[Placed] = []
    with ledger.datastore.reading() as db:
        datasets.get(db, dataset_id)
        if after[0] == 0:
            own = ledger.history(db, Stream.dataset, dataset_id)[after[1] :]
            placed, is_last = own[:limit], not records and len(own) <= limit
        else:
            is_last = False
        if records and len(placed) < limit:
            room = limit - len(placed)
            found = histories.dataset_page(
                ledger, db, dataset_id, after if after[0] else (0, 0), room
            )
            placed += found
            is_last = len(found) < room
    next_cursor = None
    if not is_last and placed:
        last = placed[-1].recorded
        number = last.number if last.stream is Stream.record else 0
        next_cursor = pages.cursor((number, last.version))
    events = wanted.through(log_out(ledger, placed))
    return {"dataset_id": dataset_id, "events": events, "next_cursor": next_cursor}
