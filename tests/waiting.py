"""Waiting for what other processes do, without taking the processor from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_PAUSE_S_MIN: Final = 0.005
_PAUSE_S_MAX: Final = 0.05


def happens(is_so: Callable[[], object], timeout_s: float) -> bool:
    """Return whether it becomes so in time.

    Asked less and less often: most questions are requests, which cost others what they wait for.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _PAUSE_S_MIN
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _PAUSE_S_MAX)
    return True
