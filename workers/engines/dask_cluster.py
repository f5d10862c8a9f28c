"""Dask: a cluster of our own on this machine, or the scheduler of another."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final

import dask.config
import distributed

from .cluster import Errand

log = logging.getLogger(__name__)

CONNECT_S: Final = 30.0
CLOSE_S: Final = 5.0
OURS: Final[dict[str, Any]] = {
    # A task that takes its worker down is run once, and does not take the innocent with it.
    "distributed.scheduler.allowed-failures": 1,
    # Compiled code may hold the interpreter for hours. Dead workers are seen by their nannies.
    "distributed.scheduler.worker-ttl": None,
    # It would set the numbers of threads to 1, whatever the environment says.
    "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536},
    "distributed.comm.timeouts.connect": "30s",
}


class DaskCluster:
    """Workers of Dask.

    Args:
        address: of a scheduler that runs, or the path of its scheduler file; None to start a
            cluster on this machine, over TLS, for others on this machine could use it otherwise.
        n_workers: how many to start; not used with an address.
    """

    name = "Dask"
    generation = None

    def __init__(self, address: str | None, n_workers: int) -> None:
        self.is_ours = self.may_kill = address is None
        self._address = address
        self._n_workers = n_workers
        self._cluster: Any = None
        self._client: Any = None
        self._executor: Executor | None = None

    def start(self, folder: Path) -> None:
        """Start the cluster, or connect to it."""
        where = self._address if self._address is not None else self._local_cluster(folder)
        kwargs: dict[str, Any] = {"timeout": CONNECT_S, "set_as_default": False}
        kwargs |= {"scheduler_file": where} if str(where).endswith(".json") else {"address": where}
        self._client = distributed.Client(name="recordledger", **kwargs)  # type: ignore[no-untyped-call]
        # Without `pure=False`, equal tasks would be run once for all.
        self._executor = self._client.get_executor(pure=False)
        crowded = [w["name"] for w in self._workers().values() if w["nthreads"] > 1]
        if crowded:
            log.warning(
                "%d workers of Dask have several threads, and run one task at a time all the same; "
                "start them with --nthreads 1",
                len(crowded),
            )

    def _local_cluster(self, folder: Path) -> Any:
        dask.config.set({**OURS, "temporary-directory": str(folder)})
        security: Any = distributed.Security
        options: dict[str, Any] = {
            "n_workers": self._n_workers,
            "threads_per_worker": 1,
            "processes": True,
            "host": "127.0.0.1",
            # Its web server cannot be switched off; several managers of a machine have one each.
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": False},
            "worker_dashboard_address": None,
            "memory_limit": None,
            "local_directory": str(folder),
            "silence_logs": logging.CRITICAL,
            "security": security.temporary(),
        }
        self._cluster = distributed.LocalCluster(**options)  # type: ignore[no-untyped-call]
        return self._cluster

    def _workers(self) -> dict[str, Any]:
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in a worker."""
        if self._executor is None:
            raise RuntimeError("not connected to Dask")
        return self._executor.submit(function, request)

    def n_workers(self) -> int:
        """Return how many workers the scheduler knows."""
        return len(self._workers())

    def check(self) -> str | None:
        """Ask the scheduler who it is; that fails when it is not there, and may be again later."""
        if self._client.status != "running":
            raise ConnectionError(f"the connection to the scheduler is {self._client.status}")
        self._client.sync(self._ask)
        return None

    async def _ask(self) -> None:
        await asyncio.wait_for(self._client.scheduler.identity(), CLOSE_S)

    def close(self) -> None:
        """End the cluster if it is ours, and disconnect."""
        if self._client is not None:
            self._client.close(CLOSE_S)
        if self._cluster is not None:
            self._cluster.close(CLOSE_S)
