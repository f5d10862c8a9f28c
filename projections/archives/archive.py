"""What an archive is: a folder or a zip file with a few files, each named with its SHA-256.

README.txt         what this is and how to read it without this program
manifest.json      from which ledger, what, how much, and the SHA-256 of each of the others
events.parquet     the events, aggregate by aggregate
payloads.parquet   the bytes that events name, by their SHA-256
checkpoint.txt     the newest signed checkpoint of the log, if the ledger has one
SHA256SUMS         the SHA-256 of all others, as `sha256sum --check` reads it
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from recordledger.domain.errors import ArchiveInvalid, ArchiveUnknown

from .parquet import Type

FORMAT: Final = "recordledger-archive"
FORMAT_VERSION: Final = 1

README: Final = "README.txt"
MANIFEST: Final = "manifest.json"
EVENTS: Final = "events.parquet"
PAYLOADS: Final = "payloads.parquet"
CHECKPOINT: Final = "checkpoint.txt"
SUMS: Final = "SHA256SUMS"
REQUIRED: Final = frozenset({README, MANIFEST, EVENTS, PAYLOADS, SUMS})
ALLOWED: Final = REQUIRED | {CHECKPOINT}

_DESCRIPTION_BYTES_MAX: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 1 << 20
# Of every entry, so that the same contents make the same file: zip knows no earlier time.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
# Of the record that ends a zip file without a comment.
_END_BYTES: Final = 22
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")

EVENT_COLUMNS: Final[Mapping[str, Type]] = {
    "stream": "label",
    "id": "int64",
    "version": "int32",
    "position": "int64",
    "kind": "label",
    "state": "bytes",
    "timestamp": "time",
    "actor": "label",
    "operation_id": "string",
    "action": "label",
    "reason": "string",
    "cause": "int64",
    "undoes": "string",
    "data": "string",
}
PAYLOAD_COLUMNS: Final[Mapping[str, Type]] = {
    "digest": "bytes",
    "size_bytes": "int64",
    "codec": "label",
    "data": "bytes",
}

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Facts(BaseModel):
    """What a file of the archive must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Hash
    size_bytes: int = Field(ge=0)


class ArchiveCounts(BaseModel):
    """How much is in the archive.

    `erased_records` are those of the records that were hard-deleted: of them there are the bare
    events, and `erased_payloads` of the payloads that these name are not there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: int = Field(ge=0)
    managers: int = Field(ge=0)
    datasets: int = Field(ge=0)
    events: int = Field(ge=0)
    payloads: int = Field(ge=0)
    erased_records: int = Field(ge=0)
    erased_payloads: int = Field(ge=0)


class Manifest(BaseModel):
    """What the archive says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["recordledger-archive"] = FORMAT
    format_version: int = FORMAT_VERSION
    written_by: str
    read_at: AwareDatetime
    ledger_id: UUID
    schema_version: int
    head: int
    first_position: int
    last_position: int
    selection: dict[str, Any]
    counts: ArchiveCounts
    event_versions: dict[str, int]
    not_included: tuple[str, ...]
    files: dict[str, Facts]


class Container:
    """The files of an archive, wherever they are; nothing is unpacked."""

    def __init__(self, path: Path) -> None:
        """Look at a folder or a zip file.

        Raises:
            ArchiveUnknown: it is neither, or has other files than an archive.
            ArchiveInvalid: the zip file is damaged.
        """
        self.path = path
        try:
            self._views = dict(_files_of(path) if path.is_dir() else _entries_of(path))
        except (OSError, zipfile.BadZipFile, struct.error, ValueError) as error:
            raise ArchiveUnknown(path.name, f"it is not an archive: {error}") from error
        if MANIFEST not in self._views:
            raise ArchiveUnknown(path.name, f"it is not an archive: {MANIFEST} is missing")
        if missing := REQUIRED - self._views.keys():
            raise ArchiveInvalid(path.name, f"{', '.join(sorted(missing))} is missing")
        if extra := self._views.keys() - ALLOWED:
            raise ArchiveInvalid(path.name, f"{', '.join(sorted(extra))} does not belong to it")

    @property
    def names(self) -> set[str]:
        """The files that are there."""
        return set(self._views)

    def view(self, name: str) -> memoryview:
        """Return the bytes of a file, which are read when they are looked at."""
        return self._views[name]

    def text(self, name: str) -> str:
        """Return a file of the kind that people read.

        Raises:
            ArchiveInvalid: it is too long, or no text.
        """
        view = self.view(name)
        if len(view) > _DESCRIPTION_BYTES_MAX:
            raise ArchiveInvalid(name, f"it has {len(view)} bytes, which is not a valid size")
        try:
            return bytes(view).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArchiveInvalid(name, f"it is not UTF-8 text: {error}") from error

    def facts(self, name: str) -> Facts:
        """Return what a file is."""
        view = self.view(name)
        hashed = sha256()
        for start in range(0, len(view), _CHUNK_BYTES):
            hashed.update(view[start : start + _CHUNK_BYTES])
        return Facts(sha256=hashed.hexdigest(), size_bytes=len(view))


def manifest_of(container: Container) -> tuple[Manifest, str]:
    """Return what an archive says of itself, and its SHA-256, when each file is what it must be.

    Raises:
        ArchiveInvalid: a file is not what the archive says of it.
        ArchiveUnknown: a newer version has written it.
    """
    found = {name: container.facts(name) for name in container.names - {SUMS}}
    if container.text(SUMS) != sums_of(found):
        wrong = _first_wrong(container.text(SUMS), found)
        raise ArchiveInvalid(wrong, f"its SHA-256 differs from the one in {SUMS}: it was changed")
    text = container.text(MANIFEST)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArchiveInvalid(MANIFEST, f"{where}: {first['msg']}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ArchiveUnknown(
            MANIFEST,
            f"the archive has format {manifest.format_version}, and this version reads "
            f"{FORMAT_VERSION}; upgrade recordledger",
        )
    listed = {name: facts for name, facts in found.items() if name != MANIFEST}
    if manifest.files != listed:
        raise ArchiveInvalid(MANIFEST, "the files that it lists differ from those present")
    return manifest, found[MANIFEST].sha256


def sums_of(facts: Mapping[str, Facts]) -> str:
    """Return the file of digests, as `sha256sum` writes it."""
    return "".join(f"{facts[name].sha256}  {name}\n" for name in sorted(facts))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest, README and digests beside the files of a folder; return the manifest."""
    (folder / README).write_text(_README, "utf-8")
    files = {path.name: facts_of(path) for path in sorted(folder.iterdir())}
    manifest = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    every = files | {MANIFEST: facts_of(folder / MANIFEST)}
    (folder / SUMS).write_text(sums_of(every), "utf-8")
    return manifest


def facts_of(path: Path) -> Facts:
    """Return what a file is."""
    hashed, size = sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hashed.update(chunk)
            size += len(chunk)
    return Facts(sha256=hashed.hexdigest(), size_bytes=size)


def program() -> str:
    """Return what has written a file, with its version."""
    return f"recordledger {version('recordledger')}"


def pack(folder: Path, target: Path) -> None:
    """Put the files of a folder into a zip file, as they are, however large they are."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as packed:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, _NO_TIME)
            with path.open("rb") as file, packed.open(entry, "w", force_zip64=True) as inside:
                while chunk := file.read(_CHUNK_BYTES):
                    inside.write(chunk)


def _files_of(folder: Path) -> Iterator[tuple[str, memoryview]]:
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path.name} is not a file")
        yield path.name, _mapped(path)


def _entries_of(path: Path) -> Iterator[tuple[str, memoryview]]:
    """Give the files of a zip file; refuse what `pack` does not write, so that nothing hides."""
    whole = _mapped(path)
    with zipfile.ZipFile(path) as packed:
        place = 0
        names = set[str]()
        for entry in sorted(packed.infolist(), key=lambda each: each.header_offset):
            stored = entry.compress_type == zipfile.ZIP_STORED and entry.flag_bits == 0
            if not stored or entry.file_size != entry.compress_size or entry.filename in names:
                raise ValueError(f"{entry.filename!r} is not stored uncompressed")
            if entry.header_offset != place:
                raise ValueError(f"unexpected bytes before {entry.filename!r}")
            names.add(entry.filename)
            header = whole[place : place + _LOCAL_HEADER.size]
            mark, n_name, n_extra = _LOCAL_HEADER.unpack(header)
            begin = place + _LOCAL_HEADER.size
            name = bytes(whole[begin : begin + n_name])
            if mark != b"PK\x03\x04" or name != entry.filename.encode():
                raise ValueError(f"the header of {entry.filename!r} differs from the directory")
            begin += n_name + n_extra
            place = begin + entry.file_size
            if place > len(whole):
                raise ValueError(f"{entry.filename!r} is truncated")
            yield entry.filename, whole[begin:place]
        ends = len(whole) - _END_BYTES
        if place != packed.start_dir or packed.comment or not _ends_at(whole, ends):
            raise ValueError("unexpected bytes after the last file")


def _ends_at(whole: memoryview, place: int) -> bool:
    return place >= 0 and bytes(whole[place : place + 4]) == b"PK\x05\x06"


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _first_wrong(sums: str, found: Mapping[str, Facts]) -> str:
    lines = set(sums.splitlines())
    for name in sorted(found):
        if f"{found[name].sha256}  {name}" not in lines:
            return name
    return SUMS


_README: Final = """\
ARCHIVE OF A RECORD LEDGER, FORMAT 1

This is a ledger of computations, or a part of one: every change that ever
happened to its records, as it was written down when it happened. It can be read
without the program that wrote it.

Is it whole?  Every file is named in SHA256SUMS with its SHA-256; check with
    sha256sum --check SHA256SUMS
manifest.json says from which ledger this is (ledger_id), at which position of
its log it was read (head, read_at), what was selected, and how much there is.

events.parquet (Apache Parquet) has one row for each event:
    stream        what it happened to: record, manager or dataset
    id            the number of that there
    version       the how manyeth event of that it is: 1, 2, 3, ...
    position      its place in the whole log; sort by it for the order in time
    kind          what happened, such as created, claimed, completed
    timestamp     when, UTC        actor    who        reason   why, if said
    operation_id  what belongs together; undoes is the operation taken back
    action, cause what was asked for; the record because of which it happened
    data          everything else that it says, as JSON
    state         the event itself, as it was stored: a MessagePack map
Rows are in the order of stream (record, manager, dataset), id and version.

payloads.parquet has the bytes that events name by their digest, such as
specifications (JSON), results (JSON), output and messages (UTF-8 text):
    digest        SHA-256 of the bytes before compression (32 bytes)
    size_bytes    their number before compression
    codec         raw: data is the bytes; zstd: data is one frame of Zstandard
    data          the bytes, by codec
A record whose last event is "erased" was destroyed on purpose: its bare events
are here, and payloads that it alone named are not. Secrets (tokens) are never in
an archive, nor is how operations were cut into slices (jobs), hence the gaps
between positions.

checkpoint.txt, if it is there, is a signed statement of what the log was.

The SHA-256 of manifest.json is the name of this archive.
"""
