"""Records: submit, read, query, and their histories."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.access import Permission
from recordledger.domain.errors import RecordNotFound
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.domain.timeline import periods
from recordledger.projections import queries
from recordledger.projections.ledger import Ledger
from recordledger.projections.queries import RecordFilter

from ..auth import Visitor, allowed
from ..cursors import cursor_of, last_id_of
from ..datasets import cells_of
from ..desk import Call, desk_of
from ..histories import Wanted, in_utc
from ..openapi import gives, takes
from ..rendering import attempts_out, events_out, fitting, rendered, require_room
from ..schemas import (
    AttemptInclude,
    AttemptsAnswer,
    CountsAnswer,
    CreateAnswer,
    CreateRequest,
    GetAnswer,
    GetRequest,
    HistoryAnswer,
    Include,
    QueryAnswer,
    QueryRequest,
    RecordOut,
    RecordQuery,
    TimelineAnswer,
)
from ..submissions import create
from ..wire import Reply

router = APIRouter(prefix="/v1", tags=["records"])

RecordIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Reader = Annotated[Visitor, allowed(Permission.read)]
Submitter = Annotated[Visitor, allowed(Permission.submit)]

_FILTERS: Final = tuple(
    field.name for field in fields(RecordFilter) if field.name in RecordQuery.model_fields
)
_CREATE: Final[dict[str, Any]] = {
    "records": [
        {
            "function": "recordledger.workers.demo.functions:quadratic",
            "kwargs": {"x": 1.5},
            "required_programs": [],
            "tag": "default",
            "priority": "normal",
        }
    ],
    "reason": "first try",
}
_CREATED: Final[dict[str, Any]] = {
    "operation_id": "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70",
    "ids": [411],
    "inserted_idx": [0],
    "existing_idx": [],
    "errors": [],
}


@router.post(
    "/records",
    response_model=CreateAnswer,
    responses=gives(_CREATED),
    openapi_extra=takes(CreateRequest, example=_CREATE, changes=True),
)
async def create_records(request: Request, visitor: Submitter) -> Response:
    """Create records, in one operation; a wrong entry is refused and spoils no other.

    With `find_existing`, the oldest record of the same specification is given back instead of a
    new one, unless that record is cancelled, deleted or invalid.
    """
    return await desk_of(request).answer(request, visitor, create)


@router.post("/records/get", response_model=GetAnswer, openapi_extra=takes(GetRequest))
async def get_records(request: Request, visitor: Reader) -> Response:
    """Get records by id, in the order of the ids. Deleted ones are still there, as deleted."""
    return await desk_of(request).answer(request, visitor, _get)


@router.post("/records/query", response_model=QueryAnswer, openapi_extra=takes(QueryRequest))
async def query_records(request: Request, visitor: Reader) -> Response:
    """Get one page of the records that meet every condition given, newest first."""
    return await desk_of(request).answer(request, visitor, _query)


@router.get("/records/counts", response_model=CountsAnswer)
async def count_records(request: Request, visitor: Reader) -> Response:
    """Count the records in each status. The counts are kept, not counted: this is cheap."""

    def work(call: Call) -> Reply:
        return {"counts": queries.counts(call.desk.ledger)}

    return await desk_of(request).answer(request, visitor, work)


@router.get("/records/{record_id}", response_model=RecordOut)
async def get_record(
    request: Request,
    visitor: Reader,
    record_id: RecordIdInPath,
    include: Annotated[list[Include] | None, Query()] = None,
) -> Response:
    """Get one record; `include` names the payloads that shall come with it, and may be repeated."""

    def work(call: Call) -> Reply:
        ledger = call.desk.ledger
        found = queries.get_records(ledger, [record_id])
        if record_id not in found:
            raise RecordNotFound(record_id)
        return rendered(ledger, [found[record_id]], include or [])[0]

    return await desk_of(request).answer(request, visitor, work)


@router.get("/records/{record_id}/events", response_model=HistoryAnswer)
async def get_history(
    request: Request,
    visitor: Reader,
    record_id: RecordIdInPath,
    wanted: Wanted,
) -> Response:
    """Get the events of a record, oldest first: who did what, when and why; all or some.

    `kind` and `actor` may be repeated and are then met by any. Times are from `after`, and up to
    but without `before`.
    """

    def work(call: Call) -> Reply:
        placed = queries.history(call.desk.ledger, record_id)
        events = events_out(call.desk.ledger, placed)
        return {"record_id": record_id, "events": wanted.through(events)}

    return await desk_of(request).answer(request, visitor, work)


@router.get("/records/{record_id}/timeline", response_model=TimelineAnswer)
async def get_timeline(request: Request, visitor: Reader, record_id: RecordIdInPath) -> Response:
    """Get the life of a record as periods: in which status it was, from when to when."""

    def work(call: Call) -> Reply:
        ledger = call.desk.ledger
        placed = queries.history(ledger, record_id)
        now = queries.now(ledger)
        found = periods(each.recorded.event for each in placed)
        shown = [asdict(each) | {"duration_s": each.duration_s(now)} for each in found]
        return {"record_id": record_id, "as_of": now, "periods": shown}

    return await desk_of(request).answer(request, visitor, work)


@router.get("/records/{record_id}/attempts", response_model=AttemptsAnswer)
async def get_attempts(
    request: Request,
    visitor: Reader,
    record_id: RecordIdInPath,
    include: Annotated[list[AttemptInclude] | None, Query()] = None,
) -> Response:
    """Get every attempt of a record, with its own outcome; `include` as of a record."""

    def work(call: Call) -> Reply:
        desk = call.desk
        placed = queries.history(desk.ledger, record_id)
        found = attempts_out(desk.ledger, placed, include or [], desk.settings.answer_bytes_max)
        return {"record_id": record_id, "attempts": found}

    return await desk_of(request).answer(request, visitor, work)


def _get(call: Call) -> Reply:
    asked = call.parse(GetRequest)
    ledger = call.desk.ledger
    found = queries.get_records(ledger, asked.ids)
    if not asked.missing_ok:
        for record_id in asked.ids:
            if record_id not in found:
                raise RecordNotFound(record_id)
    shown = list(found.values())
    require_room(shown, asked.include, call.desk.settings.answer_bytes_max)
    rows = {row["id"]: row for row in rendered(ledger, shown, asked.include)}
    return {"records": [rows.get(record_id) for record_id in asked.ids]}


def _query(call: Call) -> Reply:
    asked = call.parse(QueryRequest)
    desk = call.desk
    before_id = None
    if asked.cursor is not None:
        before_id = last_id_of(asked.cursor, desk.ledger_id, Stream.record)
    # One more than the page, to know whether there is another page.
    which = filter_of(desk.ledger, asked.query)
    found = queries.query_records(desk.ledger, which, asked.limit + 1, before_id)
    n_shown = fitting(found[: asked.limit], asked.include, desk.settings.answer_bytes_max)
    shown = found[:n_shown]
    next_cursor = None
    if len(found) > n_shown:
        next_cursor = cursor_of(desk.ledger_id, Stream.record, shown[-1].id)
    return {"records": rendered(desk.ledger, shown, asked.include), "next_cursor": next_cursor}


def filter_of(ledger: Ledger, query: RecordQuery) -> RecordFilter:
    """Return a query's conditions as the ledger has them.

    Raises:
        DatasetNotFound: there is no such dataset.
        SpecificationNotFound: it has no such specification.
        EntryNotFound: it has no such entry.
    """
    conditions = {name: _condition(name, getattr(query, name)) for name in _FILTERS}
    return RecordFilter(**conditions, cells=cells_of(ledger, query))


def _condition(name: str, value: object) -> Any:
    if isinstance(value, list):
        values = cast("list[str]", value)
        return tuple(tag.lower() for tag in values) if name == "tag" else tuple(values)
    if isinstance(value, datetime):
        return in_utc(value, f"query.{name}")
    return value
