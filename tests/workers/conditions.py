"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(is_so: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return when it is so; fail if it does not become so in time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)
