"""What was acknowledged survives, and nothing is accepted twice, whoever is killed."""

from __future__ import annotations

from pathlib import Path

from tests.sizes import N_CRASH_TASKS, N_CRASHES

from .crash import VICTIMS, crash


def test_killing_postgres_the_api_and_the_manager_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    report = crash(tmp_path, n_cycles=N_CRASHES, n_tasks=N_CRASH_TASKS, seed=20260101)
    assert set(report.kills) == set(VICTIMS)
    assert len(report.acknowledged) == N_CRASH_TASKS
    assert report.holds, str(report)
