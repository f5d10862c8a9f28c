"""The self-audit, and repairs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from recordledger.domain.admin.divergence import DivergenceState, RowFault

from .base import Answer, Message
from .fields import ShortText, Text


class DivergenceOut(Answer):
    """A row of a table that was found not to be what the log says.

    `key` are the values that identify the rows of the table; `columns` those that differ, if the
    row is there and should be. Their values are left out.
    """

    id: int
    state: DivergenceState
    table: str
    key: list[str]
    fault: RowFault
    columns: list[str]
    found_at: AwareDatetime
    ended_at: AwareDatetime | None
    ended_by: str | None


class SelfAuditAnswer(Answer):
    """How far the self-audit is, and what it has found that is still open, oldest first.

    `age_s` says how long ago that was looked at which waits longest; None if the self-audit never
    ran. `n_unproved` counts records, managers and so on that were not proved yet, or found wrong.
    """

    position: int
    age_s: float | None
    n_ranges: int
    n_unproved: int
    divergences: list[DivergenceOut]


class RepairRequest(Message):
    """What to repair: everything that is known, what is in a table, or one row of it."""

    table: ShortText | None = None
    key: Annotated[list[str], Field(min_length=1, max_length=10)] | None = None
    reason: Text | None = None


class RepairOut(Answer):
    """The outcome of one divergence; `refusal` says why it is still open, if it is."""

    divergence: DivergenceOut
    refusal: str | None


class RepairAnswer(Answer):
    """The outcome of each divergence that was to be repaired, oldest first."""

    repairs: list[RepairOut]
