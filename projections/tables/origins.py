"""The table `origins`: what was imported, from which ledger, and what it was called there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from recordledger.domain.records.events import Imported
from recordledger.domain.streams import Stream

from ..store.database import Db
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.origins")


class OriginRow(NamedTuple):
    """Where an aggregate came from: which one it was there, and how and by whom it came here."""

    ledger_id: UUID
    stream: Stream
    origin_id: int
    number: int
    archive_hash: str
    imported_at: datetime
    imported_by: str


def rows(_: Db, changes: Changes) -> list[tuple[Any, ...]]:
    """Return the rows of what was imported."""
    return [
        (
            recorded.event.origin_ledger,
            int(recorded.stream),
            recorded.event.origin_id,
            recorded.number,
            recorded.event.archive_digest.hex(),
            recorded.event.timestamp,
            recorded.event.actor,
        )
        for recorded in changes.happened
        if isinstance(recorded.event, Imported)
    ]


def write(db: Db, changes: Changes) -> None:
    """Add what was imported."""
    names = ("ledgers", "streams", "origin_ids", "numbers", "hashes", "times", "actors")
    columns = map(list[Any], zip(*rows(db, changes), strict=True))
    db.execute(_SQL["add"], dict(zip(names, columns, strict=True)), prepare=True)


TABLE: Final = ProjectionTable(
    name="origins",
    key=("origin_ledger", "stream", "origin_id", "number"),
    owner=Owner("number", stream=None),
    events=frozenset({Imported}),
    write=write,
    columns={
        "origin_ledger": "uuid",
        "stream": "smallint",
        "origin_id": "bigint",
        "number": "bigint",
        "archive_hash": "text",
        "imported_at": "timestamptz",
        "imported_by": "text",
    },
    rows=rows,
)


def here(db: Db, ledger_id: UUID, stream: Stream, origin_ids: Sequence[int]) -> dict[int, int]:
    """Return which of a ledger's aggregates were imported from it, and what they are here."""
    parameters = {"ledger": ledger_id, "stream": int(stream), "origin_ids": list(origin_ids)}
    return dict(db.execute(_SQL["here"], parameters).fetchall())


def own(db: Db, stream: Stream, numbers: Sequence[int]) -> dict[int, int]:
    """Return which of these aggregates this ledger has, each as itself."""
    return dict(db.execute(_SQL[f"{stream.name}s_here"], {"ids": list(numbers)}).fetchall())


def page(
    db: Db,
    stream: Stream,
    limit: int,
    *,
    since: int = 0,
    skip: int = 0,
    number: int | None = None,
    ledger_id: UUID | None = None,
    origin_id: int | None = None,
) -> list[OriginRow]:
    """Return what was imported, by number here, and where it had come from before that first.

    Args:
        db: where.
        stream: of which kind.
        limit: maximum number of origins.
        since: the number to begin with, without the first `skip` origins of it.
        skip: how many were shown already.
        number: only of this one.
        ledger_id: only what came from this ledger.
        origin_id: only what had this number there.
    """
    parameters = {
        "stream": int(stream),
        "since": since,
        "skip": skip,
        "limit": limit,
        "number": number,
        "ledger": ledger_id,
        "origin_id": origin_id,
    }
    return [_origin(row) for row in db.execute(_SQL["page"], parameters)]


def _origin(row: Sequence[Any]) -> OriginRow:
    ledger_id, stream, *rest = row
    return OriginRow(ledger_id, Stream(stream), *rest)
