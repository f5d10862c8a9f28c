"""The same request, sent again under its key, has one effect and gets the same answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import zstandard

from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem, latin_1, task


def new_key() -> str:
    return uuid4().hex


def test_a_submission_sent_again_has_one_effect(ann: Visit) -> None:
    body = {"records": [task(), {"function": "?"}, task()], "find_existing": False}
    key = new_key()
    before = ann.n_records()
    first = ann.post("/v1/records", body, key=key)
    assert ann.n_records() == before + 2
    again = ann.post("/v1/records", body, key=key)
    assert again.json() == first.json()
    assert ann.n_records() == before + 2


def test_the_key_belongs_to_what_was_asked_and_not_to_how_it_travelled(ann: Visit) -> None:
    key = new_key()
    first = ann.post("/v1/records", {"records": [task(kwargs={"travels": key})]}, key=key)
    data = f'{{"records": [{{"function": "demo:square", "kwargs": {{"travels": "{key}"}}}}]}}'
    same = zstandard.ZstdCompressor().compress(data.encode())
    again = ann.send("/v1/records", same, key=key, headers={"Content-Encoding": "zstd"})
    assert again.json() == first.json()


def test_the_same_key_with_another_body_is_refused(ann: Visit) -> None:
    key = new_key()
    ann.post("/v1/records", {"records": [task()]}, key=key)
    before = ann.n_records()
    answer = ann.post("/v1/records", {"records": [task()]}, key=key)
    assert "use a new key" in is_problem(answer, 422, "idempotency_conflict")
    answer = ann.post("/v1/managers", {"name": "m", "hostname": "h", "tags": ["*"]}, key=key)
    is_problem(answer, 422, "idempotency_conflict")
    assert ann.n_records() == before


def test_two_users_may_have_the_same_key(service: Service, ann: Visit) -> None:
    bob = service.visit(Role.user, "bob")
    key, body = new_key(), {"records": [task()], "find_existing": False}
    ours = ann.post("/v1/records", body, key=key).json()["ids"]
    assert bob.post("/v1/records", body, key=key).json()["ids"] != ours


def test_a_claim_sent_again_gives_the_same_attempts(ann: Visit) -> None:
    ann.create(*(task(tag="again") for _ in range(4)))
    manager_id = ann.register("again")
    path, key = f"/v1/managers/{manager_id}/claim", new_key()
    first = ann.post(path, {"limit": 3}, key=key).json()
    assert len(first["tasks"]) == 3
    assert ann.post(path, {"limit": 3}, key=key).json() == first
    assert len(ann.claim(manager_id)) == 1


def test_every_other_change_is_made_once_too(ann: Visit) -> None:
    def twice(path: str, body: dict[str, Any]) -> dict[str, Any]:
        key = new_key()
        first = ann.post(path, body, key=key)
        again = ann.post(path, body, key=key)
        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()
        return dict(first.json())

    registered = twice("/v1/managers", {"name": "m", "hostname": "h", "tags": ["once"]})
    path = f"/v1/managers/{registered['manager_id']}"
    ann.create(*(task(tag="once") for _ in range(3)))
    claimed = ann.claim(registered["manager_id"], 3)
    returned, relinquished, left = (
        {"record_id": each["record_id"], "attempt": each["attempt"]} for each in claimed
    )
    assert twice(f"{path}/results", {"results": [returned]})["accepted_idx"] == [0]
    waiting = twice(f"{path}/relinquish", {"attempts": [relinquished]})
    assert waiting["record_ids"] == [relinquished["record_id"]]
    assert twice(f"{path}/deactivate", {})["record_ids"] == [left["record_id"]]


def test_a_request_that_comes_many_times_at_once_has_one_effect(
    service: Service, ann: Visit
) -> None:
    body, key = {"records": [task(), task()], "find_existing": False}, new_key()
    visits = [service.visit_with(ann.secret) for _ in range(8)]
    before = ann.n_records()

    def send(visit: Visit) -> httpx2.Response:
        return visit.post("/v1/records", body, key=key)

    with ThreadPoolExecutor(len(visits)) as threads:
        answers = list(threads.map(send, visits))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert ann.n_records() == before + 2


def test_different_requests_that_come_at_once_under_one_key_have_one_effect(
    service: Service, ann: Visit
) -> None:
    key = new_key()
    visits = [service.visit_with(ann.secret) for _ in range(6)]
    before = ann.n_records()

    def send(visit: Visit) -> int:
        return visit.post("/v1/records", {"records": [task()]}, key=key).status_code

    with ThreadPoolExecutor(len(visits)) as threads:
        statuses = sorted(threads.map(send, visits))
    assert statuses == [200] + [422] * 5
    assert ann.n_records() == before + 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "a\tb", "é"])
def test_a_key_is_1_to_200_printable_characters(ann: Visit, key: str) -> None:
    answer = ann.http.post(
        "/v1/records",
        json={"records": [task()]},
        headers=latin_1({"Idempotency-Key": key}),
    )
    is_problem(answer, 422, "invalid_input")


def test_a_refused_request_leaves_its_key_free(ann: Visit) -> None:
    key = new_key()
    is_problem(ann.post("/v1/records", {"records": 5}, key=key), 422, "invalid_input")
    assert ann.post("/v1/records", {"records": [task()]}, key=key).status_code == 200
