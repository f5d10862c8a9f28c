"""A TCP proxy on loopback that does to requests and answers what bad networks do.

It passes everything on, byte by byte, until a test lets it fail:

    with proxy.failing(Fault.drop_answer, "/results", times=1) as fault:
        ...

At the end of the block the fault must have fired, or the test fails: a test of a fault that never
happened proves nothing. Of HTTP it knows as much as it needs to see where a message ends, and the
request line, to choose whose turn it is.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
_TIMEOUT_S: Final = 60.0
_RESET: Final = struct.pack("ii", 1, 0)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Fault(StrEnum):
    """What the proxy can do to a request that is chosen."""

    refuse = "reset the connection at the request's first byte"
    black_hole = "read the request, and never answer"
    drop_request = "read the request, and close the connection"
    drop_answer = "let the server do it, and close the connection instead of answering"
    cut_answer = "close the connection in the middle of the answer"
    delay = "pass the request on late"
    duplicate = "send the request twice, and give back the second answer"


class Failing:
    """A fault that is switched on, and how often it has fired."""

    def __init__(self, fault: Fault, path: str, times: int | None, delay_s: float) -> None:
        self.fault = fault
        self.path = path
        self.delay_s = delay_s
        self.n_fired = 0
        self._times = times
        self._condition = threading.Condition()

    def fires_at(self, path: str) -> bool:
        """Return whether the fault hits a request for this path, and count it then."""
        with self._condition:
            if not path.endswith(self.path) or self.n_fired == self._times:
                return False
            self.n_fired += 1
            self._condition.notify_all()
            return True

    def wait_until_fired(self, times: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until the fault has fired so often.

        Raises:
            AssertionError: it has not, in this time.
        """
        with self._condition:
            self._condition.wait_for(lambda: self.n_fired >= times, timeout_s)
            assert self.n_fired >= times, f"{self} fired {self.n_fired} times, not {times}"

    def __str__(self) -> str:
        """Return what goes wrong where."""
        return f"the fault {self.fault.name!r} at {self.path or 'every path'!r}"


class Proxy:
    """Passes connections on to a server, and fails as it is told.

    Args:
        port: the server's, on loopback. The server may come and go.
    """

    def __init__(self, port: int) -> None:
        self._target = (LOOPBACK, port)
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = False
        self._failing: Failing | None = None
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The address for those who are to be troubled."""
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    @property
    def n_open(self) -> int:
        """How many connections are open, on either side."""
        return len(self._open)

    def __enter__(self) -> Self:
        """Return the proxy, which runs already."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Cut all connections, and end."""
        self.close()

    def close(self) -> None:
        """Cut all connections, and end."""
        with self._lock:
            self._closing = True
            found = [self._listener, *self._open]
        for each in found:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def failing(
        self, fault: Fault, path: str = "", *, times: int | None = None, delay_s: float = 0.5
    ) -> Generator[Failing]:
        """Let requests fail within the block.

        Args:
            fault: how.
            path: those whose path ends so.
            times: so many of them; None for all.
            delay_s: for `Fault.delay`.

        Raises:
            AssertionError: at the end, if the fault has never fired.
        """
        failing = self._failing = Failing(fault, path, times, delay_s)
        try:
            yield failing
        finally:
            self._failing = None
        assert failing.n_fired, f"{failing} never fired, so this test has tested nothing"

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Pass the requests of one connection on, one after the other."""
        with contextlib.ExitStack() as stack:
            if not self._enter(client, stack):
                return
            with contextlib.suppress(OSError, EOFError):
                server: _Stream | None = None
                asking = _Stream(client)
                while True:
                    request = asking.message()
                    failing = self._failing
                    hit = failing if failing and failing.fires_at(_path(request)) else None
                    if hit is not None and not _lets_through(hit, client):
                        return
                    if server is None:
                        server = self._connect(stack)
                    server.send(request)
                    answer = server.message()
                    if hit is not None and hit.fault is Fault.drop_answer:
                        return
                    if hit is not None and hit.fault is Fault.cut_answer:
                        client.sendall(answer[: len(answer) // 2])
                        return
                    if hit is not None and hit.fault is Fault.duplicate:
                        answer = self._again(request)
                    client.sendall(answer)

    def _again(self, request: bytes) -> bytes:
        with contextlib.ExitStack() as stack:
            server = self._connect(stack)
            server.send(request)
            return server.message()

    def _connect(self, stack: contextlib.ExitStack) -> _Stream:
        server = socket.create_connection(self._target, timeout=_TIMEOUT_S)
        if not self._enter(server, stack):
            raise EOFError
        return _Stream(server)

    def _enter(self, connection: socket.socket, stack: contextlib.ExitStack) -> bool:
        """Close a connection at the end, or when the proxy is closed; False if it is already."""
        stack.callback(connection.close)
        with self._lock:
            if self._closing:
                return False
            self._open.add(connection)
        stack.callback(self._open.discard, connection)
        return True


class _Stream:
    """A connection from which whole HTTP messages are read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def message(self) -> bytes:
        """Return the next request or answer.

        Raises:
            EOFError: there is none, or not all of one.
        """
        head = self._until(b"\r\n\r\n")
        if _CHUNKED.search(head):
            body = b""
            while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
                size = self._until(b"\r\n")
                body += size + self._take(int(size, 16) + 2)
            return head + body
        length = _LENGTH.search(head)
        return head + self._take(int(length[1]) if length else 0)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            self._more()
        return self._take(self._read.index(mark) + len(mark))

    def _take(self, size_bytes: int) -> bytes:
        while len(self._read) < size_bytes:
            self._more()
        taken, self._read = self._read[:size_bytes], self._read[size_bytes:]
        return taken

    def _more(self) -> None:
        data = self._connection.recv(1024 * 1024)
        if not data:
            raise EOFError
        self._read += data


def _path(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode("ascii").partition("?")[0]


def _lets_through(failing: Failing, client: socket.socket) -> bool:
    """Do what a fault does before the server hears of a request; return whether it does."""
    match failing.fault:
        case Fault.refuse:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return False
        case Fault.black_hole:
            client.settimeout(_TIMEOUT_S)
            while client.recv(65_536):
                pass
            return False
        case Fault.drop_request:
            return False
        case Fault.delay:
            threading.Event().wait(failing.delay_s)
            return True
        case Fault.drop_answer | Fault.cut_answer | Fault.duplicate:
            return True
