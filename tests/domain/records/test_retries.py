"""What a submitter may want done about errors, and how long a retry waits."""

from __future__ import annotations

import pytest

from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.retries import (
    DELAY_S_MAX,
    PATTERNS_MAX,
    RETRIES_MAX,
    Retry,
    parse_retry,
)


def test_a_retry_is_what_was_asked_for() -> None:
    assert parse_retry(0) == Retry()
    on = ["OSError", "!*Timeout*", "OSError"]
    assert parse_retry(3, 1.5, on) == Retry(3, 1.5, ("OSError", "!*Timeout*"))


@pytest.mark.parametrize("retries", [-1, RETRIES_MAX + 1])
def test_a_number_of_retries_out_of_range_is_refused(retries: int) -> None:
    with pytest.raises(InvalidInput, match=f"retries is {retries}"):
        parse_retry(retries)


@pytest.mark.parametrize("delay_s", [-0.1, DELAY_S_MAX + 1, float("nan"), float("inf")])
def test_a_pause_out_of_range_is_refused(delay_s: float) -> None:
    with pytest.raises(InvalidInput, match="retry_delay_s"):
        parse_retry(1, delay_s)


@pytest.mark.parametrize("pattern", ["", "!", "a,b", "a b", "x" * 202, "é"])
def test_what_is_no_pattern_of_error_types_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="not a pattern"):
        parse_retry(1, on=[pattern])


def test_the_limits_themselves_are_allowed() -> None:
    patterns = [f"E{number}" for number in range(PATTERNS_MAX)]
    allowed = parse_retry(RETRIES_MAX, DELAY_S_MAX, patterns)
    assert allowed == Retry(RETRIES_MAX, DELAY_S_MAX, tuple(patterns))


def test_a_wrong_pattern_is_named_in_part_with_examples_of_right_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_retry(1, on=["x" * 300])
    assert str(caught.value).startswith(repr("x" * 120) + " ")
    assert "like 'OSError', '*Timeout*' or '!ValueError'" in str(caught.value)


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="21 patterns"):
        parse_retry(1, on=[f"E{number}" for number in range(21)])


def test_no_pause_is_longer_than_the_longest() -> None:
    retry = Retry(RETRIES_MAX, 1.0)
    pauses = [retry.pause(number).total_seconds() for number in range(1, RETRIES_MAX + 1)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[11], pauses[-1]) == (1.0, 2048.0, DELAY_S_MAX)
    assert Retry(1).pause(1).total_seconds() == 0
