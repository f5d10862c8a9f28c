"""Operations, and what undoing them returns."""

from __future__ import annotations

from dataclasses import dataclass

from ...schemas.operations import Conflict, OperationAnswer, OperationOut
from ..tables import few
from .table import Table


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class UndoMetadata:
    """The outcome of an undo.

    Attributes:
        operation_id: the undo itself, which can be undone; None if nothing was changed.
        n_undone: how many records are again what they were.
        conflicts: the records that were left as they are: `record_id`, `code`, `message`.
        job_id: the job that did it, if there were many.
        is_done: False as long as the job goes on.
        dry_run: whether nothing has happened.
    """

    operation_id: str | None
    n_undone: int
    conflicts: list[Conflict]
    job_id: int | None = None
    is_done: bool = True
    dry_run: bool = False

    def __repr__(self) -> str:
        """Return the fields; of many conflicts the first ones."""
        conflicts = few([(each.record_id, each.code, each.message) for each in self.conflicts])
        more = "".join(
            f", {name}={value!r}"
            for name, value in (("job_id", self.job_id), ("dry_run", self.dry_run))
            if value
        )
        return (
            f"UndoMetadata(n_undone={self.n_undone}, conflicts={conflicts}, "
            f"operation_id={self.operation_id!r}{more})"
        )


class PastOperation(OperationOut):
    """Something that people or policies did to records."""


class OperationDetails(OperationAnswer):
    """Something that people or policies did to records, and whether it was undone."""


class Operations(Table[PastOperation]):
    """Operations, newest first."""

    noun = "operations"
    columns = ("id", "started_at", "action", "actor", "n_changes", "reason", "undoes")
