"""The log as those read it who follow it: in order, from a position, with filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple

from psycopg.sql import SQL, Identifier

from recordledger.domain.aggregates import AGGREGATES, EVENT_TYPES
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger, Placed
from ..log.mapper import Recorded
from ..log.recorder import CHANNEL
from ..log.user_blocks import packed
from ..store.database import Db, as_ledger_errors, connect, one
from ..store.statements import shipped, statements

_SQL: Final = statements("reading.event_log")
_LOG_SQL: Final = statements("log.ledger_events")

# For administrators to see: the events of tokens and webhooks are left out. The address of a
# webhook can be as good as a token.
HIDDEN: Final = tuple(
    event_type.topic for kind in AGGREGATES.values() if kind.hidden for event_type in kind.events
)
KINDS: Final = tuple(topic for topic in EVENT_TYPES if topic not in HIDDEN)
# So far does one page look for what a filter lets through.
SCAN_MAX: Final = 10_000


class Labels(NamedTuple):
    """What events do not say and filters ask: tag and datasets of the record, as they are now.

    The tag is None of what is no record, and of an erased one.
    """

    tag: str | None = None
    dataset_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events: those that meet every condition that is not empty.

    Tag and dataset are those that the event's record has when the event is read. What happens to
    the dataset itself belongs to it too.
    """

    kinds: frozenset[str] = frozenset()
    record_ids: frozenset[int] = frozenset()
    tags: frozenset[str] = frozenset()
    actors: frozenset[str] = frozenset()
    dataset_id: int | None = None

    def admits(self, recorded: Recorded, labels: Labels) -> bool:
        """Return whether an event meets the conditions."""
        is_record = recorded.stream is Stream.record
        event = recorded.event
        return (
            (not self.kinds or event.topic in self.kinds)
            and (not self.record_ids or (is_record and recorded.number in self.record_ids))
            and (not self.tags or labels.tag in self.tags)
            and (not self.actors or event.actor in self.actors)
            and (self.dataset_id is None or self._is_of_dataset(recorded, labels))
        )

    def _is_of_dataset(self, recorded: Recorded, labels: Labels) -> bool:
        if recorded.stream is Stream.dataset:
            return recorded.number == self.dataset_id
        return self.dataset_id in labels.dataset_ids


EVERYTHING: Final = EventFilter()


class LogPage(NamedTuple):
    """Some events, the position up to which the log was read for them, and the newest position."""

    events: list[Placed]
    next_after: int
    head: int


def page(ledger: Ledger, after: int, limit: int, which: EventFilter = EVERYTHING) -> LogPage:
    """Return the next events after a position, at most `limit`; looks at `SCAN_MAX` at most.

    A page may be empty and yet not be the last: that is where `next_after` is the head.

    Raises:
        UnknownEvent: this version of the code does not know one of the events.
        UnreadableEvent: the bytes of one are no event.
    """
    with ledger.datastore.reading() as db:
        return read_page(ledger, db, after, limit, which)


def read_page(ledger: Ledger, db: Db, after: int, limit: int, which: EventFilter) -> LogPage:
    """Return the next events after a position, as `page` does."""
    head = int(one(db, _LOG_SQL["head"], prepare=True)[0])
    # Positions are in the order of commits: what is at or before the head now, stays so.
    upto = head if which.record_ids else min(head, after + SCAN_MAX)
    source = _SQL["of_streams"] if which.record_ids else "ledger_events"
    rows = db.execute(
        shipped(_SQL["page"].format(source=source)),
        {
            "after": after,
            "upto": upto,
            "limit": limit,
            "hidden": list(HIDDEN),
            "kinds": sorted(which.kinds) or None,
            "actors": [packed(actor) for actor in which.actors] or None,
            "tags": sorted(which.tags) or None,
            "dataset_id": which.dataset_id,
            "dataset": which.dataset_id and stream_uuid(Stream.dataset, which.dataset_id),
            "streams": [stream_uuid(Stream.record, id_) for id_ in which.record_ids],
        },
        prepare=True,
    ).fetchall()
    event_of = ledger.event_mapper.event_of
    found = [
        Placed(position, Recorded(*stream_number(id_), version, event_of(topic, bytes(state))))
        for position, id_, version, topic, state in rows
    ]
    next_after = found[-1].position if len(found) == limit else max(after, upto)
    if which.actors:
        found = [placed for placed in found if placed.recorded.event.actor in which.actors]
    return LogPage(found, next_after, head)


def labels(ledger: Ledger, events: Sequence[Placed]) -> Mapping[int, Labels]:
    """Return what filters ask of the events' records, by record; erased ones are left out."""
    ids = sorted(_record_ids(events))
    with ledger.datastore.reading() as db:
        datasets: dict[int, set[int]] = {}
        for record_id, dataset_id in db.execute(_SQL["datasets"], {"ids": ids}, prepare=True):
            datasets.setdefault(record_id, set()).add(dataset_id)
        tags = db.execute(_SQL["tags"], {"ids": ids}, prepare=True).fetchall()
    return {
        record_id: Labels(tag, frozenset(datasets.get(record_id, ()))) for record_id, tag in tags
    }


def remaining(ledger: Ledger, record_ids: Iterable[int]) -> set[int]:
    """Return which of these records were not erased."""
    with ledger.datastore.reading() as db:
        return {row[0] for row in db.execute(_SQL["tags"], {"ids": sorted(set(record_ids))})}


class Bell:
    """Rings when something was appended, to any ledger of the database; on one connection."""

    def __init__(self, ledger: Ledger) -> None:
        """Listen from now on."""
        self._connection = connect(ledger.url, ledger.schema)
        with as_ledger_errors():
            self._connection.execute(SQL("LISTEN {}").format(Identifier(CHANNEL)))

    def __enter__(self) -> Bell:
        """Return the bell itself; its connection is closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._connection.close()

    def wait(self, timeout_s: float) -> None:
        """Return when it rings or has rung since the last time, or when the time is up.

        Raises:
            StoreUnavailable: the connection is lost.
        """
        with as_ledger_errors():
            for _ in self._connection.notifies(timeout=timeout_s, stop_after=1):
                pass


def _record_ids(events: Iterable[Placed]) -> set[int]:
    return {placed.recorded.number for placed in events if placed.recorded.stream is Stream.record}
