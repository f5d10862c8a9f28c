"""What may be asked of a record in each status, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recordledger.domain.errors import (
    NotYourAttempt,
    RecordNotFound,
    RetryNotDue,
    TransitionForbidden,
    WrongKind,
)
from recordledger.domain.records.commands import Change, EndRetryPause, RecordCommand
from recordledger.domain.records.events import (
    RECORD_EVENTS,
    Created,
    Event,
    Kind,
    Outcome,
    Priority,
    ServiceIterated,
)
from recordledger.domain.records.record import RecordAggregate, decide
from recordledger.domain.records.status import Status
from tests.domain.specification import NONE, ONLY_SERVICES, ROWS
from tests.examples import (
    HISTORIES,
    ONE_OF_EACH,
    RECORD_ID,
    Given,
    at,
    cancelled,
    claim,
    claimed,
    completed,
    create,
    created,
    erased,
    errored,
    expire_lease,
    failure,
    finish_service,
    given,
    given_status,
    hand_in,
    held,
    iterate_service,
    late_result,
    lease_expired,
    lose_manager,
    manager_lost,
    payload,
    relinquish,
    relinquished,
    reset,
    result_adopted,
    retried,
    retry_due,
    reverted,
    service_iterated,
    service_started,
    soft_deleted,
    stamp,
    start_service,
    success,
    uncancelled,
    undeleted,
)

NOT_RUNNING = [status for status in Status if status is not Status.running]
NOT_WAITING = [status for status in Status if status is not Status.waiting]


# Creating


def test_a_record_is_created_as_asked() -> None:
    asked = {
        "kind": Kind.service,
        "spec": payload("spec"),
        "function": "scan",
        "required_programs": ("psi4",),
        "tag": "cpu",
        "priority": Priority.low,
        "retries": 2,
        "retry_delay_s": 5.0,
        "retry_on": ("!ValueError",),
        "resubmission_of": 410,
    }
    given().when(create(**asked, actor="bob", reason="new")).then(  # type: ignore[arg-type]
        created(**asked, actor="bob", reason="new")  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("status", Status)
def test_a_record_is_created_once(status: Status) -> None:
    refused = given_status(status).when(create())
    refused.then_refused(TransitionForbidden, event="created", status=status, allowed=())


# Claiming


def test_a_waiting_task_is_claimed() -> None:
    command = claim(7, lease_expires_at=at(90), actor="manager:7")
    given(created()).when(command).then(
        claimed(7, attempt=1, lease_expires_at=at(90), actor="manager:7")
    )


def test_each_claim_is_a_new_attempt() -> None:
    history = (created(), claimed(), lease_expired(), claimed(attempt=2), relinquished(attempt=2))
    given(*history).when(claim(3)).then(claimed(3, attempt=3))


@pytest.mark.parametrize("status", NOT_WAITING)
def test_what_does_not_wait_is_not_claimed(status: Status) -> None:
    given_status(status).when(claim(2)).then_refused(
        TransitionForbidden,
        event="claimed",
        status=status,
        allowed=("waiting",),
        code="transition_forbidden",
    )


def test_a_service_is_not_claimed() -> None:
    given(created(kind=Kind.service)).when(claim()).then_refused(
        WrongKind, event="claimed", kind=Kind.service, code="wrong_kind"
    )


def test_a_record_that_does_not_exist_is_not_claimed() -> None:
    given().when(claim()).then_refused(RecordNotFound, record_id=RECORD_ID, code="not_found")


# Returning


def test_a_good_result_completes_the_record() -> None:
    given(*HISTORIES[Status.running]).when(hand_in(success("-1.1"), actor="manager:1")).then(
        completed(outcome=success("-1.1"), actor="manager:1")
    )


def test_a_bad_result_is_an_error_when_there_are_no_retries() -> None:
    given(created(retries=0), claimed()).when(hand_in(failure())).then(errored(outcome=failure()))


@pytest.mark.parametrize("status", NOT_RUNNING)
def test_a_result_that_was_never_asked_for_is_refused(status: Status) -> None:
    given_status(status).when(hand_in(manager_id=2, attempt=9)).then_refused(
        NotYourAttempt, record_id=RECORD_ID, attempt=9, manager_id=2, code="not_your_attempt"
    )


def test_a_result_for_a_record_that_does_not_exist_is_refused() -> None:
    given().when(hand_in()).then_refused(RecordNotFound, record_id=RECORD_ID)


# Retrying


def test_an_error_is_retried_by_the_policy_and_says_why() -> None:
    decided = given(created(retries=1), claimed()).when(
        hand_in(failure("MemoryError"), actor="manager:1")
    )
    decided.then(
        errored(outcome=failure("MemoryError"), actor="manager:1"),
        retried(1, attempt=1, error_type="MemoryError"),
    )
    assert decided.after.status is Status.waiting


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_so_many_errors_are_retried_and_the_next_one_stays(retries: int) -> None:
    record = given(created(retries=retries))
    for attempt in range(1, retries + 1):
        record = record.when(claim()).then(claimed(attempt=attempt)).after
        decided = record.when(hand_in(failure(), attempt=attempt))
        decided.then(errored(attempt=attempt), retried(attempt, attempt=attempt))
        record = decided.after
    last = retries + 1
    decided = record.and_then(claimed(attempt=last)).when(hand_in(failure(), attempt=last))
    decided.then(errored(attempt=last))
    assert decided.after.status is Status.error


def test_a_retry_waits_for_its_pause_which_doubles() -> None:
    record = given(created(retries=3, retry_delay_s=10), claimed())
    first = record.when(hand_in(failure(), timestamp=at(100)))
    first.then(
        errored(timestamp=at(100)),
        retried(1, attempt=1, not_before=at(110)).model_copy(update={"timestamp": at(100)}),
    )
    assert first.after.status is Status.waiting
    assert not first.after.record.claimable
    again = first.after.and_then(retry_due(), claimed(attempt=2))
    second = again.when(hand_in(failure(), attempt=2, timestamp=at(200)))
    assert second.after.record.not_before == at(220)


def test_nobody_claims_a_record_whose_pause_is_not_over() -> None:
    paused = given(created(retries=1), claimed(), errored(), reset(retry=1, not_before=at(60)))
    paused.when(claim()).then_refused(RetryNotDue, record_id=RECORD_ID, not_before=at(60))


def test_a_pause_ends_when_its_time_has_come_and_not_before() -> None:
    paused = given(created(retries=1), claimed(), errored(), reset(retry=1, not_before=at(60)))
    paused.when(EndRetryPause(stamp=stamp(timestamp=at(59)))).then()
    over = paused.when(EndRetryPause(stamp=stamp(timestamp=at(60))))
    over.then(retry_due(timestamp=at(60)))
    assert over.after.record.claimable
    over.after.when(EndRetryPause(stamp=stamp(timestamp=at(61)))).then()


@pytest.mark.parametrize("meanwhile", [held(), cancelled(), soft_deleted()])
def test_a_pause_does_not_end_while_the_record_does_not_wait(meanwhile: Event) -> None:
    paused = given(created(retries=1), claimed(), errored(), reset(retry=1, not_before=at(60)))
    paused.and_then(meanwhile).when(EndRetryPause(stamp=stamp(timestamp=at(99)))).then()


def test_what_was_cancelled_in_its_pause_goes_on_with_it() -> None:
    paused = given(created(retries=1), claimed(), errored(), reset(retry=1, not_before=at(60)))
    back = paused.and_then(cancelled(), uncancelled())
    assert (back.record.status, back.record.not_before) == (Status.waiting, at(60))


@pytest.mark.parametrize("ended_by", [result_adopted(), reverted("error", outcome=failure())])
def test_what_is_not_retried_any_more_has_no_pause(ended_by: Event) -> None:
    history = (created(retries=1), claimed(), lease_expired(), late_result())
    paused = (claimed(attempt=2), errored(attempt=2), reset(retry=1, not_before=at(60)))
    assert given(*history, *paused, ended_by).record.not_before is None


@pytest.mark.parametrize(
    ("retry_on", "error_type", "is_retried"),
    [
        ((), "OSError", True),
        ((), "ResultTooLarge", False),
        (("*",), "ResultTooLarge", True),
        (("OSError",), "OSError", True),
        (("OSError",), "ValueError", False),
        (("!ValueError",), "ValueError", False),
        (("!ValueError",), "OSError", True),
        (("*Error", "!ValueError"), "ValueError", False),
    ],
)
def test_only_errors_that_qualify_are_retried(
    retry_on: tuple[str, ...], error_type: str, is_retried: bool
) -> None:
    record = given(created(retries=1, retry_on=retry_on), claimed())
    after = record.when(hand_in(failure(error_type))).after
    assert after.status is (Status.waiting if is_retried else Status.error)


def used_up() -> Given:
    """Return a record whose one retry did not help."""
    return given(
        created(retries=1),
        claimed(),
        errored(),
        retried(1, attempt=1),
        claimed(attempt=2),
        errored(attempt=2),
    )


def test_a_persons_reset_gives_a_fresh_budget() -> None:
    record = used_up().and_then(reset(), claimed(attempt=3))
    record.when(hand_in(failure(), attempt=3)).then(errored(attempt=3), retried(1, attempt=3))


def test_a_lost_attempt_costs_no_retry() -> None:
    history = (created(retries=1), claimed(), lease_expired(), claimed(attempt=2))
    given(*history).when(hand_in(failure(), attempt=2)).then(
        errored(attempt=2), retried(1, attempt=2)
    )


def test_cancelling_and_uncancelling_costs_no_retry_and_gives_none_back() -> None:
    retrying = given(created(retries=1), claimed(), errored(), retried(1, attempt=1))
    record = retrying.and_then(cancelled(), uncancelled(), claimed(attempt=2))
    record.when(hand_in(failure(), attempt=2)).then(errored(attempt=2))


# The fence: results of attempts that are over

OVERTAKEN: dict[str, tuple[Event, ...]] = {
    "the lease expired": (lease_expired(),),
    "the manager was lost": (manager_lost(),),
    "the attempt was given back": (relinquished(),),
    "the record was cancelled": (cancelled(),),
    "the record was cancelled and brought back": (cancelled(), uncancelled()),
    "the record was deleted": (soft_deleted(),),
    "the record was deleted and brought back": (soft_deleted(), undeleted()),
    "the same manager claimed it again": (lease_expired(), claimed(1, attempt=2)),
    "another manager claimed it": (lease_expired(), claimed(2, attempt=2)),
    "another attempt completed it": (
        lease_expired(),
        claimed(2, attempt=2),
        completed(attempt=2),
    ),
    "another attempt failed and was reset": (
        lease_expired(),
        claimed(2, attempt=2),
        errored(attempt=2),
        reset(),
    ),
    "another attempt's late result was adopted": (
        lease_expired(),
        claimed(2, attempt=2),
        lease_expired(attempt=2),
        late_result(2, attempt=2),
        result_adopted(attempt=2),
    ),
}


@pytest.mark.parametrize("overtaken", OVERTAKEN.values(), ids=OVERTAKEN)
@pytest.mark.parametrize("outcome", [success(), failure()], ids=["good", "bad"])
def test_a_stale_result_is_kept_aside_once(overtaken: tuple[Event, ...], outcome: Outcome) -> None:
    record = given(created(retries=1), claimed(1), *overtaken)
    late = record.when(hand_in(outcome, attempt=1)).then(late_result(1, outcome=outcome))
    assert late.after.record.status is record.status
    assert late.after.record.outcome == record.record.outcome
    late.after.when(hand_in(outcome, attempt=1)).then_nothing()
    late.after.when(hand_in(success("another"), attempt=1)).then_nothing()


@pytest.mark.parametrize("overtaken", OVERTAKEN.values(), ids=OVERTAKEN)
def test_a_stale_result_of_another_manager_is_refused(overtaken: tuple[Event, ...]) -> None:
    record = given(created(), claimed(1), *overtaken)
    record.when(hand_in(manager_id=3, attempt=1)).then_refused(NotYourAttempt, manager_id=3)


def test_a_running_attempt_whose_record_was_completed_by_adoption_is_stale() -> None:
    history = (created(), claimed(1), lease_expired(), claimed(2, attempt=2), late_result(1))
    adopted = given(*history, result_adopted(attempt=1))
    adopted.when(hand_in(manager_id=2, attempt=2)).then(late_result(2, attempt=2))


@pytest.mark.parametrize(
    ("manager_id", "attempt"), [(2, 1), (1, 2), (1, 0), (2, 2)], ids=lambda number: str(number)
)
def test_a_result_for_an_attempt_that_the_manager_never_had_is_refused(
    manager_id: int, attempt: int
) -> None:
    running = given(created(), claimed(1))
    running.when(hand_in(manager_id=manager_id, attempt=attempt)).then_refused(
        NotYourAttempt, attempt=attempt, manager_id=manager_id
    )


def test_a_manager_does_not_return_what_the_server_runs() -> None:
    service = given(created(kind=Kind.service), service_started())
    service.when(hand_in()).then_refused(NotYourAttempt)


@pytest.mark.parametrize("outcome", [success(), failure()], ids=["good", "bad"])
def test_an_accepted_result_that_is_delivered_again_changes_nothing(
    outcome: Outcome,
) -> None:
    accepted = given(created(retries=1), claimed()).when(hand_in(outcome)).after
    accepted.when(hand_in(outcome)).then_nothing()
    accepted.when(hand_in(success("another"))).then_nothing()


# Giving back, losing and expiring


def name_of(command: RecordCommand) -> str:
    return type(command).__name__


def test_a_manager_gives_an_attempt_back() -> None:
    running = given(*HISTORIES[Status.running])
    running.when(relinquish(reason="walltime")).then(relinquished(reason="walltime"))


def test_a_silent_manager_loses_its_attempt() -> None:
    running = given(created(), claimed(4))
    running.when(lose_manager(4)).then(manager_lost(4))


def test_an_attempt_that_was_not_extended_expires() -> None:
    running = given(*HISTORIES[Status.running])
    running.when(expire_lease(actor="server")).then(lease_expired(actor="server"))


@pytest.mark.parametrize("status", [None, *NOT_RUNNING])
@pytest.mark.parametrize("command", [relinquish(), lose_manager(), expire_lease()], ids=name_of)
def test_what_is_not_running_cannot_be_taken_back(
    status: Status | None, command: RecordCommand
) -> None:
    given_status(status).when(command).then_nothing()


def test_only_the_current_attempt_is_taken_back() -> None:
    running = given(created(), claimed(1), lease_expired(), claimed(2, attempt=2))
    running.when(relinquish(1, attempt=1)).then_nothing()
    running.when(relinquish(2, attempt=1)).then_nothing()
    running.when(relinquish(1, attempt=2)).then_nothing()
    running.when(lose_manager(1)).then_nothing()
    running.when(expire_lease(attempt=1)).then_nothing()
    running.when(expire_lease(attempt=2)).then(lease_expired(attempt=2))
    running.when(relinquish(2, attempt=2)).then(relinquished(2, attempt=2))


@pytest.mark.parametrize("command", [relinquish(), lose_manager(), expire_lease()], ids=name_of)
def test_taking_an_attempt_back_twice_changes_nothing_the_second_time(
    command: RecordCommand,
) -> None:
    waiting = given(*HISTORIES[Status.running]).when(command).after
    assert waiting.status is Status.waiting
    waiting.when(command).then_nothing()


# Erased records


@pytest.mark.parametrize("status", Status)
def test_an_erased_record_is_not_found_by_any_command(status: Status) -> None:
    gone = given_status(status).and_then(erased())
    for command in (create(), claim(), hand_in(), hand_in(failure(), attempt=2)):
        gone.when(command).then_refused(RecordNotFound, record_id=RECORD_ID, code="not_found")


@pytest.mark.parametrize("command", [relinquish(), lose_manager(), expire_lease()], ids=name_of)
def test_an_erased_record_has_no_attempt_to_take_back(command: RecordCommand) -> None:
    given(*HISTORIES[Status.running], erased()).when(command).then_nothing()


# Services

SERVICE = (created(kind=Kind.service),)
STARTED = (*SERVICE, service_started())


def test_a_waiting_service_is_started_and_taken_up_again() -> None:
    given(*SERVICE).when(start_service(runner="r1")).then(service_started(runner="r1"))
    again = given(*STARTED, cancelled(), uncancelled())
    again.when(start_service()).then(service_started(attempt=2))


def test_a_running_service_is_given_its_next_state_and_children() -> None:
    command = iterate_service(state=payload("s1"), children=(412, 413), output=payload("said"))
    first = given(*STARTED).when(command)
    first.then(
        service_iterated(
            iteration=1, state=payload("s1"), children=(412, 413), output=payload("said")
        )
    )
    first.after.when(iterate_service()).then(service_iterated(iteration=2))


def test_what_a_service_waits_for_is_in_its_events() -> None:
    newer: dict[str, Any] = {
        "keys": ("x=1", "x=2"),
        "awaits": ("x=0",),
        "any_child": True,
        "takes_errors": True,
        "wake_at": stamp().timestamp,
        "progress": 0.5,
        "code_version": "2",
    }
    command = replace(iterate_service(children=(412, 413)), **newer)
    [event] = decide(given(*STARTED).record, command)
    assert isinstance(event, ServiceIterated)
    assert {name: getattr(event, name) for name in newer} == newer
    assert event.named_children == {"x=1": 412, "x=2": 413}
    # Events from before there were keys are known by the ids of the children.
    assert service_iterated(children=(412, 413)).named_children == {"412": 412, "413": 413}


def test_what_a_service_brings_about_says_because_of_whom() -> None:
    child = replace(create(), cause=411, refers_to=(payload("result"),))
    [made] = decide(RecordAggregate(412), child)
    assert isinstance(made, Created)
    assert (made.cause, made.refers_to) == (411, (payload("result"),))
    [failed] = decide(given(*STARTED).record, replace(finish_service(failure()), cause=412))
    assert failed.cause == 412


def test_a_service_ends_well_or_badly() -> None:
    given(*STARTED).when(finish_service(success("-1"))).then(completed(outcome=success("-1")))
    given(*STARTED).when(finish_service(failure())).then(errored(outcome=failure()))


@pytest.mark.parametrize(
    ("command", "history", "event"),
    [
        (start_service(), (created(),), "service_started"),
        (finish_service(), (created(), claimed()), "completed"),
        (iterate_service(), (created(), claimed()), "service_iterated"),
    ],
    ids=["start", "finish", "iterate"],
)
def test_a_task_is_not_run_as_a_service(
    command: RecordCommand, history: tuple[Event, ...], event: str
) -> None:
    given(*history).when(command).then_refused(WrongKind, kind=Kind.task, event=event)


@pytest.mark.parametrize("command", [iterate_service(), finish_service()], ids=name_of)
def test_a_service_that_does_not_run_is_neither_iterated_nor_finished(
    command: RecordCommand,
) -> None:
    for history in (SERVICE, (*STARTED, cancelled()), (*STARTED, completed())):
        given(*history).when(command).then_refused(TransitionForbidden, allowed=("running",))


# What people ask for


@pytest.mark.parametrize(("status", "event_type"), ROWS)
def test_people_may_let_happen_what_the_table_lists(status: str, event_type: type[Event]) -> None:
    if status != NONE and event_type not in ONLY_SERVICES:
        event = ONE_OF_EACH[event_type]()
        given_status(Status(status)).when(Change(event=event)).then(event)


def test_what_people_ask_for_is_refused_where_the_table_does_not_list_it() -> None:
    for status in Status:
        for event_type in RECORD_EVENTS:
            if (str(status), event_type) not in ROWS:
                given_status(status).when(Change(event=ONE_OF_EACH[event_type]())).then_refused(
                    TransitionForbidden, event=event_type.topic, status=status
                )


def test_what_does_not_exist_is_not_found_whatever_people_ask_for() -> None:
    for event_type in set(RECORD_EVENTS) - {Created}:
        command = Change(event=ONE_OF_EACH[event_type]())
        given().when(command).then_refused(RecordNotFound, record_id=RECORD_ID)


# Messages


def test_a_refusal_tells_people_where_the_record_would_have_to_be() -> None:
    refusal = given_status(Status.complete).when(claim()).refusal
    assert str(refusal) == (
        "a record with status complete cannot be claimed; the status must be waiting"
    )
    refusal = given_status(Status.complete).when(create()).refusal
    assert str(refusal) == "a record with status complete cannot be created; the status must be new"
