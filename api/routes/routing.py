"""Routing: what waits, who could take it, and why a record is where it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from recordledger.domain.routing.lanes import parse_tag
from recordledger.projections.reading import waiting
from recordledger.projections.reading.waiting import QueuedLane

from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.fields import PAGE_MAX, Text
from ..schemas.routing import QueueAnswer, WhyAnswer
from .records import Reader, RecordIdInPath

router = APIRouter(prefix="/v1", tags=["routing"])


@router.get("/records/{record_id}/why", response_model=WhyAnswer)
@endpoint(Reader)
def why(call: Call, record_id: RecordIdInPath) -> Reply:
    """Say why a record waits, runs or is gone, and what would change it.

    Of an erased record, the bare events say who did it.
    """
    found = asdict(waiting.why(call.desk.ledger, record_id))
    operation_id = found["operation_id"]
    found["operation_id"] = None if operation_id is None else str(operation_id)
    return found


@router.get("/queue", response_model=QueueAnswer)
@endpoint(Reader)
def get_queue(
    call: Call,
    tag: Annotated[list[Text] | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
) -> Reply:
    """Get what waits by tag and required programs, and who could take it; `tag` may be repeated.

    First come the lanes that nobody can take, then the deepest ones.
    """
    tags = None if tag is None else {parse_tag(each) for each in tag}
    found = waiting.queue(call.desk.ledger, limit, tags)
    return {
        "lanes": [_lane_out(each) for each in found.lanes],
        "n_lanes": found.n_lanes,
        "n_blocked": found.n_blocked,
        "n_waiting": found.n_waiting,
        "n_paused": found.n_paused,
        "n_managers": found.n_managers,
    }


def _lane_out(each: QueuedLane) -> dict[str, Any]:
    first = min(each.oldest.values(), default=None)
    return {
        "tag": each.lane.tag,
        "required_programs": each.lane.required_programs,
        "n_waiting": each.n_waiting,
        "n_running": each.n_running,
        "n_paused": each.n_paused,
        "oldest_id": first and first.record_id,
        "oldest_created_at": first and first.created_at,
        "oldest": {
            priority.name: found._asdict() for priority, found in sorted(each.oldest.items())
        },
        "n_managers": each.n_able,
        "manager_ids": each.able_ids,
        "blocked": each.blocked,
    }
