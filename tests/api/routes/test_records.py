"""Records over HTTP: submitted in bulk, read by id, queried in pages, with their histories."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pytest

from recordledger.api.schemas.events import HistoryAnswer
from recordledger.api.schemas.records import GetAnswer, QueryAnswer, RecordOut
from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem, task


def test_a_submission_gives_each_entry_an_id_in_its_order(ann: Visit) -> None:
    ids = ann.create(*(task() for _ in range(5)))
    assert ids == list(range(ids[0], ids[0] + 5))


def test_a_record_shows_what_was_submitted_and_by_whom(service: Service) -> None:
    bob = service.visit(Role.user, "bob")
    (record_id,) = bob.create(
        task(kwargs={"x": 1.5}, tag="GPU", priority="high", required_programs=["Psi4 >= 1.9"])
    )
    record = bob.record(record_id, "kwargs")
    assert RecordOut.model_validate(record).model_dump(mode="json") == record
    assert record | {"function": "demo:square", "kwargs": {"x": 1.5}, "tag": "gpu"} == record
    assert record | {"priority": "high", "required_programs": ["psi4>=1.9"]} == record
    assert record | {"owner": "user:bob", "status": "waiting", "version": 1} == record


def test_a_wrong_entry_is_refused_by_its_index_and_spoils_no_other(ann: Visit) -> None:
    answer = ann.post(
        "/v1/records",
        {
            "records": [
                {"function": "no such:thing at all"},
                task(),
                task(tag="no tag"),
                task(required_programs=["psi4>>1"]),
                "not even an object",
                {"kwargs": {}},
                task(priority="urgent"),
                task(colour="red"),
                task(),
            ]
        },
    ).json()
    assert [error["idx"] for error in answer["errors"]] == [0, 2, 3, 4, 5, 6, 7]
    assert {error["code"] for error in answer["errors"]} == {"invalid_input"}
    assert answer["inserted_idx"] == [1, 8]
    assert [index for index, id_ in enumerate(answer["ids"]) if id_ is not None] == [1, 8]
    messages = [error["message"] for error in answer["errors"]]
    assert messages[4] == "function: Field required"
    assert "colour" in messages[6]


def test_a_submission_of_nothing_right_creates_nothing(ann: Visit) -> None:
    answer = ann.post("/v1/records", {"records": [{}]}).json()
    assert answer["operation_id"] is None
    assert answer["ids"] == [None]


def test_the_same_specification_gives_the_record_that_there_is(ann: Visit) -> None:
    entry = task()
    (first,) = ann.create(entry)
    answer = ann.post("/v1/records", {"records": [{}, task(), entry, entry]}).json()
    assert answer["ids"][2:] == [first, first]
    assert answer["existing_idx"] == [2, 3]
    assert answer["inserted_idx"] == [1]
    (another,) = ann.create(entry, find_existing=False)
    assert another != first


def test_more_records_than_the_limit_are_refused_as_a_whole(ann: Visit) -> None:
    answer = ann.post("/v1/records", {"records": [{}] * 501})
    assert "records_per_request" in is_problem(answer, 413, "too_large")


def test_msgpack_asks_and_answers_like_json(ann: Visit) -> None:
    import msgpack

    entry = task(kwargs={"xs": [1, 2.5, None, True, "é", {"deep": []}]})
    answer = ann.pack("/v1/records", {"records": [entry]})
    assert answer.headers["content-type"] == "application/msgpack"
    (record_id,) = msgpack.unpackb(answer.content)["ids"]
    assert ann.create(entry) == [record_id]
    answer = ann.pack("/v1/records/get", {"ids": [record_id], "include": ["kwargs"]})
    (record,) = GetAnswer.model_validate(msgpack.unpackb(answer.content, timestamp=3)).records
    assert record is not None
    assert record.model_dump(mode="json") == ann.record(record_id, "kwargs")


def test_an_integer_beyond_64_bits_comes_in_json_whatever_was_wanted(ann: Visit) -> None:
    (record_id,) = ann.create(task(kwargs={"n": 2**80}))
    answer = ann.pack("/v1/records/get", {"ids": [record_id], "include": ["kwargs"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["records"][0]["kwargs"] == {"n": 2**80}


def test_records_come_in_the_order_of_the_ids_asked_for(ann: Visit) -> None:
    a, b = ann.create(task(), task())
    answer = ann.post("/v1/records/get", {"ids": [b, a, b]}).json()
    assert [record["id"] for record in answer["records"]] == [b, a, b]


def test_a_missing_record_is_an_error_unless_that_is_fine(ann: Visit) -> None:
    missing = 2**62
    (there,) = ann.create(task())
    answer = ann.post("/v1/records/get", {"ids": [there, missing]})
    assert str(missing) in is_problem(answer, 404, "not_found")
    answer = ann.post("/v1/records/get", {"ids": [missing, there], "missing_ok": True}).json()
    assert answer["records"][0] is None
    assert answer["records"][1]["id"] == there
    is_problem(ann.get(f"/v1/records/{missing}"), 404, "not_found")
    is_problem(ann.get(f"/v1/records/{missing}/events"), 404, "not_found")


def test_a_history_says_who_did_what_and_why(ann: Visit) -> None:
    (record_id,) = ann.create(task(tag="history", priority="high"), reason="to see it")
    manager_id = ann.register("history")
    ann.claim(manager_id)
    answer = ann.get(f"/v1/records/{record_id}/events").json()
    HistoryAnswer.model_validate(answer)
    created, claimed = answer["events"]
    assert created | {"kind": "created", "actor": "user:ann", "reason": "to see it"} == created
    assert created["data"]["priority"] == "high"
    assert created["data"]["spec"]["digest"] == ann.record(record_id)["fingerprint"]
    assert claimed | {"kind": "claimed", "actor": f"manager:{manager_id}", "version": 2} == claimed
    assert claimed["data"]["attempt"] == 1
    assert created["position"] < claimed["position"]


def query(visit: Visit, limit: int = 250, **conditions: Any) -> list[int]:
    """Return the ids of all pages of a query."""
    ids: list[int] = []
    cursor = None
    while True:
        body = {"query": conditions, "limit": limit, "cursor": cursor}
        answer = visit.post("/v1/records/query", body)
        assert answer.status_code == 200, answer.text
        page = QueryAnswer.model_validate(answer.json())
        assert len(page.records) <= limit
        ids += [record.id for record in page.records]
        cursor = page.next_cursor
        if cursor is None:
            return ids


def test_pages_go_from_the_newest_to_the_oldest_without_gaps(ann: Visit) -> None:
    ids = ann.create(*(task(tag="pages") for _ in range(10)))
    for limit in (1, 3, 5, 10, 11):
        assert query(ann, limit, tag=["pages"]) == ids[::-1]


def test_a_query_meets_every_condition(service: Service, ann: Visit) -> None:
    carl = service.visit(Role.user, "carl")
    a, b, c = carl.create(task(tag="q1"), task(tag="q2"), task(tag="q1", function="demo:cube"))
    (d,) = ann.create(task(tag="q1"))
    assert query(ann, owner=["user:carl"]) == [c, b, a]
    assert query(ann, owner=["user:carl"], tag=["Q1"]) == [c, a]
    assert query(ann, tag=["q1", "q2"], function=["demo:square"]) == [d, b, a]
    assert query(ann, ids=[a, d, 2**62]) == [d, a]
    assert query(ann, tag=["q1"], status=["complete", "error"]) == []
    assert query(ann, tag=["q1"], status=["waiting", "error"]) == [d, c, a]
    manager_id = ann.register("q2")
    ann.claim(manager_id)
    assert query(ann, manager_id=[manager_id]) == [b]
    created_at = ann.record(b)["created_at"]
    assert a in query(ann, created_after=created_at)
    assert b not in query(ann, created_before=created_at)
    assert query(ann, status=[]) == []


def test_a_cursor_is_good_for_its_own_list_in_its_own_ledger(ann: Visit) -> None:
    ann.create(task(tag="cursor"), task(tag="cursor"))
    first = ann.post("/v1/records/query", {"query": {"tag": ["cursor"]}, "limit": 1}).json()
    cursor = first["next_cursor"]
    packed = bytearray(base64.urlsafe_b64decode(cursor + "=="))
    packed[3] ^= 1
    forged = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    for wrong in (forged, "", "!", "AAAA", "é", cursor + "A", cursor[:-4], "A" * 200):
        answer = ann.post("/v1/records/query", {"cursor": wrong})
        is_problem(answer, 422, "invalid_input")
    is_problem(ann.get("/v1/managers", params={"cursor": cursor}), 422, "invalid_input")


def test_the_largest_that_the_limits_allow_is_taken(service: Service, ann: Visit) -> None:
    user = "\U0001f600" * 200
    dora = service.visit_with(
        ann.post("/v1/tokens", {"user": user, "role": "admin"}).json()["secret"]
    )
    programs = [secrets.token_hex(18) for _ in range(50)]
    record = {
        "function": "m" * 100 + ":" + "f" * 99,
        "tag": "t" * 100,
        "required_programs": programs,
        "retries": 1000,
    }
    body = {"records": [record], "reason": "\U0001f600" * 10_000}
    answer = dora.post("/v1/records", body, key="k" * 200).json()
    assert answer["errors"] == []
    versions = dict.fromkeys(programs, "1") | {f"{i}{'p' * 90}": "v" * 200 for i in range(950)}
    tags = [f"{i}{'t' * 96}" for i in range(99)]
    manager_id = dora.register(
        "t" * 100, *tags, name="n" * 200, hostname="h" * 200, programs=versions
    )
    (claimed,) = dora.claim(manager_id, 1000)
    assert claimed["record_id"] == answer["ids"][0]
    assert query(dora, owner=[f"user:{user}"], tag=["t" * 100]) == answer["ids"]


def test_counts_say_how_many_are_in_each_status(ann: Visit) -> None:
    before = ann.get("/v1/records/counts").json()["counts"]
    ann.create(task(), task())
    after = ann.get("/v1/records/counts").json()["counts"]
    assert after["waiting"] == before["waiting"] + 2
    assert len(after) == 9


def test_a_page_ends_where_its_payloads_would_be_too_large(ann: Visit) -> None:
    big = [task(tag="big", kwargs={"i": i, "pad": "x" * 200_000}) for i in range(12)]
    ids = ann.create(*big)
    body = {"query": {"tag": ["big"]}, "include": ["kwargs"]}
    page = ann.post("/v1/records/query", body).json()
    assert [record["id"] for record in page["records"]] == ids[:1:-1]
    rest = ann.post("/v1/records/query", {**body, "cursor": page["next_cursor"]}).json()
    assert [record["id"] for record in rest["records"]] == ids[1::-1]
    assert rest["next_cursor"] is None
    answer = ann.post("/v1/records/get", {"ids": ids, "include": ["kwargs"]})
    assert "ask for fewer" in is_problem(answer, 413, "too_large")


@pytest.mark.parametrize("include", ["everything", "kwargs,result", ""])
def test_only_payloads_can_be_included(ann: Visit, include: str) -> None:
    (record_id,) = ann.create(task())
    answer = ann.get(f"/v1/records/{record_id}", params={"include": include})
    is_problem(answer, 422, "invalid_input")


def test_each_attempt_has_its_own_outcome_output_and_error(ann: Visit) -> None:
    tag = f"t{secrets.token_hex(6)}"
    (record_id,) = ann.create(task(tag=tag, retries=1))
    manager_id = ann.register(tag)
    outcomes: list[dict[str, Any]] = [
        {"error_type": "OSError", "error_message": "no space", "stdout": "one", "cores": 4},
        {"result": {"y": 2}, "stdout": "two", "compute_s": 1.5},
    ]
    for number, outcome in enumerate(outcomes, start=1):
        (held,) = ann.claim(manager_id)
        assert held["attempt"] == number
        results = [{"record_id": record_id, "attempt": number, **outcome}]
        ann.post(f"/v1/managers/{manager_id}/results", {"results": results})
    answer = ann.get(f"/v1/records/{record_id}/attempts?include=stdout&include=result").json()
    first, second = answer["attempts"]
    assert (first["error_type"], first["error_message"]) == ("OSError", "no space")
    assert (first["stdout"], first["result"], first["cores"]) == ("one", None, 4)
    assert (first["manager_id"], first["ended_by"], first["late"]) == (manager_id, "errored", False)
    assert (second["stdout"], second["result"], second["compute_s"]) == ("two", {"y": 2}, 1.5)
    assert (second["error_type"], second["ended_by"]) == (None, "completed")
    bare = ann.get(f"/v1/records/{record_id}/attempts").json()["attempts"]
    assert [each["stdout"] for each in bare] == [None, None]
    assert ann.get("/v1/records/999999/attempts").status_code == 404
