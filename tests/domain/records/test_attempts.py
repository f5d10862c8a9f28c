"""Attempts, read from histories."""

from __future__ import annotations

import pytest

from recordledger.domain.records.attempts import Attempt, attempts
from recordledger.domain.records.events import Completed, Errored, Event, Kind
from tests.examples import (
    T0,
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    erased,
    errored,
    failure,
    given,
    imported,
    late_result,
    lease_expired,
    manager_lost,
    relinquished,
    reset,
    result_adopted,
    service_iterated,
    service_started,
    soft_deleted,
    success,
    uncancelled,
)


def test_a_record_that_was_never_claimed_has_no_attempts() -> None:
    assert attempts([]) == {}
    assert attempts([created(), commented(), cancelled(), uncancelled()]) == {}


def test_an_attempt_that_runs_has_not_ended() -> None:
    assert attempts([created(), claimed(7, timestamp=at(1))]) == {1: Attempt(1, 7, at(1))}


@pytest.mark.parametrize(
    ("event", "topic"),
    [(completed(timestamp=at(9)), "completed"), (errored(timestamp=at(9)), "errored")],
)
def test_a_result_in_time_ends_its_attempt(event: Completed | Errored, topic: str) -> None:
    assert attempts([created(), claimed(), event]) == {
        1: Attempt(1, 1, T0, ended_at=at(9), ended_by=topic, outcome=event.outcome)
    }


@pytest.mark.parametrize(
    "event",
    [
        lease_expired(timestamp=at(9)),
        manager_lost(timestamp=at(9)),
        relinquished(timestamp=at(9)),
        cancelled(timestamp=at(9)),
        soft_deleted(timestamp=at(9)),
        erased(timestamp=at(9)),
        result_adopted(timestamp=at(9)),
        imported(timestamp=at(9)),
    ],
    ids=lambda event: event.topic,
)
def test_what_takes_the_record_away_ends_its_attempt_without_an_outcome(event: Event) -> None:
    assert attempts([created(), claimed(), event]) == {
        1: Attempt(1, 1, T0, ended_at=at(9), ended_by=event.topic)
    }


def test_a_late_result_belongs_to_the_attempt_that_computed_it() -> None:
    found = given(
        created(),
        claimed(1),
        lease_expired(timestamp=at(5)),
        claimed(2, attempt=2, timestamp=at(6)),
        late_result(1, outcome=success("late"), timestamp=at(7)),
    ).attempts
    assert found == {
        1: Attempt(1, 1, T0, at(5), "lease_expired", outcome=success("late"), late=True),
        2: Attempt(2, 2, at(6)),
    }


def test_a_late_result_does_not_end_the_attempt_that_runs() -> None:
    found = given(
        created(),
        claimed(1),
        lease_expired(),
        claimed(2, attempt=2),
        late_result(1),
        completed(attempt=2, timestamp=at(9)),
    ).attempts
    assert found[2].ended_by == "completed"
    assert not found[2].late


def test_adopting_a_late_result_ends_the_attempt_that_runs_and_not_the_one_adopted() -> None:
    found = given(
        created(),
        claimed(1),
        lease_expired(timestamp=at(5)),
        claimed(2, attempt=2),
        late_result(1),
        result_adopted(attempt=1, timestamp=at(8)),
    ).attempts
    assert (found[1].ended_by, found[1].ended_at, found[1].late) == ("lease_expired", at(5), True)
    assert (found[2].ended_by, found[2].ended_at) == ("result_adopted", at(8))
    assert found[2].outcome is None


def test_what_happens_after_an_attempt_does_not_end_it_again() -> None:
    ended = (created(), claimed(), errored(timestamp=at(3)))
    later = given(*ended, cancelled(timestamp=at(4)), soft_deleted(timestamp=at(5)))
    adopted = given(*ended, result_adopted(timestamp=at(6)), erased(timestamp=at(7)))
    assert later.attempts == adopted.attempts == attempts(ended)


@pytest.mark.parametrize("end", [lease_expired(), result_adopted()], ids=lambda event: event.topic)
def test_an_attempt_that_was_taken_away_is_not_taken_away_again(end: Event) -> None:
    ended = (created(), claimed(), end)
    later = given(*ended, soft_deleted(timestamp=at(4)), erased(timestamp=at(5)))
    assert later.attempts == attempts(ended)


def test_retries_are_attempts_in_order() -> None:
    found = given(
        created(retries=1),
        claimed(1),
        errored(outcome=failure("MemoryError")),
        reset(retry=1),
        claimed(2, attempt=2),
        completed(attempt=2),
    ).attempts
    assert list(found) == [1, 2]
    assert [attempt.ended_by for attempt in found.values()] == ["errored", "completed"]


def test_a_service_is_tried_by_no_manager() -> None:
    found = given(
        created(kind=Kind.service),
        service_started(timestamp=at(1)),
        service_iterated(),
        errored(timestamp=at(2)),
        reset(),
        service_started(attempt=2, timestamp=at(3)),
    ).attempts
    assert found == {
        1: Attempt(1, None, at(1), at(2), "errored", failure()),
        2: Attempt(2, None, at(3)),
    }
