"""The tables of datasets: what they are, their entries, specifications, records and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgpack

from recordledger.domain import dataset as d
from recordledger.domain.dataset import DatasetAggregate, DatasetSpecification
from recordledger.domain.errors import DatasetNotFound, VersionNotFound
from recordledger.domain.records.events import Imported, Kind, Payload, Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from recordledger.domain.specs.fingerprint import digest_of
from recordledger.domain.streams import ID_MAX, Stream

from ..log.mapper import Recorded
from ..store.database import Db, one
from ..store.statements import statements
from . import payloads
from .changes import Changes, SharedChanges
from .table import MOVES, CountedFrom, Owner, ProjectionTable

_SQL = statements("tables.datasets")

# Statements with long arrays are planned for these values: a plan for any array compares each row
# with each element, and would not know how many there are.

NEWEST: Final = 2**31 - 1
"""As a version: what the dataset is now."""

_NAME_LOCK: Final = 7_301_957
_COLUMNS: Final = (
    "id", "version", "name", "description", "owner", "cloned_from", "created_at", "modified_at",
    "deleted_at", "n_entries", "entries_added", "specifications_added", "versions_locked",
)  # fmt: skip

Counts = dict[tuple[int, int, str], int]
"""Changes of counts, by dataset, specification and status."""


class Content(NamedTuple):
    """What an entry says, as canonical JSON: its input and its attributes."""

    input: bytes
    attributes: bytes

    @property
    def size_bytes(self) -> int:
        """How much it is."""
        return len(self.input) + len(self.attributes)

    @property
    def digest(self) -> bytes:
        """The name of just this content."""
        return digest_of(self.input + b"\0" + self.attributes)


class Entry(NamedTuple):
    """An entry of a dataset, and where what it says is: in a payload, at a place there."""

    number: int
    name: str
    inputs: bytes
    place: int
    size_bytes: int


class Cell(NamedTuple):
    """A record of a dataset. `status` is None if it was erased since."""

    entry: int
    specification: int
    record_id: int
    status: Status | None


class LockedVersion(NamedTuple):
    """A version that stays readable; `version` is what the dataset's own version was."""

    number: int
    version: int
    label: str
    doi: str | None
    n_entries: int
    locked_at: datetime
    locked_by: str


# Writing ---------------------------------------------------------------------------------------


def write(db: Db, changes: Changes) -> None:
    """Bring the tables from what was to what is, after those of the records.

    First the records that have changed are counted again where they are linked already; then the
    events of datasets are applied, which count what the records are now.
    """
    counts: Counter[tuple[int, int, str]] = Counter()
    _count_changes(db, changes.records, counts)
    for recorded in changes.happened:
        if recorded.stream is Stream.dataset:
            _apply(db, recorded, counts)
    for dataset in changes.after(DatasetAggregate):
        db.execute(_SQL["write"], {name: getattr(dataset, name) for name in _COLUMNS})
    _add_counts(db, counts)


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Count the cells of records that share an event again."""
    moved: dict[tuple[Status | None, Status | None], list[int]] = {}
    for each in changes.classes:
        if each.before.status is not each.after.status:
            moved.setdefault((each.before.status, each.after.status), []).extend(each.ids)
    counts: Counter[tuple[int, int, str]] = Counter()
    for (before, after), ids in moved.items():
        found = db.execute(_SQL["cells_of"], {"record_ids": ids}, prepare=True)
        for dataset_id, specification, n_cells in found:
            counts[dataset_id, specification, str(before)] -= n_cells
            counts[dataset_id, specification, str(after)] += n_cells
    _add_counts(db, counts)


def _add_counts(db: Db, counts: Counter[tuple[int, int, str]]) -> None:
    keys = [key for key, delta in counts.items() if delta]
    if keys:
        ids, specifications, statuses = map(list[Any], zip(*keys, strict=True))
        parameters = {
            "dataset_ids": ids,
            "specifications": specifications,
            "statuses": statuses,
            "deltas": [counts[key] for key in keys],
        }
        db.execute(_SQL["add_counts"], parameters, prepare=True)


def _count_changes(
    db: Db,
    changes: Sequence[tuple[RecordAggregate, RecordAggregate]],
    counts: Counter[tuple[int, int, str]],
) -> None:
    moved = {
        after.id: (before.status, after.status)
        for before, after in changes
        if before.status is not after.status and before.status is not None
    }
    if not moved:
        return
    parameters = {"record_ids": list(moved)}
    for record_id, *cell in db.execute(_SQL["counted_in"], parameters, prepare=True).fetchall():
        before, after = moved[record_id]
        dataset_id, specification = cell
        counts[dataset_id, specification, str(before)] -= 1
        if after is not None:
            counts[dataset_id, specification, str(after)] += 1


def _apply(db: Db, recorded: Recorded, counts: Counter[tuple[int, int, str]]) -> None:
    """Apply one event of a dataset to its tables, and to the counts."""
    common: dict[str, Any] = {"id": recorded.number, "version": recorded.version}
    nothing: dict[str, Any] = {**common, "specification": None, "entries": None}
    match recorded.event:
        case d.EntriesAdded() as event:
            contents = contents_of(db, [event.inputs.digest])[event.inputs.digest]
            entries = {
                "first": event.first,
                "names": list(event.names),
                "contents": [content.digest for content in contents],
                "sizes": [content.size_bytes for content in contents],
                "inputs": event.inputs.digest,
                "attributes": [content.attributes.decode() for content in contents],
            }
            db.execute(_SQL["add_entries"], common | entries)
        # A row is never changed: it ends at this version, and another one begins.
        case d.EntriesRenamed(entries=entries, names=names):
            renamed = common | {"entries": list(entries), "names": list(names)}
            db.execute(_SQL["end_entries"], renamed, prepare=False)
            db.execute(_SQL["rename_entries"], renamed, prepare=False)
        case d.EntriesRemoved(entries=entries):
            ended = nothing | {"entries": list(entries)}
            db.execute(_SQL["end_entries"], ended, prepare=False)
            _count(db, "unlink", ended, counts, -1)
        case d.SpecificationAdded() as event:
            db.execute(_SQL["add_specification"], common | _row_of(d.specification_of(event)))
        case d.SpecificationRemoved(specification=specification):
            ended = nothing | {"specification": specification}
            db.execute(_SQL["end_specifications"], ended)
            _count(db, "unlink", ended, counts, -1)
        # Entries and specifications stay; only the records in their cells change.
        case d.RecordsLinked() as event:
            linked = {
                "specification": event.specification,
                "entries": list(event.entries),
                "record_ids": list(event.record_ids),
            }
            _count(db, "link", common | linked, counts, +1)
        case d.RecordsUnlinked(specification=specification, entries=entries):
            emptied = {"specification": specification, "entries": list(entries)}
            _count(db, "unlink", common | emptied, counts, -1)
        case d.VersionLocked() as event:
            locked = {
                "number": event.number,
                "label": event.label,
                "doi": event.doi,
                "locked_at": event.timestamp,
                "locked_by": event.actor,
            }
            db.execute(_SQL["add_version"], common | locked)
        case d.DatasetDeleted():
            db.execute(_SQL["end_all_entries"], common)
            db.execute(_SQL["end_specifications"], nothing)
            _count(db, "unlink", nothing, counts, -1)
        case _:
            pass


def _count(
    db: Db,
    statement: Literal["link", "unlink"],
    parameters: Mapping[str, Any],
    counts: Counter[tuple[int, int, str]],
    sign: int,
) -> None:
    # Planned for these values: which of the conditions there are decides about the index.
    for specification, status, n in db.execute(_SQL[statement], parameters, prepare=False):
        counts[parameters["id"], specification, status] += sign * n


def _row_of(specification: DatasetSpecification) -> dict[str, Any]:
    retry = specification.retry
    return {
        "number": specification.number,
        "name": specification.name,
        "kind": specification.kind,
        "function": specification.function,
        "kwargs": specification.kwargs.digest,
        "kwargs_size_bytes": specification.kwargs.size_bytes,
        "required_programs": list(specification.required_programs),
        "tag": specification.tag,
        "priority": int(specification.priority),
        "retries": retry.retries,
        "retry_delay_s": retry.delay_s,
        "retry_on": list(retry.on),
    }


# The tables of what a dataset says of itself are written with its own.
TABLES: Final = (
    ProjectionTable(
        name="datasets",
        key=("id",),
        owner=Owner("id", Stream.dataset),
        events=MOVES | {*d.DATASET_EVENTS, Imported},
        write=write,
        write_shared=write_shared,
    ),
    ProjectionTable(
        name="dataset_entries",
        key=("dataset_id", "number", "added_in"),
        owner=Owner("dataset_id", Stream.dataset),
    ),
    ProjectionTable(
        name="dataset_specifications",
        key=("dataset_id", "number"),
        owner=Owner("dataset_id", Stream.dataset),
    ),
    ProjectionTable(
        name="dataset_records",
        key=("dataset_id", "specification", "entry", "added_in"),
        owner=Owner("dataset_id", Stream.dataset),
    ),
    ProjectionTable(
        name="dataset_counts",
        key=("dataset_id", "specification", "status"),
        counted=CountedFrom(
            sources=("dataset_records", "records"), expected=_SQL["expected_counts"]
        ),
        zero="n_records",
    ),
    ProjectionTable(
        name="dataset_versions",
        key=("dataset_id", "number"),
        owner=Owner("dataset_id", Stream.dataset),
    ),
)


# Locking ---------------------------------------------------------------------------------------


def lock_name(db: Db, name: str) -> int | None:
    """Keep others from taking a name; return the dataset that has it."""
    db.execute(_SQL["hold_name"], {"lock": _NAME_LOCK, "name": name})
    return id_of(db, name)


def lock_records_of_cells(
    db: Db,
    dataset_id: int,
    *,
    specifications: Sequence[int] | None = None,
    entries: Sequence[int] | None = None,
) -> None:
    """Lock the records of cells that are about to be emptied, in the order of ids."""
    parameters = {"id": dataset_id, "specifications": specifications, "entries": entries}
    db.execute(_SQL["hold_records"], parameters, prepare=False)


# Reading ---------------------------------------------------------------------------------------


def next_id(db: Db) -> int:
    """Return a new dataset id."""
    return int(one(db, _SQL["next_id"])[0])


def id_of(db: Db, name: str) -> int | None:
    """Return the dataset of a name; None if there is none."""
    row = db.execute(_SQL["id_of"], {"name": name}).fetchone()
    return None if row is None else int(row[0])


def get(db: Db, dataset: int | str, how: Literal["get", "lock"] = "get") -> DatasetAggregate:
    """Return a dataset by id or name, and keep it from being changed if `how` is lock.

    Raises:
        DatasetNotFound: there is none, or it was deleted.
    """
    dataset_id = id_of(db, dataset) if isinstance(dataset, str) else dataset
    row = None
    if dataset_id is not None:
        row = db.execute(_SQL[how], {"id": dataset_id}).fetchone()
    if row is None:
        raise DatasetNotFound(dataset)
    return replace(
        _from_row(row),
        specifications={each.name: each for each in specifications(db, row[0], NEWEST)},
    )


def page(db: Db, limit: int, before: int = ID_MAX) -> list[DatasetAggregate]:
    """Return datasets without their specifications, newest first, at most `limit`."""
    return [_from_row(row) for row in db.execute(_SQL["page"], {"limit": limit, "before": before})]


def specifications(db: Db, dataset_id: int, version: int) -> list[DatasetSpecification]:
    """Return the specifications that a dataset has in a version of its own, by number."""
    rows = db.execute(_SQL["specifications"], {"id": dataset_id, "version": version})
    return [
        DatasetSpecification(
            number=number,
            name=name,
            kind=Kind(kind),
            function=function,
            kwargs=Payload(digest=kwargs, size_bytes=size_bytes),
            required_programs=tuple(required_programs),
            tag=tag,
            priority=Priority(priority),
            retry=Retry(retries, delay_s, tuple(on)),
        )
        for number, name, kind, function, kwargs, size_bytes, required_programs, tag, priority,
        retries, delay_s, on in rows
    ]  # fmt: skip


def versions(db: Db, dataset_id: int) -> list[LockedVersion]:
    """Return the locked versions of a dataset, oldest first."""
    return [LockedVersion(*row) for row in db.execute(_SQL["versions"], {"id": dataset_id})]


def version_numbered(db: Db, dataset: DatasetAggregate, number: int | None) -> int:
    """Return what the dataset's own version was when a version was locked; newest for None.

    Raises:
        VersionNotFound: there is no such locked version.
    """
    if number is None:
        return NEWEST
    for each in versions(db, dataset.id):
        if each.number == number:
            return each.version
    raise VersionNotFound(dataset.name, number)


def counts(db: Db, dataset_id: int) -> dict[int, dict[Status, int]]:
    """Return how many records are in which status, by specification; zeros are left out."""
    found: dict[int, dict[Status, int]] = {}
    for specification, status, n in db.execute(_SQL["counts"], {"id": dataset_id}):
        found.setdefault(specification, {})[Status(status)] = n
    return found


def counts_of_all(db: Db, dataset_ids: Sequence[int]) -> dict[int, dict[Status, int]]:
    """Return how many cells of each dataset have a record in which status."""
    found: dict[int, dict[Status, int]] = {}
    for dataset_id, status, n in db.execute(_SQL["counts_of_all"], {"ids": list(dataset_ids)}):
        found.setdefault(dataset_id, {})[Status(status)] = n
    return found


def entries_named(db: Db, dataset_id: int, names: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Return number and content's digest of the entries that have one of these names, by name."""
    parameters = {"id": dataset_id, "names": list(dict.fromkeys(names))}
    rows = db.execute(_SQL["entries_named"], parameters, prepare=False)
    return {name: (number, content) for name, number, content in rows}


def entries_numbered(db: Db, dataset_id: int, numbers: Iterable[int]) -> dict[int, Entry]:
    """Return the entries that have these numbers, by number."""
    parameters = {"id": dataset_id, "numbers": list(numbers)}
    found = [Entry(*row) for row in db.execute(_SQL["entries_numbered"], parameters, prepare=False)]
    return {entry.number: entry for entry in found}


def entries(db: Db, dataset_id: int, version: int, after: int, limit: int) -> list[Entry]:
    """Return a page of the entries that a dataset has in a version of its own, by number."""
    parameters = {"id": dataset_id, "version": version, "after": after, "limit": limit}
    return [Entry(*row) for row in db.execute(_SQL["entries"], parameters)]


def cells(
    db: Db,
    dataset_id: int,
    version: int,
    entries: Iterable[int],
    specifications: Iterable[int],
) -> list[Cell]:
    """Return the records of entries in a version, with the statuses that they have now."""
    parameters = {
        "id": dataset_id,
        "version": version,
        "entries": list(entries),
        "specifications": list(specifications),
    }
    return [
        Cell(entry, specification, record_id, None if status is None else Status(status))
        for entry, specification, record_id, status in db.execute(
            _SQL["cells"], parameters, prepare=False
        )
    ]


def linked_entries(
    db: Db, dataset_id: int, specification: int, entries: Sequence[int] | None = None
) -> set[int]:
    """Return which of these entries, or of all, have a record for a specification."""
    parameters = {
        "id": dataset_id,
        "specification": specification,
        "entries": None if entries is None else list(entries),
    }
    return {row[0] for row in db.execute(_SQL["linked_entries"], parameters, prepare=False)}


def selected_entries(
    db: Db,
    dataset_id: int,
    *,
    names: Sequence[str] | None,
    pattern: str | None,
    attributes: str | None,
) -> dict[int, int]:
    """Return the entries that meet every condition that is not None, and how large they are.

    Args:
        db: where.
        dataset_id: which dataset.
        names: these.
        pattern: names like this, `*` for anything and `?` for one character.
        attributes: JSON that the entry's attributes contain.
    """
    parameters = {
        "id": dataset_id,
        "names": None if names is None else list(names),
        "pattern": None if pattern is None else _like(pattern),
        "attributes": attributes,
    }
    return dict(db.execute(_SQL["selected_entries"], parameters, prepare=False).fetchall())


def referring(db: Db, record_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Return what refers to records: datasets, or locked versions of them, in words."""
    found: dict[int, list[str]] = {}
    parameters = {"record_ids": sorted(record_ids)}
    for record_id, name, is_live in db.execute(_SQL["referring"], parameters, prepare=True):
        what = f"dataset {name!r}" if is_live else f"a locked version of dataset {name!r}"
        found.setdefault(record_id, []).append(what)
    return {record_id: tuple(each) for record_id, each in found.items()}


def pack_contents(contents: Sequence[Content]) -> bytes:
    """Return what entries say as one payload holds it."""
    return msgpack.packb([tuple(content) for content in contents])


def contents_of(db: Db, digests: Iterable[bytes]) -> dict[bytes, list[Content]]:
    """Return what the entries of some payloads say, by the payload's digest."""
    return {
        digest: [Content(*each) for each in msgpack.unpackb(data)]
        for digest, data in payloads.load(db, digests).items()
    }


def _from_row(row: Sequence[Any]) -> DatasetAggregate:
    return DatasetAggregate(**dict(zip(_COLUMNS, row, strict=True)))


def _like(pattern: str) -> str:
    r"""Return a pattern as LIKE has it.

    >>> _like("H2O_*?")
    'H2O\\_%_'
    """
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")
