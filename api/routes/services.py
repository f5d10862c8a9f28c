"""Services: what their runner says of them; for administrators until it has a role of its own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.access import Permission
from recordledger.domain.errors import RecordNotFound, TooLarge
from recordledger.domain.events import Outcome
from recordledger.domain.fingerprint import canonical_json
from recordledger.projections import queries, services
from recordledger.projections.payloads import payload_of

from ..auth import Visitor, allowed
from ..desk import Call, desk_of
from ..openapi import takes
from ..rendering import rendered
from ..schemas import FinishRequest, IterateRequest, RecordOut
from ..wire import Reply
from .records import RecordIdInPath

router = APIRouter(prefix="/v1/services", tags=["services"])

Runner = Annotated[Visitor, allowed(Permission.admin)]


@router.post("/{record_id}/start", response_model=RecordOut)
async def start(request: Request, visitor: Runner, record_id: RecordIdInPath) -> Response:
    """Begin to iterate a waiting service."""

    def work(call: Call) -> Reply:
        services.start_service(call.desk.ledger, record_id, runner=visitor.actor, request=call.key)
        return _shown(call, record_id)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{record_id}/iterate",
    response_model=RecordOut,
    openapi_extra=takes(
        IterateRequest, example={"state": {"step": 2}, "children": [411]}, changes=True
    ),
)
async def iterate(request: Request, visitor: Runner, record_id: RecordIdInPath) -> Response:
    """Give a running service its next state and the children that it waits for."""

    def work(call: Call) -> Reply:
        asked = call.parse(IterateRequest)
        services.iterate_service(
            call.desk.ledger,
            record_id,
            _sized(call, "the state", canonical_json(asked.state)),
            asked.children,
            runner=visitor.actor,
            output=_sized(call, "the output", _text_bytes(asked.output)) or None,
            request=call.key,
        )
        return _shown(call, record_id)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{record_id}/finish",
    response_model=RecordOut,
    openapi_extra=takes(FinishRequest, example={"result": {"energy": -1.5}}, changes=True),
)
async def finish(request: Request, visitor: Runner, record_id: RecordIdInPath) -> Response:
    """End a running service, well or badly."""

    def work(call: Call) -> Reply:
        asked = call.parse(FinishRequest)
        contents: dict[bytes, bytes] = {}
        fields: dict[str, Any] = {}
        if asked.error_type is None or asked.result is not None:
            data = _sized(call, "the result", canonical_json(asked.result))
            fields["result"] = payload_of(data)
            contents[fields["result"].digest] = data
        if asked.error_message is not None:
            message = _text_bytes(asked.error_message)
            fields["error_message"] = payload_of(message)
            contents[fields["error_message"].digest] = message
        outcome = Outcome(error_type=asked.error_type, **fields)
        services.finish_service(
            call.desk.ledger,
            record_id,
            outcome,
            contents,
            runner=visitor.actor,
            request=call.key,
        )
        return _shown(call, record_id)

    return await desk_of(request).answer(request, visitor, work)


def _shown(call: Call, record_id: int) -> Reply:
    found = queries.get_records(call.desk.ledger, [record_id])
    if record_id not in found:
        raise RecordNotFound(record_id)
    return rendered(call.desk.ledger, found.values(), [])[0]


def _text_bytes(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "backslashreplace")


def _sized(call: Call, what: str, data: bytes) -> bytes:
    limit = call.desk.settings.payload_bytes_max
    if len(data) > limit:
        raise TooLarge(what, len(data), limit, "payload_bytes_max")
    return data
