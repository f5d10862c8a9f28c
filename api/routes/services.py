"""Services: where they stand, what is below them, and what an administrator may say of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import from_json

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import RecordNotFound, TooLarge
from recordledger.domain.records.events import Outcome
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.streams import ID_MAX
from recordledger.projections.actions import services
from recordledger.projections.reading import queries
from recordledger.projections.reading import services as service_views
from recordledger.projections.tables.payloads import payload_of

from ..http.auth import Visitor, allowed
from ..http.openapi import request_body
from ..http.rendering import rendered
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.records import RecordOut
from ..schemas.services import FinishRequest, IterateRequest, ServiceAnswer, TreeAnswer
from .records import Reader, RecordIdInPath

router = APIRouter(prefix="/v1/services", tags=["services"])
views = APIRouter(prefix="/v1/records", tags=["services"])

Runner = Annotated[Visitor, allowed(Permission.admin)]


@views.get("/{record_id}/service", response_model=ServiceAnswer)
@endpoint(Reader)
def get_service(
    call: Call,
    record_id: RecordIdInPath,
    iteration: Annotated[int | None, Query(ge=1, le=ID_MAX)] = None,
) -> Reply:
    """Get where a service stands: its state, what it waits for, and what it has said so far.

    With `iteration`, where it stood after that one. The children are shown as they are now.
    """
    found = service_views.view(call.desk.ledger, record_id, iteration)
    waits = found.waits
    return {
        "record_id": record_id,
        "status": found.record.status,
        "function": found.record.function,
        "iteration": found.iteration,
        "decided_at": found.at,
        "code_version": found.code_version,
        "progress": found.progress,
        "n_children": waits.n_children,
        "awaited": [asdict(child) for child in found.children],
        "n_awaited": found.n_awaited,
        "until": "any" if waits.any_child else "all",
        "takes_errors": waits.takes_errors,
        "wake_at": waits.wake_at,
        "due": waits.due,
        "state": None if found.state is None else from_json(found.state),
        "output": found.output.decode("utf-8", "replace"),
    }


@views.get("/{record_id}/tree", response_model=TreeAnswer)
@endpoint(Reader)
def get_tree(
    call: Call,
    record_id: RecordIdInPath,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    children_limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Reply:
    """Get the tree below a service: its children, by its own names for them, and theirs.

    At most `limit` records, and `children_limit` children of one service; others are counted.
    """
    nodes = service_views.tree(
        call.desk.ledger, record_id, nodes_max=limit, children_max=children_limit
    )
    return {"record_id": record_id, "nodes": [asdict(node) for node in nodes]}


@router.post("/{record_id}/start", response_model=RecordOut)
@endpoint(Runner)
def start(call: Call, record_id: RecordIdInPath) -> Reply:
    """Begin to iterate a waiting service."""
    services.start_service(call.desk.ledger, record_id, runner=call.visitor.actor, request=call.key)
    return _shown(call, record_id)


@router.post(
    "/{record_id}/iterate",
    response_model=RecordOut,
    openapi_extra=request_body(
        IterateRequest, example={"state": {"step": 2}, "children": [411]}, changes=True
    ),
)
@endpoint(Runner)
def iterate(call: Call, record_id: RecordIdInPath) -> Reply:
    """Give a running service its next state and the children that it waits for."""
    asked = call.parse(IterateRequest)
    services.iterate_service(
        call.desk.ledger,
        record_id,
        _sized(call, "the state", canonical_json(asked.state)),
        asked.children,
        runner=call.visitor.actor,
        output=_sized(call, "the output", _text_bytes(asked.output)) or None,
        request=call.key,
    )
    return _shown(call, record_id)


@router.post(
    "/{record_id}/finish",
    response_model=RecordOut,
    openapi_extra=request_body(FinishRequest, example={"result": {"energy": -1.5}}, changes=True),
)
@endpoint(Runner)
def finish(call: Call, record_id: RecordIdInPath) -> Reply:
    """End a running service, well or badly."""
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
        runner=call.visitor.actor,
        request=call.key,
    )
    return _shown(call, record_id)


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
