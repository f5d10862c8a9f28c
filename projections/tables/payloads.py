"""Payloads: bytes outside the log, stored once by the SHA-256 of what they are uncompressed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from threading import local
from typing import Any, Final, TypeAlias, get_args

import zstandard

from recordledger.domain.admin.job import JobCancelled, JobFinished
from recordledger.domain.aggregates import EVENT_TYPES
from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Outcome, Payload
from recordledger.domain.specs.fingerprint import digest_of
from recordledger.domain.streams import Stream

from ..store.database import Db
from ..store.statements import statements
from .changes import Changes, SharedChanges
from .table import Owner, ProjectionTable

_SQL = statements("tables.payloads")

# Below this, a frame's header eats what compression saves.
COMPRESS_BYTES_MIN: Final = 256
_LEVEL: Final = 3
_CHUNK_BYTES: Final = 1 << 16

# What these refer to, nothing refers to any more because of them.
_RELEASING: Final = (JobFinished, JobCancelled)


def _holds_payloads(annotation: Any) -> bool:
    return annotation in (Payload, Outcome) or any(map(_holds_payloads, get_args(annotation)))


# The events that name payloads.
_NAMING: Final[frozenset[type[Event]]] = frozenset(
    event_type
    for event_type in EVENT_TYPES.values()
    if event_type not in _RELEASING
    and any(_holds_payloads(field.annotation) for field in event_type.model_fields.values())
)

# Held shared by a transaction that stores payloads, and alone by a transaction that destroys some:
# what is about to be named again is not destroyed.
_ERASURE_LOCK: Final = 7_301_956_004

_threads = local()


def payload_of(data: bytes) -> Payload:
    """Return the reference under which these bytes are stored."""
    return Payload(digest=digest_of(data), size_bytes=len(data))


def compress(data: bytes) -> tuple[str, bytes]:
    """Return the codec and the stored form: compressed where that pays, else as it is."""
    if len(data) >= COMPRESS_BYTES_MIN:
        if not hasattr(_threads, "compressor"):
            _threads.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        compressor: zstandard.ZstdCompressor = _threads.compressor
        small = compressor.compress(data)
        if len(small) < len(data):
            return "zstd", small
    return "raw", data


def decompress(data: bytes, size_bytes_max: int) -> bytes:
    """Return the bytes of one zstd frame, and never more than the limit.

    The size that the frame declares is read first, and the stream is read with a running cap: a
    few bytes can claim to be, or become, gigabytes.

    Raises:
        TooLarge: it is, or says it is, over the limit.
        InvalidInput: it is not a complete zstd frame.
    """
    try:
        declared = zstandard.frame_content_size(data)
        if declared > size_bytes_max:
            raise TooLarge("the compressed data", declared, size_bytes_max, "body_bytes_max")
        out = bytearray()
        window = max(size_bytes_max, 1 << 23)
        # Across frames, so that what comes after the first is not passed over in silence.
        with zstandard.ZstdDecompressor(max_window_size=window).stream_reader(
            io.BytesIO(data), read_across_frames=True
        ) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                out += chunk
                if len(out) > size_bytes_max:
                    raise TooLarge(
                        "the compressed data", len(out), size_bytes_max, "body_bytes_max"
                    )
    except zstandard.ZstdError as error:
        raise InvalidInput(f"the body is not a zstd frame: {error}") from error
    if declared not in (-1, len(out)):
        raise InvalidInput("the zstd frame is truncated; send the body again")
    return bytes(out)


def store(db: Db, contents: Mapping[bytes, bytes]) -> set[bytes]:
    """Store these contents, by digest; return the digests that were not there before."""
    if not contents:
        return set()
    digests = sorted(contents)
    stored = [compress(contents[digest]) for digest in digests]
    parameters = {
        "lock": _ERASURE_LOCK,
        "digests": digests,
        "sizes": [len(contents[digest]) for digest in digests],
        "codecs": [codec for codec, _ in stored],
        "datas": [data for _, data in stored],
    }
    return {row[0] for row in db.execute(_SQL["insert"], parameters, prepare=True)}


def store_as_they_are(db: Db, rows: Sequence[tuple[bytes, int, str, bytes]]) -> None:
    """Store payloads that come as another ledger has stored them: digest, size, codec, data.

    The caller has checked that each is what its digest says, and passes them in the order of
    digests.
    """
    digests, sizes, codecs, datas = map(list[Any], zip(*rows, strict=True))
    parameters = {
        "lock": _ERASURE_LOCK,
        "digests": digests,
        "sizes": sizes,
        "codecs": codecs,
        "datas": datas,
    }
    db.execute(_SQL["insert"], parameters, prepare=True)


def keep(db: Db, data: bytes) -> Payload:
    """Store one content; return its reference."""
    payload = payload_of(data)
    store(db, {payload.digest: data})
    return payload


def lock(db: Db, digests: Iterable[bytes]) -> None:
    """Hold payloads until the end of the transaction."""
    if wanted := sorted(digests):
        db.execute(_SQL["lock"], {"digests": wanted}, prepare=True)


def load(db: Db, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the contents of payloads, uncompressed, by digest; destroyed ones are left out."""
    wanted = sorted(set(digests))
    if not wanted:
        return {}
    rows = db.execute(_SQL["get"], {"digests": wanted}, prepare=True).fetchall()
    return {
        digest: data if codec == "raw" else decompress(data, size_bytes)
        for digest, size_bytes, codec, data in rows
    }


def sizes(db: Db, digests: Iterable[bytes]) -> dict[bytes, int]:
    """Return the sizes of payloads in bytes, uncompressed; destroyed ones are left out."""
    wanted = sorted(set(digests))
    return dict(db.execute(_SQL["sizes"], {"digests": wanted}, prepare=True)) if wanted else {}


def text_of(text: Payload | str | None, texts: Mapping[bytes, str]) -> str | None:
    """Return what a message or comment says; None if it was destroyed, or if there is none.

    Args:
        text: as an event has it: a reference, or the text itself if the event is old.
        texts: what the references stand for, by digest.
    """
    return text if text is None or isinstance(text, str) else texts.get(text.digest)


def texts(db: Db, said_in: Iterable[Payload | str | None]) -> dict[bytes, str]:
    """Return what messages and comments say, by digest; destroyed ones are left out."""
    digests = {text.digest for text in said_in if isinstance(text, Payload)}
    return {digest: data.decode() for digest, data in load(db, digests).items()}


def named_by(event: Event) -> tuple[Payload, ...]:
    """Return the payloads that an event refers to."""
    found: list[Payload] = []
    for value in vars(event).values():
        # The very types: asking whether it is an instance takes as long as all the rest.
        if type(value) is Payload:
            found.append(value)
        elif type(value) is Outcome:
            found += value.payloads
    if type(event) is e.Created:
        found += event.refers_to or ()
    return tuple(found)


Reference: TypeAlias = tuple[bytes, int, int]
"""A digest, and the aggregate that names it: the kind of its stream, and its number."""


def references(db: Db, changes: Changes) -> set[Reference]:
    """Return which payloads the events name; what erased records name does not count."""
    erased = changes.erased
    return {
        (payload.digest, int(recorded.stream), recorded.number)
        for recorded in changes.happened
        if type(recorded.event) in _NAMING
        and not (recorded.stream is Stream.record and recorded.number in erased)
        for payload in named_by(recorded.event)
    }


def write(db: Db, changes: Changes) -> None:
    """Note which payloads the events name; destroy what nobody names any more.

    A replay destroys nothing: what its events gave up, later ones may have named again.
    """
    found = references(db, changes)
    released = {
        (recorded.event.released.digest, int(recorded.stream), recorded.number)
        for recorded in changes.happened
        if isinstance(recorded.event, _RELEASING) and recorded.event.released is not None
    }
    if named := sorted(found - released):
        db.execute(_SQL["refer"], _arrays(named), prepare=True)
    gone = [after.id for before, after in changes.records if before.exists and not after.exists]
    # What is named and released at once, as in a replay, was never there to be forgotten.
    no_more = sorted(released - found)
    if changes.destroys and (gone or no_more):
        db.execute(_SQL["lock_for_erasure"], {"lock": _ERASURE_LOCK})
    given_up: set[bytes] = set()
    if no_more:
        given_up.update(row[0] for row in db.execute(_SQL["release"], _arrays(no_more)))
    if gone:
        given_up.update(row[0] for row in db.execute(_SQL["forget"], {"record_ids": gone}))
    if changes.destroys and given_up:
        db.execute(_SQL["destroy"], {"digests": sorted(given_up)})


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Note which payloads events name that many records share."""
    named: set[Reference] = set()
    for event, ids, _, outcomes in changes.events:
        own = [each.payloads for each in outcomes] or [named_by(event)] * len(ids)
        for record_id, found in zip(ids, own, strict=True):
            named.update((payload.digest, int(Stream.record), record_id) for payload in found)
    if named:
        db.execute(_SQL["refer"], _arrays(sorted(named)), prepare=True)


TABLE: Final = ProjectionTable(
    name="payload_references",
    key=("digest", "stream", "number"),
    owner=Owner("number", stream=None),
    events=_NAMING | {e.Erased, *_RELEASING},
    write=write,
    write_shared=write_shared,
    columns={"digest": "bytea", "stream": "smallint", "number": "bigint"},
    rows=references,
    key_last=True,
)


def _arrays(found: Sequence[Reference]) -> dict[str, list[Any]]:
    digests, streams, numbers = map(list[Any], zip(*found, strict=True))
    return {"digests": digests, "streams": streams, "numbers": numbers}
