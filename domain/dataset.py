"""A dataset: entries x specifications -> records; its events, state and rules.

Entries are numbered, and so are specifications, in the order in which they came: a renamed entry is
still the same one. The state here is what a dataset says of itself. Its entries and the records of
its cells are too many to be held together, so the rules take those that a command is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from .errors import (
    DatasetChanged,
    DatasetExists,
    DatasetLocked,
    EntryExists,
    EntryNotFound,
    ImpossibleHistory,
    InvalidInput,
    SpecificationExists,
    SpecificationNotFound,
    TooLarge,
)
from .records import events as e
from .records.events import Event, Kind, Payload, Priority, Stamp, events_of
from .records.retries import Retry

# Maximum number of entries in one event; the rest goes into further events.
CHUNK_MAX: Final = 1_000
ENTRIES_MAX: Final = 10_000_000
SPECIFICATIONS_MAX: Final = 1_000

Item = TypeVar("Item")


class DatasetCreated(Event):
    """The dataset exists, and is empty.

    `cloned_from` is the dataset whose entries and specifications it takes over, if there is one.
    """

    topic = "dataset_created"
    words = "{who} created it"

    name: str
    description: str = ""
    cloned_from: int | None = None


class DatasetRenamed(Event):
    """The dataset has another name; it is found by its id as before."""

    topic = "dataset_renamed"
    words = "{who} renamed it"

    name: str


class DatasetDescribed(Event):
    """The dataset has another description."""

    topic = "dataset_described"
    words = "{who} changed its description"

    description: str


class EntriesAdded(Event):
    """The dataset has these entries too, numbered on from `first`.

    `inputs` is one payload with what each of them says, in the same order: its input, which goes
    into the arguments of its records, and its attributes.
    """

    topic = "entries_added"
    words = "{who} added entries"

    first: int
    names: tuple[str, ...]
    inputs: Payload


class EntriesRenamed(Event):
    """These entries have other names; they are the same entries."""

    topic = "entries_renamed"
    words = "{who} renamed entries"

    entries: tuple[int, ...]
    names: tuple[str, ...]


class EntriesRemoved(Event):
    """The dataset has these entries no more, nor the records of their cells."""

    topic = "entries_removed"
    words = "{who} removed entries"

    entries: tuple[int, ...]


class SpecificationAdded(Event):
    """Every entry can now be computed in this way.

    `kwargs` is a payload: the arguments that all records have, unless an entry's input differs. The
    rest is what the records are created with.
    """

    topic = "specification_added"
    words = "{who} added specification {specification}"

    specification: int
    name: str
    kind: Kind
    function: str
    kwargs: Payload
    required_programs: tuple[str, ...] = ()
    tag: str
    priority: Priority
    retries: int = 0
    retry_delay_s: float = 0.0
    retry_on: tuple[str, ...] = ()


class SpecificationRemoved(Event):
    """The dataset has this specification no more, nor the records of its cells."""

    topic = "specification_removed"
    words = "{who} removed specification {specification}"

    specification: int


class RecordsLinked(Event):
    """These entries have these records, in the same order, for one specification."""

    topic = "records_linked"
    words = "{who} linked records for specification {specification}"

    specification: int
    entries: tuple[int, ...]
    record_ids: tuple[int, ...]


class RecordsUnlinked(Event):
    """The cells of these entries and one specification are empty; the records are as they were."""

    topic = "records_unlinked"
    words = "{who} unlinked records of specification {specification}"

    specification: int
    entries: tuple[int, ...]


class VersionLocked(Event):
    """What the dataset is now can be read for ever under this number, however it changes."""

    topic = "version_locked"
    words = "{who} locked version {number}"

    number: int
    label: str = ""
    doi: str | None = None


class DatasetDeleted(Event):
    """There is no such dataset any more; its records are as they were, and free of it."""

    topic = "dataset_deleted"
    words = "{who} deleted it"


DATASET_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class DatasetSpecification:
    """How the entries of a dataset are computed: one column of its table."""

    number: int
    name: str
    kind: Kind
    function: str
    kwargs: Payload
    required_programs: tuple[str, ...]
    tag: str
    priority: Priority
    retry: Retry


@dataclass(frozen=True, slots=True)
class DatasetAggregate:
    """The state of one dataset, folded from its history.

    Attributes:
        id: which.
        version: how many events it has.
        name: unique among the datasets that are not deleted, ignoring case.
        description: what it is, in people's words.
        owner: who created it.
        cloned_from: the dataset that it was made from, if there is one.
        created_at, modified_at, deleted_at: when.
        n_entries: how many it has.
        entries_added: how many it ever had: the number of the newest.
        specifications: those that it has, by name.
        specifications_added: how many it ever had.
        versions_locked: the number of the newest locked version; 0 if there is none.
    """

    id: int
    version: int = 0
    name: str = ""
    description: str = ""
    owner: str = ""
    cloned_from: int | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None
    deleted_at: datetime | None = None
    n_entries: int = 0
    entries_added: int = 0
    specifications: Mapping[str, DatasetSpecification] = field(
        default_factory=dict[str, DatasetSpecification]
    )
    specifications_added: int = 0
    versions_locked: int = 0

    @property
    def is_live(self) -> bool:
        """Whether it was created, and was not deleted."""
        return self.created_at is not None and self.deleted_at is None

    def with_specifications(self, found: Mapping[str, DatasetSpecification]) -> DatasetAggregate:
        """Return the same dataset with these, which it had in an older version."""
        return replace(self, specifications=found)

    def by_number(self, number: int) -> DatasetSpecification | None:
        """Return a specification by number; None if it was removed."""
        return next((each for each in self.specifications.values() if each.number == number), None)

    def require_version(self, expected: int | None) -> None:
        """Refuse what was meant for another state of the dataset; None means whatever it is.

        Raises:
            DatasetChanged: it has changed since.
        """
        if expected is not None and expected != self.version:
            raise DatasetChanged(self.name, expected, self.version)


def evolve_dataset(dataset: DatasetAggregate, event: Event) -> DatasetAggregate:
    """Return the dataset after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the dataset is.
    """
    version = dataset.version + 1
    after = replace(dataset, version=version, modified_at=event.timestamp)
    match event:
        case DatasetCreated() if dataset.created_at is None:
            return replace(
                after,
                name=event.name,
                description=event.description,
                owner=event.actor,
                cloned_from=event.cloned_from,
                created_at=event.timestamp,
            )
        case e.Imported() if dataset.created_at is not None:
            return after
        # From here on the dataset exists and is not deleted.
        case _ if not dataset.is_live:
            pass
        case DatasetRenamed():
            return replace(after, name=event.name)
        case DatasetDescribed():
            return replace(after, description=event.description)
        case EntriesAdded() if event.first == dataset.entries_added + 1:
            n_new = len(event.names)
            return replace(
                after,
                n_entries=dataset.n_entries + n_new,
                entries_added=dataset.entries_added + n_new,
            )
        case EntriesRenamed() if len(event.entries) == len(event.names):
            return after
        case EntriesRemoved() if len(event.entries) <= dataset.n_entries:
            return replace(after, n_entries=dataset.n_entries - len(event.entries))
        case SpecificationAdded() if event.specification == dataset.specifications_added + 1:
            return replace(
                after,
                specifications={**dataset.specifications, event.name: specification_of(event)},
                specifications_added=event.specification,
            )
        case SpecificationRemoved() if dataset.by_number(event.specification):
            kept = {
                name: each
                for name, each in dataset.specifications.items()
                if each.number != event.specification
            }
            return replace(after, specifications=kept)
        case RecordsLinked() if dataset.by_number(event.specification) and len(
            event.entries
        ) == len(event.record_ids):
            return after
        case RecordsUnlinked() if dataset.by_number(event.specification):
            return after
        case VersionLocked() if event.number == dataset.versions_locked + 1:
            return replace(after, versions_locked=event.number)
        case DatasetDeleted():
            return replace(after, deleted_at=event.timestamp, n_entries=0, specifications={})
        case _:
            pass
    # No case has returned: the event does not follow on this state.
    where = "not there" if not dataset.is_live else f"at version {dataset.version}"
    raise ImpossibleHistory(
        f"dataset {dataset.id}",
        version,
        f"{event.topic} cannot happen to a dataset that is {where}",
    )


def specification_of(event: SpecificationAdded) -> DatasetSpecification:
    """Return the specification that an event has added."""
    return DatasetSpecification(
        number=event.specification,
        name=event.name,
        kind=event.kind,
        function=event.function,
        kwargs=event.kwargs,
        required_programs=event.required_programs,
        tag=event.tag,
        priority=event.priority,
        retry=Retry(event.retries, event.retry_delay_s, event.retry_on),
    )


def create_dataset(
    stamp: Stamp, name: str, description: str, *, taken_by: int | None, cloned_from: int | None
) -> list[Event]:
    """Return the event that makes a dataset; `taken_by` is the one that has this name already.

    Raises:
        DatasetExists: there is one.
    """
    if taken_by is not None:
        raise DatasetExists(name, taken_by)
    common = stamp.model_dump()
    return [DatasetCreated(name=name, description=description, cloned_from=cloned_from, **common)]


def rename_dataset(
    dataset: DatasetAggregate, stamp: Stamp, name: str, taken_by: int | None
) -> list[Event]:
    """Return the event that gives the dataset another name; none if it has this one.

    Raises:
        DatasetExists: another dataset has it.
    """
    if name == dataset.name:
        return []
    if taken_by is not None and taken_by != dataset.id:
        raise DatasetExists(name, taken_by)
    return [DatasetRenamed(name=name, **stamp.model_dump())]


def describe_dataset(dataset: DatasetAggregate, stamp: Stamp, description: str) -> list[Event]:
    """Return the event that gives the dataset another description; none if it has this one."""
    if description == dataset.description:
        return []
    return [DatasetDescribed(description=description, **stamp.model_dump())]


def delete_dataset(dataset: DatasetAggregate, stamp: Stamp) -> list[Event]:
    """Return the event that ends the dataset.

    Raises:
        DatasetLocked: a version of it is locked, which must be readable for ever.
    """
    if dataset.versions_locked:
        raise DatasetLocked(dataset.name, dataset.versions_locked)
    return [DatasetDeleted(**stamp.model_dump())]


@dataclass(frozen=True, slots=True)
class Addition:
    """The outcome of entries that are to be added, by their indexes."""

    new_idx: list[int]
    existing_idx: list[int]
    refusals: dict[int, EntryExists]


def sort_entries(
    dataset: DatasetAggregate, given: Sequence[tuple[str, bytes]], present: Mapping[str, bytes]
) -> Addition:
    """Sort these entries into new ones, existing ones, and those that contradict others.

    Args:
        dataset: where they are to be added.
        given: name and digest of what it says, of each.
        present: the digests of the entries that have one of these names.

    Raises:
        TooLarge: it would have too many entries.
    """
    known = dict(present)
    addition = Addition([], [], {})
    for index, (name, content) in enumerate(given):
        if name not in known:
            known[name] = content
            addition.new_idx.append(index)
        elif known[name] == content:
            addition.existing_idx.append(index)
        else:
            addition.refusals[index] = EntryExists(dataset.name, (name,))
    n_entries = dataset.entries_added + len(addition.new_idx)
    if n_entries > ENTRIES_MAX:
        raise TooLarge("the dataset's entries", n_entries, ENTRIES_MAX, "ENTRIES_MAX")
    return addition


def add_entries(
    dataset: DatasetAggregate, stamp: Stamp, chunks: Iterable[tuple[Sequence[str], Payload]]
) -> list[Event]:
    """Return the events that add new entries: one for each chunk of names and what they say."""
    events: list[Event] = []
    first = dataset.entries_added + 1
    for names, inputs in chunks:
        events.append(
            EntriesAdded(first=first, names=tuple(names), inputs=inputs, **stamp.model_dump())
        )
        first += len(names)
    return events


def rename_entries(
    dataset: DatasetAggregate, stamp: Stamp, names: Mapping[str, str], present: Mapping[str, int]
) -> list[Event]:
    """Return the event that gives entries other names, all at once: two may swap theirs.

    Args:
        dataset: whose.
        stamp: of the operation.
        names: the new ones by the old ones.
        present: the numbers of the entries that have one of these names, old or new.

    Raises:
        EntryNotFound: there is no entry of one of the old names.
        EntryExists: two entries would have the same name.
        TooLarge: too many at once.
    """
    if len(names) > CHUNK_MAX:
        raise TooLarge("the request (entries to rename)", len(names), CHUNK_MAX, "CHUNK_MAX")
    numbers = _numbers(dataset, names, present)
    changed = {old: new for old, new in names.items() if old != new}
    staying = present.keys() - changed.keys()
    wanted = Counter(changed.values())
    if clashing := [new for new, n_times in wanted.items() if new in staying or n_times > 1]:
        raise EntryExists(dataset.name, tuple(clashing))
    if not changed:
        return []
    entries = tuple(number for old, number in numbers.items() if old in changed)
    return [EntriesRenamed(entries=entries, names=tuple(changed.values()), **stamp.model_dump())]


def remove_entries(
    dataset: DatasetAggregate, stamp: Stamp, names: Iterable[str], present: Mapping[str, int]
) -> list[Event]:
    """Return the events that take entries, and their cells, out of the dataset.

    Raises:
        EntryNotFound: there is no entry of one of these names; nothing is removed then.
    """
    numbers = sorted(_numbers(dataset, names, present).values())
    return [EntriesRemoved(entries=chunk, **stamp.model_dump()) for chunk in in_chunks(numbers)]


def add_specification(
    dataset: DatasetAggregate, stamp: Stamp, specification: DatasetSpecification
) -> list[Event]:
    """Return the event that adds a specification; none if the same one exists.

    The number is given here, whatever the specification says of it.

    Raises:
        SpecificationExists: there is another one of this name.
        TooLarge: it would have too many.
    """
    number = dataset.specifications_added + 1
    there = dataset.specifications.get(specification.name)
    if there is not None:
        if replace(there, number=0) == replace(specification, number=0):
            return []
        raise SpecificationExists(dataset.name, specification.name)
    if number > SPECIFICATIONS_MAX:
        raise TooLarge(
            "the dataset's specifications", number, SPECIFICATIONS_MAX, "SPECIFICATIONS_MAX"
        )
    return [
        SpecificationAdded(
            specification=number,
            name=specification.name,
            kind=specification.kind,
            function=specification.function,
            kwargs=specification.kwargs,
            required_programs=specification.required_programs,
            tag=specification.tag,
            priority=specification.priority,
            retries=specification.retry.retries,
            retry_delay_s=specification.retry.delay_s,
            retry_on=specification.retry.on,
            **stamp.model_dump(),
        )
    ]


def remove_specifications(
    dataset: DatasetAggregate, stamp: Stamp, names: Iterable[str]
) -> list[Event]:
    """Return the events that take specifications, and their cells, out of the dataset.

    Raises:
        SpecificationNotFound: it has none of one of these names; nothing is removed then.
    """
    return [
        SpecificationRemoved(specification=each.number, **stamp.model_dump())
        for each in specifications_named(dataset, names)
    ]


def specifications_named(
    dataset: DatasetAggregate, names: Iterable[str] | None
) -> list[DatasetSpecification]:
    """Return the specifications of these names, each once, by number; all of them for None.

    Raises:
        SpecificationNotFound: it has none of one of these names.
    """
    wanted = dataset.specifications.keys() if names is None else set(names)
    if missing := sorted(wanted - dataset.specifications.keys()):
        raise SpecificationNotFound(dataset.name, tuple(missing))
    return sorted((dataset.specifications[name] for name in wanted), key=lambda each: each.number)


Cells = Mapping[int, Sequence[int]]
"""Entries by specification, both by number."""


def link_records(stamp: Stamp, cells: Mapping[int, Sequence[tuple[int, int]]]) -> list[Event]:
    """Return the events that put records into cells: (entry, record) by specification."""
    return [
        RecordsLinked(
            specification=specification,
            entries=tuple(entry for entry, _ in chunk),
            record_ids=tuple(record_id for _, record_id in chunk),
            **stamp.model_dump(),
        )
        for specification, pairs in cells.items()
        for chunk in in_chunks(pairs)
    ]


def unlink_records(stamp: Stamp, cells: Cells) -> list[Event]:
    """Return the events that empty cells."""
    return [
        RecordsUnlinked(specification=specification, entries=chunk, **stamp.model_dump())
        for specification, entries in cells.items()
        for chunk in in_chunks(entries)
    ]


def lock_version(
    dataset: DatasetAggregate, stamp: Stamp, label: str, doi: str | None
) -> list[Event]:
    """Return the event that keeps the dataset, as it is now, readable for ever.

    Raises:
        InvalidInput: there is nothing in it.
    """
    if not dataset.n_entries or not dataset.specifications:
        raise InvalidInput(
            f"dataset {dataset.name!r} has no entries or no specifications: nothing to lock"
        )
    number = dataset.versions_locked + 1
    return [VersionLocked(number=number, label=label, doi=doi, **stamp.model_dump())]


def require_entries(
    dataset: DatasetAggregate, names: Iterable[str], present: Container[str]
) -> list[str]:
    """Return these names, each once, if there is an entry of each.

    Raises:
        EntryNotFound: an entry has no attributes of this name.
    """
    wanted = list(dict.fromkeys(names))
    if missing := [name for name in wanted if name not in present]:
        raise EntryNotFound(dataset.name, tuple(missing))
    return wanted


def _numbers(
    dataset: DatasetAggregate, names: Iterable[str], present: Mapping[str, int]
) -> dict[str, int]:
    return {name: present[name] for name in require_entries(dataset, names, present)}


def in_chunks(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Yield the items in order, in chunks of `EVENT_NAMES_MAX`."""
    for start in range(0, len(items), CHUNK_MAX):
        yield tuple(items[start : start + CHUNK_MAX])
