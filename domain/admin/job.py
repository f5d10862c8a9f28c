"""A job: one operation on so many records that it is done in slices; its events and state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Final
from uuid import UUID

from ..errors import ImpossibleHistory
from ..records.events import Event, Payload, Stamp, events_of


class JobState(StrEnum):
    """Where a job stands. Cancelling means that what was done is being undone."""

    running = auto()
    finished = auto()
    cancelling = auto()
    cancelled = auto()


class JobSubmitted(Event):
    """The records of `ids` (a payload) are to be changed, slice by slice, as one operation.

    `text` is what is to be said of them, if they are to be commented.
    """

    topic = "job_submitted"
    words = "{who} submitted it, for {n_total} records"

    ids: Payload
    n_total: int
    options: dict[str, Any]
    text: Payload | None = None


class JobAdvanced(Event):
    """A slice was done: its records were changed in the same transaction as this was recorded."""

    topic = "job_advanced"
    words = "{n_done} more records were processed"

    n_done: int
    n_updated: int
    n_relatives: int
    n_refused: int
    refusals: Payload | None = None


class JobFinished(Event):
    """Every slice was done. `released` is the text that the job had to say and needs no more."""

    topic = "job_finished"
    words = "it is finished"

    released: Payload | None = None


class JobCancelRequested(Event):
    """A user asked to stop the job and to undo its changes."""

    topic = "job_cancel_requested"
    words = "{who} asked to cancel it"


class JobCancelled(Event):
    """The job was stopped, and what it had done was undone where nobody had changed it since."""

    topic = "job_cancelled"
    words = "it was stopped, and its changes were undone"

    released: Payload | None = None


JOB_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class JobAggregate:
    """The state of one job, folded from its history. `n_*` count records."""

    id: int
    version: int = 0
    operation_id: UUID | None = None
    action: str = ""
    state: JobState | None = None
    actor: str = ""
    reason: str | None = None
    n_total: int = 0
    n_done: int = 0
    n_updated: int = 0
    n_relatives: int = 0
    n_refused: int = 0
    created_at: datetime | None = None
    modified_at: datetime | None = None


def evolve_job(job: JobAggregate, event: Event) -> JobAggregate:
    """Return the job after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the job is.
    """
    job = replace(job, version=job.version + 1, modified_at=event.timestamp)
    match event, job.state:
        case JobSubmitted(), None:
            return replace(
                job,
                state=JobState.running,
                operation_id=event.operation_id,
                action=event.action or "",
                actor=event.actor,
                reason=event.reason,
                n_total=event.n_total,
                created_at=event.timestamp,
            )
        case JobAdvanced(), JobState.running:
            return replace(
                job,
                n_done=job.n_done + event.n_done,
                n_updated=job.n_updated + event.n_updated,
                n_relatives=job.n_relatives + event.n_relatives,
                n_refused=job.n_refused + event.n_refused,
            )
        case JobFinished(), JobState.running:
            return replace(job, state=JobState.finished)
        case JobCancelRequested(), JobState.running:
            return replace(job, state=JobState.cancelling)
        case JobCancelled(), JobState.cancelling:
            return replace(job, state=JobState.cancelled)
        case _:
            raise ImpossibleHistory(
                f"job {job.id}",
                job.version,
                f"{event.topic} cannot happen to a job that is {job.state or 'not there'}",
            )


def request_cancel(job: JobAggregate, stamp: Stamp) -> list[Event]:
    """Return the event by which a running job is to be stopped; none if it has ended."""
    if job.state is not JobState.running:
        return []
    return [JobCancelRequested(**stamp.model_dump())]
