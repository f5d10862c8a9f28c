"""Cursors: where a page ended, opaque to those who carry them, and good for one ledger only."""

from __future__ import annotations

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

from recordledger.domain.errors import InvalidInput
from recordledger.domain.streams import ID_MAX, Stream

_SHAPE: Final = struct.Struct(">B8sQ")
_OPERATION_SHAPE: Final = struct.Struct(">B8sq16s")
# Two numbers: a pair, or the last id and the position of the moment that the pages are of.
_PAIR_SHAPE: Final = struct.Struct(">B8sQQ")
_DIFF_SHAPE: Final = struct.Struct(">B8sQQQ")
_SIZES: Final = (_SHAPE.size, _OPERATION_SHAPE.size, _PAIR_SHAPE.size, _DIFF_SHAPE.size)
VERSION_MAX: Final = 2**31 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Listing(IntEnum):
    """Lists that are not all of one stream's aggregates; the numbers are above those of streams."""

    comments = 101
    children = 102
    parents = 103
    refusals = 104
    operations = 105
    entries = 106
    dataset_events = 107
    operation_events = 108
    user_events = 109
    user_events_oldest_first = 110
    past_records = 111
    changes = 112
    origins = 113


def cursor_of(ledger_id: UUID, listed: Stream | Listing, last_id: int) -> str:
    """Return the cursor after `last_id` in a list of records, managers, tokens and so on."""
    return _text_of(_SHAPE.pack(listed, ledger_id.bytes[:8], last_id))


def last_id_of(cursor: str, ledger_id: UUID, listed: Stream | Listing) -> int:
    """Return where the page before has ended.

    Raises:
        InvalidInput: the cursor is of another list or another ledger, or none at all.
    """
    last_id, _ = _unpacked(cursor, ledger_id, listed, _SHAPE)
    return _id_in(last_id)


def _id_in(number: int) -> int:
    if number > ID_MAX:
        raise _of_another_list()
    return number


def pair_cursor_of(ledger_id: UUID, listed: Listing, last: tuple[int, int]) -> str:
    """Return the cursor after a pair of numbers in a list that is ordered by pairs."""
    return _text_of(_PAIR_SHAPE.pack(listed, ledger_id.bytes[:8], *last))


def last_pair_of(cursor: str, ledger_id: UUID, listed: Listing) -> tuple[int, int]:
    """Return where the page before has ended.

    Raises:
        InvalidInput: the cursor is of another list or another ledger, or none at all.
    """
    first, (second,) = _unpacked(cursor, ledger_id, listed, _PAIR_SHAPE)
    if first > ID_MAX or second > VERSION_MAX:
        raise _of_another_list()
    return first, int(second)


def operation_cursor_of(ledger_id: UUID, started_at: datetime, operation_id: UUID) -> str:
    """Return the cursor after this operation in the list of operations, newest first."""
    started_us = (started_at - _EPOCH) // timedelta(microseconds=1)
    packed = _OPERATION_SHAPE.pack(
        Listing.operations, ledger_id.bytes[:8], started_us, operation_id.bytes
    )
    return _text_of(packed)


def last_operation_of(cursor: str, ledger_id: UUID) -> tuple[datetime, UUID]:
    """Return where the page of operations before has ended.

    Raises:
        InvalidInput: the cursor is of another list or another ledger, or none at all.
    """
    started_us, (id_,) = _unpacked(cursor, ledger_id, Listing.operations, _OPERATION_SHAPE)
    try:
        return _EPOCH + timedelta(microseconds=started_us), UUID(bytes=id_)
    except OverflowError:
        raise _of_another_list() from None


def past_cursor_of(ledger_id: UUID, position: int, last_id: int) -> str:
    """Return the cursor after `last_id` in a list of records as they were at a position."""
    packed = _PAIR_SHAPE.pack(Listing.past_records, ledger_id.bytes[:8], last_id, position)
    return _text_of(packed)


def last_past_id_of(cursor: str, ledger_id: UUID, position: int) -> int:
    """Return where the page before has ended, of records as they were at this position.

    Raises:
        InvalidInput: the cursor is of another moment, list or ledger, or none at all.
    """
    last_id, (of,) = _unpacked(cursor, ledger_id, Listing.past_records, _PAIR_SHAPE)
    _require_moment([of], [position])
    return _id_in(last_id)


def diff_cursor_of(ledger_id: UUID, a: int, b: int, last_id: int) -> str:
    """Return the cursor after `last_id` in a list of changes between two positions."""
    return _text_of(_DIFF_SHAPE.pack(Listing.changes, ledger_id.bytes[:8], last_id, a, b))


def last_changed_id_of(cursor: str, ledger_id: UUID, a: int, b: int) -> int:
    """Return where the page of changes before has ended.

    Raises:
        InvalidInput: the cursor is of other moments, of another list or ledger, or none at all.
    """
    last_id, of = _unpacked(cursor, ledger_id, Listing.changes, _DIFF_SHAPE)
    _require_moment(of, [a, b])
    return _id_in(last_id)


def _require_moment(of: list[Any], wanted: list[int]) -> None:
    if of != wanted:
        raise InvalidInput(
            f"the cursor is of position {' to '.join(map(str, of))}, and what is asked for is of "
            f"{' to '.join(map(str, wanted))}; name that position, or begin with the first page"
        )


def _text_of(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _unpacked(
    cursor: str, ledger_id: UUID, listed: Stream | Listing, shape: struct.Struct
) -> tuple[int, list[Any]]:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        packed = b""
    if len(packed) not in _SIZES:
        raise InvalidInput("this is no cursor; send the next_cursor of a page as it came")
    if packed[1:9] != ledger_id.bytes[:8]:
        raise InvalidInput("the cursor is of another ledger; begin with the first page")
    if packed[0] != listed or len(packed) != shape.size:
        raise _of_another_list()
    _, _, number, *rest = shape.unpack(packed)
    return int(number), rest


def _of_another_list() -> InvalidInput:
    return InvalidInput("the cursor is of another list; begin with the first page")
