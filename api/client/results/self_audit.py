"""What the self-audit has found, and repairs."""

from __future__ import annotations

from recordledger.domain.admin.divergence import RowFault

from ...schemas.base import Answer
from ...schemas.self_audit import DivergenceOut
from ..tables import printable


class Divergence(DivergenceOut):
    """A row of a table that was found not to be what the log says."""

    def __str__(self) -> str:
        """Return one line."""
        what = {
            RowFault.missing: "the row is missing",
            RowFault.extra: "the log has no such row",
            RowFault.changed: f"differs from the log in {', '.join(self.columns)}",
        }[self.fault]
        return printable(f"{self.table} {', '.join(self.key)}: {what}")


class RepairedRow(Answer):
    """The outcome of one divergence; `refusal` says why it is still open, if it is."""

    divergence: Divergence
    refusal: str | None

    def __str__(self) -> str:
        """Return one line."""
        became = self.divergence.state if self.refusal is None else f"still open, {self.refusal}"
        return f"{self.divergence}: {became}"


class SelfAudit(Answer):
    """How far the self-audit is, and what it has found that is still open, oldest first.

    `age_s` says how long ago that was looked at which waits longest; None if nothing was.
    `n_unproved` counts records, managers and so on that were not proved yet, or found wrong.
    """

    position: int
    age_s: float | None
    n_ranges: int
    n_unproved: int
    divergences: list[Divergence]

    def __repr__(self) -> str:
        """Return what one wants to know first."""
        if self.age_s is None:
            return "The self-audit has not run yet: `recordledger work` does it."
        unproved = f"; {self.n_unproved:,} are not verified" if self.n_unproved else ""
        return (
            f"Everything verified was checked within the last {self.age_s:.0f} s{unproved}. "
            f"{len(self.divergences) or 'No'} rows are known to differ from the log."
        )
