"""What changed between two moments."""

from __future__ import annotations

from pydantic import AwareDatetime

from recordledger.domain.records.status import Status

from .base import Answer
from .moments import MomentOut


class ChangeOut(Answer):
    """How a record changed between two moments.

    A status and a tag are None where the record was not there: before it was created, or after it
    was erased. `actors` are those of its newest events, of which the last one is described: its
    `kind`, and so on.
    """

    record_id: int
    from_status: Status | None
    to_status: Status | None
    from_tag: str | None
    to_tag: str | None
    n_events: int
    actors: list[str]
    kind: str
    happened_at: AwareDatetime
    actor: str
    action: str | None
    reason: str | None
    operation_id: str


class ChangeCountOut(Answer):
    """How many records went from one status to another; None is not to be there."""

    from_status: Status | None
    to_status: Status | None
    n_records: int


class DiffAnswer(Answer):
    """One page of what changed between two moments, by id; `next_cursor` is None on the last.

    `counts` are of all pages, and come with the first one.
    """

    a: MomentOut
    b: MomentOut
    changes: list[ChangeOut]
    counts: list[ChangeCountOut] | None
    next_cursor: str | None
