"""Why a record is where it is, and what waits."""

from __future__ import annotations

from collections.abc import Iterable

from ...schemas.routing import QueueAnswer, QueueLaneOut, WhyAnswer
from ..tables import LONG, html_fields, printable, shown
from .table import Table


class Explanation(WhyAnswer):
    """Why a record was where it was when it was asked for. `str` of it is the reason in words."""

    def __repr__(self) -> str:
        """Return the reason, what would change it, and who is nearest to taking the record."""
        status = self.status or "erased"
        lines = [f"Record {self.record_id}: {status} ({self.code})", self.text]
        if self.remedy:
            lines.append(f"To change that:  {self.remedy}")
        for each in self.nearest:
            who = (
                f"  manager {each.manager_id} ({each.name}): {each.state}, tags {shown(each.tags)}"
            )
            if each.lacks:
                who += f", lacks {', '.join(lack.requirement for lack in each.lacks)}"
            if each.suspended_until is not None:
                who += f", suspended until {shown(each.suspended_until)}"
            lines.append(who)
        return "\n".join(map(printable, lines))

    def __str__(self) -> str:
        """Return the reason in words."""
        return printable(self.text)

    def _repr_html_(self) -> str:
        fields = {
            name: shown(value, LONG)
            for name, value in self
            if name not in ("record_id", "nearest") and value not in (None, [], {})
        }
        return html_fields(fields, title=f"Record {self.record_id}")


class QueueLane(QueueLaneOut):
    """Tasks of one tag that require the same programs, and who could take them."""


class Queue(Table[QueueLane]):
    """What waits, by tag and programs: first what nobody can take, then the deepest.

    Attributes:
        totals: of all lanes, those that are left out too: `n_lanes`, `n_blocked`, `n_waiting`,
            `n_paused`, and `n_managers` that are alive.
    """

    noun = "lanes"
    columns = (
        "tag",
        "required_programs",
        "n_waiting",
        "n_running",
        "n_paused",
        "oldest_id",
        "oldest_created_at",
        "n_managers",
        "blocked",
    )

    def __init__(self, lanes: Iterable[QueueLane], totals: QueueAnswer) -> None:
        super().__init__(lanes)
        self.totals = totals

    def _title(self) -> str:
        totals = self.totals
        blocked = f", {totals.n_blocked:,} of them blocked" if totals.n_blocked else ""
        return (
            f"{totals.n_waiting:,} records wait in {totals.n_lanes:,} lanes{blocked}; "
            f"{totals.n_managers:,} managers are alive"
        )
