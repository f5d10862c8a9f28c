"""Managing records, as operations: each call is one operation, on ids or on what a query finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack, cast

from recordledger.domain.admin.job import JobState
from recordledger.domain.records.status import Status

from ...schemas.fields import PriorityName
from ...schemas.jobs import JobRefusalOut, JobRefusalsAnswer
from ...schemas.management import ManageAnswer, ManageRequest
from .. import exchange, wire
from ..errors import InvalidArgument, Refused
from ..exchange import Operation, Session, Sleep
from ..progress import bar
from ..results.jobs import Job
from ..results.management import UpdateMetadata
from .records import conditions_of

_POLL_S: Final = (0.1, 2.0)
_REFUSALS: Final = 10_000
_SILENCE_S: Final = 20.0

_log = logging.getLogger(__name__)

Ids = int | Iterable[int | None]


class Conditions(TypedDict, total=False):
    """Which records, instead of ids: those that meet every condition, as in `query_records`.

    `query` is the same as a mapping. `all=True` must be said if there is no condition at all.
    """

    query: Mapping[str, Any] | None
    all: bool
    status: Status | str | Iterable[Status | str] | None
    tag: str | Iterable[str] | None
    owner: str | Iterable[str] | None
    manager_id: int | Iterable[int] | None
    function: str | Iterable[str] | None
    created_after: datetime | None
    created_before: datetime | None
    modified_after: datetime | None
    modified_before: datetime | None
    dataset: int | str | None
    specification: str | Iterable[str] | None
    entry: str | Iterable[str] | None


def reset_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Let records in error wait for another attempt; a service's errored children too.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "reset", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def cancel_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Cancel records that are not finished, with their families.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "cancel", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def uncancel_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Bring cancelled records back as they were, and what was cancelled because of them.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "uncancel", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def undelete_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Bring deleted records back as they were, and what was deleted because of them.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "undelete", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def uninvalidate_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Let results be used again, and what was invalidated because of them.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "uninvalidate", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def hold_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Keep waiting records from being claimed; they keep their place in the queue.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "hold", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def release_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Let held records be claimed again.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "release", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def fail_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Declare errors final: the records are out of the queue for good.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "fail", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def revive_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Let failed records wait again; for administrators.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "revive", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def delete_records(
    session: Session,
    ids: Ids | None = None,
    soft_delete: bool = True,
    delete_children: bool = True,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Put records out of sight, or destroy them for good.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        soft_delete: whether they can be undeleted. False destroys them, for administrators, and
            is refused as long as something refers to a record: only bare events stay.
        delete_children: whether children that nobody else needs follow.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session,
            "delete" if soft_delete else "erase",
            ids,
            which,
            {"delete_children": delete_children},
            reason=reason,
            dry_run=dry_run,
            wait=wait,
        )
    )


def invalidate_records(
    session: Session,
    ids: Ids | None = None,
    propagate: bool = True,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Declare results not to be used; they stay readable.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        propagate: whether what was made from them becomes invalid too.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session,
            "invalidate",
            ids,
            which,
            {"propagate": propagate},
            reason=reason,
            dry_run=dry_run,
            wait=wait,
        )
    )


def modify_records(
    session: Session,
    ids: Ids | None = None,
    new_tag: str | None = None,
    new_priority: PriorityName | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Give records another tag or priority; the unfinished children of services too.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        new_tag: routing string; None keeps what it is.
        new_priority: "low", "normal" or "high"; None keeps what it is.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session,
            "modify",
            ids,
            which,
            {"new_tag": new_tag, "new_priority": new_priority},
            reason=reason,
            dry_run=dry_run,
            wait=wait,
        )
    )


def add_comment(
    session: Session,
    ids: Ids | None = None,
    text: str = "",
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Write a remark about records; it changes nothing else.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        text: of 1 to 10,000 characters.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session,
            "comment",
            ids,
            which,
            {"text": text},
            reason=reason,
            dry_run=dry_run,
            wait=wait,
        )
    )


def resubmit_records(
    session: Session,
    ids: Ids | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Make a new record of the same specification for each of these; both know of each other.

    `new_ids` of the answer are the new ones.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session, "resubmit", ids, which, {}, reason=reason, dry_run=dry_run, wait=wait
        )
    )


def adopt_results(
    session: Session,
    ids: Ids | None = None,
    attempt: int | None = None,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = True,
    **which: Unpack[Conditions],
) -> Operation[UpdateMetadata]:
    """Take a late result of each record as its result; a running attempt is then stale.

    Args:
        session: the client's.
        ids: one id or several; or leave them out and say conditions.
        attempt: which late result; None for the newest good one.
        reason: why; kept with every event.
        dry_run: say what would happen, and change nothing.
        wait: whether to wait for a job, which changes more than 10,000 records.
        which: conditions, like `status="error", tag="x"`; or `all=True`.
    """
    return (
        yield from _manage(
            session,
            "adopt",
            ids,
            which,
            {"attempt": attempt},
            reason=reason,
            dry_run=dry_run,
            wait=wait,
        )
    )


def _manage(
    session: Session,
    action: str,
    ids: Ids | None,
    which: Conditions,
    options: Mapping[str, Any],
    *,
    reason: str | None,
    dry_run: bool,
    wait: bool,
) -> Operation[UpdateMetadata]:
    selected = _selected(ids, which)
    request = wire.message(
        ManageRequest,
        **selected,
        **{name: value for name, value in options.items() if value is not None},
        reason=reason,
        dry_run=dry_run,
    )
    body = wire.pack(request.model_dump(exclude_unset=True, exclude_none=True))
    answer = yield from exchange.post(session, f"/v1/records/{action}", ManageAnswer, body)
    metadata = UpdateMetadata(
        **{name: getattr(answer, name) for name in ManageAnswer.model_fields},
        is_done=answer.job_id is None,
        dry_run=dry_run,
    )
    if answer.job_id is None or not wait:
        return metadata
    job = yield from wait_for_job(session, answer.job_id)
    refusals = yield from refusals_of(session, job)
    return _of_job(metadata, job, refusals, cast("list[int] | None", selected.get("ids")))


def _selected(ids: Ids | None, which: Conditions) -> dict[str, Any]:
    """Return what says which records, as the server takes it."""
    conditions = {name: value for name, value in which.items() if name not in ("query", "all")}
    query = which.get("query")
    if ids is not None:
        if query is not None or conditions or which.get("all"):
            raise InvalidArgument("pass ids or conditions, and not both")
        return {"ids": wire.record_ids(ids) if isinstance(ids, Iterable) else [wire.record_id(ids)]}
    if query is None and not conditions and not which.get("all"):
        raise InvalidArgument(
            'say which records: ids, conditions like status="error", or all=True for every one'
        )
    return {"query": conditions_of({**(query or {}), **conditions}), "all": which.get("all", False)}


def wait_for_job(session: Session, job_id: int) -> Operation[Job]:
    """Wait until a job has ended, and return it.

    Raises:
        NotFound: there is no such job.
    """
    path = f"/v1/jobs/{wire.record_id(job_id, what='job_id')}"
    job = yield from exchange.get(session, path, Job)
    pause_s, moved_at = _POLL_S[0], time.monotonic()
    text = f"{job.action}, job {job_id}"
    with bar(session.progress, job.n_total, text) as progress:
        progress.update(job.n_done)
        while not job.is_ended:
            yield Sleep(pause_s)
            before = job
            job = yield from exchange.get(session, path, Job)
            progress.update(job.n_done - before.n_done)
            pause_s = min(1.5 * pause_s, _POLL_S[1])
            if (job.n_done, job.state) != (before.n_done, before.state):
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > _SILENCE_S:
                moved_at = time.monotonic()
                _log.warning(
                    "job %d does not move; does `recordledger work` run beside the server?", job_id
                )
    return job


def refusals_of(session: Session, job: Job) -> Operation[list[JobRefusalOut]]:
    """Return the records that a job was refused for."""
    found: list[JobRefusalOut] = []
    cursor: str | None = None
    while job.n_refused:
        path = f"/v1/jobs/{job.id}/refusals?limit={_REFUSALS}"
        path += "" if cursor is None else f"&cursor={cursor}"
        answer = yield from exchange.get(session, path, JobRefusalsAnswer)
        found += answer.refusals
        cursor = answer.next_cursor
        if cursor is None:
            break
    return found


def _of_job(
    begun: UpdateMetadata, job: Job, refusals: list[JobRefusalOut], ids: list[int] | None
) -> UpdateMetadata:
    """Return what a job has done as the answer to the call that began it.

    The job counts distinct records; the caller's indexes are those of their first mentions.
    """
    if job.state is JobState.cancelled:
        raise Refused(
            f"job {job.id} was cancelled, and what it had done was undone", code="job_cancelled"
        )
    places = list(range(job.n_total)) if ids is None else first_places(ids)
    refused = {refusal.idx for refusal in refusals}
    return UpdateMetadata(
        updated_idx=[place for idx, place in enumerate(places) if idx not in refused],
        errors=[refusal.model_copy(update={"idx": places[refusal.idx]}) for refusal in refusals],
        n_children_updated=job.n_relatives,
        operation_id=begun.operation_id if job.n_updated else None,
        n_selected=begun.n_selected,
        job_id=job.id,
    )


def first_places(ids: Iterable[int]) -> list[int]:
    """Return where each distinct id is first, in their order.

    >>> first_places([7, 7, 9, 7, 8])
    [0, 2, 4]
    """
    places: dict[int, int] = {}
    for idx, id_ in enumerate(ids):
        places.setdefault(id_, idx)
    return list(places.values())
