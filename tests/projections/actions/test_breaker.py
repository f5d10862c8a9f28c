"""The circuit breaker, drained managers, changed programs and rescued results, on the database."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest

from recordledger.domain.errors import ManagerNotActive, NotYourManager
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event
from recordledger.domain.records.status import Status
from recordledger.domain.routing.breaker import NO_PROGRAM, Breaker
from recordledger.domain.routing.manager import fold_manager
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.streams import Stream
from recordledger.projections.actions import managing
from recordledger.projections.reading import queries
from recordledger.projections.tables import claim_queue
from recordledger.projections.tables.late_results import Rescued
from recordledger.projections.tables.records import ClaimableTask

from ..stage import ALICE, BOB, Held, Stage, bad, good, result, together

BREAKER: Final = Breaker(failures=3, pause_s=1_000)
IMPATIENT: Final = replace(BREAKER, pause_s=0.05)
PROGRAMS: Final = {"psi4": "1.9", "xtb": "6.6"}


def claim(stage: Stage, manager_id: int, limit: int = 10, breaker: Breaker = BREAKER) -> Held:
    tasks = managing.claim(stage.ledger, manager_id, limit, user=BOB, breaker=breaker)["tasks"]
    return {task["record_id"]: task["attempt"] for task in tasks}


def hand_in(
    stage: Stage, manager_id: int, held: Held, what: Any, breaker: Breaker = BREAKER
) -> None:
    results = [result(id_, attempt, what) for id_, attempt in held.items()]
    managing.return_results(stage.ledger, manager_id, results, user=BOB, breaker=breaker)


def broken(stage: Stage, n_waiting: int = 5, breaker: Breaker = BREAKER) -> int:
    """Return a manager on which psi4 has just failed three times, with more waiting."""
    stage.submit(3 + n_waiting, programs=["psi4"])
    manager_id = stage.manager(programs=PROGRAMS)
    for _ in range(3):
        hand_in(stage, manager_id, claim(stage, manager_id, 1, breaker), bad("OSError"), breaker)
    return manager_id


def failures(stage: Stage) -> list[tuple[Any, ...]]:
    return stage.ask("SELECT program, n_in_a_row FROM manager_failures ORDER BY program")


def happened(stage: Stage, manager_id: int) -> list[Event]:
    """Return what has happened to a manager."""
    with stage.ledger.datastore.reading() as db:
        placed = stage.ledger.history(db, Stream.manager, manager_id)
    return [each.recorded.event for each in placed]


def test_a_manager_that_fails_in_a_row_gets_no_more_of_that_program(stage: Stage) -> None:
    manager_id = broken(stage)
    manager = stage.state_of(manager_id)
    suspension = manager.suspended["psi4"]
    assert (suspension.n_times, suspension.n_failures) == (1, 3)
    assert suspension.error_type == "OSError"
    assert claim(stage, manager_id) == {}
    assert fold_manager(manager_id, happened(stage, manager_id)) == manager
    stage.require_equal()


def test_it_gets_what_needs_other_programs_and_others_get_what_it_does_not(stage: Stage) -> None:
    manager_id = broken(stage, n_waiting=2)
    (other,) = stage.submit(programs=["xtb"])
    (plain,) = stage.submit()
    both = stage.submit(programs=["psi4", "xtb"])
    assert set(claim(stage, manager_id)) == {other, plain}
    healthy = stage.manager(programs=PROGRAMS)
    assert len(claim(stage, healthy)) == 2 + len(both)


def test_failures_are_counted_over_claims_and_a_good_result_forgets_them(stage: Stage) -> None:
    stage.submit(8, programs=["psi4"])
    manager_id = stage.manager(programs=PROGRAMS)
    for what in (bad("OSError"), bad("ValueError"), bad("OSError")):
        hand_in(stage, manager_id, claim(stage, manager_id, 1), what)
    assert failures(stage) == [("psi4", 2)]
    hand_in(stage, manager_id, claim(stage, manager_id, 1), good())
    assert failures(stage) == []
    hand_in(stage, manager_id, claim(stage, manager_id, 2), bad("OSError"))
    assert stage.state_of(manager_id).suspended == {}


def test_tasks_without_programs_are_kept_from_it_too(stage: Stage) -> None:
    stage.submit(5)
    manager_id = stage.manager(programs=PROGRAMS)
    hand_in(stage, manager_id, claim(stage, manager_id, 3), bad("OSError"))
    assert set(stage.state_of(manager_id).suspended) == {NO_PROGRAM}
    (other,) = stage.submit(programs=["xtb"])
    assert set(claim(stage, manager_id)) == {other}


def probed(stage: Stage, manager_id: int) -> Held:
    """Wait until the pause is over; return the probe. There is no other for a long time."""
    found: Held = {}

    def given() -> bool:
        found.update(claim(stage, manager_id))
        return bool(found)

    stage.wait(given)
    return found


def test_when_the_pause_is_over_one_task_is_tried_and_no_more(stage: Stage) -> None:
    manager_id = broken(stage, breaker=IMPATIENT)
    probe = probed(stage, manager_id)
    assert len(probe) == 1
    assert stage.state_of(manager_id).suspended["psi4"].probing
    assert claim(stage, manager_id) == {}
    stage.require_equal()


def test_a_probe_counts_as_one_of_the_tasks_of_its_claim(stage: Stage) -> None:
    manager_id = broken(stage, breaker=IMPATIENT)
    stage.wait_until(stage.state_of(manager_id).suspended["psi4"].until)
    stage.submit(5, programs=["xtb"])
    assert len(claim(stage, manager_id, 2, IMPATIENT)) == 2
    assert stage.state_of(manager_id).suspended["psi4"].probing


def test_a_claim_has_no_more_probes_than_tasks(stage: Stage) -> None:
    manager_id = stage.manager(programs=PROGRAMS)
    for program in PROGRAMS:
        stage.submit(3, programs=[program])
    # All at once: a pause that was over in between would make the next claim a probe.
    hand_in(stage, manager_id, claim(stage, manager_id), bad("OSError"), IMPATIENT)
    for program in PROGRAMS:
        stage.submit(programs=[program])
    suspended = stage.state_of(manager_id).suspended
    assert suspended.keys() == {"psi4", "xtb"}
    stage.wait_until(max(each.until for each in suspended.values()))
    assert len(claim(stage, manager_id, 1)) == 1


def test_a_probe_that_ends_well_brings_everything_back(stage: Stage) -> None:
    manager_id = broken(stage, breaker=IMPATIENT)
    hand_in(stage, manager_id, probed(stage, manager_id), good())
    assert stage.state_of(manager_id).suspended == {}
    assert failures(stage) == []
    assert len(claim(stage, manager_id)) == 4
    stage.require_equal()


def test_a_probe_that_fails_makes_the_pause_longer(stage: Stage) -> None:
    manager_id = broken(stage, breaker=IMPATIENT)
    hand_in(stage, manager_id, probed(stage, manager_id), bad("OSError"), IMPATIENT)
    suspension = stage.state_of(manager_id).suspended["psi4"]
    assert (suspension.n_times, suspension.n_failures) == (2, 4)
    assert (suspension.until - suspension.since).total_seconds() == pytest.approx(0.1)


def test_claims_at_once_try_one_task(stage: Stage) -> None:
    manager_id = broken(stage, breaker=IMPATIENT)
    stage.wait_until(stage.state_of(manager_id).suspended["psi4"].until)
    claims: list[Held] = together(*[lambda: claim(stage, manager_id)] * 4)
    assert sum(map(len, claims)) == 1


def test_returns_at_once_count_every_failure(stage: Stage) -> None:
    stage.submit(8, programs=["psi4"])
    manager_id = stage.manager(programs=PROGRAMS)
    held = claim(stage, manager_id)
    many = replace(BREAKER, failures=100)
    together(
        *(
            partial(hand_in, stage, manager_id, {id_: attempt}, bad("OSError"), many)
            for id_, attempt in held.items()
        )
    )
    assert failures(stage) == [("psi4", 8)]


def test_late_failures_do_not_count(stage: Stage) -> None:
    stage.submit(5, programs=["psi4"])
    manager_id = stage.manager(programs=PROGRAMS)
    held = claim(stage, manager_id)
    stage.done(Action.cancel, *held)
    hand_in(stage, manager_id, held, bad("OSError"))
    assert failures(stage) == []


def test_a_manager_that_ended_leaves_no_count(stage: Stage) -> None:
    manager_id = broken(stage)
    assert failures(stage) == [("psi4", 3)]
    managing.deactivate_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    assert failures(stage) == []


# Draining


def test_a_drained_manager_gets_nothing_more_and_finishes_what_it_has(stage: Stage) -> None:
    stage.submit(2)
    manager_id = stage.manager()
    held = stage.claim(manager_id, limit=1)
    drained = managing.drain_manager(
        stage.ledger, manager_id, actor=ALICE, owner=None, reason="maintenance"
    )
    assert drained == ManagerState.draining
    assert happened(stage, manager_id)[-1].reason == "maintenance"
    assert stage.claim(manager_id) == {}
    assert managing.heartbeat(stage.ledger, manager_id, held, user=BOB)["draining"]
    assert stage.hand_in(manager_id, held)["accepted_idx"] == [0]
    managing.deactivate_manager(stage.ledger, manager_id, actor=BOB, owner=BOB)
    assert stage.state_of(manager_id).state is ManagerState.inactive
    stage.require_equal()


def test_a_drained_manager_that_falls_silent_is_lost(stage: Stage) -> None:
    manager_id, held = stage.running()
    managing.drain_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    stage.silence(manager_id)
    stage.lose_silent()
    assert stage.state_of(manager_id).state is ManagerState.lost
    assert set(stage.statuses(*held).values()) == {Status.waiting}


def test_draining_twice_or_after_the_end_changes_nothing(stage: Stage) -> None:
    manager_id = stage.manager()
    for _ in range(2):
        managing.drain_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    assert stage.state_of(manager_id).version == 2
    managing.deactivate_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    drained = managing.drain_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    assert drained == ManagerState.inactive
    with pytest.raises(NotYourManager, match=f"manager {manager_id} "):
        managing.drain_manager(stage.ledger, manager_id, actor=ALICE, owner=ALICE)
    drained = managing.drain_manager(stage.ledger, manager_id, actor=BOB, owner=BOB)
    assert drained == ManagerState.inactive


# Programs that change


def test_a_manager_gets_what_its_new_programs_can_run(stage: Stage) -> None:
    (record_id,) = stage.submit(programs=["psi4>=1.10"])
    manager_id = stage.manager(programs=PROGRAMS)
    assert stage.claim(manager_id) == {}
    newer = PROGRAMS | {"psi4": "1.10"}
    assert managing.report_programs(stage.ledger, manager_id, newer, user=BOB)
    assert not managing.report_programs(stage.ledger, manager_id, newer, user=BOB)
    assert set(stage.claim(manager_id)) == {record_id}
    stage.require_equal()


def test_only_its_owner_says_what_a_manager_has_and_only_while_it_lives(stage: Stage) -> None:
    manager_id = stage.manager()
    with pytest.raises(NotYourManager):
        managing.report_programs(stage.ledger, manager_id, {}, user=ALICE)
    managing.deactivate_manager(stage.ledger, manager_id, actor=ALICE, owner=None)
    with pytest.raises(ManagerNotActive):
        managing.report_programs(stage.ledger, manager_id, {}, user=BOB)


# Rescued results


def test_what_was_late_and_what_was_rescued_is_counted_in_core_hours(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    stage.silence(manager_id)
    stage.lose_silent()
    outcome, contents = good()
    costly = outcome.model_copy(update={"compute_s": 1800.0, "cores": 4}), contents
    stage.hand_in(manager_id, held, costly)
    assert queries.rescues(stage.ledger) == {
        "late": Rescued(2, 3600.0, 14_400.0),
        "adopted": Rescued(),
    }
    stage.done(Action.adopt, min(held))
    assert queries.rescues(stage.ledger)["adopted"] == Rescued(1, 1800.0, 7200.0)
    stage.require_equal()


def test_a_claim_with_a_trial_is_dated_when_all_its_tasks_are_locked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager_id = broken(stage, n_waiting=1, breaker=IMPATIENT)
    stage.wait_until(stage.state_of(manager_id).suspended["psi4"].until)
    stage.intern("gpu", ("xtb",))
    take = claim_queue.lock_next
    newest: list[int] = []

    def take_after_others(*arguments: Any) -> list[ClaimableTask]:
        # The first task is locked, and the time has come for others to submit one more.
        if taken_before and not newest:
            newest.extend(stage.submit(programs=["xtb"]))
        taken_before.append(True)
        return take(*arguments)

    taken_before: list[bool] = []
    monkeypatch.setattr(claim_queue, "lock_next", take_after_others)
    held = claim(stage, manager_id, breaker=IMPATIENT)
    assert len(held) == 2
    assert set(newest) < held.keys()
    stage.require_sound()
