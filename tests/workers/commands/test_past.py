"""The commands that ask about earlier moments: list, show and status as of then, and diff."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from recordledger.workers.cli import main
from recordledger.workers.commands.moments import moment_of
from tests.api.routes.test_management import own_tag
from tests.api.service import Visit, task
from tests.projections.stage import staged

from ..conftest import Cli, printed

NOW = datetime(2026, 11, 21, 16, 30, tzinfo=UTC)


def head(visit: Visit) -> int:
    return int(visit.get("/v1/events", params={"limit": 1}).json()["head"])


def test_records_are_listed_and_shown_as_they_were(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    one, other = ann.create(task(tag=tag), task(tag=tag))
    before = head(ann)
    moment = ann.record(other)["modified_at"]
    ann.post("/v1/records/hold", {"ids": [one], "reason": "not yet"})
    for as_of in (before, f"@{before}", moment):
        found = printed(cli("list", "--tag", tag, "--json", "--as-of", as_of))
        assert [(each["id"], each["status"]) for each in found] == [
            (other, "waiting"),
            (one, "waiting"),
        ]
        assert printed(cli("show", one, "--json", "--as-of", as_of))["status"] == "waiting"
    assert printed(cli("show", one, "--json"))["status"] == "held"
    assert "held" not in cli("show", one, "--as-of", before).stdout
    shown = cli("status", "--as-of", before)
    assert f"at position {before}" in shown.stdout
    assert "manager" not in shown.stdout
    assert cli("list", "--as-of", "10 min").exit_code == 2
    assert cli("list", "--as-of", 10**12).exit_code == 1


def test_what_changed_is_printed_as_a_table_and_in_numbers(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    one, other = ann.create(task(tag=tag), task(tag=tag))
    a = head(ann)
    ann.post("/v1/records/hold", {"ids": [one, other], "reason": "not \x1b[31m yet"})
    b = head(ann)
    whole = printed(cli("diff", a, b, "--json"))
    assert [each["record_id"] for each in whole["changes"]] == [one, other]
    assert whole["counts"] == [{"from_status": "waiting", "to_status": "held", "n_records": 2}]
    assert (whole["a"]["position"], whole["b"]["position"]) == (a, b)
    shown = cli("diff", a, b, "--limit", 1)
    assert "The first 1" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert printed(cli("diff", a, b, "--json", "--to-status", "none"))["changes"] == []
    assert cli("diff", b, a).exit_code == 1
    assert cli("diff", "then", b).exit_code == 2


def test_the_tables_of_the_past_are_filled_at_once(database_url: str) -> None:
    with staged(database_url) as stage:
        stage.submit(3)

        def said(*options: str) -> str:
            arguments = ["past", "--database-url", database_url, *options]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.output
            return done.stdout

        assert "reach position 3, 20" in said()
        stage.do("DELETE FROM record_changes")
        assert "reach position 3" in said("--rebuild")
        assert stage.ask("SELECT count(*) FROM record_changes") == [(3,)]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("4711", 4711),
        ("@4711", 4711),
        ("-2h", NOW - timedelta(hours=2)),
        ("2 hours ago", NOW - timedelta(hours=2)),
        ("1 min ago", NOW - timedelta(minutes=1)),
        ("-3d", NOW - timedelta(days=3)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T10:00+02:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
    ],
)
def test_a_moment_is_what_people_write(text: str, moment: int | datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "2h", "soon", "-2x", "2026-13-01", "-999999999w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        moment_of(text, NOW)
