"""Parsl: workers of a HighThroughputExecutor, on this machine or as a configuration says."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import parsl
from parsl.concurrent import ParslPoolExecutor
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from .cluster import Errand


class ParslCluster:
    """Workers of Parsl.

    Args:
        config: `module:attribute` of a `parsl.Config`, or of a function that makes one; None for
            workers on this machine. The first HighThroughputExecutor in it runs the tasks.
        n_workers: how many to start; not used with a configuration.
    """

    name = "Parsl"
    generation = None

    def __init__(self, config: str | None, n_workers: int) -> None:
        self.is_ours = self.may_kill = config is None
        self._address = config
        self._n_workers = n_workers
        self._kernel: Any = None
        self._htex: Any = None
        self._executor: Any = None

    def start(self, folder: Path) -> None:
        """Start the interchange and the first workers."""
        config = self._local(folder) if self._address is None else _configured(self._address)
        fitting = [e for e in config.executors if isinstance(e, HighThroughputExecutor)]
        if not fitting:
            raise ValueError(f"there is no HighThroughputExecutor in {self._address}")
        self._htex = fitting[0]
        self._kernel = parsl.DataFlowKernel(config)
        self._executor = ParslPoolExecutor(dfk=self._kernel, executors=[self._htex.label])

    def _local(self, folder: Path) -> parsl.Config:
        executor = HighThroughputExecutor(
            label="recordledger",
            address="127.0.0.1",
            max_workers_per_node=self._n_workers,
            cores_per_worker=1e-4,  # as many as we say, not as there are processors
            heartbeat_period=2,
            heartbeat_threshold=20,
            encrypted=True,
            provider=LocalProvider(  # type: ignore[no-untyped-call]
                init_blocks=1, min_blocks=1, max_blocks=1
            ),
        )
        return parsl.Config(
            executors=[executor],
            run_dir=str(folder / "parsl"),
            strategy="none",
            strategy_period=0.2,
            retries=0,
            initialize_logging=False,
        )

    def submit(self, function: Errand, request: bytes) -> Future[bytes]:
        """Run the function in a worker."""
        future: Future[bytes] = self._executor.submit(function, request)
        return future

    def n_workers(self) -> int:
        """Return how many workers are connected to the interchange."""
        managers: list[dict[str, Any]] = self._htex.connected_managers()
        return sum(manager["worker_count"] for manager in managers if manager["active"])

    def check(self) -> str | None:
        """Look whether the interchange lives; `n_workers` asks it something."""
        status: int | None = self._htex.interchange_proc.poll()
        if status is not None:
            return f"Parsl's interchange has ended, with exit status {status}"
        if self._htex.bad_state_is_set:
            return f"Parsl gave up: {self._htex.executor_exception!r}"
        return None

    def close(self) -> None:
        """End the interchange; workers follow when they miss it, or are killed."""
        if self._kernel is not None:
            self._kernel.cleanup()


def _configured(address: str) -> parsl.Config:
    module, _, attribute = address.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    config = found() if callable(found) else found
    if not isinstance(config, parsl.Config):
        raise TypeError(f"{address} is a {type(config).__name__}, not a parsl.Config")
    return config
