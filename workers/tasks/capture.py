"""What a task writes to stdout and stderr, caught at the level of the file descriptors.

Output of C and Fortran code and of child processes is caught too, which replacing `sys.stdout`
would miss. It goes to files, so that it can neither block a task that holds the interpreter's lock
nor fill the memory, and so that the output of a process that was killed can be read by its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TextIO

NAMES: Final = ("stdout", "stderr")
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
WATCH_S: Final = 0.25


class CaughtOutput:
    """One stream of one task: the beginning and the end of it, if it is too long to keep.

    Args:
        fd: an open file, in append mode, that the task writes to.
        bytes_max: how much is kept, at least 2; half from the beginning and half from the end.
    """

    def __init__(self, fd: int, bytes_max: int) -> None:
        self._fd = fd
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._head = b""
        self._tail = b""
        self._n_bytes = 0

    def shrink(self) -> None:
        """Take in what the file holds, and empty it, if it has become large.

        A task that prints without end would fill the disk otherwise. What it writes between our
        reading and our emptying is lost; it would be from the middle, which is left out anyway.
        """
        with self._lock:
            if os.fstat(self._fd).st_size > max(FILE_BYTES_MAX, 2 * self._bytes_max):
                self._absorb()

    def take(self) -> str | None:
        """Return what the task wrote, None if nothing, and start again."""
        with self._lock:
            if os.fstat(self._fd).st_size:
                self._absorb()
            if not self._n_bytes:
                return None
            text = abridge(self._head, self._tail, self._n_bytes)
            self._clear()
            return text

    def _absorb(self) -> None:
        size = os.fstat(self._fd).st_size
        half = self._bytes_max // 2
        begin = _read_at(self._fd, min(half - len(self._head), size), 0)
        self._head += begin
        n_tail = min(half, size - len(begin))
        self._tail = (self._tail + _read_at(self._fd, n_tail, size - n_tail))[-half:]
        self._n_bytes += size
        os.ftruncate(self._fd, 0)


def _read_at(fd: int, n_bytes: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, n_bytes) if n_bytes > 0 else b""


def abridge(head: bytes, tail: bytes, n_bytes: int) -> str:
    """Return the text of a stream of which only the beginning and the end were kept."""
    left_out = n_bytes - len(head) - len(tail)
    if left_out <= 0:
        return readable(head + tail)
    return f"{readable(head)}\n[... {left_out:,} bytes left out ...]\n{readable(tail)}"


def readable(text: bytes | str) -> str:
    """Return text that can be stored anywhere: valid Unicode, without NUL."""
    if isinstance(text, str):
        text = text.encode("utf-8", "backslashreplace")
    return text.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def read_remains(folder: Path, bytes_max: int) -> dict[str, str | None]:
    """Return the output, by stream, of a task whose process did not live to report it."""
    found: dict[str, str | None] = dict.fromkeys(NAMES)
    for name in NAMES:
        with contextlib.suppress(OSError), (folder / name).open("a+b") as file:
            found[name] = CaughtOutput(file.fileno(), bytes_max).take()
    return found


class OutputCapture:
    """Catches what one task after another writes; one per process.

    Args:
        folder: where to keep the output of the running task; None for files without a name.
        bytes_max: how much to keep of each stream.
    """

    def __init__(self, folder: Path | None = None, *, bytes_max: int) -> None:
        self._fds = [_open(folder, name) for name in NAMES]
        self._streams = [CaughtOutput(fd, bytes_max) for fd in self._fds]
        self._flush_c = _c_flush()
        self._watching = False

    @contextlib.contextmanager
    def catching(self) -> Generator[list[CaughtOutput]]:
        """Catch what is written within; yield the two streams, to take it from afterwards."""
        self._start_watching()
        self._flush()
        saved = [os.dup(number) for number in (1, 2)]
        outside = (sys.stdout, sys.stderr)
        try:
            for fd, number in zip(self._fds, (1, 2), strict=True):
                os.dup2(fd, number)
            sys.stdout, sys.stderr = _writer(1), _writer(2)
            yield self._streams
        finally:
            self._flush()
            sys.stdout, sys.stderr = outside
            for fd, number in zip(saved, (1, 2), strict=True):
                os.dup2(fd, number)
                os.close(fd)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a task may have closed or replaced it
                stream.flush()
        self._flush_c()

    def _start_watching(self) -> None:
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="output watch", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_S)
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.shrink()


def _open(folder: Path | None, name: str) -> int:
    if folder is None:
        with tempfile.TemporaryFile(prefix=f"recordledger-{name}-") as file:
            fd = os.dup(file.fileno())
        _set_append(fd)
        return fd
    folder.mkdir(
        parents=True, exist_ok=True
    )  # what clears up old temporary files may have been here
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)


def _set_append(fd: int) -> None:
    """Let every write go to the end, also after the file was emptied under the writer."""
    if sys.platform != "win32":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def _writer(number: int) -> TextIO:
    """Return a text stream on a file descriptor. Line by line: a killed task leaves its lines."""
    return open(
        number, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )


def _c_flush() -> Callable[[], object]:
    """Return what empties the buffers of C's stdio in this process."""
    try:
        library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        flush = library.fflush
    except (AttributeError, OSError):
        return lambda: None
    return lambda: flush(None)
