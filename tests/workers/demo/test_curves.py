"""The demo, small, from submission to plot, through a real server and a real manager."""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import pytest

from recordledger.workers.demo import curves
from recordledger.workers.demo.curves import MOLECULES, run_demo

from ..conftest import Site

pytest.importorskip("scipy", reason="the demo computes with SciPy where there is no PySCF")


def test_it_computes_draws_and_shows_the_one_that_failed(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    site.manager()
    output = tmp_path / "out"
    assert run_demo(site.client, output, smoke=True) == 0
    said = capsys.readouterr().out
    assert "7 complete, 1 error" in said
    assert "ConvergenceError: the self-consistent field" in said
    assert "All as expected" in said
    for event in ("created", "claimed", "errored"):
        assert event in said
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (output / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert sorted(row["status"] for row in rows) == ["complete"] * 7 + ["error"]
    assert all(float(row["energy_hartree"]) < 0 for row in rows if row["status"] == "complete")


def test_without_matplotlib_it_says_so_and_goes_on(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    site.manager()
    assert run_demo(site.client, tmp_path / "out", smoke=True) == 0
    assert "Matplotlib is not installed" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["curves.csv"]


def test_what_is_not_as_expected_is_shown_and_ends_it_with_1(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = dataclasses.replace(MOLECULES[1], name="F2")
    monkeypatch.setattr(curves, "MOLECULES", (MOLECULES[0], strange))
    site.manager()
    assert run_demo(site.client, tmp_path / "out", smoke=True) == 1
    said = capsys.readouterr().out
    assert "4 points are not as expected" in said
    assert "ValueError molecule is 'F2'" in said


def test_a_server_that_does_not_answer_ends_it_with_1(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.client.session.retries_s = 0
    site.stop_server()
    assert run_demo(site.client, tmp_path / "out", smoke=True) == 1
    assert "The demo ends early" in capsys.readouterr().out
