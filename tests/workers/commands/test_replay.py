"""`recordledger replay`: what it prints, and how it exits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from recordledger.domain.records import events as e
from recordledger.workers.cli import main
from tests.projections.stage import Stage, good, staged


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A ledger in which two tasks were done and one waits."""
    with staged(database_url) as made:
        made.submit(3)
        manager_id = made.manager()
        made.hand_in(manager_id, made.claim(manager_id, 2), good())
        yield made


def replay(stage: Stage, *options: str) -> Result:
    arguments = ["replay", "--database-url", stage.url, *options]
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})


def test_a_check_says_how_fast_it_was_and_that_all_is_well(stage: Stage) -> None:
    done = replay(stage, "--check")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("8 events up to position 8, ")
    assert lines[0].endswith(" a second")
    assert lines[-1] == "The tables agree with the log, row by row."


def test_a_rebuild_mends_what_a_check_has_found(stage: Stage) -> None:
    stage.do("UPDATE records SET owner = 'eve' WHERE id = 2")
    found = replay(stage, "--check", "--jobs", "2")
    assert found.exit_code == 1
    assert "records 2: owner is 'eve', but the log has 'user:alice'" in found.stdout
    done = replay(stage, "--rebuild", "--only", "records", "--only", "comments")
    assert done.exit_code == 0, done.output
    assert "Rebuilt: records, comments.\nOther transactions had to wait for " in done.stdout
    assert replay(stage, "--check").exit_code == 0


def test_how_many_records_were_in_which_status_is_printed(stage: Stage) -> None:
    now = replay(stage, "--as-of", "8").stdout
    assert "At position 8" in now
    rows = [line.replace("│", " ").split() for line in now.splitlines()]
    assert ["complete", "2"] in rows
    assert ["waiting", "1"] in rows
    rows = [
        line.replace("│", " ").split() for line in replay(stage, "--as-of", "6").stdout.splitlines()
    ]
    assert ["running", "2"] in rows


def test_the_tables_as_they_were_are_kept_in_a_schema_once(stage: Stage) -> None:
    moment = stage.events(3)[0].timestamp.isoformat()
    stage.happen(3, e.Held)
    done = replay(stage, "--as-of", moment, "--into", "early")
    assert done.exit_code == 0, done.output
    assert "are in the schema early" in done.stdout
    [(n_waiting,)] = stage.ask("SELECT count(*) FROM early.records WHERE status = 'waiting'")
    assert n_waiting == 3
    again = replay(stage, "--as-of", "4", "--into", "early")
    assert again.exit_code == 1
    assert 'DROP SCHEMA "early" CASCADE' in again.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give one of --check, --rebuild and --as-of"),
        (("--check", "--rebuild"), "give one of --check, --rebuild and --as-of"),
        (("--check", "--only", "records"), "--only can only be used with --rebuild"),
        (("--rebuild", "--into", "early"), "--into can only be used with --as-of"),
        (("--as-of", "yesterday"), "'yesterday' is not a position or time"),
        (("--check", "--jobs", "0"), "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    stage: Stage, options: tuple[str, ...], said: str
) -> None:
    done = replay(stage, *options)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as-of", "9"), "position 9 is in the future: the log ends at position 8"),
        (("--as-of", "0"), "position 0 is before the first event"),
        (("--as-of", "2001-01-01"), "2001-01-01T00:00:00+00:00 is before the first event"),
        (
            ("--rebuild", "--only", "payloads"),
            "payloads: no such projection; the projections are payload_references,",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    stage: Stage, options: tuple[str, ...], said: str
) -> None:
    done = replay(stage, *options)
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output
