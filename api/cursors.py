"""Cursors: where a page ended, opaque to those who carry them, and good for one ledger only."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final
from uuid import UUID

from recordledger.domain.errors import InvalidInput
from recordledger.domain.streams import ID_MAX, Stream

_SHAPE: Final = struct.Struct(">B8sQ")


def cursor_of(ledger_id: UUID, stream: Stream, last_id: int) -> str:
    """Return the cursor after `last_id` in a list of records, managers or tokens."""
    packed = _SHAPE.pack(stream, ledger_id.bytes[:8], last_id)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def last_id_of(cursor: str, ledger_id: UUID, stream: Stream) -> int:
    """Return where the page before has ended.

    Raises:
        InvalidInput: the cursor is of another list or another ledger, or none at all.
    """
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        kind, ledger_prefix, last_id = _SHAPE.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        raise InvalidInput("this is no cursor; send the next_cursor of a page as it came") from None
    if ledger_prefix != ledger_id.bytes[:8]:
        raise InvalidInput("the cursor is of another ledger; begin with the first page")
    if kind != stream or last_id > ID_MAX:
        raise InvalidInput("the cursor is of another list; begin with the first page")
    return int(last_id)
