"""The commands over records: what they print, what they ask, and how they exit."""

from __future__ import annotations

import pytest

from recordledger.projections.actions import bulk
from tests.api.routes.test_management import made, own_tag, statuses
from tests.api.service import Service, Visit, task

from ..conftest import Cli, printed

UNKNOWN = 9_000_000_000


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        ("error", ("reset",), "waiting"),
        ("waiting", ("cancel",), "cancelled"),
        ("cancelled", ("uncancel",), "waiting"),
        ("complete", ("delete", "--yes"), "deleted"),
        ("complete", ("delete", "--hard", "--yes"), "gone"),
        ("deleted", ("undelete",), "waiting"),
        ("complete", ("invalidate", "--no-propagate"), "invalid"),
        ("invalid", ("uninvalidate",), "complete"),
        ("waiting", ("hold",), "held"),
        ("held", ("release",), "waiting"),
        ("error", ("fail",), "failed"),
        ("failed", ("revive",), "waiting"),
        ("waiting", ("modify", "--new-tag", "x", "--new-priority", "low"), "waiting"),
        ("complete", ("resubmit",), "complete"),
    ],
)
def test_a_verb_does_it_and_says_how_to_take_it_back_where_that_can_be(
    cli: Cli, ann: Visit, before: str, arguments: tuple[str, ...], after: str
) -> None:
    ids = made(ann, before, 2)
    result = cli(*arguments, *ids, "--reason", "because")
    assert result.exit_code == 0, result.output
    assert "2 of 2 records" in result.stdout
    is_for_good = arguments[0] == "resubmit" or "--hard" in arguments
    assert ("recordledger undo " in result.stdout) is not is_for_good
    assert statuses(ann, ids) == [after, after]


def test_what_is_refused_is_listed_and_told_by_the_exit_status(cli: Cli, ann: Visit) -> None:
    (good,) = made(ann, "waiting")
    result = cli("cancel", UNKNOWN, good)
    assert result.exit_code == 1
    assert "1 of 2 records cancelled" in result.stdout
    assert f"│ {UNKNOWN} │ not_found" in result.stdout


def test_programs_read_json(cli: Cli, ann: Visit) -> None:
    (good,) = made(ann, "waiting")
    result = cli("cancel", good, UNKNOWN, "--json")
    assert result.exit_code == 1
    found = printed(result)
    assert found["updated_idx"] == [0]
    assert found["errors"][0]["code"] == "not_found"


def test_a_dry_run_changes_nothing_and_asks_nothing(cli: Cli, ann: Visit) -> None:
    ids = made(ann, "waiting", 2)
    result = cli("delete", "--hard", "--dry-run", *ids)
    assert result.exit_code == 0
    assert "2 of 2 records would be destroyed" in result.stdout
    assert statuses(ann, ids) == ["waiting", "waiting"]


def test_what_destroys_asks_first_and_says_how_many(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    ids = ann.create(task(tag=tag), task(tag=tag))
    for arguments in (("delete", *ids), ("delete", "--hard", *ids), ("cancel", "--tag", tag)):
        result = cli(*arguments, answer="n\n")
        assert result.exit_code == 1
        assert "2 records" in result.stderr
        assert statuses(ann, ids) == ["waiting", "waiting"]
    assert cli("cancel", "--tag", tag, "--status", "waiting", answer="y\n").exit_code == 0
    assert statuses(ann, ids) == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("cancel",),
        ("cancel", "1", "--tag", "x"),
        ("cancel", "1", "--all"),
        ("cancel", "one"),
        ("cancel", "--status", "done"),
        ("modify", "1"),
        ("undo", "yesterday"),
        ("paint", "1"),
    ],
)
def test_a_wrong_command_exits_with_two(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).exit_code == 2


def test_everything_is_named_by_all(cli: Cli, ann: Visit) -> None:
    made(ann, "waiting")
    result = cli("hold", "--all", "--dry-run", "--json")
    assert printed(result)["n_selected"] == ann.n_records()


def test_an_operation_is_listed_and_undone(cli: Cli, ann: Visit) -> None:
    first, second = made(ann, "waiting", 2)
    operation_id = printed(cli("cancel", first, second, "--json"))["operation_id"]
    assert operation_id in cli("operations", "--action", "cancel", "--limit", 1).stdout
    assert cli("undo", operation_id, "--dry-run").exit_code == 0
    cli("uncancel", first)
    result = cli("undo", operation_id)
    assert result.exit_code == 1
    assert "1 records are again what they were" in result.stdout
    assert "changed_since" in result.stdout
    assert statuses(ann, [first, second]) == ["waiting", "waiting"]
    assert cli("operations", "--json").exit_code == 0


def test_comments_are_written_and_shown_harmlessly(cli: Cli, ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    assert cli("comment", record_id, "[red]look\x1b[31m").exit_code == 0
    for command in ("comments", "show"):
        shown = cli(command, record_id)
        assert shown.exit_code == 0
        assert "[red]look\\x1b[31m" in shown.stdout
        assert "user:ann" in shown.stdout
    assert printed(cli("comments", record_id, "--json"))[0]["author"] == "user:ann"
    assert cli("comment", UNKNOWN, "nothing").exit_code == 1


def test_records_and_errors_are_listed(cli: Cli, ann: Visit) -> None:
    ids = made(ann, "error", 3)
    tag = ann.record(ids[0])["tag"]
    listed = cli("list", "--tag", tag, "--status", "error")
    assert all(str(record_id) in listed.stdout for record_id in ids)
    assert [each["id"] for each in printed(cli("list", "--tag", tag, "--json"))] == ids[::-1]
    assert "it broke" in cli("errors").stdout
    assert printed(cli("errors", "--json"))[0]["n_records"] >= 3
    shown = printed(cli("show", ids[0], "--json"))
    assert (shown["status"], shown["parents"], shown["comments"]) == ("error", [], [])
    assert cli("show", UNKNOWN).exit_code == 1


def test_jobs_are_watched_and_cancelled(
    cli: Cli, ann: Visit, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE_MAX", 2)
    ids = ann.create(*(task() for _ in range(3)))
    job_id = ann.post("/v1/records/cancel", {"ids": ids}).json()["job_id"]
    assert "running" in cli("jobs").stdout
    assert printed(cli("job", job_id, "--json"))["n_total"] == 3
    assert "cancelling" in cli("cancel-job", job_id).stdout
    while bulk.advance_jobs(service.ledger):
        pass
    assert "cancelled" in cli("job", job_id, "--wait").stdout
    assert cli("job", 999_999).exit_code == 1


def test_a_late_result_is_adopted(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    manager_id = ann.register(tag)
    ann.claim(manager_id)
    ann.post(f"/v1/managers/{manager_id}/deactivate")
    late = {"record_id": record_id, "attempt": 1, "result": 1}
    ann.post(f"/v1/managers/{manager_id}/results", {"results": [late]})
    assert cli("adopt", record_id, "--attempt", 1).exit_code == 0
    assert statuses(ann, [record_id]) == ["complete"]
