"""Following the log with both clients, over connections that break at any byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    InvalidArgument,
    LogEvent,
    NotConnected,
    NotFound,
    Refused,
    ServerFault,
)
from recordledger.api.client.calls.events import Feed, events
from recordledger.api.client.exchange import Reply, Send, Session
from recordledger.domain.admin.access import Role
from tests.postgres import new_database

from ..service import Service, eventually, serving, task

FUNCTION = "package.module:function"


class Cutter:
    """A relay to a server that breaks each connection after so many bytes of answers."""

    def __init__(self, url: str, seed: int, bytes_max: int) -> None:
        address = urlsplit(url)
        self._target = (address.hostname, address.port)
        self._random = random.Random(seed)  # noqa: S311
        self._bytes_max = bytes_max
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.n_cut = 0
        self.calm = False

    def __enter__(self) -> Cutter:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                cut_at = self._random.randrange(1, self._bytes_max)
                for relay in (
                    threading.Thread(target=self._relay, args=(client, server, None)),
                    threading.Thread(target=self._relay, args=(server, client, cut_at)),
                ):
                    self._threads.append(relay)
                    relay.start()

    def _relay(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if left is not None and not self.calm:
                    data, left = data[:left], left - len(data)
                sink.sendall(data)
                if left is not None and left <= 0:
                    self.n_cut += 1
                    break
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server for this module, with a small buffer, so that those who are away fall behind."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=6, follow_buffer=50, follow_heartbeat_s=0.5) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    secret = service.visit(Role.admin).secret
    assert secret is not None
    return secret


@pytest.fixture
def client(service: Service, token: str) -> Iterator[Client]:
    with Client(service.url, token) as made:
        yield made


class Following:
    """A thread that follows the log until it is told to end."""

    def __init__(self, events: Iterator[LogEvent], wanted: int) -> None:
        self.found: list[LogEvent] = []
        self._thread = threading.Thread(target=self._run, args=(events, wanted))
        self._thread.start()

    def _run(self, events: Iterator[LogEvent], wanted: int) -> None:
        for event in events:
            self.found.append(event)
            if len(self.found) == wanted:
                return

    def join(self) -> list[LogEvent]:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"only {len(self.found)} events came"
        return self.found


def head(client: Client) -> int:
    return max((each.position for each in client.events()), default=0)


def write(service: Service, n_writers: int, n_each: int) -> None:
    """Let several write at once: single records and batches, so that commits meet."""

    def work(number: int) -> None:
        visit = service.visit(user=f"writer{number}")
        left = n_each
        sizes = random.Random(number)  # noqa: S311
        while left:
            n_records = min(left, sizes.choice((1, 1, 2, 5, 30)))
            visit.create(*[task() for _ in range(n_records)])
            left -= n_records

    with ThreadPoolExecutor(n_writers) as pool:
        list(pool.map(work, range(n_writers)))


def test_the_iteration_ends_at_the_head(client: Client) -> None:
    after = head(client)
    added = client.add_records(FUNCTION, [{"x": n, "of": after} for n in range(5)])
    found = list(client.events(after=after))
    assert [each.id for each in found] == added.ids
    assert {each.stream for each in found} == {"record"}
    assert list(client.events(after=found[-1].position)) == []


def test_conditions_are_met_by_what_is_found(client: Client) -> None:
    after = head(client)
    ids = client.add_records(FUNCTION, [{"x": n, "of": after} for n in range(3)], tag="Rare").ids
    client.hold_records(ids[0])
    dataset = client.add_dataset("conditions")

    def found(**conditions: Any) -> list[tuple[int, str]]:
        return [(each.id, each.kind) for each in client.events(after=after, **conditions)]

    assert found(kind="held") == [(ids[0], "held")]
    assert found(record=ids[:2], kind=["created", "held"]) == [
        (ids[0], "created"),
        (ids[1], "created"),
        (ids[0], "held"),
    ]
    assert len(found(tag="rare")) == 4
    assert found(dataset="conditions") == [(dataset.id, "dataset_created")]
    assert found(dataset=dataset.id) == [(dataset.id, "dataset_created")]
    assert found(actor="user:nobody") == []


@pytest.mark.parametrize("follow", [False, True])
def test_what_cannot_be_asked_for_is_refused(client: Client, follow: bool) -> None:
    with pytest.raises(InvalidArgument):
        client.events(after=-1, follow=follow)
    with pytest.raises(InvalidArgument):
        client.events(record=0, follow=follow)
    with pytest.raises(Refused, match="no kind of event"):
        next(client.events(kind="wrong", follow=follow))
    with pytest.raises(Refused, match="beyond that"):
        next(client.events(after=10**12, follow=follow))
    with pytest.raises(NotFound):
        next(client.events(dataset="nowhere", follow=follow))


def test_a_follower_may_begin_with_what_happens_next(service: Service, client: Client) -> None:
    service.visit().create(task())
    events = client.events(after=None, kind="created", follow=True)
    following = Following(events, 1)
    eventually(lambda: "recordledger_followers 1.0" in service.visit().get("/metrics").text)
    (record_id,) = service.visit().create(task())
    assert [each.id for each in following.join()] == [record_id]


def test_followers_of_broken_connections_get_each_event_once_and_in_order(
    service: Service, token: str, client: Client
) -> None:
    after, n_events = head(client), 2_000

    async def follow(url: str) -> list[LogEvent]:
        found: list[LogEvent] = []
        async with AsyncClient(url, token) as there:
            async for event in there.events(after=after, kind="created", follow=True):
                found.append(event)
                if len(found) == n_events:
                    break
        return found

    with (
        Cutter(service.url, 1, 150_000) as first,
        Cutter(service.url, 2, 200_000) as second,
        Client(first.url, token) as there,
        ThreadPoolExecutor(1) as pool,
    ):
        blocking = Following(there.events(after=after, follow=True, kind="created"), n_events)
        awaited = pool.submit(lambda: asyncio.run(follow(second.url)))
        write(service, 4, n_events // 4)
        found = blocking.join(), awaited.result(60)
        assert first.n_cut > 5
        assert second.n_cut > 2
    expected = [each.position for each in client.events(after=after, kind="created")]
    assert len(expected) == n_events
    for each in found:
        assert [event.position for event in each] == expected


def opened(feed: Feed) -> str:
    """Open a feed without any server; return the address that it asks for."""
    opening = feed.open()
    step = next(opening)
    while not isinstance(step, Send):
        step = opening.send(None)
    with pytest.raises(StopIteration):
        opening.send(Reply(200, {}, b"", object()))
    return step.path


def test_a_stream_may_be_cut_at_any_byte(client: Client) -> None:
    client.add_records(FUNCTION, [{"cut": n} for n in range(3)])
    expected = list(client.events())[-3:]
    after = expected[0].position - 1

    def stream(after: int) -> bytes:
        frames = [
            f"id: {each.position}\nevent: created\ndata: {each.model_dump_json()}\n\n"
            for each in expected
            if each.position > after
        ]
        return "".join([*frames, f": nothing new\nid: {expected[-1].position}\n\n"]).encode()

    for cut in range(len(stream(after))):
        feed = events(Session("http://nowhere"), after=after)
        assert opened(feed) == f"/v1/events?after={after}"
        found = list(feed.events_in(stream(after)[:cut]))
        reached = max([after, *(each.position for each in found)])
        assert opened(feed) == f"/v1/events?after={reached}"
        found += feed.events_in(stream(reached))
        assert found == expected


def test_a_heartbeat_says_from_where_to_go_on_and_a_stream_of_something_else_is_refused() -> None:
    feed = events(Session("http://nowhere"), after=7, kind="held")
    opened(feed)
    assert list(feed.events_in(b": nothing new\nid: 411\n\n")) == []
    assert opened(feed) == "/v1/events?after=411&kind=held"
    with pytest.raises(ServerFault, match="cannot read"):
        list(feed.events_in(b"<html>\n\n"))


def test_a_follower_waits_for_a_server_that_was_restarted(
    postgres_server_url: str, migrated_template: str
) -> None:
    with new_database(postgres_server_url, template=migrated_template) as url:
        with serving(url) as first:
            port = urlsplit(first.url).port or 0
            visit = first.visit()
            assert visit.secret is not None
            client = Client(first.url, visit.secret)
            events = client.events(kind="created", follow=True)
            (before,) = visit.create(task())
            assert next(events).id == before
        with serving(url, port=port) as second:
            (after,) = second.visit().create(task())
            assert next(events).id == after
        client.close()


def test_a_server_that_stays_away_is_given_up_after_retries_s(
    postgres_server_url: str, migrated_template: str
) -> None:
    with new_database(postgres_server_url, template=migrated_template) as url:
        with serving(url) as service:
            visit = service.visit()
            client = Client(service.url, visit.secret, retries_s=0.2)
            events = client.events(kind="created", follow=True)
            visit.create(task())
            next(events)
        with pytest.raises(NotConnected):
            next(events)
        client.close()


def test_a_client_that_is_closed_follows_no_more(service: Service, token: str) -> None:
    client = Client(service.url, token)
    events = client.events(follow=True)
    service.visit().create(task())
    next(events)
    client.close()
    with pytest.raises(NotConnected, match="closed"):
        list(events)


def test_async_events_end_at_the_head_and_can_be_left(service: Service, token: str) -> None:
    ids = service.visit().create(task(), task())

    async def main() -> None:
        async with AsyncClient(service.url, token) as client:
            found = [each async for each in client.events(record=ids)]
            assert [each.id for each in found] == ids
            following = client.events(record=ids, follow=True)
            assert [(await anext(following)).id for _ in ids] == ids

    asyncio.run(main())


def test_a_history_can_be_asked_for_in_part(service: Service, client: Client) -> None:
    (record_id,) = service.visit().create(task())
    client.hold_records(record_id)
    client.release_records(record_id)
    held_at = client.history(record_id)[1].timestamp

    def kinds(**conditions: Any) -> list[str]:
        return [event.kind for event in client.history(record_id, **conditions)]

    assert kinds(kind="held") == ["held"]
    assert kinds(kind=["held", "released"], actor="user:ann") == ["held", "released"]
    assert kinds(actor=["user:bob", "user:eve"]) == []
    assert kinds(after=held_at) == ["held", "released"]
    assert kinds(before=held_at) == ["created"]
    assert kinds(after=held_at, before=held_at) == []
    with pytest.raises(InvalidArgument, match="no time zone"):
        kinds(after=held_at.replace(tzinfo=None))
    with pytest.raises(Refused, match="no kind of event"):
        kinds(kind="wrong")
