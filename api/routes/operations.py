"""Operations, their undo, the jobs that do the large ones, and policies."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.admin.job import JobAggregate
from recordledger.domain.errors import InvalidInput, OperationNotFound
from recordledger.domain.records.actions import Action
from recordledger.domain.records.policies import ADOPT_LATE_RESULTS, AUTO_RESET, FAILED_AFTER
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.actions import bulk
from recordledger.projections.actions.policies import failed_after_s_in_force
from recordledger.projections.reading import histories
from recordledger.projections.tables import jobs, operations
from recordledger.projections.tables.operations import OperationRow

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit, Listing, key_of_operation, operation_of_key
from ..http.openapi import answer_body, request_body
from ..http.rendering import log_out
from ..http.request_context import Call, endpoint
from ..http.wire import Accepted, Reply
from ..schemas.events import LogHistoryAnswer
from ..schemas.fields import PAGE_MAX, ShortText
from ..schemas.jobs import CancelJobRequest, JobOut, JobRefusalsAnswer, JobsAnswer
from ..schemas.operations import OperationAnswer, OperationsAnswer, UndoAnswer, UndoRequest
from ..schemas.policies import PoliciesAnswer
from .histories import Wanted

router = APIRouter(prefix="/v1", tags=["operations"])

REFUSALS_MAX: Final = 10_000

JobIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Reader = Annotated[Visitor, allowed(Permission.read)]
Submitter = Annotated[Visitor, allowed(Permission.submit)]
Actor = Annotated[str | None, Query(max_length=300, pattern=r"^[^\x00]*$")]

_UNDONE: Final[dict[str, Any]] = {
    "operation_id": "9b1f6c1e-6f0e-4a52-9a57-3d8f3d1f4c55",
    "n_undone": 1,
    "conflicts": [
        {
            "record_id": 412,
            "code": "changed_since",
            "message": "record 412 has since been reset; it stays as it is",
        }
    ],
    "job_id": None,
}


@router.get("/operations", response_model=OperationsAnswer)
@endpoint(Reader)
def list_operations(
    call: Call,
    actor: Actor = None,
    action: Annotated[Action | None, Query()] = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of what people and policies have done to records, newest first."""
    pages = call.pages(Listing.operations)
    key = pages.last_key(cursor, ())
    before = operation_of_key(key) if key else None
    with call.desk.ledger.datastore.reading() as db:
        found = operations.page(db, limit + 1, actor=actor, action=action, before=before)
    shown, next_cursor = pages.cut(
        found, limit, lambda row: key_of_operation(row.started_at, row.id)
    )
    return {"operations": [_operation_out(row) for row in shown], "next_cursor": next_cursor}


@router.get("/operations/{operation_id}", response_model=OperationAnswer)
@endpoint(Reader)
def get_operation(call: Call, operation_id: Annotated[UUID, Path()]) -> Reply:
    """Get what was done to records by one operation, and whether it was undone."""
    with call.desk.ledger.datastore.reading() as db:
        job_id = jobs.of_operation(db, operation_id)
        try:
            row = operations.get(db, operation_id)
        except OperationNotFound:
            if job_id is None:
                raise
            row = _not_yet(jobs.get(db, job_id))
        undone_by = operations.undone_by(db, operation_id)
    return {
        **_operation_out(row),
        "undone_by": [str(id_) for id_ in undone_by],
        "job_id": job_id,
    }


@router.get("/operations/{operation_id}/events", response_model=LogHistoryAnswer)
@endpoint(Reader)
def get_operation_history(
    call: Call,
    operation_id: Annotated[UUID, Path()],
    wanted: Wanted,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of what an operation did to records, record by record."""
    ledger, pages = call.desk.ledger, call.pages(Listing.operation_events)
    placed = histories.of_operation(ledger, operation_id, pages.last_pair(cursor), limit)
    next_cursor = None
    if len(placed) == limit:
        last = placed[-1].recorded
        next_cursor = pages.cursor((last.number, last.version))
    return {"events": wanted.through(log_out(ledger, placed)), "next_cursor": next_cursor}


@router.get("/users/events", response_model=LogHistoryAnswer)
@endpoint(Reader)
def get_user_history(
    call: Call,
    user: Annotated[ShortText, Query(description="By name, like ann.")],
    wanted: Wanted,
    newest_first: Annotated[bool, Query()] = True,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of what a user did, to anything but tokens, in the order of the log.

    `actor` is the user already. A page may be empty before the end.
    """
    listing = Listing.user_events if newest_first else Listing.user_events_oldest_first
    ledger, pages = call.desk.ledger, call.pages(listing)
    found = histories.of_user(
        ledger,
        user,
        limit,
        edge=None if cursor is None else pages.last_id(cursor, 0),
        newest_first=newest_first,
        kinds=sorted(wanted.kinds) or None,
    )
    edge = found.next_edge
    if wanted.is_past([each.recorded.event.timestamp for each in found.events], newest_first):
        edge = None
    next_cursor = None if edge is None else pages.cursor(edge)
    events = wanted.through(log_out(ledger, found.events))
    return {"events": events, "next_cursor": next_cursor}


@router.post(
    "/operations/{operation_id}/undo",
    response_model=UndoAnswer,
    responses=answer_body(_UNDONE, job=UndoAnswer),
    openapi_extra=request_body(UndoRequest, example={"reason": "by mistake"}, changes=True),
)
@endpoint(Submitter)
def undo(call: Call, operation_id: Annotated[UUID, Path()]) -> Reply:
    """Take back what an operation changed, relatives included, where nobody has changed it since.

    Records that have changed since stay as they are and are listed. An undo is an operation too,
    and can be undone.
    """
    asked = call.parse(UndoRequest)
    undone = bulk.undo(
        call.desk.ledger,
        operation_id,
        actor=call.visitor.actor,
        reason=asked.reason,
        request=call.key,
        dry_run=asked.dry_run,
    )
    happened = undone["job_id"] is not None or (undone["n_undone"] and not asked.dry_run)
    answer = {
        "operation_id": undone["operation_id"] if happened else None,
        "n_undone": undone["n_undone"],
        "conflicts": [
            {"record_id": record_id, "code": code, "message": message}
            for record_id, code, message in undone["conflicts"]
        ],
        "job_id": undone["job_id"],
    }
    return answer if undone["job_id"] is None else Accepted(answer)


@router.get("/jobs", response_model=JobsAnswer)
@endpoint(Reader)
def list_jobs(call: Call, limit: Limit = 250, cursor: Cursor = None) -> Reply:
    """Get one page of the jobs, newest first, whether or not they have ended."""
    pages = call.pages(Stream.job)
    before = pages.last_id(cursor, ID_MAX)
    with call.desk.ledger.datastore.reading() as db:
        found = jobs.page(db, limit + 1, before)
    shown, next_cursor = pages.cut(found, limit, lambda job: job.id)
    return {"jobs": [_job_out(job) for job in shown], "next_cursor": next_cursor}


@router.get("/jobs/{job_id}", response_model=JobOut)
@endpoint(Reader)
def get_job(call: Call, job_id: JobIdInPath) -> Reply:
    """Get how far a job has come."""
    return _job(call, job_id)


@router.get("/jobs/{job_id}/refusals", response_model=JobRefusalsAnswer)
@endpoint(Reader)
def get_refusals(
    call: Call,
    job_id: JobIdInPath,
    limit: Annotated[int, Query(ge=1, le=REFUSALS_MAX)] = PAGE_MAX,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the records that a job was refused for, so far, and why."""
    pages = call.pages(Listing.refusals)
    found = bulk.refusals_of(call.desk.ledger, job_id, limit + 1, pages.last_id(cursor, -1))
    shown, next_cursor = pages.cut(found, limit, lambda refusal: refusal.idx)
    return {"refusals": [each._asdict() for each in shown], "next_cursor": next_cursor}


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=JobOut,
    openapi_extra=request_body(CancelJobRequest, changes=True),
)
@endpoint(Submitter)
def cancel_job(call: Call, job_id: JobIdInPath) -> Reply:
    """Stop a job, and undo what it has done. One that has ended is left as it is: undo it."""
    asked = call.parse(CancelJobRequest)
    bulk.cancel_job(
        call.desk.ledger,
        job_id,
        actor=call.visitor.actor,
        reason=asked.reason,
        request=call.key,
    )
    return _job(call, job_id)


@router.get("/policies", response_model=PoliciesAnswer)
@endpoint(Reader)
def get_policies(call: Call) -> Reply:
    """Get what the server does to records by itself. All of it is off unless it was configured.

    `failed_after_s` is that of the `recordledger work` that carries it out now; null if none does.
    """
    policies = call.desk.settings.policies
    return {
        "auto_reset": dict(policies.auto_reset),
        "failed_after_s": failed_after_s_in_force(call.desk.ledger),
        "adopt_late_results": policies.adopt_late_results,
        "actors": {
            "auto_reset": AUTO_RESET,
            "failed_after_s": FAILED_AFTER,
            "adopt_late_results": ADOPT_LATE_RESULTS,
        },
    }


def _job(call: Call, job_id: int) -> Reply:
    with call.desk.ledger.datastore.reading() as db:
        return _job_out(jobs.get(db, job_id))


def _job_out(job: JobAggregate) -> dict[str, Any]:
    return {name: getattr(job, name) for name in JobOut.model_fields} | {
        "operation_id": str(job.operation_id)
    }


def _operation_out(row: OperationRow) -> dict[str, Any]:
    undoes = None if row.undoes is None else str(row.undoes)
    return {**row._asdict(), "id": str(row.id), "undoes": undoes}


def _not_yet(job: JobAggregate) -> OperationRow:
    """Return the operation of a job that has not changed any record yet."""
    if job.operation_id is None or job.created_at is None:  # pragma: no cover - jobs have both
        raise InvalidInput(f"job {job.id} was never submitted")
    return OperationRow(
        job.operation_id, job.action, job.actor, job.reason, job.created_at, None, 0
    )
