"""A receiver of webhooks for tests: a real server on loopback, and a verifier of its own.

The verifier was written from the text of Standard Webhooks 1.0.0, and shares nothing with the code
that signs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

TOLERANCE_S = 300


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return the id of a message that is what it says it is.

    Raises:
        ValueError: it is not.
    """
    kind, _, encoded = secret.partition("_")
    key = base64.b64decode(encoded, validate=True)
    if kind != "whsec" or not 24 <= len(key) <= 64:
        raise ValueError("this is no secret")
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if "." in message_id or not timestamp.isdecimal():
        raise ValueError("id or timestamp could be taken for something else")
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        raise ValueError("too old or too new")
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    mac = hmac.new(key, signed, hashlib.sha256).digest()
    for each in headers["webhook-signature"].split(" "):
        version, _, given = each.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64decode(given), mac):
            return message_id
    raise ValueError("no signature fits")


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its headers in lower case, its body, and what was answered; 0 for nothing."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    answered: int

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads(self.body))

    @property
    def positions(self) -> list[int]:
        """Where its events are in the log."""
        return [event["position"] for event in self.message["data"]["events"]]


Behaviour = Callable[[int], int | float | str]
"""What to do with the nth request: a status; seconds to be silent for; or `close`."""


class Receiver:
    """Takes messages, and answers as it is told to."""

    def __init__(
        self,
        behave: Behaviour = lambda _: 200,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        text: bytes = b"",
    ) -> None:
        """Listen on a free port of loopback."""
        self.received: list[Received] = []
        self.behave = behave
        self.more_headers = dict(headers or {})
        self.text = text
        self.ending = threading.Event()
        self._lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        scheme = "https" if tls is not None else "http"
        self.url = f"{scheme}://{host}:{self.port}/hook?key=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Take a request, and answer or not."""
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            number = len(self.received)
            what = self.behave(number)
            answered = what if isinstance(what, int) else 0
            self.received.append(Received(request.path, headers, body, answered))
        match what:
            case int():
                request.send_response(what)
                for name, value in self.more_headers.items():
                    request.send_header(name, value)
                request.end_headers()
                request.wfile.write(self.text)
            case float():
                self.ending.wait(what)
            case _:
                request.connection.close()
        request.close_connection = True

    @property
    def arrived(self) -> list[Received]:
        """The messages that were answered with success."""
        return [each for each in self.received if 200 <= each.answered < 300]

    @property
    def positions(self) -> list[int]:
        """The events of the messages that were answered with success."""
        return [position for each in self.arrived for position in each.positions]
