"""Streams: an aggregate's kind and number are one UUID, both ways."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.streams import ID_MAX, Stream, stream_number, stream_uuid

NUMBERS = st.integers(0, ID_MAX)
STREAMS = st.sampled_from(Stream)


def test_the_numbers_of_the_kinds_are_stored_and_never_change() -> None:
    assert {stream.name: stream.value for stream in Stream} == {
        "record": 1,
        "manager": 2,
        "dataset": 3,
        "token": 4,
        "job": 5,
        "webhook": 6,
        "divergence": 7,
    }


def test_the_largest_id_is_the_largest_bigint() -> None:
    assert ID_MAX == 2**63 - 1


@for_all(STREAMS, NUMBERS)
def test_a_stream_is_found_again_from_its_uuid(stream: Stream, number: int) -> None:
    assert stream_number(stream_uuid(stream, number)) == (stream, number)


@for_all(STREAMS, NUMBERS, NUMBERS)
def test_the_streams_of_a_kind_are_in_the_order_of_their_ids(
    stream: Stream, first: int, second: int
) -> None:
    assert (stream_uuid(stream, first) < stream_uuid(stream, second)) is (first < second)


@pytest.mark.parametrize("value", [UUID(int=0), UUID(int=99 << 64), UUID(int=2**128 - 1)])
def test_a_uuid_of_no_kind_belongs_to_no_stream(value: UUID) -> None:
    with pytest.raises(ValueError, match="is not a valid Stream"):
        stream_number(value)


@pytest.mark.parametrize("number", [-1, ID_MAX + 1, 2**64])
def test_a_number_that_is_no_bigint_has_no_stream(number: int) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        stream_uuid(Stream.record, number)
