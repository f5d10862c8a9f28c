"""The commands about what waits and who could take it: what they print, ask, and how they exit."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.api.routes.test_management import own_tag, statuses
from tests.api.service import Service, Visit, serving, task
from tests.postgres import new_database

from ..conftest import Cli, printed

UNKNOWN = 9_000_000_000


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server whose circuit breaker opens after one failure."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, breaker_failures=1) as made_,
    ):
        yield made_


def own_name() -> str:
    return f"node{uuid4().hex[:12]}"


def held(visit: Visit, n: int = 2) -> tuple[str, int, list[int]]:
    """Return a manager by name and by id, and records that it runs."""
    tag, name = own_tag(), own_name()
    ids = visit.create(*(task(tag=tag) for _ in range(n)))
    manager_id = visit.register(tag, name=name)
    assert len(visit.claim(manager_id, n)) == n
    return name, manager_id, ids


# Why


def test_why_is_told_with_the_command_that_changes_it(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    ann.register("cpu", name="m7")
    told = cli("why", record_id)
    assert told.exit_code == 0
    assert f"Record {record_id}: waiting (tag_not_claimed)\n" in told.stdout
    assert f"No manager claims the tag {tag}" in told.stdout
    assert f"To change that:  recordledger modify {record_id} --new-tag cpu\n" in told.stdout
    assert printed(cli("why", record_id, "--json"))["code"] == "tag_not_claimed"
    assert cli("modify", record_id, "--new-tag", "cpu").exit_code == 0
    assert "(in_queue)" in cli("why", record_id).stdout


def test_what_others_wrote_is_no_command_to_the_terminal(cli: Cli, ann: Visit) -> None:
    (record_id,) = ann.create(task())
    ann.post("/v1/records/cancel", {"ids": [record_id], "reason": "look\x1b[31m\nhere"})
    told = cli("why", record_id)
    assert "look\\x1b[31m\\nhere" in told.stdout


def test_what_never_was_is_not_found(cli: Cli) -> None:
    assert cli("why", UNKNOWN).exit_code == 1
    assert cli("why", "one").exit_code == 2


# The queue


def test_the_queue_is_a_table_with_what_is_blocked(cli: Cli, ann: Visit) -> None:
    open_tag, blocked_tag = own_tag(), own_tag()
    (oldest, *_) = ann.create(task(tag=open_tag), task(tag=open_tag))
    ann.create(task(tag=blocked_tag, required_programs=["psi4>=1.9"]))
    ann.register(open_tag)
    shown = cli("queue", "--tag", open_tag, "--tag", blocked_tag)
    assert shown.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.stdout.splitlines()]
    assert rows[3][1:6] == [blocked_tag, "psi4>=1.9", "1", "0", "0"]
    assert rows[3][8] == "tag_not_claimed"
    assert rows[4][1:7] == [open_tag, "", "2", "0", "0", str(oldest)]
    assert rows[4][8] == "1"
    assert "3 records wait in 2 lanes, 1 of them blocked; " in shown.stdout
    found = printed(cli("queue", "--tag", open_tag, "--json"))
    assert (found["n_waiting"], found["lanes"][0]["oldest_id"]) == (2, oldest)
    assert cli("queue", "--tag", "no tag").exit_code == 1


# Managers


def test_managers_that_are_alive_are_listed_with_what_was_rescued(cli: Cli, ann: Visit) -> None:
    name, manager_id, ids = held(ann, 1)
    assert cli("managers", "deactivate", name, "--yes").exit_code == 0
    late = {"record_id": ids[0], "attempt": 1, "result": 1, "compute_s": 36_000.0, "cores": 2}
    ann.post(f"/v1/managers/{manager_id}/results", {"results": [late]})
    ann.post("/v1/records/adopt", {"ids": ids})
    alive = ann.register("x", name=own_name(), programs={"psi4": "1.9"})
    listed = cli("managers")
    assert listed.exit_code == 0
    assert f"│ {alive} " in listed.stdout
    assert "psi4 1.9" in listed.stdout
    assert name not in listed.stdout
    assert "kept: 1 (20.0 core-hours); adopted: 1 (20.0 core-hours rescued)" in listed.stdout
    assert name in cli("managers", "--all").stdout
    states = {each["id"]: each["state"] for each in printed(cli("managers", "--all", "--json"))}
    assert (states[manager_id], states[alive]) == ("inactive", "active")


def test_a_manager_is_shown_with_what_it_runs_and_what_has_happened_to_it(
    cli: Cli, ann: Visit
) -> None:
    name, manager_id, ids = held(ann, 22)
    error = {"record_id": ids[21], "attempt": 1, "error_type": "OSError", "error_message": "no"}
    ann.post(f"/v1/managers/{manager_id}/results", {"results": [error]})
    for which in (name, manager_id):
        shown = cli("managers", "show", which)
        assert shown.exit_code == 0
        assert f"manager {manager_id}" in shown.stdout
        assert "manager registered" in shown.stdout
        assert "(none)" in shown.stdout
        assert "OSError" in shown.stdout
        assert "lease_expires_at" in shown.stdout
        assert "and more" in shown.stdout
    found = printed(cli("managers", "show", manager_id, "--json"))
    assert found["running"] == ids[20:0:-1]
    assert [each["program"] for each in found["suspended"]] == ["(none)"]
    kinds = [each["kind"] for each in found["events"]]
    assert kinds == ["manager_registered", "program_suspended"]


def test_a_name_must_be_one_managers_only(cli: Cli, ann: Visit) -> None:
    name = own_name()
    first = ann.register("x", name=name)
    second = ann.register("x", name=name)
    refused = cli("managers", "show", name)
    assert refused.exit_code == 1
    assert f"give an id, like {first}, {second}" in refused.stderr
    # Those that have ended do not count while one is alive.
    ann.post(f"/v1/managers/{first}/deactivate")
    assert printed(cli("managers", "show", name, "--json"))["id"] == second
    for unknown in (own_name(), UNKNOWN):
        assert cli("managers", "show", unknown).exit_code == 1


def test_ending_a_manager_asks_first_and_says_what_it_runs(cli: Cli, ann: Visit) -> None:
    name, manager_id, ids = held(ann)
    refused = cli("managers", "deactivate", name, answer="n\n")
    assert refused.exit_code == 1
    assert f"would end manager {manager_id}, and 2 records would wait again" in refused.stderr
    assert statuses(ann, ids) == ["running", "running"]
    done = cli("managers", "deactivate", name, "--reason", "broken", answer="y\n")
    assert done.exit_code == 0
    assert f"Manager {manager_id} has ended; 2 records wait again." in done.stdout
    assert statuses(ann, ids) == ["waiting", "waiting"]
    last = ann.get(f"/v1/managers/{manager_id}/events").json()["events"][-1]
    assert (last["kind"], last["reason"]) == ("manager_deactivated", "broken")
    # One that has ended has nothing to lose: nobody is asked.
    again = cli("managers", "deactivate", manager_id, "--json")
    assert printed(again) == {"id": manager_id, "requeued": []}


def test_a_manager_is_drained(cli: Cli, ann: Visit) -> None:
    name, manager_id, ids = held(ann)
    assert f"Manager {manager_id} is draining." in cli("managers", "drain", name).stdout
    assert statuses(ann, ids) == ["running", "running"]
    again = cli("managers", "drain", manager_id, "--json")
    assert printed(again) == {"id": manager_id, "state": "draining"}
    assert name in cli("managers").stdout
