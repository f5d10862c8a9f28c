"""The table `comments`: what people wrote about records."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.records.events import Commented, Erased
from recordledger.domain.streams import Stream

from ..store.database import Db, insert_rows
from ..store.statements import statements
from . import payloads
from .changes import Changes, SharedChanges
from .table import Owner, ProjectionTable

_SQL = statements("tables.comments")


class CommentRow(NamedTuple):
    """A remark about a record: its place in the record's history, when, by whom, and what."""

    record_id: int
    version: int
    commented_at: datetime
    author: str
    text: str


def made(db: Db, changes: Changes) -> list[CommentRow]:
    """Return the comments that were made, but for those on records that are erased."""
    erased = changes.erased
    found = [
        (each, each.event)
        for each in changes.happened
        if isinstance(each.event, Commented)
        and each.stream is Stream.record
        and each.number not in erased
    ]
    texts = payloads.texts(db, (event.text for _, event in found))
    return [
        CommentRow(
            each.number,
            each.version,
            event.timestamp,
            event.actor,
            # Only in a damaged database is a text not there whose record is.
            payloads.text_of(event.text, texts) or "",
        )
        for each, event in found
    ]


def write(db: Db, changes: Changes) -> None:
    """Add the comments that were made, and drop those on erased records."""
    insert_rows(db, TABLE.name, TABLE.columns, made(db, changes))
    if gone := [
        after.id for before, after in changes.records if before.exists and not after.exists
    ]:
        db.execute(_SQL["forget"], {"ids": gone})


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Add a comment that was made on many records."""
    for event, ids, versions, _ in changes.events:
        if isinstance(event, Commented):
            text = payloads.text_of(event.text, payloads.texts(db, [event.text])) or ""
            common = (event.timestamp, event.actor, text)
            placed = zip(ids, versions, strict=True)
            insert_rows(db, TABLE.name, TABLE.columns, [(*place, *common) for place in placed])


TABLE: Final = ProjectionTable(
    name="comments",
    key=("record_id", "version"),
    owner=Owner("record_id", Stream.record),
    events=frozenset({Commented, Erased}),
    write=write,
    write_shared=write_shared,
    columns={
        "record_id": "bigint",
        "version": "integer",
        "commented_at": "timestamptz",
        "author": "text",
        "text": "text",
    },
    rows=made,
    key_last=True,
)


def page(db: Db, record_id: int, after: int, limit: int) -> list[CommentRow]:
    """Return comments on a record, oldest first, after this version of it."""
    parameters = {"id": record_id, "after": after, "limit": limit}
    return [CommentRow(*row) for row in db.execute(_SQL["get"], parameters)]
