"""The program of a worker process: reads tasks from its parent, and writes back their outcomes.

Requests are frames of JSON, for its integers have no bound; answers are frames of msgpack. The
parent takes them for data, whatever a task may have made of this process: nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import msgpack

from .running import TaskRunner, WorkerSettings

READY: Final = b"recordledger worker ready\n"
BEGUN: Final = b"\0\0\0\0"
_LENGTH: Final = struct.Struct(">I")
_leaving: Final = threading.Lock()


def write_frame(file: IO[bytes], data: bytes) -> None:
    """Write bytes with their length before them."""
    file.write(_LENGTH.pack(len(data)) + data)
    file.flush()


def read_frame(file: IO[bytes]) -> bytes | None:
    """Return the bytes of one frame, which may be empty; None at the end of the stream."""
    header = file.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    length: int = _LENGTH.unpack(header)[0]
    data = file.read(length)
    return data if len(data) == length else None


def main() -> None:
    """Run tasks until the parent closes the channel."""
    requests, answers = _take_channel()
    first = read_frame(requests)
    if first is None:
        return
    hello: dict[str, Any] = json.loads(first)
    sys.path[:] = hello["path"]
    settings = WorkerSettings.from_dict(hello["settings"])
    if (lifeline := hello["lifeline"]) is not None:
        watch = threading.Thread(
            target=_die_with, args=(lifeline, settings.output_folder), name="lifeline", daemon=True
        )
        watch.start()
    runner = TaskRunner(settings)
    answers.write(READY)
    answers.flush()
    with contextlib.suppress(OSError):  # the parent went away in the middle
        while (request := read_frame(requests)) is not None:
            function, kwargs = json.loads(request)
            # From here on a death of this process is the task's doing, and not before.
            answers.write(BEGUN)
            answers.flush()
            write_frame(answers, msgpack.packb(runner.run(function, kwargs)))
    _leave(settings.output_folder)


def _take_channel() -> tuple[IO[bytes], IO[bytes]]:
    """Move the channel away from stdin and stdout, where tasks and their children look."""
    # Not inherited by programs that a task starts, unlike 0, 1 and 2.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def _die_with(lifeline: int, folder: str | None) -> None:
    """End this process, and what its task started, when the parent is gone, even by kill -9."""
    os.set_inheritable(lifeline, False)
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    _leave(folder)


def _leave(folder: str | None) -> NoReturn:
    """Clear up, for nobody else is left to do it, and end this process and its children."""
    _leaving.acquire()  # for good: one thread is enough
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(folder).parent.rmdir()
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
