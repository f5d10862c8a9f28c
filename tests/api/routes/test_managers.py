"""What managers do over HTTP: register, claim, return, give signs of life, and end."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from recordledger.api.schemas.claims import ClaimAnswer
from recordledger.api.schemas.managers import ManagerOut
from recordledger.api.schemas.returns import ReturnAnswer
from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem, task


@pytest.fixture(scope="module")
def cluster(service: Service) -> Visit:
    """A visitor who may compute."""
    return service.visit(Role.compute, "cluster")


def results(visit: Visit, manager_id: int, *entries: Any) -> dict[str, Any]:
    """Return results as msgpack; what became of them."""
    answer = visit.pack(f"/v1/managers/{manager_id}/results", {"results": list(entries)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = msgpack.unpackb(answer.content)
    ReturnAnswer.model_validate(found)
    return found


def running(ann: Visit, cluster: Visit, tag: str, n: int = 1) -> tuple[int, list[dict[str, Any]]]:
    """Return a manager, and attempts that it has."""
    ann.create(*(task(tag=tag) for _ in range(n)))
    manager_id = cluster.register(tag)
    claimed = cluster.claim(manager_id, n)
    assert len(claimed) == n
    attempts = [{"record_id": each["record_id"], "attempt": each["attempt"]} for each in claimed]
    return manager_id, attempts


def test_a_manager_has_the_servers_rhythm_unless_it_brings_its_own(cluster: Visit) -> None:
    body = {"name": "m", "hostname": "h", "tags": ["a"]}
    assert cluster.post("/v1/managers", body).json()["lease_s"] == 120
    own = cluster.post("/v1/managers", {**body, "lease_s": 8}).json()
    assert own["lease_s"] == 8
    assert own["heartbeat_s"] == 2
    late = cluster.post("/v1/managers", {**body, "lease_s": 8, "heartbeat_s": 8})
    assert "heartbeat_s" in is_problem(late, 422, "invalid_input")


def test_a_manager_can_be_looked_at(ann: Visit, cluster: Visit) -> None:
    manager_id = cluster.register("B", "a", "b", programs={"Psi4": "1.9", "xtb": None})
    manager = ann.get(f"/v1/managers/{manager_id}").json()
    assert ManagerOut.model_validate(manager).model_dump(mode="json") == manager
    assert manager["tags"] == ["b", "a"]
    assert manager["programs"] == {"psi4": "1.9", "xtb": None}
    assert manager["owner"] == "user:cluster"
    assert manager["heartbeat_at"] is not None
    is_problem(ann.get(f"/v1/managers/{2**62}"), 404, "manager_not_found")


def test_managers_come_in_pages(ann: Visit, cluster: Visit) -> None:
    ids = [cluster.register("pages") for _ in range(4)]
    cluster.post(f"/v1/managers/{ids[1]}/deactivate")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2, "state": "active"} | ({} if cursor is None else {"cursor": cursor})
        page = ann.get("/v1/managers", params=params).json()
        seen += [manager["id"] for manager in page["managers"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert set(ids) - set(seen) == {ids[1]}


@pytest.mark.parametrize("packed", [False, True])
def test_a_claim_gives_tasks_with_their_arguments(
    ann: Visit, cluster: Visit, *, packed: bool
) -> None:
    tag = f"claim{packed}"
    kwargs = {"x": 1.5, "name": 'a "quoted" é', "list": [1, {"deep": None}]}
    (record_id,) = ann.create(task(tag=tag, kwargs={**kwargs, "packed": packed}))
    manager_id = cluster.register(tag)
    path = f"/v1/managers/{manager_id}/claim"
    if packed:
        answer = msgpack.unpackb(cluster.pack(path, {"limit": 5}).content)
    else:
        answer = cluster.post(path, {"limit": 5}).json()
    (claimed,) = ClaimAnswer.model_validate(answer).tasks
    assert claimed.model_dump() == {
        "record_id": record_id,
        "attempt": 1,
        "function": "demo:square",
        "kwargs": {**kwargs, "packed": packed},
    }
    assert cluster.claim(manager_id) == []


def test_a_big_integer_does_not_spoil_a_claim_in_msgpack(ann: Visit, cluster: Visit) -> None:
    ann.create(task(tag="bigint", kwargs={"n": 2**70}))
    manager_id = cluster.register("bigint")
    answer = cluster.pack(f"/v1/managers/{manager_id}/claim", {})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["tasks"][0]["kwargs"] == {"n": 2**70}


def test_a_result_makes_the_record_complete(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "complete")
    encoded = json.dumps({"energy": -1.5}).encode()
    entry = {
        **attempt,
        "result": encoded,
        "stdout": "converged\n",
        "provenance": {"host": "node1"},
        "compute_s": 0.25,
    }
    answer = results(cluster, manager_id, entry)
    assert answer["accepted_idx"] == [0]
    record = ann.record(attempt["record_id"], "result", "stdout", "stderr", "provenance")
    assert record["status"] == "complete"
    assert record["result"] == {"energy": -1.5}
    assert record["stdout"] == "converged\n"
    assert record["stderr"] is None
    assert record["provenance"] == {"host": "node1"}
    assert record["compute_s"] == 0.25
    again = results(cluster, manager_id, entry)
    assert again["duplicate_idx"] == [0]


def test_a_result_may_be_null(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "null")
    assert results(cluster, manager_id, attempt)["accepted_idx"] == [0]
    record = ann.record(attempt["record_id"], "result")
    assert record["status"] == "complete"
    assert record["result"] is None


def test_an_error_keeps_its_message_and_its_traceback(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "error")
    entry = {
        **attempt,
        "error_type": "ConvergenceError",
        "error_message": "no convergence " * 1000,
        "traceback": "Traceback ...",
    }
    assert results(cluster, manager_id, entry)["accepted_idx"] == [0]
    record = ann.record(attempt["record_id"], "traceback")
    assert record["status"] == "error"
    assert record["error_type"] == "ConvergenceError"
    assert record["error_message"].startswith("no convergence ")
    assert len(record["error_message"]) == 1000
    assert record["traceback"] == "Traceback ..."


def test_text_that_cannot_be_stored_is_mended_and_not_refused(ann: Visit, cluster: Visit) -> None:
    manager_id, attempts = running(ann, cluster, "mend", 2)
    broken = {
        "error_type": "Bad\x00Type" + "!" * 500,
        "error_message": "half a pair \ud800",
        "stdout": "nul \x00 and half \udfff",
        "stderr": b"latin \xe9",
    }
    answer = results(cluster, manager_id, {**attempts[0], **broken})
    assert answer["accepted_idx"] == [0]
    in_json = {**attempts[1], **broken, "stderr": ""}
    returned = cluster.post(f"/v1/managers/{manager_id}/results", {"results": [in_json]})
    assert returned.json()["accepted_idx"] == [0]
    for attempt in attempts:
        record = ann.record(attempt["record_id"], "stdout", "stderr")
        assert record["error_type"].startswith("Bad\\x00Type!!!")
        assert len(record["error_type"]) <= 200
        assert record["error_message"] == "half a pair \\ud800"
        assert record["stdout"] == "nul \x00 and half \\udfff"
    assert ann.record(attempts[0]["record_id"], "stderr")["stderr"] == "latin \\xe9"


def test_output_that_is_too_long_loses_its_middle(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "long")
    text = "begin " + "é" * 300_000 + " end"
    assert results(cluster, manager_id, {**attempt, "stdout": text})["accepted_idx"] == [0]
    stdout = ann.record(attempt["record_id"], "stdout")["stdout"]
    assert stdout.startswith("begin é")
    assert stdout.endswith("é end")
    assert "bytes left out" in stdout
    assert len(stdout.encode()) <= 256 * 1024


@pytest.mark.parametrize(
    ("result", "code", "says"),
    [
        (b'{"a": 1', "invalid_input", "not JSON"),
        (b"NaN", "invalid_input", "not JSON"),
        (b"[1e999]", "invalid_input", "inf"),
        (b'["\\u0000"]', "invalid_input", "NUL"),
        (b'["\\ud800"]', "invalid_input", "surrogate"),
        (b"[" * 150 + b"]" * 150, "invalid_input", "nested"),
        (b"[" * 100_000, "invalid_input", "not JSON"),
        (b"", "invalid_input", "not JSON"),
        (b"\xff", "invalid_input", "not JSON"),
        (float("nan"), "invalid_input", "nan"),
        ({"a": b"bytes"}, "invalid_input", "bytes"),
        ({"a": "\0"}, "invalid_input", "NUL"),
        ({"a": "\ud800"}, "invalid_input", "surrogate"),
        (b'"' + b"x" * 300_000 + b'"', "too_large", "payload_bytes_max"),
        ("x" * 300_000, "too_large", "payload_bytes_max"),
    ],
)
def test_a_result_that_cannot_be_kept_is_refused_alone(
    ann: Visit, cluster: Visit, result: Any, code: str, says: str
) -> None:
    manager_id, attempts = running(ann, cluster, "unkept", 2)
    answer = results(
        cluster, manager_id, {**attempts[0], "result": result}, {**attempts[1], "result": b"1"}
    )
    (error,) = answer["errors"]
    assert (error["idx"], error["code"]) == (0, code)
    assert says in error["message"]
    assert answer["accepted_idx"] == [1]
    # Nothing is lost: the attempt still runs, and can be returned in another form.
    assert results(cluster, manager_id, {**attempts[0], "result": b"2"})["accepted_idx"] == [0]


def test_strange_but_valid_json_is_kept_as_it_came(ann: Visit, cluster: Visit) -> None:
    manager_id, attempts = running(ann, cluster, "strange", 3)
    values = [b'["Infinity", "a \\\\u0000 b"]', b"[" + b"[]," * 200 + b"1e308]", b" 5 "]
    entries = [
        {**attempt, "result": value} for attempt, value in zip(attempts, values, strict=True)
    ]
    assert results(cluster, manager_id, *entries)["accepted_idx"] == [0, 1, 2]
    for attempt, value in zip(attempts, values, strict=True):
        assert ann.record(attempt["record_id"], "result")["result"] == json.loads(value)


def test_a_wrong_result_is_refused_by_its_index_and_spoils_no_other(
    ann: Visit, cluster: Visit
) -> None:
    manager_id, (attempt,) = running(ann, cluster, "entries")
    answer = results(
        cluster,
        manager_id,
        "not even a map",
        {"record_id": 2**63, "attempt": 1},
        {"record_id": -1, "attempt": 1},
        {**attempt, "attempt": 0},
        {**attempt, "colour": "red"},
        {**attempt, "compute_s": float("nan")},
        {**attempt, "provenance": {"x": float("inf")}},
        attempt,
    )
    assert [error["idx"] for error in answer["errors"]] == list(range(7))
    assert answer["accepted_idx"] == [7]


def test_a_result_of_somebody_else_is_refused(ann: Visit, cluster: Visit) -> None:
    _, (attempt,) = running(ann, cluster, "others")
    other = cluster.register("nothing")
    answer = results(cluster, other, attempt, {"record_id": 2**62, "attempt": 1})
    codes = [(error["idx"], error["code"]) for error in answer["errors"]]
    assert codes == [(0, "not_your_attempt"), (1, "not_found")]


def test_a_late_result_is_kept_aside(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "late")
    body = {"attempts": [attempt], "reason": "walltime"}
    answer = cluster.post(f"/v1/managers/{manager_id}/relinquish", body)
    assert answer.json()["record_ids"] == [attempt["record_id"]]
    assert results(cluster, manager_id, attempt)["late_idx"] == [0]
    assert ann.record(attempt["record_id"])["status"] == "waiting"


def test_a_sign_of_life_tells_what_is_not_the_managers_any_more(ann: Visit, cluster: Visit) -> None:
    manager_id, attempts = running(ann, cluster, "beat", 2)
    cluster.post(f"/v1/managers/{manager_id}/relinquish", {"attempts": attempts[:1]})
    answer = cluster.post(f"/v1/managers/{manager_id}/heartbeat", {"held": attempts}).json()
    assert answer["stale"] == attempts[:1]
    packed = cluster.pack(f"/v1/managers/{manager_id}/heartbeat", {"held": []})
    assert msgpack.unpackb(packed.content, timestamp=3)["lease_expires_at"].tzinfo is not None


def test_a_manager_that_has_ended_may_return_but_not_claim(ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "ended")
    answer = cluster.post(f"/v1/managers/{manager_id}/deactivate", {"reason": "done"})
    assert answer.json()["record_ids"] == [attempt["record_id"]]
    for action in ("claim", "heartbeat"):
        answer = cluster.post(f"/v1/managers/{manager_id}/{action}")
        assert "register it again" in is_problem(answer, 409, "manager_not_active")
    assert results(cluster, manager_id, attempt)["late_idx"] == [0]


def test_a_manager_is_its_owners_only(service: Service, ann: Visit, cluster: Visit) -> None:
    manager_id, (attempt,) = running(ann, cluster, "owner")
    thief = service.visit(Role.compute, "thief")
    path = f"/v1/managers/{manager_id}"
    bodies: dict[str, Any] = {
        "claim": {},
        "heartbeat": {},
        "results": {"results": [attempt]},
        "relinquish": {"attempts": [attempt]},
        "deactivate": {},
    }
    for action, body in bodies.items():
        is_problem(thief.post(f"{path}/{action}", body), 403, "not_your_manager")
        is_problem(thief.post(f"/v1/managers/{2**62}/{action}", body), 404, "manager_not_found")
    assert ann.record(attempt["record_id"])["status"] == "running"
    # Administrators can end anybody's manager.
    assert ann.post(f"{path}/deactivate").status_code == 200


def test_more_results_or_tasks_than_the_limit_are_refused_as_a_whole(cluster: Visit) -> None:
    manager_id = cluster.register("limits")
    path = f"/v1/managers/{manager_id}"
    answer = cluster.post(f"{path}/results", {"results": [{}] * 101})
    assert "results_per_request" in is_problem(answer, 413, "too_large")
    is_problem(cluster.post(f"{path}/claim", {"limit": 1001}), 422, "invalid_input")
    is_problem(cluster.post(f"{path}/claim", {"limit": 0}), 422, "invalid_input")
