"""Claiming tasks, and giving them back."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import Answer, Message
from .fields import CLAIM_MAX, IDS_MAX, RecordId, Text


class AttemptRef(Message):
    """An attempt of a record; the number is the fencing token."""

    record_id: RecordId
    attempt: int = Field(ge=1, le=2**31 - 1)


class ClaimRequest(Message):
    """Ask for tasks."""

    limit: int = Field(default=20, ge=1, le=CLAIM_MAX)


class TaskOut(Answer):
    """A task to run."""

    record_id: int
    attempt: int
    function: str
    kwargs: dict[str, Any]


class ClaimAnswer(Answer):
    """Tasks, in the order in which to run them; none when nothing fits."""

    operation_id: str
    tasks: list[TaskOut]


class RelinquishRequest(Message):
    """Attempts to give back unfinished."""

    attempts: list[AttemptRef] = Field(max_length=IDS_MAX)
    reason: Text | None = None


class RequeuedAnswer(Answer):
    """The records that wait again."""

    record_ids: list[int]
