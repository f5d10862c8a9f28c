"""A job: submitted, advanced slice by slice, finished, or stopped and undone."""

from __future__ import annotations

import pytest

from recordledger.domain.admin.job import (
    JOB_EVENTS,
    JobAdvanced,
    JobAggregate,
    JobCancelled,
    JobCancelRequested,
    JobFinished,
    JobState,
    JobSubmitted,
    evolve_job,
    request_cancel,
)
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.events import Event
from tests.examples import OPERATION_ID, T0, at, created, payload, stamp


def submitted(n_total: int = 10) -> JobSubmitted:
    """Return the event that makes a job."""
    said = stamp(reason="wrong basis set", action="cancel").model_dump()
    return JobSubmitted(ids=payload("ids"), n_total=n_total, options={"tag": None}, **said)


def advanced(n_done: int = 5, n_refused: int = 0, seconds: float = 1) -> JobAdvanced:
    """Return the event of a slice."""
    return JobAdvanced(
        n_done=n_done,
        n_updated=n_done - n_refused,
        n_relatives=2,
        n_refused=n_refused,
        refusals=payload("refusals") if n_refused else None,
        **stamp(timestamp=at(seconds)).model_dump(),
    )


FINISHED = JobFinished(**stamp(timestamp=at(9)).model_dump())
REQUESTED = JobCancelRequested(**stamp(timestamp=at(9), actor="bob").model_dump())
CANCELLED = JobCancelled(**stamp(timestamp=at(10)).model_dump())


def fold_job(*history: Event) -> JobAggregate:
    job = JobAggregate(3)
    for event in history:
        job = evolve_job(job, event)
    return job


def test_a_submitted_job_says_what_is_to_be_done_by_whom_and_why() -> None:
    assert fold_job(submitted()) == JobAggregate(
        id=3,
        version=1,
        operation_id=OPERATION_ID,
        action="cancel",
        state=JobState.running,
        actor="alice",
        reason="wrong basis set",
        n_total=10,
        created_at=T0,
        modified_at=T0,
    )


def test_its_slices_add_up() -> None:
    job = fold_job(submitted(), advanced(6, 1), advanced(4, 3, seconds=2), FINISHED)
    assert (job.state, job.n_done, job.n_updated) == (JobState.finished, 10, 6)
    assert (job.n_refused, job.n_relatives, job.modified_at) == (4, 4, at(9))


def test_a_cancelled_job_is_being_undone_until_it_is_undone() -> None:
    assert fold_job(submitted(), advanced(), REQUESTED).state is JobState.cancelling
    assert fold_job(submitted(), advanced(), REQUESTED, CANCELLED).state is JobState.cancelled


@pytest.mark.parametrize(
    ("history", "event"),
    [
        ((), advanced()),
        ((), created()),
        ((submitted(),), submitted()),
        ((submitted(),), CANCELLED),
        ((submitted(), REQUESTED), advanced()),
        ((submitted(), REQUESTED), REQUESTED),
        ((submitted(), REQUESTED), FINISHED),
        ((submitted(), FINISHED), REQUESTED),
        ((submitted(), FINISHED), advanced()),
        ((submitted(), REQUESTED, CANCELLED), advanced()),
    ],
)
def test_nothing_else_can_have_happened_to_a_job(history: tuple[Event, ...], event: Event) -> None:
    with pytest.raises(ImpossibleHistory, match=f"{event.topic} cannot happen") as caught:
        fold_job(*history, event)
    assert (caught.value.stream, caught.value.version) == ("job 3", len(history) + 1)


def test_only_a_running_job_can_be_stopped() -> None:
    assert request_cancel(fold_job(submitted()), stamp(timestamp=at(9), actor="bob")) == [REQUESTED]
    for ended in ((), (submitted(), REQUESTED), (submitted(), FINISHED)):
        assert request_cancel(fold_job(*ended), stamp()) == []


def test_the_catalogue_names_every_event_of_a_job() -> None:
    named = {JobSubmitted, JobAdvanced, JobFinished, JobCancelRequested, JobCancelled}
    assert set(JOB_EVENTS) == named
