"""Streams: which aggregate an event belongs to, as (kind, integer id) inside one UUID."""

from __future__ import annotations

from enum import IntEnum
from typing import Final
from uuid import UUID

ID_MAX: Final = 2**63 - 1
_MASK: Final = 2**64 - 1


class Stream(IntEnum):
    """The kinds of aggregate that have streams. Stored: add members, never renumber one."""

    record = 1
    manager = 2
    dataset = 3
    token = 4
    job = 5
    webhook = 6
    divergence = 7


def stream_uuid(stream: Stream, number: int) -> UUID:
    """Return the originator id of an aggregate: the kind above, the bigint id below.

    >>> stream_uuid(Stream.record, 411)
    UUID('00000000-0000-0001-0000-00000000019b')

    Raises:
        ValueError: the number is no bigint, and would reach into another kind's streams.
    """
    if not 0 <= number <= ID_MAX:
        raise ValueError(f"{number} is not an id: ids are from 0 to {ID_MAX}")
    return UUID(int=(stream << 64) | number)


def stream_number(originator_id: UUID) -> tuple[Stream, int]:
    """Return the kind and the integer id inside an originator id.

    >>> stream_number(UUID("00000000-0000-0001-0000-00000000019b"))
    (<Stream.record: 1>, 411)
    """
    value = originator_id.int
    return Stream(value >> 64), value & _MASK
