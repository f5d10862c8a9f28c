"""Tickets: how a manager knows, through any executor, whether a task has begun.

Executors mean different things by "cancelled" and "running", and some run a task twice, or one
that they said was cancelled. So each task that is handed to an executor has a ticket, which is a
file in a folder that the manager and the workers share. A worker takes the ticket before it begins,
by renaming the file; the manager withdraws it by deleting the file. One of them succeeds, and only
once. The new name says which process took it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKET: Final = "ticket"


class TicketFolderMissing(Exception):
    """A worker does not see the folder with the tickets."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Which process took a ticket.

    Attributes:
        pid, hostname: which process.
        born: when it was started, as its kernel counts, for ids are used again; 0 if unknown.
    """

    pid: int
    born: int
    hostname: str

    @classmethod
    def by_this_process(cls) -> Begun:
        """Return what a worker writes about itself."""
        return cls(os.getpid(), birth(os.getpid()) or 0, platform.node())

    def is_alive(self) -> bool:
        """Return whether that process runs; of this host's only."""
        return birth(self.pid) == self.born

    def kill(self) -> bool:
        """Kill that process, unless it has gone or its id belongs to another by now."""
        open_process: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
        if open_process is None or not self.born:
            return False
        try:
            handle = open_process(self.pid)
        except OSError:
            return False
        try:
            # Looked at when the handle is open: it stays that process, whatever its id becomes.
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        return True

    def output_folder(self, tickets: Path) -> Path:
        """Return where the process keeps the output of the task that it runs."""
        return tickets / f"output-{self.pid}-{self.born}"


def birth(pid: int) -> int | None:
    """Return when a process of this host was started, in ticks; None if it runs no more.

    Where the kernel does not provide it, it is 0 for every process.
    """
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


class Tickets:
    """The manager's side of a folder of tickets.

    Args:
        folder: made here, and to be seen by all workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._n_issued = 0
        folder.mkdir(parents=True, exist_ok=True)

    def issue(self) -> int:
        """Make a ticket; return its number."""
        self._n_issued += 1
        self.path(self._n_issued).touch()
        return self._n_issued

    def path(self, number: int) -> Path:
        """Return the file that a worker must rename to begin."""
        return self.folder / f"{TICKET}.{number}"

    def withdraw(self, number: int) -> bool:
        """Return whether nobody has taken the ticket, and then nobody ever will."""
        try:
            self.path(number).unlink()
        except OSError:
            return False
        return True

    def begun(self) -> dict[int, Begun]:
        """Return who took the tickets that were taken and not discarded."""
        found: dict[int, Begun] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):  # noqa: PTH208 - names are all that is wanted
                kind, *parts = name.split(".", 4)
                if kind == TICKET and len(parts) == 4:
                    number, pid, born, hostname = parts
                    found[int(number)] = Begun(int(pid), int(born), hostname)
        return found

    def discard(self, number: int, begun: Begun | None) -> None:
        """Forget a ticket."""
        with contextlib.suppress(OSError):
            self.path(number).unlink()
        if begun is not None:
            with contextlib.suppress(OSError):
                taken(self.path(number), begun).unlink()

    def remove(self) -> None:
        """Remove the folder: no ticket can be taken any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def taken(ticket: Path, begun: Begun) -> Path:
    """Return the name of a ticket that was taken."""
    return ticket.with_name(f"{ticket.name}.{begun.pid}.{begun.born}.{begun.hostname}")


def take(ticket: Path) -> Begun | None:
    """Return who took the ticket if it was this process, just now; None if it is not there.

    Raises:
        TicketFolderMissing: this worker does not see the folder.
    """
    begun = Begun.by_this_process()
    try:
        ticket.rename(taken(ticket, begun))
    except FileNotFoundError:
        if not ticket.parent.is_dir():
            raise TicketFolderMissing(
                f"a worker on {begun.hostname} does not see {ticket.parent}"
            ) from None
        return None
    return begun
