"""Leases: extended by signs of life, and over without them; what was held then waits again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import pytest

from recordledger.domain.errors import ManagerNotActive, ManagerNotFound, NotYourManager
from recordledger.domain.records import events as e
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager import change_programs, fold_manager
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.streams import Stream
from recordledger.projections.actions.managing import (
    REAPER,
    deactivate_manager,
    drain_manager,
    heartbeat,
    lose_silent_managers,
    relinquish,
    report_programs,
)
from recordledger.projections.ledger import Ledger, Operation
from recordledger.projections.tables import managers

from ..stage import ALICE, AT_ONCE_S, BOB, HOUR_S, Held, Stage, together, until

WAITING: Final = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def lease_of(stage: Stage, manager_id: int) -> tuple[datetime, datetime]:
    """Return when a manager last gave a sign of life, and until when its lease goes."""
    (row,) = stage.ask(
        "SELECT heartbeat_at, lease_expires_at FROM manager_heartbeats WHERE manager_id = %s",
        [manager_id],
    )
    return row[0], row[1]


def beat(stage: Stage, manager_id: int, held: Held) -> list[tuple[int, int]]:
    """Give a sign of life; return what is stale."""
    return heartbeat(stage.ledger, manager_id, held, user=BOB)["stale"]


# Registration


def test_a_registered_manager_is_what_it_said(stage: Stage) -> None:
    manager_id = stage.manager("gpu", "*", programs={"psi4": "1.9", "x": None}, lease_s=120.5)
    manager = stage.state_of(manager_id)
    assert (manager.state, manager.owner, manager.version) == (ManagerState.active, BOB, 1)
    assert (manager.name, manager.hostname) == ("cluster", "node7")
    assert (manager.tags, manager.programs) == (("gpu", "*"), {"psi4": "1.9", "x": None})
    assert (manager.lease_s, manager.heartbeat_s) == (120.5, 30.125)
    heartbeat_at, lease_expires_at = lease_of(stage, manager_id)
    assert lease_expires_at - heartbeat_at >= timedelta(seconds=120.5)
    with stage.ledger.datastore.reading() as db:
        placed = stage.ledger.history(db, Stream.manager, manager_id)
    assert fold_manager(manager_id, [each.recorded.event for each in placed]) == manager


def test_every_registration_is_a_new_manager(stage: Stage) -> None:
    ids: list[int] = together(*[stage.manager] * 4)
    assert len(set(ids)) == 4
    with stage.ledger.datastore.reading() as db:
        page = managers.page(db, after=0, limit=3, states=[ManagerState.active])
        rest = managers.page(db, after=page[-1].manager.id, limit=3)
    assert [each.manager.id for each in page + rest] == sorted(ids)
    assert all(each.heartbeat_at is not None for each in page)


# Signs of life


def test_a_heartbeat_extends_the_lease_from_the_databases_clock(stage: Stage) -> None:
    manager_id = stage.manager(lease_s=100)
    stage.silence(manager_id)
    answer = heartbeat(stage.ledger, manager_id, {}, user=BOB)
    heartbeat_at, lease_expires_at = lease_of(stage, manager_id)
    assert datetime.fromisoformat(answer["lease_expires_at"]) == lease_expires_at
    assert timedelta(0) <= lease_expires_at - heartbeat_at - timedelta(seconds=100)
    (now,) = stage.ask("SELECT clock_timestamp()")[0]
    assert timedelta(seconds=90) < lease_expires_at - now <= timedelta(seconds=100)
    assert lose_silent_managers(stage.ledger) == {}


def test_a_claim_is_a_sign_of_life_too(stage: Stage) -> None:
    manager_id = stage.manager()
    stage.silence(manager_id)
    assert stage.claim(manager_id) == {}
    assert lose_silent_managers(stage.ledger) == {}


def test_a_heartbeat_is_not_in_the_log(stage: Stage) -> None:
    manager_id, held = stage.running(3)
    n = stage.head()
    assert beat(stage, manager_id, held) == []
    assert stage.head() == n


def test_a_heartbeat_names_what_is_not_the_managers_any_more(stage: Stage) -> None:
    manager_id, held = stage.running(6)
    done, gone, away, back, erased, kept = held
    stage.hand_in(manager_id, {done: 1})
    stage.happen(gone, e.Cancelled)
    stage.happen(away, e.SoftDeleted)
    stage.happen(erased, e.Erased)
    relinquish(stage.ledger, manager_id, {back: 1}, user=BOB)
    assert stage.claim(manager_id) == {back: 2}
    stale = beat(stage, manager_id, {**held, erased + 1000: 7})
    expected = [(done, 1), (gone, 1), (away, 1), (back, 1), (erased, 1), (erased + 1000, 7)]
    assert stale == sorted(expected)
    assert beat(stage, manager_id, {back: 2, kept: 1}) == []


def test_a_claim_whose_answer_was_lost_is_taken_back_after_a_lease(stage: Stage) -> None:
    stage.submit(3)
    manager_id = stage.manager(lease_s=AT_ONCE_S)
    lost = stage.claim(manager_id, 2)
    got = stage.claim(manager_id, 1)
    assert beat(stage, manager_id, got) == []
    for record_id in lost:
        assert stage.status(record_id) is Status.waiting
        assert stage.topics(record_id) == ["created", "claimed", "lease_expired"]
    assert [stage.status(record_id) for record_id in got] == [Status.running]
    assert stage.queue() == list(lost)
    assert stage.claim(manager_id) == dict.fromkeys(lost, 2)
    stage.require_equal()


def test_a_claim_that_was_not_named_yet_is_left_for_a_lease(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    assert beat(stage, manager_id, {}) == []
    assert {stage.status(record_id) for record_id in held} == {Status.running}


def test_a_claim_that_is_not_named_is_taken_back_after_one_lease(stage: Stage) -> None:
    manager_id, held = stage.running()
    for leases, status in ((0.9, Status.running), (1.1, Status.waiting)):
        stage.do(
            "UPDATE records SET started_at = clock_timestamp() - make_interval(secs => %s)",
            [leases * HOUR_S],
        )
        assert beat(stage, manager_id, {}) == []
        assert set(stage.statuses(*held).values()) == {status}


def test_naming_another_attempt_does_not_keep_this_one(stage: Stage) -> None:
    (record_id,) = stage.submit()
    manager_id = stage.manager(lease_s=AT_ONCE_S)
    stage.claim(manager_id)
    assert beat(stage, manager_id, {record_id: 7}) == [(record_id, 7)]
    assert stage.status(record_id) is Status.waiting


# Silence


def test_a_silent_manager_is_lost_and_what_it_had_waits_again(stage: Stage) -> None:
    silent, held = stage.running(3)
    alive = stage.manager()
    one, two, three = held
    stage.hand_in(silent, {one: 1})
    stage.silence(silent)
    assert lose_silent_managers(stage.ledger) == {silent: [two, three]}
    assert stage.state_of(silent).state is ManagerState.lost
    assert stage.topics(two) == ["created", "claimed", "manager_lost"]
    lost = stage.events(two)[-1]
    assert isinstance(lost, e.ManagerLost)
    assert (lost.manager_id, lost.attempt, lost.actor) == (silent, 1, REAPER)
    assert lost.reason == "its lease ran out without a heartbeat"
    assert stage.queue() == [two, three]
    assert lose_silent_managers(stage.ledger) == {}
    with pytest.raises(ManagerNotActive, match="is lost; register it again"):
        beat(stage, silent, held)
    with pytest.raises(ManagerNotActive, match="is lost"):
        stage.claim(silent)
    assert stage.claim(alive) == {two: 2, three: 2}
    stage.require_equal()


def test_a_lease_runs_out_by_itself(stage: Stage) -> None:
    stage.submit()
    manager_id = stage.manager(lease_s=0.05)
    held = stage.claim(manager_id)
    with stage.connected() as connection:
        until(lambda: lose_silent_managers(stage.ledger), connection, deadline_s=10)
    assert stage.state_of(manager_id).state is ManagerState.lost
    assert stage.queue() == list(held)


def test_a_manager_that_had_nothing_is_lost_too(stage: Stage) -> None:
    manager_id = stage.manager()
    stage.silence(manager_id)
    assert lose_silent_managers(stage.ledger) == {manager_id: []}
    stage.require_equal()


def test_the_longest_silent_are_lost_first_and_not_too_many_at_once(stage: Stage) -> None:
    ids = [stage.manager() for _ in range(5)]
    for manager_id in ids:
        stage.silence(manager_id)
    assert list(lose_silent_managers(stage.ledger, limit=2)) == ids[:2]
    assert list(lose_silent_managers(stage.ledger, limit=10)) == ids[2:]


def test_reapers_at_once_lose_a_manager_once(stage: Stage) -> None:
    manager_id, held = stage.running(10)
    stage.silence(manager_id)
    answers = together(*[partial(lose_silent_managers, stage.ledger)] * 3)
    assert [answer for answer in answers if answer] == [{manager_id: list(held)}]
    stage.require_equal()


def test_a_sign_of_life_that_comes_first_saves_the_manager(stage: Stage) -> None:
    manager_id, held = stage.running()
    stage.silence(manager_id)
    n = stage.head()
    with ThreadPoolExecutor(1) as pool, stage.connected() as connection:
        with stage.ledger.datastore.writing() as db:
            managers.beat(db, manager_id)
            # The reaper sees the silence that was, and then waits for what this one will say.
            reaping = pool.submit(lose_silent_managers, stage.ledger)
            until(lambda: connection.execute(WAITING).fetchone(), connection, deadline_s=10)
        assert reaping.result(timeout=20) == {}
    assert stage.head() == n
    assert beat(stage, manager_id, held) == []


# The end of a manager


def test_a_manager_that_says_good_bye_gives_back_what_it_has(stage: Stage) -> None:
    manager_id, held = stage.running(3)
    one, two, three = held
    stage.hand_in(manager_id, {one: 1})
    end = partial(
        deactivate_manager, stage.ledger, manager_id, actor=BOB, owner=BOB, reason="maintenance"
    )
    assert end() == [two, three]
    assert stage.state_of(manager_id).state is ManagerState.inactive
    last = stage.events(two)[-1]
    assert isinstance(last, e.Relinquished)
    assert (last.manager_id, last.actor, last.reason) == (manager_id, BOB, "maintenance")
    assert stage.queue() == [two, three]
    n = stage.head()
    assert end() == []
    assert stage.head() == n
    assert lose_silent_managers(stage.ledger) == {}
    with pytest.raises(ManagerNotActive, match="is inactive"):
        beat(stage, manager_id, {})
    stage.require_equal()


def test_a_manager_is_ended_by_its_owner_or_by_whoever_may_end_any(stage: Stage) -> None:
    manager_id = stage.manager()
    with pytest.raises(NotYourManager):
        deactivate_manager(stage.ledger, manager_id, actor=ALICE, owner=ALICE)
    assert stage.state_of(manager_id).state is ManagerState.active
    assert deactivate_manager(stage.ledger, manager_id, actor="user:root", owner=None) == []
    assert stage.state_of(manager_id).state is ManagerState.inactive
    with pytest.raises(ManagerNotFound):
        deactivate_manager(stage.ledger, manager_id + 1, actor=ALICE, owner=None)


def test_a_manager_cannot_end_and_claim_at_the_same_time(stage: Stage) -> None:
    for _ in range(10):
        stage.submit(5)
        manager_id = stage.manager()

        def claim_until_the_end(manager_id: int = manager_id) -> None:
            while True:
                try:
                    stage.claim(manager_id, 1)
                except ManagerNotActive:
                    return

        end = partial(deactivate_manager, stage.ledger, manager_id, actor=BOB, owner=BOB)
        together(claim_until_the_end, claim_until_the_end, end)
        assert stage.ask("SELECT count(*) FROM records WHERE status = 'running'") == [(0,)]
    stage.require_equal()


def lose(ledger: Ledger, _manager_id: int) -> None:
    lose_silent_managers(ledger)


def end(ledger: Ledger, manager_id: int) -> None:
    deactivate_manager(ledger, manager_id, actor=BOB, owner=BOB)


def drain(ledger: Ledger, manager_id: int) -> None:
    drain_manager(ledger, manager_id, actor=BOB, owner=BOB)


def report(ledger: Ledger, manager_id: int) -> None:
    report_programs(ledger, manager_id, {"xtb": "6.6"}, user=BOB)


@pytest.mark.parametrize("change", [lose, end, drain, report])
def test_a_change_of_a_manager_waits_for_one_that_is_being_made(
    stage: Stage, change: Callable[[Ledger, int], None]
) -> None:
    manager_id = stage.manager()
    stage.silence(manager_id)

    def work(operation: Operation) -> Future[None]:
        manager = managers.get(operation.db, manager_id, "lock")
        operation.happen(manager, change_programs(manager, {"psi4": "1.9"}, operation.stamp))
        changing = pool.submit(change, stage.ledger, manager_id)
        until(lambda: connection.execute(WAITING).fetchone(), connection, deadline_s=10)
        return changing

    with ThreadPoolExecutor(1) as pool, stage.connected() as connection:
        stage.ledger.operate(work, actor=ALICE).result(timeout=20)
    assert stage.state_of(manager_id).version == 3
    stage.require_equal()


# Giving back


def test_a_manager_gives_back_what_it_has_and_only_that(stage: Stage) -> None:
    manager_id, held = stage.running(3)
    one, two, three = held
    other = stage.manager()
    stage.happen(two, e.Cancelled)
    give_back = partial(relinquish, stage.ledger, user=BOB, reason="shutdown")
    assert give_back(other, held) == []
    assert give_back(manager_id, {one: 2, two: 1, three + 1000: 1}) == []
    assert give_back(manager_id, {three: 1, one: 1}) == [one, three]
    assert give_back(manager_id, {three: 1, one: 1}) == []
    last = stage.events(three)[-1]
    assert isinstance(last, e.Relinquished)
    assert (last.attempt, last.manager_id, last.reason) == (1, manager_id, "shutdown")
    assert stage.queue() == [one, three]
    stage.require_equal()


def test_only_its_owner_gives_back_for_a_manager(stage: Stage) -> None:
    manager_id, held = stage.running()
    with pytest.raises(NotYourManager):
        relinquish(stage.ledger, manager_id, held, user=ALICE)
    with pytest.raises(NotYourManager):
        heartbeat(stage.ledger, manager_id, held, user=ALICE)
    with pytest.raises(ManagerNotFound):
        heartbeat(stage.ledger, manager_id + 1, held, user=BOB)
    assert stage.queue() == []


def test_a_refused_heartbeat_does_not_extend_the_lease(stage: Stage) -> None:
    manager_id = stage.manager()
    before = lease_of(stage, manager_id)
    with pytest.raises(NotYourManager):
        heartbeat(stage.ledger, manager_id, {}, user=ALICE)
    assert lease_of(stage, manager_id) == before
