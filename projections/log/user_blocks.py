"""The table `user_blocks`: where in the log users have done something, so that it is found there.

The log has no index of actors: it would cost every event of every manager. Noted is only in which
blocks of positions there is anything by a user, which is one row for most requests and few for
the large ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack
from psycopg import Connection
from psycopg.rows import tuple_row

from recordledger.domain.records.events import Event
from recordledger.domain.streams import ID_MAX

from ..store.database import Db
from ..store.statements import shipped, statements
from .mapper import actor_of

_SQL = statements("log.user_blocks")
ADD_UP: Final = _SQL["add_up"]

BLOCK_SIZE: Final = 64
"""Positions of a block. Stored: it cannot change."""
USER: Final = "user:"
# Maximum number of blocks that one page reads, so that its cost has a bound.
BLOCKS_MAX: Final = 100


class Runs(NamedTuple):
    """Which of the events that are appended together are by users: by whom, from where to where."""

    actors: list[str]
    firsts: list[int]
    lasts: list[int]


def runs_of(events: Iterable[Event]) -> Runs:
    """Return the runs of events by users, by their places from 0."""
    runs = Runs([], [], [])
    for place, event in enumerate(events):
        if not event.actor.startswith(USER):
            continue
        if runs.lasts and runs.lasts[-1] == place - 1 and runs.actors[-1] == event.actor:
            runs.lasts[-1] = place
            continue
        runs.actors.append(event.actor)
        runs.firsts.append(place)
        runs.lasts.append(place)
    return runs


Noted: TypeAlias = tuple[str, int]
"""An actor, and a block of positions in which there is something by that actor."""


def write(db: Db | Connection[Any], noted: Iterable[Noted]) -> None:
    """Note actors and blocks; those that are there already are left as they are."""
    rows = sorted(set(noted))
    if rows:
        actors, blocks = [row[0] for row in rows], [row[1] for row in rows]
        db.execute(_SQL["add"], {"actors": actors, "blocks": blocks})


def fill(connection: Connection[Any], after: int = 0) -> None:
    """Note what a log holds after a position: what was not noted when it was appended."""
    with connection.cursor("user_blocks", row_factory=tuple_row) as rows:
        rows.execute(_SQL["of_old_logs"], {"after": after})
        for batch in iter(lambda: rows.fetchmany(5_000), []):
            write(connection, noted_of(batch))


def between(db: Db, first: int, last: int) -> set[Noted]:
    """Return what there is to note of the log between two positions, both included.

    Raises:
        UnreadableEvent: the bytes of one are no event.
    """
    return noted_of(db.execute(_SQL["between"], {"first": first, "last": last}))


def noted_of(rows: Iterable[tuple[int, str, bytes]]) -> set[Noted]:
    """Return what there is to note of events, given as position, topic and state.

    Raises:
        UnreadableEvent: the bytes of one are no event.
    """
    found = ((actor_of(topic, bytes(state)), position) for position, topic, state in rows)
    return {(actor, position // BLOCK_SIZE) for actor, position in found if actor.startswith(USER)}


class FoundRows(NamedTuple):
    """Rows of the log, and from where to go on; None if there is no more."""

    rows: list[Any]
    next_edge: int | None


def page(
    db: Db,
    actor: str,
    limit: int,
    *,
    edge: int | None,
    newest_first: bool,
    kinds: Sequence[str] | None = None,
    hidden: Sequence[str] = (),
) -> FoundRows:
    """Return what a user did, before or after a position; there may be less than there is room for.

    Args:
        db: where.
        actor: who.
        limit: maximum number of events.
        edge: the position before which, or after which, to look; None for the end.
        newest_first: in which order, and so in which direction.
        kinds: topics that are wanted; None for all.
        hidden: topics that are not.
    """
    if edge is None:
        edge = ID_MAX if newest_first else 0
    order = "newest" if newest_first else "oldest"
    parameters = {"actor": actor, "edge": edge // BLOCK_SIZE, "limit": BLOCKS_MAX}
    blocks = [row[0] for row in db.execute(_SQL[order], parameters, prepare=True)]
    if not blocks:
        return FoundRows([], None)
    sql = shipped(_SQL["events"].format(direction="DESC" if newest_first else "ASC"))
    rows = db.execute(
        sql,
        {
            "blocks": blocks,
            "size": BLOCK_SIZE,
            "after": -1 if newest_first else edge,
            "before": edge if newest_first else ID_MAX,
            "packed": packed(actor),
            "hidden": list(hidden),
            "kinds": kinds,
            "limit": limit,
        },
        prepare=True,
    ).fetchall()
    if len(rows) == limit:
        return FoundRows(rows, rows[-1][0])
    if len(blocks) < BLOCKS_MAX:
        return FoundRows(rows, None)
    last = blocks[-1]
    return FoundRows(rows, last * BLOCK_SIZE if newest_first else (last + 1) * BLOCK_SIZE - 1)


def packed(actor: str) -> bytes:
    """Return how the state of an event begins to say that it is by this actor."""
    return bytes(msgpack.packb("actor")) + bytes(msgpack.packb(actor))
