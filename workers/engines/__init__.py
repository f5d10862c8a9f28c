"""Engines: what a manager runs tasks with. They run functions and know nothing of the server.

`ProcessEngine` is the default: processes of its own, one task at a time each, so that a task that
kills its process is known exactly. `ExecutorEngine` runs tasks through any
`concurrent.futures.Executor`, and so through Dask, Parsl or ipyparallel.
"""

from __future__ import annotations

from .engine import Engine, EngineFailed, Task
from .executor import ExecutorEngine
from .process import ProcessEngine, processor_count

__all__ = ["Engine", "EngineFailed", "ExecutorEngine", "ProcessEngine", "Task", "processor_count"]
