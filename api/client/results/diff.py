"""What changed between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recordledger.domain.records.status import Status

from ...schemas.diff import ChangeOut
from ...schemas.moments import MomentOut
from .table import Table


class RecordChange(ChangeOut):
    """How a record changed between two moments; None where it did not exist."""


class Diff(Table[RecordChange]):
    """What changed between two moments, by record.

    Attributes:
        a, b: the moments.
        counts: how many records went from one status to another, of all that changed.
        is_complete: whether these are all of them.
    """

    noun = "records"
    columns = (
        "record_id",
        "from_status",
        "to_status",
        "from_tag",
        "to_tag",
        "n_events",
        "actors",
        "kind",
        "reason",
        "happened_at",
    )

    def __init__(
        self,
        changes: Iterable[RecordChange],
        a: MomentOut,
        b: MomentOut,
        counts: Mapping[tuple[Status | None, Status | None], int],
        *,
        is_complete: bool,
    ) -> None:
        super().__init__(changes)
        self.a = a
        self.b = b
        self.counts = dict(counts)
        self.is_complete = is_complete

    @property
    def total(self) -> int:
        """How many records changed, also those that are left out here."""
        return sum(self.counts.values())

    def _title(self) -> str:
        ways = ", ".join(
            f"{n:,} {before or 'not there'} -> {after or 'not there'}"
            for (before, after), n in self.counts.items()
        )
        changed = f"{self.total:,} record{'' if self.total == 1 else 's'} changed"
        return f"{changed} from position {self.a.position} to {self.b.position}: {ways}"
