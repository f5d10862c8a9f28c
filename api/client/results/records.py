"""Records, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

from recordledger.domain.records.status import Status

from ...schemas.moments import MomentOut
from ...schemas.records import ErrorGroupOut, RecordOut
from ..tables import LONG, html_fields, html_table, shown
from .table import Table

OPEN: Final = frozenset({Status.waiting, Status.running})


class Record(RecordOut):
    """A record as it was when it was read. Payloads are there if they were asked for."""

    @property
    def is_finished(self) -> bool:
        """Whether nobody is going to work on it unless somebody asks: it neither waits nor runs."""
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


class Counts(Mapping[Status, int]):
    """How many records are in each status: `counts["waiting"]`, `counts.total`.

    Attributes:
        as_of: of which moment they are, if one was named.
    """

    def __init__(self, counts: Mapping[Status, int], as_of: MomentOut | None = None) -> None:
        self._counts = {status: counts.get(status, 0) for status in Status}
        self.as_of = as_of

    @property
    def total(self) -> int:
        """The number of all records."""
        return sum(self._counts.values())

    def __getitem__(self, status: str) -> int:
        """Return the number of records in a status, which may be given by name."""
        return self._counts[Status(status)] if status in self._counts else self._unknown(status)

    def __iter__(self) -> Iterator[Status]:
        """Iterate over all nine statuses."""
        return iter(self._counts)

    def __len__(self) -> int:
        """Return the number of statuses."""
        return len(self._counts)

    def __repr__(self) -> str:
        """Return the statuses that have records, and the total."""
        return f"Counts({', '.join(f'{name}={n:,}' for name, n in self._some())})"

    def _repr_html_(self) -> str:
        return html_table(("status", "records"), [(name, f"{n:,}") for name, n in self._some()])

    def _some(self) -> list[tuple[str, int]]:
        some = [(str(status), number) for status, number in self._counts.items() if number]
        return [*some, ("total", self.total)]

    def _unknown(self, status: str) -> int:
        raise KeyError(f"{status!r} is no status; there are {', '.join(self._counts)}")


class ErrorGroup(ErrorGroupOut):
    """Records in error that say the same."""


class ErrorGroups(Table[ErrorGroup]):
    """What records in error say, most frequent first."""

    noun = "kinds of error"
    columns = ("n_records", "error_type", "error_message", "newest_ids", "newest_at")

    def _title(self) -> str:
        return f"{len(self):,} {'kind of error' if len(self) == 1 else self.noun}"
