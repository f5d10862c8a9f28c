"""A manager claims what it begins soon: many short tasks, and no long ones in advance."""

from __future__ import annotations

import pytest

from recordledger.workers.manager.pace import Pace


def pace(task_s: float | None = None) -> Pace:
    made = Pace(poll_min_s=0.05, poll_max_s=1.5, prefetch_s=0.5, prefetch_max=500)
    if task_s is not None:
        made.computed(task_s)
    return made


def test_without_experience_it_claims_for_idle_slots_only() -> None:
    assert pace().n_to_claim(0, 4, now=0.0) == 4
    assert pace().n_to_claim(3, 4, now=0.0) == 1
    assert pace().n_to_claim(4, 4, now=0.0) == 0


@pytest.mark.parametrize(("task_s", "prefetch"), [(0.0, 500), (0.01, 194), (0.5, 3), (10.0, 0)])
def test_it_prefetches_by_how_long_tasks_take(task_s: float, prefetch: int) -> None:
    assert pace(task_s).n_to_claim(0, 4, now=0.0) == 4 + prefetch


def test_it_does_not_claim_one_by_one() -> None:
    assert pace(0.0).n_to_claim(503, 4, now=0.0) == 0
    assert pace(0.0).n_to_claim(255, 4, now=0.0) == 0
    assert pace(0.0).n_to_claim(254, 4, now=0.0) == 250


def test_it_learns_that_tasks_have_become_longer() -> None:
    changing = pace(0.0)
    for _ in range(50):
        changing.computed(5.0)
    assert changing.n_to_claim(4, 4, now=0.0) == 0


def test_while_all_slots_are_busy_and_nothing_moves_it_claims_nothing() -> None:
    busy = pace(0.0)
    busy.finished(now=100.0)
    assert busy.n_to_claim(4, 4, now=100.0) == 500
    assert busy.n_to_claim(4, 4, now=103.0) == 0
    assert busy.n_to_claim(2, 4, now=103.0) > 2


def test_pauses_double_while_there_is_nothing_and_end_when_there_is() -> None:
    polling = pace()
    pauses: list[float] = []
    for _ in range(10):
        polling.claimed(0, now=0.0)
        pauses.append(polling.claim_at)
    assert 0.025 <= pauses[0] <= 0.05
    assert 0.75 <= pauses[-1] <= 1.5
    polling.look_again(now=10.0)
    assert polling.claim_at == pauses[-1]
    polling.claimed(0, now=10.0)
    assert polling.claim_at <= 10.05
    polling.claimed(1, now=20.0)
    assert polling.claim_at == 20.0
