"""The table `comments`: what people wrote about records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from recordledger.domain.records.events import Commented, Payload
from recordledger.domain.records.record import Record
from recordledger.domain.streams import Stream

from ..log.mapper import Recorded
from ..store.database import Db
from ..store.statements import statements
from .payloads import said

_SQL = statements("tables.comments")


class Comment(NamedTuple):
    """A remark about a record: its place in the record's history, when, by whom, and what."""

    record_id: int
    version: int
    commented_at: datetime
    author: str
    text: str


def texts(happened: Iterable[Recorded]) -> list[Payload | str]:
    """Return the texts of the comments that were made."""
    return [each.event.text for each in happened if type(each.event) is Commented]


def made(
    changes: Sequence[tuple[Record, Record]],
    happened: Iterable[Recorded],
    texts: Mapping[bytes, str],
) -> list[Comment]:
    """Return the comments that were made, but for those on records that are erased."""
    erased = {after.id for _, after in changes if not after.exists}
    return [
        Comment(
            each.number,
            each.version,
            each.event.timestamp,
            each.event.actor,
            # Only in a damaged database is a text not there whose record is.
            said(each.event.text, texts) or "",
        )
        for each in happened
        if type(each.event) is Commented
        and each.stream is Stream.record
        and each.number not in erased
    ]


def write(
    db: Db,
    changes: Sequence[tuple[Record, Record]],
    happened: Iterable[Recorded],
    texts: Mapping[bytes, str],
) -> None:
    """Add the comments that were made, and drop those on erased records."""
    if rows := made(changes, happened, texts):
        names = ("record_ids", "versions", "times", "authors", "texts")
        columns = map(list[Any], zip(*rows, strict=True))
        db.execute(_SQL["insert"], dict(zip(names, columns, strict=True)), prepare=True)
    if gone := [after.id for before, after in changes if before.exists and not after.exists]:
        db.execute(_SQL["forget"], {"ids": gone})


def page(db: Db, record_id: int, after: int, limit: int) -> list[Comment]:
    """Return comments on a record, oldest first, after this version of it."""
    parameters = {"id": record_id, "after": after, "limit": limit}
    return [Comment(*row) for row in db.execute(_SQL["get"], parameters)]
