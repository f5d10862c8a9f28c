"""Operations on more records than one transaction should have: jobs, their progress, their end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest

from recordledger.projections.actions import bulk
from recordledger.projections.ledger import Ledger
from recordledger.projections.replay.replay import check_replay
from tests.postgres import new_database

from ..service import Service, Visit, is_problem, serving, task

UNKNOWN: Final = 9_000_000_000


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server that takes long lists."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4) as made,
    ):
        yield made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than four records are a job, which does three at a time."""
    monkeypatch.setattr(bulk, "AT_ONCE_MAX", 4)
    monkeypatch.setattr(bulk, "SLICE", 3)


def begun(visit: Visit, action: str, ids: list[int], **more: Any) -> dict[str, Any]:
    answer = visit.post(f"/v1/records/{action}", {"ids": ids, **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def job_of(visit: Visit, job_id: int) -> dict[str, Any]:
    found: dict[str, Any] = visit.get(f"/v1/jobs/{job_id}").json()
    return found


def finish(service: Service) -> None:
    while bulk.advance_jobs(service.ledger):
        pass


def counts_of(visit: Visit, ids: list[int]) -> list[str]:
    records = visit.post("/v1/records/get", {"ids": ids}).json()["records"]
    return sorted({record["status"] for record in records})


@pytest.mark.usefixtures("small")
def test_a_job_tells_how_far_it_is_and_what_was_refused(service: Service, ann: Visit) -> None:
    ids = ann.create(*(task() for _ in range(7)))
    ann.post("/v1/records/cancel", {"ids": ids[4:5]})
    wanted = [ids[0], UNKNOWN, *ids, ids[0]]
    answer = begun(ann, "cancel", wanted, reason="many")
    assert (answer["n_selected"], answer["updated_idx"], answer["ids"]) == (8, [], None)
    job = job_of(ann, answer["job_id"])
    assert (job["state"], job["n_total"], job["n_done"]) == ("running", 8, 0)
    assert (job["action"], job["actor"], job["reason"]) == ("cancel", "user:ann", "many")
    not_yet = ann.get(f"/v1/operations/{answer['operation_id']}").json()
    assert (not_yet["n_changes"], not_yet["job_id"]) == (0, job["id"])
    bulk.advance_jobs(service.ledger)
    assert job_of(ann, job["id"])["n_done"] == 3
    # The operation is not over, so it can only be cancelled.
    undo = ann.post(f"/v1/operations/{answer['operation_id']}/undo")
    is_problem(undo, 409, "job_not_ended")
    # A process that was killed is followed by another, which knows only the database.
    fresh = Ledger(service.settings.database_url, pool_size=2)
    try:
        while bulk.advance_jobs(fresh):
            pass
    finally:
        fresh.close()
    job = job_of(ann, job["id"])
    assert (job["state"], job["n_done"], job["n_updated"]) == ("finished", 8, 6)
    first = ann.get(f"/v1/jobs/{job['id']}/refusals", params={"limit": 1}).json()
    query = {"limit": 1, "cursor": first["next_cursor"]}
    second = ann.get(f"/v1/jobs/{job['id']}/refusals", params=query).json()
    assert second["next_cursor"] is None
    refusals = first["refusals"] + second["refusals"]
    assert [(each["idx"], each["record_id"], each["code"]) for each in refusals] == [
        (1, UNKNOWN, "not_found"),
        (5, ids[4], "transition_forbidden"),
    ]
    operation = ann.get(f"/v1/operations/{answer['operation_id']}").json()
    assert (operation["n_changes"], operation["job_id"]) == (6, job["id"])
    assert counts_of(ann, ids) == ["cancelled"]


@pytest.mark.usefixtures("small")
def test_a_cancelled_job_is_undone(service: Service, ann: Visit) -> None:
    ids = ann.create(*(task() for _ in range(9)))
    job_id = begun(ann, "delete", ids)["job_id"]
    bulk.advance_jobs(service.ledger)
    assert counts_of(ann, ids) == ["deleted", "waiting"]
    cancelling = ann.post(f"/v1/jobs/{job_id}/cancel", {"reason": "no"}).json()
    assert cancelling["state"] == "cancelling"
    finish(service)
    assert job_of(ann, job_id)["state"] == "cancelled"
    assert counts_of(ann, ids) == ["waiting"]
    # Once more changes nothing.
    assert ann.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"


@pytest.mark.usefixtures("small")
def test_a_large_operation_is_undone_by_a_job(service: Service, ann: Visit) -> None:
    ids = ann.create(*(task() for _ in range(8)))
    operation_id = begun(ann, "hold", ids)["operation_id"]
    finish(service)
    ann.post("/v1/records/release", {"ids": ids[:1]})
    tried = ann.post(f"/v1/operations/{operation_id}/undo", {"dry_run": True})
    assert tried.status_code == 200
    assert (tried.json()["n_undone"], len(tried.json()["conflicts"])) == (7, 1)
    answer = ann.post(f"/v1/operations/{operation_id}/undo")
    assert answer.status_code == 202
    finish(service)
    job = job_of(ann, answer.json()["job_id"])
    assert (job["action"], job["n_updated"], job["n_refused"]) == ("undo", 7, 1)
    assert counts_of(ann, ids) == ["waiting"]


@pytest.mark.usefixtures("small")
def test_a_large_dry_run_is_tried_in_slices_and_answered_at_once(ann: Visit) -> None:
    ids = ann.create(*(task() for _ in range(8)))
    answer = ann.post("/v1/records/cancel", {"ids": [*ids, UNKNOWN], "dry_run": True})
    assert answer.status_code == 200
    assert answer.json()["updated_idx"] == list(range(8))
    assert [error["idx"] for error in answer.json()["errors"]] == [8]
    assert counts_of(ann, ids) == ["waiting"]


@pytest.mark.usefixtures("small")
def test_a_job_by_query_is_begun_once_under_one_key(service: Service, ann: Visit) -> None:
    tag = f"job{uuid4().hex[:8]}"
    ids = ann.create(*(task(tag=tag) for _ in range(6)))
    body = {"query": {"tag": [tag], "status": ["waiting"]}}
    key = uuid4().hex
    first = ann.post("/v1/records/cancel", body, key=key)
    finish(service)
    again = ann.post("/v1/records/cancel", body, key=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert counts_of(ann, ids) == ["cancelled"]


def test_a_million_ids_become_a_job(service: Service, ann: Visit) -> None:
    (record_id,) = ann.create(task())
    ids = [record_id, *range(UNKNOWN, UNKNOWN + 999_999)]
    answer = ann.pack("/v1/records/cancel", {"ids": ids})
    assert answer.status_code == 202
    jobs = ann.get("/v1/jobs", params={"limit": 1}).json()
    (job,) = jobs["jobs"]
    assert job["n_total"] == 1_000_000
    assert jobs["next_cursor"] is not None
    bulk.advance_jobs(service.ledger)
    assert ann.record(record_id)["status"] == "cancelled"
    assert job_of(ann, job["id"])["n_done"] == bulk.SLICE
    ann.post(f"/v1/jobs/{job['id']}/cancel")
    finish(service)
    assert ann.record(record_id)["status"] == "waiting"
    too_many = ann.pack("/v1/records/cancel", {"ids": [*ids, 1]})
    assert too_many.status_code == 422
    dry = ann.pack("/v1/records/cancel", {"ids": ids, "dry_run": True})
    assert dry.status_code == 413


def test_there_may_be_no_such_job(ann: Visit) -> None:
    is_problem(ann.get("/v1/jobs/999999"), 404, "job_not_found")
    is_problem(ann.get("/v1/jobs/999999/refusals"), 404, "job_not_found")
    is_problem(ann.post("/v1/jobs/999999/cancel"), 404, "job_not_found")
    is_problem(ann.get("/v1/jobs/0"), 422, "invalid_input")


def test_the_tables_agree_with_the_log_after_all_that(service: Service) -> None:
    assert check_replay(service.ledger).equal
