"""The commands that print what has happened: to one record, and to everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.api.routes.test_management import own_tag
from tests.api.service import Service, Visit, task

from ..conftest import Cli, printed


@pytest.fixture
def managed(ann: Visit) -> int:
    """Return a record that was created, held and released."""
    (record_id,) = ann.create(task(tag=own_tag()))
    ann.post("/v1/records/hold", {"ids": [record_id], "reason": "not \x1b[31m yet"})
    ann.post("/v1/records/release", {"ids": [record_id]})
    return record_id


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_history_is_printed_whole_or_in_part(cli: Cli, managed: int) -> None:
    def kinds(*options: str) -> list[str]:
        return [each["kind"] for each in printed(cli("history", managed, "--json", *options))]

    assert kinds() == ["created", "held", "released"]
    assert kinds("--kind", "held", "--kind", "created") == ["created", "held"]
    assert kinds("--actor", "user:nobody") == []
    assert kinds("--actor", "user:ann", "--kind", "held") == ["held"]
    held_at = printed(cli("history", managed, "--json"))[1]["timestamp"]
    assert kinds("--since", held_at) == ["held", "released"]
    assert kinds("--until", held_at.removesuffix("Z")) == ["created"]
    shown = cli("history", managed, "--kind", "held")
    assert f"Record {managed}" in shown.stdout
    assert "released" not in shown.stdout
    assert cli("history", managed, "--since", "soon").exit_code == 2
    assert cli("history", managed, "--kind", "wrong").exit_code == 1


def test_events_are_printed_from_a_position_on(cli: Cli, managed: int) -> None:
    found = cli("events", "--record", managed)
    assert found.exit_code == 0
    created, held, _ = found.stdout.splitlines()
    assert f"  record {managed}  created  " in created
    assert held.endswith("  held  user:ann  (not \\x1b[31m yet)")
    after = created.split()[0]
    rest = lines(cli("events", "--record", managed, "--after", after, "--json").stdout)
    assert [each["kind"] for each in rest] == ["held", "released"]
    assert cli("events", "--record", managed, "--new").stdout == ""
    assert cli("events", "--after", 10**12).exit_code == 1


def test_following_goes_on_until_it_is_interrupted(service: Service, ann: Visit) -> None:
    tag = own_tag()
    (before,) = ann.create(task(tag=tag))
    assert ann.secret is not None
    command = [sys.executable, "-m", "recordledger.workers.cli", "events", "--follow", "--json"]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--tag", tag],
        env=os.environ | {"RECORDLEDGER_URL": service.url, "RECORDLEDGER_TOKEN": ann.secret},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == before
        (after,) = ann.create(task(tag=tag))
        assert json.loads(process.stdout.readline())["id"] == after
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_histories_of_other_things_are_printed(cli: Cli, ann: Visit, managed: int) -> None:
    operation = ann.post("/v1/records/hold", {"ids": [managed], "reason": "again"}).json()
    of_operation = printed(cli("history", "--operation", operation["operation_id"], "--json"))
    assert [(each["id"], each["kind"]) for each in of_operation] == [(managed, "held")]
    mine = printed(cli("history", "--user", "ann", "--limit", 2, "--json"))
    assert [each["kind"] for each in mine] == ["held", "released"]
    oldest = printed(cli("history", "--user", "ann", "--oldest-first", "--limit", 1, "--json"))
    assert [each["kind"] for each in oldest] == ["created"]
    manager_id = ann.register("history")
    told = cli("history", "--manager", manager_id, "--words").stdout
    assert "ann registered it: name cluster" in told
    ann.post("/v1/datasets", {"name": own_tag()})
    name = own_tag()
    ann.post("/v1/datasets", {"name": name})
    [made] = printed(cli("history", "--dataset", name, "--records", "--json"))
    assert made["kind"] == "dataset_created"
    shown = cli("history", "--user", "ann", "--kind", "held").stdout
    assert f"record {managed}" in shown
    assert "\x1b" not in shown
    for wrong in (
        [],
        [managed, "--user", "ann"],
        [managed, "--records"],
        ["--user", "ann", "--actor", "user:bob"],
    ):
        assert cli("history", *wrong).exit_code == 2


def test_timelines_are_drawn_side_by_side(cli: Cli, ann: Visit, managed: int) -> None:
    (other,) = ann.create(task(tag=own_tag()))
    drawn = cli("timeline", managed, other).stdout
    assert f"record {managed}: waiting; waited" in drawn
    assert f"record {other}: waiting; waited" in drawn
    assert "\x1b" not in drawn
    [line] = [line for line in drawn.splitlines() if line.startswith(f"{managed} ")]
    assert set(line.removeprefix(str(managed)).strip()) <= {"w", "h"}
    found = printed(cli("timeline", managed, "--json"))
    assert [each["status"] for each in found["periods"]] == ["waiting", "held", "waiting"]
    assert cli("timeline", 2**50).exit_code == 1
