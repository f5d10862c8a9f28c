"""`recordledger audit`: what it prints, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from recordledger.domain.records import events as e
from recordledger.workers.cli import main
from tests.projections.replay.test_replay import damage
from tests.projections.stage import Stage, good, staged


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A ledger in which two tasks were done and one waits."""
    with staged(database_url) as made:
        made.submit(3)
        manager_id = made.manager()
        made.hand_in(manager_id, made.claim(manager_id, 2), good())
        yield made


def audit(stage: Stage, *options: str) -> Result:
    arguments = ["audit", "--database-url", stage.url, *options]
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})


def release_what_waits(stage: Stage) -> None:
    """Let the log say at position 9 what cannot have happened, and something more after it."""
    stage.happen(3, e.Held)
    stage.happen(3, e.Commented, text="a remark")
    damage(stage, "UPDATE ledger_events SET topic = 'released' WHERE topic = 'held'")


def test_a_sound_ledger_has_a_line_for_each_invariant(stage: Stage) -> None:
    done = audit(stage)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "8 of 8 events up to position 8"
    assert "single-lease         ok: 2 attempts; one live attempt at most" in lines
    assert any(line.startswith("no-lost-ack          not checked: ") for line in lines)
    assert any(line.startswith("replay               ok: 8 events") for line in lines)
    assert lines[-1] == "All invariants that can be checked here hold."


def test_the_first_breach_is_named_with_its_events(stage: Stage) -> None:
    release_what_waits(stage)
    done = audit(stage)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert (
        "  position 9 (record 3, event 2): released cannot happen to a task that is waiting"
        in lines
    )
    assert lines[0] == "9 of 10 events up to position 10"
    assert lines[-2] == "Broken: legal-transition."
    assert "--keep-going" in lines[-1]
    assert not any(line.startswith("replay") for line in lines)


def test_it_goes_on_if_it_is_told_to(stage: Stage) -> None:
    release_what_waits(stage)
    done = audit(stage, "--keep-going")
    assert done.exit_code == 1
    assert "replay               BROKEN 1 x" in done.stdout
    assert "the log cannot be folded: record 3, version 2" in done.stdout


def test_programs_read_json(stage: Stage) -> None:
    done = audit(stage, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["n_events"] == 8
    by_name = {finding["name"]: finding for finding in found["findings"]}
    assert by_name["order"]["n_checked"] == 2
    assert by_name["order"]["breaches"] == []
    stage.do("UPDATE records SET status = 'failed' WHERE id = 3")
    done = audit(stage, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    [atomic] = [finding for finding in found["findings"] if finding["n_breaches"]]
    assert atomic["name"] == "atomic"
    assert "records 3" in atomic["breaches"][0]["what"]


def test_what_cannot_be_read_is_a_breach_and_no_traceback(stage: Stage) -> None:
    damage(stage, "UPDATE ledger_events SET topic = 'invented' WHERE notification_id = 5")
    done = audit(stage)
    assert done.exit_code == 1
    assert "readable             BROKEN 1 x: 5 events" in done.stdout
    assert "  position 5 (record 1, event 2): unknown event invented" in (done.stdout)


def test_the_tables_need_not_be_looked_at(stage: Stage) -> None:
    stage.do("UPDATE records SET status = 'failed' WHERE id = 3")
    done = audit(stage, "--log-only")
    assert done.exit_code == 0, done.output
    for name in ("atomic", "counters", "replay"):
        assert f"{name:<20} not checked: only the log was checked" in done.stdout.splitlines()


def test_a_tolerance_is_a_number_of_seconds(stage: Stage) -> None:
    assert audit(stage, "--tolerance", "0").exit_code == 0
    assert audit(stage, "--tolerance", "-1").exit_code == 2
