"""What changed between two moments, as an operation."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from recordledger.domain.records.status import Status

from ...schemas.base import Answer
from ...schemas.diff import ChangeCountOut
from ...schemas.moments import MomentOut
from .. import exchange, wire
from ..arguments import listed, query_of
from ..errors import InvalidArgument
from ..exchange import Operation, Session
from ..results.diff import Diff, RecordChange

_PAGE: Final = 1_000


class _DiffAnswer(Answer):
    a: MomentOut
    b: MomentOut
    changes: list[RecordChange]
    counts: list[ChangeCountOut] | None
    next_cursor: str | None


def diff(
    session: Session,
    a: int | str | datetime,
    b: int | str | datetime,
    *,
    from_status: Status | str | Iterable[Status | str] | None = None,
    to_status: Status | str | Iterable[Status | str] | None = None,
    tag: str | Iterable[str] | None = None,
    limit: int = 1_000,
) -> Operation[Diff]:
    """Return which records changed after one moment and up to another, how, and by whom.

    A moment is a position of the log, or a time; in UTC if it does not say.

    Args:
        a: the earlier moment.
        b: the later one.
        from_status: only records that were in it at `a`, or in one of several; "none" is not to be
            there: not created yet, or erased.
        to_status: only records that were in it at `b`; as `from_status`.
        tag: only records that had it at any time between, or one of several.
        limit: maximum number of records; the `counts` are of all.

    Raises:
        InvalidArgument: a moment is neither a position nor a time.
        Refused: one has not come, or is before the first event of the log, or `a` is after `b`.

    >>> changes = client.diff(10, 20, to_status="error")
    """
    if limit < 1:
        raise InvalidArgument(f"limit is {limit}; it must be at least 1")
    moments: dict[str, int | datetime | None] = {"a": wire.as_of(a, "a"), "b": wire.as_of(b, "b")}
    conditions = [
        (name, str(each))
        for name, given in (("from_status", from_status), ("to_status", to_status), ("tag", tag))
        for each in listed(given) or ()
    ]
    found: list[RecordChange] = []
    cursor: str | None = None
    first: _DiffAnswer | None = None
    while True:
        size = ("limit", min(_PAGE, limit - len(found)))
        query = [*moments.items(), *conditions, size, ("cursor", cursor)]
        answer = yield from exchange.get(session, f"/v1/diff{query_of(query)}", _DiffAnswer)
        first = first or answer
        # All pages are of the moments of the first.
        moments = {"a": answer.a.position, "b": answer.b.position}
        found += answer.changes
        cursor = answer.next_cursor
        if cursor is None or len(found) >= limit:
            break
    counts = {(each.from_status, each.to_status): each.n_records for each in first.counts or ()}
    return Diff(found, first.a, first.b, counts, is_complete=cursor is None)
