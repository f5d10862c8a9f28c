"""What waits, who could take it, and why a record is where it is; at a cost that has a limit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.records.events import Errored, Kind, Priority
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import Lane
from recordledger.domain.routing.matching import Cause, Crew
from recordledger.domain.routing.why import (
    BEFORE_MAX,
    BLOCKING_MAX,
    CHILDREN_MAX,
    Circumstances,
    StatusExplanation,
    explain,
)
from recordledger.domain.specs.service_rules import Awaited
from recordledger.domain.streams import Stream

from ..ledger import Ledger
from ..store.database import Db, one
from ..store.statements import statements
from ..tables import managers, payloads

_SQL = statements("reading.waiting")
_LOG_SQL = statements("log.ledger_events")
# How many pausing tasks are counted at most.
PAUSED_MAX: Final = 10_000
_ABLE_MAX: Final = 5
# The statuses in which a service may still wait for its children.
_LIVE: Final = (Status.waiting, Status.running, Status.error)


class Oldest(NamedTuple):
    """The oldest claimable task of a priority, and when it was created."""

    record_id: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class QueuedLane:
    """Tasks of one tag that require the same programs, and who could take them.

    Attributes:
        n_waiting: records that wait, those that pause before a retry and services too.
        n_paused: of these, how many pause; of the next `PAUSED_MAX` of the whole ledger.
        oldest: by priority; what can be claimed.
        able_ids: some of the managers that can take them now.
        blocked: why no manager can; None if one can.
    """

    lane: Lane
    n_waiting: int
    n_running: int
    n_paused: int
    oldest: Mapping[Priority, Oldest]
    n_able: int
    able_ids: list[int]
    blocked: Cause | None


@dataclass(frozen=True, slots=True)
class WaitingLanes:
    """The lanes in which tasks can be claimed: first those that nobody can take, then the deepest.

    The totals count the lanes that are left out as well.
    """

    lanes: list[QueuedLane]
    n_lanes: int
    n_blocked: int
    n_waiting: int
    n_paused: int
    n_managers: int


def queue(ledger: Ledger, limit: int, tags: Collection[str] | None = None) -> WaitingLanes:
    """Return what waits, by lane, and who could take it.

    Args:
        ledger: where.
        limit: maximum number of lanes.
        tags: only of these; None for all.
    """
    with ledger.datastore.reading() as db:
        ledger.lanes.refresh(db)
        counts = {lane_id: found for lane_id, *found in waiting_lanes(db)}
        ledger.lanes.learn(db, counts)
        paused = paused_by_lane(db)
        alive = managers.alive(db)
        crew = Crew(seen.manager for seen in alive)
        found: list[tuple[int, QueuedLane]] = []
        for lane_id, (n_waiting, n_running) in counts.items():
            lane = ledger.lanes.lane(lane_id)
            if tags is not None and lane.tag not in tags:
                continue
            able_ids, blocked = crew.openness(lane)
            queued = QueuedLane(
                lane=lane,
                n_waiting=n_waiting or 0,
                n_running=n_running or 0,
                n_paused=paused.get(lane_id, 0),
                oldest={},
                n_able=len(able_ids),
                able_ids=able_ids[:_ABLE_MAX],
                blocked=blocked,
            )
            found.append((lane_id, queued))
        found.sort(key=lambda each: (each[1].blocked is None, -each[1].n_waiting, each[1].lane))
        shown = found[:limit]
        heads = oldest(db, [lane_id for lane_id, _ in shown])
    return WaitingLanes(
        lanes=[replace(each, oldest=heads.get(lane_id, {})) for lane_id, each in shown],
        n_lanes=len(found),
        n_blocked=sum(each.blocked is not None for _, each in found),
        n_waiting=sum(each.n_waiting for _, each in found),
        n_paused=sum(each.n_paused for _, each in found),
        n_managers=len(alive),
    )


def waiting_lanes(db: Db) -> list[tuple[int, int | None, int | None]]:
    """Return the ids of the lanes that are not empty, with how many records wait and run."""
    return [(row[0], row[1], row[2]) for row in db.execute(_SQL["lanes"], prepare=True)]


def paused_by_lane(db: Db) -> dict[int, int]:
    """Return how many of the next `PAUSED_MAX` tasks to be retried pause in each lane."""
    return dict(db.execute(_SQL["paused"], {"limit": PAUSED_MAX}, prepare=True))


def oldest(db: Db, lane_ids: list[int]) -> dict[int, dict[Priority, Oldest]]:
    """Return the oldest claimable task of each priority, by lane."""
    ranks = [-priority for priority in sorted(Priority, reverse=True)]
    found: dict[int, dict[Priority, Oldest]] = {}
    parameters = {"lane_ids": lane_ids, "ranks": ranks}
    for lane_id, rank, *head in db.execute(_SQL["oldest"], parameters, prepare=True):
        found.setdefault(lane_id, {})[Priority(-rank)] = Oldest(*head)
    return found


def why(ledger: Ledger, record_id: int) -> StatusExplanation:
    """Return why a record is where it is.

    Raises:
        RecordNotFound: it never was.
    """
    with ledger.datastore.reading() as db:
        placed = ledger.history(db, Stream.record, record_id)
        history = [each.recorded.event for each in placed]
        record = fold(record_id, history)
        now = _circumstances(db, ledger, record)
        errors = [event for event in history if isinstance(event, Errored)]
        if errors and record.exists:
            message = errors[-1].outcome.error_message
            said = payloads.text_of(message, payloads.texts(db, [message]))
            now = replace(now, error_message=said)
    return explain(record, history, now)


def _circumstances(db: Db, ledger: Ledger, record: RecordAggregate) -> Circumstances:
    now = Circumstances(now=one(db, _LOG_SQL["now"])[0])
    if record.claimable:
        ledger.lanes.refresh(db)
        lane_id = ledger.lanes.id_of(record)
        return replace(
            now,
            alive=managers.alive(db),
            n_waiting=_count(db, "n_waiting", lane_id=lane_id),
            n_before=tasks_before(db, lane_id, record),
        )
    if record.kind is Kind.service and record.status in _LIVE:
        return replace(
            now,
            children=children_by_status(db, record.id),
            blocking=blocking_of(db, record.id),
        )
    if record.status is Status.running and record.manager_id is not None:
        return replace(now, holder=managers.one(db, record.manager_id))
    return now


def tasks_before(db: Db, lane_id: int, record: RecordAggregate) -> int:
    """Return how many tasks of its lane are claimed before a record, up to `BEFORE_MAX` + 1."""
    return _count(
        db,
        "before",
        lane_id=lane_id,
        rank=-record.priority,
        record_id=record.id,
        limit=BEFORE_MAX + 1,
    )


def children_by_status(db: Db, record_id: int) -> dict[Status, int]:
    """Return how many children of a service are in each status, of `CHILDREN_MAX` at most."""
    parameters = {"id": record_id, "limit": CHILDREN_MAX}
    rows: dict[str, int] = dict(db.execute(_SQL["children"], parameters, prepare=True))
    return {status: rows[status] for status in Status if status in rows}


def blocking_of(db: Db, service_id: int) -> list[Awaited]:
    """Return the first children that a service waits for, the most troublesome ones first."""
    rows = db.execute(_SQL["blocking"], {"id": service_id, "limit": BLOCKING_MAX}, prepare=True)
    return [
        Awaited(key, id_, Status(status), error_type, message)
        for key, id_, status, error_type, message in rows
    ]


def _count(db: Db, statement: str, **parameters: int) -> int:
    row = db.execute(_SQL[statement], parameters, prepare=True).fetchone()
    return int(row[0]) if row else 0
