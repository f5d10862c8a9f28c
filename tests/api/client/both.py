"""Both clients, a real server over a real socket, and a proxy that does harm: for tests of them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import inspect
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    AsyncFoundRecords,
    InsertMetadata,
    Record,
)
from recordledger.api.schemas.claims import ClaimAnswer
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from tests.postgres import new_database

from ..service import serving

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
