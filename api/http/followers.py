"""Followers of the log: one reader for all of them, and server-sent events to each.

The reader is a thread, and there is one as long as a client follows. It reads what is new once,
writes it down as it is sent, and keeps the newest of it in a buffer. A follower sends what it has
not sent yet from there, at its own pace; one that is behind the buffer reads pages of the log until
it has caught up. So a slow follower costs no memory, and nothing is left out.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread
from typing import Any, Final, NamedTuple

import anyio
import anyio.to_thread
from prometheus_client import Gauge
from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from recordledger.domain.errors import LedgerError, StoreUnavailable
from recordledger.domain.records.events import Erased
from recordledger.domain.streams import Stream
from recordledger.projections.ledger import Ledger, Placed
from recordledger.projections.log.mapper import Recorded
from recordledger.projections.reading import event_log, queries
from recordledger.projections.reading.event_log import Bell, EventFilter, Labels

from .errors import TooManyFollowers
from .rendering import log_out

log = logging.getLogger(__name__)

STREAM_TYPE: Final = "text/event-stream"
STREAM_HEADER: Final = (b"content-type", STREAM_TYPE.encode())

_PAGE: Final = 500
_BATCH: Final = 1_000
_BUFFER_BYTES_MAX: Final = 32 * 1024 * 1024
# Where nothing rings (a pooler between that does not pass it on), so often the log is looked at.
_POLL_S: Final = 1.0
# What is appended within this time is read at once.
_PAUSE_S: Final = 0.01
_AGAIN_S: Final = 1.0
_NO_LABELS: Final = Labels()

Welcome = Callable[[], Awaitable[bool]]


class Frame(NamedTuple):
    """An event as it is sent, and what filters ask of it."""

    position: int
    recorded: Recorded
    labels: Labels
    data: bytes


class EventChunk(NamedTuple):
    """Some events as they are sent, up to which position they go, and how far the log goes."""

    data: bytes
    position: int
    head: int


class Followers:
    """All followers of the log through one app. All but the reader is on the event loop."""

    def __init__(
        self, ledger: Ledger, *, limit: int, buffer: int, heartbeat_s: float, gauge: Gauge
    ) -> None:
        """Prepare; nothing is read before a client follows.

        Args:
            ledger: whose log.
            limit: maximum number of followers.
            buffer: maximum number of events in memory.
            heartbeat_s: seconds without an event after which a follower gets a heartbeat.
            gauge: shows how many there are.
        """
        self._ledger = ledger
        self._limit = limit
        self._buffer_max = buffer
        self._heartbeat_s = heartbeat_s
        self._gauge = gauge
        self._n_followers = 0
        self._reader: _Reader | None = None
        self._ended: list[_Reader] = []
        self._closed = False
        self._changed = asyncio.Event()
        # Those that read pages shall leave connections to other requests.
        self._paging = anyio.CapacityLimiter(2)
        self._forget()

    def _forget(self) -> None:
        # Every event after `floor` is in the buffer; None as long as nobody reads.
        self._floor: int | None = None
        self._frames: list[Frame] = []
        self._n_bytes = 0

    @contextmanager
    def joined(self) -> Generator[None]:
        """Be one of the followers for a while.

        Raises:
            TooManyFollowers: there are enough.
        """
        if self._n_followers >= self._limit:
            raise TooManyFollowers(self._limit)
        self._n_followers += 1
        self._gauge.set(self._n_followers)
        if self._reader is None and not self._closed:
            self._reader = _Reader(self, self._ledger)
        try:
            yield
        finally:
            self._n_followers -= 1
            self._gauge.set(self._n_followers)
            if not self._n_followers:
                self._end_reader()

    def close(self) -> None:
        """Let every follower go, and take no reader any more."""
        self._closed = True
        self._end_reader()
        self._wake()

    def join(self) -> None:
        """Wait until the readers have ended; not on the event loop."""
        for reader in self._ended:
            reader.thread.join()

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.stop.set()
            self._ended = [each for each in self._ended if each.thread.is_alive()]
            self._ended.append(self._reader)
            self._reader = None
            self._forget()

    def _wake(self) -> None:
        rung, self._changed = self._changed, asyncio.Event()
        rung.set()

    def begin(self, reader: _Reader, head: int) -> None:
        """Note from where on the reader reads."""
        if reader is self._reader:
            self._floor = head
            self._wake()

    def add(self, reader: _Reader, frames: list[Frame]) -> None:
        """Add what was read, and drop the oldest events that exceed the buffer."""
        if reader is not self._reader:
            return
        last_erasure = max(
            (at for at, each in enumerate(frames) if isinstance(each.recorded.event, Erased)),
            default=None,
        )
        self._frames += frames
        self._n_bytes += sum(len(each.data) for each in frames)
        n_gone = max(0, len(self._frames) - self._buffer_max)
        if last_erasure is not None:
            # What was said before is destroyed: pages do not show it any more.
            n_gone = max(n_gone, len(self._frames) - len(frames) + last_erasure)
        n_bytes = self._n_bytes - sum(len(each.data) for each in self._frames[:n_gone])
        while n_bytes > _BUFFER_BYTES_MAX and n_gone < len(self._frames):
            n_bytes -= len(self._frames[n_gone].data)
            n_gone += 1
        if n_gone:
            self._floor = self._frames[n_gone - 1].position
            del self._frames[:n_gone]
        self._n_bytes = n_bytes
        self._wake()

    def failed(self, reader: _Reader) -> None:
        """Disconnect all followers: the log cannot be read. Those that reconnect get the error."""
        if reader is self._reader:
            self._end_reader()
            self._wake()

    def page(self, after: int, which: EventFilter) -> EventChunk:
        """Read the next events after a position from the log; not on the event loop.

        Raises:
            LedgerError: the log cannot be read there.
        """
        found = event_log.page(self._ledger, after, _PAGE, which)
        data = b"".join(map(_written, log_out(self._ledger, found.events)))
        return EventChunk(data, found.next_after, found.head)

    async def follow(
        self, first: EventChunk, which: EventFilter, welcome: Welcome
    ) -> AsyncGenerator[bytes]:
        """Give the first events, those after them, and those that happen from now on.

        Args:
            first: what was read already.
            which: what is of interest.
            welcome: asked from time to time whether the follower may still do so.
        """
        clock = asyncio.get_running_loop().time
        reader, position = self._reader, first.position
        yield first.data + _heartbeat(position)
        asked_at = sent_at = clock()
        while reader is self._reader and reader is not None:
            if clock() - asked_at >= self._heartbeat_s:
                if not await welcome():
                    return
                asked_at = clock()
            if clock() - sent_at >= self._heartbeat_s:
                yield _heartbeat(position)
                sent_at = clock()
            changed, before = self._changed, position
            try:
                data, position = await self._next(position, which)
            except LedgerError:
                # Too late for an error answer; a client that reconnects gets one.
                log.exception(
                    "the log cannot be read after %d; a follower is disconnected", position
                )
                return
            if data:
                yield data
                sent_at = clock()
            elif position == before:
                with anyio.move_on_after(max(0.0, sent_at + self._heartbeat_s - clock())):
                    await changed.wait()

    async def _next(self, after: int, which: EventFilter) -> tuple[bytes, int]:
        """Return what is to be sent next, and up to where that is."""
        if self._floor is not None and after < self._floor:
            try:
                part = await anyio.to_thread.run_sync(self.page, after, which, limiter=self._paging)
            except StoreUnavailable:
                await anyio.sleep(_AGAIN_S)
                return b"", after
            return part.data, part.position
        start = bisect_right(self._frames, after, key=_position)
        frames = self._frames[start : start + _PAGE]
        admitted = (each.data for each in frames if which.admits(each.recorded, each.labels))
        return b"".join(admitted), frames[-1].position if frames else after


class _Reader:
    """Reads what is new, for all followers, in a thread of its own."""

    def __init__(self, followers: Followers, ledger: Ledger) -> None:
        self.stop = Flag()
        self._followers = followers
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._position: int | None = None
        self.thread = Thread(target=self._run, name="log reader", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                with Bell(self._ledger) as bell:
                    self._read(bell)
            except StoreUnavailable as error:
                log.warning("the log cannot be read for followers: %s", error)
                self.stop.wait(_AGAIN_S)
            except Exception:
                log.exception("the log cannot be read; all followers are disconnected")
                self._loop.call_soon_threadsafe(self._followers.failed, self)
                return

    def _read(self, bell: Bell) -> None:
        if self._position is None:
            self._position = queries.head(self._ledger)
            self._loop.call_soon_threadsafe(self._followers.begin, self, self._position)
        while not self.stop.is_set():
            found = event_log.page(self._ledger, self._position, _BATCH)
            if found.events:
                frames = _frames(self._ledger, found.events)
                self._loop.call_soon_threadsafe(self._followers.add, self, frames)
            self._position = found.next_after
            if self._position >= found.head:
                bell.wait(_POLL_S)
                self.stop.wait(_PAUSE_S)


class EventStream(StreamingResponse):
    """An answer that does not end: what happens, as server-sent events."""

    def __init__(
        self, followers: Followers, first: EventChunk, which: EventFilter, welcome: Welcome
    ) -> None:
        """Send what was read first, and follow the log from there."""
        super().__init__(
            followers.follow(first, which, welcome),
            headers={
                "Content-Type": STREAM_TYPE,
                "Cache-Control": "no-store",
                # A proxy that gathers answers would keep events back.
                "X-Accel-Buffering": "no",
            },
        )
        self._followers = followers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            TooManyFollowers: nothing was sent yet.
        """
        with self._followers.joined():
            await super().__call__(scope, receive, send)


def _frames(ledger: Ledger, found: list[Placed]) -> list[Frame]:
    labels = event_log.labels(ledger, found)
    return [
        Frame(placed.position, placed.recorded, _labels_of(placed, labels), _written(shown))
        for placed, shown in zip(found, log_out(ledger, found), strict=True)
    ]


def _labels_of(placed: Placed, labels: Mapping[int, Labels]) -> Labels:
    if placed.recorded.stream is not Stream.record:
        return _NO_LABELS
    return labels.get(placed.recorded.number, _NO_LABELS)


def _written(event: Mapping[str, Any]) -> bytes:
    """Return an event as it is sent."""
    head = f"id: {event['position']}\nevent: {event['kind']}\ndata: ".encode()
    return head + to_json(event) + b"\n\n"


def _heartbeat(position: int) -> bytes:
    """Return what is sent when nothing has happened: no event, and up to where that is so."""
    return f": nothing new\nid: {position}\n\n".encode()


def _position(frame: Frame) -> int:
    return frame.position
