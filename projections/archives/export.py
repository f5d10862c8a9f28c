"""Writing archives: the whole ledger or a selection, as it is at one moment, in bounded memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from recordledger.domain.aggregates import EVENT_TYPES
from recordledger.domain.errors import ImpossibleHistory, InvalidInput, RecordNotFound
from recordledger.domain.records.events import Erased, Event
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..proof.seals import newest_checkpoint
from ..store.database import cursor_of, one
from ..store.statements import statements
from ..tables import datasets, families, payloads
from . import archive
from .analysis import event_columns
from .archive import ArchiveCounts, Manifest, program
from .parquet import TableWriter
from .snapshots import rows_of, snapshot

_SQL: Final = statements("archives.export")
_IDS: Final = 2_000
_PAYLOADS: Final = 1_000
_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
# In the order in which they stand in an archive; what is no member is never in one.
ARCHIVED: Final = (Stream.record, Stream.manager, Stream.dataset)

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class ArchiveSelection:
    """What goes into an archive: everything, or records or a dataset, with what belongs to them.

    With a record go its children, the managers that had it, and the payloads that are named.
    """

    record_ids: tuple[int, ...] | None = None
    dataset: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out on purpose."""
        return self.record_ids is None and self.dataset is None


EVERYTHING: Final = ArchiveSelection()


def export_archive(
    ledger: Ledger,
    path: Path,
    selection: ArchiveSelection = EVERYTHING,
    *,
    progress: Progress | None = None,
) -> Manifest:
    """Write an archive of the ledger as it is at one moment. It appears whole, or not at all.

    Args:
        ledger: which.
        path: a folder that is not there yet; or a zip file, `*.zip`.
        selection: what of it.
        progress: called with "events" or "payloads", and how many were written.

    Raises:
        InvalidInput: there is something at the path already.
        RecordNotFound: one of the selected records is not there.
        DatasetNotFound: the selected dataset is not there.
        ImpossibleHistory: the ledger itself is damaged: a payload is not there.
        LibraryMissing: PyArrow is not installed.
    """
    if path.exists():
        raise InvalidInput(f"{path} already exists; give another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{token_hex(4)}")
    folder.mkdir()
    try:
        manifest = _write(ledger, folder, selection, progress)
        if path.suffix == ".zip":
            packed = folder.with_suffix(".zip")
            try:
                archive.pack(folder, packed)
                packed.replace(path)
            finally:
                packed.unlink(missing_ok=True)
        else:
            folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _write(
    ledger: Ledger, folder: Path, selection: ArchiveSelection, progress: Progress | None
) -> Manifest:
    with snapshot(ledger) as connection:
        ledger_id, head, schema_version, read_at = one(connection, _SQL["position"])
        chosen = _Chosen(ledger, connection, selection)
        notes = _Notes()
        with TableWriter(folder / archive.EVENTS, archive.EVENT_COLUMNS) as events:
            for event_row in chosen.rows(notes):
                events.add(event_row)
                if progress and notes.n_events % 1_000 == 0:
                    progress("events", notes.n_events)
        # `notes` now has all payloads that the chosen events refer to.
        with TableWriter(folder / archive.PAYLOADS, archive.PAYLOAD_COLUMNS) as contents:
            for number, payload_row in enumerate(_payload_rows(connection, notes), start=1):
                contents.add(payload_row)
                if progress and number % 1_000 == 0:
                    progress("payloads", number)
        if checkpoint := newest_checkpoint(ledger):
            (folder / archive.CHECKPOINT).write_text(checkpoint, "utf-8")
    # All files but the manifest are written; it has their digests and counts.
    counts = ArchiveCounts(
        records=notes.n_streams[Stream.record],
        managers=notes.n_streams[Stream.manager],
        datasets=notes.n_streams[Stream.dataset],
        events=notes.n_events,
        payloads=len(notes.named),
        erased_records=notes.n_erased,
        erased_payloads=len(notes.erased - notes.named.keys()),
    )
    return archive.seal(
        folder,
        Manifest(
            written_by=program(),
            read_at=read_at,
            ledger_id=ledger_id,
            schema_version=schema_version,
            head=head,
            first_position=notes.first,
            last_position=notes.last,
            selection=_selection_json(selection),
            counts=counts,
            event_versions={
                topic: EVENT_TYPES[topic].class_version for topic in sorted(notes.topics)
            },
            not_included=("tokens", "jobs", "payloads of erased records"),
            files={},
        ),
    )


def _selection_json(selection: ArchiveSelection) -> dict[str, Any]:
    if selection.is_everything:
        return {"what": "the whole ledger"}
    told: dict[str, Any] = {"what": "a selection"}
    if selection.record_ids is not None:
        told["records"] = list(selection.record_ids)
    if selection.dataset is not None:
        told["dataset"] = selection.dataset
    return told


@dataclass(slots=True)
class _Notes:
    """What is learnt of the events while they are written."""

    n_events: int = 0
    n_erased: int = 0
    n_streams: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(ARCHIVED, 0))
    first: int = 0
    last: int = 0
    topics: set[str] = field(default_factory=set[str])
    managers: set[int] = field(default_factory=set[int])
    named: dict[bytes, int] = field(default_factory=dict[bytes, int])
    erased: set[bytes] = field(default_factory=set[bytes])
    _history_names: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def take(self, position: int, topic: str, event: Event, version: int, stream: Stream) -> None:
        """Note an event."""
        if version == 1:
            self.end_of_stream()
            self.n_streams[stream] += 1
        self.n_events += 1
        self.first = min(self.first or position, position)
        self.last = max(self.last, position)
        self.topics.add(topic)
        if manager_id := getattr(event, "manager_id", None):
            self.managers.add(manager_id)
        for payload in payloads.named_by(event):
            self._history_names[payload.digest] = payload.size_bytes
        if isinstance(event, Erased):
            self.n_erased += 1
            self.erased.update(self._history_names)
            self._history_names = {}

    def end_of_stream(self) -> None:
        """Note what the stream that has just ended has named."""
        self.named.update(self._history_names)
        self._history_names = {}


class _Chosen:
    """The events of a selection, in the order in which an archive has them."""

    def __init__(
        self, ledger: Ledger, connection: Connection[Any], selection: ArchiveSelection
    ) -> None:
        self._event_of = ledger.event_mapper.event_of
        self._connection = connection
        self._selection = selection

    def rows(self, notes: _Notes) -> Iterator[tuple[Any, ...]]:
        """Give the rows; `notes` are complete when there are no more."""
        for position, originator_id, version, topic, state in self._stored(notes):
            stream, number = stream_number(originator_id)
            event = self._event_of(topic, state)
            notes.take(position, topic, event, version, stream)
            yield (stream.name, number, version, position, topic, state, *event_columns(event))
        notes.end_of_stream()

    def _stored(self, notes: _Notes) -> Iterator[tuple[Any, ...]]:
        if self._selection.is_everything:
            bounds = {
                "first": stream_uuid(ARCHIVED[0], 0),
                "end": UUID(int=(ARCHIVED[-1] + 1) << 64),
            }
            yield from rows_of(self._connection, _SQL["streams"], bounds)
            return
        db = cursor_of(self._connection)
        dataset_ids: list[int] = []
        record_ids = set(self._selection.record_ids or ())
        self._require(record_ids)
        if self._selection.dataset is not None:
            dataset_ids = [datasets.get(db, self._selection.dataset).id]
            found = db.execute(_SQL["records_of_dataset"], {"id": dataset_ids[0]})
            record_ids.update(row[0] for row in found.fetchall())
        record_ids |= families.descendants_of(db, record_ids).descendants(record_ids)
        yield from self._of(Stream.record, record_ids)
        yield from self._of(Stream.manager, notes.managers)
        yield from self._of(Stream.dataset, dataset_ids)

    def _require(self, record_ids: Iterable[int]) -> None:
        for part in _in_parts(sorted(record_ids), _IDS):
            rows = self._connection.execute(
                "SELECT id FROM records WHERE id = ANY(%s::bigint[])", (part,)
            )
            if missing := set(part) - {row[0] for row in rows}:
                raise RecordNotFound(min(missing))

    def _of(self, stream: Stream, numbers: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        for part in _in_parts(sorted(numbers), _IDS):
            ids = [stream_uuid(stream, number) for number in part]
            yield from rows_of(self._connection, _SQL["streams_named"], {"ids": ids})


def _in_parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _payload_rows(connection: Connection[Any], notes: _Notes) -> Iterator[tuple[Any, ...]]:
    """Give the payloads that are named, in the order of digests, some megabytes at a time."""
    db = cursor_of(connection)
    for part in _by_size(notes.named):
        found = db.execute(_SQL["payloads"], {"digests": part}).fetchall()
        if len(found) < len(part):
            missing = min(set(part) - {row[0] for row in found}).hex()
            raise ImpossibleHistory(
                "the ledger", notes.last, f"payload {missing} is referred to, but missing"
            )
        yield from found


def _by_size(named: dict[bytes, int]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    n_bytes = 0
    for digest in sorted(named):
        if part and (n_bytes + named[digest] > _PAYLOAD_BYTES or len(part) >= _PAYLOADS):
            yield part
            part, n_bytes = [], 0
        part.append(digest)
        n_bytes += named[digest]
    if part:
        yield part
