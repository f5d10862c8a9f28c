"""Importing archives: all of one or nothing, under new numbers, with the origin kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from psycopg import Rollback
from psycopg.errors import DataError, UniqueViolation

from recordledger.domain.aggregates import State
from recordledger.domain.audit.origins import Ids, short_name, translated
from recordledger.domain.dataset import DatasetAggregate, DatasetRenamed
from recordledger.domain.errors import ArchiveFromFuture, ArchiveInvalid, DatasetExists, TooLarge
from recordledger.domain.records.events import Event, Imported, Released
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager import ManagerAggregate
from recordledger.domain.streams import Stream

from ..ledger import Ledger
from ..log import user_blocks
from ..log.recorder import CHANNEL, LOG_LOCK
from ..store.database import Db, one
from ..store.statements import statements
from ..tables import (
    datasets,
    inline,
    late_results,
    managers,
    origins,
    payloads,
    records,
    status_counts,
)
from ..tables.changes import Changes
from . import archive
from .archive import Container
from .check import ArchivedEvent, Contents, Key, Progress, archived_events, check_archive, rows_in
from .export import ARCHIVED

S = TypeVar("S", bound=State)

EVENTS_MAX: Final = 1_000_000
"""Default maximum number of imported events: the import is one transaction."""

ACTION: Final = "import"
_SQL: Final = statements("tables.origins")
_QUERIES: Final = statements("reading.queries")
_LOG: Final = statements("log.ledger_events")
_NOW: Final = statements("log.ledger_events")["now"]
_IMPORT_LOCK: Final = 7_301_956_010
_IDS: Final = 5_000
_BATCH_EVENTS: Final = 5_000
_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
# What is added by the import comes after all that came with it.
_AFTER_ALL: Final = 1 << 62


@dataclass(slots=True)
class ImportReport:
    """What was imported, or in a dry run would be.

    Attributes:
        archive_hash: the archive.
        ledger_id: where it comes from.
        operation_id: of the import, in this ledger's log.
        records, managers, datasets: what is new: its number here by its number there.
        n_known: aggregates of the archive that were here already, and stay as they are.
        n_erased: records of the archive that were hard-deleted there; they are left out.
        n_events, n_payloads: how much was written.
        renamed: new names of datasets whose names were taken here, by the old ones.
        dry_run: whether nothing was written after all.
    """

    archive_hash: str
    ledger_id: UUID
    operation_id: UUID
    records: dict[int, int] = field(default_factory=dict[int, int])
    managers: dict[int, int] = field(default_factory=dict[int, int])
    datasets: dict[int, int] = field(default_factory=dict[int, int])
    n_known: int = 0
    n_erased: int = 0
    n_events: int = 0
    n_payloads: int = 0
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    dry_run: bool = False


def import_archive(
    ledger: Ledger,
    path: Path,
    *,
    actor: str,
    reason: str | None = None,
    release: bool = False,
    dry_run: bool = False,
    events_max: int = EVENTS_MAX,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring what is in an archive into a ledger, in one transaction.

    The archive is checked first. What has come here before, in this archive or in another one,
    is left as it is. Records that waited or ran there are held here, and managers claim nothing.

    Args:
        ledger: where to.
        path: the archive.
        actor: who imports; on what is added here.
        reason: why.
        release: release the records that waited or ran there, so that managers here run them.
        dry_run: do everything, and leave no trace.
        events_max: refuse larger archives.
        progress: called with what is being done, how much of it is, and how much there is.

    Raises:
        ArchiveInvalid: one of its kinds; nothing was imported.
        TooLarge: it has more events than `events_max`.
        DatasetExists: a dataset's name is taken here, and so is the one it would get instead.
        StoreUnavailable: the database does not answer; nothing was imported.
    """
    contents = check_archive(path, progress=progress)
    n_events = contents.manifest.counts.events
    if n_events > events_max:
        raise TooLarge("the archive (events)", n_events, events_max, "--events-max")
    ledger.lanes.intern(contents.lanes)
    report = ImportReport(
        contents.archive_hash, contents.manifest.ledger_id, uuid4(), dry_run=dry_run
    )
    try:
        with ledger.datastore.writing() as db:
            work = _Import(ledger, db, Container(path), contents, report)
            work.run(actor, reason, release=release, progress=progress)
            if dry_run:
                raise Rollback
    except (DataError, UniqueViolation, UnicodeError) as error:
        raise ArchiveInvalid("the archive", f"a ledger cannot hold it: {error}") from error
    return report


class _Import:
    """One import, in one transaction."""

    def __init__(
        self,
        ledger: Ledger,
        db: Db,
        container: Container,
        contents: Contents,
        report: ImportReport,
    ) -> None:
        self._ledger = ledger
        self._db = db
        self._container = container
        self._contents = contents
        self._report = report
        self._new: dict[Stream, dict[int, int]] = {
            Stream.record: report.records,
            Stream.manager: report.managers,
            Stream.dataset: report.datasets,
        }

    def run(
        self, actor: str, reason: str | None, *, release: bool, progress: Progress | None
    ) -> None:
        """Do everything but commit."""
        db, contents = self._db, self._contents
        db.execute(_SQL["one_import"], {"lock": _IMPORT_LOCK})
        now = self._now()
        if contents.newest > now:
            raise ArchiveFromFuture(contents.newest, now)
        ids = self._number()
        if not any(self._new.values()):
            return
        # In the order in which everybody takes locks: payloads, then what counts, then the log.
        self._store_payloads()
        late_results.lock_counts(db)
        lanes = self._ledger.lanes
        status_counts.lock_counts(db, sorted(map(lanes.id_of, contents.lanes)))
        db.execute(_SQL["make_room"])
        stamp = {
            "timestamp": self._now(),
            "actor": actor,
            "operation_id": self._report.operation_id,
            "reason": reason,
            "action": ACTION,
        }
        batch = _Batch(self._ledger, db)
        n_all, n_read = contents.manifest.counts.events, 0
        for history in self._histories():
            n_read += len(history)
            self._add(batch, history, ids, stamp, release=release)
            if batch.n_events >= _BATCH_EVENTS:
                batch.write()
                if progress:
                    progress("importing", n_read, n_all)
        batch.write()
        self._report.n_events = batch.n_written
        db.execute(_SQL["lock_log"], {"lock": LOG_LOCK, "channel": CHANNEL})
        head = db.execute(_LOG["head"]).fetchone()
        db.execute(_SQL["append_all"])
        user_blocks.fill(db.connection, after=head[0] if head else 0)

    def _now(self) -> datetime:
        now: datetime = one(self._db, _NOW)[0]
        return now

    # Numbers

    def _number(self) -> Ids:
        """Give everything that is not here yet a number; return what everything is called here."""
        all_ids: dict[Stream, dict[int, int]] = {}
        for stream in ARCHIVED:
            there = [number for of, number in self._contents.versions if of is stream]
            if stream is Stream.record:
                there = [number for number in there if number not in self._contents.erased]
                erased = self._contents.manifest.counts.records - len(there)
                self._report.n_erased = erased
            known = self._known(stream, there)
            wanted = [number for number in there if number not in known]
            self._new[stream].update(zip(wanted, self._next_ids(stream, len(wanted)), strict=True))
            self._report.n_known += len(known)
            all_ids[stream] = known | self._new[stream]
        return Ids(
            self._contents.manifest.ledger_id,
            all_ids[Stream.record],
            all_ids[Stream.manager],
            all_ids[Stream.dataset],
        )

    def _known(self, stream: Stream, there: Sequence[int]) -> dict[int, int]:
        """Return what is here already, by its number there: it, or what it came from itself."""
        row = self._db.execute(_QUERIES["ledger_id"]).fetchone()
        this = None if row is None else row[0]
        candidates: dict[UUID, dict[int, int]] = {}
        for number in there:
            whence = self._contents.origins.get((stream, number), [])
            for ledger_id, original in (*whence, (self._report.ledger_id, number)):
                candidates.setdefault(ledger_id, {})[original] = number
        known: dict[int, int] = {}
        for ledger_id, by_original in candidates.items():
            for part in _in_parts(sorted(by_original)):
                found = origins.here(self._db, ledger_id, stream, part)
                if ledger_id == this:
                    found |= origins.own(self._db, stream, part)
                known |= {by_original[original]: number for original, number in found.items()}
        return known

    def _next_ids(self, stream: Stream, n: int) -> list[int]:
        if stream is Stream.record:
            return records.next_ids(self._db, n) if n else []
        next_id = managers.next_id if stream is Stream.manager else datasets.next_id
        return [next_id(self._db) for _ in range(n)]

    # Payloads

    def _store_payloads(self) -> None:
        """Store what is needed, in the order of digests, some megabytes at a time."""
        needed = set(self._contents.named)
        if self._report.n_known:
            needed = {
                payload.digest
                for history in self._histories()
                for archived in history
                for payload in payloads.named_by(archived.event)
            }
        rows: list[tuple[bytes, int, str, bytes]] = []
        n_bytes = 0
        for digest, size, codec, data in rows_in(self._container, archive.PAYLOADS):
            if digest not in needed:
                continue
            rows.append((digest, size, codec, data))
            n_bytes += len(data)
            self._report.n_payloads += 1
            if n_bytes >= _PAYLOAD_BYTES or len(rows) >= _IDS:
                payloads.store_as_they_are(self._db, rows)
                rows, n_bytes = [], 0
        if rows:
            payloads.store_as_they_are(self._db, rows)

    # Events

    def _histories(self) -> Iterator[list[ArchivedEvent]]:
        """Give the whole history of each aggregate that is new here."""
        history: list[ArchivedEvent] = []
        for archived in archived_events(self._container):
            if archived.version == 1 and history:
                yield history
                history = []
            if archived.number in self._new[archived.stream]:
                history.append(archived)
        if history:
            yield history

    def _add(
        self,
        batch: _Batch,
        history: Sequence[ArchivedEvent],
        ids: Ids,
        stamp: Mapping[str, Any],
        *,
        release: bool,
    ) -> None:
        first = history[0]
        key = (first.stream, self._new[first.stream][first.number])
        arrived: dict[str, Any] = {
            "origin_ledger": self._report.ledger_id,
            "origin_id": first.number,
            "archive_digest": bytes.fromhex(self._report.archive_hash),
            **stamp,
        }
        events = [(each.position, translated(each.event, ids)) for each in history]
        match first.stream:
            case Stream.record:
                batch.add_record(key, events, arrived, stamp if release else None)
            case Stream.manager:
                batch.add_manager(key, events, arrived)
            case _:
                batch.add_dataset(key, events, arrived, self._free_name)

    def _free_name(self, name: str) -> str:
        """Return a name that no dataset has here: this one if possible."""
        if datasets.lock_name(self._db, name) is None:
            return name
        other = f"{name} @{short_name(self._report.ledger_id)}"
        if (taken_by := datasets.lock_name(self._db, other)) is not None:
            raise DatasetExists(other, taken_by)
        self._report.renamed[name] = other
        return other


class _Batch:
    """Folded aggregates that are written together, by the statements of live operations."""

    def __init__(self, ledger: Ledger, db: Db) -> None:
        self._ledger = ledger
        self._db = db
        self.n_written = 0
        self._changes = Changes(ledger.lanes)
        self._places: list[int] = []

    @property
    def n_events(self) -> int:
        """How many events wait to be written."""
        return len(self._changes.happened)

    def add_record(
        self,
        key: Key,
        events: Sequence[tuple[int, Event]],
        arrived: Mapping[str, Any],
        released: Mapping[str, Any] | None,
    ) -> None:
        """Add a record; release it if it waited or ran there and `released` is a stamp."""
        record = RecordAggregate(key[1])
        for place, event in events:
            record = self._happen(record, place, event)
        was = record.status
        record = self._happen(record, None, Imported(**arrived))
        if released is not None and was in (Status.waiting, Status.running):
            record = self._happen(record, None, Released(**released))

    def add_manager(
        self, key: Key, events: Sequence[tuple[int, Event]], arrived: Mapping[str, Any]
    ) -> None:
        """Add a manager."""
        manager = ManagerAggregate(key[1])
        for place, event in events:
            manager = self._happen(manager, place, event)
        self._happen(manager, None, Imported(**arrived))

    def add_dataset(
        self,
        key: Key,
        events: Sequence[tuple[int, Event]],
        arrived: Mapping[str, Any],
        free_name: Callable[[str], str],
    ) -> None:
        """Add a dataset, under another name if its own is taken."""
        dataset = DatasetAggregate(key[1])
        for place, event in events:
            dataset = self._happen(dataset, place, event)
        dataset = self._happen(dataset, None, Imported(**arrived))
        if dataset.is_live and (name := free_name(dataset.name)) != dataset.name:
            own = {field: arrived[field] for field in Event.model_fields if field in arrived}
            renamed = DatasetRenamed(name=name, **own)
            dataset = self._happen(dataset, None, renamed)
        # Live datasets of one archive have names of their own, but not the ones that they get.
        self.write()

    def _happen(self, state: S, place: int | None, event: Event) -> S:
        after = self._changes.happen(state, [event])
        if place is None:
            place = _AFTER_ALL + self.n_written + self.n_events
        self._places.append(place)
        return after

    def write(self) -> None:
        """Write what was folded to the tables, and the events to where they wait."""
        happened = self._changes.happened
        if not happened:
            return
        inline.write(self._db, self._changes)
        mapper = self._ledger.event_mapper
        self._db.execute(
            _SQL["arrive"],
            {
                "places": self._places,
                "ids": [recorded.originator_id for recorded in happened],
                "versions": [recorded.version for recorded in happened],
                "topics": [recorded.event.topic for recorded in happened],
                "states": [mapper.state_of(recorded.event) for recorded in happened],
            },
        )
        self.n_written += len(happened)
        self._changes.clear()
        self._places = []


def _in_parts(items: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), _IDS):
        yield items[start : start + _IDS]
