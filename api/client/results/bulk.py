"""What bulk calls return: one outcome for each entry."""

from __future__ import annotations

from dataclasses import dataclass

from ...schemas.base import Refusal
from ..tables import html_fields, html_table, shown


@dataclass(frozen=True, slots=True)
class BulkMetadata:
    """The outcome of the entries of a bulk call, by their index in the caller's order.

    Attributes:
        operation_ids: of each request that the call was cut into, in order.
        errors: the entries that were refused: `idx`, `code`, `message`.
    """

    operation_ids: list[str]
    errors: list[Refusal]

    @property
    def operation_id(self) -> str | None:
        """The operation, if it was exactly one; a long call is several, see `operation_ids`."""
        return self.operation_ids[0] if len(self.operation_ids) == 1 else None

    def _figures(self) -> dict[str, str]:
        """Return what to show besides the errors."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the numbers, and the first errors."""
        figures = ", ".join(f"{name}={text}" for name, text in self._figures().items())
        errors = "".join(f"\n  {idx}: {code}: {text}" for idx, code, text in self._error_rows()[:5])
        more = len(self.errors) - 5
        errors += f"\n  and {more:,} more in .errors" if more > 0 else ""
        return f"{type(self).__name__}({figures}, errors={len(self.errors):,}){errors}"

    def _repr_html_(self) -> str:
        figures = self._figures() | {"operations": ", ".join(self.operation_ids[:3])}
        table = html_fields(figures, title=type(self).__name__)
        if self.errors:
            table += html_table(("index", "code", "message"), self._error_rows(), title="errors")
        return table

    def _error_rows(self) -> list[tuple[str, str, str]]:
        return [
            (str(error.idx), shown(error.code), shown(error.message, 200)) for error in self.errors
        ]


@dataclass(frozen=True, slots=True, repr=False)
class InsertMetadata(BulkMetadata):
    """The outcome of the records to add.

    Attributes:
        ids: for each entry its record's id, new or found; None where the entry was refused.
        inserted_idx: the entries that became new records.
        existing_idx: the entries whose record was there before.
    """

    ids: list[int | None]
    inserted_idx: list[int]
    existing_idx: list[int]

    def _figures(self) -> dict[str, str]:
        return {
            "ids": f"[{shown(self.ids, 40)}]",
            "inserted": f"{len(self.inserted_idx):,}",
            "existing": f"{len(self.existing_idx):,}",
        }


@dataclass(frozen=True, slots=True, repr=False)
class ReturnMetadata(BulkMetadata):
    """The outcome of the results that were returned.

    Attributes:
        accepted_idx: taken as the outcome of the record.
        late_idx: kept aside, because the attempt was over.
        duplicate_idx: there already.
    """

    accepted_idx: list[int]
    late_idx: list[int]
    duplicate_idx: list[int]

    def _figures(self) -> dict[str, str]:
        return {
            "accepted": f"{len(self.accepted_idx):,}",
            "late": f"{len(self.late_idx):,}",
            "duplicate": f"{len(self.duplicate_idx):,}",
        }
