"""Events: of one record, and of the log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime

from .base import Answer


class EventOut(Answer):
    """One event of a history. `data` holds the fields of its own kind; digests are in hex.

    A comment or an error's message whose text was destroyed is its digest and size, and `erased`.
    """

    position: int
    version: int
    kind: str
    timestamp: AwareDatetime
    actor: str
    operation_id: str
    reason: str | None
    data: dict[str, Any]


class LogEventOut(EventOut):
    """One event of the log, and its aggregate.

    Of the long lists of datasets there is only the beginning, and how long they are.
    """

    stream: Literal["record", "manager", "dataset", "job", "divergence"]
    id: int


class EventsAnswer(Answer):
    """A page of the log. Ask again from `next_after`; where that is the `head`, there is no more.

    A page may be empty before the end: with filters, only so much of the log is looked at.
    """

    events: list[LogEventOut]
    next_after: int
    head: int


class HistoryAnswer(Answer):
    """The events of one record, oldest first."""

    record_id: int
    events: list[EventOut]


class LogHistoryAnswer(Answer):
    """A page of what was done; there is no more where `next_cursor` is null.

    A page may be empty before that, for conditions are looked at in what was read.
    """

    events: list[LogEventOut]
    next_cursor: str | None


class ManagerHistoryAnswer(Answer):
    """Every event of one manager, oldest first."""

    manager_id: int
    events: list[EventOut]
