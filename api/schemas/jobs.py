"""Jobs: operations on many records."""

from __future__ import annotations

from pydantic import AwareDatetime

from recordledger.domain.admin.job import JobState

from .base import Answer, Message, Refusal
from .fields import Text


class JobOut(Answer):
    """An operation on many records, and how far it has come. `n_*` count records."""

    id: int
    operation_id: str
    action: str
    state: JobState
    actor: str
    reason: str | None
    n_total: int
    n_done: int
    n_updated: int
    n_relatives: int
    n_refused: int
    created_at: AwareDatetime
    modified_at: AwareDatetime


class JobsAnswer(Answer):
    """One page of jobs, newest first; `next_cursor` is None on the last."""

    jobs: list[JobOut]
    next_cursor: str | None


class JobRefusalOut(Refusal):
    """A record that a job was refused for; `idx` counts the job's distinct records."""

    record_id: int


class JobRefusalsAnswer(Answer):
    """One page of refusals, in the order of `idx`; `next_cursor` is None on the last."""

    refusals: list[JobRefusalOut]
    next_cursor: str | None


class CancelJobRequest(Message):
    """Stop a job, and undo what it has done."""

    reason: Text | None = None
