"""The statuses of a record, for those too who need none of its events."""

from __future__ import annotations

from enum import StrEnum, auto


class Status(StrEnum):
    """Where a record stands. Exactly one at every moment of its life."""

    waiting = auto()
    running = auto()
    complete = auto()
    error = auto()
    cancelled = auto()
    deleted = auto()
    invalid = auto()
    held = auto()
    failed = auto()
