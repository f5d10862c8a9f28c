"""The log over HTTP: in order, in pages and as it happens, to all who may read it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from recordledger import AsyncClient
from recordledger.domain.admin.access import Role
from recordledger.projections.reading import event_log
from recordledger.projections.reading.event_log import KINDS, LogPage

from ..service import Service, Visit, eventually, is_problem, serving, task
from .test_datasets import made, right

STREAM = {"Accept": "text/event-stream"}


def page(visit: Visit, **asked: Any) -> dict[str, Any]:
    answer = visit.get("/v1/events", params=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def everything(visit: Visit, **asked: Any) -> list[dict[str, Any]]:
    """Read all pages."""
    found: list[dict[str, Any]] = []
    after = asked.pop("after", 0)
    while True:
        got = page(visit, after=after, **asked)
        found += got["events"]
        assert got["next_after"] > after or after == got["head"]
        after = got["next_after"]
        if after == got["head"]:
            return found


def n_followers_of(visit: Visit) -> int:
    (line,) = re.findall(r"^recordledger_followers (\d+)", visit.get("/metrics").text, re.MULTILINE)
    return int(line)


def head(visit: Visit) -> int:
    return int(page(visit, limit=1)["head"])


@contextmanager
def following(visit: Visit, **asked: Any) -> Generator[Iterator[str]]:
    """Follow the log; gives the lines of the stream."""
    headers = STREAM | asked.pop("headers", {})
    with visit.http.stream("GET", "/v1/events", params=asked, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        yield answer.iter_lines()


def take(lines: Iterator[str], n: int) -> list[dict[str, Any]]:
    """Read so many events of a stream."""
    found: list[dict[str, Any]] = []
    fields: dict[str, str] = {}
    while len(found) < n:
        line = next(lines)
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["position"]), event["kind"])
            found.append(event)
            fields = {}
    return found


def test_pages_have_every_event_of_the_log_once_and_in_order(service: Service, ann: Visit) -> None:
    after = head(ann)
    ids = ann.create(*[task() for _ in range(7)])
    ann.post("/v1/records/hold", {"ids": ids[:3]})
    ann.register("tag")
    found = everything(ann, after=after, limit=4)
    assert found == everything(ann, after=after, limit=1000)
    assert [each["position"] for each in found] == sorted({each["position"] for each in found})
    assert [(each["stream"], each["kind"]) for each in found] == [
        *[("record", "created")] * 7,
        *[("record", "held")] * 3,
        ("manager", "manager_registered"),
    ]
    assert [each["id"] for each in found[:7]] == ids
    with service.ledger.datastore.reading() as db:
        n_events = db.execute("SELECT count(*) FROM ledger_events WHERE topic !~ '^token'")
        assert [(len(everything(ann, limit=1000)),)] == n_events.fetchall()


def test_an_event_of_the_log_is_that_of_the_record_s_history(ann: Visit) -> None:
    (record_id,) = ann.create(task(), reason="why not")
    ann.post("/v1/records/comment", {"ids": [record_id], "text": "looks odd"})
    history = ann.get(f"/v1/records/{record_id}/events").json()["events"]
    found = everything(ann, record=record_id)
    assert found == [{"stream": "record", "id": record_id, **each} for each in history]
    assert found[-1]["data"]["text"] == "looks odd"


def test_of_an_erased_record_nothing_is_told_that_was_said(ann: Visit) -> None:
    erased, other = ann.create(task(), task())
    ann.post("/v1/records/comment", {"ids": [erased, other], "text": "said of both"})
    ann.post("/v1/records/erase", {"ids": [erased], "reason": "wrong"})
    texts = {each["id"]: each["data"]["text"] for each in everything(ann, kind="commented")[-2:]}
    assert texts[other] == "said of both"
    assert texts[erased]["erased"] is True


def test_what_happens_to_tokens_is_not_told(ann: Visit) -> None:
    after = head(ann)
    ann.post("/v1/tokens", {"user": "eve", "role": "reader"})
    assert head(ann) > after
    assert everything(ann, after=after) == []
    is_problem(ann.get("/v1/events", params={"kind": "token_issued"}), 422, "invalid_input")


def test_filters_are_met_together_and_their_values_by_any(service: Service, ann: Visit) -> None:
    after = head(ann)
    bob = service.visit(Role.user, "bob")
    (x,) = bob.create(task(tag="GPU"))
    y, z = ann.create(task(tag="gpu"), task(tag="cpu"))
    ann.post("/v1/records/hold", {"ids": [x, y, z]})

    def told(**asked: Any) -> list[tuple[int, str]]:
        found = everything(ann, after=after, **asked)
        return [(each["id"], each["kind"]) for each in found]

    assert told(tag="gpu") == [(x, "created"), (y, "created"), (x, "held"), (y, "held")]
    assert told(kind="held", tag=["gpu", "cpu"]) == [(x, "held"), (y, "held"), (z, "held")]
    assert told(actor="user:bob") == [(x, "created")]
    assert told(actor="user:bo") == []
    assert told(actor=["user:bob", "user:ann"], record=[x, z]) == [
        (x, "created"),
        (z, "created"),
        (x, "held"),
        (z, "held"),
    ]
    assert told(kind="completed") == []


def test_an_actor_is_not_mistaken_for_words_that_others_say(service: Service, ann: Visit) -> None:
    after = head(ann)
    actor = "user:" + "b" * 123
    bob = service.visit(Role.user, actor.removeprefix("user:"))
    bob.create(task())
    # The same bytes as those of a field in the stored event.
    ann.create(task(), reason=f"\u00e5actor\u0640{actor}")
    assert [each["actor"] for each in everything(ann, after=after, actor=actor)] == [actor]


def test_a_dataset_has_its_own_events_and_those_of_its_records(ann: Visit) -> None:
    after = head(ann)
    path = made(ann, 12, "hf")
    dataset_id = int(path.rpartition("/")[2])
    right(ann.post(f"{path}/submit"))
    ann.create(task())
    found = everything(ann, after=after, dataset=dataset_id)
    streams = [each["stream"] for each in found]
    assert streams.count("record") == 12
    assert {each["id"] for each in found if each["stream"] == "dataset"} == {dataset_id}
    (added,) = (each for each in found if each["kind"] == "entries_added")
    assert len(added["data"]["names"]) == 10
    assert added["data"]["n_names"] == 12


def test_a_page_looks_at_a_limited_part_of_the_log_and_says_how_far(
    ann: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = head(ann)
    ids = ann.create(*[task() for _ in range(25)])
    ann.post("/v1/records/hold", {"ids": ids[-1:]})
    monkeypatch.setattr(event_log, "SCAN_MAX", 10)
    first = page(ann, after=after, kind="held")
    assert (first["events"], first["next_after"]) == ([], after + 10)
    assert [each["id"] for each in everything(ann, after=after, kind="held")] == ids[-1:]
    found = page(ann, after=after, record=ids[-1])
    assert (len(found["events"]), found["next_after"]) == (2, found["head"])


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_a_position_that_the_log_does_not_have_is_refused(
    ann: Visit, headers: dict[str, str]
) -> None:
    def ask(after: object) -> httpx2.Response:
        return ann.get("/v1/events", params={"after": after}, headers=headers)

    is_problem(ask(head(ann) + 1), 422, "beyond_head")
    for wrong in (-1, 2**63, "x"):
        is_problem(ask(wrong), 422, "invalid_input")


@pytest.mark.parametrize("given", ["x", "-1", "1.5", str(2**63), "9" * 30])
def test_a_last_event_id_that_is_no_position_is_refused(ann: Visit, given: str) -> None:
    answer = ann.get("/v1/events", headers={**STREAM, "Last-Event-ID": given})
    is_problem(answer, 422, "invalid_input")


def test_every_kind_but_those_of_tokens_can_be_asked_for(ann: Visit) -> None:
    assert len(KINDS) > 50
    page(ann, kind=list(KINDS))


def test_a_follower_gets_what_was_and_what_happens(ann: Visit) -> None:
    after = head(ann)
    before = ann.create(task(), task())
    with following(ann, after=after) as lines:
        assert [each["id"] for each in take(lines, 2)] == before
        found: list[dict[str, Any]] = []
        for _ in range(3):
            ids = ann.create(task(), task())
            found = take(lines, 2)
            assert [each["id"] for each in found] == ids
    assert found == everything(ann, after=found[0]["position"] - 1)


def test_a_stream_goes_on_after_the_last_event_id_and_not_after_the_address(ann: Visit) -> None:
    after = head(ann)
    ids = ann.create(task(), task(), task())
    with following(ann, after=0, headers={"Last-Event-ID": str(after)}) as lines:
        first, _ = take(lines, 2)
    assert first["id"] == ids[0]
    with following(ann, headers={"Last-Event-ID": str(first["position"])}) as lines:
        assert [each["id"] for each in take(lines, 2)] == ids[1:]


def test_a_follower_is_told_only_what_it_asks_for(service: Service, ann: Visit) -> None:
    bob = service.visit(Role.user, "bob")
    (watched,) = ann.create(task(tag="watched"))
    path = made(ann, 1)
    asked: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({"kind": "held"}, [("record", "held")]),
        ({"tag": "WATCHED"}, [("record", "held"), ("record", "released")]),
        ({"record": watched}, [("record", "held"), ("record", "released")]),
        ({"actor": "user:bob"}, [("record", "created")]),
        ({"dataset": path.rpartition("/")[2]}, [("dataset", "dataset_described")]),
    ]
    after = head(ann)
    # All of them are there before anything happens, so that it reaches them through the buffer.
    streams = [following(ann, after=after, **which) for which, _ in asked]
    opened = [stream.__enter__() for stream in streams]
    for lines in opened:
        assert next(lines) == ": nothing new"
    bob.create(task())
    ann.post("/v1/records/hold", {"ids": [watched]})
    ann.post("/v1/records/release", {"ids": [watched]})
    right(ann.post(f"{path}/modify", {"new_description": "new"}))
    for lines, (_, expected) in zip(opened, asked, strict=True):
        found = take(lines, len(expected))
        assert [(each["stream"], each["kind"]) for each in found] == expected
    for stream in streams:
        stream.__exit__(None, None, None)


def test_a_follower_hears_that_nothing_has_happened_and_up_to_where(database_url: str) -> None:
    with serving(database_url, follow_heartbeat_s=0.1) as service:
        ann = service.visit()
        ann.create(task())
        with following(ann, kind="held") as lines:
            at = f"id: {head(ann)}"
            while next(lines) != at:
                pass
            assert [next(lines), next(lines)] == ["", ": nothing new"]


def test_a_follower_whose_token_is_revoked_is_let_go(database_url: str) -> None:
    with serving(database_url, follow_heartbeat_s=0.05, token_cache_s=0.0) as service:
        ann = service.visit()
        new = ann.post("/v1/tokens", {"user": "eve", "role": "reader"}).json()
        with following(service.visit_with(new["secret"])) as lines:
            assert next(lines) == ": nothing new"
            ann.post(f"/v1/tokens/{new['token']['id']}/revoke")
            assert all(not line.startswith("data") for line in lines)


def test_the_server_ends_while_somebody_follows(database_url: str) -> None:
    with serving(database_url, shutdown_timeout_s=600) as service:
        opened = following(service.visit())
        lines = opened.__enter__()
        assert next(lines) == ": nothing new"
        service.server.should_exit = True
        assert list(lines)[-1] == ""
        opened.__exit__(None, None, None)


def test_more_followers_than_the_server_lets_are_refused(database_url: str) -> None:
    with serving(database_url, followers_max=1) as service:
        ann = service.visit()
        with following(ann) as lines:
            assert next(lines) == ": nothing new"
            assert "recordledger_followers 1.0" in ann.get("/metrics").text
            assert "recordledger_requests_in_flight 1.0" in ann.get("/metrics").text
            is_problem(ann.get("/v1/events", headers=STREAM), 503, "too_many_followers")
            page(ann)
        eventually(lambda: "recordledger_followers 0.0" in ann.get("/metrics").text)
        with following(ann) as lines:
            assert next(lines) == ": nothing new"


def test_a_follower_that_is_slower_than_the_buffer_misses_nothing(database_url: str) -> None:
    with serving(database_url, follow_buffer=5) as service:
        ann, slow = service.visit(), service.visit()
        padding = "x" * 4_000
        with following(slow) as lines, following(ann) as fast:
            assert next(lines) == ": nothing new"
            ids: list[int] = []
            for _ in range(40):
                ids += ann.create(*[task() for _ in range(40)], reason=padding)
                assert [each["id"] for each in take(fast, 40)] == ids[-40:]
            # Only now does it read: most of it was not in the buffer when there was room for it.
            assert [each["id"] for each in take(lines, len(ids))] == ids


def test_many_followers_cost_one_reader(
    service: Service, ann: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_thread = Counter[bool]()

    def counted(*given: Any) -> LogPage:
        by_thread[threading.current_thread().name == "log reader"] += 1
        return page_of_log(*given)

    page_of_log = event_log.page
    monkeypatch.setattr(event_log, "page", counted)
    after, n_followers, n_events = head(ann), 60, 40
    by_thread.clear()

    async def follow(client: AsyncClient) -> list[int]:
        events = client.events(after=after, kind="created", follow=True)
        async with contextlib.aclosing(events):
            return [(await anext(events)).id for _ in range(n_events)]

    async def main() -> list[list[int]]:
        async with AsyncClient(service.url, ann.secret) as client:
            async with asyncio.TaskGroup() as group:
                following = [group.create_task(follow(client)) for _ in range(n_followers)]
                await asyncio.to_thread(eventually, lambda: n_followers_of(ann) == n_followers)
                ids.extend(
                    [(await asyncio.to_thread(ann.create, task()))[0] for _ in range(n_events)]
                )
            return [each.result() for each in following]

    ids: list[int] = []
    assert asyncio.run(main()) == [ids] * n_followers
    # One page each when they come; everything else was read once.
    assert by_thread[False] == n_followers
    assert 0 < by_thread[True] <= 2 * n_events + 20


def test_an_event_that_the_server_does_not_know_is_never_passed_over(database_url: str) -> None:
    insert = """INSERT INTO ledger_events (originator_id, originator_version, topic, state)
                SELECT originator_id, 2, 'from_the_future', state
                  FROM ledger_events WHERE topic = 'created'"""
    with serving(database_url) as service:
        ann = service.visit()
        ann.create(task())
        with following(ann) as lines:
            take(lines, 1)
            with service.ledger.datastore.writing() as db:
                db.execute(insert)
            assert list(lines)[-1] == ""
        is_problem(ann.get("/v1/events", headers=STREAM), 500, "unknown_event")
        is_problem(ann.get("/v1/events"), 500, "unknown_event")


@pytest.mark.parametrize("name", ["tag", "actor", "kind"])
def test_a_condition_that_nothing_can_meet_is_refused_or_met_by_nothing(
    ann: Visit, name: str
) -> None:
    for value in ("\0", "x" * 5_000, "", "\ud7ff\u202e"):
        answer = ann.get("/v1/events", params={name: value})
        assert answer.status_code in (200, 422), answer.text


def test_what_was_said_is_not_in_the_buffer_when_it_was_erased(ann: Visit) -> None:
    (record_id,) = ann.create(task())
    after = head(ann)
    with following(ann, after=after) as lines:
        # More than are read from the log when somebody comes.
        for n_records in (300, 300):
            ann.create(*[task() for _ in range(n_records)])
        ann.post("/v1/records/comment", {"ids": [record_id], "text": "to be forgotten"})
        assert take(lines, 601)[-1]["data"]["text"] == "to be forgotten"
        ann.post("/v1/records/erase", {"ids": [record_id], "reason": "wrong"})
        assert take(lines, 1)[0]["kind"] == "erased"
        with following(ann, after=after) as late:
            assert take(late, 601)[-1]["data"]["text"]["erased"] is True
