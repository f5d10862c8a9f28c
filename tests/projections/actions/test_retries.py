"""Retries with a pause: the record waits out of the queue, and comes back to its old place."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Final

import pytest

from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.record import RETRY_POLICY, fold
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from recordledger.projections.actions.policies import end_retry_pauses

from ..stage import Held, Stage, bad, together

SHORT: Final = Retry(3, delay_s=0.05)
LONG: Final = Retry(3, delay_s=1_000)


def failed_once(stage: Stage, retry: Retry) -> tuple[int, int]:
    """Return a record whose first attempt has failed, and the manager that had it."""
    (record_id,) = stage.submit(retry=retry)
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id), bad("OSError"))
    return record_id, manager_id


def come_due(stage: Stage) -> int:
    """Wait until pauses are over; return how many were."""
    n_due = 0

    def some_are() -> bool:
        nonlocal n_due
        n_due = end_retry_pauses(stage.ledger)
        return n_due > 0

    stage.wait(some_are)
    return n_due


def test_a_record_whose_retry_has_a_pause_waits_and_is_not_in_the_queue(stage: Stage) -> None:
    record_id, manager_id = failed_once(stage, LONG)
    record = stage.record(record_id)
    errored = stage.events(record_id)[2]
    assert record.status is Status.waiting
    assert record.not_before == errored.timestamp + timedelta(seconds=1_000)
    assert record.retry == LONG
    assert stage.queue() == []
    assert stage.claim(manager_id) == {}
    assert end_retry_pauses(stage.ledger) == 0
    assert record == fold(record_id, stage.events(record_id))
    stage.require_equal()


def test_when_the_pause_is_over_it_is_back_in_its_old_place(stage: Stage) -> None:
    record_id, manager_id = failed_once(stage, SHORT)
    (younger,) = stage.submit()
    assert come_due(stage) == 1
    assert stage.queue() == [record_id, younger]
    assert stage.claim(manager_id, limit=1) == {record_id: 2}
    due = stage.events(record_id)[4]
    assert isinstance(due, e.RetryDue)
    assert due.actor == RETRY_POLICY
    stage.require_equal()


def test_each_pause_is_twice_the_one_before(stage: Stage) -> None:
    record_id, manager_id = failed_once(stage, SHORT)
    for _ in range(3):
        come_due(stage)
        stage.hand_in(manager_id, stage.claim(manager_id), bad("OSError"))
    assert stage.status(record_id) is Status.error
    events = stage.events(record_id)
    pauses = [
        (after.not_before - error.timestamp).total_seconds()
        for error, after in pairwise(events)
        if isinstance(error, e.Errored) and isinstance(after, e.Reset) and after.not_before
    ]
    assert pauses == [0.05, 0.1, 0.2]
    stage.require_equal()


def test_errors_that_do_not_qualify_are_not_retried(stage: Stage) -> None:
    (record_id,) = stage.submit(retry=Retry(3, on=("OSError",)))
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id), bad("ValueError"))
    assert stage.status(record_id) is Status.error


def test_what_is_held_in_its_pause_is_due_when_it_is_released(stage: Stage) -> None:
    record_id, _ = failed_once(stage, SHORT)
    stage.done(Action.hold, record_id)
    not_before = stage.record(record_id).not_before
    stage.wait_until(not_before)
    assert end_retry_pauses(stage.ledger) == 0
    stage.done(Action.release, record_id)
    assert stage.queue() == []
    assert come_due(stage) == 1
    assert stage.queue() == [record_id]
    stage.require_equal()


def test_cancelling_in_the_pause_and_uncancelling_keeps_the_pause(stage: Stage) -> None:
    record_id, _ = failed_once(stage, LONG)
    before = stage.image()
    stage.undo(stage.done(Action.cancel, record_id))
    assert stage.image() == before
    stage.require_equal()


def test_a_record_in_its_pause_can_get_another_priority(stage: Stage) -> None:
    record_id, _ = failed_once(stage, SHORT)
    stage.done(Action.modify, record_id, tag="cpu")
    come_due(stage)
    assert stage.claim(stage.manager("cpu")) == {record_id: 2}


def test_two_servers_that_look_at_once_end_a_pause_once(stage: Stage) -> None:
    record_id, _ = failed_once(stage, SHORT)
    not_before = stage.record(record_id).not_before
    stage.wait_until(not_before)
    assert sum(together(*[lambda: end_retry_pauses(stage.ledger)] * 4)) == 1
    assert stage.topics(record_id).count("retry_due") == 1


def test_a_late_result_that_is_adopted_in_the_pause_ends_it(stage: Stage) -> None:
    (record_id,) = stage.submit(retry=LONG)
    slow = stage.manager()
    held: Held = stage.claim(slow)
    stage.silence(slow)
    stage.lose_silent()
    quick = stage.manager()
    stage.hand_in(quick, stage.claim(quick), bad("OSError"))
    stage.hand_in(slow, held)
    stage.done(Action.adopt, record_id)
    record = stage.record(record_id)
    assert (record.status, record.not_before) == (Status.complete, None)
    stage.require_equal()


@pytest.mark.parametrize("limit", [1, 2])
def test_pauses_end_a_slice_at_a_time_those_that_wait_longest_first(
    stage: Stage, limit: int
) -> None:
    ids = [failed_once(stage, SHORT)[0] for _ in range(2)]
    last = stage.record(ids[-1]).not_before
    stage.wait_until(last)
    assert end_retry_pauses(stage.ledger, limit) == limit
    assert stage.queue() == ids[:limit]
