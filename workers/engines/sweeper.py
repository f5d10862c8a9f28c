"""Kills what an engine started and left running, found by a mark in its environment.

Libraries start processes that start processes, in sessions of their own, and do not end all of
them, least of all when the manager was killed. Whatever they start inherits its environment, so a
mark there finds it. As a program this waits, in a process that shares nothing with the engine,
until its manager has gone, and sweeps then. It imports the standard library only: it starts
quickly, and does not depend on what it cleans up after. Linux only; elsewhere nothing is found.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

SWEEP_S_MAX: Final = 5.0


def marked(mark: str) -> list[int]:
    """Return the processes, but for this one, that were started with a variable of this name."""
    sought = f"\0{mark}=".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sought in b"\0" + (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return [pid for pid in found if pid != os.getpid()]


def sweep(mark: str) -> int:
    """Kill all that has the mark, until nothing has; return how many were killed."""
    killed: set[int] = set()
    deadline = time.monotonic() + SWEEP_S_MAX
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            killed.add(pid)
        time.sleep(0.02)  # what is being killed may have started one more
    return len(killed)


def main() -> None:
    """Wait for the end of stdin; then kill what has the mark, and remove the folder."""
    mark, folder = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
