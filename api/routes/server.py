"""The server itself: what it takes, whether it lives, and what it has done."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

from recordledger import __version__
from recordledger.domain.admin.access import Permission

from ..http.auth import Visitor, allowed, open_to_all
from ..http.metrics import CONTENT_TYPE
from ..http.request_context import Call, answer_openly, desk_of, endpoint
from ..http.wire import Reply
from ..schemas.fields import CLAIM_MAX, IDS_MAX, PAGE_MAX
from ..schemas.server import HealthAnswer, Limits, ServerAnswer

router = APIRouter(tags=["server"])

AnyVisitor = Annotated[Visitor, allowed(*Permission)]


@router.get("/v1/server", response_model=ServerAnswer)
@endpoint(AnyVisitor)
def get_server(call: Call) -> Reply:
    """Get which server and ledger this is, whose token was shown, and what the server takes."""
    desk, settings = call.desk, call.desk.settings
    # The database's clock is the only one: clients compare theirs with it.
    now = desk.ledger.operate(lambda operation: operation.stamp.timestamp, actor=call.visitor.actor)
    limits = Limits(
        records_per_request=settings.records_per_request,
        results_per_request=settings.results_per_request,
        ids_per_request=IDS_MAX,
        claim_per_request=CLAIM_MAX,
        page=PAGE_MAX,
        body_bytes=settings.body_bytes_max,
        payload_bytes=settings.payload_bytes_max,
    )
    return ServerAnswer(
        version=__version__,
        ledger_id=str(desk.ledger_id),
        time=now,
        user=call.visitor.user,
        role=call.visitor.role,
        limits=limits,
    )


@router.get("/health", response_model=HealthAnswer)
@open_to_all
async def health(request: Request) -> Response:
    """Say whether the process lives. It may, while the database does not answer."""
    return answer_openly(HealthAnswer(status="ok"), request)


@router.get("/ready", response_model=HealthAnswer)
@open_to_all
async def ready(request: Request) -> Response:
    """Say whether requests can be served now; 503 while the database does not answer."""
    desk = desk_of(request)
    if await desk.in_thread(desk.usable):
        return answer_openly(HealthAnswer(status="ok"), request)
    return answer_openly(HealthAnswer(status="unavailable"), request, status=503)


@router.get("/metrics", response_class=Response)
@open_to_all
async def metrics(request: Request) -> Response:
    """Get the metrics in Prometheus's text format."""
    desk = desk_of(request)
    return Response(await desk.in_thread(desk.metrics.text), headers={"Content-Type": CONTENT_TYPE})


@router.get("/openapi.json", include_in_schema=False)
@open_to_all
async def openapi(request: Request) -> Response:
    """Get the description of this API."""
    return JSONResponse(request.app.openapi())
