"""Comments on records."""

from __future__ import annotations

from pydantic import AwareDatetime

from .base import Answer


class CommentOut(Answer):
    """A comment on a record. `version` is its place in the record's history."""

    record_id: int
    version: int
    commented_at: AwareDatetime
    author: str
    text: str


class CommentsAnswer(Answer):
    """One page of comments, oldest first; `next_cursor` is None on the last."""

    comments: list[CommentOut]
    next_cursor: str | None
