"""Earlier moments over HTTP and by the clients: records, pages, counts and differences."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, Final
from uuid import uuid4

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import Diff, InvalidArgument, RecordsNotFound, Refused
from recordledger.api.http.cursors import Listing, ListPages
from recordledger.api.schemas.moments import moment_in
from recordledger.domain.records.status import Status
from recordledger.projections.reading import timeline
from recordledger.workers.jobs.schedule import server_jobs

from ..service import Service, Visit, is_problem, task
from .test_management import own_tag

FAR: Final = "2199-01-01T00:00:00Z"


def head(visit: Visit) -> int:
    return int(visit.get("/v1/events", params={"limit": 1}).json()["head"])


def right(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture
def client(service: Service, ann: Visit) -> Any:
    with Client(service.url, ann.secret, progress=False) as made:
        yield made


def test_a_record_is_got_as_it_was(ann: Visit) -> None:
    (record_id,) = ann.create(task(kwargs={"x": 1}))
    before, waiting = head(ann), ann.record(record_id, "kwargs")
    ann.post("/v1/records/hold", {"ids": [record_id]})
    held = ann.record(record_id, "kwargs")
    for as_of, expected in ((before, waiting), (f"@{before}", waiting), (head(ann), held)):
        got = right(
            ann.get(f"/v1/records/{record_id}", params={"as_of": as_of, "include": "kwargs"})
        )
        assert got == expected
        body = {"ids": [record_id], "include": ["kwargs"], "as_of": as_of}
        answer = right(ann.post("/v1/records/get", body))
        assert answer["records"] == [expected]
        assert answer["as_of"]["position"] == int(str(as_of).lstrip("@"))
    then = waiting["modified_at"]
    got = right(ann.post("/v1/records/get", {"ids": [record_id], "as_of": then}))
    assert got["records"][0]["status"] == "waiting"
    assert got["as_of"] == {"position": before, "happened_at": then}
    is_problem(
        ann.post("/v1/records/get", {"ids": [record_id], "as_of": before - 1}), 404, "not_found"
    )
    got = right(
        ann.post("/v1/records/get", {"ids": [record_id], "as_of": before - 1, "missing_ok": True})
    )
    assert got["records"] == [None]


def test_an_erased_record_comes_without_its_payloads(ann: Visit) -> None:
    same = {"kwargs": {"x": "said by two"}}
    one, other = ann.create(task(**same), task(**same), find_existing=False)
    manager_id = ann.register("*")
    ann.claim(manager_id, 1_000)
    results = [
        {
            "record_id": id_,
            "attempt": 1,
            "error_type": "ValueError",
            "error_message": "said",
            "stdout": "out",
        }
        for id_ in (one, other)
    ]
    returned = ann.post(f"/v1/managers/{manager_id}/results", {"results": results})
    assert returned.status_code == 200, returned.text
    before = head(ann)
    ann.post("/v1/records/erase", {"ids": [one], "reason": "private"})
    is_problem(ann.get(f"/v1/records/{one}"), 404, "not_found")
    body = {"ids": [one, other], "include": ["kwargs", "stdout"], "as_of": before}
    gone, kept = right(ann.post("/v1/records/get", body))["records"]
    assert (gone["status"], gone["erased"]) == ("error", True)
    assert [gone[name] for name in ("kwargs", "stdout", "error_message")] == [None] * 3
    assert gone["error_type"] == "ValueError"
    assert kept == ann.record(other, "kwargs", "stdout")
    assert kept["error_message"] == "said"
    query = {"query": {"ids": [one]}, "include": ["kwargs"], "as_of": before}
    (found,) = right(ann.post("/v1/records/query", query))["records"]
    assert (found["erased"], found["kwargs"]) == (True, None)


def test_pages_of_a_query_are_of_one_moment(ann: Visit) -> None:
    tag = own_tag()
    ids = ann.create(*[task(tag=tag) for _ in range(5)])
    before = head(ann)
    ann.post("/v1/records/cancel", {"ids": ids[:4]})
    body = {"query": {"tag": [tag.upper()], "status": ["waiting"]}, "limit": 2, "as_of": before}
    found: list[int] = []
    cursor = None
    while True:
        page = right(ann.post("/v1/records/query", body | ({"cursor": cursor} if cursor else {})))
        assert page["as_of"]["position"] == before
        found += [each["id"] for each in page["records"]]
        cursor = page["next_cursor"] or cursor
        if page["next_cursor"] is None:
            break
    assert found == ids[::-1]
    of_today = right(ann.post("/v1/records/query", {"query": {"tag": [tag]}, "limit": 1}))
    for wrong in (
        body | {"cursor": cursor, "as_of": before + 1},
        {name: value for name, value in body.items() if name != "as_of"} | {"cursor": cursor},
        body | {"cursor": of_today["next_cursor"]},
        body | {"cursor": "AAAA"},
    ):
        is_problem(ann.post("/v1/records/query", wrong), 422, "invalid_input")
    elsewhere = body | {"cursor": ListPages(uuid4(), Listing.past_records, (before,)).cursor(5)}
    answer = ann.post("/v1/records/query", elsewhere)
    assert "another ledger" in is_problem(answer, 422, "invalid_input")


def test_a_dataset_of_then_is_asked_for_by_its_names_of_then(ann: Visit) -> None:
    name = own_tag()
    dataset_id = right(ann.post("/v1/datasets", {"name": name}))["dataset_id"]
    path = f"/v1/datasets/{dataset_id}"
    ann.post(f"{path}/specifications", {"specification": {"name": "hf", "function": "f:g"}})
    ann.post(f"{path}/entries", {"entries": [{"name": "m1"}, {"name": "m2", "input": {"x": 2}}]})
    ann.post(f"{path}/submit", {})
    before = head(ann)
    ann.post(f"{path}/entries/rename", {"names": {"m1": "ice"}})
    ann.post(f"{path}/modify", {"new_name": name + "2"})

    def n_found(**query: Any) -> Any:
        answer = ann.post("/v1/records/query", {"query": query, "as_of": before})
        return len(answer.json()["records"]) if answer.status_code == 200 else answer.json()["code"]

    assert n_found(dataset=name) == 2
    assert n_found(dataset=dataset_id, entry=["m1"], specification=["hf"]) == 1
    assert n_found(dataset=name, entry=["ice"]) == "entry_not_found"
    assert n_found(dataset=name + "2") == "dataset_not_found"


def test_counts_are_those_of_then(ann: Visit) -> None:
    before = right(ann.get("/v1/records/counts"))["counts"]
    position = head(ann)
    ann.create(task(), task())
    then = right(ann.get("/v1/records/counts", params={"as_of": position}))
    assert then["counts"] == before
    assert then["as_of"]["position"] == position
    now = right(ann.get("/v1/records/counts", params={"as_of": head(ann)}))["counts"]
    assert now == right(ann.get("/v1/records/counts"))["counts"]


@pytest.mark.parametrize(
    ("as_of", "code"),
    [
        (10**12, "as_of_in_future"),
        (FAR, "as_of_in_future"),
        (0, "as_of_before_beginning"),
        ("2001-01-01T00:00:00Z", "as_of_before_beginning"),
        ("0001-01-01T00:00:00+14:00", "invalid_input"),
        ("2026-01-01", "invalid_input"),
        ("yesterday", "invalid_input"),
        (-1, "invalid_input"),
        (2**63, "invalid_input"),
        (1.5, "invalid_input"),
        (True, "invalid_input"),
        ([], "invalid_input"),
    ],
)
def test_a_moment_that_is_none_is_refused(ann: Visit, as_of: Any, code: str) -> None:
    ann.create(task())
    bodies = {
        "/v1/records/get": {"ids": [1], "missing_ok": True, "as_of": as_of},
        "/v1/records/query": {"as_of": as_of},
    }
    for path, body in bodies.items():
        is_problem(ann.post(path, body), 422, code)
    if as_of != []:
        is_problem(ann.get("/v1/records/counts", params={"as_of": as_of}), 422, code)
        is_problem(ann.get("/v1/diff", params={"a": as_of, "b": head(ann)}), 422, code)


def test_a_question_that_is_ahead_of_the_tables_is_to_be_asked_later(
    ann: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann.create(*[task() for _ in range(30)])
    monkeypatch.setattr(timeline, "BATCH", 2)
    monkeypatch.setattr(timeline, "CATCH_UP_MAX", 4)
    answer = ann.get("/v1/records/counts", params={"as_of": head(ann)})
    is_problem(answer, 503, "timeline_behind")
    assert answer.headers["retry-after"] == "5"
    while answer.status_code == 503:
        answer = ann.get("/v1/records/counts", params={"as_of": head(ann)})
    assert right(answer)["as_of"]["position"] == head(ann)


def test_the_job_of_the_server_follows_the_log(service: Service, ann: Visit) -> None:
    ann.create(task())
    jobs = {job.name: job for job in server_jobs()}
    assert jobs["timeline"].run(service.ledger) is None
    assert timeline.how_far(service.ledger).position == head(ann)
    timeline.forget(service.ledger)
    stop = Event()
    stop.set()
    jobs = {job.name: job for job in server_jobs(stop=stop)}
    assert jobs["timeline"].run(service.ledger) is None
    assert timeline.how_far(service.ledger).position == 0


def test_what_changed_is_told_record_by_record_and_in_numbers(ann: Visit) -> None:
    tag = own_tag()
    kept, held, gone = ann.create(*[task(tag=tag) for _ in range(3)])
    a = head(ann)
    (new,) = ann.create(task(tag=tag), reason="one more")
    ann.post("/v1/records/modify", {"ids": [held], "new_tag": tag + "x"})
    ann.post("/v1/records/hold", {"ids": [held], "reason": "not yet"})
    ann.post("/v1/records/erase", {"ids": [gone]})
    b = head(ann)
    ann.post("/v1/records/hold", {"ids": [kept]})
    found = right(ann.get("/v1/diff", params={"a": a, "b": b}))
    assert (found["a"]["position"], found["b"]["position"]) == (a, b)
    assert [each["record_id"] for each in found["changes"]] == [held, gone, new]
    change = found["changes"][0]
    assert change | {"happened_at": "", "operation_id": ""} == {
        "record_id": held,
        "from_status": "waiting",
        "to_status": "held",
        "from_tag": tag,
        "to_tag": tag + "x",
        "n_events": 2,
        "actors": ["user:ann"],
        "kind": "held",
        "actor": "user:ann",
        "action": "hold",
        "reason": "not yet",
        "happened_at": "",
        "operation_id": "",
    }
    assert found["counts"] == [
        {"from_status": None, "to_status": "waiting", "n_records": 1},
        {"from_status": "waiting", "to_status": None, "n_records": 1},
        {"from_status": "waiting", "to_status": "held", "n_records": 1},
    ]
    params = {"a": a, "b": b, "limit": 2}
    first = right(ann.get("/v1/diff", params=params))
    rest = right(ann.get("/v1/diff", params=params | {"cursor": first["next_cursor"]}))
    assert first["changes"] + rest["changes"] == found["changes"]
    assert (rest["counts"], rest["next_cursor"]) == (None, None)
    wrong = params | {"cursor": first["next_cursor"], "b": b + 1}
    is_problem(ann.get("/v1/diff", params=wrong), 422, "invalid_input")
    is_problem(ann.get("/v1/diff", params={"a": b, "b": a}), 422, "invalid_input")
    none = right(ann.get("/v1/diff", params={"a": a, "b": b, "to_status": "none"}))
    assert [each["record_id"] for each in none["changes"]] == [gone]
    tagged = right(ann.get("/v1/diff", params={"a": a, "b": b, "tag": (tag + "X")}))
    assert [each["record_id"] for each in tagged["changes"]] == [held]
    assert right(ann.get("/v1/diff", params={"a": b, "b": b}))["changes"] == []


# The clients -------------------------------------------------------------------------------------


def added(client: Client, *xs: int, tag: str = "default") -> list[int]:
    """Add records that are like no others; return their ids."""
    nonce = own_tag()
    ids = client.add_records("f:g", [{"nonce": nonce, "x": x} for x in xs], tag=tag).ids
    return [id_ for id_ in ids if id_ is not None]


def test_the_client_asks_about_then(client: Client, ann: Visit) -> None:
    tag = own_tag()
    ids = added(client, *range(5), tag=tag)
    before = head(ann)
    moment = datetime.now(UTC)
    client.hold_records(ids[:2])
    for as_of in (before, f"@{before}", moment, moment.replace(tzinfo=None).isoformat()):
        assert client.get_records(ids[0], as_of=as_of).status is Status.waiting
        found = client.get_records(ids, as_of=as_of)
        assert found.as_of is not None
        assert found.as_of.position == before
        assert found.counts == {Status.waiting: 5}
        waiting = client.query_records(tag=tag, status="waiting", as_of=as_of)
        assert [record.id for record in waiting] == ids[::-1]
        assert len(waiting.all()) == 5
        counts = client.counts(as_of=as_of)
        assert counts.as_of == found.as_of
    assert client.get_records(ids[0]).status is Status.held
    assert client.get_records(ids).as_of is None
    (later,) = added(client, 9, tag=tag)
    with pytest.raises(RecordsNotFound):
        client.get_records(later, as_of=before)
    assert client.get_records(later, as_of=before, missing_ok=True) is None
    for wrong in ("soon", -1, datetime(2026, 1, 1)):  # noqa: DTZ001
        with pytest.raises(InvalidArgument):
            client.counts(as_of=wrong)
    with pytest.raises(Refused) as refused:
        client.counts(as_of=datetime.now(UTC) + timedelta(days=1))
    assert refused.value.code == "as_of_in_future"


def test_the_client_goes_on_in_the_moment_of_the_first_page(client: Client, ann: Visit) -> None:
    tag = own_tag()
    ids = added(client, *range(300), tag=tag)
    then = client.query_records(tag=tag, as_of=head(ann))
    seen: list[Any] = []
    for page in then.pages():
        client.hold_records(ids[:1])
        seen.append(page.as_of)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert then.all().as_of == seen[0]


def test_the_client_tells_what_changed(client: Client, ann: Visit) -> None:
    ids = added(client, 1, 2, 3)
    a = head(ann)
    client.cancel_records(ids, reason="no \x1b[31m more")
    found = client.diff(a, head(ann))
    assert isinstance(found, Diff)
    assert [each.record_id for each in found] == ids
    assert found.counts == {(Status.waiting, Status.cancelled): 3}
    assert (found.is_complete, found.total) == (True, 3)
    assert "3 waiting -> cancelled" in repr(found)
    assert "\x1b" not in repr(found)
    part = client.diff(a, head(ann), limit=2, to_status=Status.cancelled)
    assert (len(part), part.is_complete, part.total) == (2, False, 3)
    assert client.diff(a, head(ann), from_status=["held", "none"], tag="default") == []
    with pytest.raises(InvalidArgument):
        client.diff(a, "later")
    with pytest.raises(InvalidArgument):
        client.diff(a, a, limit=0)


def test_so_does_the_client_for_asyncio(service: Service, ann: Visit) -> None:
    (record_id,) = ann.create(task())
    before = head(ann)
    ann.post("/v1/records/hold", {"ids": [record_id]})

    async def ask() -> None:
        async with AsyncClient(service.url, ann.secret, progress=False) as client:
            record = await client.get_records(record_id, as_of=before)
            assert record.status is Status.waiting
            found = await client.query_records(ids=[record_id], as_of=before).all()
            assert found == [record]
            assert found.as_of is not None
            assert found.as_of.position == before
            assert (await client.counts(as_of=before)).as_of == found.as_of
            assert [each.to_status for each in await client.diff(before, head(ann))] == ["held"]

    asyncio.run(ask())


def test_a_moment_is_read_as_it_is_written() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert [moment_in(each) for each in (7, "7", "@7")] == [7, 7, 7]
    assert moment_in("2026-01-01T00:00:00Z") == moment_in(moment) == moment
    for wrong in ("-7", "@", "", "2026-01-01", None, 1.0, False, "9" * 30):
        with pytest.raises(ValueError, match=r"."):
            moment_in(wrong)
