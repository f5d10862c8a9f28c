"""What was done and what is being done, as operations: undo, jobs, comments, families, errors."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlencode
from uuid import UUID

from recordledger.domain.admin.job import JobState

from ...schemas.base import Answer
from ...schemas.jobs import CancelJobRequest
from ...schemas.operations import Conflict, UndoAnswer, UndoRequest
from ...schemas.records import RelativesAnswer
from .. import exchange, wire
from ..exchange import Operation, Session
from ..results.comments import Comment, Comments
from ..results.jobs import Job, Jobs
from ..results.operations import OperationDetails, Operations, PastOperation, UndoMetadata
from ..results.records import ErrorGroup, ErrorGroups
from ..results.server import Policies
from .management import refusals_of, wait_for_job

_PAGE = 1_000


class _OperationsPage(Answer):
    next_cursor: str | None


class _CommentsAnswer(_OperationsPage):
    comments: list[Comment]


class _OperationsAnswer(_OperationsPage):
    operations: list[PastOperation]


class _JobsAnswer(_OperationsPage):
    jobs: list[Job]


class _ErrorsAnswer(Answer):
    groups: list[ErrorGroup]


PageT = TypeVar("PageT", bound=_OperationsPage)


def undo(
    session: Session,
    operation_id: str | UUID,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
) -> Operation[UndoMetadata]:
    """Take back what an operation changed, relatives included, where nobody has changed it since.

    Records that have changed since stay as they are and are listed as `conflicts`. An undo is an
    operation too, and can be undone.

    Args:
        operation_id: from what a call returned, or from `operations()`.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.

    Raises:
        NotFound: there is no such operation on records.

    >>> done = client.cancel_records([414], reason="by mistake")
    >>> client.undo(done.operation_id)
    """
    request = wire.message(UndoRequest, reason=reason, dry_run=dry_run)
    body = wire.pack(request.model_dump(exclude_none=True))
    path = f"/v1/operations/{operation_uuid(operation_id)}/undo"
    answer = yield from exchange.post(session, path, UndoAnswer, body)
    n_undone, conflicts, is_done = answer.n_undone, answer.conflicts, answer.job_id is None
    if answer.job_id is not None and wait:
        job = yield from wait_for_job(session, answer.job_id)
        refusals = yield from refusals_of(session, job)
        is_done = True
        n_undone = 0 if job.state is JobState.cancelled else job.n_updated
        conflicts = [
            Conflict(record_id=each.record_id, code=each.code, message=each.message)
            for each in refusals
        ]
    return UndoMetadata(
        operation_id=answer.operation_id,
        n_undone=n_undone,
        conflicts=conflicts,
        job_id=answer.job_id,
        is_done=is_done,
        dry_run=dry_run,
    )


def operations(
    session: Session, *, actor: str | None = None, action: str | None = None, limit: int = 100
) -> Operation[Operations]:
    """Return what people and policies have done to records, newest first.

    Args:
        actor: only of this one, like "user:ann" or "policy:failed-after@1".
        action: only these, like "cancel".
        limit: maximum number of operations.

    >>> client.operations(actor="user:ann", action="cancel", limit=10)
    """
    found = Operations()
    cursor: str | None = None
    while len(found) < limit:
        query = {"limit": min(limit - len(found), _PAGE), "actor": actor, "action": action}
        answer = yield from _get(session, "/v1/operations", _OperationsAnswer, query, cursor)
        found += answer.operations
        cursor = answer.next_cursor
        if cursor is None:
            break
    return found


def operation(session: Session, operation_id: str | UUID) -> Operation[OperationDetails]:
    """Return what was done to records by one operation, and whether it was undone.

    Raises:
        NotFound: there is no such operation on records.

    >>> done = client.cancel_records([413])
    >>> client.operation(done.operation_id).n_changes
    """
    path = f"/v1/operations/{operation_uuid(operation_id)}"
    return (yield from exchange.get(session, path, OperationDetails))


def jobs(session: Session, *, limit: int = 100) -> Operation[Jobs]:
    """Return the operations on many records, newest first, whether or not they have ended.

    >>> [job.id for job in client.jobs() if job.state == "running"]
    """
    found = Jobs()
    cursor: str | None = None
    while len(found) < limit:
        query: dict[str, int | str | None] = {"limit": min(limit - len(found), _PAGE)}
        answer = yield from _get(session, "/v1/jobs", _JobsAnswer, query, cursor)
        found += answer.jobs
        cursor = answer.next_cursor
        if cursor is None:
            break
    return found


def job(session: Session, job_id: int) -> Operation[Job]:
    """Return how far a job has come.

    Raises:
        NotFound: there is no such job.

    >>> client.job(1).n_done
    """
    return (yield from exchange.get(session, _job_path(job_id), Job))


def cancel_job(session: Session, job_id: int, *, reason: str | None = None) -> Operation[Job]:
    """Stop a job, and undo what it has done; one that has ended stays as it is.

    Raises:
        NotFound: there is no such job.

    >>> client.cancel_job(1, reason="wrong tag")
    """
    request = wire.message(CancelJobRequest, reason=reason)
    body = wire.pack(request.model_dump(exclude_none=True))
    return (yield from exchange.post(session, f"{_job_path(job_id)}/cancel", Job, body))


def comments(session: Session, record_id: int) -> Operation[Comments]:
    """Return what was written about a record, oldest first.

    Raises:
        NotFound: there is no such record.

    >>> [comment.text for comment in client.comments(411)]
    """
    found = Comments()
    cursor: str | None = None
    while True:
        path = f"/v1/records/{wire.record_id(record_id)}/comments"
        answer = yield from _get(session, path, _CommentsAnswer, {"limit": _PAGE}, cursor)
        found += answer.comments
        cursor = answer.next_cursor
        if cursor is None:
            return found


def children(session: Session, record_id: int) -> Operation[list[int]]:
    """Return the records that a service has asked for, by ascending id.

    Raises:
        NotFound: there is no such record.

    >>> client.children(415)
    """
    return (yield from _relatives(session, record_id, "children"))


def parents(session: Session, record_id: int) -> Operation[list[int]]:
    """Return the services that have asked for a record, by ascending id.

    Raises:
        NotFound: there is no such record.

    >>> client.parents(411)
    """
    return (yield from _relatives(session, record_id, "parents"))


def error_groups(session: Session, *, limit: int = 100) -> Operation[ErrorGroups]:
    """Return what the newest 100,000 records in error say, by type and message.

    Args:
        limit: maximum number of kinds, the most frequent ones.

    >>> for group in client.error_groups(limit=10):
    ...     print(group.n_records, group.error_type, group.error_message)
    """
    query = {"limit": min(limit, _PAGE)}
    answer = yield from exchange.get(
        session, f"/v1/records/errors?{urlencode(query)}", _ErrorsAnswer
    )
    return ErrorGroups(answer.groups)


def policies(session: Session) -> Operation[Policies]:
    """Return what the server does to records by itself: nothing, unless it was configured.

    >>> client.policies()
    """
    return (yield from exchange.get(session, "/v1/policies", Policies))


def _relatives(session: Session, record_id: int, which: str) -> Operation[list[int]]:
    found: list[int] = []
    cursor: str | None = None
    while True:
        path = f"/v1/records/{wire.record_id(record_id)}/{which}"
        answer = yield from _get(session, path, _RelativesAnswer, {"limit": _PAGE}, cursor)
        found += answer.ids
        cursor = answer.next_cursor
        if cursor is None:
            return found


class _RelativesAnswer(_OperationsPage, RelativesAnswer):
    pass


def _get(
    session: Session,
    path: str,
    shape: type[PageT],
    query: dict[str, int | str | None],
    cursor: str | None,
) -> Operation[PageT]:
    wanted = {name: value for name, value in query.items() if value is not None}
    if cursor is not None:
        wanted["cursor"] = cursor
    return (yield from exchange.get(session, f"{path}?{urlencode(wanted)}", shape))


def _job_path(job_id: int) -> str:
    return f"/v1/jobs/{wire.record_id(job_id, what='job_id')}"


def operation_uuid(operation_id: str | UUID) -> UUID:
    """Return the id of an operation.

    Raises:
        InvalidArgument: it is not an operation's id.
    """
    return wire.uuid(operation_id, "an operation's id")
