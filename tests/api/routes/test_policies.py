"""Policies: what the server does by itself, if it was told to, and as whom."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from recordledger.api.settings import Settings, WorkSettings
from recordledger.domain.records.policies import PolicySettings
from recordledger.workers.jobs.schedule import run_jobs, server_jobs
from tests.postgres import new_database

from ..service import Service, Visit, eventually, serving, task
from .test_management import manage, own_tag, statuses


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server with the policies on that are its own."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, auto_reset={"MemoryError": 0, "*Error": 2}, adopt_late_results=True) as made_,
    ):
        yield made_


@contextmanager
def working(service: Service, **options: Any) -> Generator[None]:
    """Do the server's jobs with these settings, as `recordledger work` does."""
    stop = Event()
    jobs = [job for job in server_jobs(WorkSettings(**options), stop=stop) if job.settings]
    worker = Thread(target=run_jobs, args=(service.ledger, jobs, stop))
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def last_events(visit: Visit, record_id: int, n: int) -> list[tuple[str, str]]:
    events = visit.get(f"/v1/records/{record_id}/events").json()["events"]
    return [(event["kind"], event["actor"]) for event in events[-n:]]


def fails(visit: Visit, manager_id: int, error_type: str) -> None:
    (claimed,) = visit.claim(manager_id)
    result = {key: claimed[key] for key in ("record_id", "attempt")} | {"error_type": error_type}
    visit.post(f"/v1/managers/{manager_id}/results", {"results": [result]})


def test_policies_are_off_by_default_and_shown() -> None:
    assert Settings(database_url="postgresql://h/d").policies == PolicySettings()


def test_policies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDLEDGER_AUTO_RESET", '{"MemoryError": 0, "*": 1}')
    monkeypatch.setenv("RECORDLEDGER_ADOPT_LATE_RESULTS", "true")
    monkeypatch.setenv("RECORDLEDGER_FAILED_AFTER_S", "60")
    policies = Settings(database_url="postgresql://h/d").policies
    assert policies == PolicySettings({"MemoryError": 0, "*": 1}, 60.0, adopt_late_results=True)
    assert policies.resets_of("MemoryError") == 0
    assert policies.resets_of("Other") == 1


def test_the_api_shows_them(service: Service, ann: Visit) -> None:
    with working(service, failed_after_s=3600.0):
        eventually(lambda: ann.get("/v1/policies").json()["failed_after_s"] is not None)
        shown = ann.get("/v1/policies").json()
    assert shown == {
        "auto_reset": {"MemoryError": 0, "*Error": 2},
        "failed_after_s": 3600.0,
        "adopt_late_results": True,
        "actors": {
            "auto_reset": "policy:auto-reset@1",
            "failed_after_s": "policy:failed-after@1",
            "adopt_late_results": "policy:adopt-late-results@1",
        },
    }


def test_what_the_api_was_told_and_nobody_does_is_not_shown(database_url: str) -> None:
    with serving(database_url, failed_after_s=3600.0) as service:
        assert service.visit().get("/v1/policies").json()["failed_after_s"] is None


def test_of_two_that_work_the_one_that_does_it_is_shown(service: Service, ann: Visit) -> None:
    def shown() -> Any:
        return ann.get("/v1/policies").json()["failed_after_s"]

    assert shown() is None
    with working(service, failed_after_s=60.0):
        eventually(lambda: shown() == 60.0)
        with working(service), working(service, failed_after_s=7200.0):
            assert shown() == 60.0
    eventually(lambda: shown() is None)
    with working(service, failed_after_s=7200.0):
        eventually(lambda: shown() == 7200.0)


def test_errors_are_reset_by_type_until_the_limit(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    manager_id = ann.register(tag)
    for n_resets in (1, 2):
        fails(ann, manager_id, "OSError")
        record = ann.record(record_id)
        assert (record["status"], record["retries_used"]) == ("waiting", n_resets)
        assert last_events(ann, record_id, 2) == [
            ("errored", f"manager:{manager_id}"),
            ("reset", "policy:auto-reset@1"),
        ]
    fails(ann, manager_id, "OSError")
    assert ann.record(record_id)["status"] == "error"
    # A person's reset begins a new count.
    manage(ann, "reset", [record_id])
    fails(ann, manager_id, "OSError")
    assert ann.record(record_id)["status"] == "waiting"
    fails(ann, manager_id, "MemoryError")
    assert ann.record(record_id)["status"] == "error"


def test_a_records_own_retries_come_first(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag, retries=1))
    manager_id = ann.register(tag)
    actors: list[Any] = []
    for _ in range(3):
        fails(ann, manager_id, "OSError")
        actors.append(last_events(ann, record_id, 1)[0][1])
    assert actors == ["policy:retry", "policy:auto-reset@1", f"manager:{manager_id}"]


def test_an_automatic_reset_is_an_operation_of_the_policy(ann: Visit) -> None:
    tag = own_tag()
    ann.create(task(tag=tag))
    fails(ann, ann.register(tag), "OSError")
    query = {"actor": "policy:auto-reset@1", "limit": 1}
    (operation,) = ann.get("/v1/operations", params=query).json()["operations"]
    assert (operation["action"], operation["n_changes"]) == ("reset", 1)


def test_a_good_late_result_is_adopted(ann: Visit) -> None:
    tag = own_tag()
    ids = ann.create(task(tag=tag), task(tag=tag), task(tag=tag))
    slow = ann.register(tag)
    assert len(ann.claim(slow)) == 3
    ann.post(f"/v1/managers/{slow}/deactivate")
    manage(ann, "cancel", ids[1:2])
    # Another has the first one now: its attempt becomes stale.
    fast = ann.register(tag)
    ann.claim(fast, 1)
    results = [
        {"record_id": ids[0], "attempt": 1, "result": {"x": 1}},
        {"record_id": ids[1], "attempt": 1, "result": {"x": 1}},
        {"record_id": ids[2], "attempt": 1, "error_type": "OSError"},
    ]
    answer = ann.post(f"/v1/managers/{slow}/results", {"results": results}).json()
    assert answer["late_idx"] == [0, 1, 2]
    assert statuses(ann, ids) == ["complete", "cancelled", "waiting"]
    assert ann.record(ids[0], "result")["result"] == {"x": 1}
    assert last_events(ann, ids[0], 2) == [
        ("late_result", f"manager:{slow}"),
        ("result_adopted", "policy:adopt-late-results@1"),
    ]
    late = {"record_id": ids[0], "attempt": 2, "result": {"x": 2}}
    answer = ann.post(f"/v1/managers/{fast}/results", {"results": [late]}).json()
    assert answer["late_idx"] == [0]
    assert ann.record(ids[0], "result")["result"] == {"x": 1}


def test_old_errors_become_failures(service: Service, ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    fails(ann, ann.register(tag), "MemoryError")
    jobs = {job.name: job for job in server_jobs(WorkSettings(failed_after_s=3600.0))}
    assert jobs["failed-after"].run(service.ledger) is None
    assert ann.record(record_id)["status"] == "error"
    jobs = {job.name: job for job in server_jobs(WorkSettings(failed_after_s=0.001), stop=Event())}
    assert jobs["failed-after"].run(service.ledger)
    assert ann.record(record_id)["status"] == "failed"
    assert last_events(ann, record_id, 1) == [("failed", "policy:failed-after@1")]


def test_no_error_becomes_a_failure_unless_it_is_said() -> None:
    assert "failed-after" not in {job.name for job in server_jobs()}
