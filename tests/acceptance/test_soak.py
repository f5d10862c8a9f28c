"""Many managers share one ledger, and everything that was promised holds at the end."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.soak import soak
from tests.sizes import N_SOAK_MANAGERS, N_SOAK_TASKS


def test_managers_that_die_and_are_late_leave_nothing_undone_and_nobody_starves(
    tmp_path: Path,
) -> None:
    report = soak(tmp_path, n_managers=N_SOAK_MANAGERS, n_tasks=N_SOAK_TASKS, lease_s=3.0)
    assert report.faults == []
    assert sum(tally.n_done for tally in report.tallies) == N_SOAK_TASKS
    died = [tally for tally in report.tallies if tally.part.dies]
    assert died
    assert all(tally.n_claimed > tally.n_done for tally in died)
