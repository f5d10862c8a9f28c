"""The circuit breaker: failures in a row suspend a program, and a good probe brings it back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recordledger.domain.records.events import Event
from recordledger.domain.routing.breaker import (
    NO_PROGRAM,
    AttemptEnd,
    Breaker,
    due_probes,
    judge,
    probe,
)
from recordledger.domain.routing.manager import (
    ManagerAggregate,
    ProgramProbed,
    ProgramResumed,
    ProgramSuspended,
    Suspension,
    evolve_manager,
)
from recordledger.domain.routing.manager_state import ManagerState
from tests.examples import at, stamp

BREAKER = Breaker(failures=3, pause_s=60, pause_s_max=200)
MANAGER = ManagerAggregate(
    7, version=1, state=ManagerState.active, programs={"psi4": "1.9", "xtb": "6"}
)
PSI4 = ("psi4>=1.9",)


def ended(*error_types: str | None, required: tuple[str, ...] = PSI4) -> list[AttemptEnd]:
    return [AttemptEnd(required, error_type) for error_type in error_types]


def after(manager: ManagerAggregate, events: list[Event]) -> ManagerAggregate:
    for event in events:
        manager = evolve_manager(manager, event)
    return manager


def suspended(n_times: int = 1, *, probing: bool = False) -> ManagerAggregate:
    suspension = Suspension(n_times, 3, "OSError", at(0), at(60), probing)
    return replace(MANAGER, suspended={"psi4": suspension})


def test_failures_in_a_row_suspend_the_program() -> None:
    events, streaks = judge(MANAGER, {"psi4": 1}, ended("OSError", "OSError"), BREAKER, stamp())
    (event,) = events
    assert isinstance(event, ProgramSuspended)
    assert (event.program, event.n_times, event.n_failures) == ("psi4", 1, 3)
    assert (event.error_type, event.until) == ("OSError", at(60))
    assert streaks == {"psi4": 3}
    assert set(after(MANAGER, events).suspended) == {"psi4"}


def test_one_that_ends_well_begins_the_count_anew() -> None:
    row = ended("OSError", "OSError", None, "OSError", "OSError")
    assert judge(MANAGER, {}, row, BREAKER, stamp()) == ([], {"psi4": 2})


def test_one_that_ends_well_ends_the_count_of_each_of_its_programs() -> None:
    both = ended(None, required=("psi4", "xtb"))
    assert judge(MANAGER, {"xtb": 2}, both, BREAKER, stamp()) == ([], {})
    assert judge(MANAGER, {"psi4": 2, "xtb": 1}, both, BREAKER, stamp()) == ([], {})


def test_a_program_is_suspended_once_however_many_fail_in_the_same_return() -> None:
    events, streaks = judge(MANAGER, {}, ended(*["OSError"] * 5), BREAKER, stamp())
    assert [type(event) for event in events] == [ProgramSuspended]
    assert streaks == {"psi4": 5}


def test_errors_of_the_input_neither_count_nor_end_a_row() -> None:
    row = ended("OSError", "OSError", *["ValueError"] * 9)
    assert judge(MANAGER, {}, row, BREAKER, stamp()) == ([], {"psi4": 2})
    events, _ = judge(MANAGER, {}, [*row, *ended("OSError")], BREAKER, stamp())
    assert len(events) == 1


def test_each_program_is_counted_for_itself() -> None:
    row = [*ended("OSError", "OSError"), *ended("OSError", required=("xtb",))]
    both = ended("OSError", required=("psi4", "xtb"))
    assert judge(MANAGER, {}, row, BREAKER, stamp()) == ([], {"psi4": 2, "xtb": 1})
    events, streaks = judge(MANAGER, {}, [*row, *both], BREAKER, stamp())
    assert [event.program for event in events if isinstance(event, ProgramSuspended)] == ["psi4"]
    assert streaks == {"psi4": 3, "xtb": 2}


def test_tasks_that_require_no_program_are_counted_together() -> None:
    events, streaks = judge(MANAGER, {}, ended(*["OSError"] * 3, required=()), BREAKER, stamp())
    assert streaks == {NO_PROGRAM: 3}
    assert set(after(MANAGER, events).suspended) == {NO_PROGRAM}


def test_what_was_claimed_before_the_suspension_does_not_prolong_it() -> None:
    events, streaks = judge(suspended(), {"psi4": 3}, ended(*["OSError"] * 5), BREAKER, stamp())
    assert (events, streaks) == ([], {"psi4": 8})


@pytest.mark.parametrize(("n_times", "pause_s"), [(1, 120), (2, 200), (9, 200)])
def test_a_probe_that_fails_suspends_for_longer(n_times: int, pause_s: float) -> None:
    probing = suspended(n_times, probing=True)
    events, _ = judge(probing, {"psi4": 3}, ended("OSError"), BREAKER, stamp(timestamp=at(70)))
    suspension = after(probing, events).suspended["psi4"]
    assert (suspension.n_times, suspension.until) == (n_times + 1, at(70 + pause_s))
    assert not suspension.probing


def test_a_task_that_ends_well_resumes_the_program() -> None:
    events, streaks = judge(suspended(probing=True), {"psi4": 4}, ended(None), BREAKER, stamp())
    assert [type(event) for event in events] == [ProgramResumed]
    assert streaks == {}
    assert after(suspended(), events).suspended == {}


def test_a_program_that_was_resumed_can_be_suspended_again_in_the_same_return() -> None:
    events, _ = judge(
        suspended(probing=True), {"psi4": 4}, ended(None, *["OSError"] * 3), BREAKER, stamp()
    )
    assert [type(event) for event in events] == [ProgramResumed, ProgramSuspended]
    assert after(suspended(probing=True), events).suspended["psi4"].n_times == 1


def test_a_breaker_that_is_off_counts_nothing() -> None:
    off = replace(BREAKER, failures=0)
    assert judge(MANAGER, {}, ended(*["OSError"] * 99), off, stamp()) == ([], {})


def test_one_task_is_tried_when_the_pause_is_over() -> None:
    manager = suspended()
    assert due_probes(manager, at(59)) == []
    assert due_probes(manager, at(60)) == ["psi4"]
    event = probe(manager, "psi4", 411, BREAKER, stamp(timestamp=at(61)))
    assert isinstance(event, ProgramProbed)
    assert (event.record_id, event.until) == (411, at(121))
    probed = evolve_manager(manager, event)
    assert probed.suspended["psi4"].probing
    assert due_probes(probed, at(120)) == []
    assert due_probes(probed, at(121)) == ["psi4"]
