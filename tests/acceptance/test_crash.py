"""What was acknowledged survives, and nothing is accepted twice, whoever is killed."""

from __future__ import annotations

from pathlib import Path

from .crash import VICTIMS, crash


def test_killing_postgres_the_api_and_the_manager_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    report = crash(tmp_path, n_cycles=4, n_tasks=300, seed=20260101)
    assert set(report.kills) == set(VICTIMS)
    assert len(report.acknowledged) == 300
    assert report.holds, str(report)
