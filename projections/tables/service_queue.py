"""The tables `services`, `service_children` and `service_leases`: what services wait for.

A service's row counts those children that it waits for and that are open, and those that have come
to no good end. A transaction that changes a child has its record locked, and so has a transaction
that begins to wait for
it: each sees what the other did. So the counts are right at every commit, and say which services
are due without looking at a child.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from recordledger.domain.records.events import Completed, Errored, Event, Kind, ServiceIterated
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS
from recordledger.domain.specs.service_rules import Awaited, ChildStanding, standing_of
from recordledger.domain.streams import Stream, stream_uuid

from ..log.mapper import EventMapper, MsgpackTranscoder, Recorded
from ..store.database import Db, cursor_of
from ..store.statements import statements
from .changes import Changes
from .table import CountedFrom, Owner, ProjectionTable, write_nothing

_SQL = statements("tables.service_queue")
_LOG_SQL = statements("log.ledger_events")
_PICK_LOCK: Final = 7_301_956_006

# The statuses in which a child has not ended, or has come to no good end.
OPEN: Final = [str(each) for each in Status if standing_of(each) is ChildStanding.open]
TROUBLED: Final = [str(each) for each in Status if standing_of(each) is ChildStanding.troubled]


@dataclass(slots=True)
class _ServiceChildren:
    """What the events of one service say of its children, the newest decision last."""

    children: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    n_new: int = 0
    newest: ServiceIterated | Completed | None = None
    by_children: bool | None = None

    def fold(self, event: Event) -> None:
        match event:
            case ServiceIterated():
                for key, child in event.named_children.items():
                    self.children.setdefault(key, (child, event.iteration))
                self.n_new += len(event.children)
                self.newest = event
            case Completed():
                self.newest = event
            case Errored():
                self.by_children = event.cause is not None
            case _:
                pass

    @property
    def awaited(self) -> set[str]:
        """The keys of the children that the service waits for since its newest decision."""
        if not isinstance(self.newest, ServiceIterated):
            return set()
        return {*self.newest.named_children, *(self.newest.awaits or ())}


def write(db: Db, changes: Changes) -> None:
    """Bring what services wait for from what it was to what it is."""
    follow(db, changes.records, changes.happened)


def follow(
    db: Db,
    changed: Sequence[tuple[RecordAggregate, RecordAggregate]],
    happened: Iterable[Recorded],
    *,
    tell: bool = True,
) -> None:
    """Bring what services wait for from what it was to what it is, by changes of records.

    Records that only moved between statuses in which a child is open concern nobody. The order
    within is such that a replay, which meets parents and children in any order, counts the same:
    first the services that already wait count children that moved, then those that have decided
    again count theirs. Unless `tell`, children are not counted: where the table `records` is up to
    date before the first service is written, all count what their children are now.
    """
    services = [
        (before, after)
        for before, after in changed
        if (after if after.exists else before).kind is Kind.service
    ]
    moved = _moved(changed) if tell else []
    if not services and not moved:
        return
    stories = _service_children(services, happened)
    decided = [id_ for id_, story in stories.items() if story.newest is not None]
    gone = [after.id for before, after in services if before.exists and not after.exists]
    asked_for = [child for story in stories.values() for child, _ in story.children.values()]
    again = _again(stories)
    parameters: dict[str, list[Any]] = {
        "services": [*(after.id for _, after in services), *asked_for],
        "moved": [id_ for id_, *_ in moved],
        "decided": [*decided, *gone],
        "again": [service_id for service_id, _ in again],
        "keys": [key for _, key in again],
    }
    locked = db.execute(_SQL["lock"], parameters, prepare=True).fetchall()
    if moved and locked:
        ids, opened, troubled = map(list[int], zip(*moved, strict=True))
        parameters = {"ids": ids, "opened": opened, "troubled": troubled}
        db.execute(_SQL["tell"], parameters, prepare=True)
    _write_statuses(db, services)
    if blamed := {id_: s.by_children for id_, s in stories.items() if s.by_children is not None}:
        flags = {"ids": list(blamed), "by_children": list(blamed.values())}
        db.execute(_SQL["blame"], flags, prepare=True)
    if decided:
        _write_decisions(db, {id_: stories[id_] for id_ in decided})
    if gone:
        db.execute(_SQL["forget"], {"ids": gone})
        orphans = [row[0] for row in db.execute(_SQL["forget_children"], {"ids": gone})]
        db.execute(_SQL["want"], {"ids": orphans}, prepare=True)


def _moved(
    changed: Sequence[tuple[RecordAggregate, RecordAggregate]],
) -> list[tuple[int, int, int]]:
    """Return who is open or troubled that was not, or the other way round: (id, 1, -1)."""
    found: list[tuple[int, int, int]] = []
    for before, after in changed:
        was, now = standing_of(before.status), standing_of(after.status)
        if was is not now:
            opened = (now is ChildStanding.open) - (was is ChildStanding.open)
            troubled = (now is ChildStanding.troubled) - (was is ChildStanding.troubled)
            found.append((after.id, opened, troubled))
    return found


def _service_children(
    services: Sequence[tuple[RecordAggregate, RecordAggregate]], happened: Iterable[Recorded]
) -> dict[int, _ServiceChildren]:
    stories = {after.id: _ServiceChildren() for _, after in services if after.exists}
    if stories:
        for recorded in happened:
            if recorded.stream is Stream.record and recorded.number in stories:
                stories[recorded.number].fold(recorded.event)
    return stories


def _again(stories: dict[int, _ServiceChildren]) -> list[tuple[int, str]]:
    """Return the older children that are waited for again, by service and key."""
    return [
        (service_id, key)
        for service_id, story in stories.items()
        for key in sorted(story.awaited - story.children.keys())
    ]


def _write_statuses(db: Db, services: Sequence[tuple[RecordAggregate, RecordAggregate]]) -> None:
    def place(record: RecordAggregate) -> tuple[int, str, int]:
        return record.id, str(record.status), -record.priority

    new = [place(after) for before, after in services if not before.exists and after.exists]
    changed = [
        place(after)
        for before, after in services
        if before.exists and after.exists and place(before) != place(after)
    ]
    for statement, places in (("insert", new), ("update", changed)):
        if places:
            ids, statuses, ranks = map(list[Any], zip(*places, strict=True))
            parameters = {"ids": ids, "statuses": statuses, "ranks": ranks}
            db.execute(_SQL[statement], parameters, prepare=True)


def _write_decisions(db: Db, stories: dict[int, _ServiceChildren]) -> None:
    ids = list(stories)
    touched = {row[0] for row in db.execute(_SQL["await_no_more"], {"ids": ids}, prepare=True)}
    new = [
        (service_id, key, child, iteration, key in story.awaited)
        for service_id, story in stories.items()
        for key, (child, iteration) in story.children.items()
    ]
    if new:
        names = ("services", "keys", "children", "iterations", "awaited")
        columns = map(list[Any], zip(*new, strict=True))
        db.execute(_SQL["add_children"], dict(zip(names, columns, strict=True)), prepare=True)
        touched.update(child for _, _, child, _, _ in new)
    if again := _again(stories):
        services, keys = map(list[Any], zip(*again, strict=True))
        parameters: dict[str, Any] = {"services": services, "keys": keys}
        touched |= {row[0] for row in db.execute(_SQL["await_again"], parameters, prepare=True)}
    if touched:
        db.execute(_SQL["want"], {"ids": sorted(touched)}, prepare=True)
    newest = [story.newest for story in stories.values()]
    parameters = {
        "ids": ids,
        "n_new": [story.n_new for story in stories.values()],
        "any_child": [bool(getattr(event, "any_child", None)) for event in newest],
        "takes_errors": [bool(getattr(event, "takes_errors", None)) for event in newest],
        "open": OPEN,
        "troubled": TROUBLED,
    }
    for name in ("wake_at", "progress", "code_version"):
        parameters[name] = [getattr(event, name, None) for event in newest]
    db.execute(_SQL["decide"], parameters, prepare=True)


def fill(connection: Connection[Any]) -> None:
    """Read what services wait for from a log that was written before there was this table."""
    event_of = EventMapper(MsgpackTranscoder()).event_of
    db = cursor_of(connection)
    for (record_id,) in db.execute(_SQL["old_services"]).fetchall():
        rows = db.execute(_LOG_SQL["history"], {"id": stream_uuid(Stream.record, record_id)})
        history = [
            Recorded(Stream.record, record_id, version, event_of(topic, bytes(state)))
            for _, version, topic, state in rows.fetchall()
        ]
        after = fold(record_id, (recorded.event for recorded in history))
        follow(db, [(RecordAggregate(record_id), after)], history, tell=False)


# What a service counts of its children, and whether it is waited for, others' histories say.
COUNTED_OF_CHILDREN: Final = ("n_open", "n_troubled", "wanted")
_OF_SERVICES: Final = (
    "record_id", "status", "rank", "by_children", "n_children", "n_awaited", "any_child",
    "takes_errors", "wake_at", "progress", "code_version",
)  # fmt: skip

# What can happen to services, and what makes of an open child one that is not, or the reverse.
_CONCERNING: Final[frozenset[type[Event]]] = frozenset(
    event_type
    for (source, event_type), target in TRANSITIONS.items()
    if event_type.only is not Kind.task
    or not isinstance(target, Status)
    or standing_of(source) is not standing_of(target)
)

TABLES: Final = (
    ProjectionTable(
        name="services",
        key=("record_id",),
        owner=Owner("record_id", Stream.record, _OF_SERVICES),
        counted=CountedFrom(
            sources=("services", "service_children", "records"),
            expected=_SQL["expected"],
            parameters={"open": OPEN, "troubled": TROUBLED},
            columns=COUNTED_OF_CHILDREN,
            record="record_id",
            only="s.record_id",
        ),
        events=_CONCERNING,
        write=write,
        write_shared=write_nothing,
    ),
    ProjectionTable(
        name="service_children",
        key=("service_id", "key"),
        owner=Owner("service_id", Stream.record),
    ),
)


# What runners do


def pick(
    db: Db,
    runner: str,
    limit: int,
    *,
    active_max: int,
    lease_s: float,
    in_hand: Collection[int] = (),
    done: Collection[int] = (),
) -> list[int] | None:
    """Give a runner the next services that are due, and take back what it is done with.

    Args:
        db: in a transaction.
        runner: its name.
        limit: maximum number of services.
        active_max: services that run at once, of all runners.
        lease_s: until when those that it gets, and those in hand, are its own, in seconds.
        in_hand: what it works on.
        done: what it does not work on any more.

    Returns:
        Their ids; None if another runner is just picking.
    """
    row = db.execute(_SQL["try_to_pick"], {"lock": _PICK_LOCK}, prepare=True).fetchone()
    if row is None or not row[0]:
        return None
    mine: dict[str, Any] = {"runner": runner, "lease_s": lease_s}
    if done:
        db.execute(_SQL["release"], {"runner": runner, "ids": list(done)}, prepare=True)
    if in_hand:
        db.execute(_SQL["extend"], mine | {"ids": list(in_hand)}, prepare=True)
    if limit <= 0:
        return []
    parameters = mine | {"limit": limit, "active_max": active_max}
    return [row[0] for row in db.execute(_SQL["pick"], parameters, prepare=True)]


def any_running(db: Db) -> bool:
    """Return whether any service runs, that is to say, may become due at any time."""
    row = db.execute(_SQL["any_running"], prepare=True).fetchone()
    return bool(row and row[0])


class Waits(NamedTuple):
    """What a service waits for, and whether that has come."""

    n_children: int
    any_child: bool
    takes_errors: bool
    wake_at: datetime | None
    progress: float | None
    code_version: str | None
    due: bool


def waits_of(db: Db, service_id: int) -> Waits | None:
    """Return what a service waits for; None if there is no such service."""
    row = db.execute(_SQL["waits"], {"id": service_id}, prepare=True).fetchone()
    return None if row is None else Waits(*row)


class AwaitedRow(NamedTuple):
    """A child that a service waits for, and its outcome."""

    child: Awaited
    outcome: bytes | None


def awaited_by(db: Db, service_id: int) -> list[AwaitedRow]:
    """Return the children that a service waits for, as they are now."""
    return [
        AwaitedRow(Awaited(key, child_id, Status(status), error_type, message), outcome)
        for key, child_id, status, outcome, error_type, message in db.execute(
            _SQL["awaited"], {"id": service_id}, prepare=True
        )
    ]


def keys_of(db: Db, service_id: int, keys: Collection[str]) -> dict[str, int]:
    """Return those of these keys that a service has given to children, with the children."""
    return dict(db.execute(_SQL["keys"], {"id": service_id, "keys": list(keys)}, prepare=True))


class ChildRow(NamedTuple):
    """A child of a service, by the service's own name for it."""

    service_id: int
    key: str
    iteration: int
    awaited: bool
    record_id: int
    status: Status
    kind: Kind
    function: str


def children_of(db: Db, service_ids: Sequence[int], limit: int) -> list[ChildRow]:
    """Return the children of services, at most `limit` of each, by key."""
    rows = db.execute(_SQL["children"], {"ids": service_ids, "limit": limit}, prepare=True)
    return [
        ChildRow(service_id, key, iteration, awaited, id_, Status(status), Kind(kind), function)
        for service_id, key, iteration, awaited, id_, status, kind, function in rows
    ]


def n_children_of(db: Db, service_ids: Sequence[int]) -> dict[int, int]:
    """Return how many children each of these services has asked for."""
    return dict(db.execute(_SQL["n_children"], {"ids": service_ids}, prepare=True))
