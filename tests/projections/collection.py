"""Datasets for tests: short ways to make and to change one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from recordledger.domain.dataset import DatasetAggregate, DatasetSpecification
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.retries import NO_RETRY, Retry
from recordledger.domain.specs.canonical import canonical_json
from recordledger.projections.actions import dataset_edits, dataset_filling
from recordledger.projections.actions.bulk import advance_jobs
from recordledger.projections.actions.dataset_edits import (
    AddedEntries,
    CellSelection,
    Edited,
    NewEntry,
    Who,
)
from recordledger.projections.actions.dataset_filling import Filled, SubmissionTerms
from recordledger.projections.tables import datasets
from recordledger.projections.tables.datasets import Cell, Content
from recordledger.projections.tables.payloads import payload_of

from .stage import ALICE, Stage

WHO: Final = Who(ALICE, "because")
TERMS: Final = SubmissionTerms(payload_bytes_max=1 << 20)


def entries(inputs: Mapping[str, Any], **attributes: Any) -> list[NewEntry]:
    """Return entries to add, by name; all with the same attributes."""
    said = canonical_json(attributes)
    return [NewEntry(name, Content(canonical_json(each), said)) for name, each in inputs.items()]


def specification(name: str = "hf", **more: Any) -> DatasetSpecification:
    """Return a specification to add, with these fields instead of the usual ones."""
    fields: dict[str, Any] = {
        "kind": Kind.task,
        "function": "psi4",
        "kwargs": payload_of(kwargs_of(name)),
        "required_programs": (),
        "tag": "gpu",
        "priority": Priority.normal,
        "retry": NO_RETRY,
    }
    return DatasetSpecification(number=0, name=name, **fields | more)


def kwargs_of(name: str) -> bytes:
    """Return the arguments of the specification of a name."""
    return canonical_json({"basis": name, "x": 0})


RETRY: Final = Retry(2, 1.0, ("OSError",))


@dataclass
class Collection:
    """A dataset of a stage, and what a test does with it."""

    stage: Stage
    id: int

    @classmethod
    def made(
        cls,
        stage: Stage,
        n_entries: int = 3,
        specifications: Iterable[str] = ("hf",),
        name: str = "water",
    ) -> Collection:
        """Make a dataset with entries m1, m2 and so on."""
        made = cls(stage, dataset_edits.create(stage.ledger, name, "", WHO)["dataset_id"])
        for each in specifications:
            made.specify(each)
        if n_entries:
            made.add({f"m{n}": {"x": n} for n in range(1, n_entries + 1)})
        return made

    def add(self, inputs: Mapping[str, Any], **attributes: Any) -> AddedEntries:
        return dataset_edits.add_entries(
            self.stage.ledger, self.id, entries(inputs, **attributes), WHO
        )

    def specify(self, name: str, **more: Any) -> Edited:
        return dataset_edits.add_specification(
            self.stage.ledger, self.id, specification(name, **more), kwargs_of(name), WHO
        )

    def submit(self, terms: SubmissionTerms = TERMS, **selection: Any) -> Filled:
        return dataset_filling.submit(
            self.stage.ledger, self.id, CellSelection(**selection), terms, WHO
        )

    def remove(self, *names: str, **how: Any) -> Edited:
        return dataset_edits.remove_entries(self.stage.ledger, self.id, names, WHO, **how)

    def rename(self, names: Mapping[str, str]) -> Edited:
        return dataset_edits.rename_entries(self.stage.ledger, self.id, names, WHO)

    def unspecify(self, *names: str) -> Edited:
        return dataset_edits.remove_specifications(self.stage.ledger, self.id, names, WHO)

    def unlink(self, **selection: Any) -> Edited:
        return dataset_edits.unlink(self.stage.ledger, self.id, CellSelection(**selection), WHO)

    def lock(self, label: str = "", doi: str | None = None) -> int:
        edited = dataset_edits.lock_version(self.stage.ledger, self.id, label, doi, WHO)
        return edited["n_changed"]

    def clone(self, name: str, **how: Any) -> tuple[Collection, Filled]:
        filled = dataset_filling.clone(self.stage.ledger, self.id, name, WHO, **how)
        return Collection(self.stage, filled["dataset_id"]), filled

    def delete(self) -> Edited:
        return dataset_edits.delete(self.stage.ledger, self.id, WHO)

    # What there is

    @property
    def dataset(self) -> DatasetAggregate:
        with self.stage.ledger.datastore.reading() as db:
            return datasets.get(db, self.id)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the kept counts, by specification and status."""
        by_number = {each.number: name for name, each in self.dataset.specifications.items()}
        with self.stage.ledger.datastore.reading() as db:
            found = datasets.counts(db, self.id)
        return {
            by_number[number]: {str(status): n for status, n in counts.items()}
            for number, counts in found.items()
        }

    def cells(self, version: int | None = None) -> dict[tuple[str, str], Cell]:
        """Return the cells that have a record, by the names of entry and specification."""
        with self.stage.ledger.datastore.reading() as db:
            at = datasets.version_numbered(db, self.dataset, version)
            columns = {each.number: each.name for each in datasets.specifications(db, self.id, at)}
            names = {each.number: each.name for each in datasets.entries(db, self.id, at, 0, 10**6)}
            found = datasets.cells(db, self.id, at, names, columns)
        return {(names[cell.entry], columns[cell.specification]): cell for cell in found}

    def ids(self, version: int | None = None) -> list[int]:
        """Return the records, each once, ascending."""
        return sorted({cell.record_id for cell in self.cells(version).values()})

    def inputs(self, version: int | None = None) -> dict[str, Any]:
        """Return what the entries' inputs are, by name, in order."""
        with self.stage.ledger.datastore.reading() as db:
            at = datasets.version_numbered(db, self.dataset, version)
            found = datasets.entries(db, self.id, at, 0, 10**6)
            contents = datasets.contents_of(db, {each.inputs for each in found})
        return {each.name: json.loads(contents[each.inputs][each.place].input) for each in found}


def run_jobs(stage: Stage) -> None:
    """Do all that jobs have to do."""
    for _ in range(1_000):
        if not advance_jobs(stage.ledger):
            return
    raise AssertionError("the jobs do not end")
