"""What an `ExecutorEngine` has to know about where its executor's workers are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Protocol, TypeAlias

Errand: TypeAlias = Callable[[bytes], bytes]


class Cluster(Protocol):
    """An executor and its workers. Each method may take long or raise: the engine sees to that.

    Attributes:
        name: as people know it.
        is_ours: the workers are on this machine, were started by us, and are replaced when they
            end; so their processes may be looked at.
        may_kill: and a worker may be killed for the sake of the task that it runs.
    """

    name: str
    is_ours: bool
    may_kill: bool

    @property
    def generation(self) -> int | None:
        """Return None, or, where all workers end when one dies, how often there were new ones.

        It changes in `submit` only.
        """
        ...

    def start(self, folder: Path) -> None:
        """Start it, or connect to it; what it writes belongs into the folder."""
        ...

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in a worker."""
        ...

    def n_workers(self) -> int:
        """Return how many workers there are now."""
        ...

    def check(self) -> str | None:
        """Ask for a heartbeat; return what is wrong with it for good, None if nothing is."""
        ...

    def close(self) -> None:
        """End what was started, or disconnect."""
        ...


class GivenExecutor:
    """An executor of the caller, of which nothing is known; it is shut down with the engine.

    Args:
        executor: already started.
        n_workers: how many tasks it can run at the same time.
    """

    name = "the executor"
    is_ours = False
    may_kill = False
    generation = None

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self._executor = executor
        self._n_workers = n_workers

    def start(self, folder: Path) -> None:
        """Do nothing: it has been started."""

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in a worker."""
        return self._executor.submit(function, request)

    def n_workers(self) -> int:
        """Return how many workers it was said to have."""
        return self._n_workers

    def check(self) -> str | None:
        """Return None: there is nothing to ask."""
        return None

    def close(self) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait=True, cancel_futures=True)
