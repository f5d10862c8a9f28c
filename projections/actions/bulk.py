"""Operations of any size: at once if they fit one transaction, else as a job, slice by slice.

A job is an aggregate with a stream of its own. Each slice commits together with the event that says
it was done, so a job that was killed goes on exactly where it was; and a job that was cancelled is
undone by the same machinery as any operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypedDict
from uuid import UUID, uuid5

import msgpack

from recordledger.domain.admin.job import (
    JobAdvanced,
    JobAggregate,
    JobCancelled,
    JobFinished,
    JobState,
    JobSubmitted,
    request_cancel,
)
from recordledger.domain.errors import JobNotEnded, TooLarge
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Payload
from recordledger.domain.streams import Stream

from ..ledger import Intent, Ledger, Operation
from ..store.database import Db
from ..tables import jobs, operations, payloads
from ..tables.idempotency import RequestKey
from . import dataset_filling
from .operations import Managed, OperationRequest, SliceOutcome, answer_of, do, undo_slice

# More records than this are changed by a job.
AT_ONCE_MAX: Final = 10_000
SLICE: Final = 2_000
# A dry run keeps nothing, so no job can do it: this is what one request may take.
DRY_RUN_MAX: Final = 100_000
RUNNER: Final = "server:bulk-operations"


class OperationOutcome(TypedDict):
    """The outcome of an order: done at once (`managed`), or by a job that has begun.

    `ids` are the records that `managed` counts, if the caller asked for them. `changed` is false
    where nothing has come into the log: there is no such operation then.
    """

    operation_id: str
    managed: Managed | None
    job_id: int | None
    n_selected: int
    ids: list[int] | None
    changed: bool


class Undone(TypedDict):
    """The outcome of an undo: how much was taken back, and what was left: (id, code, message)."""

    operation_id: str
    n_undone: int
    conflicts: list[tuple[int, str, str]]
    job_id: int | None


def order(
    ledger: Ledger,
    what: OperationRequest,
    ids: Sequence[int],
    *,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
    dry_run: bool = False,
    tell_ids: bool = False,
) -> OperationOutcome:
    """Do something to any number of records, as one operation.

    Args:
        ledger: where.
        what: what is to be done.
        ids: to which records. A job counts the distinct ones, in this order.
        actor: who wants it.
        reason: why; on every event.
        request: identifies the request if it may be sent again. The ids may differ then, if they
            were looked up: the answer is about those of the first time.
        dry_run: only say what would happen.
        tell_ids: put the ids into the answer, unless a job does it.

    Raises:
        TooLarge: a dry run of more than `DRY_RUN_MAX` records.
        IdempotencyConflict: the request's key was used for something else.
    """
    distinct = list(dict.fromkeys(ids))
    told = list(ids) if tell_ids else None
    if dry_run and len(distinct) > AT_ONCE_MAX:
        managed = _try_in_slices(ledger, what, distinct, ids, actor=actor, reason=reason)
        return OperationOutcome(
            operation_id=managed["operation_id"],
            managed=managed,
            job_id=None,
            n_selected=len(distinct),
            ids=told,
            changed=False,
        )

    def work(operation: Operation) -> OperationOutcome:
        at_once = len(distinct) <= AT_ONCE_MAX
        job_id = None if at_once else _submit(operation, what, distinct)
        operation_id = str(operation.id)
        managed = answer_of(operation_id, ids, do(operation, what, ids)) if at_once else None
        return OperationOutcome(
            operation_id=operation_id,
            managed=managed,
            job_id=job_id,
            n_selected=len(distinct),
            ids=told if at_once else None,
            changed=operation.has_changed and not dry_run,
        )

    intent = Intent(what.action, dry_run=dry_run)
    return ledger.operate(work, actor=actor, reason=reason, request=request, intent=intent)


def _try_in_slices(
    ledger: Ledger,
    what: OperationRequest,
    distinct: Sequence[int],
    ids: Sequence[int],
    *,
    actor: str,
    reason: str | None,
) -> Managed:
    """Say what would happen, in slices as a job would do it, each of which is rolled back."""
    _require_size(len(distinct))
    whole = SliceOutcome()
    for start in range(0, len(distinct), SLICE):
        part = distinct[start : start + SLICE]

        def work(operation: Operation, part: Sequence[int] = part) -> SliceOutcome:
            return do(operation, what, part, frozenset(distinct))

        intent = Intent(what.action, dry_run=True)
        done = ledger.operate(work, actor=actor, reason=reason, intent=intent)
        whole.updated |= done.updated
        whole.refusals |= done.refusals
        whole.n_children += done.n_children
        whole.n_parents += done.n_parents
        whole.new_ids |= done.new_ids
    return answer_of("", ids, whole)


def _require_size(n_records: int) -> None:
    if n_records > DRY_RUN_MAX:
        raise TooLarge(
            "the dry run (records; try a part of them)", n_records, DRY_RUN_MAX, "DRY_RUN_MAX"
        )


def undo(
    ledger: Ledger,
    operation_id: UUID,
    *,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
    dry_run: bool = False,
) -> Undone:
    """Take back what an operation changed, where nobody has changed it since.

    Records that have changed since are left as they are, and listed. An undo is an operation too.

    Raises:
        OperationNotFound: there is no such operation on records.
        JobNotEnded: a job still does it.
        TooLarge: a dry run of more than `DRY_RUN_MAX` records.
        IdempotencyConflict: the request's key was used for something else.
    """
    with ledger.datastore.reading() as db:
        _require_ended(db, operation_id)
        operations.get(db, operation_id)
        ids = operations.changed_records(db, operation_id, 0, AT_ONCE_MAX + 1)
        if len(ids) > AT_ONCE_MAX:
            while more := operations.changed_records(db, operation_id, ids[-1], 100_000):
                ids += more
    intent = Intent(Action.undo, undoes=operation_id, dry_run=dry_run)
    if dry_run:
        _require_size(len(ids))

    def work(operation: Operation, part: Sequence[int] = ids) -> Undone:
        if len(part) > AT_ONCE_MAX:
            job_id = _submit(operation, OperationRequest(Action.undo), part)
            return Undone(operation_id=str(operation.id), n_undone=0, conflicts=[], job_id=job_id)
        done = undo_slice(operation, operation_id, part)
        return Undone(
            operation_id=str(operation.id),
            n_undone=len(done.updated),
            conflicts=[(id_, why.code, str(why)) for id_, why in done.refusals.items()],
            job_id=None,
        )

    if not dry_run:
        return ledger.operate(work, actor=actor, reason=reason, request=request, intent=intent)
    whole = Undone(operation_id="", n_undone=0, conflicts=[], job_id=None)
    for start in range(0, len(ids), SLICE):

        def attempt(
            operation: Operation, part: Sequence[int] = ids[start : start + SLICE]
        ) -> Undone:
            return work(operation, part)

        tried = ledger.operate(attempt, actor=actor, reason=reason, intent=intent)
        whole["n_undone"] += tried["n_undone"]
        whole["conflicts"] += tried["conflicts"]
    return whole


def _require_ended(db: Db, operation_id: UUID) -> None:
    job_id = jobs.of_operation(db, operation_id)
    if job_id is None:
        return
    job = jobs.get(db, job_id)
    if job.state in (JobState.running, JobState.cancelling):
        raise JobNotEnded(job_id, str(job.state))


def _submit(operation: Operation, what: OperationRequest, ids: Sequence[int]) -> int:
    """Let a job begin in the transaction of the operation that it does; return its id."""
    text = what.text
    submitted = JobSubmitted(
        **operation.stamp.model_dump(),
        ids=payloads.keep(operation.db, msgpack.packb(list(ids))),
        n_total=len(ids),
        options=what.options(),
        text=payloads.keep(operation.db, text.encode()) if isinstance(text, str) else text,
    )
    return operation.happen(JobAggregate(jobs.next_id(operation.db)), [submitted]).id


def cancel_job(
    ledger: Ledger,
    job_id: int,
    *,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> bool:
    """Have a job stopped and undone; return whether it was still running.

    Raises:
        JobNotFound: there is none with this id.
    """

    def work(operation: Operation) -> bool:
        job = jobs.get(operation.db, job_id, "lock")
        events = request_cancel(job, operation.stamp)
        operation.happen(job, events)
        return bool(events)

    return ledger.operate(work, actor=actor, reason=reason, request=request)


def advance_jobs(ledger: Ledger, jobs_max: int = 10) -> int:
    """Do one slice of each unfinished job; return how many jobs there were."""
    with ledger.datastore.reading() as db:
        unfinished = jobs.unfinished(db, jobs_max)
    for job_id in unfinished:
        _advance(ledger, job_id)
    return len(unfinished)


def _advance(ledger: Ledger, job_id: int) -> None:
    with ledger.datastore.reading() as db:
        job = jobs.get(db, job_id)
    match job.state:
        case JobState.running if job.action == dataset_filling.SUBMIT:
            dataset_filling.do_slice(ledger, job)
        case JobState.running:
            _do_slice(ledger, job)
        case JobState.cancelling:
            _undo_all(ledger, job)
        case _:
            pass


def _do_slice(ledger: Ledger, seen: JobAggregate) -> None:
    submitted, ids = _order_of(ledger, seen.id)
    action = Action[seen.action]

    def work(operation: Operation) -> None:
        job = jobs.get(operation.db, seen.id, "lock")
        if job.state is not JobState.running or job.n_done != seen.n_done:
            return  # Another process has done it, or it was cancelled.
        part = ids[job.n_done : job.n_done + SLICE]
        if action is Action.undo and submitted.undoes is not None:
            done = undo_slice(operation, submitted.undoes, part)
        else:
            what = OperationRequest.of(action, submitted.options, submitted.text)
            done = do(operation, what, part, frozenset(ids))
        advanced = JobAdvanced(
            **operation.stamp.model_dump(),
            n_done=len(part),
            n_updated=len(done.updated),
            n_relatives=done.n_children + done.n_parents,
            n_refused=len(done.refusals),
            refusals=_keep_refusals(operation, job.n_done, part, done),
        )
        job = operation.happen(job, [advanced])
        if job.n_done >= job.n_total:
            finished = JobFinished(**operation.stamp.model_dump(), released=submitted.text)
            operation.happen(job, [finished])

    intent = Intent(action, operation_id=seen.operation_id, undoes=submitted.undoes)
    ledger.operate(work, actor=seen.actor, reason=seen.reason, intent=intent)


def _undo_all(ledger: Ledger, job: JobAggregate) -> None:
    """Take back everything that a job has done. Begun again after a crash, it finds less to do."""
    assert job.operation_id is not None  # noqa: S101 - every submitted job has one
    undone = job.operation_id
    intent = Intent(Action.undo, operation_id=uuid5(undone, "undo"), undoes=undone)
    submitted, _ = _order_of(ledger, job.id)
    after = 0
    while True:
        with ledger.datastore.reading() as db:
            ids = operations.changed_records(db, undone, after, SLICE)
        if not ids:
            break

        def work(operation: Operation, ids: Sequence[int] = ids) -> None:
            undo_slice(operation, undone, ids)

        ledger.operate(work, actor=RUNNER, reason=f"job {job.id} was cancelled", intent=intent)
        after = ids[-1]

    def end(operation: Operation) -> None:
        present = jobs.get(operation.db, job.id, "lock")
        if present.state is JobState.cancelling:
            cancelled = JobCancelled(**operation.stamp.model_dump(), released=submitted.text)
            operation.happen(present, [cancelled])

    ledger.operate(end, actor=RUNNER)


def _order_of(ledger: Ledger, job_id: int) -> tuple[JobSubmitted, list[int]]:
    """Return how a job was ordered, and the records that it is about."""
    with ledger.datastore.reading() as db:
        first = ledger.history(db, Stream.job, job_id)[0].recorded.event
        assert isinstance(first, JobSubmitted)  # noqa: S101 - a job begins with it
        content = payloads.load(db, [first.ids.digest])[first.ids.digest]
    ids: list[int] = msgpack.unpackb(content)
    return first, ids


def _keep_refusals(
    operation: Operation, start: int, part: Sequence[int], done: SliceOutcome
) -> Payload | None:
    errors = answer_of("", part, done)["errors"]
    if not errors:
        return None
    moved = [(start + index, code, message) for index, code, message in errors]
    return payloads.keep(operation.db, msgpack.packb(moved))


class JobRefusal(NamedTuple):
    """A record that a job was refused for: its place among the job's records, and why.

    `record_id` is 0 where the job was to make it, for a dataset.
    """

    idx: int
    record_id: int
    code: str
    message: str


def refusals_of(ledger: Ledger, job_id: int, limit: int, after: int = -1) -> list[JobRefusal]:
    """Return which records a job was refused for, by place, those after `after`.

    Raises:
        JobNotFound: there is none with this id.
    """
    found: list[JobRefusal] = []
    with ledger.datastore.reading() as db:
        job = jobs.get(db, job_id)
        if not job.n_refused:
            return []
        of_records = job.action != dataset_filling.SUBMIT
        _, ids = _order_of(ledger, job_id)
        n_done = 0
        for placed in ledger.history(db, Stream.job, job_id):
            event = placed.recorded.event
            if not isinstance(event, JobAdvanced):
                continue
            n_done += event.n_done
            if event.refusals is None or n_done <= after + 1:
                continue
            content = payloads.load(db, [event.refusals.digest])[event.refusals.digest]
            found += [
                JobRefusal(idx, ids[idx] if of_records else 0, code, message)
                for idx, code, message in msgpack.unpackb(content)
                if idx > after
            ]
            if len(found) >= limit:
                break
    return found[:limit]
