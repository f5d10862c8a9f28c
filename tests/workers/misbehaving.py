"""Functions that the tests let workers run: mostly ones that misbehave."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run as imported_function
from typing import Any, NoReturn

__all__ = ["imported_function"]


def echo(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def fail(message: str = "wrong basis") -> NoReturn:
    raise ValueError(message)


def leave(code: int = 3) -> NoReturn:
    sys.exit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail_unspeakably() -> NoReturn:
    raise Unspeakable


def die(code: int = 17) -> NoReturn:
    print("last words", flush=True)
    os._exit(code)


def append(path: str) -> None:
    """Leave a line for each time that this is run."""
    with Path(path).open("a") as file:
        file.write("run\n")


def count_and_die(path: str) -> None:
    """Say that this is run, and take the process down as the kernel would."""
    append(path)
    print("last words", flush=True)
    kill_self(signal.SIGKILL)


def kill_self(number: int) -> None:
    print("on stderr", file=sys.stderr)
    os.kill(os.getpid(), number)
    threading.Event().wait()


def segfault() -> None:
    ctypes.string_at(0)


def die_later() -> int:
    """Return properly, and take the process down right after."""
    pid = os.getpid()
    threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
    return pid


def close_channel() -> None:
    os.closerange(3, 256)


def say(stdout: str = "", stderr: str = "") -> None:
    print(stdout, end="")
    print(stderr, end="", file=sys.stderr)


def say_in_c(text: str) -> None:
    ctypes.CDLL(None).puts(text.encode())


def say_in_child(text: str) -> None:
    subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True)  # noqa: S603


def chatter(n_bytes: int) -> None:
    sys.stdout.write("BEGIN")
    for _ in range(n_bytes // 1000):
        sys.stdout.write("x" * 999 + "\n")
    sys.stdout.write("END")


def chatter_slowly(n_mebibytes: int) -> int:
    """Print a lot; return how much of it is on disk at the end."""
    print("BEGIN")
    for _ in range(n_mebibytes):
        os.write(1, b"y" * 1024 * 1024)
        time.sleep(0.02)
    print("END")
    return os.fstat(1).st_size


def close_stdout() -> None:
    sys.stdout.close()
    os.close(1)


def process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "token": os.environ.get("RECORDLEDGER_TOKEN"),
        "stdin": sys.stdin.read(),
    }


def bad_result(kind: str) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "nan": lambda: {"energies": [1.0, float("nan")]},
        "bytes": lambda: {"raw": b"\0"},
        "set": lambda: {1, 2},
        "key": lambda: {1: 2},
        "surrogate": lambda: "\ud800",
        "numpy_nan": _numpy_nan,
        "complex": lambda: _numpy().array([1j]),
    }
    return made[kind]()


def _numpy() -> Any:
    import numpy as np

    return np


def _numpy_nan() -> Any:
    return {"gradient": _numpy().array([[0.0, float("nan")]])}


def numpy_result() -> Any:
    np = _numpy()
    return {
        "array": np.arange(4).reshape(2, 2),
        "scalars": (np.float32(0.5), np.int64(7), np.bool_(True)),
    }


def large_result(n_bytes: int) -> str:
    return "z" * n_bytes


def meet(folder: str, name: str = "1", timeout_s: float = 60) -> str:
    """Say that this runs, and wait until it may end: for tests that act meanwhile."""
    begun, may_end = Path(folder, f"begun-{name}"), Path(folder, f"end-{name}")
    # Written whole or not at all, for the test reads it as soon as it is there.
    draft = begun.with_suffix(".draft")
    draft.write_text(str(os.getpid()))
    draft.replace(begun)
    deadline = time.monotonic() + timeout_s
    while not may_end.exists():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return "met"


def leave_child_behind(folder: str) -> int:
    """Start a process that would live on, and end this one."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    Path(folder, "child").write_text(str(child))
    os._exit(1)


class Molecule:
    @staticmethod
    def mass() -> float:
        return 28.0


def _private() -> None:  # pyright: ignore[reportUnusedFunction]
    """Not for anybody who has not spelled it out."""


not_callable = 3
