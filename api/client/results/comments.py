"""Comments on records."""

from __future__ import annotations

from ...schemas.comments import CommentOut
from .table import Table


class Comment(CommentOut):
    """A comment on a record."""


class Comments(Table[Comment]):
    """Comments on a record, oldest first."""

    noun = "comments"
    columns = ("commented_at", "author", "text")
