"""Records, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeVar

from recordledger.domain.records.status import Status

from ...schemas.moments import MomentOut
from ...schemas.records import ErrorGroupOut, RecordOut
from ..tables import LONG, html_fields, shown
from .table import Table

OPEN: Final = frozenset({Status.waiting, Status.running})


class Record(RecordOut):
    """A record as it was when it was read. Payloads are there if they were asked for."""

    @property
    def is_finished(self) -> bool:
        """True if the record neither waits nor runs."""
        return self.status not in OPEN

    @property
    def error(self) -> str | None:
        """What went wrong, on one line, in the attempt that ended in an error; None if nothing."""
        if self.error_type is None:
            return None
        return f"{self.error_type}: {self.error_message or ''}".rstrip(": ")

    def __repr__(self) -> str:
        """Return one line with what one wants to know first."""
        parts = [f"Record {self.id}", self.status, shown(self.function), f"tag={shown(self.tag)}"]
        if self.attempt:
            parts.append(f"attempt={self.attempt}")
        if self.compute_s is not None:
            parts.append(f"{self.compute_s:.3g} s")
        if self.error:
            parts.append(shown(self.error))
        return f"<{' '.join(parts)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        fields = {
            name: shown(getattr(self, name), LONG)
            for name in type(self).model_fields
            if name not in ("id", "version")
        }
        return html_fields(fields, title=f"Record {self.id}")


RecordT = TypeVar("RecordT", bound="Record | None")


class Records(Table[RecordT]):
    """Records in the order of the call. `missing_ok=True` leaves None where there is none.

    Attributes:
        as_of: of which moment they are, if one was named.
    """

    noun = "records"
    columns = ("id", "status", "function", "tag", "priority", "attempt", "compute_s", "error")

    def __init__(self, found: Iterable[RecordT] = (), as_of: MomentOut | None = None) -> None:
        super().__init__(found)
        self.as_of = as_of

    @property
    def counts(self) -> dict[Status, int]:
        """How many of these are in each status."""
        return dict(Counter(record.status for record in self if record is not None))

    def _title(self) -> str:
        statuses = ", ".join(f"{number:,} {status}" for status, number in self.counts.items())
        return f"{super()._title()}: {statuses or 'none of them found'}"


class ErrorGroup(ErrorGroupOut):
    """Records in error that say the same."""


class ErrorGroups(Table[ErrorGroup]):
    """What records in error say, most frequent first."""

    noun = "kinds of error"
    columns = ("n_records", "error_type", "error_message", "newest_ids", "newest_at")

    def _title(self) -> str:
        return f"{len(self):,} {'kind of error' if len(self) == 1 else self.noun}"
