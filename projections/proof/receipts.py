"""Receipts: the history of a record, with the proof that it is in the log, in one file.

A receipt is JSON, and verifying it takes neither server nor database. Its text is a function of the
events, the proofs, the checkpoint and the key alone; so the verifier writes it again from these and
compares, and no byte of it can change unnoticed.
"""

from __future__ import annotations

import contextlib
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Annotated, Any, Final, Literal, cast
from uuid import UUID

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recordledger.domain.errors import (
    ImpossibleHistory,
    InvalidInput,
    NoteBroken,
    NotSealedYet,
    ProofBroken,
    ReceiptBroken,
    RecordNotFound,
    SealBroken,
    UnknownEvent,
    UnreadableEvent,
)
from recordledger.domain.proof.merkle import PROOF_HASHES_MAX, leaf_hash, root_from_inclusion
from recordledger.domain.proof.notes import VerifierKey, split_note, written
from recordledger.domain.proof.seals import Checkpoint, leaf_of, origin_of
from recordledger.domain.records.events import Payload
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.records.status import Status
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.specs.fingerprint import digest_of
from recordledger.domain.streams import ID_MAX, Stream, stream_uuid

from ..ledger import Ledger
from ..log.mapper import EventMapper, MsgpackTranscoder
from ..reading.queries import ledger_id
from ..store.statements import statements
from .seals import keys_of, newest_seal, prove_inclusion

_SQL: Final = statements("proof.seals")
FORMAT: Final = "recordledger-receipt/1"
RECEIPT_BYTES_MAX: Final = 256 * 1024 * 1024
_MAPPER: Final = EventMapper(MsgpackTranscoder())

_Number = Annotated[int, Field(ge=0, le=ID_MAX)]


class _ReceiptEvent(BaseModel):
    """An event in a receipt. `says` is `state` for people to read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    index: _Number
    position: _Number
    version: Annotated[int, Field(ge=1, le=ID_MAX)]
    topic: str
    state: str
    says: Any
    proof: Annotated[list[str], Field(max_length=PROOF_HASHES_MAX)]


class _Receipt(BaseModel):
    """A receipt as JSON has it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["recordledger-receipt/1"]
    ledger_id: str
    record_id: Annotated[int, Field(ge=1, le=ID_MAX)]
    status: str | None
    result: Any
    events: Annotated[list[_ReceiptEvent], Field(min_length=1)]
    checkpoint: str
    key: str


@dataclass(frozen=True, slots=True)
class _Proven:
    """An event as the log has it, its place in the tree, and what proves that."""

    index: int
    position: int
    version: int
    topic: str
    state: bytes
    proof: list[bytes]


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves.

    These are the events of the record with the versions 1 to `n_events`, and they are among the
    first `n_sealed` events of the ledger that holds the key. It does not prove that nothing has
    happened to the record since.

    Attributes:
        ledger_id: which ledger.
        record_id: which of its records.
        status: what the record was after these events; None if it was erased.
        result: the digest of the record's result, in hex, if it has one.
        n_events: how many events it has.
        changed_at: when the last of them happened, as the ledger says.
        n_sealed: how many events the checkpoint seals.
        key: the public key, as text.
        key_is_given: whether the verifier gave the key; or else it is from the receipt itself,
            which then proves nothing to those who do not know the key.
        result_is_checked: whether a result was given, and is the one that the events name.
    """

    ledger_id: UUID
    record_id: int
    status: Status | None
    result: str | None
    n_events: int
    changed_at: datetime
    n_sealed: int
    key: str
    key_is_given: bool
    result_is_checked: bool

    def __str__(self) -> str:
        """Return what is proven, as lines."""
        what = f"a result with SHA-256 {self.result}" if self.result else "no result"
        lines = [
            f"record {self.record_id} of ledger {self.ledger_id}",
            f"{self.status or 'erased'}, {what}",
            f"{self.n_events} events, the last at {self.changed_at:%Y-%m-%d %H:%M:%S} UTC, all "
            f"among the first {self.n_sealed:,} that the ledger has sealed",
        ]
        if self.result_is_checked:
            lines.append("the given result is that result")
        if self.key_is_given:
            lines.append(f"signed by {self.key}, the given key")
        else:
            lines.append(
                f"signed by {self.key}, WHICH IS FROM THE RECEIPT ITSELF: compare it with the "
                "ledger's key, or pass that key"
            )
        return "\n".join(lines)


def make_receipt(ledger: Ledger, record_id: int) -> str:
    """Return the receipt of a record: its history, with the proof of it.

    Raises:
        RecordNotFound: there was never such a record.
        NotSealedYet: its newest events wait for the next seal.
        SealBroken: its events are not what was sealed.
    """
    name = ledger_id(ledger)
    stream = stream_uuid(Stream.record, record_id)
    with ledger.datastore.reading() as db:
        rows = db.execute(_SQL["history"], {"id": stream}, prepare=True).fetchall()
    if not rows:
        raise RecordNotFound(record_id)
    seal = newest_seal(ledger)
    sealed = 0 if seal is None else seal.position
    if seal is None or rows[-1][0] > sealed:
        raise NotSealedYet(record_id, rows[-1][0], sealed)
    leaves = {
        position: leaf_hash(leaf_of(position, stream, version, topic, state))
        for position, version, topic, state in rows
    }
    with ledger.datastore.reading() as db:
        proofs = prove_inclusion(db, leaves, seal.size)
    proven = [
        _Proven(index, position, version, topic, state, proof)
        for (position, version, topic, state), (index, proof) in zip(rows, proofs, strict=True)
    ]
    note, key = _signed_by_one(seal.note, keys_of(ledger))
    return _text(name, record_id, _folded(record_id, proven), proven, note, key)


def _signed_by_one(note: str, keys: Iterable[VerifierKey]) -> tuple[str, str]:
    """Return a note with the first of its signatures only, and the public key of that.

    A reader with this key alone could not see whether another signature was changed.
    """
    text, [first, *_] = split_note(note)
    for key in keys:
        if (key.name, key.id) == (first.name, first.key_id):
            return written(text, [first]), str(key)
    raise SealBroken("the newest seal is signed with a key that the database does not know")


def verify_receipt(
    receipt: str | bytes,
    *,
    key: str | None = None,
    result: bytes | None = None,
) -> VerifiedReceipt:
    """Check a receipt, offline; return what it proves.

    Args:
        receipt: the text of the file.
        key: the ledger's public key, as `recordledger seal --public-key` prints it, from a place
            that one trusts. Without it the receipt's own is taken.
        result: the record's result, if that is to be checked too: JSON in any layout, or the bytes
            themselves.

    Raises:
        ReceiptBroken: it is not what a ledger has written, not of this key, or not of this result.
        NoteBroken: the given key is malformed.
    """
    given = None if key is None else VerifierKey.parse(key.strip())
    text, parsed = _parsed(receipt)
    try:
        return _verified(text, parsed, given, result)
    except (ProofBroken, NoteBroken, ImpossibleHistory, UnknownEvent, UnreadableEvent) as error:
        raise ReceiptBroken(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ReceiptBroken(
            f"its form differs from the one that a ledger writes ({error})"
        ) from error


def _parsed(receipt: str | bytes) -> tuple[str, _Receipt]:
    if len(receipt) > RECEIPT_BYTES_MAX:
        raise ReceiptBroken(f"it is longer than {RECEIPT_BYTES_MAX} bytes")
    try:
        text = receipt if isinstance(receipt, str) else receipt.decode()
        return text, _Receipt.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ReceiptBroken(f"it is not a receipt: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ReceiptBroken(f"it cannot be read: {error}") from error


def _verified(
    text: str, receipt: _Receipt, given: VerifierKey | None, result: bytes | None
) -> VerifiedReceipt:
    own = VerifierKey.parse(receipt.key)
    if given is not None and given != own:
        raise ReceiptBroken(f"it is signed with {own}, not with {given}")
    checkpoint = Checkpoint.open(receipt.checkpoint, [own])
    name = UUID(receipt.ledger_id)
    if checkpoint.origin != origin_of(name):
        raise ReceiptBroken(f"the checkpoint's origin is {checkpoint.origin}")
    stream = stream_uuid(Stream.record, receipt.record_id)
    proven = [
        _Proven(
            each.index,
            each.position,
            each.version,
            each.topic,
            b64decode(each.state, validate=True),
            [b64decode(one, validate=True) for one in each.proof],
        )
        for each in receipt.events
    ]
    for number, each in enumerate(proven, start=1):
        if each.version != number:
            raise ReceiptBroken(f"event {number} of the record is missing")
        leaf = leaf_hash(leaf_of(each.position, stream, each.version, each.topic, each.state))
        root = root_from_inclusion(leaf, each.index, checkpoint.size, each.proof)
        if root != checkpoint.root:
            raise ReceiptBroken(
                f"event {number} is not in the log: its proof leads to another root"
            )
    # All events are proven to be in the sealed log, from the first one without a gap.
    record = _folded(receipt.record_id, proven)
    # What is left can only differ in what is derived from all this, or in how it is written.
    again = _text(name, receipt.record_id, record, proven, receipt.checkpoint, receipt.key)
    if again != text:
        raise ReceiptBroken(f"it was changed: {_difference(again, text)}")
    digest = None if record.outcome is None else record.outcome.result
    if result is not None:
        _require_result(digest, result)
    assert record.modified_at is not None  # noqa: S101 - it has an event
    return VerifiedReceipt(
        ledger_id=name,
        record_id=receipt.record_id,
        status=record.status,
        result=None if digest is None else digest.digest.hex(),
        n_events=len(proven),
        changed_at=record.modified_at,
        n_sealed=checkpoint.size,
        key=receipt.key,
        key_is_given=given is not None,
        result_is_checked=result is not None,
    )


def _folded(record_id: int, proven: Iterable[_Proven]) -> RecordAggregate:
    return fold(record_id, (_MAPPER.event_of(each.topic, each.state) for each in proven))


def _require_result(named: Payload | None, result: bytes) -> None:
    """Return if these bytes are the result, or are the same JSON in another layout."""
    if named is None:
        raise ReceiptBroken("the record has no result")
    digests = {digest_of(result)}
    with contextlib.suppress(ValueError, RecursionError, InvalidInput):
        digests.add(digest_of(canonical_json(json.loads(result))))
    if named.digest not in digests:
        raise ReceiptBroken(
            f"the given result is not the record's, which has the SHA-256 {named.digest.hex()}"
        )


def _text(
    name: UUID,
    record_id: int,
    record: RecordAggregate,
    proven: Iterable[_Proven],
    note: str,
    key: str,
) -> str:
    """Return a receipt as it is written, in the one right way."""
    result = None if record.outcome is None else record.outcome.result
    content = {
        "format": FORMAT,
        "ledger_id": str(name),
        "record_id": record_id,
        "status": record.status,
        "result": result and {"sha256": result.digest.hex(), "size_bytes": result.size_bytes},
        "events": [
            {
                "index": each.index,
                "position": each.position,
                "version": each.version,
                "topic": each.topic,
                "state": b64encode(each.state).decode(),
                "says": _readable(msgpack.unpackb(each.state, timestamp=3)),
                "proof": [b64encode(one).decode() for one in each.proof],
            }
            for each in proven
        ],
        "checkpoint": note,
        "key": key,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _readable(value: Any) -> Any:
    """Return what the state of an event says, as JSON can have it.

    It depends on the bytes alone, and not on what this version makes of them.
    """
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            members = cast("Mapping[Any, Any]", value)
            return {str(key): _readable(item) for key, item in members.items()}
        case list():
            items = cast("Sequence[Any]", value)
            return [_readable(item) for item in items]
        case _:
            return value


def _difference(expected: str, found: str) -> str:
    """Return in which line two texts differ first."""
    lines = zip_longest(expected.split("\n"), found.split("\n"))
    for number, (should, does) in enumerate(lines, start=1):
        if should != does:
            return f"line {number} should be {_short(should)}, but is {_short(does)}"
    return "it is the same"  # pragma: no cover - nobody asks then


def _short(line: str | None) -> str:
    return "missing" if line is None else repr(line.strip()[:120])
