"""The table `divergences`: rows of other tables that were found not to be what the log says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from recordledger.domain.admin.divergence import (
    DivergenceAggregate,
    DivergenceFound,
    DivergenceGone,
    DivergenceRepaired,
    DivergenceState,
    RowFault,
)
from recordledger.domain.streams import Stream

from ..store.database import Db, one
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.divergences")

OPEN_MAX: Final = 1_000
"""Maximum number of open divergences: the log must not list a whole wrong table."""


def next_id(db: Db) -> int:
    """Return a new id of a divergence."""
    return int(one(db, _SQL["next_id"])[0])


def write(db: Db, changes: Changes) -> None:
    """Add the divergences that were found, and end those that are no more."""
    for recorded in changes.happened:
        if recorded.stream is not Stream.divergence:
            continue
        common: dict[str, Any] = {"id": recorded.number, "version": recorded.version}
        match recorded.event:
            case DivergenceFound() as event:
                found = {
                    "table": event.table,
                    "key": list(event.key),
                    "fault": event.fault,
                    "columns": list(event.columns),
                    "found_at": event.timestamp,
                }
                db.execute(_SQL["add"], common | found)
            case DivergenceRepaired() | DivergenceGone() as event:
                repaired = isinstance(event, DivergenceRepaired)
                ended = {
                    "state": DivergenceState.repaired if repaired else DivergenceState.gone,
                    "ended_at": event.timestamp,
                    "ended_by": event.actor,
                }
                db.execute(_SQL["end"], common | ended)
            case _:
                pass


TABLE: Final = ProjectionTable(
    name="divergences", key=("id",), owner=Owner("id", Stream.divergence), write=write
)


def open_now(db: Db) -> list[DivergenceAggregate]:
    """Return the divergences that are open, oldest first."""
    rows = db.execute(_SQL["open"], {"after": 0, "limit": OPEN_MAX})
    return [_from_row(row) for row in rows]


def page(db: Db, limit: int, before: int) -> list[DivergenceAggregate]:
    """Return divergences, newest first, at most `limit`, with ids below `before`."""
    return [_from_row(row) for row in db.execute(_SQL["page"], {"limit": limit, "before": before})]


def lock(db: Db, divergence_id: int) -> DivergenceAggregate | None:
    """Lock and return a divergence; None if there is none with this id."""
    row = db.execute(_SQL["lock"], {"id": divergence_id}).fetchone()
    return None if row is None else _from_row(row)


def counts(db: Db) -> dict[str, int]:
    """Return how many divergences are open, by table; tables without one are left out."""
    return dict(db.execute(_SQL["counts"]).fetchall())


def _from_row(row: Sequence[Any]) -> DivergenceAggregate:
    id_, version, state, table, key, fault, columns, *times = row
    return DivergenceAggregate(
        id_,
        version,
        DivergenceState(state),
        table,
        tuple(key),
        RowFault(fault),
        tuple(columns),
        *times,
    )
