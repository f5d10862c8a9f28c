"""Waiting for what other processes do."""

from __future__ import annotations

from collections.abc import Callable

from tests.waiting import happens


def eventually(is_so: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return when it is so; fail if it does not become so in time."""
    assert happens(is_so, timeout_s), "it did not become so in time"
