"""A workflow of many iterations ends as if nothing had happened, whoever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sizes import N_BAND_KILLS

from .band import VICTIMS, band


def test_a_band_converges_though_all_that_computes_it_is_killed(tmp_path: Path) -> None:
    report = band(tmp_path, n_kills=N_BAND_KILLS, seed=20260102, engine="scipy", pause_s=0.6)
    assert set(report.kills) == set(VICTIMS)
    assert report.holds, f"{report.status} {report.error}\n{report.audit}\n{report.history}"
    # The barrier of the formula, which a run without kills finds as well.
    assert report.result["barrier"] == pytest.approx(106.03, abs=0.2)
    # One start, decision after decision, and the end: nobody sees from it that somebody died.
    n_iterations = len(report.happened) - 3
    assert report.happened == [
        "created",
        "service_started",
        *["service_iterated"] * n_iterations,
        "completed",
    ]
    assert n_iterations == report.result["n_iterations"]
