"""What takes back what: every event that people cause, and the record as it was before."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Kind, Priority
from recordledger.domain.records.record import RecordAggregate, inverse
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS
from tests.examples import (
    HISTORIES,
    ONE_OF_EACH,
    Given,
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    errored,
    failure,
    given,
    held,
    late_result,
    lease_expired,
    released,
    rerouted,
    reset,
    result_adopted,
    retried,
    reverted,
    service_iterated,
    service_started,
    soft_deleted,
    stamp,
    success,
    uncancelled,
    undeleted,
)

UNDONE = UUID(int=7)
REDONE = UUID(int=8)

# Every status, reached in the ways in which fields other than the status differ.
BEFORE: dict[str, tuple[Event, ...]] = {
    **{str(status): history for status, history in HISTORIES.items()},
    "error of manager 4": (created(), claimed(4), errored(timestamp=at(5))),
    "error after a retry": (
        created(retries=1),
        claimed(1),
        errored(),
        retried(1, attempt=1),
        claimed(2, attempt=2),
        errored(attempt=2),
    ),
    "error, cancelled": (*HISTORIES[Status.error], cancelled()),
    "waiting, cancelled, deleted": (created(), cancelled(), soft_deleted()),
    "complete, deleted": (*HISTORIES[Status.complete], soft_deleted()),
    "running service": (created(kind=Kind.service), service_started(), service_iterated()),
    "errored service": (
        created(kind=Kind.service),
        service_started(),
        service_iterated(),
        errored(),
    ),
}
UNDOABLE = (
    cancelled(),
    uncancelled(),
    soft_deleted(),
    undeleted(),
    ONE_OF_EACH[e.Invalidated](),
    ONE_OF_EACH[e.Uninvalidated](),
    held(),
    released(),
    reset(),
    ONE_OF_EACH[e.Failed](),
    ONE_OF_EACH[e.Revived](),
    result_adopted(outcome=success("late")),
    rerouted(tag="cpu", priority=Priority.high),
    rerouted(tag="cpu"),
    reverted("error", outcome=failure("OSError"), retries_used=3),
)
CASES = [
    pytest.param(given(*history), event, id=f"{name}: {event.topic}")
    for name, history in BEFORE.items()
    for event in UNDOABLE
    if (given(*history).status, type(event)) in TRANSITIONS
]


def as_it_was(record: RecordAggregate) -> RecordAggregate:
    """Return the record but for what an undo does not restore: an attempt that was running."""
    if record.status is Status.running:
        record = replace(record, status=Status.waiting, manager_id=None)
    return replace(record, version=0, modified_at=None)


def take_back(before: Given, event: Event) -> Given:
    """Let an event happen, and what takes it back."""
    opposite = inverse(before.record, event, stamp(undoes=UNDONE), cause=5)
    assert opposite is not None
    assert (opposite.undoes, opposite.cause) == (UNDONE, 5)
    return before.and_then(event, opposite)


@pytest.mark.parametrize(("before", "event"), CASES)
def test_what_is_taken_back_leaves_the_record_as_it_was(before: Given, event: Event) -> None:
    assert as_it_was(take_back(before, event).record) == as_it_was(before.record)


@pytest.mark.parametrize(("before", "event"), CASES)
def test_taking_back_is_taken_back(before: Given, event: Event) -> None:
    done = before.and_then(event)
    opposite = take_back(before, event).history[-1]
    again = inverse(done.record, opposite, stamp(undoes=REDONE), cause=None)
    assert again is not None
    redone = done.and_then(opposite, again).record
    assert as_it_was(redone) == as_it_was(done.record)


@pytest.mark.parametrize("event_type", [e.Commented, e.LateResult, e.Resubmitted, e.Erased])
def test_what_was_said_computed_or_destroyed_stays_so(event_type: type[Event]) -> None:
    before = given(*HISTORIES[Status.error]).record
    assert inverse(before, ONE_OF_EACH[event_type](), stamp(), None) is None


@pytest.mark.parametrize("event", [created(), claimed(), completed(), lease_expired()])
def test_what_nobody_asked_for_is_not_taken_back(event: Event) -> None:
    assert inverse(given().record, event, stamp(), None) is None


def test_an_adopted_result_is_given_up_and_may_be_adopted_again() -> None:
    late = given(created(), claimed(1), lease_expired(), claimed(2, attempt=2), late_result(1))
    given_up = take_back(late, result_adopted())
    assert given_up.status is Status.waiting
    assert given_up.record.outcome is None
    assert given_up.attempts[1].late
    assert given_up.and_then(commented(), result_adopted()).status is Status.complete
