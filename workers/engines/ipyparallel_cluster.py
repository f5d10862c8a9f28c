"""IPython Parallel: a cluster of our own on this machine, or one that runs."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import ipyparallel  # pyright: ignore[reportMissingTypeStubs]
import psutil

from .cluster import Errand

START_S_MAX: Final = 50.0
HEARTBEAT_MS: Final = 1000
LOOK_S: Final = 0.1


class IpyparallelCluster:
    """Engines of IPython Parallel, which are workers to us.

    Args:
        address: of a cluster that runs: a connection file (`ipcontroller-client.json`) or the name
            of a profile; None to start one on this machine.
        n_workers: how many engines to start; not used with an address.
    """

    name = "IPython Parallel"
    generation = None

    def __init__(self, address: str | None, n_workers: int) -> None:
        self.is_ours = self.may_kill = address is None
        self._address = address
        self._n_workers = n_workers
        self._cluster: Any = None
        self._client: Any = None
        self._executor: Any = None
        self._heads: list[psutil.Process] = []
        self._seen: set[int] = set()
        self._n_started = n_workers
        self._started_at = 0.0
        self._closed = threading.Event()
        # A client is not made for several threads.
        self._lock = threading.Lock()

    def start(self, folder: Path) -> None:
        """Start the controller and the engines, or connect to those that run."""
        if self._address is None:
            self._start_cluster(folder)
        elif self._address.endswith(".json"):
            self._client = ipyparallel.Client(self._address)
        else:
            self._client = ipyparallel.Client(profile=self._address)

    def _start_cluster(self, folder: Path) -> None:
        self._cluster = ipyparallel.Cluster(
            n=self._n_workers,
            profile_dir=str(folder / "profile_recordledger"),
            controller_args=[f"--HeartMonitor.period={HEARTBEAT_MS}"],
            shutdown_atexit=False,
            log_level=logging.CRITICAL,
        )
        self._cluster.start_cluster_sync()
        self._client = self._cluster.connect_client_sync()
        self._client.wait_for_engines(self._n_workers, timeout=START_S_MAX, interactive=False)
        controller = psutil.Process(self._cluster.controller.pid)
        # The hub and each scheduler are processes; without one of them tasks would wait for ever.
        self._heads = [controller, *controller.children(recursive=True)]

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in an engine, when there is one."""
        while not self._client.ids:
            if self._closed.wait(LOOK_S):
                raise RuntimeError("the engine is closed")
        with self._lock:
            if self._executor is None:
                self._executor = self._client.executor()
            future: Future[bytes] = self._executor.submit(function, request)
            return future

    def n_workers(self) -> int:
        """Return how many engines are registered."""
        return len(self._client.ids)

    def check(self) -> str | None:
        """Ask the hub for its queues, which takes for ever if it is not there; replace engines."""
        for head in self._heads:
            if not head.is_running() or head.status() == psutil.STATUS_ZOMBIE:
                return f"a process of IPython Parallel's controller has ended: {head.pid}"
        with self._lock:
            self._client.queue_status()
        if self._cluster is not None:
            self._replace_engines()
        return None

    def _replace_engines(self) -> None:
        """Start as many engines as have died, but for those that are on their way already."""
        present = set(self._client.ids)
        self._seen |= present
        n_coming = self._n_started - len(self._seen)
        if n_coming and time.monotonic() > self._started_at + START_S_MAX:
            self._n_started, n_coming = len(self._seen), 0
        n_missing = self._n_workers - len(present) - n_coming
        if n_missing > 0:
            self._cluster.start_engines_sync(n=n_missing)
            self._n_started += n_missing
            self._started_at = time.monotonic()

    def close(self) -> None:
        """End the cluster if it is ours, and disconnect."""
        self._closed.set()
        if self._client is not None:
            self._client.close(linger=0)
        if self._cluster is not None:
            self._cluster.stop_cluster_sync()
