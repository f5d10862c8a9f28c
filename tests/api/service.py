"""A served ledger for tests: a real server on a real socket, with visitors of every role."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, Final
from uuid import uuid4

import httpx2
import msgpack

from recordledger.api.server import LedgerServer
from recordledger.api.settings import Settings
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.ledger import Ledger

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
TIMEOUT_S: Final = 30.0


class Visit:
    """What one user does, with one token."""

    def __init__(self, url: str, secret: str | None) -> None:
        headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
        self.secret = secret
        self.http = httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.get(path, **more)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx2.Response:
        """Send a JSON value as it is written by Python, NaN and all."""
        return self.send(path, json.dumps({} if body is None else body).encode(), key=key)

    def pack(self, path: str, body: Any, *, key: str | None = None) -> httpx2.Response:
        """Send a value as msgpack, half surrogate pairs and all; ask for msgpack."""
        data: bytes = msgpack.packb(body, unicode_errors="surrogatepass", datetime=True)
        return self.send(path, data, MSGPACK, key=key, headers={"Accept": MSGPACK})

    def send(
        self,
        path: str,
        data: bytes,
        content_type: str | None = JSON,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send bytes that may be anything."""
        sent = dict(headers or {})
        if content_type is not None:
            sent["Content-Type"] = content_type
        if key is not None:
            sent["Idempotency-Key"] = key
        return self.http.post(path, content=data, headers=sent)

    def create(self, *records: Mapping[str, Any], **more: Any) -> list[int]:
        """Create records, which must all be right; return their ids."""
        answer = self.post("/v1/records", {"records": list(records), **more})
        assert answer.status_code == 200, answer.text
        assert answer.json()["errors"] == []
        return list(answer.json()["ids"])

    def register(self, *tags: str, **more: Any) -> int:
        """Register a manager; return its id."""
        body = {"name": "cluster", "hostname": "node1", "tags": list(tags) or ["*"], **more}
        answer = self.post("/v1/managers", body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["manager_id"])

    def claim(self, manager_id: int, limit: int = 20) -> list[dict[str, Any]]:
        """Claim tasks; return them."""
        answer = self.post(f"/v1/managers/{manager_id}/claim", {"limit": limit})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["tasks"])

    def record(self, record_id: int, *include: str) -> dict[str, Any]:
        """Get a record that must be there."""
        answer = self.get(f"/v1/records/{record_id}", params={"include": list(include)})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def n_records(self) -> int:
        """Count all records, deleted ones too."""
        return sum(self.get("/v1/records/counts").json()["counts"].values())


class Service:
    """A running server; `ledger` looks at its database directly."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self.server = LedgerServer(settings)
        self.url = self.server.url
        self.ledger = Ledger(settings.database_url, settings.database_schema, pool_size=2)
        self._stack = stack
        self._thread = Thread(target=self.server.run, name="api")
        self._thread.start()
        stack.callback(self._end)
        eventually(lambda: self.server.started or not self._thread.is_alive())

    def visit(self, role: Role | None = Role.admin, user: str = "ann") -> Visit:
        """Come with a new token of this role, or without any."""
        secret = None if role is None else issue_token(self.ledger, user, role).secret
        return self.visit_with(secret)

    def visit_with(self, secret: str | None) -> Visit:
        """Come with this token."""
        made = Visit(self.url, secret)
        self._stack.callback(made.http.close)
        return made

    def _end(self) -> None:
        self.server.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        self.ledger.close()


@contextmanager
def serving(database_url: str, *, port: int = 0, **settings: Any) -> Generator[Service]:
    """Serve a database; on a free port if none is given."""
    with ExitStack() as stack:
        yield Service(Settings(database_url=database_url, port=port, **settings), stack)


def latin_1(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as bytes, for values that httpx2 would encode in another way."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def eventually(is_so: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return when it is so; fail if it does not become so in time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)


def task(**more: Any) -> dict[str, Any]:
    """Return a record to create that is like no other."""
    return {"function": "demo:square", "kwargs": {"nonce": uuid4().hex}, **more}


def is_problem(answer: httpx2.Response, status: int, code: str) -> str:
    """Assert that an answer is this error, in its form; return what it says."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    return str(problem["detail"])
