"""What a manager asks of an engine."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ..tasks.running import Report

WORKER_DIED: Final = "WorkerDied"


@dataclass(frozen=True, slots=True)
class Task:
    """What to run: a function by its name, and JSON values for it."""

    function: str
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])


class EngineFailed(Exception):
    """The engine cannot start a worker any more; the message says why."""


class EngineUnavailable(Exception):
    """There is no such engine here; the message says what to install, or what to write instead."""


class Engine(Protocol):
    """Runs tasks, in the order in which they are submitted, `n_slots` at a time.

    The result of a future is a report, also when the task failed or killed its worker. It raises
    `EngineFailed` if the engine failed before the task was done, and `CancelledError` if the task
    was cancelled or killed: neither says anything about the task.
    """

    @property
    def n_slots(self) -> int:
        """How many tasks run at the same time; 0 while there are no workers."""
        ...

    @property
    def failure(self) -> str | None:
        """Why the engine runs nothing any more; None while it does, or is about to."""
        ...

    def submit(self, task: Task) -> Future[Report]:
        """Run the task when a slot is free."""
        ...

    def cancel(self, future: Future[Report]) -> bool:
        """Return whether the task has not begun, and then it never will."""
        ...

    def kill(self, future: Future[Report]) -> bool:
        """End a task that runs, if the engine can; return whether it will end soon."""
        ...

    def shutdown(self) -> None:
        """End now: cancel what has not begun, kill what runs, and wait until all is gone."""
        ...
