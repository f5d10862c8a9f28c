"""The standard library's process pool, which is rebuilt when a worker died."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from .cluster import Errand

GRACE_S: Final = 2.0


class PoolCluster:
    """Processes of a `ProcessPoolExecutor`, started as new programs.

    A worker is not killed for the sake of one task: the pool would end all the others too.

    Args:
        n_workers: how many processes.
    """

    name = "the process pool"
    is_ours = True
    may_kill = False

    def __init__(self, n_workers: int) -> None:
        self.generation: int | None = 0
        self._n_workers = n_workers
        self._lock = threading.Lock()
        self._is_closed = False
        self._context = _RememberingContext()
        self._pool: ProcessPoolExecutor | None = None

    def start(self, folder: Path) -> None:
        """Make the pool; it starts its processes when there are tasks."""
        with self._lock:
            self._make()

    def _make(self) -> ProcessPoolExecutor:
        if self._is_closed:
            raise RuntimeError("the process pool is closed")
        self.generation = (self.generation or 0) + 1
        self._context = _RememberingContext()
        self._pool = ProcessPoolExecutor(
            self._n_workers, mp_context=self._context, initializer=_end_with_parent
        )
        return self._pool

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in a process of the pool, or of a new one if it is broken."""
        with self._lock:
            pool = self._pool or self._make()
            try:
                return pool.submit(function, request)
            except BrokenProcessPool:
                # First it says which tasks it lost; whose worker lives then is no culprit.
                self._end(pool, grace_s=GRACE_S)
                return self._make().submit(function, request)

    def _end(self, pool: ProcessPoolExecutor, *, grace_s: float) -> None:
        ending = threading.Thread(target=pool.shutdown, name="pool ending", daemon=True)
        ending.start()
        ending.join(grace_s)
        # It asks them to end, and one that does not listen would hold up the pool for ever.
        self._context.kill_all()
        ending.join()

    def n_workers(self) -> int:
        """Return how many processes there are, or will be when there are tasks."""
        return self._n_workers

    def check(self) -> str | None:
        """Return None: a broken pool is rebuilt when it is used next."""
        return None

    def close(self) -> None:
        """Kill the processes."""
        with self._lock:
            self._is_closed = True
            if self._pool is not None:
                self._end(self._pool, grace_s=0.0)


class _RememberingContext(SpawnContext):
    """Remembers the processes that were started in it."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override] # noqa: N802
        process = SpawnContext.Process(*args, **kwargs)
        self._started.append(process)
        return process

    def kill_all(self) -> None:
        """Kill those that still run."""
        for process in self._started:
            if process.pid is not None:
                process.kill()


def _end_with_parent() -> None:
    """Let this worker end when its manager has gone: a pool does not see to that."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, name="parent watch", daemon=True).start()
