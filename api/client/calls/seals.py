"""Proofs, as operations: receipts of records, checkpoints, and how two of these agree."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...schemas.proofs import ConsistencyAnswer
from .. import exchange, wire
from ..errors import InvalidArgument, ServerFault
from ..exchange import Operation, Session


@dataclass(frozen=True, slots=True)
class Receipt:
    """The history of a record with its proof, as text; keep it byte for byte.

    `recordledger verify` checks it, and so does `verify_receipt` of the module
    `recordledger.projections.proof.receipts`: neither needs a server.
    """

    record_id: int
    text: str = field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        """What the text says, before anything is checked."""
        return cast("dict[str, Any]", json.loads(self.text))

    def save(self, path: str | Path) -> Path:
        """Write it to a file; return the path."""
        path = Path(path)
        path.write_bytes(self.text.encode())
        return path


def receipt(session: Session, record_id: int) -> Operation[Receipt]:
    """Return the receipt of a record: its events, its result's digest, and proof of them.

    The newest events may wait some seconds for the next seal, and so does this.

    Args:
        record_id: of the record.

    Raises:
        NotFound: there was never such a record.
        ServerFault: nothing was sealed in time; does `recordledger work` run?

    >>> receipt = client.receipt(411)
    """
    number = wire.record_id(record_id)
    return Receipt(number, (yield from exchange.text(session, f"/v1/records/{number}/receipt")))


def checkpoint(session: Session) -> Operation[str]:
    """Return the newest signed checkpoint of the log: a note, to be kept where nobody alters it.

    Raises:
        ServerFault: nothing was ever sealed.

    >>> print(client.checkpoint())
    """
    return (yield from exchange.text(session, "/v1/checkpoint"))


def consistency(session: Session, first: int, second: int) -> Operation[list[bytes]]:
    """Return the hashes that prove that the log of `second` events begins with that of `first`.

    `recordledger.domain.proof.merkle.require_consistent` checks them against the roots of two
    checkpoints.

    Args:
        first: events of the older checkpoint, at least 1.
        second: events of the newer one.

    Raises:
        Refused: fewer events are sealed.

    >>> client.consistency(1, 4)
    """
    if not 1 <= first <= second:
        raise InvalidArgument("first must be from 1 to second")
    path = f"/v1/proofs/consistency?first={first}&second={second}"
    answer = yield from exchange.get(session, path, ConsistencyAnswer)
    try:
        return [b64decode(each, validate=True) for each in answer.proof]
    except ValueError as error:
        raise ServerFault(f"{session.url} sent a malformed proof") from error
