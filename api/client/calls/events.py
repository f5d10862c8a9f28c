"""The log: all events in order, and new ones as they are appended."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import ValidationError

from recordledger.domain.streams import ID_MAX

from ...schemas.events import EventsAnswer
from .. import exchange, wire
from ..arguments import listed
from ..errors import InvalidArgument, ServerFault
from ..exchange import Operation, Session, Sleep
from ..results.events import LogEvent
from . import datasets

_PAGE: Final = 1_000
# For so long a follower tries to come back, if its client does not say how long.
FOLLOW_RETRIES_S: Final = 86_400.0
# Those that have lost their server together do not come back together.
_PAUSE_S: Final = 0.5
_END: Final = b"\n\n"


class _EventsAnswer(EventsAnswer):
    events: list[LogEvent]  # type: ignore[assignment]


class Feed:
    """Where one is in the log, how to read on there, and what was read. It does no I/O."""

    def __init__(
        self,
        session: Session,
        after: int | None,
        conditions: list[tuple[str, Any]],
        dataset: int | str | None,
    ) -> None:
        self.is_last = False
        self._session = session
        self._after = after
        self._conditions = conditions
        self._dataset = dataset
        self._was_open = False
        self._rest = b""

    def fetch(self) -> Operation[list[LogEvent]]:
        """Return the next page, which may be empty; `is_last` says whether there are no more."""
        yield from self._prepare()
        answer = yield from self._page(_PAGE)
        self._after = answer.next_after
        self.is_last = answer.next_after >= answer.head
        return answer.events

    def open(self) -> Operation[Any]:
        """Return where to read the stream from, of which `events_in` makes events."""
        patience_s = None
        if self._was_open:
            patience_s = self._session.retries_s
            patience_s = FOLLOW_RETRIES_S if patience_s is None else patience_s
            yield Sleep(random.uniform(0, _PAUSE_S))  # noqa: S311  # nobody gains by guessing it
        yield from self._prepare()
        source = yield from exchange.stream(self._session, self._path(), patience_s=patience_s)
        self._was_open, self._rest = True, b""
        return source

    def events_in(self, chunk: bytes) -> Iterator[LogEvent]:
        """Give the events that are whole with this piece of the stream.

        Raises:
            ServerFault: the answer is not a stream of events.
        """
        *frames, self._rest = (self._rest + chunk).split(_END)
        for frame in frames:
            fields: dict[bytes, bytes] = {}
            for line in frame.split(b"\n"):
                name, _, value = line.partition(b": ")
                fields[name] = value
            try:
                position = int(fields[b"id"])
                event = None
                if b"data" in fields:
                    event = LogEvent.model_validate_json(fields[b"data"])
            except (KeyError, ValueError, ValidationError) as error:
                raise ServerFault(
                    f"{self._session.url} sent an event that this version of recordledger cannot "
                    f"read; use the same version on both sides ({type(error).__name__} in an event)"
                ) from error
            if self._after is None or position > self._after:
                self._after = position
                if event is not None:
                    yield event

    def _prepare(self) -> Operation[None]:
        """Find out what the server does not know by the name that was given."""
        if self._dataset is not None:
            number = yield from datasets.dataset(self._session, self._dataset)
            self._conditions.append(("dataset", number))
            self._dataset = None
        if self._after is None:
            self._after = (yield from self._page(1)).head

    def _page(self, limit: int) -> Operation[_EventsAnswer]:
        path = self._path(("limit", limit))
        return (yield from exchange.get(self._session, path, _EventsAnswer))

    def _path(self, *more: tuple[str, Any]) -> str:
        query = [("after", self._after or 0), *self._conditions, *more]
        return f"/v1/events?{urlencode(query)}"


def events(
    session: Session,
    *,
    after: int | None = 0,
    kind: str | Iterable[str] | None = None,
    record: int | Iterable[int] | None = None,
    tag: str | Iterable[str] | None = None,
    dataset: int | str | None = None,
    actor: str | Iterable[str] | None = None,
    follow: bool = False,
) -> Feed:
    """Iterate over the events of records, managers, datasets and jobs, in order.

    With `follow`, iterate for ever: over what has happened, and then over what happens, as it
    does. When the connection is lost the iteration goes on where it was; no event is left out and
    none comes twice. It gives up, with `NotConnected`, when the server has been away for the
    client's `retries_s`; for a day if that is not set. To go on in another process, keep the
    `position` of the last event, and give it as `after`.

    Args:
        after: only events after this position of the log; None: only those from now on.
        kind: only of this kind, like `completed`, or of several.
        record: only of this record, or of several.
        tag: only of records with this tag, or one of several, at the time of reading.
        dataset: only of this dataset, by name or id, and of the records that it has at the time
            of reading.
        actor: only by this one, like `user:ann`, or by several.
        follow: whether to go on when there is nothing more.

    Raises:
        InvalidArgument: a condition is not valid.
        NotFound: there is no such dataset.
        Refused: there is no such kind, or the log does not go as far as `after`.

    >>> for event in client.events(kind=["completed", "errored"], tag="gpu"):
    ...     print(event.position, event.in_words)
    """
    del follow
    if after is not None and not 0 <= after <= ID_MAX:
        raise InvalidArgument(f"after is {after!r}, which is not a position of the log")
    conditions: list[tuple[str, Any]] = [
        (name, each)
        for name, given in (("kind", kind), ("tag", tag), ("actor", actor))
        for each in listed(given) or ()
    ]
    ids = wire.record_ids(listed(record) or (), what="record")
    return Feed(session, after, conditions + [("record", each) for each in ids], dataset)
