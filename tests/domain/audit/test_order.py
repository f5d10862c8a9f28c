"""Claims that are out of order are found; those that may rightly seem so are not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.audit.overtaking import LOOKS_MAX, group_of
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.routing.lanes import Lane, lanes_by_tag
from recordledger.domain.routing.manager import (
    ManagerAggregate,
    ManagerDeactivated,
    ProgramProbed,
    ProgramResumed,
    ProgramsChanged,
    ProgramSuspended,
)
from recordledger.domain.streams import Stream
from tests.examples import at, claimed, held, released, relinquished, rerouted

from .written_log import claims, passed_over, said


def test_a_claim_in_order_is_fine() -> None:
    written = claims("cpu", "gpu", "*").submit(1, 2, tag="gpu").submit(3, tag="cpu")
    written.submit(4, tag="gpu", priority=Priority.high).submit(5, tag="other")
    assert written.claim(3, 4, 1, 2, 5).found() == {}


@pytest.mark.parametrize("wrong", [(2, 1), (4, 3), (1, 4), (5, 1)])
def test_a_claim_out_of_order_is_found(wrong: tuple[int, ...]) -> None:
    written = claims("cpu", "gpu", "*").submit(1, 2, tag="gpu").submit(3, tag="cpu")
    written.submit(4, tag="gpu", priority=Priority.high).submit(5, tag="other")
    assert written.claim(*wrong).found() == {"order": [(7, 8)]}


@pytest.mark.parametrize(("seconds", "expected"), [(20, {}), (60, {"order": [(7,), (8, 9)]})])
def test_a_task_that_has_just_moved_may_be_claimed_where_it_stood(
    seconds: float, expected: dict[str, list[tuple[int, ...]]]
) -> None:
    written = claims("gpu").submit(1, 2, 3, tag="gpu")
    moves = rerouted(priority=Priority.high), rerouted(tag="moon")
    for number, moved in enumerate(moves, 2):
        said_so = {"timestamp": at(5), "operation_id": UUID(int=50 + number)}
        written.happen(Stream.record, number, moved.model_copy(update=said_so))
    # 3 has gone elsewhere, and 2 has come to stand before 1.
    written.claim(3, 1, 2, at_s=seconds)
    assert written.found() == expected


def test_a_task_that_is_passed_over_again_and_again_is_found() -> None:
    written = passed_over(claims("gpu").submit(1, tag="gpu"), 10, 25, 41)
    assert written.found() == {"order": [(4, 8)]}
    assert written.what("order") == "manager 1 has passed over record 1 3 times in 31 s"


@pytest.mark.parametrize("times_s", [(10,), (10, 99), (10, 20, 39)])
def test_a_task_that_is_passed_over_for_a_moment_is_not(times_s: tuple[float, ...]) -> None:
    assert passed_over(claims("gpu").submit(1, tag="gpu"), *times_s).found() == {}


def test_what_is_long_is_told_by_the_tolerance() -> None:
    assert passed_over(claims("gpu", tolerance_s=5).submit(1, tag="gpu"), 1, 2, 7).found() != {}


def test_a_task_that_was_away_in_between_is_not_passed_over() -> None:
    written = passed_over(claims("gpu").submit(1, tag="gpu"), 10, 25)
    away = held(timestamp=at(30), operation_id=UUID(int=500))
    back = released(timestamp=at(31), operation_id=UUID(int=501))
    written.happen(Stream.record, 1, away, back)
    for place, time_s in enumerate((41, 60)):
        written.submit(200 + place, at_s=time_s).claim(200 + place, at_s=time_s)
    assert written.found() == {}


def test_a_claim_that_takes_only_what_comes_first_ends_a_row() -> None:
    written = passed_over(claims("gpu").submit(5, tag="gpu"), 10, 25)
    written.submit(6, tag="gpu", priority=Priority.high, at_s=30).claim(6, at_s=30)
    for place, time_s in enumerate((41, 60)):
        written.submit(200 + place, at_s=time_s).claim(200 + place, at_s=time_s)
    assert written.found() == {}


@pytest.mark.parametrize(
    "waiting",
    [
        {"tag": "cpu"},
        {"tag": "gpu", "required_programs": ("orca",)},
        {"tag": "gpu", "required_programs": ("psi4>=2",)},
        {"tag": "gpu", "priority": Priority.low},
        {"tag": "gpu", "kind": Kind.service},
        {"tag": "later"},
    ],
)
def test_what_this_manager_cannot_run_or_comes_later_is_not_passed_over(
    waiting: dict[str, Any],
) -> None:
    written = claims("gpu", "later").submit(1, **waiting)
    assert passed_over(written, 10, 25, 41, 77).found() == {}


def suspended(program: str, seconds: float) -> ProgramSuspended:
    return ProgramSuspended(
        program=program,
        n_times=1,
        n_failures=10,
        error_type="OSError",
        until=at(seconds + 60),
        **said(700, seconds),
    )


def test_tasks_of_a_suspended_program_are_not_passed_over() -> None:
    written = claims("gpu", programs=("psi4", "orca")).manager(suspended("orca", 1))
    written.submit(1, tag="gpu", required_programs=("orca",))
    assert passed_over(written, 10, 25, 41).found() == {}
    written.manager(ProgramResumed(program="orca", **said(701, 42)))
    for place, time_s in enumerate((43, 60, 75)):
        written.submit(200 + place, at_s=time_s).claim(200 + place, at_s=time_s)
    assert list(written.found()) == ["order"]


def test_what_suspends_another_program_excuses_nothing() -> None:
    written = claims("gpu").manager(suspended("orca", 1)).manager(suspended("dftd3", 1))
    assert list(passed_over(written.submit(1), 10, 25, 41).found()) == ["order"]


def test_a_task_that_the_breaker_tries_is_out_of_order_rightly() -> None:
    written = claims("gpu", programs=("psi4", "orca"))
    written.manager(suspended("orca", 1), suspended("psi4", 1))
    written.submit(1, 2, 3).submit(4, required_programs=("orca",))
    trying = said(written.n_operations + 1, 10)
    written.manager(ProgramProbed(program="orca", record_id=4, until=at(99), **trying))
    written.manager(ProgramProbed(program="psi4", record_id=2, until=at(99), **trying))
    assert written.claim(4, 2, 1).found() == {}


def test_what_was_tried_once_is_not_excused_the_next_time() -> None:
    written = claims("gpu").manager(suspended("psi4", 1))
    written.submit(1, 2, 3)
    for record_id in (3, 2):
        trying = said(written.n_operations + 1, 10)
        written.manager(ProgramProbed(program="psi4", record_id=record_id, until=at(99), **trying))
        written.claim(record_id)
    assert written.found() == {}
    back = relinquished(timestamp=at(11), operation_id=UUID(int=900))
    written.happen(Stream.record, 3, back)
    again = claimed(attempt=2, timestamp=at(12), operation_id=UUID(int=901))
    first = claimed(timestamp=at(12), operation_id=UUID(int=901))
    written.happen(Stream.record, 3, again).happen(Stream.record, 1, first)
    assert written.found() == {"order": [(written.position - 1, written.position)]}


def test_other_programs_open_other_lanes() -> None:
    written = claims("gpu").submit(1, required_programs=("orca",))
    passed_over(written, 10, 25, 41)
    assert written.found() == {}
    written.manager(ProgramsChanged(programs={"psi4": "1.9", "orca": None}, **said(800, 50)))
    for place, time_s in enumerate((51, 66, 82)):
        written.submit(200 + place, at_s=time_s).claim(200 + place, at_s=time_s)
    assert list(written.found()) == ["order"]


def test_a_claim_may_just_not_have_seen_that_the_programs_changed() -> None:
    written = claims("gpu").submit(1, 2)
    written.manager(ProgramsChanged(programs={}, **said(800, 10)))
    assert written.claim(1, at_s=20).found() == {}
    assert written.claim(2, at_s=41).found() == {"order": [(6,)]}
    assert "manager 1 cannot take what has the tag gpu and requires psi4" in written.what("order")


def test_claims_of_a_manager_that_is_gone_are_not_judged() -> None:
    written = claims("gpu").submit(1)
    written.manager(ManagerDeactivated(**said(800, 5)))
    assert written.claim(1).found() == {"liveness": [(4,)]}


def test_of_many_lanes_a_part_is_looked_at_in_turn_and_it_is_told() -> None:
    written = claims("*")
    for place in range(LOOKS_MAX + 40):
        written.submit(place + 1, tag=f"t{place}")
    for place in range(12):
        written.submit(1_000 + place, tag="t0", at_s=20 * place).claim(
            1_000 + place, at_s=20 * place
        )
    written.audit.end()
    [finding] = [each for each in written.audit.findings if each.name == "order"]
    assert finding.is_broken
    assert "of 1,248 heads of lanes looked at" in finding.note
    seen = {breach.what.split()[6] for breach in finding.breaches}
    assert len(seen) > LOOKS_MAX / 4


def test_tasks_that_come_and_go_leave_nothing_behind() -> None:
    written = claims("gpu").submit(1, 2, 3)
    for turn in range(200):
        away = held(timestamp=at(1), operation_id=UUID(int=10_000 + turn))
        back = released(timestamp=at(1), operation_id=UUID(int=20_000 + turn))
        written.happen(Stream.record, 1 + turn % 3, away, back)
    assert written.claim(1, 2, 3).found() == {}
    queue = written.audit.queue
    assert queue.n_entries < 100
    assert queue.head(0) is None


@for_all(
    st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=4, unique=True),
    st.frozensets(st.sampled_from(["p", "q"])),
)
def test_lanes_are_open_as_routing_says(tags: list[str], programs: frozenset[str]) -> None:
    lanes = [Lane(tag, needs) for tag in ("a", "b", "*", "d") for needs in ((), ("p",), ("p", "q"))]
    manager = ManagerAggregate(1, tags=tuple(tags), programs=dict.fromkeys(programs, "1"))
    expected = lanes_by_tag(tags, manager.programs, dict(enumerate(lanes)))
    found: list[list[int]] = [[] for _ in tags]
    for lane_id, lane in enumerate(lanes):
        if (group := group_of(manager, lane)) is not None:
            found[group].append(lane_id)
    assert found == expected
