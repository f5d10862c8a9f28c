"""What each event does to a record, field by field."""

from __future__ import annotations

from dataclasses import fields
from uuid import UUID

import pytest

from recordledger.domain.records.events import Completed, Errored, Event, Kind, Outcome, Priority
from recordledger.domain.records.record import RecordAggregate, evolve, fold
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from tests.examples import (
    HISTORIES,
    RECORD_ID,
    T0,
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    erased,
    errored,
    failed,
    failure,
    given,
    held,
    invalidated,
    late_result,
    lease_expired,
    manager_lost,
    payload,
    released,
    relinquished,
    rerouted,
    reset,
    resubmitted,
    result_adopted,
    retried,
    reverted,
    revived,
    service_iterated,
    service_started,
    soft_deleted,
    success,
    uncancelled,
    undeleted,
    uninvalidated,
)

ALWAYS = {"version", "modified_at"}
UNDONE = UUID(int=9)


def changes(history: tuple[Event, ...], event: Event) -> dict[str, object]:
    """Return the fields that an event changes, besides those that every event changes."""
    before = fold(RECORD_ID, history)
    after = evolve(before, event)
    names = [item.name for item in fields(RecordAggregate) if item.name not in ALWAYS]
    return {
        name: getattr(after, name)
        for name in names
        if getattr(after, name) != getattr(before, name)
    }


def test_a_record_without_history_does_not_exist() -> None:
    record = fold(RECORD_ID, [])
    assert record == RecordAggregate(RECORD_ID)
    assert not record.exists
    assert (record.version, record.attempt, record.retry.retries, record.retries_used) == (
        0,
        0,
        0,
        0,
    )


def test_created_says_what_the_record_is() -> None:
    event = created(
        kind=Kind.service,
        spec=payload("spec"),
        function="scan",
        required_programs=("psi4>=1.9",),
        tag="cpu",
        priority=Priority.high,
        retries=3,
        retry_delay_s=10.0,
        retry_on=("OSError",),
        actor="bob",
    )
    assert changes((), event) == {
        "status": Status.waiting,
        "kind": Kind.service,
        "spec": payload("spec"),
        "function": "scan",
        "required_programs": ("psi4>=1.9",),
        "tag": "cpu",
        "priority": Priority.high,
        "retry": Retry(3, 10.0, ("OSError",)),
        "owner": "bob",
        "created_at": T0,
    }


def test_every_event_counts_and_sets_the_time_of_the_last_change() -> None:
    record = given(created(), commented(timestamp=at(5)), held(timestamp=at(9))).record
    assert (record.version, record.modified_at, record.created_at) == (3, at(9), T0)


def test_claimed_gives_the_record_to_a_manager() -> None:
    assert changes((created(),), claimed(7, timestamp=at(1))) == {
        "status": Status.running,
        "attempt": 1,
        "manager_id": 7,
        "started_at": at(1),
    }


def test_a_second_claim_is_a_new_attempt_that_has_not_finished() -> None:
    history = (created(), claimed(), errored(), reset())
    assert changes(history, claimed(2, attempt=2, timestamp=at(8))) == {
        "status": Status.running,
        "attempt": 2,
        "manager_id": 2,
        "started_at": at(8),
    }


def test_a_service_is_started_by_no_manager() -> None:
    history = (created(kind=Kind.service),)
    assert changes(history, service_started(timestamp=at(1))) == {
        "status": Status.running,
        "attempt": 1,
        "started_at": at(1),
    }


def test_an_iteration_leaves_a_service_running() -> None:
    history = (created(kind=Kind.service), service_started())
    assert changes(history, service_iterated(state=payload("first"))) == {
        "iteration": 1,
        "service_state": payload("first"),
    }


@pytest.mark.parametrize(
    "lost",
    [
        (cancelled(), uncancelled()),
        (soft_deleted(), undeleted()),
        (errored(), reset()),
        (errored(), failed(), revived()),
    ],
)
def test_a_service_goes_on_where_it_left_off(lost: tuple[Event, ...]) -> None:
    history = (created(kind=Kind.service), service_started(), service_iterated(iteration=1))
    record = given(*history, *lost, service_started(attempt=2)).record
    assert (record.iteration, record.service_state) == (1, payload("state"))
    assert (record.status, record.attempt) == (Status.running, 2)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (completed(timestamp=at(4)), Status.complete),
        (errored(timestamp=at(4)), Status.error),
    ],
)
def test_a_result_is_kept_with_who_computed_it(
    event: Completed | Errored,
    status: Status,
) -> None:
    assert changes(HISTORIES[Status.running], event) == {
        "status": status,
        "outcome": event.outcome,
        "finished_at": at(4),
    }


def test_a_late_result_is_kept_aside() -> None:
    assert changes((created(), claimed(), lease_expired()), late_result()) == {}


def test_an_adopted_result_completes_the_record_and_frees_it_of_its_manager() -> None:
    history = (created(), claimed(1), lease_expired(), claimed(2, attempt=2), late_result(1))
    assert changes(history, result_adopted(outcome=success("late"), timestamp=at(9))) == {
        "status": Status.complete,
        "outcome": success("late"),
        "finished_at": at(9),
        "manager_id": None,
    }


@pytest.mark.parametrize("event", [lease_expired(), manager_lost(), relinquished()])
def test_a_lost_attempt_lets_the_record_wait_without_a_manager(event: Event) -> None:
    assert changes(HISTORIES[Status.running], event) == {
        "status": Status.waiting,
        "manager_id": None,
    }


def test_a_reset_by_a_person_forgets_the_outcome_and_gives_a_fresh_budget() -> None:
    history = (created(retries=1), claimed(), errored(), retried(1, attempt=1))
    again = (*history, claimed(attempt=2), errored(attempt=2))
    assert changes(again, reset()) == {
        "status": Status.waiting,
        "outcome": None,
        "manager_id": None,
        "finished_at": None,
        "retries_used": 0,
    }


def test_a_reset_by_the_retry_policy_uses_up_one_retry() -> None:
    history = (created(retries=2), claimed(), errored())
    assert fold(RECORD_ID, (*history, retried(1, attempt=1))).retries_used == 1
    assert fold(RECORD_ID, (*history, retried(1, attempt=1))).outcome is None


def test_a_failed_record_keeps_its_error_for_people_to_read() -> None:
    assert changes(HISTORIES[Status.error], failed()) == {"status": Status.failed}


def test_a_revived_record_starts_anew() -> None:
    history = (created(retries=1), claimed(), errored(), retried(1, attempt=1))
    ended = (*history, claimed(attempt=2), errored(attempt=2), failed())
    assert changes(ended, revived()) == {
        "status": Status.waiting,
        "outcome": None,
        "manager_id": None,
        "finished_at": None,
        "retries_used": 0,
    }


def test_holding_and_releasing_change_nothing_but_the_status() -> None:
    assert changes((created(),), held()) == {"status": Status.held}
    assert changes((created(), held()), released()) == {"status": Status.waiting}


@pytest.mark.parametrize(
    ("event", "status"),
    [(cancelled(), Status.cancelled), (soft_deleted(), Status.deleted)],
)
def test_what_a_running_record_was_is_remembered_as_waiting(event: Event, status: Status) -> None:
    assert changes(HISTORIES[Status.running], event) == {
        "status": status,
        "prior": (Status.waiting,),
        "manager_id": None,
    }


@pytest.mark.parametrize(
    ("event", "status"),
    [(cancelled(), Status.cancelled), (soft_deleted(), Status.deleted)],
)
def test_an_errored_record_that_is_put_away_keeps_its_error(event: Event, status: Status) -> None:
    assert changes(HISTORIES[Status.error], event) == {"status": status, "prior": (Status.error,)}


def test_bringing_a_record_back_restores_all_of_it() -> None:
    before = given(*HISTORIES[Status.error])
    for away, back in ((cancelled(), uncancelled()), (soft_deleted(), undeleted())):
        assert (
            before.and_then(away, back).record == before.and_then(commented(), commented()).record
        )


def test_invalidating_keeps_the_result_readable() -> None:
    assert changes(HISTORIES[Status.complete], invalidated()) == {"status": Status.invalid}
    assert changes(HISTORIES[Status.invalid], uninvalidated()) == {"status": Status.complete}


def test_comments_and_resubmissions_change_nothing_else() -> None:
    assert changes(HISTORIES[Status.complete], commented()) == {}
    assert changes(HISTORIES[Status.complete], resubmitted()) == {}


def test_rerouting_changes_what_it_names_and_keeps_the_rest() -> None:
    history = (created(tag="gpu", priority=Priority.high),)
    assert changes(history, rerouted(tag="cpu")) == {"tag": "cpu"}
    assert changes(history, rerouted(priority=Priority.low)) == {"priority": Priority.low}
    assert changes(history, rerouted(tag="cpu", priority=Priority.low)) == {
        "tag": "cpu",
        "priority": Priority.low,
    }
    assert changes(history, rerouted()) == {}


def test_a_reverted_record_is_what_the_event_says() -> None:
    event = reverted(
        "error", outcome=failure(), manager_id=4, finished_at=at(7), retries_used=2, undoes=UNDONE
    )
    assert changes((created(),), event) == {
        "status": Status.error,
        "outcome": failure(),
        "manager_id": 4,
        "finished_at": at(7),
        "retries_used": 2,
    }


def test_an_erased_record_does_not_exist_but_its_events_are_counted() -> None:
    record = given(*HISTORIES[Status.running], erased()).record
    assert not record.exists
    assert record.version == 3
    assert record.manager_id is None


def test_only_waiting_tasks_are_claimable() -> None:
    claimable = {
        status for status, history in HISTORIES.items() if given(*history).record.claimable
    }
    assert claimable == {Status.waiting}
    assert not given(created(kind=Kind.service)).record.claimable
    assert not given().record.claimable


def test_evolving_leaves_the_old_state_as_it_was() -> None:
    before = given(created()).record
    evolve(before, claimed())
    assert before == given(created()).record


def test_the_payloads_of_an_outcome_are_those_it_has() -> None:
    assert success("x").payloads == (payload("x"),)
    assert failure().payloads == (payload("no convergence"), payload("Traceback"))


def test_an_old_outcome_says_itself_what_the_error_said() -> None:
    outcome = Outcome(error_type="ValueError", error_message="no convergence")
    assert outcome.payloads == ()
    assert given(*HISTORIES[Status.running], errored(outcome=outcome)).record.outcome == outcome
