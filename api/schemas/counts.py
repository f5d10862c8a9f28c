"""How many records are in each status."""

from __future__ import annotations

from recordledger.domain.records.status import Status

from .base import Answer
from .moments import MomentOut


class CountsAnswer(Answer):
    """How many records are in each status."""

    counts: dict[Status, int]
    as_of: MomentOut | None = None
