"""Results by reference: what a specification refers to is put in place when the task is claimed."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import msgpack
import pytest

from recordledger.domain.admin.access import Role
from recordledger.domain.specs.fingerprint import digest_of

from ..service import Service, Visit, serving, task

OK = {"energy": -76.4, "steps": [{"gradient": [1, 2]}]}


@pytest.fixture(scope="module")
def cluster(service: Service) -> Visit:
    return service.visit(Role.compute, "cluster")


def as_stored(result: Any) -> bytes:
    return json.dumps(result, separators=(",", ":"), sort_keys=True).encode()


def computed(ann: Visit, cluster: Visit, result: Any) -> int:
    """Return a record that has this result."""
    tag = uuid4().hex
    [id_] = ann.create(task(tag=tag))
    manager_id = cluster.register(tag)
    [claimed] = cluster.claim(manager_id)
    body = {"record_id": id_, "attempt": claimed["attempt"], "result": as_stored(result)}
    answer = cluster.pack(f"/v1/managers/{manager_id}/results", {"results": [body]})
    assert msgpack.unpackb(answer.content)["accepted_idx"] == [0]
    return id_


def reference(result: Any, *path: str | int) -> dict[str, Any]:
    data = as_stored(result)
    fields = {"digest": digest_of(data).hex(), "size_bytes": len(data), "path": list(path)}
    return {"$payload": fields}


def of(*values: Any) -> dict[str, Any]:
    return {"function": "demo:square", "kwargs": {"of": list(values), "nonce": uuid4().hex}}


def test_what_is_referred_to_is_put_in_place(ann: Visit, cluster: Visit) -> None:
    computed(ann, cluster, OK)
    tag = uuid4().hex
    parts = [reference(OK), {"a": reference(OK, "steps", 0, "gradient", 1)}, {"$payload": "mine"}]
    [id_] = ann.create({**of(*parts), "tag": tag})
    manager_id = cluster.register(tag)
    [claimed] = cluster.claim(manager_id)
    assert claimed["kwargs"]["of"] == [OK, {"a": 2}, {"$payload": "mine"}]
    packed = cluster.pack(
        f"/v1/managers/{manager_id}/relinquish", {"attempts": [{"record_id": id_, "attempt": 1}]}
    )
    assert packed.status_code == 200, packed.text
    again = cluster.pack(f"/v1/managers/{manager_id}/claim", {"limit": 1})
    assert msgpack.unpackb(again.content)["tasks"][0]["kwargs"] == claimed["kwargs"]
    # What is stored says what was referred to, and not what that was.
    assert ann.record(id_, "kwargs")["kwargs"]["of"] == parts


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (reference("never computed"), "was destroyed"),
        (reference(OK, "steps", 7), "has nothing at ['steps'][7]: it is a list there"),
        (reference(OK, "energy", "x"), "has nothing at ['energy']['x']: it is a float there"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_of_its_task_alone(
    ann: Visit, cluster: Visit, broken: dict[str, Any], message: str
) -> None:
    computed(ann, cluster, OK)
    tag = uuid4().hex
    lost, fine = ann.create({**of(broken), "tag": tag}, {**of(1), "tag": tag})
    manager_id = cluster.register(tag)
    assert [each["record_id"] for each in cluster.claim(manager_id)] == [fine]
    record = ann.record(lost)
    assert (record["status"], record["error_type"]) == ("error", "ReferenceBroken")
    assert message in record["error_message"]


def test_what_is_referred_to_outlives_the_record_whose_result_it_was(
    ann: Visit, cluster: Visit
) -> None:
    result = {"own": uuid4().hex}
    first = computed(ann, cluster, result)
    tag = uuid4().hex
    [second] = ann.create({**of(reference(result, "own")), "tag": tag})
    manager_id = cluster.register(tag)
    ann.post("/v1/records/cancel", {"ids": [second]})
    answer = ann.post("/v1/records/resubmit", {"ids": [second]}).json()
    [third] = answer["new_ids"]
    for gone in (first, second):
        erased = ann.post("/v1/records/erase", {"ids": [gone]})
        assert erased.json()["updated_idx"] == [0], erased.text
    [claimed] = cluster.claim(manager_id)
    assert (claimed["record_id"], claimed["kwargs"]["of"]) == (third, [result["own"]])


def test_a_claim_whose_references_are_too_large_gives_some_tasks_back(database_url: str) -> None:
    result = "x" * 3_000
    with serving(database_url, answer_bytes_max=8_000, payload_bytes_max=8_000) as service:
        ann, cluster = service.visit(), service.visit(Role.compute, "cluster")
        computed(ann, cluster, result)
        ids = ann.create(*({**of(reference(result)), "tag": "large"} for _ in range(5)))
        manager_id = cluster.register("large")
        given = [[each["record_id"] for each in cluster.claim(manager_id)] for _ in range(3)]
    assert given == [ids[:2], ids[2:4], ids[4:]]
