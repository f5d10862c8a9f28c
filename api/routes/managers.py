"""Managers: register, give heartbeats, claim, return, give back, end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.errors import InvalidInput, ManagerNotFound
from recordledger.domain.routing.lanes import parse_programs, parse_tag
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.routing.matching import ManagerSigns
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.actions import managing
from recordledger.projections.actions.managing import Registration
from recordledger.projections.reading import queries
from recordledger.projections.tables import managers

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit
from ..http.openapi import answer_body, request_body
from ..http.rendering import events_out
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.claims import ClaimAnswer, ClaimRequest, RelinquishRequest, RequeuedAnswer
from ..schemas.events import ManagerHistoryAnswer
from ..schemas.managers import ManagerOut, ManagersAnswer, RescuesAnswer
from ..schemas.presence import (
    DeactivateRequest,
    DrainAnswer,
    DrainRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    ProgramsAnswer,
    ProgramsRequest,
    RegisterAnswer,
    RegisterRequest,
)
from ..schemas.returns import ReturnAnswer, ReturnRequest
from .claims import answer_claim
from .histories import Wanted
from .returns import accept_results

router = APIRouter(prefix="/v1", tags=["managers"])

ManagerIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Computer = Annotated[Visitor, allowed(Permission.compute)]
Reader = Annotated[Visitor, allowed(Permission.read)]

_CLAIMED: Final[dict[str, Any]] = {
    "operation_id": "0a9b6c1e-6f0e-4a52-9a57-3d8f3d1f4c55",
    "tasks": [
        {
            "record_id": 411,
            "attempt": 1,
            "function": "recordledger.workers.demo.functions:quadratic",
            "kwargs": {"x": 1.5},
        }
    ],
}
_RETURN: Final[dict[str, Any]] = {
    "results": [{"record_id": 411, "attempt": 1, "result": {"y": 2.25}, "compute_s": 0.2}]
}
_RETURNED: Final[dict[str, Any]] = {
    "operation_id": "c0de6c1e-6f0e-4a52-9a57-3d8f3d1f4c56",
    "accepted_idx": [0],
    "late_idx": [],
    "duplicate_idx": [],
    "errors": [],
}


@router.post(
    "/managers",
    response_model=RegisterAnswer,
    openapi_extra=request_body(RegisterRequest, changes=True),
)
@endpoint(Computer)
def register(call: Call) -> Reply:
    """Register a manager; it has a new id at every boot."""
    asked = call.parse(RegisterRequest)
    settings = call.desk.settings
    lease_s = asked.lease_s or settings.lease_s
    heartbeat_s = asked.heartbeat_s or min(settings.heartbeat_s, lease_s / 4)
    if heartbeat_s >= lease_s:
        raise InvalidInput(
            f"heartbeat_s is {heartbeat_s:g} and lease_s is {lease_s:g}: the lease would expire "
            "between two heartbeats; make heartbeat_s a quarter of lease_s"
        )
    manager_id = managing.register_manager(
        call.desk.ledger,
        Registration(
            name=asked.name,
            hostname=asked.hostname,
            tags=tuple(dict.fromkeys(parse_tag(tag) for tag in asked.tags)),
            programs=parse_programs(asked.programs),
            lease_s=lease_s,
            heartbeat_s=heartbeat_s,
        ),
        actor=call.visitor.actor,
        request=call.key,
    )
    return RegisterAnswer(manager_id=manager_id, lease_s=lease_s, heartbeat_s=heartbeat_s)


@router.post(
    "/managers/{manager_id}/heartbeat",
    response_model=HeartbeatAnswer,
    openapi_extra=request_body(HeartbeatRequest),
)
@endpoint(Computer)
def heartbeat(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Extend the lease. The manager lists its attempts; the answer lists those that it has lost."""
    held = {each.record_id: each.attempt for each in call.parse(HeartbeatRequest).held}
    beaten = managing.heartbeat(call.desk.ledger, manager_id, held, user=call.visitor.actor)
    stale = [{"record_id": record_id, "attempt": attempt} for record_id, attempt in beaten["stale"]]
    return HeartbeatAnswer.model_validate({**beaten, "stale": stale})


@router.post(
    "/managers/{manager_id}/claim",
    response_model=ClaimAnswer,
    responses=answer_body(_CLAIMED),
    openapi_extra=request_body(ClaimRequest, example={"limit": 20}, changes=True),
)
@endpoint(Computer)
def claim(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Take up to `limit` tasks that the manager can run; an empty list when there are none."""
    return answer_claim(call, manager_id)


@router.post(
    "/managers/{manager_id}/results",
    response_model=ReturnAnswer,
    responses=answer_body(_RETURNED),
    openapi_extra=request_body(ReturnRequest, example=_RETURN, changes=True),
)
@endpoint(Computer)
def return_results(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Return results. What comes too late is kept aside; a wrong entry spoils no other."""
    return accept_results(call, manager_id)


@router.post(
    "/managers/{manager_id}/relinquish",
    response_model=RequeuedAnswer,
    openapi_extra=request_body(RelinquishRequest, changes=True),
)
@endpoint(Computer)
def relinquish(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Give attempts back unfinished; those that the manager does not have are passed over."""
    asked = call.parse(RelinquishRequest)
    waiting = managing.relinquish(
        call.desk.ledger,
        manager_id,
        {each.record_id: each.attempt for each in asked.attempts},
        user=call.visitor.actor,
        reason=asked.reason,
        request=call.key,
    )
    return {"record_ids": waiting}


@router.post(
    "/managers/{manager_id}/deactivate",
    response_model=RequeuedAnswer,
    openapi_extra=request_body(DeactivateRequest, changes=True),
)
@endpoint(Computer)
def deactivate(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """End a manager; what it has waits again. Administrators can end anybody's."""
    waiting = managing.deactivate_manager(
        call.desk.ledger,
        manager_id,
        actor=call.visitor.actor,
        owner=None if call.visitor.may(Permission.admin) else call.visitor.actor,
        reason=call.parse(DeactivateRequest).reason,
        request=call.key,
    )
    return {"record_ids": waiting}


@router.post(
    "/managers/{manager_id}/drain",
    response_model=DrainAnswer,
    openapi_extra=request_body(DrainRequest, changes=True),
)
@endpoint(Computer)
def drain(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Give a manager nothing more to do. Administrators can drain anybody's."""
    state = managing.drain_manager(
        call.desk.ledger,
        manager_id,
        actor=call.visitor.actor,
        owner=None if call.visitor.may(Permission.admin) else call.visitor.actor,
        reason=call.parse(DrainRequest).reason,
        request=call.key,
    )
    return {"state": state}


@router.post(
    "/managers/{manager_id}/programs",
    response_model=ProgramsAnswer,
    openapi_extra=request_body(
        ProgramsRequest, example={"programs": {"psi4": "1.9"}}, changes=True
    ),
)
@endpoint(Computer)
def programs(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Say what a manager has now; from then on it gets the tasks that these can run."""
    changed = managing.report_programs(
        call.desk.ledger,
        manager_id,
        parse_programs(call.parse(ProgramsRequest).programs),
        user=call.visitor.actor,
        request=call.key,
    )
    return {"changed": changed}


@router.get("/rescues", response_model=RescuesAnswer)
@endpoint(Reader)
def rescues(call: Call) -> Reply:
    """Count the results that came late, and those that were adopted, with what they had cost."""
    return {
        kind: {
            "n_results": found.n_results,
            "compute_s": found.compute_s,
            "core_hours": found.core_s / 3600,
        }
        for kind, found in queries.rescues(call.desk.ledger).items()
    }


@router.get("/managers", response_model=ManagersAnswer)
@endpoint(Reader)
def list_managers(
    call: Call,
    state: Annotated[list[ManagerState] | None, Query(max_length=4)] = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the managers, oldest first; `state` may be repeated."""
    pages = call.pages(Stream.manager)
    after = pages.last_id(cursor, 0)
    with call.desk.ledger.datastore.reading() as db:
        found = managers.page(db, after, limit + 1, state)
    shown, next_cursor = pages.cut(found, limit, lambda each: each.manager.id)
    return {"managers": [_manager_out(each) for each in shown], "next_cursor": next_cursor}


@router.get("/managers/{manager_id}", response_model=ManagerOut)
@endpoint(Reader)
def get_manager(call: Call, manager_id: ManagerIdInPath) -> Reply:
    """Get one manager."""
    with call.desk.ledger.datastore.reading() as db:
        found = managers.one(db, manager_id)
    if found is None:
        raise ManagerNotFound(manager_id)
    return _manager_out(found)


@router.get("/managers/{manager_id}/events", response_model=ManagerHistoryAnswer)
@endpoint(Reader)
def get_manager_history(call: Call, manager_id: ManagerIdInPath, wanted: Wanted) -> Reply:
    """Get the events of a manager, oldest first; all or some. Heartbeats are not among them."""
    ledger = call.desk.ledger
    placed = queries.history(ledger, manager_id, Stream.manager)
    events = wanted.through(events_out(ledger, placed))
    return {"manager_id": manager_id, "events": events}


def _manager_out(each: ManagerSigns) -> dict[str, Any]:
    manager = each.manager
    return {
        "id": manager.id,
        "state": manager.state,
        "name": manager.name,
        "hostname": manager.hostname,
        "owner": manager.owner,
        "tags": manager.tags,
        "programs": manager.programs,
        "suspended": [
            {"program": program, **asdict(each)}
            for program, each in sorted(manager.suspended.items())
        ],
        "lease_s": manager.lease_s,
        "heartbeat_s": manager.heartbeat_s,
        "registered_at": manager.registered_at,
        "modified_at": manager.modified_at,
        "heartbeat_at": each.heartbeat_at,
        "lease_expires_at": each.lease_expires_at,
    }
