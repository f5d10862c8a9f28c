"""How long-running commands end: in order, when a signal asks for it."""

from __future__ import annotations

import signal
import sys
from threading import Event
from types import FrameType


def exit_on_sigterm() -> None:
    """End by SIGTERM as by Ctrl-C: what was started is stopped, the database too."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def stop_on_signals() -> Event:
    """Return an event that is set by SIGINT and SIGTERM, instead of what they do otherwise."""
    stop = Event()

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return stop
