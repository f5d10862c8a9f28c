"""The table `status_counts`: how many records of each lane are in each status; never recounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from recordledger.domain.records.events import Rerouted
from recordledger.domain.records.status import Status

from ..store.database import Db
from ..store.statements import statements
from .changes import Changes, SharedChanges
from .table import MOVES, CountedFrom, Parts, ProjectionTable

_SQL = statements("tables.status_counts")


def changed(changes: Changes) -> Counter[tuple[int, str]]:
    """Return what the changes add and take away, by lane and status."""
    deltas: Counter[tuple[int, str]] = Counter()
    for before, after in changes.records:
        if before.status is not None:
            deltas[changes.lanes.id_of(before), before.status.value] -= 1
        if after.status is not None:
            deltas[changes.lanes.id_of(after), after.status.value] += 1
    return deltas


def write(db: Db, changes: Changes) -> None:
    """Add what the changes add and take away."""
    _add(db, changed(changes))


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Add what an event that records share adds and takes away."""
    deltas: Counter[tuple[int, str]] = Counter()
    for each in changes.classes:
        for record, sign in ((each.before, -1), (each.after, 1)):
            deltas[changes.lanes.id_of(record), str(record.status)] += sign * len(each.ids)
    _add(db, deltas)


def _add(db: Db, deltas: Counter[tuple[int, str]]) -> None:
    keys = [key for key, delta in deltas.items() if delta]
    if keys:
        parameters = {
            "lane_ids": [lane_id for lane_id, _ in keys],
            "statuses": [status for _, status in keys],
            "deltas": [deltas[key] for key in keys],
        }
        db.execute(_SQL["add"], parameters, prepare=True)


TABLE: Final = ProjectionTable(
    name="status_counts",
    key=("lane_id", "status"),
    counted=CountedFrom(sources=("records",), expected=_SQL["expected"]),
    zero="n_records",
    events=MOVES | {Rerouted},
    write=write,
    write_shared=write_shared,
    columns={"lane_id": "integer", "status": "text", "n_records": "bigint"},
    rows=lambda _, changes: [(*key, n) for key, n in changed(changes).items()],
    parts=Parts("status_count_parts", _SQL["add_up"]),
)


def lock_counts(db: Db, lane_ids: Iterable[int]) -> None:
    """Keep others from counting in these lanes, in the order in which all count.

    For transactions that count in several steps: two of them would wait for each other in a circle.
    """
    keys = [(lane_id, status) for lane_id in lane_ids for status in Status]
    if keys:
        parameters = {
            "lane_ids": [lane_id for lane_id, _ in keys],
            "statuses": [status for _, status in keys],
            "deltas": [0] * len(keys),
        }
        db.execute(_SQL["add"], parameters, prepare=True)


def by_status(db: Db) -> dict[Status, int]:
    """Return how many records are in each status; statuses that nothing is in are left out."""
    return {Status(status): n for status, n in db.execute(_SQL["by_status"], prepare=True)}
