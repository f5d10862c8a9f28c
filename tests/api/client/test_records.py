"""Both clients against a real server over a real socket, and through a proxy that does harm."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Protocol, assert_type, cast
from urllib.parse import urlsplit

import httpx2
import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    AsyncFoundRecords,
    Counts,
    Forbidden,
    InsertMetadata,
    InvalidArgument,
    NotConnected,
    NotFound,
    Record,
    Records,
    RecordsNotFound,
    RecordSpec,
    Refused,
    ServerFault,
    Unauthorized,
    WaitTimeout,
)
from recordledger.api.schemas.claims import AttemptRef, ClaimAnswer
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.admin.access import Role
from recordledger.domain.records.status import Status
from recordledger.projections.actions.tokens import issue_token
from tests.acceptance.proxy import Fault
from tests.acceptance.proxy import Proxy as TcpProxy
from tests.postgres import new_database

from ..service import eventually, serving

FUNCTION = "package.module:function"
RECORDS_PER_REQUEST = 40
BODY_BYTES = 256 * 1024
ANSWER_BYTES = 300 * 1024


# The server, and a proxy before it


@dataclass(frozen=True)
class Running:
    """A server that runs, and an administrator's token."""

    url: str
    token: str


@pytest.fixture(scope="module")
def server(postgres_server_url: str, migrated_template: str) -> Iterator[Running]:
    """A server with small limits, on a ledger that the tests of this module share."""
    with (
        new_database(postgres_server_url, template=migrated_template) as database_url,
        serving(
            database_url,
            records_per_request=RECORDS_PER_REQUEST,
            results_per_request=10,
            body_bytes_max=BODY_BYTES,
            answer_bytes_max=ANSWER_BYTES,
            token_cache_s=0,
        ) as service,
    ):
        yield Running(service.url, issue_token(service.ledger, "alice", Role.admin).secret)


@dataclass(frozen=True)
class Passed:
    """A request that came through the proxy, and what was done to it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    fault: str | None

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


@dataclass
class Proxy:
    """A reverse proxy that does planned harm, in order, to requests for a path."""

    url: str
    target: str
    token: str
    passed: list[Passed] = field(default_factory=list[Passed])
    planned: deque[tuple[str, str]] = field(default_factory=deque[tuple[str, str]])
    goes_on: threading.Event = field(default_factory=threading.Event)

    def plan(self, path: str, *faults: str) -> None:
        self.planned += [(path, fault) for fault in faults]

    def to(self, path: str) -> list[Passed]:
        return [request for request in self.passed if request.path.endswith(path)]

    @property
    def fired(self) -> list[str]:
        return [request.fault for request in self.passed if request.fault]

    def handle(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("content-length", 0)))
        fault = None
        if self.planned and asked.path.endswith(self.planned[0][0]):
            fault = self.planned.popleft()[1]
        headers = {name.lower(): value for name, value in asked.headers.items()}
        self.passed.append(Passed(asked.command, asked.path, headers, body, fault))
        asked.close_connection = fault is not None
        match fault:
            case "lost on the way":
                return
            case "busy":
                self._answer(asked, 503, {"Retry-After": "0.05"}, b"")
                return
            case "busy for long":
                self._answer(asked, 503, {"Retry-After": "3600"}, b"")
                return
            case "bad gateway":
                self._answer(asked, 502, {"Content-Type": "text/html"}, b"<h1>502</h1>")
                return
            case "login page":
                self._answer(asked, 200, {"Content-Type": "text/html"}, b"<h1>Log in</h1>")
                return
            case "moved":
                self._answer(asked, 307, {"Location": "https://elsewhere.example"}, b"")
                return
            case _:
                pass
        status, sent, answer = self._forward(asked, headers, body)
        match fault:
            case "answer lost":
                return
            case "answer cut":
                # Half of what Content-Length promises.
                self._answer(asked, status, sent, answer[: len(answer) // 2], len(answer))
            case "answer late":
                self.goes_on.wait(10)
            case _:
                self._answer(asked, status, sent, answer)

    def _forward(
        self, asked: BaseHTTPRequestHandler, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=20)
        try:
            connection.request(asked.command, asked.path, body, headers)
            response = connection.getresponse()
            kept = {
                name: value
                for name, value in response.getheaders()
                if name.lower() in ("content-type", "content-encoding", "retry-after")
            }
            return response.status, kept, response.read()
        finally:
            connection.close()

    def _answer(
        self,
        asked: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        promised: int | None = None,
    ) -> None:
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.send_header("Content-Length", str(len(body) if promised is None else promised))
        asked.end_headers()
        asked.wfile.write(body)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: that clients go away is what is tested."""


@pytest.fixture
def proxy(server: Running) -> Iterator[Proxy]:
    """A proxy before the server, that does no harm until it is planned."""
    made = Proxy("", server.url, server.token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.handle(self)

        def do_POST(self) -> None:
            made.handle(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with _Listener(("127.0.0.1", 0), Handler) as listener:
        made.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.goes_on.set()
            listener.shutdown()
            thread.join()


# The clients: one test body for both


class Connect(Protocol):
    """Makes a client, blocking or not, that is closed at the end of the test."""

    def __call__(self, url: str, token: str | None, **options: Any) -> Client: ...


class _Found:
    """What a query of an `AsyncClient` finds, to loop over without `async`."""

    def __init__(self, found: AsyncFoundRecords, runner: asyncio.Runner) -> None:
        self._found = found
        self._runner = runner

    def __iter__(self) -> Iterator[Record]:
        return iter(self.all())

    def pages(self) -> Iterator[Any]:
        async def collect() -> list[Any]:
            return [page async for page in self._found.pages()]

        return iter(self._runner.run(collect()))

    def all(self) -> Any:
        return self._runner.run(self._found.all())


class _Awaiting:
    """An `AsyncClient` whose calls are awaited here, so that test bodies need not know."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = attribute(*args, **kwargs)
            if isinstance(answer, AsyncFoundRecords):
                return _Found(answer, self._runner)
            return self._runner.run(answer) if inspect.iscoroutine(answer) else answer

        return call


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of the one kind, then of the other."""
    with contextlib.ExitStack() as stack:
        if request.param == "blocking":

            def blocking(url: str, token: str | None, **options: Any) -> Client:
                return stack.enter_context(Client(url, token, **options))

            yield blocking
        else:
            runner = stack.enter_context(asyncio.Runner())

            def awaiting(url: str, token: str | None, **options: Any) -> Client:
                client = AsyncClient(url, token, **options)
                stack.callback(lambda: runner.run(client.close()))
                return cast("Client", _Awaiting(client, runner))

            yield awaiting


@pytest.fixture
def client(connect: Connect, server: Running) -> Client:
    """An administrator's client."""
    return connect(server.url, server.token)


_numbers = count()


def fresh(n: int) -> list[dict[str, Any]]:
    """Return arguments that no other record has."""
    return [{"n": next(_numbers)} for _ in range(n)]


@pytest.fixture
def own() -> str:
    """A tag, or a function's name, that no other test has."""
    return f"own{next(_numbers)}"


def added_ids(metadata: InsertMetadata) -> list[int]:
    """Return the ids of records of which none was refused."""
    assert metadata.errors == []
    return [id_ for id_ in metadata.ids if id_ is not None]


def claimed(client: Client, *tags: str) -> tuple[int, ClaimAnswer]:
    """Return a new manager's id, and what it has claimed of these tags."""
    manager_id = client.register_manager("m", tags).manager_id
    return manager_id, client.claim(manager_id, 1000)


# Adding


def test_one_function_with_many_arguments(client: Client) -> None:
    kwargs = fresh(2)
    metadata = client.add_records(FUNCTION, kwargs, tag="GPU", priority="high", retries=3)
    records = client.get_records(metadata.ids, "kwargs")
    assert metadata.inserted_idx == [0, 1]
    assert metadata.operation_ids == [metadata.operation_id]
    assert [record.kwargs for record in records] == kwargs
    assert {(record.tag, record.priority, record.retries) for record in records} == {
        ("gpu", "high", 3)
    }


def test_one_record_by_one_mapping(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)[0], reason="a look"))
    assert client.get_records(record_id).status is Status.waiting
    assert client.history(record_id)[0].reason == "a look"


def test_specifications_of_any_mixture(client: Client) -> None:
    [a, b] = fresh(2)
    metadata = client.add_records(
        [
            RecordSpec(function="a:f", kwargs=a, required_programs=["Psi4 >= 1.9"]),
            RecordSpec(function="b:f", kwargs=b, tag="cpu", priority="low"),
        ]
    )
    first, second = client.get_records(added_ids(metadata))
    assert (first.function, first.required_programs) == ("a:f", ["psi4>=1.9"])
    assert (second.function, second.tag, second.priority) == ("b:f", "cpu", "low")


def test_what_is_there_already_is_found_unless_it_shall_not_be(client: Client) -> None:
    kwargs = fresh(3)
    before = client.add_records(FUNCTION, kwargs[:2])
    after = client.add_records(FUNCTION, kwargs)
    assert after.ids[:2] == before.ids
    assert (after.existing_idx, after.inserted_idx) == ([0, 1], [2])
    assert client.add_records(FUNCTION, kwargs, find_existing=False).inserted_idx == [0, 1, 2]


def test_a_refused_entry_spoils_no_other_and_has_no_id(client: Client) -> None:
    [a, b] = fresh(2)
    metadata = client.add_records(
        [RecordSpec(function="no function!", kwargs=a), RecordSpec(function=FUNCTION, kwargs=b)]
    )
    [error] = metadata.errors
    assert (error.idx, error.code) == (0, "invalid_input")
    assert metadata.ids[0] is None
    assert metadata.ids[1] is not None
    with pytest.raises(InvalidArgument, match=r"ids\[0\] is None: that entry was refused"):
        client.wait(metadata.ids)


def test_a_long_list_is_cut_and_answered_as_one(client: Client) -> None:
    kwargs = fresh(100)
    existing = client.add_records(FUNCTION, [kwargs[3], kwargs[77]]).ids
    specs = [RecordSpec(function=FUNCTION, kwargs=each) for each in kwargs]
    for bad in (5, 45, 99):
        specs[bad] = RecordSpec(function="?", kwargs=kwargs[bad])
    metadata = client.add_records(specs)
    assert len(set(metadata.operation_ids)) == 3
    assert metadata.operation_id is None
    assert [error.idx for error in metadata.errors] == [5, 45, 99]
    assert [idx for idx, id_ in enumerate(metadata.ids) if id_ is None] == [5, 45, 99]
    assert metadata.existing_idx == [3, 77]
    assert [metadata.ids[3], metadata.ids[77]] == existing
    assert sorted([*metadata.inserted_idx, *metadata.existing_idx, 5, 45, 99]) == list(range(100))
    good = [(idx, id_) for idx, id_ in enumerate(metadata.ids) if id_ is not None]
    found = client.get_records([id_ for _, id_ in good], "kwargs")
    assert [record.kwargs for record in found] == [kwargs[idx] for idx, _ in good]


def test_a_body_that_would_be_too_large_is_cut(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, progress=False)
    kwargs = [{"text": str(number) * 100_000, **each} for number, each in enumerate(fresh(6))]
    metadata = client.add_records(FUNCTION, kwargs)
    assert len(added_ids(metadata)) == len(metadata.operation_ids) * 2 == 6
    sent = proxy.to("/v1/records")
    assert {request.headers.get("content-encoding") for request in sent} == {"zstd"}
    assert all(len(request.body) < BODY_BYTES / 10 for request in sent)
    # Six payloads of 100,000 bytes are more than one answer has room for.
    found = client.get_records(metadata.ids, "kwargs")
    assert [record.kwargs for record in found] == kwargs
    assert len(proxy.to("/v1/records/get")) > 2


def test_one_entry_that_is_too_large_alone_is_said_before_anything_is_sent(client: Client) -> None:
    before = client.counts().total
    kwargs: list[dict[str, Any]] = [*fresh(2), {"text": "x" * BODY_BYTES}]
    with pytest.raises(InvalidArgument, match=r"records\[2\] has 262,\d+ bytes") as caught:
        client.add_records(FUNCTION, kwargs)
    assert caught.value.idx == 2
    assert client.counts().total == before


# fmt: off
UNSENDABLE: list[tuple[Any, str]] = [
    (float("nan"),         r"records\[1\]: kwargs\.x\.y is nan: JSON has no such number"),
    (float("-inf"),        r"kwargs\.x\.y is -inf"),
    ("a\0b",               r"kwargs\.x\.y has a NUL character"),
    ("\ud800",             r"kwargs\.x\.y has a lone surrogate"),
    (b"bytes",             r"kwargs\.x\.y is a bytes.*base64"),
    ({1, 2},               r"kwargs\.x\.y is a set.*sorted"),
    ([0, {1: 2}],          r"kwargs\.x\.y\[1\] has the key 1"),
    (datetime.now(UTC),    r"kwargs\.x\.y is a datetime.*isoformat"),
    (2**64,                r"integer of more than 64 bits; use a string"),
    (object(),             r"kwargs\.x\.y is a object"),
]
# fmt: on


@pytest.mark.parametrize(("value", "complaint"), UNSENDABLE)
def test_what_cannot_be_sent_is_said_before_anything_is_sent(
    client: Client, value: Any, complaint: str
) -> None:
    before = client.counts().total
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        client.add_records(FUNCTION, [*fresh(1), {"x": {"y": value}}])
    assert (caught.value.idx, caught.value.code, caught.value.status) == (1, "invalid_input", None)
    assert client.counts().total == before


def test_numpy_is_said_how_to_convert(client: Client) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(InvalidArgument, match=r"kwargs\.a is a ndarray.*array\.tolist\(\)"):
        client.add_records(FUNCTION, {"a": numpy.zeros(3)})
    with pytest.raises(InvalidArgument, match=r"kwargs\.a is a int64.*\.item\(\)"):
        client.add_records(FUNCTION, {"a": numpy.int64(3)})
    [record_id] = added_ids(client.add_records(FUNCTION, {"a": numpy.float64(0.1), **fresh(1)[0]}))
    same_id: int = numpy.int64(record_id)
    assert client.get_records(same_id).id == record_id


@pytest.mark.parametrize(
    ("function", "kwargs", "options", "complaint"),
    [
        (len, None, {}, "pass its name, like 'package.module:function'"),
        (FUNCTION, [1], {}, r"records\[0\]\.kwargs is a int; pass a dict"),
        (FUNCTION, {}, {"required_programs": "psi4"}, "required_programs is a str"),
        (FUNCTION, {}, {"reason": "a\0"}, "reason"),
        ([{"function": FUNCTION}], None, {}, r"records\[0\] is a dict, not a RecordSpec"),
        ([RecordSpec(function=FUNCTION)], None, {"tag": "gpu"}, "put kwargs, tag and so on"),
    ],
)
def test_wrong_arguments_are_said(
    client: Client, function: Any, kwargs: Any, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        client.add_records(function, kwargs, **options)


# Reading


def test_records_come_in_the_order_of_the_ids(client: Client) -> None:
    a, b, c = added_ids(client.add_records(FUNCTION, fresh(3)))
    assert [record.id for record in client.get_records([c, a, c, b])] == [c, a, c, b]
    assert client.get_records([]) == []


def test_what_is_returned_has_its_type(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    assert_type(client.get_records(record_id), Record)
    assert_type(client.get_records(record_id, missing_ok=True), Record | None)
    assert_type(client.get_records([record_id]), Records[Record])
    assert_type(client.get_records([record_id], missing_ok=True), Records[Record | None])
    assert_type(client.counts(), Counts)
    assert_type(client.query_records(ids=[record_id]).all(), Records[Record])


def test_missing_records_are_none_or_an_error_with_all_their_ids(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    missing = [2**40, 2**40 + 1]
    found = client.get_records([missing[0], record_id, missing[1]], missing_ok=True)
    assert [record and record.id for record in found] == [None, record_id, None]
    assert client.get_records(missing[0], missing_ok=True) is None
    with pytest.raises(RecordsNotFound, match="there are no records 10995") as caught:
        client.get_records([missing[0], record_id, missing[1], missing[0]])
    assert caught.value.ids == tuple(missing)
    with pytest.raises(RecordsNotFound, match=f"there is no record {missing[0]}"):
        client.get_records(missing[0])


def test_more_ids_than_fit_into_one_request(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    ids = [*range(2**40, 2**40 + client.server().limits.ids_per_request), record_id]
    found = client.get_records(ids, missing_ok=True)
    assert len(found) == len(ids)
    assert [record.id for record in found if record] == [record_id]
    assert found[-1]


@pytest.mark.parametrize("wrong", [0, -1, 2**63, True, 1.5, "411", None])
def test_what_is_no_id_is_said(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.get_records(wrong)
    with pytest.raises(InvalidArgument, match=r"ids\[1\] is") as caught:
        client.get_records([1, wrong])
    assert caught.value.idx == 1


def test_integers_that_msgpack_cannot_carry_are_read_all_the_same(
    client: Client, server: Running
) -> None:
    [kwargs] = fresh(1)
    kwargs["large"] = 2**70
    answer = httpx2.post(
        f"{server.url}/v1/records",
        json={"records": [{"function": FUNCTION, "kwargs": kwargs}]},
        headers={"Authorization": f"Bearer {server.token}"},
    )
    record_id: int = answer.json()["ids"][0]
    record = client.get_records(record_id, "kwargs")
    assert record.kwargs == kwargs
    assert record.created_at.utcoffset() == timedelta(0)


def test_a_query_finds_what_meets_all_conditions_newest_first(client: Client, own: str) -> None:
    started_at = datetime.now(UTC) - timedelta(minutes=5)
    ids = added_ids(client.add_records(f"{own}:f", fresh(5), tag=own))
    client.add_records(f"{own}:g", fresh(2), tag=own)
    found = client.query_records(
        status="waiting",
        tag=[own.upper(), "other"],
        owner="user:alice",
        function=f"{own}:f",
        created_after=started_at,
        ids=[*ids, 2**40],
        include=["kwargs"],
    )
    assert [record.id for record in found] == sorted(ids, reverse=True)[: len(ids)]
    assert all(record.kwargs for record in found)
    assert [len(page) for page in found.pages()] == [5]
    assert client.query_records(tag=own, limit=3).all().counts == {Status.waiting: 3}
    assert client.query_records(tag=own, limit=0).all() == []
    assert client.query_records(tag="no such tag").all() == []


def test_a_query_goes_on_from_page_to_page(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(own, fresh(300)))
    found = client.query_records(function=own)
    assert [len(page) for page in found.pages()] == [250, 50]
    assert [record.id for record in found] == sorted(ids, reverse=True)
    assert len(client.query_records(function=own, limit=260).all()) == 260


@pytest.mark.parametrize(
    "conditions",
    [{"status": "done"}, {"created_after": datetime(2026, 1, 1)}, {"limit": -1}],  # noqa: DTZ001
)
def test_a_wrong_condition_is_said_by_the_call(client: Client, conditions: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.query_records(**conditions)


def test_counts_by_status(client: Client) -> None:
    before = client.counts()
    client.add_records(FUNCTION, fresh(3))
    after = client.counts()
    assert after[Status.waiting] - before["waiting"] == after.total - before.total == 3
    assert set(after) == set(Status)
    with pytest.raises(KeyError, match="'done' is not a status"):
        after["done"]


def test_the_server_says_who_one_is(client: Client) -> None:
    server = client.server()
    assert (server.user, server.role) == ("alice", Role.admin)
    assert server.limits.records_per_request == RECORDS_PER_REQUEST


# Computing


def test_the_whole_way_of_a_record(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(2), tag=own))
    manager_id, answer = claimed(client, own)
    assert [task.record_id for task in answer.tasks] == ids
    held = [AttemptRef(record_id=task.record_id, attempt=task.attempt) for task in answer.tasks]
    gone = AttemptRef(record_id=ids[0], attempt=7)
    assert client.heartbeat(manager_id, held).stale == []
    assert client.heartbeat(manager_id, [*held[1:], gone]).stale == [gone]
    metadata = client.return_results(
        manager_id,
        [
            ResultIn(record_id=ids[0], attempt=1, result={"y": [1.5, None]}, compute_s=0.25),
            ResultIn(
                record_id=ids[1],
                attempt=1,
                error_type="ValueError",
                error_message="no <b>convergence</b>",
                stdout="half a pair: \ud800, a NUL: \0",
            ),
        ],
    )
    assert (metadata.accepted_idx, metadata.errors) == ([0, 1], [])
    good, bad = client.wait(ids, include=["result", "stdout"], timeout_s=10)
    assert (good.status, good.result, good.compute_s) == (Status.complete, {"y": [1.5, None]}, 0.25)
    assert (bad.status, bad.error) == (Status.error, "ValueError: no <b>convergence</b>")
    assert bad.stdout is not None
    assert bad.stdout.startswith("half a pair: ")
    timeline = client.history(ids[1])
    assert [event.kind for event in timeline] == ["created", "claimed", "errored"]
    assert "attempt 1, ValueError: no <b>convergence</b>" in repr(timeline)


def test_results_are_returned_in_parts_and_answered_as_one(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(25), tag=own))
    manager_id, answer = claimed(client, own)
    results = [
        ResultIn(record_id=task.record_id, attempt=1, result=task.record_id)
        for task in answer.tasks
    ]
    results[3] = ResultIn(record_id=ids[3], attempt=9)
    results[17] = ResultIn(record_id=2**40, attempt=1)
    metadata = client.return_results(manager_id, results)
    assert len(metadata.operation_ids) == 3
    assert [(error.idx, error.code) for error in metadata.errors] == [
        (3, "not_your_attempt"),
        (17, "not_found"),
    ]
    assert sorted([*metadata.accepted_idx, 3, 17]) == list(range(25))
    again = client.return_results(manager_id, results[:2])
    assert (again.accepted_idx, again.duplicate_idx) == ([], [0, 1])


def test_a_result_may_be_nothing_and_a_bad_one_is_said_by_its_index(
    client: Client, own: str
) -> None:
    [a, b] = added_ids(client.add_records(FUNCTION, fresh(2), tag=own))
    manager_id, _ = claimed(client, own)
    results = [
        ResultIn(record_id=a, attempt=1),
        ResultIn(record_id=b, attempt=1, result={"energy": float("nan")}),
    ]
    with pytest.raises(InvalidArgument, match=r"results\[1\]\.result: energy is nan") as caught:
        client.return_results(manager_id, results)
    assert caught.value.idx == 1
    assert client.get_records(a).status is Status.running
    client.return_results(manager_id, results[:1])
    record = client.get_records(a, "result")
    assert (record.status, record.result) == (Status.complete, None)


def test_what_a_manager_gives_back_waits_again(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(3), tag=own))
    manager_id, _ = claimed(client, own)
    held = [AttemptRef(record_id=id_, attempt=1) for id_ in ids]
    assert client.relinquish(manager_id, held[:1], "too hot") == ids[:1]
    assert sorted(client.deactivate_manager(manager_id)) == ids[1:]
    assert client.get_records(ids).counts == {Status.waiting: 3}
    assert client.manager(manager_id).state == "inactive"
    assert manager_id in [manager.id for manager in client.managers()]
    with pytest.raises(Refused) as caught:
        client.claim(manager_id)
    assert (caught.value.code, caught.value.status) == ("manager_not_active", 409)


def test_there_is_no_such_manager_or_record(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no manager"):
        client.manager(2**40)
    with pytest.raises(NotFound, match="there is no record") as caught:
        client.history(2**40)
    assert caught.value.code == "not_found"


# Waiting


def test_waiting_ends_when_all_are_finished(client: Client, server: Running, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(12), tag=own))

    def compute() -> None:
        with Client(server.url, server.token) as worker:
            manager_id = worker.register_manager("m", [own]).manager_id
            while tasks := worker.claim(manager_id, 5).tasks:
                results = [ResultIn(record_id=task.record_id, attempt=1) for task in tasks]
                worker.return_results(manager_id, results)

    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(compute)
        records = client.wait([*ids, ids[0]], timeout_s=20)
        computed.result()
    assert [record.id for record in records] == [*ids, ids[0]]
    assert records.counts == {Status.complete: 13}
    assert client.wait(ids[0])[0].is_finished


def test_waiting_is_given_up_and_says_what_is_still_open(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(3), tag=own))
    manager_id, _ = claimed(client, own)
    client.return_results(manager_id, [ResultIn(record_id=ids[1], attempt=1)])
    with pytest.raises(WaitTimeout, match="2 of 3 records still wait or run") as caught:
        client.wait(ids, timeout_s=0.05)
    assert caught.value.open_ids == (ids[0], ids[2])
    assert caught.value.finished is not None
    assert [record.id for record in caught.value.finished] == [ids[1]]
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(RecordsNotFound):
        client.wait([ids[1], 2**40], timeout_s=0.05)


# Access


def test_tokens_are_issued_and_revoked_and_do_what_their_role_allows(
    client: Client, connect: Connect, server: Running
) -> None:
    new = client.issue_token("bob", "reader", datetime.now(UTC) + timedelta(days=1))
    assert new.secret not in repr(new)
    reader = connect(server.url, new.secret)
    assert reader.counts().total >= 0
    with pytest.raises(Forbidden, match="needs the permission") as caught:
        reader.add_records(FUNCTION, fresh(1))
    assert (caught.value.code, caught.value.status) == ("forbidden", 403)
    assert new.token.id in [token.id for token in client.tokens()]
    assert client.revoke_token(new.token.id).revoked_at is not None
    with pytest.raises(Unauthorized, match="RECORDLEDGER_TOKEN"):
        reader.counts()
    with pytest.raises(InvalidArgument, match="role"):
        client.issue_token("bob", "emperor")


def test_without_a_token_one_is_told_how_to_give_one(connect: Connect, server: Running) -> None:
    with pytest.raises(Unauthorized, match=r"Client\(url, token\)") as caught:
        connect(server.url, None).counts()
    assert caught.value.status == 401


# Faults


@pytest.fixture
def patient(connect: Connect, proxy: Proxy) -> Client:
    """A client behind the proxy, which has the limits already."""
    client = connect(proxy.url, proxy.token, timeout_s=5, retries_s=20)
    client.server()
    return client


HARM = ("lost on the way", "answer lost", "answer cut", "busy", "bad gateway")


@pytest.mark.parametrize("harm", HARM)
def test_adding_goes_on_after_harm_and_happens_once(
    patient: Client, proxy: Proxy, harm: str
) -> None:
    before = patient.counts().total
    proxy.plan("/v1/records", harm, harm)
    metadata = patient.add_records(FUNCTION, fresh(50), find_existing=False)
    assert proxy.fired == [harm, harm]
    first, again, once_more, next_part = proxy.to("/v1/records")
    assert first.key == again.key == once_more.key != next_part.key
    assert first.body == again.body == once_more.body
    assert patient.counts().total - before == 50
    assert len(set(metadata.ids)) == 50
    assert metadata.inserted_idx == list(range(50))


@pytest.mark.parametrize("harm", ["answer lost", "answer cut"])
def test_tasks_whose_answer_was_lost_are_not(
    patient: Client, proxy: Proxy, harm: str, own: str
) -> None:
    ids = added_ids(patient.add_records(FUNCTION, fresh(4), tag=own))
    proxy.plan("/claim", harm)
    manager_id, answer = claimed(patient, own)
    proxy.plan("/results", harm)
    returned = patient.return_results(
        manager_id, [ResultIn(record_id=task.record_id, attempt=1) for task in answer.tasks]
    )
    assert proxy.fired == [harm, harm]
    assert [(task.record_id, task.attempt) for task in answer.tasks] == [(id_, 1) for id_ in ids]
    assert (returned.accepted_idx, returned.duplicate_idx) == ([0, 1, 2, 3], [])


def test_reading_goes_on_after_harm(patient: Client, proxy: Proxy) -> None:
    for harm in HARM:
        proxy.plan("/v1/records/counts", harm)
    assert patient.counts().total >= 0
    assert proxy.fired == list(HARM)


def test_an_answer_that_takes_too_long_is_asked_for_again(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, timeout_s=0.3, retries_s=20)
    client.server()
    proxy.plan("/v1/records", "answer late")
    metadata = client.add_records(FUNCTION, fresh(1), find_existing=False)
    assert proxy.fired == ["answer late"]
    assert metadata.inserted_idx == [0]


def test_what_was_done_before_a_failure_is_told(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, retries_s=0)
    client.server()
    real = fresh(RECORDS_PER_REQUEST)
    proxy.plan("/v1/records", "none", "lost on the way")
    with pytest.raises(NotConnected) as caught:
        client.add_records(FUNCTION, [*real, *fresh(10)])
    assert proxy.fired == ["none", "lost on the way"]
    partial = caught.value.partial
    assert isinstance(partial, InsertMetadata)
    assert len(partial.ids) == RECORDS_PER_REQUEST
    assert "The first 40 were already done" in caught.value.__notes__[0]
    assert client.add_records(FUNCTION, real).ids == partial.ids


def test_a_token_is_not_asked_for_twice(patient: Client, proxy: Proxy) -> None:
    n_before = len(patient.tokens())
    proxy.plan("/v1/tokens", "answer lost")
    with pytest.raises(NotConnected):
        patient.issue_token("eve")
    assert proxy.fired == ["answer lost"]
    assert len(patient.tokens()) - n_before == 1


def test_a_server_that_is_busy_for_longer_than_one_waits_is_not_waited_for(
    patient: Client, proxy: Proxy
) -> None:
    proxy.plan("/v1/records/counts", "busy for long")
    with pytest.raises(ServerFault, match="answered 503") as caught:
        patient.counts()
    assert caught.value.status == 503
    assert len(proxy.to("/v1/records/counts")) == 1


def test_strangers_are_recognised(patient: Client, proxy: Proxy) -> None:
    proxy.plan("/v1/records/counts", "login page")
    with pytest.raises(ServerFault, match="cannot read"):
        patient.counts()
    proxy.plan("/v1/records/counts", "moved")
    with pytest.raises(NotConnected, match=r"https://elsewhere\.example"):
        patient.counts()
    assert proxy.fired == ["login page", "moved"]


def test_where_nobody_answers_one_is_told_what_to_do(connect: Connect) -> None:
    client = connect("http://127.0.0.1:9", "rl_x", retries_s=0.3)
    with pytest.raises(NotConnected, match="`recordledger up` starts one") as caught:
        client.counts()
    assert caught.value.url == "http://127.0.0.1:9"
    assert (caught.value.code, caught.value.status) == ("not_connected", None)


def test_no_request_goes_to_a_proxy_of_the_environment_for_this_machine(
    connect: Connect, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert connect(server.url, server.token, retries_s=0).counts().total >= 0


def test_a_closed_client_says_so(connect: Connect, server: Running) -> None:
    client = connect(server.url, server.token)
    client.close()
    with pytest.raises(NotConnected, match="is closed"):
        client.counts()


def test_closing_leaves_a_call_its_answer_and_no_connection_open(server: Running) -> None:
    port = int(server.url.rpartition(":")[2])
    with TcpProxy(port) as proxy, ThreadPoolExecutor(1) as pool:
        client = Client(proxy.url, server.token, retries_s=0, progress=False)
        with proxy.failing(Fault.delay, "/counts") as failing:
            call = pool.submit(client.counts)
            failing.wait_until_fired()
            client.close()
            assert call.result(timeout=20).total >= 0
        # The proxy serves a connection until it is closed.
        eventually(lambda: not proxy.n_open)


def test_closing_ends_a_call_that_waits_to_try_again(proxy: Proxy) -> None:
    client = Client(proxy.url, proxy.token, retries_s=600)
    proxy.plan("/v1/records/counts", *["bad gateway"] * 20)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.counts)
        while len(proxy.passed) < 5:
            proxy.goes_on.wait(0.01)
        client.close()
        with pytest.raises(NotConnected, match="is closed"):
            call.result(timeout=5)


# Many at once


def test_threads_share_a_client(server: Running) -> None:
    with Client(server.url, server.token) as client, ThreadPoolExecutor(8) as pool:
        parts = [fresh(60) for _ in range(16)]
        calls = [pool.submit(client.add_records, FUNCTION, part) for part in parts]
        answers = [call.result() for call in calls]
        for part, answer in zip(parts, answers, strict=True):
            found = client.get_records(added_ids(answer), "kwargs")
            assert [record.kwargs for record in found] == part


def test_tasks_share_a_client(server: Running) -> None:
    async def main() -> int:
        async with AsyncClient(server.url, server.token) as client:
            parts = [fresh(60) for _ in range(16)]
            answers = await asyncio.gather(*(client.add_records(FUNCTION, each) for each in parts))
            return len({id_ for answer in answers for id_ in answer.ids})

    assert asyncio.run(main()) == 16 * 60


# Progress


def test_a_bar_is_shown_where_it_is_wanted(
    connect: Connect, server: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(server.url, server.token, progress=True).add_records(FUNCTION, fresh(90))
    assert "adding records" in capfd.readouterr().err
    for progress in (None, False):
        connect(server.url, server.token, progress=progress).add_records(FUNCTION, fresh(90))
    assert capfd.readouterr().err == ""


def test_both_clients_have_the_same_calls_with_their_docstrings() -> None:
    def calls(kind: type[Any]) -> dict[str, tuple[list[str], str | None]]:
        return {
            name: (list(inspect.signature(member).parameters), inspect.getdoc(member))
            for name in vars(kind)
            if inspect.isfunction(member := getattr(kind, name)) and not name.startswith("_")
        }

    blocking, awaited = calls(Client), calls(AsyncClient)
    assert set(blocking) == set(awaited)
    for name in set(blocking) - {"close"}:
        assert blocking[name] == awaited[name]
    for name, (parameters, docstring) in blocking.items():
        assert parameters[0] == "self", name
        assert docstring, name
        assert "session" not in docstring, name
