"""The log itself: all events in order, in pages or as a stream."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import InvalidInput, StoreUnavailable
from recordledger.domain.streams import ID_MAX
from recordledger.projections.reading import event_log
from recordledger.projections.reading.event_log import EventFilter

from ..http.auth import Visitor, allowed, secret_of
from ..http.errors import BeyondHead, Unauthenticated
from ..http.followers import STREAM_TYPE, EventChunk, EventStream
from ..http.rendering import log_out
from ..http.request_context import Call, desk_of
from ..http.wire import Reply
from ..schemas.events import EventsAnswer
from ..schemas.fields import PAGE_MAX, ShortText
from .histories import Actors, Kinds, kinds_of

router = APIRouter(prefix="/v1/events", tags=["events"])

_MANY: Final = 100
_POSITION: Final = re.compile(r"\d{1,19}", re.ASCII)

Reader = Annotated[Visitor, allowed(Permission.read)]
Position = Annotated[int, Query(ge=0, le=ID_MAX, description="Only events after this position.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Of a page; a stream has no limit.")]
RecordIds = Annotated[list[Annotated[int, Query(ge=1, le=ID_MAX)]] | None, Query(max_length=_MANY)]
Tags = Annotated[list[ShortText] | None, Query(max_length=_MANY, description="Of the record, now.")]
DatasetId = Annotated[
    int | None,
    Query(ge=1, le=ID_MAX, description="Of the dataset, and of the records that it has now."),
]
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {STREAM_TYPE: {"schema": {"type": "string"}}}}
}


@router.get("", response_model=EventsAnswer, responses=_STREAM)
async def get_events(
    request: Request,
    visitor: Reader,
    after: Position = 0,
    limit: Limit = 250,
    kind: Kinds = None,
    record: RecordIds = None,
    tag: Tags = None,
    dataset: DatasetId = None,
    actor: Actors = None,
) -> Response:
    """Get all events but those of tokens, in order: a page, or a stream that continues.

    With `Accept: text/event-stream` the answer does not end: it begins after `Last-Event-ID`, or
    `after`, and goes on with what happens. Each condition may be repeated and is then met by any.
    """
    desk = desk_of(request)
    which = EventFilter(
        kinds=kinds_of(kind),
        record_ids=frozenset(record or ()),
        tags=frozenset(each.lower() for each in tag or ()),
        actors=frozenset(actor or ()),
        dataset_id=dataset,
    )
    if _wants_stream(request):
        position = _last_event_id(request, after)

        def begin() -> EventChunk:
            desk.check_schema()
            part = desk.followers.page(position, which)
            if position > part.head:
                raise BeyondHead(position, part.head)
            return part

        # Read before the answer begins, so that what is wrong with the log can still be said.
        first = await desk.in_thread(begin)
        secret = secret_of(request)

        async def welcome() -> bool:
            try:
                await desk.visitor(secret)
            except Unauthenticated:
                return False
            except StoreUnavailable:
                pass
            return True

        return EventStream(desk.followers, first, which, welcome)

    # Not a stream: one page.
    def work(call: Call) -> Reply:
        found = event_log.page(call.desk.ledger, after, limit, which)
        if after > found.head:
            raise BeyondHead(after, found.head)
        events = log_out(call.desk.ledger, found.events)
        return {"events": events, "next_after": found.next_after, "head": found.head}

    return await desk.answer(request, visitor, work)


def _wants_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "").split(",")
    return any(each.partition(";")[0].strip().lower() == STREAM_TYPE for each in accepted)


def _last_event_id(request: Request, after: int) -> int:
    """Return from where a stream goes on.

    Raises:
        InvalidInput: the header is no position.
    """
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return after
    if not _POSITION.fullmatch(given) or int(given) > ID_MAX:
        raise InvalidInput(f"Last-Event-ID is {given[:80]!r}, which is not a position of the log")
    return int(given)
