"""Idempotency keys: the same request, sent again, has one effect and gets the same answer.

The answer is stored in the transaction that has the effect. So a client that lost the connection
sends the request again with the same key, and the command is either carried out now, or answered as
it was the first time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from recordledger.domain.errors import IdempotencyConflict

from ..store.database import Db
from ..store.statements import statements
from .payloads import compress, decompress

_SQL = statements("tables.idempotency")
_ANSWER_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What identifies a request: who sent it, under which key, and the SHA-256 of what it asks."""

    actor: str
    key: str
    request_hash: bytes


class StoredAnswer(NamedTuple):
    """The answer that a request got before; it may be None."""

    answer: Any


def find(db: Db, request: RequestKey) -> StoredAnswer | None:
    """Return the answer that this request got before; None if it is new.

    Raises:
        IdempotencyConflict: the key was used for something else.
    """
    row = db.execute(
        _SQL["find"], {"actor": request.actor, "key": request.key}, prepare=True
    ).fetchone()
    if row is None:
        return None
    request_hash, answer = row
    if request_hash != request.request_hash:
        raise IdempotencyConflict(request.key)
    data = answer[1:] if answer[:1] == b"r" else decompress(answer[1:], _ANSWER_BYTES_MAX)
    return StoredAnswer(msgpack.unpackb(data, timestamp=3, strict_map_key=False))


def keep(db: Db, request: RequestKey, answer: Any) -> None:
    """Store the answer, to be there if and only if the transaction commits.

    Raises:
        psycopg.errors.UniqueViolation: the same request was being served at the same time, and
            the other one was first.
    """
    codec, data = compress(msgpack.packb(answer, datetime=True))
    parameters = {
        "actor": request.actor,
        "key": request.key,
        "request_hash": request.request_hash,
        "answer": codec[:1].encode() + data,
    }
    db.execute(_SQL["keep"], parameters, prepare=True)


def forget(db: Db, older_than_s: float, limit: int) -> int:
    """Forget at most `limit` answers older than this; return how many there were."""
    return db.execute(_SQL["forget"], {"older_than_s": older_than_s, "limit": limit}).rowcount
