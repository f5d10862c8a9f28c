"""Engines: what a manager runs tasks with. They run functions and know nothing of the server.

`ProcessEngine` is the default: processes of its own, one task at a time each, so that a task that
kills its process is known exactly. `ExecutorEngine` runs tasks through any
`concurrent.futures.Executor`, and so through the standard library's process pool, Dask, Parsl or
IPython Parallel (`docs/engines.md`).
"""

from __future__ import annotations

from .choice import EngineStarter, engine_starter
from .cluster import Cluster, GivenExecutor
from .engine import Engine, EngineFailed, EngineUnavailable, Task
from .executor import ExecutorEngine
from .process import ProcessEngine, processor_count

__all__ = [
    "Cluster",
    "Engine",
    "EngineFailed",
    "EngineStarter",
    "EngineUnavailable",
    "ExecutorEngine",
    "GivenExecutor",
    "ProcessEngine",
    "Task",
    "engine_starter",
    "processor_count",
]
