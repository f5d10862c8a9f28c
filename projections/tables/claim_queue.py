"""The table `claim_queue`: tasks that may be claimed now, in the order of claiming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from recordledger.domain.records.events import Event
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS, Destination

from ..store.database import Db, insert_rows
from ..store.statements import statements
from .changes import Changes, SharedChanges
from .lanes import LaneRegistry
from .records import ClaimableTask, lock_claimable
from .table import CountedFrom, ProjectionTable

_SQL = statements("tables.claim_queue")
_BEFORE_ALL: Final = (0, -32768, 0)
# The events of waiting records, and those that may make others wait.
_MOVING: Final[frozenset[type[Event]]] = frozenset(
    event_type
    for (source, event_type), target in TRANSITIONS.items()
    if Status.waiting in (source, target) or target in (Destination.prior, Destination.stated)
)
# Who finds the first window taken by others reads larger ones, up to this.
_WINDOW_MAX: Final = 320


def place_of(record: RecordAggregate, lanes: LaneRegistry) -> tuple[int, int, int] | None:
    """Return where a record stands in the queue, as (lane, rank, id); None if it does not."""
    if not record.claimable:
        return None
    return lanes.id_of(record), -record.priority, record.id


def write(db: Db, changes: Changes) -> None:
    """Take out what cannot be claimed any more, and put in what can, at its old place."""
    moves = [
        (place_of(before, changes.lanes), place_of(after, changes.lanes))
        for before, after in changes.records
    ]
    gone = [old for old, new in moves if old is not None and old != new]
    come = [new for old, new in moves if new is not None and old != new]
    if gone:
        lane_ids, ranks, record_ids = map(list[int], zip(*gone, strict=True))
        parameters = {"lane_ids": lane_ids, "ranks": ranks, "record_ids": record_ids}
        db.execute(_SQL["delete"], parameters, prepare=True)
    insert_rows(db, TABLE.name, TABLE.columns, come)


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Do the same for records that share an event."""
    gone: dict[tuple[int, int], list[int]] = {}
    come: dict[tuple[int, int], list[int]] = {}
    for each in changes.classes:
        old, new = place_of(each.before, changes.lanes), place_of(each.after, changes.lanes)
        if old is not None and old != new:
            gone.setdefault(old[:2], []).extend(each.ids)
        if new is not None and old != new:
            come.setdefault(new[:2], []).extend(each.ids)
    for statement, places in (("leave", gone), ("enter", come)):
        for (lane_id, rank), record_ids in places.items():
            values = {"lane_id": lane_id, "rank": rank, "record_ids": record_ids}
            db.execute(_SQL[statement], values, prepare=True)


def rows(db: Db, changes: Changes) -> list[tuple[int, int, int]]:
    """Return the places of the changed records that have one."""
    places = (place_of(after, changes.lanes) for _, after in changes.records)
    return [place for place in places if place is not None]


TABLE: Final = ProjectionTable(
    name="claim_queue",
    key=("lane_id", "rank", "record_id"),
    counted=CountedFrom(
        sources=("records",), expected=_SQL["expected"], record="record_id", only="r.id"
    ),
    events=_MOVING,
    write=write,
    write_shared=write_shared,
    columns={"lane_id": "integer", "rank": "smallint", "record_id": "bigint"},
    rows=rows,
    key_last=True,
)


def lock_next(db: Db, lane_ids_by_tag: Sequence[Sequence[int]], limit: int) -> list[ClaimableTask]:
    """Lock and return the next tasks for a manager: by its tags' order, priority, then age."""
    taken: list[ClaimableTask] = []
    for ids, lane_ids in _windows(db, lane_ids_by_tag, limit):
        taken += lock_claimable(db, ids, lane_ids, limit - len(taken))
        if len(taken) >= limit:
            break
    return taken


def _windows(
    db: Db, lane_ids_by_tag: Sequence[Sequence[int]], limit: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Walk down the order of claiming; a second window is read only if others had the first.

    Yields:
        The next tasks, and the lane that each is in.
    """
    lane_ids = [id_ for ids in lane_ids_by_tag for id_ in ids]
    turns = [turn for turn, ids in enumerate(lane_ids_by_tag) for _ in ids]
    turn, rank, record_id = _BEFORE_ALL
    size = limit
    while lane_ids and size > 0:
        parameters = {
            "lane_ids": lane_ids,
            "turns": turns,
            "after_turn": turn,
            "after_rank": rank,
            "after_id": record_id,
            "limit": size,
        }
        window = db.execute(_SQL["candidates"], parameters, prepare=True).fetchall()
        if window:
            yield [row[2] for row in window], [row[3] for row in window]
        if len(window) < size:
            return
        turn, rank, record_id, _ = window[-1]
        size = min(4 * size, max(limit, _WINDOW_MAX))
