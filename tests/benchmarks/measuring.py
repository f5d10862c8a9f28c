"""Measuring: rates, percentiles of latencies, and the memory of a process while it works."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from time import perf_counter
from types import FrameType
from typing import Self

import psutil

MEMORY_INTERVAL_S = 0.05


@dataclass(slots=True)
class Measurement:
    """What one kind of work took: how many items, in what time, and how long each call was."""

    n_items: int = 0
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Items a second, over the whole time."""
        return self.n_items / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that this percentage of the calls did not exceed, milliseconds."""
        if not self.latencies_s:
            return 0.0
        ranked = sorted(self.latencies_s)
        return 1000 * ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]

    @contextmanager
    def call(self, n_items: int) -> Generator[None]:
        """Time one call that does so many items."""
        began = perf_counter()
        yield
        took = perf_counter() - began
        self.latencies_s.append(took)
        self.seconds += took
        self.n_items += n_items

    def summary(self) -> dict[str, float]:
        """Return the figures as they are written to JSON."""
        return {
            "rate": round(self.rate, 1),
            "p50_ms": round(self.percentile_ms(50), 3),
            "p99_ms": round(self.percentile_ms(99), 3),
        }


class PeakMemory:
    """The largest resident memory of a process while a block runs, in megabytes."""

    def __init__(self, pid: int) -> None:
        """Watch this process."""
        self._process = psutil.Process(pid)
        self._stop = Event()
        self._watcher = Thread(target=self._watch, daemon=True)
        self.at_rest_mb = self._now()
        self.peak_mb = self.at_rest_mb

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_INTERVAL_S):
            self.peak_mb = max(self.peak_mb, self._now())

    def _now(self) -> float:
        return float(self._process.memory_info().rss) / 1e6


def end_in_order() -> None:
    """Let SIGTERM end this program as Ctrl-C does, with all that it has started."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
