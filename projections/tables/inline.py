"""The inline projections: all tables that are written in the transaction of the events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from recordledger.domain.records.events import Event

from ..log import user_blocks
from ..store.database import Db, insert_rows
from . import (
    claim_queue,
    comments,
    datasets,
    divergences,
    families,
    jobs,
    late_results,
    managers,
    operations,
    origins,
    payloads,
    records,
    service_queue,
    status_counts,
    tokens,
    webhooks,
)
from .changes import Changes, SharedChanges
from .table import CountedFrom, Parts, ProjectionTable

USER_BLOCKS: Final = ProjectionTable(
    name="user_blocks",
    key=("actor", "block"),
    counted=CountedFrom(),
    columns={"actor": "text", "block": "bigint"},
    parts=Parts("user_block_parts", user_blocks.ADD_UP),
)
"""Written with the log itself, by `append`: what it holds are positions."""

INLINE: Final[tuple[ProjectionTable, ...]] = (
    payloads.TABLE,
    records.TABLE,
    claim_queue.TABLE,
    families.TABLE,
    *service_queue.TABLES,
    comments.TABLE,
    *operations.TABLES,
    late_results.TABLE,
    *datasets.TABLES,
    divergences.TABLE,
    origins.TABLE,
    managers.TABLE,
    tokens.TABLE,
    jobs.TABLE,
    webhooks.TABLE,
    USER_BLOCKS,
    # Last: a transaction that changes records of the same lane waits for these rows until the
    # commit.
    status_counts.TABLE,
)
"""In the order in which they are written, and so in which their rows are locked."""

PROJECTIONS: Final[Mapping[str, tuple[str, ...]]] = {table.name: table.key for table in INLINE}
"""The inline projections, and what identifies their rows."""

PARTS: Final[Mapping[str, Parts]] = {
    table.name: table.parts for table in INLINE if table.parts is not None
}
"""Those that a replay adds up from parts, with these."""

_CONCERNING: Final = {table.name: table.concerning() for table in INLINE}


def write(db: Db, changes: Changes) -> None:
    """Bring every inline projection that is concerned from what was to what is, set-based.

    Replay calls this too, with `search_path` at a shadow. Only records that it meets for the first
    time go in by `filling`, from the same rows.

    Args:
        db: inside the transaction.
        changes: what has happened; the lanes of the changed records are interned.
    """
    lanes = changes.lanes
    lanes.require(each for change in changes.records for each in change if each.exists)
    for table in concerned(changes):
        if table.write is not None:
            table.write(db, changes)
        elif table.rows is not None and table.parts is None:
            insert_rows(db, table.name, table.columns, table.rows(db, changes))


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Bring every inline projection from what was to what is, for events that records share.

    Args:
        db: inside the transaction.
        changes: what has happened; its events are such as `can_be_shared`.
    """
    changes.lanes.require(each.after for each in changes.classes)
    events = [each.event for each in changes.events]
    has_actions = any(event.action is not None for event in events)
    for table in INLINE:
        if table.write_shared is None or (table.actions and not has_actions):
            continue
        if any(type(event) in _CONCERNING[table.name] for event in events):
            table.write_shared(db, changes)


def can_be_shared(event_type: type[Event]) -> bool:
    """Return whether each table that an event concerns can be written for many records at once."""
    return all(
        table.write_shared is not None or (table.write is None and table.rows is None)
        for table in INLINE
        if event_type in _CONCERNING[table.name]
    )


def concerned(changes: Changes) -> list[ProjectionTable]:
    """Return the projections that changes may change, in the order in which they are written."""
    return [
        table
        for table in INLINE
        if not _CONCERNING[table.name].isdisjoint(changes.event_types)
        and (changes.has_actions or not table.actions)
    ]
