"""A manager against a real server: what it does with tasks, outages, signals and its own death."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from recordledger import __version__
from recordledger.api.schemas.claims import AttemptRef
from recordledger.api.schemas.returns import ResultIn
from recordledger.workers.manager.config import parse_program
from recordledger.workers.manager.main import ManagerConfig, run_manager
from tests.acceptance.proxy import Fault, Proxy

from ..conditions import eventually
from ..conftest import Site


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Tasks


def test_tasks_are_claimed_run_and_returned(site: Site) -> None:
    added = site.client.add_records("quadratic", [{"x": x} for x in range(300)])
    manager = site.manager()
    records = site.client.wait(added.ids, timeout_s=30)
    assert {record.status for record in records} == {"complete"}
    read = site.client.get_records(added.ids, include=("result", "provenance"))
    assert [record.result for record in read] == [x * x for x in range(300)]
    assert {record.manager_id for record in read} == {manager.id}
    assert all(record.provenance and "python" in record.provenance for record in read)
    eventually(lambda: not site.spooled())


def test_what_goes_wrong_is_the_error_of_its_record_and_the_manager_goes_on(site: Site) -> None:
    wrong: list[tuple[str, dict[str, Any], str, str]] = [
        ("fail", {"message": "no convergence"}, "ValueError", "no convergence"),
        ("die", {}, "WorkerDied", "exit code 17"),
        ("kill_self", {"number": 9}, "WorkerDied", "SIGKILL"),
        ("bad_result", {"kind": "nan"}, "ResultNotSerializable", "energies[1]"),
        ("large_result", {"n_bytes": 70_000}, "ResultTooLarge", "65,536"),
        ("missing", {}, "FunctionNotFound", "missing"),
    ]
    good = [site.add("echo", n=n) for n in range(10)]
    bad = [site.add(function, **kwargs) for function, kwargs, _, _ in wrong]
    good += [site.add("echo", n=n) for n in range(10, 20)]
    site.manager()
    assert {record.status for record in site.client.wait(good, timeout_s=30)} == {"complete"}
    records = site.client.wait(bad, timeout_s=30, include=("stdout", "traceback"))
    for record, (_, _, error_type, message) in zip(records, wrong, strict=True):
        assert (record.status, record.error_type) == ("error", error_type)
        assert message in (record.error_message or "")
    assert "no convergence" in (records[0].traceback or "")
    assert records[1].stdout == "last words\n"


def test_what_is_not_allowed_is_an_error_that_says_what_to_do(site: Site) -> None:
    added = site.client.add_records("os:getcwd", {})
    site.manager()
    (record,) = site.client.wait(added.ids, timeout_s=30)
    assert record.error_type == "FunctionNotAllowed"
    assert "--allow 'os:*'" in (record.error_message or "")


def test_it_presents_itself_with_its_tags_and_programs(site: Site) -> None:
    manager = site.manager(name="node7", tags=["GPU", "*"], programs={"psi4": "1.9.1"})
    found = site.client.manager(manager.id)
    assert (found.name, found.tags) == ("node7", ["gpu", "*"])
    assert found.programs == {"psi4": "1.9.1", "recordledger": __version__}
    assert (found.lease_s, found.heartbeat_s) == (60.0, 0.2)


def test_without_prefetching_it_claims_for_idle_workers_only(site: Site) -> None:
    ids = [site.meeting(str(number)) for number in range(4)]
    site.manager(prefetch_s=0.0)
    eventually(lambda: site.client.counts()["running"] == 2)
    site.may_end("0")
    site.becomes(ids[0], "complete")
    eventually(lambda: site.has_begun("2"))
    assert site.client.counts()["waiting"] == 1


def test_what_cannot_begin_soon_is_given_back(site: Site) -> None:
    quick = [site.add("echo", n=n) for n in range(200)]
    slow = [site.meeting(name) for name in "ab"]
    behind = [site.add("echo", late=n) for n in range(50)]
    # It takes the quick ones for typical, so it claims those behind the slow ones too. It holds
    # them until so little moves that one who prefetches for half a second would claim none.
    manager = site.manager(hold_s=1.2, prefetch_s=0.5)
    site.becomes(quick[-1], "complete")
    eventually(lambda: "relinquished" in site.events(behind[0]))
    eventually(lambda: site.client.counts()["waiting"] == 50)
    assert {record.status for record in site.client.get_records(slow)} == {"running"}
    # Not claimed again before there is room, though the manager goes on.
    later = datetime.now(UTC) + timedelta(seconds=0.6)
    eventually(lambda: (site.client.manager(manager.id).heartbeat_at or later) > later)
    assert site.events(behind[0]) == ["created", "claimed", "relinquished"]
    for name in "ab":
        site.may_end(name)
    eventually(lambda: site.client.counts()["complete"] == 252)
    assert manager.stop() == 0


# Losing the server, and what belongs to it


def test_without_a_server_it_keeps_on_computing_and_returns_everything_later(site: Site) -> None:
    ids = [site.meeting(name) for name in "ab"]
    manager = site.manager()
    eventually(lambda: site.has_begun("a") and site.has_begun("b"))
    site.stop_server()
    for name in "ab":
        site.may_end(name)
    eventually(site.spooled)
    site.start_server()
    records = site.client.wait(ids, timeout_s=30)
    assert {record.status for record in records} == {"complete"}
    assert [record.attempt for record in records] == [1, 1]
    eventually(lambda: not site.spooled())
    assert manager.stop() == 0


def test_it_claims_no_more_than_it_can_hold(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    state = site.folder / "state"
    state.write_text("no folder can be made here, as on a full disk")
    ids = [site.add("echo", n=n) for n in range(40)]
    with Proxy(int(site.url.rpartition(":")[2])) as proxy:
        with proxy.failing(Fault.drop_request, "/results") as failing:
            manager = site.manager(
                url=proxy.url, n_workers=1, prefetch_s=0.0, unsaved_bytes_max=3_000
            )
            eventually(lambda: "not claiming until the server accepts results" in caplog.text)
            eventually(lambda: failing.n_fired)
            counts = site.client.counts()
            assert counts["complete"] == 0
            assert 1 < counts["running"] < 15
        eventually(lambda: site.client.counts()["complete"] == len(ids))
        assert {record.attempt for record in site.client.get_records(ids)} == {1}
        assert manager.stop() == 0


def test_it_offers_what_it_finds_and_reports_what_changes(site: Site) -> None:
    tool = site.folder / "tool"
    tool.write_text("#!/bin/sh\necho tool 1.0.0\n")
    tool.chmod(0o755)
    manager = site.manager(executables={"tool": f"{tool} --version"}, survey_s=0.05)
    assert site.client.manager(manager.id).programs["tool"] == "1.0.0"
    added = site.client.add_records(
        "tests.workers.misbehaving:echo", {"n": 1}, required_programs=["tool>=2"]
    )
    (needs_newer,) = added.ids
    assert needs_newer is not None
    newer = site.folder / "newer"
    newer.write_text("#!/bin/sh\necho tool 2.1.0\n")
    newer.chmod(0o755)
    newer.rename(tool)
    site.becomes(needs_newer, "complete")
    assert site.client.manager(manager.id).programs["tool"] == "2.1.0"


def test_it_ends_when_there_was_nothing_to_do_for_long_enough(site: Site) -> None:
    done = site.add("echo", n=1)
    manager = site.manager(end_when_idle_s=0.5)
    eventually(manager.has_ended)
    assert manager.exit_status == 0
    assert site.client.get_records(done).status == "complete"
    assert site.client.manager(manager.id).state == "inactive"


def test_it_waits_for_a_server_that_is_not_there_yet(site: Site) -> None:
    site.stop_server()
    manager = site.manager()
    site.start_server()
    assert site.client.manager(manager.id).state == "active"


def test_it_can_be_stopped_while_it_waits_for_the_server(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recordledger.workers.manager.main.SHORT_RETRIES_S", 0.0)
    site.stop_server()
    manager = site.manager()
    assert manager.stop() == 0


def test_when_it_was_given_up_it_registers_anew_and_returns_under_the_old_id(site: Site) -> None:
    running = site.meeting("a")
    manager = site.manager(n_workers=1)
    site.pid_of("a")
    first_id = manager.id
    site.client.deactivate_manager(first_id, "taken for dead")
    eventually(lambda: manager.manager.manager_id not in (None, first_id))
    # The record waits again, and is claimed again: by whoever, also by us.
    site.may_end("a")
    site.becomes(running, "complete")
    eventually(lambda: "late_result" in site.events(running))
    late = next(e for e in site.client.history(running) if e.kind == "late_result")
    assert late.actor == f"manager:{first_id}"
    assert late.data["attempt"] == 1


def test_a_running_task_that_was_taken_away_is_killed(site: Site) -> None:
    taken = site.meeting("a")
    manager = site.manager(n_workers=1, tags=["default"])
    pid = site.pid_of("a")
    requeued = site.client.relinquish(
        manager.id, [AttemptRef(record_id=taken, attempt=1)], "given to somebody else"
    )
    assert requeued == [taken]
    eventually(lambda: is_gone(pid))
    # It is nobody's now, so it is claimed again, as attempt 2.
    eventually(lambda: site.client.get_records(taken).attempt == 2)
    site.may_end("a")
    site.becomes(taken, "complete")


# Being told to stop


def test_sigterm_waits_for_what_runs_and_gives_back_the_rest(site: Site) -> None:
    # Quick ones first, so that it claims more than it can begin.
    quick = [site.add("echo", n=n) for n in range(100)]
    running = [site.meeting(name) for name in "ab"]
    waiting = [site.add("echo", late=n) for n in range(20)]
    process = site.manager_process()
    site.becomes(quick[-1], "complete")
    eventually(lambda: site.has_begun("a") and site.has_begun("b"))
    eventually(lambda: site.client.get_records(waiting[0]).status == "running")
    process.send_signal(signal.SIGTERM)
    eventually(lambda: site.client.counts()["waiting"] == 20)
    assert process.poll() is None
    for name in "ab":
        site.may_end(name)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert {r.status for r in site.client.get_records(running)} == {"complete"}
    (manager,) = site.client.managers()
    assert manager.state == "inactive"
    assert site.events(waiting[0])[-1] == "relinquished"


def test_after_the_grace_period_what_runs_is_given_back(site: Site) -> None:
    ids = [site.meeting(name) for name in "ab"]
    process = site.manager_process(grace_s=0.3)
    pids = [site.pid_of(name) for name in "ab"]
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert {r.status for r in site.client.get_records(ids)} == {"waiting"}
    assert all(is_gone(pid) for pid in pids)


def test_the_second_signal_ends_it_at_once(site: Site) -> None:
    running = site.meeting("a")
    process = site.manager_process(grace_s=600)
    pid = site.pid_of("a")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    for line in process.stderr:
        if "stopping: waiting up to" in line:
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert site.client.get_records(running).status == "waiting"
    assert is_gone(pid)


def test_a_drained_manager_claims_no_more_finishes_what_runs_and_ends(site: Site) -> None:
    # Quick ones first, so that it claims more than it can begin.
    quick = [site.add("echo", n=n) for n in range(100)]
    running = [site.meeting(name) for name in "ab"]
    waiting = [site.add("echo", late=n) for n in range(20)]
    # Whoever is drained is not hurried: the grace period is for signals.
    process = site.manager_process(grace_s=0.0)
    site.becomes(quick[-1], "complete")
    eventually(lambda: site.has_begun("a") and site.has_begun("b"))
    eventually(lambda: site.client.get_records(waiting[0]).status == "running")
    (manager,) = site.client.managers()
    assert site.client.drain_manager(manager.id, "maintenance") == "draining"
    eventually(lambda: site.client.counts()["waiting"] == 20)
    before = site.client.manager(manager.id).heartbeat_at
    late = site.add("echo", n="after")
    # It lives on while something runs, and takes nothing more.
    eventually(lambda: site.client.manager(manager.id).heartbeat_at != before)
    assert process.poll() is None
    assert {r.status for r in site.client.get_records(running)} == {"running"}
    for name in "ab":
        site.may_end(name)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    assert {r.status for r in site.client.get_records(running)} == {"complete"}
    assert {r.status for r in site.client.get_records([*waiting, late])} == {"waiting"}
    assert site.events(waiting[0])[-1] == "relinquished"
    assert site.client.manager(manager.id).state == "inactive"


def test_a_drained_manager_without_tasks_ends_at_once(site: Site) -> None:
    manager = site.manager()
    site.client.drain_manager(manager.id)
    eventually(manager.has_ended)
    assert manager.exit_status == 0


def test_a_drained_manager_can_still_be_told_to_hurry(site: Site) -> None:
    running = site.meeting("a")
    process = site.manager_process(grace_s=0.3)
    pid = site.pid_of("a")
    (manager,) = site.client.managers()
    site.client.drain_manager(manager.id)
    assert process.stderr is not None
    for line in process.stderr:
        if "is drained" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert site.client.get_records(running).status == "waiting"
    assert is_gone(pid)


# Being killed


def test_its_workers_die_with_it_and_leave_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    site.meeting("a")
    process = site.manager_process()
    pid = site.pid_of("a")
    assert list(folder.iterdir())
    process.send_signal(signal.SIGKILL)
    eventually(lambda: is_gone(pid))
    eventually(lambda: not list(folder.iterdir()))


def test_what_it_had_computed_is_returned_by_the_next_in_its_name(site: Site) -> None:
    ids = [site.meeting(name) for name in "ab"]
    process = site.manager_process()
    for name in "ab":
        site.pid_of(name)
    site.stop_server()
    for name in "ab":
        site.may_end(name)
    eventually(site.spooled)
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.start_server()
    (killed,) = site.client.managers()
    next_one = site.manager(tags=["other"])
    for id_ in ids:
        eventually(lambda id_=id_: site.client.get_records(id_).status == "complete")  # type: ignore[misc]
    assert {r.manager_id for r in site.client.get_records(ids)} == {killed.id}
    eventually(lambda: not site.spooled())
    assert next_one.id != killed.id


def test_a_result_that_was_returned_before_the_crash_is_not_counted_twice(site: Site) -> None:
    record_id = site.meeting("a")
    process = site.manager_process()
    site.pid_of("a")
    site.stop_server()
    site.may_end("a")
    eventually(site.spooled)
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.start_server()
    (killed,) = site.client.managers()
    result = ResultIn(record_id=record_id, attempt=1, result="met")
    assert site.client.return_results(killed.id, [result]).accepted_idx == [0]
    site.manager(tags=["other"])
    eventually(lambda: not site.spooled())
    assert site.events(record_id) == ["created", "claimed", "completed"]


# What it is told


def test_a_wrong_token_is_said_and_ends_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    config = ManagerConfig(url=site.url, token="wrong", state_dir=site.folder)  # noqa: S106
    assert run_manager(config) == 1
    assert "token" in caplog.text


def test_a_pattern_without_a_colon_is_said_and_ends_it(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_manager(ManagerConfig(url=site.url, token=site.token, allow=("mypkg",))) == 1
    assert "write MODULE:FUNCTION" in caplog.text


def test_programs_are_given_or_looked_up() -> None:
    assert parse_program("Psi4=1.9.1") == ("psi4", "1.9.1")
    assert parse_program("xtb==6.6") == ("xtb", "6.6")
    assert parse_program("recordledger") == ("recordledger", __version__)
    assert parse_program("no-such-program") == ("no-such-program", None)
    for wrong in ("", "=1", "psi4="):
        with pytest.raises(ValueError, match="NAME=VERSION"):
            parse_program(wrong)
