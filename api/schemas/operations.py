"""Operations, and undoing them."""

from __future__ import annotations

from pydantic import AwareDatetime

from .base import Answer, Message
from .fields import Text


class OperationOut(Answer):
    """Something that was done to records. `n_changes` counts events, of relatives too."""

    id: str
    action: str
    actor: str
    reason: str | None
    started_at: AwareDatetime
    undoes: str | None
    n_changes: int


class OperationAnswer(OperationOut):
    """An operation, with the operations that undid it, oldest first, and the job that did it."""

    undone_by: list[str]
    job_id: int | None


class OperationsAnswer(Answer):
    """One page of operations, newest first; `next_cursor` is None on the last."""

    operations: list[OperationOut]
    next_cursor: str | None


class UndoRequest(Message):
    """Take back what an operation changed, where nobody has changed it since."""

    reason: Text | None = None
    dry_run: bool = False


class Conflict(Answer):
    """A record that an undo has left as it is, and why."""

    record_id: int
    code: str
    message: str


class UndoAnswer(Answer):
    """How many records are again what they were; `operation_id` is None if there are none.

    With a `job_id` (status 202) the job has only begun, and reports the rest.
    """

    operation_id: str | None
    n_undone: int
    conflicts: list[Conflict]
    job_id: int | None = None
