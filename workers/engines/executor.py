"""An engine on top of any `concurrent.futures.Executor`."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, Future

from ..running import Report, WorkerSettings, run_task
from .engine import WORKER_DIED, Task


class ExecutorEngine:
    """Runs tasks through an executor, which brings its own workers and its own idea of failure.

    The function runs inside `run_task` in the worker, so output, exceptions and results are
    recorded there, whatever the executor would do with them. What the executor itself raises
    means that the worker was lost.

    Args:
        executor: already started; the engine shuts it down.
        n_slots: how many tasks it can run at the same time.
        settings: what the workers have to know.
    """

    def __init__(self, executor: Executor, n_slots: int, settings: WorkerSettings) -> None:
        self._executor = executor
        self._n_slots = n_slots
        self._settings = settings.as_dict()
        self._inner: dict[Future[Report], Future[Report]] = {}

    @property
    def n_slots(self) -> int:
        """How many tasks run at the same time."""
        return self._n_slots

    def submit(self, task: Task) -> Future[Report]:
        """Hand the task to the executor."""
        outer = Future[Report]()
        inner = self._executor.submit(run_task, task.function, task.kwargs, self._settings)
        self._inner[outer] = inner
        inner.add_done_callback(lambda done: self._finish(outer, done))
        return outer

    def _finish(self, outer: Future[Report], inner: Future[Report]) -> None:
        self._inner.pop(outer, None)
        if inner.cancelled() or not outer.set_running_or_notify_cancel():
            outer.cancel()
            return
        try:
            outer.set_result(inner.result())
        except CancelledError as error:
            outer.set_exception(error)
        except Exception as error:  # noqa: BLE001, RUF100 - each executor has errors of its own
            outer.set_result(
                Report(
                    error_type=WORKER_DIED,
                    error_message=f"the worker was lost: {type(error).__name__}: {error}",
                )
            )

    def cancel(self, future: Future[Report]) -> bool:
        """Return whether the task has not begun, and then it never will.

        Some executors raise here, and some run a task that they said was cancelled; then its
        report goes nowhere.
        """
        inner = self._inner.get(future)
        try:
            cancelled = inner is not None and inner.cancel()
        except NotImplementedError:
            cancelled = False
        return cancelled and (future.cancelled() or future.cancel())

    def kill(self, future: Future[Report]) -> bool:
        """Return False: no executor can end a task that runs."""
        del future
        return False

    def shutdown(self) -> None:
        """Cancel what has not begun, and wait for what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)
