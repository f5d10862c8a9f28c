"""How many records are in each status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recordledger.domain.records.status import Status

from ...schemas.moments import MomentOut
from ..tables import html_table


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
        raise KeyError(f"{status!r} is not a status; valid are {', '.join(self._counts)}")
