"""Arguments of calls, as a request has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from .errors import InvalidArgument

AsOf = int | str | datetime | None
"""A position of the log, a time, or a time in words like "2026-03-01"; None is now."""


def query_of(given: Iterable[tuple[str, Any]]) -> str:
    """Return what comes after a path: what is not None, times as ISO 8601."""
    pairs = [
        (name, value.isoformat() if isinstance(value, datetime) else value)
        for name, value in given
        if value is not None
    ]
    return f"?{urlencode(pairs)}" if pairs else ""


def conditions(
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> list[tuple[str, Any]]:
    """Return the conditions on a history as a query has them.

    Raises:
        InvalidArgument: a time has no zone.
    """
    query = [("kind", each) for each in listed(kind) or ()]
    query += [("actor", each) for each in listed(actor) or ()]
    for name, moment in (("after", after), ("before", before)):
        if moment is not None:
            if moment.tzinfo is None:
                raise InvalidArgument(
                    f"{name} has no time zone; pass one with it, like datetime.now(UTC)"
                )
            query.append((name, moment.isoformat()))
    return query


def listed(value: Any) -> list[Any] | None:
    """Return one or several as a list."""
    if value is None:
        return None
    return [value] if is_one(value) else list(value)


def is_one(value: Any) -> bool:
    """Return whether a value is one, and not several: texts and mappings are one."""
    return isinstance(value, str | Mapping) or not isinstance(value, Iterable)
