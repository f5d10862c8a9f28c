"""Filling the cells of datasets: submission, and clones that share records.

What fits one transaction is done at once. The rest is a job: each slice commits its records, the
links to them and the event that says how far the job has come, together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict

import msgpack

from recordledger.domain import dataset as d
from recordledger.domain.admin.job import (
    JobAdvanced,
    JobAggregate,
    JobFinished,
    JobState,
    JobSubmitted,
)
from recordledger.domain.dataset import DatasetAggregate, DatasetSpecification
from recordledger.domain.errors import (
    CommandRefused,
    DatasetNotFound,
    EntryNotFound,
    InvalidInput,
    RecordNotFound,
    SpecificationNotFound,
)
from recordledger.domain.records.events import Payload, Priority
from recordledger.domain.specs.fingerprint import specify
from recordledger.domain.streams import Stream

from ..ledger import Intent, Ledger, Operation
from ..store.database import Db
from ..tables import datasets, jobs, payloads
from ..tables.datasets import Entry
from .dataset_edits import CellSelection, NewEntry, Who, append_entries, locked, operate, selected
from .submission import NewRecord, find_or_create

SUBMIT: Final = "submit"
"""What such a job is called."""

# More cells than this are filled by a job.
AT_ONCE_MAX: Final = 2_000
SLICE: Final = 2_000
# A transaction makes no more arguments of records than this, unless it makes one record.
SLICE_BYTES: Final = 1 << 26
_PAGE: Final = 20_000


class CellToFill(NamedTuple):
    """A cell to fill, by numbers: with this record, or with one that is to be made."""

    specification: int
    entry: int
    record_id: int | None = None


class Filled(TypedDict):
    """The outcome of cells: how many were filled, by a job if there is a `job_id`.

    `n_selected` counts those that were empty. `refusals` are (code, message).
    """

    operation_id: str
    dataset_id: int
    n_selected: int
    n_linked: int
    n_existing: int
    refusals: list[tuple[str, str]]
    job_id: int | None


@dataclass(frozen=True, slots=True)
class SubmissionTerms:
    """How records are made.

    Attributes:
        payload_bytes_max: largest canonical specification.
        find_existing: whether records that are there already are taken.
        tag, priority: instead of those of the specifications.
    """

    payload_bytes_max: int
    find_existing: bool = True
    tag: str | None = None
    priority: Priority | None = None

    def options(self) -> dict[str, Any]:
        """Return the terms as plain values."""
        return {
            "payload_bytes_max": self.payload_bytes_max,
            "find_existing": self.find_existing,
            "tag": self.tag,
            "priority": None if self.priority is None else int(self.priority),
        }

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SubmissionTerms:
        """Return the terms that `options` gave."""
        priority = options["priority"]
        return cls(
            payload_bytes_max=options["payload_bytes_max"],
            find_existing=options["find_existing"],
            tag=options["tag"],
            priority=None if priority is None else Priority(priority),
        )


def submit(
    ledger: Ledger, dataset_id: int, selection: CellSelection, terms: SubmissionTerms, who: Who
) -> Filled:
    """Give every selected cell that has no record one.

    Raises:
        DatasetNotFound: there is none.
        SpecificationNotFound: it has none of one of these names.
        EntryNotFound: it has none of one of these names.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Filled:
        dataset = locked(operation, dataset_id)
        specifications, entries = selected(operation, dataset, selection)
        cells: list[CellToFill] = []
        for each in specifications:
            linked = datasets.linked_entries(operation.db, dataset_id, each.number)
            cells += [CellToFill(each.number, entry) for entry in entries if entry not in linked]
        at_once = _fitting(dataset, cells[: AT_ONCE_MAX + 1], entries)
        if len(cells) > min(at_once, AT_ONCE_MAX):
            return _begun(operation, dataset, cells, terms)
        return _filled(operation, dataset, cells, terms, is_new=False)

    return operate(ledger, work, who)


def clone(
    ledger: Ledger,
    dataset_id: int,
    name: str,
    who: Who,
    *,
    description: str | None = None,
    version: int | None = None,
    link_records: bool = False,
) -> Filled:
    """Make a dataset with the entries and specifications of another.

    Args:
        ledger: where.
        dataset_id: the other one.
        name: of the new one.
        who: whose request it is.
        description: of the new one; that of the other if not given.
        version: the number of a locked version that is to be cloned; None for what it is now.
        link_records: whether the cells of the new one have the same records.

    Raises:
        DatasetNotFound: there is none.
        DatasetExists: another one has this name.
        VersionNotFound: there is no such locked version.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Filled:
        db = operation.db
        taken_by = datasets.lock_name(db, name)
        source = locked(operation, dataset_id)
        at = datasets.version_numbered(db, source, version)
        said = source.description if description is None else description
        events = d.create_dataset(
            operation.stamp, name, said, taken_by=taken_by, cloned_from=source.id
        )
        new = operation.happen(DatasetAggregate(datasets.next_id(db)), events)
        columns: dict[int, int] = {}
        for each in datasets.specifications(db, source.id, at):
            events = d.add_specification(new, operation.stamp, each)
            new = operation.happen(new, events)
            columns[each.number] = new.specifications_added
        cells: list[CellToFill] = []
        after = 0
        while found := datasets.entries(db, source.id, at, after, _PAGE):
            after = found[-1].number
            numbers = {entry.number: new.entries_added + i for i, entry in enumerate(found, 1)}
            new = _copy_entries(operation, new, found)
            if link_records:
                cells += [
                    CellToFill(columns[cell.specification], numbers[cell.entry], cell.record_id)
                    for cell in datasets.cells(db, source.id, at, numbers, columns)
                ]
        if len(cells) > AT_ONCE_MAX:
            return _begun(operation, new, cells, None)
        return _filled(operation, new, cells, None, is_new=True)

    return operate(ledger, work, who)


def _copy_entries(
    operation: Operation, new: DatasetAggregate, found: Sequence[Entry]
) -> DatasetAggregate:
    start = 0
    while start < len(found):
        end, n_bytes = start, 0
        while end < len(found) and n_bytes < SLICE_BYTES:
            n_bytes += found[end].size_bytes
            end += 1
        part = found[start:end]
        contents = datasets.contents_of(operation.db, {entry.inputs for entry in part})
        entries = [NewEntry(each.name, contents[each.inputs][each.place]) for each in part]
        new = append_entries(operation, new, entries)
        start = end
    return new


def _filled(
    operation: Operation,
    dataset: DatasetAggregate,
    cells: Sequence[CellToFill],
    terms: SubmissionTerms | None,
    *,
    is_new: bool,
) -> Filled:
    filling = _fill(operation, dataset, cells, terms, is_new=is_new)
    return _answer(operation, dataset, len(cells), filling, None)


def _answer(
    operation: Operation,
    dataset: DatasetAggregate,
    n_selected: int,
    filling: Filling,
    job_id: int | None,
) -> Filled:
    return Filled(
        operation_id=str(operation.id),
        dataset_id=dataset.id,
        n_selected=n_selected,
        n_linked=filling.n_linked,
        n_existing=filling.n_existing,
        refusals=[(why.code, str(why)) for why in filling.refusals.values()],
        job_id=job_id,
    )


def _fitting(
    dataset: DatasetAggregate, cells: Sequence[CellToFill], sizes: Mapping[int, int]
) -> int:
    """Return how many of these cells a transaction takes, by the sizes of the entries."""
    bases = {each.number: each.kwargs.size_bytes for each in dataset.specifications.values()}
    n_bytes = 0
    for n_before, cell in enumerate(cells):
        n_bytes += bases.get(cell.specification, 0) + sizes.get(cell.entry, 0)
        if n_bytes > SLICE_BYTES:
            return max(n_before, 1)
    return len(cells)


def _begun(
    operation: Operation,
    dataset: DatasetAggregate,
    cells: Sequence[CellToFill],
    terms: SubmissionTerms | None,
) -> Filled:
    """Let a job begin in the transaction of the operation that it does."""
    submitted = JobSubmitted(
        **_stamped(operation),
        ids=payloads.keep(operation.db, _pack(cells)),
        n_total=len(cells),
        options={"dataset_id": dataset.id, "terms": None if terms is None else terms.options()},
    )
    job = operation.happen(JobAggregate(jobs.next_id(operation.db)), [submitted])
    return _answer(operation, dataset, len(cells), Filling(), job.id)


def _stamped(operation: Operation) -> dict[str, Any]:
    # The records' own events name no action: nobody undoes that they were created.
    return {**operation.stamp.model_dump(), "action": SUBMIT}


def _pack(cells: Sequence[CellToFill]) -> bytes:
    """Return cells as a payload holds them: a list for each of their numbers."""
    return msgpack.packb([list(column) for column in zip(*cells, strict=True)])


def do_slice(ledger: Ledger, seen: JobAggregate) -> None:
    """Fill the next cells of a job, unless another process has done it meanwhile."""
    with ledger.datastore.reading() as db:
        first = ledger.history(db, Stream.job, seen.id)[0].recorded.event
        assert isinstance(first, JobSubmitted)  # noqa: S101 - a job begins with it
        columns = msgpack.unpackb(payloads.load(db, [first.ids.digest])[first.ids.digest])
        part = slice(seen.n_done, seen.n_done + SLICE)
        cells = [
            CellToFill(*each) for each in zip(*(column[part] for column in columns), strict=True)
        ]
        dataset_id: int = first.options["dataset_id"]
        cells = cells[: _n_fitting(db, dataset_id, cells)]
    terms = None if first.options["terms"] is None else SubmissionTerms.of(first.options["terms"])

    def work(operation: Operation) -> None:
        job = jobs.get(operation.db, seen.id, "lock")
        if job.state is not JobState.running or job.n_done != seen.n_done:
            return
        try:
            dataset = locked(operation, dataset_id)
            filling = _fill(operation, dataset, cells, terms, is_new=False)
        except DatasetNotFound as gone:
            filling = Filling(refusals=dict.fromkeys(range(len(cells)), gone))
        advanced = JobAdvanced(
            **_stamped(operation),
            n_done=len(cells),
            n_updated=filling.n_linked,
            n_relatives=0,
            n_refused=len(filling.refusals),
            refusals=_keep_refusals(operation.db, job.n_done, filling),
        )
        job = operation.happen(job, [advanced])
        if job.n_done >= job.n_total:
            operation.happen(job, [JobFinished(**_stamped(operation))])

    intent = Intent(None, operation_id=seen.operation_id)
    ledger.operate(work, actor=seen.actor, reason=seen.reason, intent=intent)


def _n_fitting(db: Db, dataset_id: int, cells: Sequence[CellToFill]) -> int:
    """Return how many of these cells a slice takes. What an entry says never changes."""
    try:
        dataset = datasets.get(db, dataset_id)
    except DatasetNotFound:
        return len(cells)
    entries = datasets.entries_numbered(db, dataset_id, {cell.entry for cell in cells})
    sizes = {number: entry.size_bytes for number, entry in entries.items()}
    return _fitting(dataset, cells, sizes)


@dataclass(slots=True)
class Filling:
    """The outcome of cells; `refusals` by their indexes."""

    n_linked: int = 0
    n_existing: int = 0
    refusals: dict[int, CommandRefused] = field(default_factory=dict[int, CommandRefused])


def _keep_refusals(db: Db, start: int, filling: Filling) -> Payload | None:
    if not filling.refusals:
        return None
    told = [(start + idx, why.code, str(why)) for idx, why in sorted(filling.refusals.items())]
    return payloads.keep(db, msgpack.packb(told))


def _fill(
    operation: Operation,
    dataset: DatasetAggregate,
    cells: Sequence[CellToFill],
    terms: SubmissionTerms | None,
    *,
    is_new: bool,
) -> Filling:
    """Give cells that have none a record, in the transaction of the operation.

    What was there when the cells were selected, and was removed since, is refused. Of a dataset
    that is made in this operation nothing can have been removed, nor is it in the tables yet.
    """
    filling = Filling()
    by_column: dict[int, list[int]] = {}
    for index, cell in enumerate(cells):
        by_column.setdefault(cell.specification, []).append(index)
    empty: list[int] = []
    entries: dict[int, Entry] = {}
    for number, indexes in by_column.items():
        if dataset.by_number(number) is None:
            why = SpecificationNotFound(dataset.name, (f"number {number}",))
            filling.refusals.update(dict.fromkeys(indexes, why))
            continue
        wanted = [cells[index].entry for index in indexes]
        linked = datasets.linked_entries(operation.db, dataset.id, number, wanted)
        new = [entry for entry in wanted if entry not in entries]
        entries |= datasets.entries_numbered(operation.db, dataset.id, new)
        for index in indexes:
            entry = cells[index].entry
            if not is_new and entry not in entries:
                filling.refusals[index] = EntryNotFound(dataset.name, (f"number {entry}",))
            elif entry not in linked:
                empty.append(index)
    if terms is None:
        linkable = _there(operation, cells, empty, filling)
    else:
        linkable = _made(operation, dataset, cells, empty, entries, terms, filling)
    pairs: dict[int, list[tuple[int, int]]] = {}
    for index, record_id in linkable.items():
        pairs.setdefault(cells[index].specification, []).append((cells[index].entry, record_id))
    operation.happen(dataset, d.link_records(operation.stamp, pairs))
    filling.n_linked = len(linkable)
    return filling


def _there(
    operation: Operation, cells: Sequence[CellToFill], empty: Sequence[int], filling: Filling
) -> dict[int, int]:
    """Return the records that the cells are to have, by index; they are locked."""
    wanted = {index: cells[index].record_id or 0 for index in empty}
    found = operation.lock(wanted.values()) if wanted else {}
    for index, record_id in wanted.items():
        if record_id not in found:
            filling.refusals[index] = RecordNotFound(record_id)
    linkable = {index: id_ for index, id_ in wanted.items() if id_ in found}
    filling.n_existing = len(linkable)
    return linkable


def _made(
    operation: Operation,
    dataset: DatasetAggregate,
    cells: Sequence[CellToFill],
    empty: Sequence[int],
    entries: Mapping[int, Entry],
    terms: SubmissionTerms,
    filling: Filling,
) -> dict[int, int]:
    """Return the records that were made or found for the cells, by index."""
    inputs = _inputs(operation.db, (entries[cells[index].entry] for index in empty))
    bases: dict[int, dict[str, Any]] = {}
    new: list[NewRecord] = []
    places: list[int] = []
    for index in empty:
        cell = cells[index]
        specification = dataset.by_number(cell.specification)
        assert specification is not None  # noqa: S101 - `_fill` has looked
        if cell.specification not in bases:
            bases[cell.specification] = _kwargs(operation.db, specification)
        kwargs = merged(bases[cell.specification], inputs[cell.entry])
        try:
            new.append(_record_of(specification, kwargs, terms))
            places.append(index)
        except InvalidInput as refusal:
            name = entries[cell.entry].name
            filling.refusals[index] = InvalidInput(
                f"entry {name!r}, specification {specification.name!r}: {refusal}"
            )
    ids, existing_idx = find_or_create(operation, new, find_existing=terms.find_existing)
    filling.n_existing = len(existing_idx)
    return dict(zip(places, ids, strict=True))


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a cell's record: the entry's win over the specification's.

    >>> merged({"basis": "sto-3g", "x": 0}, {"x": 1.5})
    {'basis': 'sto-3g', 'x': 1.5}
    """
    return {**base, **given}


def _record_of(
    specification: DatasetSpecification, kwargs: Mapping[str, Any], terms: SubmissionTerms
) -> NewRecord:
    return NewRecord(
        specification=specify(
            specification.function,
            kwargs,
            specification.required_programs,
            size_bytes_max=terms.payload_bytes_max,
        ),
        tag=specification.tag if terms.tag is None else terms.tag,
        priority=specification.priority if terms.priority is None else terms.priority,
        retry=specification.retry,
        kind=specification.kind,
    )


def _kwargs(db: Db, specification: DatasetSpecification) -> dict[str, Any]:
    digest = specification.kwargs.digest
    kwargs: dict[str, Any] = json.loads(payloads.load(db, [digest])[digest])
    return kwargs


def _inputs(db: Db, entries: Iterable[Entry]) -> dict[int, dict[str, Any]]:
    """Return the inputs of entries, by their numbers."""
    wanted = {entry.number: entry for entry in entries}
    contents = datasets.contents_of(db, {entry.inputs for entry in wanted.values()})
    return {
        number: json.loads(contents[entry.inputs][entry.place].input)
        for number, entry in wanted.items()
    }
