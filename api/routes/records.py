"""Records: submit, read, query, and their histories."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import RecordNotFound
from recordledger.domain.records.filters import CONDITIONS, RecordFilter
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.timeline import periods
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import as_of as past
from recordledger.projections.reading import queries
from recordledger.projections.reading.as_of import Moment

from ..http.auth import Visitor, allowed
from ..http.cursors import Listing
from ..http.openapi import answer_body, request_body
from ..http.rendering import attempts_out, events_out, fitting, rendered, require_answer_size
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.attempts import AttemptInclude, AttemptsAnswer
from ..schemas.counts import CountsAnswer
from ..schemas.events import HistoryAnswer
from ..schemas.moments import AsOf
from ..schemas.records import (
    GetAnswer,
    GetRequest,
    Include,
    QueryAnswer,
    QueryRequest,
    RecordOut,
    RecordQuery,
)
from ..schemas.submissions import CreateAnswer, CreateRequest
from ..schemas.timelines import TimelineAnswer
from .dataset_requests import cells_of
from .histories import Wanted, in_utc
from .submissions import create

router = APIRouter(prefix="/v1", tags=["records"])

RecordIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Reader = Annotated[Visitor, allowed(Permission.read)]
AsOfInQuery = Annotated[AsOf | None, Query()]
Submitter = Annotated[Visitor, allowed(Permission.submit)]

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
    responses=answer_body(_CREATED),
    openapi_extra=request_body(CreateRequest, example=_CREATE, changes=True),
)
@endpoint(Submitter)
def create_records(call: Call) -> Reply:
    """Create records, in one operation; a wrong entry is refused and spoils no other.

    With `find_existing`, the oldest record of the same specification is given back instead of a
    new one, unless that record is cancelled, deleted or invalid.
    """
    return create(call)


@router.post("/records/get", response_model=GetAnswer, openapi_extra=request_body(GetRequest))
@endpoint(Reader)
def get_records(call: Call) -> Reply:
    """Get records by id, in the order of the ids. Deleted ones are still there, as deleted."""
    asked = call.parse(GetRequest)
    ledger = call.desk.ledger
    found, erased, moment = _found(ledger, asked.ids, asked.as_of)
    if not asked.missing_ok:
        for record_id in asked.ids:
            if record_id not in found:
                raise RecordNotFound(record_id)
    shown = list(found.values())
    require_answer_size(shown, asked.include, call.desk.settings.answer_bytes_max)
    rows = {row["id"]: row for row in rendered(ledger, shown, asked.include, erased)}
    records = [rows.get(record_id) for record_id in asked.ids]
    return {"records": records, "as_of": moment and moment_out(moment)}


@router.post("/records/query", response_model=QueryAnswer, openapi_extra=request_body(QueryRequest))
@endpoint(Reader)
def query_records(call: Call) -> Reply:
    """Get one page of the records that meet every condition given, newest first."""
    asked = call.parse(QueryRequest)
    desk = call.desk
    if asked.as_of is not None:
        return _query_past(call, asked, moment_of(desk.ledger, asked.as_of))
    pages = call.pages(Stream.record)
    before_id = None if asked.cursor is None else pages.last_id(asked.cursor, ID_MAX)
    # One more than the page, to know whether there is another page.
    which = filter_of(desk.ledger, asked.query)
    found = queries.query_records(desk.ledger, which, asked.limit + 1, before_id)
    n_shown = fitting(found[: asked.limit], asked.include, desk.settings.answer_bytes_max)
    shown, next_cursor = pages.cut(found, n_shown, lambda record: record.id)
    records = rendered(desk.ledger, shown, asked.include)
    return {"records": records, "next_cursor": next_cursor, "as_of": None}


@router.get("/records/counts", response_model=CountsAnswer)
@endpoint(Reader)
def count_records(call: Call, as_of: AsOfInQuery = None) -> Reply:
    """Count the records in each status. The counts are kept, not counted: this is cheap."""
    ledger = call.desk.ledger
    if as_of is None:
        return {"counts": queries.counts(ledger), "as_of": None}
    moment = moment_of(ledger, as_of)
    return {"counts": past.counts(ledger, moment), "as_of": moment_out(moment)}


@router.get("/records/{record_id}", response_model=RecordOut)
@endpoint(Reader)
def get_record(
    call: Call,
    record_id: RecordIdInPath,
    include: Annotated[list[Include] | None, Query()] = None,
    as_of: AsOfInQuery = None,
) -> Reply:
    """Get one record; `include` names the payloads that shall come with it, and may be repeated."""
    ledger = call.desk.ledger
    found, erased, _ = _found(ledger, [record_id], as_of)
    if record_id not in found:
        raise RecordNotFound(record_id)
    return rendered(ledger, [found[record_id]], include or [], erased)[0]


@router.get("/records/{record_id}/events", response_model=HistoryAnswer)
@endpoint(Reader)
def get_history(call: Call, record_id: RecordIdInPath, wanted: Wanted) -> Reply:
    """Get the events of a record, oldest first: who did what, when and why; all or some.

    `kind` and `actor` may be repeated and are then met by any. Times are from `after`, and up to
    but without `before`.
    """
    placed = queries.history(call.desk.ledger, record_id)
    events = events_out(call.desk.ledger, placed)
    return {"record_id": record_id, "events": wanted.through(events)}


@router.get("/records/{record_id}/timeline", response_model=TimelineAnswer)
@endpoint(Reader)
def get_timeline(call: Call, record_id: RecordIdInPath) -> Reply:
    """Get the life of a record as periods: in which status it was, from when to when."""
    ledger = call.desk.ledger
    placed = queries.history(ledger, record_id)
    now = queries.now(ledger)
    found = periods(each.recorded.event for each in placed)
    shown = [asdict(each) | {"duration_s": each.duration_s(now)} for each in found]
    return {"record_id": record_id, "as_of": now, "periods": shown}


@router.get("/records/{record_id}/attempts", response_model=AttemptsAnswer)
@endpoint(Reader)
def get_attempts(
    call: Call,
    record_id: RecordIdInPath,
    include: Annotated[list[AttemptInclude] | None, Query()] = None,
) -> Reply:
    """Get every attempt of a record, with its own outcome; `include` as of a record."""
    desk = call.desk
    placed = queries.history(desk.ledger, record_id)
    found = attempts_out(desk.ledger, placed, include or [], desk.settings.answer_bytes_max)
    return {"record_id": record_id, "attempts": found}


def _found(
    ledger: Ledger, ids: Sequence[int], as_of: int | datetime | None
) -> tuple[dict[int, RecordAggregate], Container[int], Moment | None]:
    """Return records as they are or were, who of them was erased since, and of which moment."""
    if as_of is None:
        return queries.get_records(ledger, ids), (), None
    moment = moment_of(ledger, as_of)
    found = past.get_records(ledger, ids, moment)
    erased = {id_ for id_, each in found.items() if each.is_erased}
    return {id_: each.record for id_, each in found.items()}, erased, moment


def moment_of(ledger: Ledger, as_of: int | datetime, where: str = "as_of") -> Moment:
    """Return the moment that a request names.

    Raises:
        InvalidInput: it is in no year that a date can have.
        FutureMoment: it has not come.
        BeforeTheBeginning: nothing had happened.
        TimelineBehind: when the last events happened is not known yet.
    """
    wanted = in_utc(as_of, where) if isinstance(as_of, datetime) else as_of
    return past.moment_of(ledger, wanted)


def moment_out(moment: Moment) -> dict[str, Any]:
    """Return a moment as `MomentOut` has it."""
    return moment._asdict()


def _query_past(call: Call, asked: QueryRequest, moment: Moment) -> Reply:
    desk = call.desk
    pages = call.pages(Listing.past_records, moment.position)
    before_id = None if asked.cursor is None else pages.last_id(asked.cursor, ID_MAX)
    which = filter_of(desk.ledger, asked.query, moment)
    # One more than the page, as of today.
    found = past.query_records(desk.ledger, which, asked.limit + 1, moment, before_id)
    records = [each.record for each in found]
    erased = {each.record.id for each in found if each.is_erased}
    n_shown = fitting(records[: asked.limit], asked.include, desk.settings.answer_bytes_max)
    shown, next_cursor = pages.cut(records, n_shown, lambda record: record.id)
    rows = rendered(desk.ledger, shown, asked.include, erased)
    return {"records": rows, "next_cursor": next_cursor, "as_of": moment_out(moment)}


def filter_of(ledger: Ledger, query: RecordQuery, moment: Moment | None = None) -> RecordFilter:
    """Return a query's conditions as the ledger has them, or had them at a moment.

    Raises:
        DatasetNotFound: there is no such dataset.
        SpecificationNotFound: it has no such specification.
        EntryNotFound: it has no such entry.
    """
    given = query.model_dump(exclude_none=True)
    found: dict[str, Any] = {
        name: in_utc(value, f"query.{name}")
        if isinstance(value, datetime)
        else CONDITIONS[name].kept(value)
        for name, value in given.items()
    }
    return RecordFilter(**found | cells_of(ledger, given, moment))
