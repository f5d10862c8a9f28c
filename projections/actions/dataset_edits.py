"""What people do to datasets: each call is one operation, in one transaction.

A transaction that changes a dataset holds its row. Where cells are emptied, their records are held
too, so that nobody changes what is counted of them meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict, TypeVar

from recordledger.domain import dataset as d
from recordledger.domain.dataset import CHUNK_MAX, DatasetAggregate, DatasetSpecification
from recordledger.domain.errors import DatasetLocked
from recordledger.domain.records.events import Payload

from ..ledger import Ledger, Operation
from ..tables import datasets, payloads
from ..tables.datasets import Content
from ..tables.idempotency import RequestKey

Answer = TypeVar("Answer")

# An event's payload of inputs is cut here, or after `CHUNK_MAX` entries.
INPUTS_BYTES: Final = 1 << 22


class Edited(TypedDict):
    """The outcome of a change: the dataset's version after it, and how many things it concerned."""

    operation_id: str
    dataset_id: int
    version: int
    n_changed: int


class AddedEntries(TypedDict):
    """The outcome of entries to add, by index; `refusals` are (index, code, message)."""

    operation_id: str
    version: int
    inserted_idx: list[int]
    existing_idx: list[int]
    refusals: list[tuple[int, str, str]]


@dataclass(frozen=True, slots=True)
class Who:
    """Whose request it is, why, and under which key it may come again."""

    actor: str
    reason: str | None = None
    request: RequestKey | None = None


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to add: its name, and what it says as canonical JSON."""

    name: str
    content: Content


def create(ledger: Ledger, name: str, description: str, who: Who) -> Edited:
    """Make an empty dataset.

    Raises:
        DatasetExists: another one has this name.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        taken_by = datasets.lock_name(operation.db, name)
        events = d.create_dataset(
            operation.stamp, name, description, taken_by=taken_by, cloned_from=None
        )
        dataset = operation.happen(DatasetAggregate(datasets.next_id(operation.db)), events)
        return edited(operation, dataset, 0)

    return operate(ledger, work, who)


def modify(
    ledger: Ledger,
    dataset_id: int,
    who: Who,
    *,
    name: str | None = None,
    description: str | None = None,
    expected_version: int | None = None,
) -> Edited:
    """Give a dataset another name or description; None keeps what it is.

    Raises:
        DatasetNotFound: there is none.
        DatasetExists: another one has this name.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        # Names are taken before the rows of datasets are locked, as when one is made.
        taken_by = None if name is None else datasets.lock_name(operation.db, name)
        dataset = locked(operation, dataset_id, expected_version)
        before = dataset.version
        if name is not None:
            events = d.rename_dataset(dataset, operation.stamp, name, taken_by)
            dataset = operation.happen(dataset, events)
        if description is not None:
            events = d.describe_dataset(dataset, operation.stamp, description)
            dataset = operation.happen(dataset, events)
        return edited(operation, dataset, dataset.version - before)

    return operate(ledger, work, who)


def delete(
    ledger: Ledger, dataset_id: int, who: Who, *, expected_version: int | None = None
) -> Edited:
    """End a dataset; its records are as they were, and free of it.

    Raises:
        DatasetNotFound: there is none.
        DatasetLocked: a version of it is locked.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        if dataset.versions_locked:
            raise DatasetLocked(dataset.name, dataset.versions_locked)
        n_entries = dataset.n_entries
        datasets.lock_records_of_cells(operation.db, dataset_id)
        events = d.delete_dataset(dataset, operation.stamp)
        return edited(operation, operation.happen(dataset, events), n_entries)

    return operate(ledger, work, who)


def add_entries(
    ledger: Ledger,
    dataset_id: int,
    entries: Sequence[NewEntry],
    who: Who,
    *,
    expected_version: int | None = None,
) -> AddedEntries:
    """Add entries; one that already exists with the same content is left unchanged.

    Raises:
        DatasetNotFound: there is none.
        DatasetChanged: it is not in the expected version any more.
        TooLarge: it would have too many entries.
        IdempotencyConflict: the request's key was used for something else.
    """
    given = [(entry.name, entry.content.digest) for entry in entries]

    def work(operation: Operation) -> AddedEntries:
        dataset = locked(operation, dataset_id, expected_version)
        named = datasets.entries_named(operation.db, dataset_id, (name for name, _ in given))
        present = {name: content for name, (_, content) in named.items()}
        addition = d.sort_entries(dataset, given, present)
        new = [entries[index] for index in addition.new_idx]
        dataset = append_entries(operation, dataset, new)
        return AddedEntries(
            operation_id=str(operation.id),
            version=dataset.version,
            inserted_idx=addition.new_idx,
            existing_idx=addition.existing_idx,
            refusals=[(idx, why.code, str(why)) for idx, why in addition.refusals.items()],
        )

    return operate(ledger, work, who)


def rename_entries(
    ledger: Ledger,
    dataset_id: int,
    names: Mapping[str, str],
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Give entries other names, all of them or none; two may swap theirs.

    Raises:
        DatasetNotFound: there is none.
        EntryNotFound: there is no entry of one of the old names.
        EntryExists: two entries would have the same name.
        TooLarge: too many at once.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        numbers = _numbers(operation, dataset_id, [*names, *names.values()])
        events = d.rename_entries(dataset, operation.stamp, names, numbers)
        n_changed = sum(
            len(event.entries) for event in events if isinstance(event, d.EntriesRenamed)
        )
        return edited(operation, operation.happen(dataset, events), n_changed)

    return operate(ledger, work, who)


def remove_entries(
    ledger: Ledger,
    dataset_id: int,
    names: Sequence[str],
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Take entries, and their cells, out of a dataset: all of them or none.

    Raises:
        DatasetNotFound: there is none.
        EntryNotFound: there is no entry of one of these names.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        numbers = _numbers(operation, dataset_id, names)
        datasets.lock_records_of_cells(operation.db, dataset_id, entries=list(numbers.values()))
        events = d.remove_entries(dataset, operation.stamp, names, numbers)
        n_before = dataset.n_entries
        dataset = operation.happen(dataset, events)
        return edited(operation, dataset, n_before - dataset.n_entries)

    return operate(ledger, work, who)


def add_specification(
    ledger: Ledger,
    dataset_id: int,
    specification: DatasetSpecification,
    kwargs: bytes,
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Add a specification, whose number is given here; `kwargs` is its payload.

    Raises:
        DatasetNotFound: there is none.
        SpecificationExists: there is another one of this name.
        DatasetChanged: it is not in the expected version any more.
        TooLarge: it would have too many.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        events = d.add_specification(dataset, operation.stamp, specification)
        if events:
            payloads.keep(operation.db, kwargs)
        return edited(operation, operation.happen(dataset, events), len(events))

    return operate(ledger, work, who)


def remove_specifications(
    ledger: Ledger,
    dataset_id: int,
    names: Sequence[str],
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Take specifications, and their cells, out of a dataset: all of them or none.

    Raises:
        DatasetNotFound: there is none.
        SpecificationNotFound: it has none of one of these names.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        numbers = [each.number for each in d.specifications_named(dataset, names)]
        datasets.lock_records_of_cells(operation.db, dataset_id, specifications=numbers)
        events = d.remove_specifications(dataset, operation.stamp, names)
        return edited(operation, operation.happen(dataset, events), len(events))

    return operate(ledger, work, who)


def unlink(
    ledger: Ledger,
    dataset_id: int,
    selection: CellSelection,
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Empty the cells that are selected; their records are as they were, and free of the dataset.

    Raises:
        DatasetNotFound: there is none.
        SpecificationNotFound: it has none of one of these names.
        EntryNotFound: it has none of one of these names.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        specifications, entries = selected(operation, dataset, selection)
        numbers = [each.number for each in specifications]
        held = None if selection.takes_all_entries else list(entries)
        datasets.lock_records_of_cells(
            operation.db, dataset_id, specifications=numbers, entries=held
        )
        emptied: dict[int, list[int]] = {}
        for number in numbers:
            emptied[number] = sorted(
                datasets.linked_entries(operation.db, dataset_id, number, held)
            )
        events = d.unlink_records(operation.stamp, emptied)
        dataset = operation.happen(dataset, events)
        return edited(operation, dataset, sum(map(len, emptied.values())))

    return operate(ledger, work, who)


def lock_version(
    ledger: Ledger,
    dataset_id: int,
    label: str,
    doi: str | None,
    who: Who,
    *,
    expected_version: int | None = None,
) -> Edited:
    """Keep a dataset, as it is now, readable for ever; `n_changed` is the number of that version.

    Raises:
        DatasetNotFound: there is none.
        InvalidInput: there is nothing in it.
        DatasetChanged: it is not in the expected version any more.
        IdempotencyConflict: the request's key was used for something else.
    """

    def work(operation: Operation) -> Edited:
        dataset = locked(operation, dataset_id, expected_version)
        events = d.lock_version(dataset, operation.stamp, label, doi)
        dataset = operation.happen(dataset, events)
        return edited(operation, dataset, dataset.versions_locked)

    return operate(ledger, work, who)


@dataclass(frozen=True, slots=True)
class CellSelection:
    """Which cells of a dataset: those that meet every condition that is not None.

    Attributes:
        specifications: by name.
        entries: by name.
        pattern: entries whose names are like this, `*` for anything, `?` for one character.
        attributes: JSON that the entries' attributes contain.
    """

    specifications: tuple[str, ...] | None = None
    entries: tuple[str, ...] | None = None
    pattern: str | None = None
    attributes: str | None = None

    @property
    def takes_all_entries(self) -> bool:
        """Whether no condition is on entries."""
        return self.entries is None and self.pattern is None and self.attributes is None


def selected(
    operation: Operation, dataset: DatasetAggregate, selection: CellSelection
) -> tuple[list[DatasetSpecification], dict[int, int]]:
    """Return the specifications that are selected, and the entries: their sizes by number.

    Raises:
        SpecificationNotFound: there is none of one of these names.
        EntryNotFound: there is none of one of these names.
    """
    found = d.specifications_named(dataset, selection.specifications)
    if selection.entries is not None:
        d.require_entries(
            dataset,
            selection.entries,
            datasets.entries_named(operation.db, dataset.id, selection.entries),
        )
    entries = datasets.selected_entries(
        operation.db,
        dataset.id,
        names=selection.entries,
        pattern=selection.pattern,
        attributes=selection.attributes,
    )
    return found, entries


def operate(ledger: Ledger, work: Callable[[Operation], Answer], who: Who) -> Answer:
    """Do the work of one request in one transaction."""
    return ledger.operate(work, actor=who.actor, reason=who.reason, request=who.request)


def locked(
    operation: Operation, dataset_id: int, expected_version: int | None = None
) -> DatasetAggregate:
    """Return a dataset, and keep others from changing it.

    Raises:
        DatasetNotFound: there is none.
        DatasetChanged: it is not in the expected version any more.
    """
    dataset = datasets.get(operation.db, dataset_id, "lock")
    dataset.require_version(expected_version)
    return dataset


def _numbers(operation: Operation, dataset_id: int, names: Sequence[str]) -> dict[str, int]:
    found = datasets.entries_named(operation.db, dataset_id, names)
    return {name: number for name, (number, _) in found.items()}


def edited(operation: Operation, dataset: DatasetAggregate, n_changed: int) -> Edited:
    """Return the outcome of a change."""
    return Edited(
        operation_id=str(operation.id),
        dataset_id=dataset.id,
        version=dataset.version,
        n_changed=n_changed,
    )


def append_entries(
    operation: Operation, dataset: DatasetAggregate, entries: Sequence[NewEntry]
) -> DatasetAggregate:
    """Store what new entries say, in payloads of a bounded size, and let them be added."""
    chunks: list[tuple[list[str], Payload]] = []
    contents: dict[bytes, bytes] = {}
    start = 0
    while start < len(entries):
        end, n_bytes = start, 0
        while end < len(entries) and end - start < CHUNK_MAX and n_bytes < INPUTS_BYTES:
            n_bytes += entries[end].content.size_bytes
            end += 1
        data = datasets.pack_contents([entry.content for entry in entries[start:end]])
        payload = payloads.payload_of(data)
        contents[payload.digest] = data
        chunks.append(([entry.name for entry in entries[start:end]], payload))
        start = end
    payloads.store(operation.db, contents)
    return operation.happen(dataset, d.add_entries(dataset, operation.stamp, chunks))
