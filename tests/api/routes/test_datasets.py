"""Datasets over HTTP: what is asked, what is answered, and what is refused."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import pytest

from recordledger.domain.admin.access import Role
from recordledger.projections.actions import dataset_filling
from recordledger.projections.actions.bulk import advance_jobs

from ..service import Service, Visit, is_problem

FUNCTION: Final = "package.module:energy"
UNKNOWN: Final = 2**40


def made(visit: Visit, n_entries: int = 3, *specifications: str) -> str:
    """Make a dataset with entries m0, m1 and so on; return its address."""
    answer = visit.post("/v1/datasets", {"name": f"water {uuid4().hex}"})
    assert answer.status_code == 200, answer.text
    path = f"/v1/datasets/{answer.json()['dataset_id']}"
    for name in specifications:
        right(visit.post(f"{path}/specifications", {"specification": specification(name)}))
    if n_entries:
        right(visit.post(f"{path}/entries", {"entries": entries(n_entries)}))
    return path


def specification(name: str = "hf", **more: Any) -> dict[str, Any]:
    return {"name": name, "function": FUNCTION, "kwargs": {"nonce": uuid4().hex}, **more}


def entries(n: int) -> list[dict[str, Any]]:
    return [{"name": f"m{i}", "input": {"x": i}, "attributes": {"n": i}} for i in range(n)]


def right(answer: Any) -> dict[str, Any]:
    """Return what was answered, which must be no error."""
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


def test_a_dataset_is_made_filled_submitted_and_read(ann: Visit) -> None:
    path = made(ann, 3, "hf", "mp2")
    filled = right(ann.post(f"{path}/submit", {"specifications": ["mp2"], "pattern": "m?"}))
    assert (filled["n_selected"], filled["n_linked"], filled["job_id"]) == (3, 3, None)
    status = right(ann.get(f"{path}/status"))
    assert status["specifications"] == [
        {"name": "hf", "counts": {}, "n_missing": 3},
        {"name": "mp2", "counts": {"waiting": 3}, "n_missing": 0},
    ]
    assert (status["counts"], status["n_missing"]) == ({"waiting": 3}, 3)
    found = right(ann.get(path))
    assert [each["name"] for each in found["specifications"]] == ["hf", "mp2"]
    assert set(found["specifications"][0]["kwargs"]) == {"nonce"}
    assert (found["n_entries"], found["n_records"], found["owner"]) == (3, 3, "user:ann")
    [listed] = right(ann.get("/v1/datasets", params={"name": found["name"].upper()}))["datasets"]
    assert listed["id"] == found["id"]
    table = right(ann.get(f"{path}/table"))
    assert table["specifications"] == ["hf", "mp2"]
    assert [row["entry"] for row in table["rows"]] == ["m0", "m1", "m2"]
    assert all(hf is None and mp2["status"] == "waiting" for hf, mp2 in map(cells, table["rows"]))


def cells(row: dict[str, Any]) -> list[Any]:
    found: list[Any] = row["cells"]
    return found


def test_lists_come_in_pages(ann: Visit) -> None:
    path = made(ann, 5, "hf")
    right(ann.post(f"{path}/submit"))
    for what, key in (("entries", "entries"), ("table", "rows"), ("events", "events")):
        seen: list[Any] = []
        cursor = None
        for _ in range(10):
            page = right(ann.get(f"{path}/{what}", params=_given(limit=2, cursor=cursor)))
            seen += page[key]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == right(ann.get(f"{path}/{what}"))[key]
        assert len(seen) == (4 if what == "events" else 5)
    two = right(ann.get("/v1/datasets", params={"limit": 1}))
    older = right(ann.get("/v1/datasets", params={"limit": 1, "cursor": two["next_cursor"]}))
    assert older["datasets"][0]["id"] < two["datasets"][0]["id"]
    wrong = ann.get(f"{path}/entries", params={"cursor": two["next_cursor"]})
    assert "to another list" in is_problem(wrong, 422, "invalid_input")


def _given(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def test_an_entry_says_what_it_was_given_and_no_page_is_too_large(ann: Visit) -> None:
    path = made(ann, 0)
    large = "x" * 200_000
    given = [{"name": f"e{n}", "input": {"x": large, "n": 10**30}} for n in range(12)]
    right(ann.post(f"{path}/entries", {"entries": given}))
    page = right(ann.get(f"{path}/entries"))
    assert 1 < len(page["entries"]) < 12
    assert page["entries"][0] == {**given[0], "attributes": {}}
    assert page["next_cursor"] is not None
    names = right(ann.get(f"{path}/entries", params={"content": False}))
    assert names["entries"] == [{"name": each["name"]} for each in given]


WRONG_ENTRIES: Final[list[tuple[Any, str, str]]] = [
    ({}, "invalid_input", "name"),
    ({"name": ""}, "invalid_input", "name"),
    ({"name": "a\nb"}, "invalid_input", "name"),
    ({"name": "x" * 201}, "invalid_input", "name"),
    ({"name": "a", "inputs": {}}, "invalid_input", "inputs"),
    ({"name": "a", "input": [1]}, "invalid_input", "input"),
    ({"name": "a", "input": {"x": "\0"}}, "invalid_input", "NUL"),
    ({"name": "a", "input": {"x": "x" * 300_000}}, "too_large", "payload_bytes_max"),
    ({"name": "a", "attributes": {"x": "x" * 70_000}}, "too_large", "ATTRIBUTES_BYTES_MAX"),
    (7, "invalid_input", "the entry"),
    ({"name": "m0", "input": {"x": 99}}, "entry_exists", "'m0'"),
]


def test_a_wrong_entry_is_refused_and_spoils_no_other(ann: Visit) -> None:
    path = made(ann, 1)
    wrong = [given for given, _, _ in WRONG_ENTRIES]
    answer = right(ann.post(f"{path}/entries", {"entries": [*wrong, {"name": "good"}]}))
    assert answer["inserted_idx"] == [len(wrong)]
    assert [(each["idx"], each["code"]) for each in answer["errors"]] == [
        (idx, code) for idx, (_, code, _) in enumerate(WRONG_ENTRIES)
    ]
    for error, (_, _, said) in zip(answer["errors"], WRONG_ENTRIES, strict=True):
        assert said in error["message"]
    nothing = right(ann.post(f"{path}/entries", {"entries": []}))
    assert (nothing["operation_id"], nothing["inserted_idx"]) == (None, [])
    many = ann.post(f"{path}/entries", {"entries": [{}] * 501})
    assert "records_per_request" in is_problem(many, 413, "too_large")


@pytest.mark.parametrize(
    ("what", "body", "status", "code"),
    [
        ("modify", {}, 422, "invalid_input"),
        ("modify", {"new_name": ""}, 422, "invalid_input"),
        ("entries/rename", {"names": {"m9": "m8"}}, 404, "entry_not_found"),
        ("entries/rename", {"names": {"m0": "m1"}}, 409, "entry_exists"),
        ("entries/rename", {"names": {}}, 422, "invalid_input"),
        ("entries/rename", {"names": {str(n): "x" for n in range(1001)}}, 422, "invalid_input"),
        ("entries/remove", {"names": ["m0", "m9"]}, 404, "entry_not_found"),
        ("entries/remove", {"names": []}, 422, "invalid_input"),
        ("specifications/remove", {"names": ["hf", "x"]}, 404, "specification_not_found"),
        ("specifications", {"specification": {"name": "hf"}}, 422, "invalid_input"),
        (
            "specifications",
            {"specification": {"name": "x", "function": "no function!"}},
            422,
            "invalid_input",
        ),
        (
            "specifications",
            {"specification": {"name": "x", "function": "f", "kwargs": {"x": "x" * 1_100_000}}},
            413,
            "too_large",
        ),
        (
            "specifications",
            {"specification": {"name": "hf", "function": "other"}},
            409,
            "specification_exists",
        ),
        ("submit", {"entries": ["m0", "m9"]}, 404, "entry_not_found"),
        ("submit", {"specifications": ["x"]}, 404, "specification_not_found"),
        ("submit", {"attributes": {"x": "\0"}}, 422, "invalid_input"),
        ("submit", {"tag": "not a tag"}, 422, "invalid_input"),
        ("unlink", {}, 422, "invalid_input"),
        ("clone", {"name": "a\0b"}, 422, "invalid_input"),
        ("clone", {"name": "new", "version": 3}, 404, "version_not_found"),
        ("lock", {"expected_version": 1}, 409, "dataset_changed"),
        ("delete", {"expected_version": 1}, 409, "dataset_changed"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    ann: Visit, what: str, body: dict[str, Any], status: int, code: str
) -> None:
    path = made(ann, 3, "hf")
    before = right(ann.get(path))
    is_problem(ann.post(f"{path}/{what}", body), status, code)
    assert right(ann.get(path)) == before
    unknown = ann.post(f"/v1/datasets/{UNKNOWN}/{what}", body)
    assert unknown.status_code in (404, status)


def test_what_is_not_there_is_not_found(ann: Visit) -> None:
    for what in ("", "/entries", "/status", "/table", "/events"):
        is_problem(ann.get(f"/v1/datasets/{UNKNOWN}{what}"), 404, "dataset_not_found")
    path = made(ann, 1, "hf")
    for what in ("", "/entries", "/table"):
        is_problem(ann.get(f"{path}{what}", params={"version": 1}), 404, "version_not_found")
    unknown = ann.get(f"{path}/table", params={"specification": "x"})
    is_problem(unknown, 404, "specification_not_found")
    assert right(ann.get("/v1/datasets", params={"name": uuid4().hex}))["datasets"] == []


def test_a_name_is_taken_once(ann: Visit) -> None:
    name = f"ice {uuid4().hex}"
    right(ann.post("/v1/datasets", {"name": name}))
    assert "already" in is_problem(ann.post("/v1/datasets", {"name": name}), 409, "dataset_exists")
    path = made(ann, 0)
    taken = ann.post(f"{path}/modify", {"new_name": name.upper()})
    is_problem(taken, 409, "dataset_exists")
    is_problem(ann.post(f"{path}/clone", {"name": name}), 409, "dataset_exists")


def test_what_changes_nothing_has_no_operation(ann: Visit) -> None:
    path = made(ann, 2, "hf")
    right(ann.post(f"{path}/submit"))
    name = right(ann.get(path))["name"]
    for what, body in (
        ("modify", {"new_name": name}),
        ("entries/rename", {"names": {"m0": "m0"}}),
        ("unlink", {"pattern": "nothing like this"}),
        ("submit", {}),
        ("entries", {"entries": entries(2)}),
    ):
        assert right(ann.post(f"{path}/{what}", body))["operation_id"] is None, what
    assert right(ann.post(f"{path}/unlink", {"all": True}))["n_changed"] == 2


def test_a_request_with_a_key_has_one_effect(ann: Visit) -> None:
    key = uuid4().hex
    name = f"ice {uuid4().hex}"
    first, again = (ann.post("/v1/datasets", {"name": name}, key=key).json() for _ in range(2))
    assert first == again
    other = ann.post("/v1/datasets", {"name": "other"}, key=key)
    is_problem(other, 422, "idempotency_conflict")


def test_a_specification_may_be_a_service(service: Service, ann: Visit) -> None:
    path = made(ann, 1)
    bob = service.visit(Role.user, "bob")
    given = {"specification": specification("s", kind="service")}
    right(bob.post(f"{path}/specifications", given))
    right(bob.post(f"{path}/submit"))
    [row] = right(ann.get(f"{path}/table"))["rows"]
    assert ann.record(row["cells"][0]["record_id"])["kind"] == "service"


def test_many_cells_are_filled_by_a_job(
    service: Service, ann: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_filling, "AT_ONCE_MAX", 3)
    monkeypatch.setattr(dataset_filling, "SLICE", 2)
    path = made(ann, 5, "hf")
    answer = ann.post(f"{path}/submit", {"reason": "all of them"})
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    while advance_jobs(service.ledger):
        pass
    job = right(ann.get(f"/v1/jobs/{job_id}"))
    assert (job["state"], job["action"], job["n_updated"]) == ("finished", "submit", 5)
    assert job["operation_id"] == answer.json()["operation_id"]
    assert right(ann.get(f"{path}/status"))["n_missing"] == 0
    cloned = ann.post(f"{path}/clone", {"name": uuid4().hex, "link_records": True})
    assert cloned.status_code == 202
    while advance_jobs(service.ledger):
        pass
    twin = right(ann.get(f"/v1/datasets/{cloned.json()['dataset_id']}"))
    assert (twin["n_records"], twin["counts"]) == (5, {"waiting": 5})


def test_every_verb_takes_a_dataset(ann: Visit) -> None:
    path = made(ann, 4, "hf", "mp2")
    right(ann.post(f"{path}/submit"))
    dataset_id = right(ann.get(path))["id"]
    name = right(ann.get(path))["name"]

    def do(verb: str, **query: Any) -> int:
        body = {"query": {"dataset": dataset_id, **query}}
        return len(right(ann.post(f"/v1/records/{verb}", body))["updated_idx"])

    assert do("hold") == 8
    assert do("release", specification=["mp2"], entry=["m1", "m3"]) == 2
    assert do("cancel", entry=["m0"]) == 2
    assert right(ann.get(f"{path}/status"))["counts"] == {"held": 4, "waiting": 2, "cancelled": 2}
    query = {"dataset": name, "status": ["held"]}
    found = right(ann.post("/v1/records/query", {"query": query}))["records"]
    assert len(found) == 4
    for query, code, status in (
        ({"dataset": "no such"}, "dataset_not_found", 404),
        ({"dataset": dataset_id, "entry": ["x"]}, "entry_not_found", 404),
        ({"dataset": dataset_id, "specification": ["x"]}, "specification_not_found", 404),
        ({"entry": ["m0"]}, "invalid_input", 422),
        ({"specification": ["hf"]}, "invalid_input", 422),
        ({"dataset": 0}, "invalid_input", 422),
    ):
        for route in ("query", "cancel"):
            is_problem(ann.post(f"/v1/records/{route}", {"query": query}), status, code)


def test_a_record_of_a_dataset_is_not_destroyed(ann: Visit) -> None:
    path = made(ann, 1, "hf")
    right(ann.post(f"{path}/submit"))
    [row] = right(ann.get(f"{path}/table"))["rows"]
    record_id = row["cells"][0]["record_id"]
    [error] = right(ann.post("/v1/records/erase", {"ids": [record_id]}))["errors"]
    assert error["code"] == "still_referenced"
    assert "is in dataset 'water " in error["message"]
    right(ann.post(f"{path}/entries/remove", {"names": ["m0"]}))
    assert right(ann.post("/v1/records/erase", {"ids": [record_id]}))["updated_idx"] == [0]


def test_a_locked_version_is_read_as_it_was(ann: Visit) -> None:
    path = made(ann, 2, "hf")
    right(ann.post(f"{path}/submit"))
    before = right(ann.get(f"{path}/table"))
    locked = right(ann.post(f"{path}/lock", {"label": "v1", "doi": "10.1000/182"}))
    assert locked["n_changed"] == 1
    right(ann.post(f"{path}/entries/remove", {"names": ["m0"]}))
    right(ann.post(f"{path}/specifications/remove", {"names": ["hf"]}))
    version = {"version": 1}
    assert right(ann.get(f"{path}/table", params=version)) == before
    found = right(ann.get(path, params=version))
    assert [each["name"] for each in found["specifications"]] == ["hf"]
    [kept] = found["locked_versions"]
    assert (kept["label"], kept["doi"], kept["n_entries"]) == ("v1", "10.1000/182", 2)
    assert len(right(ann.get(f"{path}/entries", params=version))["entries"]) == 2
    is_problem(ann.post(f"{path}/delete"), 409, "dataset_locked")


def test_the_history_says_who_did_what_and_cuts_long_lists(ann: Visit) -> None:
    path = made(ann, 30, "hf")
    right(ann.post(f"{path}/entries/remove", {"names": ["m3"], "reason": "wrong"}))
    events = right(ann.get(f"{path}/events"))["events"]
    kinds = [event["kind"] for event in events]
    assert kinds == ["dataset_created", "specification_added", "entries_added", "entries_removed"]
    added, removed = events[2:]
    assert (len(added["data"]["names"]), added["data"]["n_names"]) == (10, 30)
    assert removed["data"] == {"entries": [4]}
    assert (removed["actor"], removed["reason"]) == ("user:ann", "wrong")
