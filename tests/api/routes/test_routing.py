"""Why a record is where it is, and what waits, over HTTP: each reason as it comes about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from recordledger.api.schemas.events import ManagerHistoryAnswer
from recordledger.api.schemas.routing import QueueAnswer, WhyAnswer
from recordledger.domain.admin.access import Role
from recordledger.domain.routing.matching import Cause
from tests.postgres import new_database

from ..service import Service, Visit, is_problem, serving, task
from .test_management import made, manage, own_tag, service_of

UNKNOWN: Final = 9_000_000_000
PSI4: Final = {"psi4": "1.9.1"}


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server whose circuit breaker opens after two failures."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, breaker_failures=2, breaker_pause_s=1_000) as made_,
    ):
        yield made_


@pytest.fixture(autouse=True)
def emptied(ann: Visit) -> None:
    """Leave no manager alive, and nothing to be claimed."""
    found = ann.get("/v1/managers", params={"state": ["active", "draining"], "limit": 1000})
    for manager in found.json()["managers"]:
        ann.post(f"/v1/managers/{manager['id']}/deactivate")
    query = {"status": ["waiting", "running", "held", "error"]}
    assert ann.post("/v1/records/cancel", {"query": query}).status_code == 200


def why(visit: Visit, record_id: int) -> dict[str, Any]:
    """Return why a record is where it is."""
    answer = visit.get(f"/v1/records/{record_id}/why")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert WhyAnswer.model_validate(found).model_dump(mode="json") == found
    assert found["code"] in list(Cause)
    return found


def queue(visit: Visit, **params: Any) -> dict[str, Any]:
    """Return what waits."""
    answer = visit.get("/v1/queue", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert QueueAnswer.model_validate(found).model_dump(mode="json") == found
    return found


def fails(visit: Visit, manager_id: int, error_type: str = "OSError") -> None:
    """Claim one task, and return it as an error."""
    (claimed,) = visit.claim(manager_id, 1)
    result = {key: claimed[key] for key in ("record_id", "attempt")}
    error = {"error_type": error_type, "error_message": "it broke"}
    visit.post(f"/v1/managers/{manager_id}/results", {"results": [{**result, **error}]})


# Waiting


def test_nobody_can_take_a_task_while_no_manager_is_alive(ann: Visit) -> None:
    (record_id,) = ann.create(task(tag="gpu"))
    found = why(ann, record_id)
    assert (found["code"], found["status"]) == ("no_manager", "waiting")
    assert found["remedy"] == "recordledger manager --tag gpu"


def test_the_tags_are_told_that_managers_claim_instead(ann: Visit) -> None:
    (record_id,) = ann.create(task(tag=own_tag(), required_programs=["psi4"]))
    ann.register("cpu", "big")
    found = why(ann, record_id)
    assert (found["code"], found["claimed_tags"]) == ("tag_not_claimed", ["big", "cpu"])
    ended = ann.register("*", programs=PSI4)
    ann.post(f"/v1/managers/{ended}/deactivate")
    assert why(ann, record_id)["code"] == "tag_not_claimed"


def test_a_record_of_the_wildcard_tag_waits_for_a_manager_that_lists_it(ann: Visit) -> None:
    (record_id,) = ann.create(task(tag="*"))
    ann.register("cpu")
    assert why(ann, record_id)["code"] == "no_wildcard_manager"
    ann.register("cpu", "*")
    assert why(ann, record_id)["code"] == "in_queue"


def test_missing_programs_are_told_with_the_nearest_manager(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag, required_programs=["psi4>=1.9"]))
    old = ann.register(tag, programs={"psi4": "1.8"}, name="old")
    found = why(ann, record_id)
    assert found["code"] == "programs_missing"
    assert "lacks psi4>=1.9 (it has 1.8)" in found["text"]
    m7 = ann.register("cpu", programs=PSI4, name="m7")
    found = why(ann, record_id)
    assert found["text"] == (
        f"No manager on tag {tag} offers psi4>=1.9; manager {m7} (m7) on tag cpu does."
    )
    assert found["remedy"] == f"recordledger modify {record_id} --new-tag cpu"
    assert [each["manager_id"] for each in found["nearest"]] == [m7, old]
    assert found["nearest"][1]["lacks"] == [
        {"requirement": "psi4>=1.9", "is_absent": False, "version": "1.8"}
    ]
    # Doing what it says helps.
    manage(ann, "modify", [record_id], new_tag="cpu")
    assert why(ann, record_id)["code"] == "in_queue"


def test_a_suspended_program_is_told_with_its_error_and_until_when(ann: Visit) -> None:
    tag = own_tag()
    sick = ann.register(tag, programs=PSI4, name="sick")
    *_, record_id = ann.create(*(task(tag=tag, required_programs=["psi4"]) for _ in range(3)))
    for _ in range(2):
        fails(ann, sick)
    found = why(ann, record_id)
    assert found["code"] == "programs_suspended"
    assert "it gets no tasks of psi4 until" in found["text"]
    assert "after 2 failures in a row, the last by OSError" in found["text"]
    assert found["nearest"][0]["suspended_until"] is not None
    # The claim agrees.
    assert ann.claim(sick) == []


def test_a_draining_manager_is_told(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    leaving = ann.register(tag)
    assert why(ann, record_id)["code"] == "in_queue"
    ann.post(f"/v1/managers/{leaving}/drain")
    assert why(ann, record_id)["code"] == "managers_draining"
    assert ann.claim(leaving) == []


def test_the_place_in_the_queue_is_told_with_who_could_take_it(ann: Visit) -> None:
    tag = own_tag()
    ids = ann.create(*(task(tag=tag) for _ in range(5)), task(tag=tag, priority="high"))
    other = ann.create(task(tag=tag, required_programs=["psi4"]))
    able = ann.register(tag)
    assert [why(ann, each)["n_before"] for each in ids] == [1, 2, 3, 4, 5, 0]
    found = why(ann, ids[4])
    assert (found["code"], found["n_waiting"], found["n_able"]) == ("in_queue", 6, 1)
    assert found["nearest"][0]["manager_id"] == able
    assert found["nearest"][0]["heartbeat_at"] is not None
    assert why(ann, other[0])["n_before"] == 0
    # The claim agrees.
    assert [each["record_id"] for each in ann.claim(able, 6)] == [ids[5], *ids[:5]]


def test_a_pause_before_a_retry_is_told_with_the_error(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag, retries=2, retry_delay_s=3600))
    fails(ann, ann.register(tag))
    found = why(ann, record_id)
    assert found["code"] == "retry_pause"
    assert "before retry 1 of 2, after OSError: it broke in attempt 1." in found["text"]
    assert found["retry_at"] == ann.record(record_id)["not_before"]


# Running


def test_who_runs_it_is_told_until_the_lease_is_over(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    holder = ann.register(tag, name="m9")
    ann.claim(holder)
    found = why(ann, record_id)
    assert (found["code"], found["manager_id"], found["attempt"]) == ("running", holder, 1)
    assert f"Manager {holder} (m9) has had it since" in found["text"]
    assert found["lease_expires_at"] > found["heartbeat_at"]


def test_a_lease_that_is_over_is_told(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    ann.claim(ann.register(tag, lease_s=1e-6))
    assert why(ann, record_id)["code"] == "lease_over"


def test_a_service_tells_what_it_waits_for(ann: Visit) -> None:
    children = ann.create(task(tag=own_tag()), task(tag=own_tag()))
    manage(ann, "hold", children[:1])
    (waiting,) = ann.create(task(kind="service", tag=own_tag()))
    assert why(ann, waiting)["code"] == "service_not_started"
    found = why(ann, service_of(ann, children))
    assert found["code"] == "service_running"
    assert found["children"] == {"waiting": 1, "held": 1}
    assert "waits for its children. Children: 1 waiting, 1 held." in found["text"]


# Ended


def test_a_complete_record_tells_who_computed_it(ann: Visit) -> None:
    found = why(ann, made(ann, "complete")[0])
    assert (found["code"], found["attempt"]) == ("completed", 1)


def test_an_adopted_result_tells_who_adopted_it(ann: Visit) -> None:
    (record_id,) = made(ann, "running")
    manager_id = ann.record(record_id)["manager_id"]
    ann.post(f"/v1/managers/{manager_id}/deactivate")
    late = {"record_id": record_id, "attempt": 1, "result": 1}
    ann.post(f"/v1/managers/{manager_id}/results", {"results": [late]})
    manage(ann, "adopt", [record_id], reason="it is right")
    found = why(ann, record_id)
    assert found["code"] == "result_adopted"
    assert "adopted by user:ann" in found["text"]


@pytest.mark.parametrize(
    ("more", "n_errors", "code"),
    [
        ({}, 1, "no_retries"),
        ({"retries": 2, "retry_on": ["*Timeout*"]}, 1, "error_not_retried"),
        ({"retries": 1}, 2, "retries_used_up"),
    ],
)
def test_an_error_tells_why_no_retry_followed(
    ann: Visit, more: dict[str, Any], n_errors: int, code: str
) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag, **more))
    manager_id = ann.register(tag)
    for _ in range(n_errors):
        fails(ann, manager_id, "ValueError")
    found = why(ann, record_id)
    assert (found["code"], found["error_message"]) == (code, "it broke")
    assert found["text"].startswith("ValueError: it broke ended attempt")
    assert found["remedy"] == f"recordledger reset {record_id}"


def test_an_error_that_was_restored_is_told_as_it_was(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag, retries=1))
    manager_id = ann.register(tag)
    for _ in range(2):
        fails(ann, manager_id)
    before = why(ann, record_id)
    operation_id = manage(ann, "reset", [record_id])["operation_id"]
    assert why(ann, record_id)["code"] == "programs_suspended"
    ann.post(f"/v1/operations/{operation_id}/undo")
    assert why(ann, record_id) == before


def test_a_failed_service_is_not_retried(ann: Visit) -> None:
    (record_id,) = ann.create(task(kind="service", tag=own_tag(), retries=3))
    ann.post(f"/v1/services/{record_id}/start")
    error = {"error_type": "ValueError", "error_message": "it broke"}
    assert ann.post(f"/v1/services/{record_id}/finish", error).status_code == 200
    assert why(ann, record_id)["code"] == "service_error"


@pytest.mark.parametrize(
    ("before", "action", "code", "opposite"),
    [
        ("waiting", "hold", "held", "release"),
        ("waiting", "cancel", "cancelled", "uncancel"),
        ("complete", "delete", "deleted", "undelete"),
        ("error", "fail", "failed", "revive"),
        ("complete", "invalidate", "invalidated", "uninvalidate"),
    ],
)
def test_what_somebody_did_is_told_with_what_takes_it_back(
    ann: Visit, before: str, action: str, code: str, opposite: str
) -> None:
    (record_id,) = made(ann, before)
    operation_id = manage(ann, action, [record_id], reason="wrong basis set")["operation_id"]
    found = why(ann, record_id)
    assert found["code"] == code
    assert (found["actor"], found["reason"]) == ("user:ann", "wrong basis set")
    assert (found["operation_id"], found["caused_by"]) == (operation_id, None)
    assert found["remedy"] == f"recordledger {opposite} {record_id}"
    manage(ann, opposite, [record_id])
    assert why(ann, record_id)["code"] != code


def test_a_relative_that_caused_it_is_told_with_the_operation_to_undo(ann: Visit) -> None:
    (child,) = ann.create(task(tag=own_tag()))
    parent = service_of(ann, [child])
    operation_id = manage(ann, "cancel", [parent])["operation_id"]
    found = why(ann, child)
    assert (found["code"], found["caused_by"]) == ("cancelled", parent)
    assert f"because of record {parent}" in found["text"]
    assert found["remedy"] == f"recordledger undo {operation_id}"


def test_an_erased_record_is_known_by_its_bare_events(ann: Visit) -> None:
    (record_id,) = made(ann, "error")
    manage(ann, "erase", [record_id], reason="private")
    found = why(ann, record_id)
    assert (found["code"], found["status"], found["actor"]) == ("erased", None, "user:ann")
    assert found["error_message"] is None


def test_what_never_was_is_not_found(ann: Visit) -> None:
    is_problem(ann.get(f"/v1/records/{UNKNOWN}/why"), 404, "not_found")


def test_a_reader_may_ask(service: Service, ann: Visit) -> None:
    (record_id,) = ann.create(task())
    reader = service.visit(Role.reader)
    assert why(reader, record_id)["code"] == "no_manager"
    assert queue(reader)["n_lanes"] == 1


# The queue


def test_an_empty_queue_is_empty(ann: Visit) -> None:
    assert queue(ann) == {
        "lanes": [],
        "n_lanes": 0,
        "n_blocked": 0,
        "n_waiting": 0,
        "n_paused": 0,
        "n_managers": 0,
    }


def test_the_queue_tells_of_each_lane_how_much_waits_and_who_could_take_it(ann: Visit) -> None:
    tag = own_tag()
    psi4 = {"tag": tag, "required_programs": ["psi4>=1.9"]}
    ids = ann.create(task(**psi4), task(**psi4), task(**psi4, priority="high"), task(**psi4))
    able = ann.register(tag, programs=PSI4)
    ann.register(tag)
    ann.register("cpu", programs=PSI4)
    (running,) = ann.claim(able, 1)
    (lane,) = queue(ann)["lanes"]
    assert running["record_id"] == ids[2]
    assert (lane["tag"], lane["required_programs"]) == (tag, ["psi4>=1.9"])
    assert (lane["n_waiting"], lane["n_running"], lane["n_paused"]) == (3, 1, 0)
    assert (lane["n_managers"], lane["manager_ids"], lane["blocked"]) == (1, [able], None)
    assert lane["oldest_id"] == ids[0]
    assert lane["oldest_created_at"] == ann.record(ids[0])["created_at"]
    manage(ann, "modify", ids[3:], new_priority="low")
    oldest = queue(ann)["lanes"][0]["oldest"]
    assert {name: each["record_id"] for name, each in oldest.items()} == {
        "normal": ids[0],
        "low": ids[3],
    }


def test_what_pauses_before_a_retry_is_counted(ann: Visit) -> None:
    tag = own_tag()
    pausing = {"tag": tag, "retries": 1, "retry_delay_s": 3600}
    ann.create(task(**pausing), task(**pausing))
    fails(ann, ann.register(tag), "ValueError")
    found = queue(ann)
    (lane,) = found["lanes"]
    assert (lane["n_waiting"], lane["n_paused"], found["n_paused"]) == (2, 1, 1)


def test_what_nobody_can_take_comes_first_and_then_the_deepest(ann: Visit) -> None:
    tags = [own_tag() for _ in range(4)]
    for n_tasks, tag in enumerate(tags, start=1):
        ann.create(*(task(tag=tag) for _ in range(n_tasks)))
    able = ann.register(tags[1], tags[3])
    found = queue(ann)
    assert [(each["tag"], each["blocked"]) for each in found["lanes"]] == [
        (tags[2], "tag_not_claimed"),
        (tags[0], "tag_not_claimed"),
        (tags[3], None),
        (tags[1], None),
    ]
    totals = {"n_lanes": 4, "n_blocked": 2, "n_waiting": 10, "n_paused": 0, "n_managers": 1}
    assert {name: found[name] for name in totals} == totals
    limited = queue(ann, limit=1)
    assert [each["tag"] for each in limited["lanes"]] == [tags[2]]
    assert {name: limited[name] for name in totals} == totals
    some = queue(ann, tag=[tags[0].upper(), tags[3]])
    assert [each["tag"] for each in some["lanes"]] == [tags[0], tags[3]]
    assert (some["n_lanes"], some["n_waiting"]) == (2, 5)
    # What is blocked by one manager is open by another.
    ann.post(f"/v1/managers/{able}/drain")
    assert {each["blocked"] for each in queue(ann, tag=tags[3])["lanes"]} == {"managers_draining"}
    is_problem(ann.get("/v1/queue", params={"tag": "no tag"}), 422, "invalid_input")


def test_services_are_not_in_the_queue(ann: Visit) -> None:
    ann.create(task(kind="service", tag=own_tag()))
    assert queue(ann)["lanes"] == []


# Managers


def test_a_manager_has_a_history(ann: Visit) -> None:
    manager_id = ann.register("gpu", programs=PSI4)
    ann.post(f"/v1/managers/{manager_id}/drain", {"reason": "maintenance"})
    ann.post(f"/v1/managers/{manager_id}/deactivate")
    answer = ann.get(f"/v1/managers/{manager_id}/events").json()
    assert ManagerHistoryAnswer.model_validate(answer).model_dump(mode="json") == answer
    kinds = [(each["version"], each["kind"]) for each in answer["events"]]
    assert kinds == [
        (1, "manager_registered"),
        (2, "manager_draining"),
        (3, "manager_deactivated"),
    ]
    assert answer["events"][0]["data"]["programs"] == PSI4
    assert answer["events"][1]["reason"] == "maintenance"
    is_problem(ann.get(f"/v1/managers/{UNKNOWN}/events"), 404, "manager_not_found")


def test_managers_are_listed_by_several_states(ann: Visit) -> None:
    ids = [ann.register("states") for _ in range(3)]
    ann.post(f"/v1/managers/{ids[1]}/drain")
    ann.post(f"/v1/managers/{ids[2]}/deactivate")
    alive = ann.get("/v1/managers", params={"state": ["active", "draining"]}).json()["managers"]
    assert [each["id"] for each in alive] == ids[:2]
    assert all(each["lease_expires_at"] > each["heartbeat_at"] for each in alive)
    is_problem(ann.get("/v1/managers", params={"state": "asleep"}), 422, "invalid_input")
