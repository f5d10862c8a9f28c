"""An engine on top of any `concurrent.futures.Executor`.

The executor is a transport and nothing more. What runs, what has begun and how it ended is known
from the tickets and from what the workers say, never from the executor's own idea of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgpack

from recordledger import __version__

from ..tasks.capture import read_remains
from ..tasks.running import Report, WorkerSettings
from .cluster import Cluster
from .engine import WORKER_DIED, EngineFailed, Task
from .errand import ErrandOutcome, Introduction, carry_out, errand, introduce
from .premises import Premises
from .tickets import Begun, Tickets

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
CHECK_S: Final = 1.0
# What a worker said last may still be on its way when it has died.
DEAD_S_MIN: Final = 1.5
START_S_MAX: Final = 60.0
CLOSE_S_MAX: Final = 15.0
CLOSE_FAILED_S_MAX: Final = 3.0
FALSE_STARTS_MAX: Final = 5
RESTARTS_MAX: Final = 10
DYING_S_MAX: Final = 0.2


@dataclass(eq=False, slots=True)
class _Item:
    """A task, from when it was submitted until its future is done."""

    task: Task
    future: Future[Report]
    ticket: int = 0
    handed_at: float = 0.0
    generation: int | None = None
    n_false_starts: int = 0
    n_restarts: int = 0
    is_killed: bool = False
    seen_dead_at: float | None = None


class ExecutorEngine:
    """Runs tasks through an executor, which brings its own workers and its own idea of failure.

    A task whose worker died has the error `WorkerDied`, and is not run again by the engine, also
    where the executor would. A task that the executor lost before it began is handed to it again.
    When the executor itself dies, or shows no heartbeat, the engine fails.

    Args:
        cluster: what runs the tasks; the engine starts and closes it.
        settings: what the workers have to know.
        n_slots: how many tasks to run at the same time; None for as many as there are workers.
        shared_folder: a folder that this machine and all workers see; needed to know what has
            begun where the workers are not ours. Without it, what is lost counts as begun.
        threads_per_worker: for numerical libraries, in workers of ours; None divides the
            processors.
        silence_s_max: how long the executor may show no heartbeat.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: WorkerSettings,
        *,
        n_slots: int | None = None,
        shared_folder: Path | None = None,
        threads_per_worker: int | None = None,
        silence_s_max: float = 30.0,
    ) -> None:
        self.failure: str | None = None
        self._cluster = cluster
        self._settings = settings
        self._n_slots = n_slots
        self._silence_s_max = silence_s_max
        self._premises = Premises(n_slots or 1, threads_per_worker)
        self._tickets: Tickets | None = None
        if cluster.is_ours:
            self._tickets = Tickets(self._premises.folder / "tickets")
        elif shared_folder is not None:
            self._tickets = Tickets(shared_folder / self._premises.mark.lower())
        self._lock = threading.Condition()
        self._waiting: deque[_Item] = deque()
        self._handed: dict[Future[Report], _Item] = {}
        self._n_in_executor = 0
        self._n_workers = 0
        self._is_ready = False
        self._closing = threading.Event()
        self._has_started = threading.Event()
        self._heard_at: float | None = None
        self._busy_since: float | None = None
        self._dead: dict[Future[Report], Report] = {}
        self._has_news = threading.Event()
        self._judge_at = 0.0
        self._judged: int | None = None
        self._started_at = time.monotonic()
        for work in (self._hand_out, self._check, self._watch):
            threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            log.exception("a thread of the engine ended")
            self._fail(f"the engine cannot go on: {type(error).__name__}: {error}")

    @property
    def n_slots(self) -> int:
        """How many tasks run at the same time; 0 while there are no workers."""
        if not self._is_ready:
            return 0
        return self._n_workers if self._n_slots is None else self._n_slots

    @property
    def premises(self) -> Premises:
        """Where the engine lives on this machine."""
        return self._premises

    # What the manager asks for

    def submit(self, task: Task) -> Future[Report]:
        """Run the task when a worker is free."""
        item = _Item(task, Future[Report]())
        with self._lock:
            if self.failure is None and not self._closing.is_set():
                self._waiting.append(item)
                self._lock.notify_all()
                return item.future
        item.future.set_exception(EngineFailed(self.failure or "the engine is closed"))
        return item.future

    def cancel(self, future: Future[Report]) -> bool:
        """Return whether the task has not begun, and then it never will.

        The executor is not asked: some raise, and some run a task that they said was cancelled.
        """
        with self._lock:
            for item in self._waiting:
                if item.future is future:
                    self._waiting.remove(item)
                    break
            else:
                handed = self._handed.get(future)
                if handed is None or self._tickets is None:
                    return False
                if not self._tickets.withdraw(handed.ticket):
                    return False
                del self._handed[future]
        return future.cancel()

    def kill(self, future: Future[Report]) -> bool:
        """Kill the worker that runs this task, where it is ours and is replaced."""
        with self._lock:
            item = self._handed.get(future)
        if item is None or self._tickets is None or not self._cluster.may_kill:
            return False
        begun = self._tickets.begun().get(item.ticket)
        if begun is None:
            return False
        item.is_killed = True
        return begun.kill()

    def shutdown(self) -> None:
        """End now: cancel what has not begun, kill what runs, and wait until all is gone."""
        with self._lock:
            self._closing.set()
            self._has_news.set()
            left = self._take_all()
        for future in left:
            if not future.cancel():
                _settle(future, error=CancelledError("the engine was shut down"))
        # No library is waited for without end: what it leaves is killed.
        closing = threading.Thread(target=self._close_cluster, name="engine closing", daemon=True)
        closing.start()
        close_s_max = CLOSE_S_MAX if self.failure is None else CLOSE_FAILED_S_MAX
        closing.join(close_s_max)
        if closing.is_alive():
            log.warning("%s did not end within %g s", self._cluster.name, close_s_max)
        if self._tickets is not None:
            self._tickets.remove()
        self._premises.close(may_come_more=closing.is_alive())

    def _close_cluster(self) -> None:
        self._has_started.wait()
        try:
            self._cluster.close()
        except Exception as error:  # noqa: BLE001, RUF100 - each library has errors of its own
            log.warning("%s did not end properly: %r", self._cluster.name, error)

    # A thread that talks to the executor

    def _hand_out(self) -> None:
        try:
            self._cluster.start(self._premises.folder)
        except Exception as error:
            log.debug("the engine does not start", exc_info=True)
            self._fail(f"{self._cluster.name} does not start: {type(error).__name__}: {error}")
            return
        finally:
            self._has_started.set()
        self._heard_at = time.monotonic()
        self._wait_for_worker(FALSE_STARTS_MAX)
        while (item := self._next()) is not None:
            self._hand(item)

    def _wait_for_worker(self, attempts: int, error: BaseException | None = None) -> None:
        """Let a worker introduce itself: nothing is handed out before one can do that."""
        if attempts == 0:
            self._fail(f"no worker of {self._cluster.name} can run tasks: {error!r}")
            return
        folder = None if self._tickets is None else str(self._tickets.folder)
        try:
            future = self._cluster.submit(introduce, json.dumps(folder).encode())
        except Exception as failure:  # noqa: BLE001, RUF100 - each executor has errors of its own
            self._wait_for_worker(attempts - 1, failure)
        else:
            future.add_done_callback(partial(self._introduced, attempts))

    def _introduced(self, attempts: int, future: Future[bytes]) -> None:
        try:
            found: Introduction = msgpack.unpackb(future.result())
        except BaseException as error:  # noqa: BLE001, RUF100 - as above
            if not self._closing.is_set():
                again = threading.Thread(
                    target=self._wait_for_worker, args=(attempts - 1, error), daemon=True
                )
                again.start()
            return
        if not found["sees_folder"]:
            folder = None if self._tickets is None else self._tickets.folder
            self._fail(f"a worker on {found['hostname']} does not see {folder}")
            return
        if found["version"] != __version__:
            log.warning(
                "the workers have recordledger %s, and this manager %s",
                found["version"],
                __version__,
            )
        with self._lock:
            self._is_ready = True
            self._lock.notify_all()

    def _next(self) -> _Item | None:
        """Wait for a task and for room in the executor; None when there is nothing more to do."""
        with self._lock:
            while not self._closing.is_set() and self.failure is None:
                # One ahead for each worker, if it can still be cancelled there.
                room = self.n_slots * (1 if self._tickets is None else 2)
                if self._waiting and self._is_ready and self._n_in_executor < room:
                    item = self._waiting.popleft()
                    self._n_in_executor += 1
                    self._handed[item.future] = item
                    item.ticket = 0 if self._tickets is None else self._tickets.issue()
                    item.handed_at = time.perf_counter()
                    item.seen_dead_at = None
                    return item
                self._lock.wait()
        return None

    def _hand(self, item: _Item) -> None:
        ticket = self._tickets.path(item.ticket) if self._tickets is not None else None
        settings = self._settings.as_dict()
        request = errand(item.task.function, item.task.kwargs, settings, ticket)
        self._busy_since = time.monotonic()
        try:
            inner = self._cluster.submit(carry_out, request)
        except Exception as error:  # noqa: BLE001, RUF100 - each executor has errors of its own
            with self._lock:
                self._n_in_executor -= 1
            self._lost(item, item.ticket, f"{type(error).__name__}: {error}", was_taken=False)
        else:
            item.generation = self._cluster.generation
            inner.add_done_callback(partial(self._done, item, item.ticket))
        finally:
            self._busy_since = None

    # What comes back

    def _done(self, item: _Item, ticket: int, inner: Future[bytes]) -> None:
        try:
            value = inner.result()
        except BaseException as error:  # noqa: BLE001, RUF100 - each executor has errors of its own
            self._returned(item, ticket, error)
            return
        try:
            outcome: ErrandOutcome = msgpack.unpackb(value)
        except (ValueError, TypeError) as error:
            self._returned(item, ticket, error)
        else:
            self._returned(item, ticket, outcome)

    def _returned(self, item: _Item, ticket: int, outcome: ErrandOutcome | BaseException) -> None:
        """Take what the executor gave back of one errand: of the present one, or of a former."""
        with self._lock:
            self._n_in_executor -= 1
            is_present = item.ticket == ticket and item.future in self._handed
            self._lock.notify_all()
        if isinstance(outcome, BaseException):
            if is_present:
                self._lost(item, ticket, f"{type(outcome).__name__}: {outcome}")
            return
        begun = Begun(*outcome["begun"]) if "begun" in outcome else None
        if self._tickets is not None and begun is not None:
            self._tickets.discard(ticket, begun)
        if not is_present:
            return
        if "missing_folder" in outcome:
            self._fail(outcome["missing_folder"])
        elif "report" in outcome:
            if self._claim_back(item, ticket):
                _settle(item.future, report=outcome["report"])
        else:
            self._lost(item, ticket, "the task would run a second time")

    def _claim_back(self, item: _Item, ticket: int) -> bool:
        """Return whether it is for the caller to settle this task; for one caller it is."""
        with self._lock:
            if item.ticket != ticket or self._handed.get(item.future) is not item:
                return False
            del self._handed[item.future]
            return True

    def _lost(self, item: _Item, ticket: int, cause: str, *, was_taken: bool = True) -> None:
        """Settle a task of which no result will come, or submit it again.

        Args:
            item: which task.
            ticket: the one that it had.
            cause: why no result will come.
            was_taken: whether the executor has ever had it.
        """
        if not self._claim_back(item, ticket):
            return
        begun: Begun | None = None
        is_withdrawn = self._tickets is not None and self._tickets.withdraw(ticket)
        if is_withdrawn or not was_taken:
            self._again(item, cause)
            return
        if self._tickets is not None:
            begun = self._tickets.begun().get(ticket)
        if self._closing.is_set():
            _settle(item.future, error=CancelledError("the engine was shut down"))
        elif item.is_killed:
            _settle(item.future, error=CancelledError("the task was killed"))
        elif begun is not None and self._is_lost_with_another(item, begun):
            log.warning("a task starts again, as another task ended the whole pool")
            item.n_restarts += 1
            self._again(item, cause, is_false_start=False)
        else:
            # If it is the engine that died, the task is not to blame: the next heartbeat shows it.
            report = self._death_report(item, begun, cause)
            with self._lock:
                if is_alive := self.failure is None and not self._closing.is_set():
                    self._dead[item.future] = report
            if is_alive:
                self._has_news.set()
            else:
                _settle(item.future, error=EngineFailed(self.failure or "the engine is closed"))
        if self._tickets is not None and begun is not None:
            self._tickets.discard(ticket, begun)

    def _is_lost_with_another(self, item: _Item, begun: Begun) -> bool:
        """Return whether a task is lost only because its executor ends all workers if one dies.

        It reports that before it ends them, so those that live are not the cause. One that is dying
        may take a moment, for which one waits once in each generation, not for each of its tasks.
        """
        if item.generation is None or item.n_restarts >= RESTARTS_MAX:
            return False
        if item.generation != self._judged:
            self._judged = item.generation
            self._judge_at = time.monotonic() + DYING_S_MAX
        while begun.is_alive():
            if time.monotonic() >= self._judge_at:
                return True
            time.sleep(0.005)
        return False

    def _again(self, item: _Item, cause: str, *, is_false_start: bool = True) -> None:
        item.n_false_starts += is_false_start
        with self._lock:
            if not self._closing.is_set() and self.failure is None:
                self._waiting.appendleft(item)
                self._lock.notify_all()
                is_waiting = True
            else:
                is_waiting = False
        if not is_waiting:
            _settle(item.future, error=EngineFailed(self.failure or "the engine is closed"))
        elif item.n_false_starts > FALSE_STARTS_MAX:
            self._fail(f"{self._cluster.name} loses tasks before they start: {cause}")

    def _death_report(self, item: _Item, begun: Begun | None, cause: str) -> Report:
        where = f": process {begun.pid} on {begun.hostname}" if begun is not None else ""
        log.warning("a task lost its worker%s; %s", where, cause)
        report = Report(
            error_type=WORKER_DIED,
            error_message=f"the worker that ran the function died{where}; {cause}",
            compute_s=time.perf_counter() - item.handed_at,
        )
        if begun is not None and self._tickets is not None:
            folder = begun.output_folder(self._tickets.folder)
            if folder.is_dir():
                remains = read_remains(folder, self._settings.output_bytes_max)
                if (stdout := remains["stdout"]) is not None:
                    report["stdout"] = stdout
                if (stderr := remains["stderr"]) is not None:
                    report["stderr"] = stderr
                shutil.rmtree(folder, ignore_errors=True)
        return report

    # Threads that look whether all is well

    def _check(self) -> None:
        """Ask the cluster for heartbeats. This may hang; `_watch` sees that."""
        while not self._closing.is_set():
            self._has_news.wait(CHECK_S if self._n_workers else LOOK_S)
            self._has_news.clear()
            if self._heard_at is None:
                continue
            with self._lock:
                dead = dict(self._dead)
            try:
                wrong = self._cluster.check()
                n_workers = self._cluster.n_workers()
            except Exception as error:  # noqa: BLE001, RUF100 - each library has errors of its own
                log.debug("no heartbeat from %s: %r", self._cluster.name, error)
                self._closing.wait(LOOK_S)
                continue
            if wrong is not None:
                self._fail(wrong)
                return
            self._heard_at = time.monotonic()
            with self._lock:
                self._n_workers = n_workers
                for future in dead:
                    self._dead.pop(future, None)
                self._lock.notify_all()
            for future, report in dead.items():
                _settle(future, report=report)

    def _watch(self) -> None:
        """See whether what was handed out still runs, and whether the executor still answers."""
        while not self._closing.wait(LOOK_S) and self.failure is None:
            now = time.monotonic()
            started, heard, busy = self._started_at, self._heard_at, self._busy_since
            if not self._is_ready and self._cluster.is_ours and now > started + START_S_MAX:
                self._fail(f"{self._cluster.name} was not ready within {START_S_MAX:g} s")
            for since in (heard, busy):
                if since is not None and now > since + self._silence_s_max:
                    silence_s = self._silence_s_max
                    self._fail(f"no heartbeat from {self._cluster.name} for {silence_s:g} s")
            if self._cluster.is_ours:
                self._look_for_dead(now)

    def _look_for_dead(self, now: float) -> None:
        """Notice workers that died, which some executors say late, or never."""
        with self._lock:
            handed = list(self._handed.values())
        if not handed or self._tickets is None:
            return
        taken = self._tickets.begun()
        for item in handed:
            begun = taken.get(item.ticket)
            if begun is None or begun.is_alive():
                continue
            if item.seen_dead_at is None:
                item.seen_dead_at = now
            elif now > item.seen_dead_at + DEAD_S_MIN:
                self._lost(item, item.ticket, "its process is gone")

    def _fail(self, reason: str) -> None:
        """Give up: the manager has to take the tasks elsewhere."""
        with self._lock:
            if self._closing.is_set() or self.failure is not None:
                return
            self.failure = reason
            left = self._take_all()
        log.error("the engine fails: %s", reason)
        for future in left:
            _settle(future, error=EngineFailed(reason))

    def _take_all(self) -> list[Future[Report]]:
        """Return what is not settled, for the caller to settle; with the lock held."""
        left = [*(item.future for item in self._waiting), *self._handed, *self._dead]
        self._waiting.clear()
        self._handed.clear()
        self._dead.clear()
        self._lock.notify_all()
        return left


def _settle(
    future: Future[Report], *, report: Report | None = None, error: BaseException | None = None
) -> None:
    """Finish a future, unless it is finished already."""
    with contextlib.suppress(InvalidStateError):
        if not future.set_running_or_notify_cancel():
            return
        if report is not None:
            future.set_result(report)
        else:
            future.set_exception(error)
