"""Pages of lists, and cursors: where a page ended, opaque, and good for one list of one ledger."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Annotated, Final, TypeVar
from uuid import UUID

from fastapi import Query

from recordledger.domain.errors import InvalidInput
from recordledger.domain.streams import ID_MAX, Stream

from ..schemas.fields import PAGE_MAX

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(max_length=200)]
Row = TypeVar("Row")
# Where a page ended: the number by which its list is ordered, or several.
Key = int | tuple[int, ...]

# Which list, and of which ledger; the numbers of the key follow, and the positions of a moment.
_HEAD: Final = struct.Struct(">B8s")
_NUMBERS_MAX: Final = 3
_NUMBER_MAX: Final = 2**64 - 1
_HALF: Final = 64  # bits of a UUID
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
VERSION_MAX: Final = 2**31 - 1
TIME_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


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


# The highest numbers of the keys of lists that are not ordered by one id.
_KEYS: Final[Mapping[Stream | Listing, tuple[int, ...]]] = {
    Listing.operations: (TIME_MAX, _NUMBER_MAX, _NUMBER_MAX),
    Listing.dataset_events: (ID_MAX, VERSION_MAX),
    Listing.operation_events: (ID_MAX, VERSION_MAX),
    Listing.origins: (ID_MAX, VERSION_MAX),
}


@dataclass(frozen=True, slots=True)
class ListPages:
    """The pages of a list.

    Attributes:
        ledger_id: whose list it is.
        listed: what it is a list of.
        positions: of the log, if the list is of one or two moments.
    """

    ledger_id: UUID
    listed: Stream | Listing
    positions: tuple[int, ...] = ()

    def cut(
        self, found: Sequence[Row], limit: int, key_of: Callable[[Row], Key]
    ) -> tuple[Sequence[Row], str | None]:
        """Return a page of at most `limit` rows, and the cursor to the next one; None after all.

        Args:
            found: the rows of the page; more than `limit` if there is another page.
            limit: the most to show, 1 or more.
            key_of: returns the key of a row.
        """
        shown = found[:limit]
        return shown, self.cursor(key_of(shown[-1])) if len(found) > limit else None

    def cursor(self, key: Key) -> str:
        """Return the cursor to what comes after a key."""
        key = (key,) if isinstance(key, int) else key
        packed = _HEAD.pack(self.listed, self.ledger_id.bytes[:8])
        packed += struct.pack(f">{len(key) + len(self.positions)}Q", *key, *self.positions)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    def last_id(self, cursor: str | None, first: int) -> int:
        """Return the id at which the page before has ended; `first` if there was none.

        Raises:
            InvalidInput: the cursor is of another moment, list or ledger, or none at all.
        """
        [last] = self.last_key(cursor, (first,))
        return last

    def last_pair(self, cursor: str | None) -> tuple[int, int]:
        """Return the pair at which the page before has ended; two zeros if there was none.

        Raises:
            InvalidInput: the cursor is of another list or ledger, or none at all.
        """
        first, second = self.last_key(cursor, (0, 0))
        return first, second

    def last_key(self, cursor: str | None, first: tuple[int, ...]) -> tuple[int, ...]:
        """Return the key at which the page before has ended; `first` if there was none.

        Raises:
            InvalidInput: the cursor is of another moment, list or ledger, or none at all.
        """
        if cursor is None:
            return first
        listed, ledger, numbers = _unpacked(cursor)
        if ledger != self.ledger_id.bytes[:8]:
            raise InvalidInput(
                "the cursor belongs to another ledger; start again at the first page"
            )
        highest = _KEYS.get(self.listed, (ID_MAX,))
        key, positions = numbers[: len(highest)], numbers[len(highest) :]
        if listed != self.listed or len(numbers) != len(highest) + len(self.positions):
            raise _of_another_list()
        if positions != self.positions:
            raise InvalidInput(
                f"the cursor belongs to position {' to '.join(map(str, positions))}, but the "
                f"request is for {' to '.join(map(str, self.positions))}; use the cursor's "
                "position, or start again at the first page"
            )
        if any(number > most for number, most in zip(key, highest, strict=True)):
            raise _of_another_list()
        return key


def key_of_operation(started_at: datetime, operation_id: UUID) -> tuple[int, int, int]:
    """Return the key of an operation in the list of operations."""
    high, low = divmod(operation_id.int, 1 << _HALF)
    return (started_at - _EPOCH) // _MICROSECOND, high, low


def operation_of_key(key: tuple[int, ...]) -> tuple[datetime, UUID]:
    """Return when the operation with this key was started, and its id."""
    started_us, high, low = key
    return _EPOCH + started_us * _MICROSECOND, UUID(int=high << _HALF | low)


def _unpacked(cursor: str) -> tuple[int, bytes, tuple[int, ...]]:
    """Return the list, the ledger and the numbers of a cursor."""
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        packed = b""
    n_numbers, rest = divmod(len(packed) - _HEAD.size, 8)
    if rest or not 1 <= n_numbers <= _NUMBERS_MAX:
        raise InvalidInput("this is not a cursor; send the next_cursor of a page unchanged")
    listed, ledger = _HEAD.unpack_from(packed)
    return listed, ledger, struct.unpack_from(f">{n_numbers}Q", packed, _HEAD.size)


def _of_another_list() -> InvalidInput:
    return InvalidInput("the cursor belongs to another list; start again at the first page")
