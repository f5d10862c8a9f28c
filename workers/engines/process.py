"""The default engine: a process for each slot, and one task at a time in each.

Not a process pool of the standard library: there the death of one worker fails every task that was
submitted, and which of them did it, and how it ended, is not told. Here a task that takes its
process down (a segmentation fault, `os._exit`, the kernel's out-of-memory killer) gets an error
that says so, with what it had printed, and its slot gets a new process. The processes are started
as new programs, never forked: threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

import msgpack

from ..tasks.capture import read_remains
from ..tasks.running import Report, WorkerSettings
from ..tasks.worker import READY, read_frame, write_frame
from .engine import WORKER_DIED, EngineFailed, Task

log = logging.getLogger(__name__)

PROGRAM: Final = "recordledger.workers.tasks.worker"
START_S_MAX: Final = 60.0
DEATH_S_MAX: Final = 5.0
STARTS_MAX: Final = 3
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# What a task has no business with: it could act in the manager's name.
SECRET_VARIABLES: Final = (
    "RECORDLEDGER_TOKEN",
    "RECORDLEDGER_TOKEN_FILE",
    "RECORDLEDGER_DATABASE_URL",
)


class ProcessEngine:
    """Runs tasks in processes of its own.

    Args:
        n_slots: maximum number of processes.
        settings: what the workers have to know.
        n_slots_min: how many to keep when there is less to do; None for all.
        idle_s: seconds without a task after which a process beyond these ends.
        threads_per_worker: how many threads numerical libraries may use in each process; None
            divides the processors of this machine, unless the environment has a number already.
        tasks_per_worker_max: number of tasks after which a slot gets a new process; None for never.
    """

    def __init__(
        self,
        n_slots: int,
        settings: WorkerSettings,
        *,
        n_slots_min: int | None = None,
        idle_s: float = 60.0,
        threads_per_worker: int | None = None,
        tasks_per_worker_max: int | None = None,
    ) -> None:
        if n_slots < 1:
            raise ValueError(f"an engine needs at least one slot, not {n_slots}")
        self._n_slots = n_slots
        self._n_slots_min = n_slots if n_slots_min is None else min(n_slots_min, n_slots)
        self._idle_s = idle_s
        self.failure: str | None = None
        self._tasks: queue.SimpleQueue[tuple[Task, Future[Report]] | None] = queue.SimpleQueue()
        self._folder = Path(tempfile.mkdtemp(prefix="recordledger-workers-"))
        self._closing = False
        self._settings = settings
        self._environment = _environment(n_slots, threads_per_worker)
        self._tasks_per_worker_max = tasks_per_worker_max
        self._numbers = itertools.count()
        self._slots: list[_Slot] = []
        self._leaving: list[_Slot] = []
        self._n_busy = 0
        self._lock = threading.Lock()
        with self._lock:
            for _ in range(self._n_slots_min):
                self._add_slot()

    def _add_slot(self) -> None:
        slot = _Slot(
            self,
            self._folder / str(next(self._numbers)),
            self._settings,
            self._environment,
            self._tasks_per_worker_max,
        )
        self._slots.append(slot)
        slot.start()

    @property
    def n_slots(self) -> int:
        """How many tasks run at the same time, when there are as many."""
        return self._n_slots

    @property
    def n_processes(self) -> int:
        """How many processes there are now, between the fewest and the most."""
        return len(self._slots)

    @property
    def closing(self) -> bool:
        """Whether the engine is being shut down."""
        return self._closing

    def submit(self, task: Task) -> Future[Report]:
        """Run the task when a process is free."""
        future = Future[Report]()
        if self.failure is not None:
            future.set_exception(EngineFailed(self.failure))
            return future
        with self._lock:
            self._tasks.put((task, future))
            n_free = len(self._slots) - self._n_busy
            may_grow = len(self._slots) < self._n_slots and not self._closing
            if may_grow and self._tasks.qsize() > n_free:
                self._add_slot()
        return future

    def next_task(self, slot: _Slot) -> tuple[Task, Future[Report]] | None:
        """Wait for the next task that was not cancelled; None when the slot has to go."""
        with self._lock:
            self._n_busy -= slot.busy
            slot.busy = False
        while True:
            try:
                item = self._tasks.get(timeout=self._idle_s)
            except queue.Empty:
                with self._lock:
                    if len(self._slots) > self._n_slots_min and self._tasks.empty():
                        self._slots.remove(slot)
                        self._leaving = [each for each in self._leaving if each.is_alive()]
                        self._leaving.append(slot)
                        return None
                continue
            if item is None:
                return None
            if item[1].set_running_or_notify_cancel():
                with self._lock:
                    self._n_busy += 1
                    slot.busy = True
                return item

    def fail(self, reason: str) -> None:
        """Take no more tasks, and refuse those that are in the queue."""
        self.failure = reason
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._tasks.get_nowait()
                if item is not None and item[1].set_running_or_notify_cancel():
                    item[1].set_exception(EngineFailed(reason))

    def cancel(self, future: Future[Report]) -> bool:
        """Return whether the task has not begun, and then it never will."""
        return future.cancel()

    def kill(self, future: Future[Report]) -> bool:
        """Kill the process that runs this task, with all that the task started in it."""
        with self._lock:
            slots = list(self._slots)
        return any(slot.kill(future) for slot in slots)

    def shutdown(self) -> None:
        """Cancel what has not begun, kill what runs, and wait until all processes are gone."""
        with self._lock:
            self._closing = True
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._tasks.get_nowait()
                if item is not None:
                    item[1].cancel()
        slots = [*self._slots, *self._leaving]
        for slot in slots:
            self._tasks.put(None)
            slot.kill_any()
        for slot in slots:
            slot.join()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Slot:
    """One place to run tasks, its process, and the thread that talks to it."""

    def __init__(
        self,
        engine: ProcessEngine,
        folder: Path,
        settings: WorkerSettings,
        environment: dict[str, str],
        tasks_per_worker_max: int | None,
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._settings = replace(settings, output_folder=str(folder))
        self._environment = environment
        self._tasks_per_worker_max = tasks_per_worker_max
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._current: Future[Report] | None = None
        self._killed = False
        self.busy = False
        self._thread = threading.Thread(target=self._run, name=f"slot {folder.name}", daemon=True)

    def start(self) -> None:
        self._folder.mkdir()
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def kill(self, future: Future[Report]) -> bool:
        with self._lock:
            if self._current is not future or self._worker is None:
                return False
            self._killed = True
            self._worker.kill()
            return True

    def kill_any(self) -> None:
        with self._lock:
            self._killed = True
            if self._worker is not None:
                self._worker.kill()

    def _run(self) -> None:
        try:
            while self._replace_worker() and (item := self._engine.next_task(self)) is not None:
                task, future = item
                with self._lock:
                    self._current = future
                self._run_one(task, future)
        finally:
            if self._worker is not None:
                self._worker.close()

    def _run_one(self, task: Task, future: Future[Report]) -> None:
        report: Report | None = None
        try:
            report = self._ask(task)
        except Exception:
            log.exception("a task could not be handed to a worker")
        with self._lock:
            self._current = None
            killed, self._killed = self._killed, self._engine.closing
        if killed and self._worker is not None:
            self._worker.close()  # the kill may have come when the task was just over
        if report is not None:
            future.set_result(report)
        elif killed:
            future.set_exception(CancelledError("the task was killed"))
        else:
            future.set_exception(EngineFailed(self._engine.failure or "the engine is closed"))

    def _ask(self, task: Task) -> Report | None:
        """Return the outcome of the task; None if it was killed, or never began."""
        request = json.dumps((task.function, task.kwargs)).encode()
        while (worker := self._worker) is not None:
            begun, report = worker.ask(request)
            if report is not None:
                return report
            with self._lock:
                if self._killed:
                    return None
            if begun:
                return self._death_report(worker)
            # It died between two tasks, so this one had no part in it.
            log.warning("a worker died before it began a task: %s", worker.cause_of_death())
            self._replace_worker()
        return None

    def _death_report(self, worker: _Worker) -> Report:
        cause = worker.cause_of_death()
        log.warning("a task ended its worker process: %s", cause)
        report = Report(
            error_type=WORKER_DIED,
            error_message=f"the function ended its worker process: {cause}",
            compute_s=worker.asked_s_ago(),
        )
        remains = read_remains(self._folder, self._settings.output_bytes_max)
        if (stdout := remains["stdout"]) is not None:
            report["stdout"] = stdout
        if (stderr := remains["stderr"]) is not None:
            report["stderr"] = stderr
        return report

    def _replace_worker(self) -> bool:
        """Make sure of a worker that lives; return False if there is none and will be none."""
        worker = self._worker
        if worker is not None:
            used_up = self._tasks_per_worker_max is not None and (
                worker.n_tasks >= self._tasks_per_worker_max
            )
            if worker.is_alive() and not used_up:
                return True
            worker.close()
            self._set_worker(None)
        cause = ""
        for attempt in range(STARTS_MAX):
            if self._engine.closing or self._engine.failure is not None:
                return False
            try:
                worker = _Worker(self._settings, self._environment)
            except OSError as error:
                cause = str(error)
            else:
                self._set_worker(worker)
                if worker.wait_until_ready():
                    return True
                cause = worker.cause_of_death()
                worker.close()
                self._set_worker(None)
            if not self._engine.closing:
                log.error("a worker did not start: %s", cause)
                time.sleep(0.1 * 4**attempt)
        if not self._engine.closing:
            by_hand = f"{sys.executable} -P -m {PROGRAM}"
            self._engine.fail(f"workers do not start: {cause}; to see the error, run: {by_hand}")
        return False

    def _set_worker(self, worker: _Worker | None) -> None:
        with self._lock:
            self._worker = worker
            if worker is not None and self._engine.closing:
                worker.kill()


class _Worker:
    """One process, and the channel to it."""

    def __init__(self, settings: WorkerSettings, environment: dict[str, str]) -> None:
        self.n_tasks = 0
        self._asked_at = 0.0
        lifeline, self._lifeline = _pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                pass_fds=() if lifeline is None else (lifeline,),
                # Ctrl-C in the terminal is for the manager; and what a task starts dies with it.
                start_new_session=sys.platform != "win32",
            )
        except OSError:
            self._close_lifeline()
            raise
        finally:
            if lifeline is not None:
                os.close(lifeline)
        self._requests: IO[bytes] = _there(self._process.stdin)
        self._answers: IO[bytes] = _there(self._process.stdout)
        hello = {"path": sys.path, "lifeline": lifeline, "settings": settings.as_dict()}
        self._send(json.dumps(hello).encode())
        # Children of a dead worker may hold the channel open; a reader would wait for them.
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)
        self._reaper.start()

    def _reap(self) -> None:
        self._process.wait()
        _kill_group(self._process.pid)

    def wait_until_ready(self) -> bool:
        """Return whether the process came up; what it prints before that is not for us."""
        deadline = threading.Timer(START_S_MAX, self.kill)
        deadline.daemon = True
        deadline.start()
        try:
            return any(line == READY for line in iter(self._answers.readline, b""))
        finally:
            deadline.cancel()

    def is_alive(self) -> bool:
        """Return whether the process has not ended, as far as anybody knows."""
        return self._process.returncode is None

    def ask(self, request: bytes) -> tuple[bool, Report | None]:
        """Return whether the task began, and its outcome; None if the process died instead."""
        self.n_tasks += 1
        self._asked_at = time.perf_counter()
        if not self._send(request) or read_frame(self._answers) is None:
            return False, None
        answer = read_frame(self._answers)
        report: Report | None = None
        if answer is not None:
            with contextlib.suppress(ValueError):  # the task wrote into the channel
                report = msgpack.unpackb(answer)
        return True, report

    def asked_s_ago(self) -> float:
        """Return how long ago the last task was sent."""
        return time.perf_counter() - self._asked_at

    def _send(self, data: bytes) -> bool:
        try:
            write_frame(self._requests, data)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        if self._process.returncode is None:
            _kill_group(self._process.pid)
            self._process.kill()

    def close(self) -> None:
        """End the process and free what is held for it."""
        self.kill()
        self._reaper.join()
        for close in (self._requests.close, self._answers.close, self._close_lifeline):
            with contextlib.suppress(OSError):
                close()

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def cause_of_death(self) -> str:
        """Return how the process ended, in words. It is about to end, or is of no use any more."""
        try:
            status = self._process.wait(DEATH_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the pipe to its manager was closed or corrupted"
        if status >= 0:
            return f"exit code {status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            return f"signal {-status} ({name}){_HINTS.get(name, '')}"
        return f"signal {-status}"


_HINTS: Final = {
    "SIGKILL": "; the kernel may have killed it for lack of memory",
    "SIGSEGV": "; compiled code accessed invalid memory",
}


def _kill_group(pid: int) -> None:
    """Kill the process and all that it has started, unless they left its session."""
    kill_group: Callable[[int, int], None] | None = getattr(os, "killpg", None)
    if kill_group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill_group(pid, signal.SIGKILL)


def _pipe() -> tuple[int | None, int | None]:
    """Return a pipe of which a child may inherit the reading end, where that is possible."""
    return os.pipe() if sys.platform != "win32" else (None, None)


def _there(file: IO[bytes] | None) -> IO[bytes]:
    if file is None:
        raise AssertionError("a pipe was asked for")
    return file


def _environment(n_slots: int, threads_per_worker: int | None) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in SECRET_VARIABLES}
    n_threads = str(threads_per_worker or max(1, processor_count() // n_slots))
    for variable in THREAD_VARIABLES:
        if threads_per_worker is not None or variable not in environment:
            environment[variable] = n_threads
    return environment


def processor_count() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
