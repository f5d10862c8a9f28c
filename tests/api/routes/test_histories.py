"""Histories over HTTP and with both clients: of an operation, a user, a dataset, a manager."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import InvalidArgument, NotFound, Refused, Timeline
from recordledger.domain.admin.access import Role

from ..service import Service, Visit, is_problem, task
from .test_datasets import made, right


@pytest.fixture
def dora(service: Service) -> tuple[Visit, str]:
    """Return a visitor whom nobody else is, and the name."""
    name = f"dora {uuid4().hex[:8]}"
    return service.visit(Role.admin, name), name


@pytest.fixture
def client(service: Service, dora: tuple[Visit, str]) -> Iterator[Client]:
    with Client(service.url, dora[0].secret) as made_client:
        yield made_client


def pages(visit: Visit, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:
    """Give the events of each page."""
    cursor: dict[str, str] = {}
    while True:
        answer = right(visit.get(path, params=query | cursor))
        yield answer["events"]
        if answer["next_cursor"] is None:
            return
        cursor = {"cursor": answer["next_cursor"]}


def test_what_a_user_did_is_found_in_both_directions(dora: tuple[Visit, str]) -> None:
    visit, name = dora
    first, second = visit.create(task(), task())
    visit.post("/v1/records/hold", {"ids": [first], "reason": "not yet"})
    path = made(visit, 2)
    whole = [each for page in pages(visit, "/v1/users/events", user=name) for each in page]
    assert [(each["stream"], each["id"], each["kind"]) for each in whole] == [
        ("dataset", int(path.rpartition("/")[2]), "entries_added"),
        ("dataset", int(path.rpartition("/")[2]), "dataset_created"),
        ("record", first, "held"),
        ("record", second, "created"),
        ("record", first, "created"),
    ]
    assert {each["actor"] for each in whole} == {f"user:{name}"}
    for size in (1, 2, 5):
        found = list(pages(visit, "/v1/users/events", user=name, newest_first=False, limit=size))
        assert [each for page in found for each in page] == whole[::-1]
        assert all(len(page) <= size for page in found)
    held_at = whole[2]["timestamp"]
    [since] = pages(visit, "/v1/users/events", user=name, after=held_at)
    [until] = pages(visit, "/v1/users/events", user=name, before=held_at)
    assert (since, until) == (whole[:3], whole[3:])
    [some] = pages(visit, "/v1/users/events", user=name, kind=["held", "entries_added"])
    assert some == [whole[0], whole[2]]
    assert list(pages(visit, "/v1/users/events", user="nobody")) == [[]]


def test_pages_stop_where_the_times_are_past(dora: tuple[Visit, str]) -> None:
    visit, name = dora
    visit.create(task(), task(), task())
    later = (datetime.fromisoformat("2100-01-01T00:00:00+00:00")).isoformat()
    answer = right(visit.get("/v1/users/events", params={"user": name, "after": later, "limit": 1}))
    assert answer == {"events": [], "next_cursor": None}


def test_what_an_operation_did_is_paged_record_by_record(dora: tuple[Visit, str]) -> None:
    visit, _ = dora
    ids = visit.create(*(task() for _ in range(5)))
    done = right(visit.post("/v1/records/cancel", {"ids": ids, "reason": "no use"}))
    path = f"/v1/operations/{done['operation_id']}/events"
    found = [each for page in pages(visit, path, limit=2) for each in page]
    assert [(each["id"], each["kind"], each["reason"]) for each in found] == [
        (id_, "cancelled", "no use") for id_ in ids
    ]
    assert [len(page) for page in pages(visit, path, limit=2, kind="held")] == [0, 0, 0]
    is_problem(visit.get(f"/v1/operations/{uuid4()}/events"), 404, "operation_not_found")


def test_a_dataset_s_history_goes_on_with_its_records(dora: tuple[Visit, str]) -> None:
    visit, _ = dora
    path = made(visit, 3, "hf")
    right(visit.post(f"{path}/submit", {}))
    [own] = pages(visit, f"{path}/events")
    kinds = [each["kind"] for each in own]
    assert kinds == ["dataset_created", "specification_added", "entries_added", "records_linked"]
    records = own[-1]["data"]["record_ids"]
    visit.post("/v1/records/hold", {"ids": records[1:]})
    for size in (1, 2, 3, 4, 5, 100):
        found = [
            each
            for page in pages(visit, f"{path}/events", records=True, limit=size)
            for each in page
        ]
        assert found[: len(own)] == own
        assert [(each["id"], each["kind"]) for each in found[len(own) :]] == [
            (records[0], "created"),
            (records[1], "created"),
            (records[1], "held"),
            (records[2], "created"),
            (records[2], "held"),
        ]
    [held] = pages(visit, f"{path}/events", records=True, kind="held")
    assert [each["id"] for each in held] == records[1:]


def test_a_cursor_of_one_history_is_none_of_another(dora: tuple[Visit, str]) -> None:
    visit, name = dora
    ids = visit.create(task(), task())
    done = right(visit.post("/v1/records/hold", {"ids": ids}))
    path = f"/v1/operations/{done['operation_id']}/events"
    cursor = right(visit.get(path, params={"limit": 1}))["next_cursor"]
    for other in ("/v1/users/events", f"{made(visit, 0)}/events"):
        answer = visit.get(other, params={"cursor": cursor, "user": name})
        assert "another list" in is_problem(answer, 422, "invalid_input")
    newest = {"user": name, "limit": 1}
    turned = right(visit.get("/v1/users/events", params=newest))["next_cursor"]
    answer = visit.get("/v1/users/events", params={**newest, "newest_first": 0, "cursor": turned})
    is_problem(answer, 422, "invalid_input")


def test_both_clients_read_histories(client: Client, service: Service) -> None:
    ids = client.add_records("package.module:f", [{"x": uuid4().hex}, {"x": uuid4().hex}]).ids
    done = client.hold_records(ids, reason="why not")
    assert done.operation_id is not None
    found = client.operation_history(done.operation_id)
    assert [each.id for each in found] == ids
    assert "held it (why not)" in found.in_words
    user = client.server().user
    mine = client.user_history(user, limit=3)
    assert [each.kind for each in mine] == ["held", "held", "created"]
    assert client.user_history(user, newest_first=False, kind="held", limit=None) == found
    hour = timedelta(hours=1)
    assert client.user_history(user, before=found[0].timestamp - hour) == []
    dataset = client.add_dataset(f"water {uuid4().hex}")
    assert [each.kind for each in dataset.history(records=True)] == ["dataset_created"]
    assert dataset.history(kind="dataset_deleted") == []
    manager_id = client.register_manager("node", ["gpu"]).manager_id
    assert len(client.manager_history(manager_id)) == 1
    assert len(client.manager_history(manager_id, kind="manager_draining")) == 0
    with pytest.raises(NotFound):
        client.operation_history(uuid4())
    with pytest.raises(InvalidArgument):
        client.operation_history("none")
    with pytest.raises(Refused):
        client.user_history(user, kind="wrong")

    async def read() -> Any:
        async with AsyncClient(service.url, client.session.token) as other:
            timeline = await other.timeline(ids[0] or 0)
            return timeline, await other.operation_history(done.operation_id or "")

    timeline, again = asyncio.run(read())
    assert again == found
    assert isinstance(timeline, Timeline)
    assert [each.status for each in timeline.periods] == ["waiting", "held"]


def test_a_timeline_is_what_the_history_says(ann: Visit) -> None:
    (record_id,) = ann.create(task(tag="timeline"))
    manager_id = ann.register("timeline")
    ann.claim(manager_id)
    found = right(ann.get(f"/v1/records/{record_id}/timeline"))
    created, claimed = right(ann.get(f"/v1/records/{record_id}/events"))["events"]
    waiting, running = found["periods"]
    assert (waiting["start"], waiting["end"]) == (created["timestamp"], claimed["timestamp"])
    assert (running["status"], running["attempt"], running["manager_id"]) == (
        "running",
        1,
        manager_id,
    )
    assert running["end"] is None
    started, now = map(datetime.fromisoformat, (running["start"], found["as_of"]))
    assert running["duration_s"] == pytest.approx((now - started).total_seconds())
    is_problem(ann.get(f"/v1/records/{2**50}/timeline"), 404, "not_found")
