"""Managing records, as operations: each call is one operation, on ids or on what a query finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from recordledger.domain.admin.job import JobState
from recordledger.domain.records.actions import Action

from ...schemas.jobs import JobRefusalOut, JobRefusalsAnswer
from ...schemas.management import ManageAnswer, ManageRequest
from .. import exchange, wire
from ..conditions import Conditions, Ids
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


def manage(
    session: Session,
    action: Action,
    ids: Ids | None,
    which: Conditions,
    options: Mapping[str, Any] = MappingProxyType({}),
    *,
    reason: str | None,
    dry_run: bool,
    wait: bool,
) -> Operation[UpdateMetadata]:
    """Change records; wait for the job if it becomes one, unless `wait` is false.

    Args:
        action: what to do.
        ids: to which records; None if conditions say it.
        which: the conditions.
        options: of the action, by name; None for those that are not given.
        reason: why.
        dry_run: whether to change nothing.
        wait: whether to wait for a job.

    Raises:
        InvalidArgument: neither ids nor conditions are given, or both.
        Refused: the job was cancelled while it was waited for.
    """
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
            raise InvalidArgument("pass either ids or conditions, not both")
        return {"ids": wire.record_ids(ids) if isinstance(ids, Iterable) else [wire.record_id(ids)]}
    if query is None and not conditions and not which.get("all"):
        raise InvalidArgument(
            'select records by ids, by conditions like status="error", or by all=True'
        )
    return {"query": conditions_of({**(query or {}), **conditions}), "all": which.get("all", False)}


def wait_for_job(session: Session, job_id: int) -> Operation[Job]:
    """Wait until a job has ended, and return it.

    Raises:
        NotFound: there is no such job.

    >>> client.wait_for_job(1).state
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
                    "job %d makes no progress; check that `recordledger work` is running", job_id
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
            f"job {job.id} was cancelled, and its changes were undone", code="job_cancelled"
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
