"""Managing records over HTTP: every operation, in bulk, by ids and by query, over families."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

import pytest

from recordledger.api.schemas.management import ManageAnswer
from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem, task

UNKNOWN: Final = 9_000_000_000


def manage(visit: Visit, action: str, ids: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """Do something to records; return the answer, which must be one."""
    body = more if ids is None else {"ids": ids, **more}
    answer = visit.post(f"/v1/records/{action}", body)
    assert answer.status_code == 200, answer.text
    ManageAnswer.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def statuses(visit: Visit, ids: list[int]) -> list[str]:
    records = visit.post("/v1/records/get", {"ids": ids, "missing_ok": True}).json()["records"]
    return [record["status"] if record else "gone" for record in records]


def own_tag() -> str:
    return f"own{uuid4().hex[:12]}"


def made(visit: Visit, status: str, n: int = 1) -> list[int]:
    """Create records and bring them to a status; return their ids."""
    tag = own_tag()
    ids = visit.create(*(task(tag=tag) for _ in range(n)))
    if status in ("running", "complete", "error", "failed", "invalid"):
        manager_id = visit.register(tag)
        tasks = visit.claim(manager_id, n)
        if status != "running":
            more = (
                {"result": 1}
                if status in ("complete", "invalid")
                else {"error_type": "ValueError", "error_message": "it broke"}
            )
            results = [
                {"record_id": each["record_id"], "attempt": each["attempt"], **more}
                for each in tasks
            ]
            visit.post(f"/v1/managers/{manager_id}/results", {"results": results})
    actions = {
        "cancelled": "cancel",
        "deleted": "delete",
        "held": "hold",
        "failed": "fail",
        "invalid": "invalidate",
    }
    if status in actions:
        manage(visit, actions[status], ids)
    assert statuses(visit, ids) == [status] * n
    return ids


def service_of(visit: Visit, children: list[int]) -> int:
    """Create a service, start it and let it ask for these children; return its id."""
    (parent,) = visit.create(task(kind="service", tag=own_tag()))
    assert visit.post(f"/v1/services/{parent}/start").status_code == 200
    answer = visit.post(
        f"/v1/services/{parent}/iterate", {"state": {"step": 1}, "children": children}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "running"
    return parent


# What each operation does


@pytest.mark.parametrize(
    ("before", "action", "after", "event"),
    [
        ("error", "reset", "waiting", "reset"),
        ("waiting", "cancel", "cancelled", "cancelled"),
        ("cancelled", "uncancel", "waiting", "uncancelled"),
        ("complete", "delete", "deleted", "soft_deleted"),
        ("deleted", "undelete", "waiting", "undeleted"),
        ("running", "erase", "gone", None),
        ("complete", "invalidate", "invalid", "invalidated"),
        ("invalid", "uninvalidate", "complete", "uninvalidated"),
        ("waiting", "hold", "held", "held"),
        ("held", "release", "waiting", "released"),
        ("error", "fail", "failed", "failed"),
        ("failed", "revive", "waiting", "revived"),
    ],
)
def test_an_operation_changes_the_status_and_says_who_and_why(
    ann: Visit, before: str, action: str, after: str, event: str | None
) -> None:
    ids = made(ann, before, 2)
    answer = manage(ann, action, ids, reason="because")
    assert (answer["updated_idx"], answer["errors"]) == ([0, 1], [])
    assert answer["operation_id"]
    assert statuses(ann, ids) == [after, after]
    last = ann.get(f"/v1/records/{ids[0]}/events").json()["events"][-1]
    assert (last["actor"], last["reason"]) == ("user:ann", "because")
    assert last["operation_id"] == answer["operation_id"]
    assert last["kind"] == (event or "erased")


def test_a_refused_record_is_told_by_its_index_and_spoils_no_other(ann: Visit) -> None:
    good, other = made(ann, "waiting", 2)
    (done,) = made(ann, "complete")
    answer = manage(ann, "cancel", [done, good, UNKNOWN, good, other])
    assert answer["updated_idx"] == [1, 4]
    assert [(error["idx"], error["code"]) for error in answer["errors"]] == [
        (0, "transition_forbidden"),
        (2, "not_found"),
    ]
    assert "complete" in answer["errors"][0]["message"]
    assert str(UNKNOWN) in answer["errors"][1]["message"]
    assert answer["n_selected"] == 4


def test_an_empty_list_changes_nothing(ann: Visit) -> None:
    answer = manage(ann, "cancel", [])
    assert answer == {
        "operation_id": None,
        "updated_idx": [],
        "errors": [],
        "n_selected": 0,
        "n_children_updated": 0,
        "n_parents_updated": 0,
        "new_ids": [],
        "ids": None,
        "job_id": None,
    }


def test_modify_gives_another_tag_and_priority(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    manage(ann, "modify", [record_id], new_tag="GPU", new_priority="high")
    record = ann.record(record_id)
    assert (record["tag"], record["priority"]) == ("gpu", "high")


def test_what_is_so_already_is_no_operation(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    tag = ann.record(record_id)["tag"]
    answer = manage(ann, "modify", [record_id], new_tag=tag)
    assert (answer["updated_idx"], answer["operation_id"]) == ([0], None)
    assert ann.record(record_id)["version"] == 1


def test_comments_are_listed_with_author_and_time_in_pages(service: Service, ann: Visit) -> None:
    bob = service.visit(Role.user, "bob")
    (record_id,) = made(ann, "deleted")
    manage(ann, "comment", [record_id], text="converged to the wrong minimum")
    manage(bob, "comment", [record_id], text="<b>really?</b> é")
    path = f"/v1/records/{record_id}/comments"
    first = ann.get(path, params={"limit": 1}).json()
    second = ann.get(path, params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert second["next_cursor"] is None
    found = first["comments"] + second["comments"]
    assert [(each["author"], each["text"]) for each in found] == [
        ("user:ann", "converged to the wrong minimum"),
        ("user:bob", "<b>really?</b> é"),
    ]
    assert found[0]["commented_at"] < found[1]["commented_at"]
    is_problem(ann.get(f"/v1/records/{UNKNOWN}/comments"), 404, "not_found")


def said_in_history(visit: Visit, record_id: int) -> list[Any]:
    """Return the messages and comments of a record's history."""
    data = [each["data"] for each in visit.get(f"/v1/records/{record_id}/events").json()["events"]]
    said = [each.get("text") or each.get("outcome", {}).get("error_message") for each in data]
    return [text for text in said if text]


def test_a_history_shows_what_was_said_until_the_record_is_erased(ann: Visit) -> None:
    (child,) = made(ann, "complete")
    parent = service_of(ann, [child])
    failed = {"error_type": "ChildFailed", "error_message": "it broke"}
    ann.post(f"/v1/services/{parent}/finish", failed)
    ids = [*made(ann, "error"), parent]
    manage(ann, "comment", ids, text="no wonder")
    for record_id in ids:
        assert said_in_history(ann, record_id) == ["it broke", "no wonder"]
    manage(ann, "erase", ids[:1])
    # The other record says the same, so that the bytes are still there.
    for text, said in zip(said_in_history(ann, ids[0]), (b"it broke", b"no wonder"), strict=True):
        assert text == {
            "digest": hashlib.sha256(said).hexdigest(),
            "size_bytes": len(said),
            "erased": True,
        }
    assert said_in_history(ann, parent) == ["it broke", "no wonder"]


def test_resubmit_makes_new_records_linked_both_ways(ann: Visit) -> None:
    done, failed = made(ann, "complete") + made(ann, "failed")
    (waiting,) = made(ann, "waiting")
    answer = manage(ann, "resubmit", [done, waiting, failed])
    assert [error["idx"] for error in answer["errors"]] == [1]
    first, none, second = answer["new_ids"]
    assert none is None
    assert statuses(ann, [done, first, failed, second]) == [
        "complete", "waiting", "failed", "waiting",
    ]  # fmt: skip
    created = ann.get(f"/v1/records/{first}/events").json()["events"][0]
    assert created["data"]["resubmission_of"] == done
    resubmitted = ann.get(f"/v1/records/{done}/events").json()["events"][-1]
    assert resubmitted["data"]["new_record_id"] == first
    assert ann.record(first)["fingerprint"] == ann.record(done)["fingerprint"]


def test_a_late_result_is_adopted(ann: Visit) -> None:
    tag = own_tag()
    (record_id,) = ann.create(task(tag=tag))
    manager_id = ann.register(tag)
    ann.claim(manager_id)
    manage(ann, "cancel", [record_id])
    late = {"record_id": record_id, "attempt": 1, "result": {"x": 7}}
    answer = ann.post(f"/v1/managers/{manager_id}/results", {"results": [late]}).json()
    assert answer["late_idx"] == [0]
    refused = manage(ann, "adopt", [record_id])
    assert refused["errors"][0]["code"] == "transition_forbidden"
    manage(ann, "uncancel", [record_id])
    refused = manage(ann, "adopt", [record_id], attempt=2)
    assert refused["errors"][0]["code"] == "nothing_to_adopt"
    assert manage(ann, "adopt", [record_id], attempt=1)["updated_idx"] == [0]
    record = ann.record(record_id, "result")
    assert (record["status"], record["result"]) == ("complete", {"x": 7})


# Families


def test_a_service_and_its_children_are_listed_both_ways(ann: Visit) -> None:
    children = made(ann, "waiting", 3)
    parent = service_of(ann, children)
    path = f"/v1/records/{parent}/children"
    first = ann.get(path, params={"limit": 2}).json()
    rest = ann.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert first["ids"] + rest["ids"] == children
    assert rest["next_cursor"] is None
    assert ann.get(f"/v1/records/{children[0]}/parents").json()["ids"] == [parent]
    assert ann.get(f"/v1/records/{parent}/parents").json()["ids"] == []
    is_problem(ann.get(f"/v1/records/{UNKNOWN}/children"), 404, "not_found")
    wrong = ann.get(f"/v1/records/{parent}/parents", params={"cursor": first["next_cursor"]})
    assert "another list" in is_problem(wrong, 422, "invalid_input")


def test_cancelling_a_service_cancels_its_unfinished_children_and_uncancelling_is_the_inverse(
    ann: Visit,
) -> None:
    waiting, held = made(ann, "waiting") + made(ann, "held")
    (complete,) = made(ann, "complete")
    parent = service_of(ann, [waiting, held, complete])
    answer = manage(ann, "cancel", [parent])
    assert (answer["n_children_updated"], answer["n_parents_updated"]) == (2, 0)
    family = [parent, waiting, held, complete]
    assert statuses(ann, family) == ["cancelled", "cancelled", "cancelled", "complete"]
    manage(ann, "uncancel", [parent])
    assert statuses(ann, family) == ["waiting", "waiting", "held", "complete"]


def test_cancelling_a_child_cancels_its_parents(ann: Visit) -> None:
    child, sibling = made(ann, "waiting", 2)
    parent = service_of(ann, [child, sibling])
    answer = manage(ann, "cancel", [child])
    assert (answer["n_children_updated"], answer["n_parents_updated"]) == (1, 1)
    assert statuses(ann, [parent, child, sibling]) == ["cancelled"] * 3


def test_deleting_without_children_leaves_them(ann: Visit) -> None:
    (child,) = made(ann, "waiting")
    parent = service_of(ann, [child])
    manage(ann, "delete", [parent], delete_children=False)
    assert statuses(ann, [parent, child]) == ["deleted", "waiting"]


def test_what_something_refers_to_is_not_erased(ann: Visit) -> None:
    (child,) = made(ann, "waiting")
    parent = service_of(ann, [child])
    answer = manage(ann, "erase", [child])
    (error,) = answer["errors"]
    assert error["code"] == "still_referenced"
    assert str(parent) in error["message"]
    assert answer["operation_id"] is None
    assert manage(ann, "erase", [child, parent])["updated_idx"] == [0, 1]
    is_problem(ann.get(f"/v1/records/{child}"), 404, "not_found")
    kinds = [each["kind"] for each in ann.get(f"/v1/records/{child}/events").json()["events"]]
    assert kinds == ["created", "erased"]


def test_invalidating_reaches_the_parents_unless_it_shall_not(ann: Visit) -> None:
    first, second = made(ann, "complete", 2)
    parents = [service_of(ann, [child]) for child in (first, second)]
    for parent in parents:
        finished = ann.post(f"/v1/services/{parent}/finish", {"result": {"energy": -1}})
        assert finished.json()["status"] == "complete"
    manage(ann, "invalidate", [first])
    manage(ann, "invalidate", [second], propagate=False)
    assert statuses(ann, parents) == ["invalid", "complete"]


def test_a_service_may_end_badly(ann: Visit) -> None:
    parent = service_of(ann, [])
    finished = ann.post(
        f"/v1/services/{parent}/finish", {"error_type": "ChildFailed", "error_message": "no"}
    ).json()
    assert (finished["status"], finished["error_type"]) == ("error", "ChildFailed")
    assert finished["error_message"] == "no"
    is_problem(ann.post(f"/v1/services/{parent}/finish", {}), 409, "transition_forbidden")


def test_nobody_becomes_his_own_ancestor(ann: Visit) -> None:
    inner = service_of(ann, [])
    outer = service_of(ann, [inner])
    for parent, child in ((inner, outer), (inner, inner)):
        answer = ann.post(f"/v1/services/{parent}/iterate", {"state": 1, "children": [child]})
        is_problem(answer, 409, "circular_family")
    answer = ann.post(f"/v1/services/{outer}/iterate", {"state": 1, "children": [UNKNOWN]})
    is_problem(answer, 404, "not_found")


def test_a_task_is_no_service_and_a_service_no_task(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    is_problem(ann.post(f"/v1/services/{record_id}/start"), 409, "wrong_kind")


# By query


def test_a_query_is_resolved_by_the_server_and_the_answer_says_what_it_found(ann: Visit) -> None:
    errors = made(ann, "error", 3)
    tag = ann.record(errors[0])["tag"]
    (waiting,) = ann.create(task(tag=tag))
    answer = manage(ann, "reset", query={"tag": [tag], "status": ["error", "failed"]})
    assert (answer["ids"], answer["updated_idx"]) == (errors, [0, 1, 2])
    assert answer["n_selected"] == 3
    assert statuses(ann, [*errors, waiting]) == ["waiting"] * 4


def test_a_query_that_finds_nothing_changes_nothing(ann: Visit) -> None:
    answer = manage(ann, "cancel", query={"tag": ["nobodyhasthis"]})
    assert (answer["ids"], answer["operation_id"], answer["n_selected"]) == ([], None, 0)


def test_everything_must_be_said(ann: Visit) -> None:
    made(ann, "waiting")
    detail = is_problem(ann.post("/v1/records/hold", {"query": {}}), 422, "invalid_input")
    assert "all=true" in detail
    answer = manage(ann, "hold", query={}, all=True, dry_run=True)
    assert answer["n_selected"] == ann.n_records()


def test_a_query_is_repeated_with_its_key_and_answered_as_the_first_time(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    tag = ann.record(record_id)["tag"]
    body = {"query": {"tag": [tag], "status": ["waiting"]}}
    key = uuid4().hex
    first = ann.post("/v1/records/cancel", body, key=key).json()
    again = ann.post("/v1/records/cancel", body, key=key).json()
    assert again == first
    assert again["ids"] == [record_id]
    assert ann.record(record_id)["version"] == 2


# Dry runs


@pytest.mark.parametrize(
    ("status", "action", "options"),
    [
        ("error", "reset", {}),
        ("waiting", "cancel", {}),
        ("complete", "delete", {}),
        ("complete", "erase", {}),
        ("complete", "resubmit", {}),
        ("waiting", "modify", {"new_tag": "dry"}),
        ("waiting", "comment", {"text": "dry"}),
    ],
)
def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    service: Service, ann: Visit, status: str, action: str, options: dict[str, Any]
) -> None:
    ids = made(ann, status, 2)
    records = ann.post("/v1/records/get", {"ids": ids}).json()
    position = service.ledger.recorder.max_notification_id()
    answer = manage(ann, action, [ids[0], UNKNOWN, ids[1]], dry_run=True, **options)
    assert answer["updated_idx"] == [0, 2]
    assert [error["code"] for error in answer["errors"]] == ["not_found"]
    assert answer["operation_id"] is None
    assert answer["new_ids"] == []
    assert service.ledger.recorder.max_notification_id() == position
    assert ann.post("/v1/records/get", {"ids": ids}).json() == records


# What is wrong


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("cancel", {}, "exactly one of ids and query"),
        ("cancel", {"ids": [1], "query": {"tag": ["x"]}}, "exactly one of ids and query"),
        ("cancel", {"ids": [1], "all": True}, "leave it out with ids"),
        ("cancel", {"ids": [0]}, "ids[0]"),
        ("cancel", {"ids": [1, "two"]}, "ids[1]"),
        ("cancel", {"ids": [1], "text": "x"}, "cancel takes no text"),
        ("cancel", {"ids": [1], "new_tag": "x", "attempt": 1}, "no attempt and no new_tag"),
        ("modify", {"ids": [1]}, "new_tag, new_priority or both"),
        ("modify", {"ids": [1], "new_tag": "two words"}, "tag"),
        ("modify", {"ids": [1], "new_priority": "urgent"}, "new_priority"),
        ("comment", {"ids": [1]}, "text"),
        ("comment", {"ids": [1], "text": ""}, "text"),
        ("comment", {"ids": [1], "text": "a\0b"}, "text"),
        ("comment", {"ids": [1], "text": "x" * 10_001}, "10000 characters"),
        ("comment", {"ids": [1], "text": "x" * 1_000_000}, "10000 characters"),
        ("adopt", {"ids": [1], "attempt": 0}, "attempt"),
        ("cancel", {"query": {"status": ["done"]}}, "query.status[0]"),
        ("cancel", {"query": {"colour": "red"}}, "query.colour"),
    ],
)
def test_a_wrong_request_is_refused_as_a_whole(
    ann: Visit, action: str, body: dict[str, Any], words: str
) -> None:
    assert words in is_problem(ann.post(f"/v1/records/{action}", body), 422, "invalid_input")


def test_a_comment_of_ten_megabytes_is_refused(ann: Visit) -> None:
    (record_id,) = made(ann, "waiting")
    answer = ann.post("/v1/records/comment", {"ids": [record_id], "text": "x" * 10_000_000})
    is_problem(answer, 413, "too_large")
    assert ann.get(f"/v1/records/{record_id}/comments").json()["comments"] == []


# Who may


def test_only_administrators_erase_and_revive_and_say_what_services_do(service: Service) -> None:
    bob, ann = service.visit(Role.user, "bob"), service.visit()
    reader = service.visit(Role.reader, "eve")
    failed, other = made(ann, "failed", 2)
    for action in ("erase", "revive"):
        is_problem(bob.post(f"/v1/records/{action}", {"ids": [failed]}), 403, "forbidden")
    assert manage(bob, "delete", [failed])["updated_idx"] == [0]
    is_problem(reader.post("/v1/records/delete", {"ids": [other]}), 403, "forbidden")
    [_, own_service] = bob.create(task(), task(kind="service"))
    is_problem(bob.post(f"/v1/services/{own_service}/start"), 403, "forbidden")
    assert manage(ann, "revive", [other])["updated_idx"] == [0]


# Two at once


def test_of_two_who_change_the_same_records_the_loser_gets_a_precise_answer(
    service: Service, ann: Visit
) -> None:
    ids = made(ann, "waiting", 60)
    bob = service.visit(Role.user, "bob")
    with ThreadPoolExecutor(2) as pool:
        forwards = pool.submit(manage, ann, "cancel", ids)
        backwards = pool.submit(manage, bob, "delete", ids[::-1])
    first, second = forwards.result(), backwards.result()
    for answer in (first, second):
        assert len(answer["updated_idx"]) + len(answer["errors"]) == len(ids)
        assert {error["code"] for error in answer["errors"]} <= {"transition_forbidden"}
    # Deleting is allowed after cancelling, and cancelling is not allowed after deleting.
    assert len(second["updated_idx"]) == len(ids)
    assert len(first["updated_idx"]) in (0, len(ids))
    assert statuses(ann, ids) == ["deleted"] * len(ids)


def test_a_crowd_on_the_same_families_meets_no_deadlock(service: Service, ann: Visit) -> None:
    children = made(ann, "waiting", 12)
    parents = [service_of(ann, children[n : n + 6]) for n in (0, 3, 6)]
    family = [*children, *parents]
    visits = [service.visit(Role.admin, f"user{n}") for n in range(4)]
    actions = ("cancel", "uncancel", "delete", "undelete", "hold", "release", "modify")

    def work(number: int) -> set[str]:
        codes: set[str] = set()
        for turn in range(25):
            action = actions[(turn + number) % len(actions)]
            more = {"new_priority": "low"} if action == "modify" else {}
            some = family[number::2] if turn % 2 else family[::-1][number:]
            answer = manage(visits[number], action, some, **more)
            codes |= {error["code"] for error in answer["errors"]}
        return codes

    with ThreadPoolExecutor(4) as pool:
        found = set[str]().union(*pool.map(work, range(4)))
    assert found <= {"transition_forbidden"}


# Errors


def test_errors_are_grouped_by_type_and_message(ann: Visit) -> None:
    ids = made(ann, "error", 7)
    groups = ann.get("/v1/records/errors").json()["groups"]
    (group,) = [each for each in groups if each["error_type"] == "ValueError"]
    assert group["error_message"] == "it broke"
    assert group["n_records"] >= 7
    assert group["newest_ids"] == sorted(ids, reverse=True)[:5]
    assert group["newest_at"]
