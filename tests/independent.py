"""A verifier of receipts, written from the specifications alone: it imports nothing of the ledger.

Merkle trees: RFC 9162, section 2.1, by its recursive definitions. Notes: c2sp.org/signed-note.
Checkpoints: c2sp.org/tlog-checkpoint. The bytes of a leaf and the receipt itself: docs/proof.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519


class Forged(Exception):
    """Something does not fit."""


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def largest_power_below(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def merkle_tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1.1, over the hashes of the leaves."""
    n = len(leaves)
    if n == 0:
        return h()
    if n == 1:
        return leaves[0]
    k = largest_power_below(n)
    return h(b"\x01", merkle_tree_hash(leaves[:k]), merkle_tree_hash(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.3.1."""
    n = len(leaves)
    if n == 1:
        return []
    k = largest_power_below(n)
    if m < k:
        return [*path(m, leaves[:k]), merkle_tree_hash(leaves[k:])]
    return [*path(m - k, leaves[k:]), merkle_tree_hash(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], b: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b) of section 2.1.4.1."""
    n = len(leaves)
    if m == n:
        return [] if b else [merkle_tree_hash(leaves)]
    k = largest_power_below(n)
    if m <= k:
        return [*subproof(m, leaves[:k], b), merkle_tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), merkle_tree_hash(leaves[:k])]


def root_by_path(leaf: bytes, m: int, n: int, proof: Sequence[bytes]) -> bytes:
    """The root that PATH(m, D[n]) belongs to, by the same recursion."""
    if n == 1:
        if proof:
            raise Forged("the proof is too long")
        return leaf
    if not proof:
        raise Forged("the proof is too short")
    k = largest_power_below(n)
    if m < k:
        return h(b"\x01", root_by_path(leaf, m, k, proof[:-1]), proof[-1])
    return h(b"\x01", proof[-1], root_by_path(leaf, m - k, n - k, proof[:-1]))


def checkpoint(note: str, vkey: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the key has signed."""
    name, key_id, key = vkey.split("+", 2)
    public = base64.b64decode(key, validate=True)
    if len(public) != 33 or public[0] != 1:
        raise Forged("no Ed25519 key")
    if h(name.encode(), b"\n", public)[:4].hex() != key_id:
        raise Forged("the key has another id")
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        data = base64.b64decode(signature, validate=True)
        if (dash, signer, data[:4].hex()) == ("\u2014", name, key_id):
            try:
                ed25519.Ed25519PublicKey.from_public_bytes(public[1:]).verify(
                    data[4:], (text + "\n").encode()
                )
            except InvalidSignature:
                raise Forged("a wrong signature") from None
            origin, size, root = text.split("\n")
            return origin, int(size), base64.b64decode(root, validate=True)
    raise Forged("not signed by this key")


def verify(receipt: str, vkey: str) -> tuple[int, int]:
    """Return the record and how many of its events are proven to be in the log of this key."""
    content: dict[str, Any] = json.loads(receipt)
    origin, size, root = checkpoint(content["checkpoint"], vkey)
    if origin != f"recordledger/{content['ledger_id']}":
        raise Forged("of another ledger")
    record_id: int = content["record_id"]
    stream = (1).to_bytes(8) + record_id.to_bytes(8)
    for version, event in enumerate(content["events"], start=1):
        if event["version"] != version:
            raise Forged("an event is missing")
        topic = event["topic"].encode()
        leaf = b"".join(
            (
                b"\x01",
                event["position"].to_bytes(8),
                stream,
                version.to_bytes(8),
                len(topic).to_bytes(4),
                topic,
                base64.b64decode(event["state"], validate=True),
            )
        )
        if not 0 <= event["index"] < size:
            raise Forged("no such leaf")
        proof = [base64.b64decode(each, validate=True) for each in event["proof"]]
        if root_by_path(h(b"\x00", leaf), event["index"], size, proof) != root:
            raise Forged("not in the log")
    return record_id, len(content["events"])
