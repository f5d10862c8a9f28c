"""The attempts of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

from ...schemas.attempts import AttemptOut
from ..tables import html_table, shown, text_table
from ..words import duration

_ATTEMPT_COLUMNS: Final = ("attempt", "manager", "started (UTC)", "took", "ended by", "error")


@dataclass(frozen=True, slots=True, repr=False)
class Attempts(Sequence[AttemptOut]):
    """Every attempt of a record, in order; shows itself as a table."""

    record_id: int
    attempts: tuple[AttemptOut, ...]

    @overload
    def __getitem__(self, index: int) -> AttemptOut: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AttemptOut, ...]: ...
    def __getitem__(self, index: int | slice) -> AttemptOut | tuple[AttemptOut, ...]:
        """Return an attempt by its place, from 0."""
        return self.attempts[index]

    def __len__(self) -> int:
        """Return the number of attempts."""
        return len(self.attempts)

    def __repr__(self) -> str:
        """Return a table in text, times in UTC."""
        return text_table(_ATTEMPT_COLUMNS, self._rows(), title=f"Record {self.record_id}")

    def _repr_html_(self) -> str:
        return html_table(_ATTEMPT_COLUMNS, self._rows(), title=f"Record {self.record_id}")

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for each in self.attempts:
            took = ""
            if each.ended_at is not None:
                took = duration((each.ended_at - each.started_at).total_seconds())
            ended = "runs" if each.ended_by is None else each.ended_by.replace("_", " ")
            error = f"{each.error_type}: {each.error_message}" if each.error_type else ""
            rows.append(
                [
                    str(each.number),
                    "" if each.manager_id is None else str(each.manager_id),
                    each.started_at.strftime("%Y-%m-%d %H:%M:%S"),
                    took,
                    ended + (", result late" if each.late else ""),
                    shown(error, 100),
                ]
            )
        return rows
