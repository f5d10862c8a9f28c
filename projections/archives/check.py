"""Checking an archive: every file, payload and event, before anything of it is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import msgpack

from recordledger.domain.audit.invariants import Audit
from recordledger.domain.audit.origins import Ids, translated
from recordledger.domain.dataset import DatasetAggregate, EntriesAdded, evolve_dataset
from recordledger.domain.errors import (
    ArchiveInvalid,
    ImpossibleHistory,
    InvalidInput,
    TooLarge,
    UnknownEvent,
    UnreadableEvent,
)
from recordledger.domain.records.events import Commented, Erased, Event, Imported, Outcome, Payload
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.routing.lanes import Lane
from recordledger.domain.routing.manager import ManagerAggregate, evolve_manager
from recordledger.domain.streams import Stream

from ..log.mapper import EventMapper, MsgpackTranscoder
from ..tables import payloads
from . import archive
from .analysis import event_columns
from .archive import ArchiveCounts, Container, Manifest
from .export import ARCHIVED
from .parquet import TableReader, arrow

PAYLOAD_BYTES_MAX: Final = 1024 * 1024 * 1024
"""So large may a payload be, uncompressed; no ledger takes larger ones."""

# Number of events that one audit checks; then another one begins, which does not know their
# records.
_JUDGED: Final = 2_000
_COMPARED: Final = ("timestamp", "actor", "operation_id", "action", "reason", "cause", "undoes")

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

Key = tuple[Stream, int]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """An event as it stands in an archive."""

    stream: Stream
    number: int
    version: int
    position: int
    event: Event


@dataclass(slots=True)
class Contents:
    """What is in an archive that has passed every check.

    Attributes:
        manifest: what it says of itself.
        archive_hash: its name: the SHA-256 of the manifest.
        versions: how many events each aggregate has.
        erased: the records of them that were hard-deleted.
        origins: of those that had been imported there, whence: ledger and number, oldest first.
        lanes: the routing keys that records have in the end.
        named: size of each payload that is needed, by digest.
        newest: when the last of the events happened.
    """

    manifest: Manifest
    archive_hash: str
    versions: dict[Key, int] = field(default_factory=dict[Key, int])
    erased: set[int] = field(default_factory=set[int])
    origins: dict[Key, list[tuple[UUID, int]]] = field(
        default_factory=dict[Key, list[tuple[UUID, int]]]
    )
    lanes: set[Lane] = field(default_factory=set[Lane])
    named: dict[bytes, int] = field(default_factory=dict[bytes, int])
    newest: datetime = _LONG_AGO


def check_archive(path: Path, *, progress: Progress | None = None) -> Contents:
    """Return what is in an archive, if it is whole, unaltered, and a legal history.

    Each file has the digest that it must have. Each event can be read, stands where it belongs,
    and follows on what was before it; no invariant of a history is broken. Each payload that is
    needed is there, with the digest under which it is named, and there is nothing else.

    Raises:
        ArchiveUnknown: it is not an archive, or a newer version has written it.
        ArchiveInvalid: it is not what it must be; the message says where.
        LibraryMissing: PyArrow is not installed.
    """
    arrow()
    container = Container(path)
    manifest, name = archive.manifest_of(container)
    contents = Contents(manifest, name)
    _Check(container, contents, progress).run()
    return contents


def archived_events(container: Container) -> Iterator[ArchivedEvent]:
    """Give the events of an archive in the order in which they stand there.

    Raises:
        ArchiveInvalid: the file, or an event in it, cannot be read.
    """
    event_of = EventMapper(MsgpackTranscoder()).event_of
    for stream, number, version, position, topic, state, *said in rows_in(
        container, archive.EVENTS
    ):
        where = f"event {version} of {stream} {number}"
        try:
            event = event_of(topic, state)
            found = ArchivedEvent(Stream[stream], number, version, position, event)
        except (UnknownEvent, UnreadableEvent, KeyError, TypeError) as error:
            raise ArchiveInvalid(archive.EVENTS, f"{where}: {error}") from error
        if tuple(said[: len(_COMPARED)]) != event_columns(event)[: len(_COMPARED)]:
            raise ArchiveInvalid(archive.EVENTS, f"{where}: its columns differ from its content")
        yield found


def rows_in(container: Container, name: str) -> Iterator[tuple[Any, ...]]:
    """Give the rows of one of the tables of an archive.

    Raises:
        ArchiveInvalid: it cannot be read.
    """
    columns = archive.EVENT_COLUMNS if name == archive.EVENTS else archive.PAYLOAD_COLUMNS
    library = arrow()
    try:
        reader = TableReader(library.core.py_buffer(container.view(name)), columns)
        yield from reader.rows()
    except library.faults as error:
        raise ArchiveInvalid(name, f"it cannot be read: {_first_line(error)}") from error


def contents_of_payload(codec: str, data: bytes, size_bytes: int) -> bytes:
    """Return what a payload is uncompressed; never more than it says that it is.

    Raises:
        ValueError: it is something else than it says.
    """
    if not 0 <= size_bytes <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes exceed the maximum size of a payload")
    try:
        plain = payloads.decompress(data, size_bytes) if codec == "zstd" else data
    except (TooLarge, InvalidInput) as error:
        raise ValueError(str(error)) from error
    if codec not in ("raw", "zstd") or len(plain) != size_bytes:
        raise ValueError(f"it has {len(plain)} bytes ({codec}), and says {size_bytes}")
    return plain


class _Check:
    """One pass over the events, and one over the payloads."""

    def __init__(self, container: Container, contents: Contents, progress: Progress | None) -> None:
        self._container = container
        self._contents = contents
        self._progress = progress
        self._ids = self._numbers()
        self._erased_names = set[bytes]()
        self._texts = set[bytes]()
        self._entries: dict[bytes, int] = {}
        self._n_events = 0
        self._n_judged = 0
        self._audit = Audit()
        self._clear((Stream.record, 0))

    def _numbers(self) -> Ids:
        """Return the archive's own numbers as they are: each stands for itself."""
        of: dict[Stream, dict[int, int]] = {stream: {} for stream in ARCHIVED}
        for event in self._keys():
            of[event[0]][event[1]] = event[1]
        return Ids(
            self._contents.manifest.ledger_id,
            of[Stream.record],
            of[Stream.manager],
            of[Stream.dataset],
        )

    def _keys(self) -> Iterator[Key]:
        library = arrow()
        try:
            buffer = library.core.py_buffer(self._container.view(archive.EVENTS))
            reader = TableReader(buffer, archive.EVENT_COLUMNS)
            for stream, number in reader.rows(["stream", "id"]):
                if stream not in {each.name for each in ARCHIVED} or not 0 < number < 2**63:
                    raise ValueError(f"{stream} {number} is not an aggregate")
                yield Stream[stream], number
        except library.faults as error:
            raise ArchiveInvalid(
                archive.EVENTS, f"it cannot be read: {_first_line(error)}"
            ) from error

    def run(self) -> None:
        """Check everything."""
        contents, counts = self._contents, self._contents.manifest.counts
        for event in archived_events(self._container):
            self._take(event)
            if self._progress and self._n_events % 1_000 == 0:
                self._progress("events", self._n_events, counts.events)
        self._end_of_stream()
        self._judged()
        n_payloads = self._payloads(counts.payloads)
        found = ArchiveCounts(
            records=sum(stream is Stream.record for stream, _ in contents.versions),
            managers=sum(stream is Stream.manager for stream, _ in contents.versions),
            datasets=sum(stream is Stream.dataset for stream, _ in contents.versions),
            events=self._n_events,
            payloads=n_payloads,
            erased_records=len(contents.erased),
            erased_payloads=len(self._erased_names - contents.named.keys()),
        )
        if found != counts:
            raise ArchiveInvalid(archive.MANIFEST, f"it states {counts!r}, but contains {found!r}")

    # Events

    def _clear(self, key: Key) -> None:
        self._key = key
        self._version = 0
        self._position = 0
        self._record = RecordAggregate(key[1])
        self._manager = ManagerAggregate(key[1])
        self._dataset = DatasetAggregate(key[1])
        self._names: dict[bytes, int] = {}

    def _take(self, archived: ArchivedEvent) -> None:
        key = (archived.stream, archived.number)
        if key != self._key:
            self._end_of_stream()
            if key < self._key or key in self._contents.versions:
                raise self._wrong("it is not in the right order", archived)
            self._clear(key)
        if archived.version != self._version + 1:
            raise self._wrong(f"event {self._version + 1} is missing", archived)
        manifest = self._contents.manifest
        if not (
            self._position < archived.position
            and manifest.first_position <= archived.position <= manifest.last_position
        ):
            raise self._wrong(f"it cannot have position {archived.position}", archived)
        self._version, self._position = archived.version, archived.position
        self._n_events += 1
        self._fold(archived)
        self._learn(archived.event)
        if self._n_judged >= _JUDGED and archived.version == 1:
            self._judged()
        self._n_judged += 1
        event = translated(archived.event, self._ids)
        self._audit.feed(self._n_events, *key, archived.version, event)

    def _fold(self, archived: ArchivedEvent) -> None:
        try:
            match archived.stream:
                case Stream.record:
                    self._record = evolve(self._record, archived.event)
                case Stream.manager:
                    self._manager = evolve_manager(self._manager, archived.event)
                case _:
                    self._dataset = evolve_dataset(self._dataset, archived.event)
        except ImpossibleHistory as error:
            raise self._wrong(str(error), archived) from error

    def _learn(self, event: Event) -> None:
        contents = self._contents
        contents.newest = max(contents.newest, event.timestamp)
        for payload in payloads.named_by(event):
            if self._names.setdefault(payload.digest, payload.size_bytes) != payload.size_bytes:
                raise ArchiveInvalid(
                    archive.EVENTS, f"payload {payload.digest.hex()} is listed with two sizes"
                )
        outcome: Outcome | None = getattr(event, "outcome", None)
        said = event.text if isinstance(event, Commented) else outcome and outcome.error_message
        if isinstance(said, Payload):
            self._texts.add(said.digest)
        match event:
            case Imported():
                origin = (event.origin_ledger, event.origin_id)
                contents.origins.setdefault(self._key, []).append(origin)
            case EntriesAdded():
                self._entries[event.inputs.digest] = len(event.names)
            case Erased():
                contents.erased.add(self._key[1])
                self._erased_names.update(self._names)
            case _:
                pass

    def _end_of_stream(self) -> None:
        if not self._version:
            return
        contents, (stream, number) = self._contents, self._key
        contents.versions[self._key] = self._version
        if stream is Stream.record and number in contents.erased:
            return
        if stream is Stream.record:
            contents.lanes.add(Lane(self._record.tag, self._record.required_programs))
        for digest, size in self._names.items():
            if contents.named.setdefault(digest, size) != size:
                raise ArchiveInvalid(
                    archive.EVENTS, f"payload {digest.hex()} is listed with two sizes"
                )

    def _judged(self) -> None:
        """Require that no invariant was broken, and begin again."""
        self._audit.end()
        for finding in self._audit.findings:
            for breach in finding.breaches:
                raise ArchiveInvalid(archive.EVENTS, f"{finding.name}: {breach}")
        self._audit, self._n_judged = Audit(), 0

    def _wrong(self, what: str, archived: ArchivedEvent) -> ArchiveInvalid:
        where = f"event {archived.version} of {archived.stream.name} {archived.number}"
        return ArchiveInvalid(archive.EVENTS, f"{where}: {what}")

    # Payloads

    def _payloads(self, n_all: int) -> int:
        named = self._contents.named
        n_found, last = 0, b""
        for digest, size, codec, data in rows_in(self._container, archive.PAYLOADS):
            where = f"payload {bytes(digest).hex()}"
            if digest <= last or named.get(digest) != size:
                raise ArchiveInvalid(archive.PAYLOADS, f"{where} does not belong there")
            try:
                plain = contents_of_payload(codec, data, size)
                if sha256(plain).digest() != digest:
                    raise ValueError("its SHA-256 does not match the content")  # noqa: TRY301
                self._require_readable(digest, plain)
            except ValueError as error:
                raise ArchiveInvalid(archive.PAYLOADS, f"{where}: {error}") from error
            n_found, last = n_found + 1, digest
            if self._progress and n_found % 1_000 == 0:
                self._progress("payloads", n_found, n_all)
        if n_found < len(named):
            raise ArchiveInvalid(archive.PAYLOADS, f"{len(named) - n_found} payloads are missing")
        return n_found

    def _require_readable(self, digest: bytes, plain: bytes) -> None:
        """Raise a ValueError if a payload that the tables are made of cannot be read."""
        if digest in self._texts:
            plain.decode()
        if digest in self._entries:
            try:
                found: Iterable[Any] = cast("Iterable[Any]", msgpack.unpackb(plain))
                pairs = [tuple(cast("Iterable[Any]", each)) for each in found]
            except (TypeError, msgpack.UnpackException) as error:
                raise ValueError(f"its entries cannot be read: {error}") from error
            if len(pairs) != self._entries[digest] or {len(pair) for pair in pairs} - {2}:
                raise ValueError("its entries differ from those listed")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
