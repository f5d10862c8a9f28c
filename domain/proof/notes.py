"""Signed notes as in c2sp.org/signed-note: texts with lines of signatures below, and their keys.

Only Ed25519 is known here. Signatures of keys that one does not know are passed over, as the
specification wants; a wrong signature of a known key spoils the note.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import NoteBroken

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_SECRET: Final = "PRIVATE+KEY+"  # noqa: S105 - how the text of such a key begins
_DASH: Final = "\u2014 "
_NAME: Final = re.compile(r"[^\s+\x00-\x1f]+")
_ID: Final = re.compile(r"[0-9a-f]{8}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
SIGNATURES_MAX: Final = 100
NOTE_CHARACTERS_MAX: Final = 1_000_000


class Signature(NamedTuple):
    """A line below a note: who has signed, by name and key id, and the signature itself."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a key, and the name that it signs for."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that distinguish keys of one name."""
        return _key_id(self.name, self.public)

    def __str__(self) -> str:
        """Return the key as text, to be given to those who check: name+id+key."""
        return f"{self.name}+{self.id.hex()}+{_encoded(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Return the key that a text is.

        Raises:
            NoteBroken: the text is malformed.
        """
        name, public = _parse_key(text, "key")
        return cls(name, public)

    def has_signed(self, text: str, signature: bytes) -> bool:
        """Return whether this is the key's signature of the text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The secret half of a key, and the name that it signs for."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        public = self._key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return VerifierKey(self.name, public)

    @property
    def secret(self) -> str:
        """The key as text, to be kept and shown to nobody."""
        return f"{_SECRET}{self.name}+{self.verifier.id.hex()}+{_encoded(_ED25519 + self.seed)}"

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Return the key that a text is.

        Raises:
            NoteBroken: the text is malformed.
        """
        if not text.startswith(_SECRET):
            raise NoteBroken("the text is not a secret key of a signed note")
        name, key_id, seed = _parts(text.removeprefix(_SECRET), "secret key")
        key = cls(name, seed)
        if key.verifier.id != key_id:
            raise NoteBroken("the secret key is damaged: its key id does not match the key")
        return key

    def sign(self, text: str) -> bytes:
        """Return the signature of a text."""
        return self._key().sign(text.encode())

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def sign_note(text: str, *keys: SigningKey) -> str:
    """Return the note with this text, which ends with its line, signed by these keys.

    Raises:
        NoteBroken: a note cannot have this text.
    """
    lines = [
        Signature(key.name, key.verifier.id, key.sign(text)) for key in keys if _is_name(key.name)
    ]
    note = written(text, lines)
    if split_note(note) != (text, lines):
        raise NoteBroken("a signed note's text must be printable and end with a newline")
    return note


def written(text: str, signatures: Iterable[Signature]) -> str:
    """Return a note out of its text and its signatures."""
    lines = (
        f"{_DASH}{each.name} {_encoded(each.key_id + each.signature)}\n" for each in signatures
    )
    return f"{text}\n{''.join(lines)}"


def split_note(note: str) -> tuple[str, list[Signature]]:
    """Return the text of a note, with the end of its last line, and the signatures below it.

    Raises:
        NoteBroken: it is not a signed note.
    """
    if len(note) > NOTE_CHARACTERS_MAX or _CONTROL.search(note):
        raise NoteBroken("the note is too long, or has control characters")
    text, gap, below = note.rpartition("\n\n")
    lines = below.split("\n")
    if not gap or not text or lines.pop() or not 0 < len(lines) <= SIGNATURES_MAX:
        raise NoteBroken("the note must be a text, an empty line and signatures")
    return text + "\n", [_parse_line(line) for line in lines]


def open_note(note: str, keys: Iterable[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """Return the text of a note, and which of the keys have signed it.

    Raises:
        NoteBroken: it is not a signed note, none of these keys has signed it, or the signature of
            one of them is wrong.
    """
    text, signatures = split_note(note)
    known = {(key.name, key.id): key for key in keys}
    signers: list[VerifierKey] = []
    for each in signatures:
        key = known.get((each.name, each.key_id))
        if key is None:
            continue
        if not key.has_signed(text, each.signature):
            raise NoteBroken(f"the signature of {key} does not match: the note was changed")
        signers.append(key)
    if not signers:
        names = ", ".join(str(key) for key in known.values()) or "nobody"
        raise NoteBroken(f"the note is not signed by {names}")
    return text, signers


def _parse_line(line: str) -> Signature:
    name, _, signature = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _is_name(name):
        raise NoteBroken("malformed signature line: expected `— name base64`")
    data = _decoded(signature)
    if len(data) <= 4:
        raise NoteBroken("a signature of the note is truncated")
    return Signature(name, data[:4], data[4:])


def _parse_key(text: str, what: str) -> tuple[str, bytes]:
    name, key_id, public = _parts(text, what)
    if key_id != _key_id(name, public):
        raise NoteBroken(f"the {what} is damaged: its key id does not match the key")
    return name, public


def _parts(text: str, what: str) -> tuple[str, bytes, bytes]:
    """Return name, id and bytes of a key."""
    # Base64 may have a plus of its own.
    parts = text.split("+", 2)
    if len(parts) != 3 or not _is_name(parts[0]) or not _ID.fullmatch(parts[1]):
        raise NoteBroken(f"the {what} must have the form name+id+base64")
    data = _decoded(parts[2])
    if data[:1] != _ED25519 or len(data) != 1 + _KEY_BYTES:
        raise NoteBroken(f"the {what} is not an Ed25519 key")
    return parts[0], bytes.fromhex(parts[1]), data[1:]


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()


def _decoded(text: str) -> bytes:
    """Return the bytes of base64 that is written in the one right way."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not text or _encoded(data) != text:
        raise NoteBroken("malformed base64 in the note or key")
    return data
