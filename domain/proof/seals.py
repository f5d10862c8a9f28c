"""Seals: what of an event is hashed, and the checkpoints that say what the log was.

A checkpoint is a note in the format c2sp.org/tlog-checkpoint: the ledger's name, how many events
there were, and the root of the Merkle tree over them.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ..errors import NoteBroken
from .merkle import HASH_BYTES
from .notes import SigningKey, VerifierKey, open_note, sign_note

# Version of this form, position, stream, version in the stream, length of the topic; then topic
# and state. Of numbers the most significant byte is first. The statement `hash` in seals.sql has
# the same once more.
_LEAF: Final = struct.Struct(">Bq16sqI")
_FORM: Final = 1
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def leaf_of(position: int, originator_id: UUID, version: int, topic: str, state: bytes) -> bytes:
    """Return the bytes of an event that are hashed: every column of its row in the log.

    >>> leaf_of(7, UUID(int=1 << 64 | 411), 2, "claimed", b"...").hex()[:18]
    '010000000000000007'

    Raises:
        ValueError: a number is no bigint, or the topic is no Unicode.
    """
    name = topic.encode()
    try:
        head = _LEAF.pack(_FORM, position, originator_id.bytes, version, len(name))
    except struct.error as error:
        raise ValueError(str(error)) from error
    return head + name + state


def origin_of(ledger_id: UUID) -> str:
    """Return the name under which a ledger signs."""
    return f"recordledger/{ledger_id}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log was: the first `size` events have this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    def signed(self, *keys: SigningKey) -> str:
        """Return it as a note with the signatures of these keys."""
        return sign_note(self.text, *keys)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint that a note's text is.

        Raises:
            NoteBroken: it is not a checkpoint, or not in the form that a ledger writes.
        """
        lines = text.split("\n")
        if len(lines) != 4 or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise NoteBroken(
                "the note is not a checkpoint: expected a name, a number of events and a root"
            )
        try:
            root = b64decode(lines[2], validate=True)
        except ValueError:
            root = b""
        found = cls(lines[0], int(lines[1]), root)
        if len(root) != HASH_BYTES or found.text != text:
            raise NoteBroken("the checkpoint's root is not a SHA-256 hash")
        return found

    @classmethod
    def open(cls, note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
        """Return the checkpoint of a note that one of these keys has signed.

        Raises:
            NoteBroken: it is not a checkpoint, or not signed by them, or not in its own name.
        """
        text, signers = open_note(note, keys)
        found = cls.parse(text)
        if all(key.name != found.origin for key in signers):
            raise NoteBroken(
                f"the checkpoint's origin is {found.origin}, but another name signed it"
            )
        return found
