"""What actions on records return."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...schemas.base import Refusal
from ..tables import few, html_fields, html_table, shown


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class UpdateMetadata:
    """The outcome of an operation on records, in the caller's order.

    Attributes:
        updated_idx: indexes of the records that were changed (or would be, in a dry run).
        errors: the records that were refused: `idx`, `code`, `message`.
        n_children_updated: how many relatives below them were changed besides.
        n_parents_updated: how many relatives above them; a job counts all with the children.
        operation_id: what `undo` takes; None if nothing was changed.
        n_selected: how many records it was about, each counted once.
        ids: what a query has found, so that the indexes mean something; None where ids were
            given, and for jobs.
        new_ids: of `resubmit_records`: the new records, None where one was refused; empty for
            jobs.
        job_id: the job that did it, if there were many.
        is_done: False as long as the job goes on.
        dry_run: whether nothing has happened.
    """

    updated_idx: list[int]
    errors: list[Refusal]
    n_children_updated: int
    operation_id: str | None
    n_parents_updated: int = 0
    n_selected: int = 0
    ids: list[int] | None = None
    new_ids: list[int | None] = field(default_factory=list[int | None])
    job_id: int | None = None
    is_done: bool = True
    dry_run: bool = False

    @property
    def n_updated(self) -> int:
        """How many of the records that were meant were changed."""
        return len(self.updated_idx)

    def __repr__(self) -> str:
        """Return the fields as Python writes them; long lists by their beginnings and lengths."""
        figures = {
            "updated_idx": few(self.updated_idx),
            "errors": few([(each.idx, each.code, each.message) for each in self.errors]),
            "n_children_updated": f"{self.n_children_updated}",
            "operation_id": f"{self.operation_id!r}",
        }
        for name in ("n_parents_updated", "job_id", "dry_run"):
            if value := getattr(self, name):
                figures[name] = f"{value!r}"
        for name, ids in (("new_ids", self.new_ids), ("ids", self.ids)):
            if ids:
                figures[name] = few(ids)
        if not self.is_done:
            figures["is_done"] = "False"
        return f"UpdateMetadata({', '.join(f'{name}={text}' for name, text in figures.items())})"

    def _repr_html_(self) -> str:
        figures = {
            "updated": f"{self.n_updated:,} of {self.n_selected:,}",
            "children": f"{self.n_children_updated:,}",
            "parents": f"{self.n_parents_updated:,}",
            "operation": self.operation_id or "",
            "job": "" if self.job_id is None else f"{self.job_id}",
        }
        title = "UpdateMetadata" + (" (dry run)" if self.dry_run else "")
        table = html_fields(figures, title=title)
        if self.errors:
            rows = [(str(e.idx), shown(e.code), shown(e.message, 200)) for e in self.errors]
            table += html_table(("index", "code", "message"), rows, title="errors")
        return table
