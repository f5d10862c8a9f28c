"""What was done to records: listed, looked up, undone, and undone again."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import pytest

from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem
from .test_management import made, manage, service_of, statuses

NOBODYS: Final = "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70"


def undo(visit: Visit, operation_id: str, **more: Any) -> dict[str, Any]:
    answer = visit.post(f"/v1/operations/{operation_id}/undo", more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_operation_says_who_did_what_when_and_why(service: Service, ann: Visit) -> None:
    bob = service.visit(Role.user, "bob")
    ids = made(ann, "waiting", 3)
    operation_id = manage(bob, "cancel", ids, reason="wrong basis set")["operation_id"]
    found = ann.get(f"/v1/operations/{operation_id}").json()
    assert (
        found
        | {
            "id": operation_id,
            "action": "cancel",
            "actor": "user:bob",
            "reason": "wrong basis set",
            "n_changes": 3,
            "undoes": None,
            "undone_by": [],
            "job_id": None,
        }
        == found
    )
    assert found["started_at"]


def test_operations_are_listed_newest_first_in_pages_and_by_actor_and_action(
    service: Service, ann: Visit
) -> None:
    user = f"carl{uuid4().hex[:8]}"
    carl = service.visit(Role.user, user)
    ids = made(ann, "waiting", 2)
    expected = [
        manage(carl, action, ids)["operation_id"]
        for action in ("hold", "release", "cancel", "uncancel")
    ][::-1]
    found: list[str] = []
    cursor = None
    while True:
        query = {"actor": f"user:{user}", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = ann.get("/v1/operations", params=query).json()
        found += [each["id"] for each in page["operations"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == expected
    query = {"actor": f"user:{user}", "action": "hold"}
    page = ann.get("/v1/operations", params=query).json()
    assert [each["id"] for each in page["operations"]] == expected[-1:]


def test_an_undo_restores_relatives_too_and_can_itself_be_undone(ann: Visit) -> None:
    waiting, held = made(ann, "waiting") + made(ann, "held")
    parent = service_of(ann, [waiting, held])
    family = [parent, waiting, held]
    cancelled = manage(ann, "cancel", [held])["operation_id"]
    assert statuses(ann, family) == ["cancelled"] * 3
    undone = undo(ann, cancelled, reason="by mistake")
    assert (undone["n_undone"], undone["conflicts"], undone["job_id"]) == (3, [], None)
    assert statuses(ann, family) == ["waiting", "waiting", "held"]
    looked_up = ann.get(f"/v1/operations/{undone['operation_id']}").json()
    assert (looked_up["action"], looked_up["undoes"]) == ("undo", cancelled)
    assert looked_up["reason"] == "by mistake"
    found = ann.get(f"/v1/operations/{cancelled}").json()
    assert found["undone_by"] == [undone["operation_id"]]
    assert undo(ann, undone["operation_id"])["n_undone"] == 3
    assert statuses(ann, family) == ["cancelled"] * 3


@pytest.mark.parametrize(
    ("before", "action", "more"),
    [
        ("error", "reset", {}),
        ("error", "fail", {}),
        ("failed", "revive", {}),
        ("waiting", "modify", {"new_tag": "undone", "new_priority": "high"}),
        ("complete", "delete", {}),
        ("complete", "invalidate", {}),
    ],
)
def test_undo_gives_back_what_it_was(
    ann: Visit, before: str, action: str, more: dict[str, Any]
) -> None:
    ids = made(ann, before, 2)
    records = [ann.record(record_id, "result") for record_id in ids]
    operation_id = manage(ann, action, ids, **more)["operation_id"]
    assert undo(ann, operation_id)["n_undone"] == 2
    changes = {"version", "modified_at", "retries_used"}
    for record in records:
        now = ann.record(record["id"], "result")
        assert {name for name in now if now[name] != record[name]} <= changes


def test_what_has_changed_since_is_listed_and_left(ann: Visit) -> None:
    first, second, third = made(ann, "waiting", 3)
    operation_id = manage(ann, "cancel", [first, second, third])["operation_id"]
    manage(ann, "comment", [first], text="this is harmless")
    manage(ann, "uncancel", [second])
    manage(ann, "erase", [third])
    for dry_run in (True, False):
        undone = undo(ann, operation_id, dry_run=dry_run)
        assert undone["n_undone"] == 1
        assert [(each["record_id"], each["code"]) for each in undone["conflicts"]] == [
            (second, "changed_since"),
            (third, "not_found"),
        ]
        assert (undone["operation_id"] is None) == dry_run
        expected = "cancelled" if dry_run else "waiting"
        assert statuses(ann, [first, second]) == [expected, "waiting"]


def test_what_was_said_or_destroyed_cannot_be_taken_back(ann: Visit) -> None:
    (record_id,) = made(ann, "complete")
    operation_id = manage(ann, "comment", [record_id], text="so")["operation_id"]
    undone = undo(ann, operation_id)
    assert (undone["operation_id"], undone["n_undone"]) == (None, 0)
    assert [each["code"] for each in undone["conflicts"]] == ["not_undoable"]


def test_an_undo_is_repeated_with_its_key_and_happens_once(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    operation_id = manage(ann, "cancel", [record_id])["operation_id"]
    key = uuid4().hex
    path = f"/v1/operations/{operation_id}/undo"
    first, again = ann.post(path, key=key).json(), ann.post(path, key=key).json()
    assert again == first
    assert ann.record(record_id)["version"] == 3


def test_there_may_be_no_such_operation(service: Service, ann: Visit) -> None:
    is_problem(ann.get(f"/v1/operations/{NOBODYS}"), 404, "operation_not_found")
    is_problem(ann.post(f"/v1/operations/{NOBODYS}/undo"), 404, "operation_not_found")
    is_problem(ann.get("/v1/operations/12"), 422, "invalid_input")
    is_problem(ann.get("/v1/operations", params={"action": "paint"}), 422, "invalid_input")
    is_problem(ann.get("/v1/operations", params={"cursor": "abc"}), 422, "invalid_input")
    reader = service.visit(Role.reader, "eve")
    is_problem(reader.post(f"/v1/operations/{NOBODYS}/undo"), 403, "forbidden")
