"""Which engine a manager gets, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from ..tasks.engine_names import DASK, ENGINES, IPYPARALLEL, PARSL, POOL, PROCESSES
from ..tasks.running import WorkerSettings
from .cluster import Cluster
from .engine import Engine, EngineUnavailable
from .executor import ExecutorEngine
from .pool import PoolCluster
from .process import ProcessEngine, processor_count

ClusterStarter: TypeAlias = Callable[[str | None, int], Cluster]
EngineStarter: TypeAlias = Callable[[WorkerSettings], Engine]


def engine_starter(
    engine: str,
    *,
    n_workers: int | None = None,
    n_workers_min: int | None = None,
    address: str | None = None,
    shared_folder: Path | None = None,
    threads_per_worker: int | None = None,
    tasks_per_worker_max: int | None = None,
    silence_s_max: float = 30.0,
) -> EngineStarter:
    """Return what starts an engine, having seen that there is such a one.

    Args:
        engine: one of `ENGINES`.
        n_workers: how many tasks to run at the same time. None for the number of processors, or,
            with an address, for as many as there are workers.
        n_workers_min: of `processes` only: how many to keep when there is less to do.
        address: of a cluster, as the engine understands it; None to start one on this machine.
        shared_folder: that this machine and the workers of that cluster see.
        threads_per_worker: for numerical libraries, in workers on this machine.
        tasks_per_worker_max: of `processes` only.
        silence_s_max: how long the engine may show no heartbeat.

    Raises:
        EngineUnavailable: there is none of this name, its library is not installed, or the options
            are not for it.
    """
    if engine not in ENGINES:
        raise EngineUnavailable(
            f"there is no engine {engine!r}; the engines are {', '.join(ENGINES)}"
        )
    if engine not in _LIBRARIES and not (address is None and shared_folder is None):
        raise EngineUnavailable(f"the engine {engine!r} runs on this machine and has no address")
    if engine != PROCESSES and n_workers_min is not None:
        raise EngineUnavailable(f"the engine {engine!r} always has all of its workers")
    n_local = n_workers or processor_count()
    if engine == PROCESSES:
        return lambda settings: ProcessEngine(
            n_local,
            settings,
            n_slots_min=n_workers_min,
            threads_per_worker=threads_per_worker,
            tasks_per_worker_max=tasks_per_worker_max,
        )
    make = _pool if engine == POOL else _from_library(engine)
    return lambda settings: ExecutorEngine(
        make(address, n_local),
        settings,
        n_slots=n_workers if address is not None else n_local,
        shared_folder=shared_folder,
        threads_per_worker=threads_per_worker,
        silence_s_max=silence_s_max,
    )


def _pool(address: str | None, n_workers: int) -> Cluster:
    del address
    return PoolCluster(n_workers)


def _dask() -> ClusterStarter:
    from .dask_cluster import DaskCluster

    return DaskCluster


def _parsl() -> ClusterStarter:
    from .parsl_cluster import ParslCluster

    return ParslCluster


def _ipyparallel() -> ClusterStarter:
    from .ipyparallel_cluster import IpyparallelCluster

    return IpyparallelCluster


# Engines whose libraries may not be installed, and are imported only when they are wanted.
_LIBRARIES: Final = {DASK: _dask, PARSL: _parsl, IPYPARALLEL: _ipyparallel}


def _from_library(engine: str) -> ClusterStarter:
    try:
        return _LIBRARIES[engine]()
    except ImportError as error:
        raise EngineUnavailable(
            f"the engine {engine!r} needs a package that is not installed ({error}); "
            f"pip install 'recordledger[{engine}]'"
        ) from error
