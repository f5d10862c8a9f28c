"""What has happened, as operations: the timeline of a record, and histories of more than one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from ...schemas.base import Answer
from .. import exchange, wire
from ..arguments import conditions
from ..exchange import Operation, Session
from ..results.events import HistoryEvent, LogEvent, LogEvents, ManagerHistory
from ..results.timelines import Timeline
from .managers import path_of
from .operations import operation_uuid

_PAGE = 1_000


class _HistoriesPage(Answer):
    events: list[LogEvent]
    next_cursor: str | None


def timeline(session: Session, record_id: int) -> Operation[Timeline]:
    """Return the life of a record as periods: in which status it was, from when to when.

    It shows itself as a bar, in a terminal and in a notebook, and says in words how long the
    record waited and ran.

    Args:
        record_id: whose.

    Raises:
        NotFound: there is no such record.

    >>> print(client.timeline(411))
    """
    path = f"/v1/records/{wire.record_id(record_id)}/timeline"
    return (yield from exchange.get(session, path, Timeline))


def operation_history(
    session: Session,
    operation_id: str | UUID,
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    limit: int | None = 1_000,
) -> Operation[LogEvents]:
    """Return what an operation did to records, record by record.

    Args:
        operation_id: of an operation on records, as `operations()` has them.
        kind: only of this kind, like `cancelled`, or of several.
        actor: only by this one, or by several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.
        limit: maximum number of events; None for all.

    Raises:
        InvalidArgument: a time has no zone, or the id is not valid.
        NotFound: there is no such operation.
        Refused: there is no such kind of event.

    >>> newest = client.operations(limit=1)[0]
    >>> print(client.operation_history(newest.id))
    """
    query = conditions(kind=kind, actor=actor, after=after, before=before)
    path = f"/v1/operations/{operation_uuid(operation_id)}/events"
    title = f"Operation {operation_id}"
    return (yield from log_events(session, path, query, limit, title))


def user_history(
    session: Session,
    user: str,
    *,
    kind: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    newest_first: bool = True,
    limit: int | None = 1_000,
) -> Operation[LogEvents]:
    """Return what a user did: to records, datasets, managers and jobs, in the order of the log.

    Args:
        user: by name, like `ann`.
        kind: only of this kind, like `cancelled`, or of several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.
        newest_first: or oldest first.
        limit: maximum number of events; None for all.

    Raises:
        InvalidArgument: a time has no zone.
        Refused: there is no such kind of event.

    >>> print(client.user_history("ann", kind="cancelled", limit=20))
    """
    query = conditions(kind=kind, after=after, before=before)
    query += [("user", user), ("newest_first", str(newest_first).lower())]
    return (yield from log_events(session, "/v1/users/events", query, limit, f"User {user}"))


def log_events(
    session: Session, path: str, query: list[tuple[str, Any]], limit: int | None, title: str
) -> Operation[LogEvents]:
    """Return the events of as many pages as it takes."""
    found = LogEvents(title)
    cursor: str | None = None
    while limit is None or len(found) < limit:
        # Where conditions let little through, a page of full size looks at more.
        page = [*query, ("limit", _PAGE)]
        if cursor is not None:
            page.append(("cursor", cursor))
        answer = yield from exchange.get(session, f"{path}?{urlencode(page)}", _HistoriesPage)
        found += answer.events
        cursor = answer.next_cursor
        if cursor is None:
            break
    if limit is not None:
        del found[limit:]
    return found


class _ManagerHistoryAnswer(Answer):
    manager_id: int
    events: list[HistoryEvent]


def manager_history(
    session: Session,
    manager_id: int,
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> Operation[ManagerHistory]:
    """Return the events of a manager, oldest first; heartbeats are not among them.

    Args:
        manager_id: whose.
        kind: only of this kind, like `program_suspended`, or of several.
        actor: only by this one, like `user:ann`, or by several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.

    Raises:
        InvalidArgument: a time has no zone.
        NotFound: there is no such manager.
        Refused: there is no such kind of event.

    >>> print(client.manager_history(7, kind="program_suspended"))
    """
    query = urlencode(conditions(kind=kind, actor=actor, after=after, before=before))
    path = f"{path_of(manager_id, 'events')}?{query}".rstrip("?")
    answer = yield from exchange.get(session, path, _ManagerHistoryAnswer)
    return ManagerHistory(answer.manager_id, tuple(answer.events))
