"""Returns: what is current is accepted, what is late is kept, and nothing counts twice."""

from __future__ import annotations

from functools import partial
from itertools import starmap
from typing import Final

import pytest

from recordledger.domain.errors import ManagerNotFound, NotYourManager
from recordledger.domain.records import events as e
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.events import Event, Priority
from recordledger.domain.records.policies import PolicySettings
from recordledger.domain.records.record import RETRY_POLICY
from recordledger.domain.records.status import Status
from recordledger.projections.actions.managing import (
    ReturnedResult,
    ReturnedResults,
    deactivate_manager,
    lose_silent_managers,
    relinquish,
    return_results,
)
from recordledger.projections.ledger import Ledger, Operation
from recordledger.projections.reading.queries import payload_contents
from recordledger.projections.tables import records

from ..stage import ALICE, BOB, OK, TRACEBACK, Stage, bad, good, result, together

# What may happen to a running record that makes its attempt a thing of the past.
OVERTAKEN: Final[dict[str, tuple[type[Event], ...]]] = {
    "cancelled": (e.Cancelled,),
    "deleted": (e.SoftDeleted,),
    "cancelled and back": (e.Cancelled, e.Uncancelled),
    "deleted and back": (e.SoftDeleted, e.Undeleted),
    "cancelled and deleted": (e.Cancelled, e.SoftDeleted),
    "held": (e.Cancelled, e.Uncancelled, e.Held),
}


def return_all(stage: Stage, manager_id: int, *results: ReturnedResult) -> ReturnedResults:
    return return_results(stage.ledger, manager_id, results, user=BOB)


def outcomes(
    answer: ReturnedResults,
) -> tuple[list[int], list[int], list[int], list[tuple[int, str]]]:
    """Return what became of each result: accepted, late, duplicate, and refused with its code."""
    refused = [(index, code) for index, code, _ in answer["errors"]]
    return answer["accepted_idx"], answer["late_idx"], answer["duplicate_idx"], refused


# In time


def test_results_in_time_are_taken_without_reading_what_has_happened(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager_id, held = stage.running(2)
    monkeypatch.delattr(Ledger, "history")
    answer = return_all(stage, manager_id, *starmap(result, held.items()), result(10**6, 1))
    assert outcomes(answer) == ([0, 1], [], [], [(2, "not_found")])


def test_good_results_in_time_are_taken_without_reading_whole_records(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager_id, held = stage.running(2)
    monkeypatch.delattr(Operation, "lock")
    answer = stage.hand_in(manager_id, held)
    assert outcomes(answer) == ([0, 1], [], [], [])


def test_a_good_result_completes_the_record(stage: Stage) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    answer = stage.hand_in(manager_id, held)
    assert outcomes(answer) == ([0], [], [], [])
    record = stage.record(record_id)
    assert (record.status, record.manager_id) == (Status.complete, manager_id)
    assert record.outcome == good()[0]
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.started_at < record.finished_at
    completed = stage.events(record_id)[-1]
    assert completed.timestamp == record.finished_at
    assert completed.actor == f"manager:{manager_id}"
    assert str(completed.operation_id) == answer["operation_id"]
    (reference,) = good()[0].payloads
    assert payload_contents(stage.ledger, [reference.digest]) == {reference.digest: OK}
    stage.require_equal()


def test_a_bad_result_takes_the_record_out_of_the_queue(stage: Stage) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    assert outcomes(stage.hand_in(manager_id, held, bad("SCFError"))) == ([0], [], [], [])
    assert stage.status(record_id) is Status.error
    assert stage.queue() == []
    shown = stage.ask("SELECT error_type, error_message FROM records")
    assert shown == [("SCFError", "no convergence")]
    stage.require_equal()


def test_errors_are_retried_as_often_as_was_asked_for(stage: Stage) -> None:
    (record_id,) = stage.submit(retries=2)
    manager_id = stage.manager()
    for attempt in (1, 2, 3):
        assert stage.claim(manager_id) == {record_id: attempt}
        stage.hand_in(manager_id, {record_id: attempt}, bad())
    assert stage.status(record_id) is Status.error
    one_retry = ["claimed", "errored", "reset"]
    assert stage.topics(record_id) == ["created", *one_retry * 2, "claimed", "errored"]
    resets = [event for event in stage.events(record_id) if isinstance(event, e.Reset)]
    assert [(event.retry, event.actor) for event in resets] == [
        (1, RETRY_POLICY),
        (2, RETRY_POLICY),
    ]
    stage.happen(record_id, e.Reset)
    assert stage.record(record_id).retries_used == 0
    stage.hand_in(manager_id, stage.claim(manager_id), bad())
    assert stage.status(record_id) is Status.waiting
    stage.require_equal()


def test_a_policy_resets_errors_by_their_type(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    one, two = held
    results = [result(one, 1, bad("OSError")), result(two, 1, bad("ValueError"))]
    policies = PolicySettings(auto_reset={"OSError": 1})
    return_results(stage.ledger, manager_id, results, user=BOB, policies=policies)
    assert stage.statuses(one, two) == {one: "waiting", two: "error"}
    stage.require_equal()


def test_a_policy_adopts_good_results_that_come_late(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    relinquish(stage.ledger, manager_id, held, user=BOB)
    one, two = held
    for record_id, policies in (
        (one, PolicySettings()),
        (two, PolicySettings(adopt_late_results=True)),
    ):
        late = [result(record_id, 1)]
        answer = return_results(stage.ledger, manager_id, late, user=BOB, policies=policies)
        assert answer["late_idx"] == [0]
    assert stage.statuses(one, two) == {one: "waiting", two: "complete"}
    stage.require_equal()


def test_a_batch_is_answered_index_by_index(stage: Stage) -> None:
    manager_id, held = stage.running(4)
    one, two, three, four = held
    stage.happen(two, e.Cancelled)
    stage.hand_in(manager_id, {three: 1})
    answer = return_all(
        stage,
        manager_id,
        result(four, 1, bad()),
        result(four + 1000, 1),
        result(two, 1),
        result(one, 2),
        result(three, 1),
        result(one, 1),
    )
    errors = [(1, "not_found"), (3, "not_your_attempt")]
    assert outcomes(answer) == ([0, 5], [2], [4], errors)
    assert [stage.status(id_) for id_ in held] == [
        Status.complete,
        Status.cancelled,
        Status.complete,
        Status.error,
    ]
    stage.require_equal()


def test_a_good_result_that_is_twice_in_a_batch_counts_once(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    first, second = starmap(result, held.items())
    answer = return_all(stage, manager_id, first, second, first)
    assert outcomes(answer) == ([0, 1], [], [2], [])
    assert [stage.topics(id_).count("completed") for id_ in held] == [1, 1]


def test_good_results_of_many_kinds_of_tasks_are_each_record_s_own(stage: Stage) -> None:
    before = stage.submit(2, tag="again")
    first = stage.manager("again")
    relinquish(stage.ledger, first, stage.claim(first), user=BOB)
    for priority in Priority:
        stage.submit(2, priority=priority, programs=[f"program{priority}"])
    manager_id = stage.manager(programs={f"program{priority}": None for priority in Priority})
    held = stage.claim(manager_id)
    assert set(before) < held.keys()
    assert set(held.values()) == {1, 2}
    given = [result(id_, n, good(b'{"energy":%d}' % id_)) for id_, n in held.items()]
    answer = return_results(stage.ledger, manager_id, given[::-1], user=BOB)
    assert answer["accepted_idx"] == list(range(len(held)))
    for id_, number in held.items():
        completed = stage.events(id_)[-1]
        assert isinstance(completed, e.Completed)
        assert completed.attempt == number
        assert completed.outcome == given[list(held).index(id_)].outcome
        assert stage.record(id_).outcome == completed.outcome
    stage.require_equal()


def test_all_records_of_a_batch_are_locked_though_another_manager_runs_some(stage: Stage) -> None:
    first, held = stage.running(2)
    other, theirs = stage.running(2)
    ids = sorted({**held, **theirs})

    def work(operation: Operation) -> None:
        found = records.lock_attempts(operation.db, first, ids, stage.ledger.lanes)
        assert [list(alike.ids) for alike in found] == [list(held)]
        locked = stage.ask("SELECT id FROM records FOR UPDATE SKIP LOCKED")
        assert not {row[0] for row in locked} & set(ids)

    assert other != first
    stage.ledger.operate(work, actor=ALICE)


def test_an_empty_batch_is_no_operation(stage: Stage) -> None:
    manager_id = stage.manager()
    n = stage.head()
    assert outcomes(return_all(stage, manager_id)) == ([], [], [], [])
    assert stage.head() == n


# Twice


def test_the_same_result_twice_counts_once(stage: Stage) -> None:
    manager_id, held = stage.running()
    assert outcomes(stage.hand_in(manager_id, held)) == ([0], [], [], [])
    n = stage.head()
    assert outcomes(stage.hand_in(manager_id, held)) == ([], [], [0], [])
    assert outcomes(stage.hand_in(manager_id, held, bad())) == ([], [], [0], [])
    assert stage.head() == n


@pytest.mark.parametrize("retries", [0, 1])
def test_two_results_of_an_attempt_in_one_batch_count_once(stage: Stage, retries: int) -> None:
    manager_id, held = stage.running(retries=retries)
    (record_id,) = held
    answer = return_all(
        stage, manager_id, *(result(record_id, 1, what) for what in (bad(), good(), bad()))
    )
    assert outcomes(answer) == ([0], [], [1, 2], [])
    assert stage.status(record_id) is (Status.waiting if retries else Status.error)
    stage.require_equal()


def test_two_late_results_of_an_attempt_in_one_batch_count_once(stage: Stage) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    stage.happen(record_id, e.Cancelled)
    answer = return_all(stage, manager_id, result(record_id, 1), result(record_id, 1, bad()))
    assert outcomes(answer) == ([], [0], [1], [])
    assert outcomes(return_all(stage, manager_id, result(record_id, 1))) == ([], [], [0], [])
    assert stage.topics(record_id).count("late_result") == 1


def test_a_result_between_two_of_an_older_attempt_counts_once(stage: Stage) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    relinquish(stage.ledger, manager_id, held, user=BOB)
    assert stage.claim(manager_id) == {record_id: 2}
    batch = [result(record_id, attempt) for attempt in (1, 2, 2, 1)]
    answer = return_all(stage, manager_id, *batch)
    assert outcomes(answer) == ([1], [0], [2, 3], [])
    assert answer["operation_id"] == str(stage.events(record_id)[-1].operation_id)
    assert stage.topics(record_id).count("late_result") == 1


def test_results_that_come_at_once_are_accepted_once(stage: Stage) -> None:
    manager_id, held = stage.running(20)
    hand_in = partial(stage.hand_in, manager_id, held)
    backwards = partial(stage.hand_in, manager_id, dict(reversed(held.items())))
    answers: list[ReturnedResults] = together(hand_in, backwards, hand_in, backwards)
    assert sum(len(answer["accepted_idx"]) for answer in answers) == 20
    assert sum(len(answer["duplicate_idx"]) for answer in answers) == 60
    for record_id in held:
        assert stage.topics(record_id) == ["created", "claimed", "completed"]
    stage.require_equal()


# Late


@pytest.mark.parametrize("how", OVERTAKEN)
@pytest.mark.parametrize("what", [good(), bad()], ids=["good", "bad"])
def test_the_result_of_an_attempt_that_is_over_is_kept_and_not_applied(
    stage: Stage, how: str, what: tuple[e.Outcome, dict[bytes, bytes]]
) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    stage.happen(record_id, *OVERTAKEN[how])
    before = stage.record(record_id)
    assert outcomes(stage.hand_in(manager_id, held, what)) == ([], [0], [], [])
    after = stage.record(record_id)
    assert (after.status, after.prior) == (before.status, before.prior)
    assert after.outcome is None
    late = stage.events(record_id)[-1]
    assert isinstance(late, e.LateResult)
    assert (late.attempt, late.manager_id, late.outcome) == (1, manager_id, what[0])
    digests = [reference.digest for reference in what[0].payloads]
    assert set(payload_contents(stage.ledger, digests)) == set(digests)
    stage.require_equal()


def test_a_zombies_results_do_not_touch_the_attempt_that_came_after(stage: Stage) -> None:
    zombie, held = stage.running(2)
    one, two = held
    stage.silence(zombie)
    assert lose_silent_managers(stage.ledger) == {zombie: [one, two]}
    manager_id = stage.manager()
    assert stage.claim(manager_id) == {one: 2, two: 2}
    stage.hand_in(manager_id, {one: 2})
    assert outcomes(stage.hand_in(zombie, held, bad())) == ([], [0, 1], [], [])
    assert outcomes(stage.hand_in(zombie, {one: 2, two: 2})) == (
        [],
        [],
        [],
        [(0, "not_your_attempt"), (1, "not_your_attempt")],
    )
    assert stage.status(one) is Status.complete
    assert stage.status(two) is Status.running
    assert outcomes(stage.hand_in(manager_id, {two: 2})) == ([0], [], [], [])
    found = attempts(stage.events(two))
    assert {number: (each.manager_id, each.late) for number, each in found.items()} == {
        1: (zombie, True),
        2: (manager_id, False),
    }
    stage.require_equal()


def test_the_result_of_a_relinquished_attempt_is_late_even_if_the_manager_claims_again(
    stage: Stage,
) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    relinquish(stage.ledger, manager_id, held, user=BOB)
    assert stage.claim(manager_id) == {record_id: 2}
    answer = return_all(
        stage, manager_id, result(record_id, 1), result(record_id, 2), result(record_id, 1)
    )
    assert outcomes(answer) == ([1], [0], [2], [])
    stage.require_equal()


def test_a_result_after_an_adoption_is_late(stage: Stage) -> None:
    zombie, held = stage.running()
    (record_id,) = held
    relinquish(stage.ledger, zombie, held, user=BOB)
    stage.hand_in(zombie, held, good(b"early"))
    manager_id = stage.manager()
    stage.claim(manager_id)
    stage.happen(record_id, e.ResultAdopted, attempt=1, outcome=good(b"early")[0])
    assert outcomes(stage.hand_in(manager_id, {record_id: 2})) == ([], [0], [], [])
    assert stage.record(record_id).outcome == good(b"early")[0]
    stage.require_equal()


def test_a_manager_that_has_ended_may_still_hand_in_what_it_had(stage: Stage) -> None:
    manager_id, held = stage.running()
    deactivate_manager(stage.ledger, manager_id, actor=BOB, owner=BOB)
    assert outcomes(stage.hand_in(manager_id, held)) == ([], [0], [], [])


# Not theirs


@pytest.mark.parametrize("attempt", [0, 1, 2, 2**31])
def test_a_result_for_an_attempt_that_a_manager_never_had_is_refused(
    stage: Stage, attempt: int
) -> None:
    _, held = stage.running()
    (record_id,) = held
    other = stage.manager()
    answer = stage.hand_in(other, {record_id: attempt})
    assert outcomes(answer) == ([], [], [], [(0, "not_your_attempt")])
    assert "return only attempts that this manager has claimed" in answer["errors"][0][2]
    assert stage.status(record_id) is Status.running


def test_a_result_for_a_record_that_nobody_has_claimed_is_refused(stage: Stage) -> None:
    (record_id,) = stage.submit()
    answer = stage.hand_in(stage.manager(), {record_id: 0, record_id + 1: 1})
    assert outcomes(answer) == ([], [], [], [(0, "not_your_attempt"), (1, "not_found")])


def test_a_result_for_an_erased_record_finds_no_record(stage: Stage) -> None:
    manager_id, held = stage.running()
    (record_id,) = held
    stage.happen(record_id, e.Erased)
    answer = stage.hand_in(manager_id, held)
    assert answer["errors"] == [(0, "not_found", f"there is no record {record_id}")]
    assert outcomes(answer)[:3] == ([], [], [])
    stage.require_equal()


def test_what_is_refused_leaves_no_bytes(stage: Stage) -> None:
    _, held = stage.running()
    before = stage.ask("SELECT count(*) FROM payloads")
    stage.hand_in(stage.manager(), held, good(b"not wanted"))
    assert stage.ask("SELECT count(*) FROM payloads") == before


def test_only_its_owner_returns_for_a_manager(stage: Stage) -> None:
    manager_id, held = stage.running()
    with pytest.raises(NotYourManager):
        stage.hand_in(manager_id, held, user=ALICE)
    with pytest.raises(ManagerNotFound):
        stage.hand_in(manager_id + 1, held)
    assert stage.hand_in(manager_id, held)["accepted_idx"] == [0]


# Payloads


def test_contents_come_back_as_they_were_whatever_their_size(stage: Stage) -> None:
    manager_id, held = stage.running(5)
    contents = [b"", b"\0", b"x" * 255, b"x" * 300_000, bytes(range(256)) * 40]
    results = [result(id_, 1, good(content)) for id_, content in zip(held, contents, strict=True)]
    return_all(stage, manager_id, *results)
    for record_id, content in zip(held, contents, strict=True):
        outcome = stage.record(record_id).outcome
        assert outcome is not None
        assert outcome.result is not None
        digest = outcome.result.digest
        assert outcome.result.size_bytes == len(content)
        assert payload_contents(stage.ledger, [digest]) == {digest: content}
    sizes = stage.ask("SELECT codec, size_bytes > octet_length(data) FROM payloads")
    assert all(smaller is (codec == "zstd") for codec, smaller in sizes)
    assert payload_contents(stage.ledger, []) == {}
    assert payload_contents(stage.ledger, [b"\0" * 32]) == {}


def test_the_traceback_of_a_thousand_errors_is_stored_once(stage: Stage) -> None:
    manager_id, held = stage.running(50)
    stage.hand_in(manager_id, held, bad())
    size = stage.ask("SELECT count(*) FROM payloads WHERE size_bytes = %s", [len(TRACEBACK)])
    assert size == [(1,)]
