"""The manager: claims tasks over HTTP, runs them in an engine, and returns the results.

The thread of `ManagerAgent.run` owns all the state and reacts to messages. The others only talk to
the server: one claims and relinquishes, one returns results (`delivery.py`), one sends heartbeats.
So a server that does not answer stops none of the computing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final, TypeAlias

from recordledger.api.client import Client, ClientError, Refused, Server
from recordledger.api.schemas.claims import AttemptRef
from recordledger.api.schemas.presence import RegisterAnswer

from ..engines import Engine, EngineFailed, EngineUnavailable, Task, engine_starter
from ..tasks.allowlist import AllowList
from ..tasks.running import Report, WorkerSettings
from .config import ManagerConfig
from .delivery import Delivered, Delivery, size_bytes
from .pace import Pace
from .programs import Programs, Surveyor, survey
from .server_threads import ClaimReply, ClaimThread, Draining, NotActive, Pulse, Registered, Stale
from .slurm import stop_reasons
from .spool import Spool

__all__ = ["ManagerAgent", "ManagerConfig", "run_manager"]

log = logging.getLogger(__name__)

RETRIES_S: Final = 10.0
# It comes again anyway, and then writes to disk what is in memory only.
DELIVERY_RETRIES_S: Final = 4.0
SHORT_RETRIES_S: Final = 2.0
TIMEOUT_S: Final = 30.0
SHORT_TIMEOUT_S: Final = 10.0
PULSE_TIMEOUT_S_MIN: Final = 0.5
HELD_MAX: Final = 100_000
# Beside the result, a request has room for output and traceback.
_BODY_RESERVE_BYTES: Final = 3 * 1024 * 1024


def run_manager(config: ManagerConfig) -> int:
    """Run a manager until a signal stops it; return its exit status.

    0: it was stopped, and has given back what it had. 1: it could not begin or go on, or could
    not give back what it had.
    """
    try:
        return ManagerAgent(config).run()
    except (ClientError, EngineUnavailable, ValueError) as error:
        log.error("the manager cannot start: %s", error)  # noqa: TRY400
        return 1


@dataclass(eq=False, slots=True)
class HeldAttempt:
    """An attempt that this manager has: to run, running, or with its result not acknowledged."""

    manager_id: int
    record_id: int
    attempt: int
    held_at: float
    future: Future[Report] | None = None

    @property
    def ref(self) -> tuple[int, int]:
        """Record and attempt."""
        return self.record_id, self.attempt


@dataclass(frozen=True, slots=True)
class Finished:
    """The engine is done with a task."""

    held: HeldAttempt


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Handle a signal to end; the second one ends at once."""

    reason: str


@dataclass(frozen=True, slots=True)
class ProgramsFound:
    """There are other programs on this machine than before."""

    programs: Programs


Message: TypeAlias = (
    Finished
    | ClaimReply
    | Registered
    | Stale
    | NotActive
    | Draining
    | Delivered
    | ProgramsFound
    | StopRequested
)


class ManagerAgent:
    """Claims tasks, runs them, and returns their outcomes.

    Args:
        config: its settings.
        start_engine: makes the engine from the settings of its workers; None for what the
            configuration says.

    Raises:
        EngineUnavailable: there is no engine as the configuration says.
    """

    def __init__(
        self,
        config: ManagerConfig,
        start_engine: Callable[[WorkerSettings], Engine] | None = None,
    ) -> None:
        self.manager_id: int | None = None
        self._config = config
        self._start_engine = start_engine or engine_starter(
            config.engine,
            n_workers=config.n_workers,
            n_workers_min=config.n_workers_min,
            address=config.engine_address,
            shared_folder=config.engine_folder,
            threads_per_worker=config.threads_per_worker,
            tasks_per_worker_max=config.tasks_per_worker_max,
            silence_s_max=config.engine_silence_s,
        )
        self._programs = self._survey()
        # Unlike Queue, a SimpleQueue may be put to from a signal handler.
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._held: dict[tuple[int, int], HeldAttempt] = {}
        self._held_lock = threading.Lock()
        self._in_engine: dict[tuple[int, int], HeldAttempt] = {}
        self._finished: dict[int, list[dict[str, Any]]] = {}
        self._flush_at: float | None = None
        self._is_claiming = False
        self._is_registering = False
        self._is_overfull = False
        self._n_stops = 0
        self._stop_by: float | None = None
        self._stop_reason = "the manager has ended"
        self._worked_at = time.monotonic()
        self._exit_status = 0
        self._register_at = 0.0
        self._pace = Pace(
            poll_min_s=config.poll_min_s,
            poll_max_s=config.poll_max_s,
            prefetch_s=config.prefetch_s,
            prefetch_max=config.prefetch_max,
        )
        self._n_done = self._n_errors = 0
        self._batch_bytes = 0
        self._heartbeat_s = 30.0
        self._summary_at = time.monotonic() + config.summary_s

    # The life of a manager

    def stop(self, reason: str = "the manager was told to stop") -> None:
        """Ask the manager to end: gracefully the first time, at once the second. Never waits.

        Args:
            reason: why; it stands in the history of what is given back.
        """
        self._inbox.put(StopRequested(reason))

    def _survey(self) -> Programs:
        """Return what this machine can run. Threads may call this."""
        found = survey(self._config.wanted)
        return {**AllowList(self._config.allow).programs, **found}

    def run(self) -> int:
        """Run until told to stop, by `stop` or by SIGTERM or SIGINT; return the exit status.

        Raises:
            Refused: the server does not take this manager at all.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_signals(self.stop))
            self._control = stack.enter_context(self._client(SHORT_RETRIES_S, SHORT_TIMEOUT_S))
            found = self._reach_server()
            if found is None:
                return 0
            self._begin(*found, stack)
            while not self._is_over():
                self._step()
            return self._end()

    def _reach_server(self) -> tuple[Server, RegisterAnswer] | None:
        """Wait until the server knows this manager; return None if told to stop meanwhile."""
        pause_s = self._config.poll_min_s
        while True:
            try:
                return self._control.server(), self._register(self._control)
            except Refused:
                raise
            except ClientError as error:
                log.warning("waiting for the server: %s", error)
            pause_s = min(2 * pause_s, 10.0)
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=pause_s * random.uniform(0.5, 1))  # noqa: S311
                if isinstance(message, StopRequested):
                    return None

    def _begin(
        self, server: Server, registered: RegisterAnswer, stack: contextlib.ExitStack
    ) -> None:
        config, limits = self._config, server.limits
        settings = WorkerSettings(
            patterns=config.allow,
            programs=self._programs,
            output_bytes_max=min(config.output_bytes_max, limits.payload_bytes),
            result_bytes_max=max(
                1024, min(limits.payload_bytes, limits.body_bytes - _BODY_RESERVE_BYTES)
            ),
        )
        self._results_max = min(config.results_per_return, limits.results_per_request)
        self._batch_bytes_max = limits.body_bytes // 4
        self._claim_max = limits.claim_per_request
        self._spool = Spool(config.state_dir / "spool", server.ledger_id)
        stack.callback(self._spool.close)
        self._take_registered(registered)
        self._delivery = Delivery(
            self._client(DELIVERY_RETRIES_S), self._spool, limits.body_bytes, self._inbox.put
        )
        stack.callback(self._delivery.end)
        self._desk = ClaimThread(
            self._client(timeout_s=SHORT_TIMEOUT_S), self._register, self._inbox.put
        )
        stack.callback(self._desk.end)
        # A heartbeat that gets no answer must leave time for others before the lease is over.
        pulse_timeout_s = min(SHORT_TIMEOUT_S, max(PULSE_TIMEOUT_S_MIN, registered.lease_s / 4))
        pulse_client = self._client(SHORT_RETRIES_S, pulse_timeout_s)
        self._pulse = Pulse(pulse_client, self._heartbeat_facts, self._inbox.put)
        stack.callback(self._pulse.end)
        surveyor = Surveyor(
            self._survey,
            lambda programs: self._inbox.put(ProgramsFound(programs)),
            config.survey_s,
            self._programs,
        )
        stack.callback(surveyor.end)
        # The last to come and the first to go: what it leaves is given back by the others.
        self._engine = self._start_engine(settings)
        stack.callback(self._engine.shutdown)
        for batch in self._spool.left_behind():
            log.info("returning results that manager %d left behind", batch.manager_id)
            self._delivery.put(batch)
        # All threads exist, and each is closed by the stack; none has started before this.
        self._delivery.start()
        self._desk.start()
        self._pulse.start()
        surveyor.start()
        self._worked_at = time.monotonic()

    def _client(self, retries_s: float = RETRIES_S, timeout_s: float = TIMEOUT_S) -> Client:
        config = self._config
        return Client(
            config.url,
            config.token,
            token_file=config.token_file,
            timeout_s=timeout_s,
            retries_s=retries_s,
            progress=False,
        )

    def _register(self, client: Client) -> RegisterAnswer:
        """Get an id from the server. Threads may call this."""
        config = self._config
        return client.register_manager(
            config.name,
            config.tags,
            self._programs,
            hostname=platform.node() or "localhost",
            lease_s=config.lease_s,
            heartbeat_s=config.heartbeat_s,
        )

    def _take_registered(self, answer: RegisterAnswer) -> None:
        config = self._config
        self.manager_id = answer.manager_id
        self._heartbeat_s = answer.heartbeat_s
        self._spool.own(answer.manager_id)
        log.info(
            "manager %d (%s): tags %s; engine %s; lease %g s, heartbeat every %g s; programs %s",
            answer.manager_id,
            config.name,
            ", ".join(config.tags),
            config.engine,
            answer.lease_s,
            answer.heartbeat_s,
            _listed(self._programs),
        )

    def _is_over(self) -> bool:
        if self._stop_by is None:
            return False
        return not self._in_engine or time.monotonic() >= self._stop_by

    def _end(self) -> int:
        """Return running tasks unfinished, deliver the rest, and report the end."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._react(self._inbox.get_nowait())
        if self._in_engine:
            log.warning(
                "%d running tasks are stopped and returned unfinished", len(self._in_engine)
            )
        for held in list(self._in_engine.values()):
            self._end_task(held)
        self._flush()
        n_left = self._delivery.drain(0.5 if self._n_stops > 1 else self._config.deliver_s)
        if n_left:
            log.warning("%d batches of results stay on disk for the next manager here", n_left)
        if unsaved_bytes := self._delivery.unsaved_bytes:
            log.error(
                "about %d bytes of results are lost: neither the server nor the disk takes them",
                unsaved_bytes,
            )
        self._pulse.end()
        if self.manager_id is not None:
            try:
                requeued = self._control.deactivate_manager(self.manager_id, self._stop_reason)
            except ClientError as error:
                log.warning(
                    "the manager could not report its end; its lease will expire: %s", error
                )
                return 1
            log.info(
                "manager %d ends: %d tasks done, %d of them with an error, %d returned unfinished",
                self.manager_id,
                self._n_done,
                self._n_errors,
                len(requeued),
            )
        return self._exit_status

    # One step: handle what the threads reported

    def _step(self) -> None:
        self._handle_messages()
        now = time.monotonic()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush()
        if self._engine.failure is not None:
            self._fail(self._engine.failure)
        if self._stop_by is None:
            if self.manager_id is None and not self._is_registering and now >= self._register_at:
                self._is_registering = True
                self._desk.register()
            self._relinquish_if_stuck(now)
            self._claim_if_free(now)
            self._stop_if_idle(now)
        if now >= self._summary_at:
            self._summarize(now)

    def _handle_messages(self) -> None:
        with contextlib.suppress(queue.Empty):
            message = self._inbox.get(timeout=self._patience_s())
            # A few more at once, but not without end: there are other things to do.
            for _ in range(self._results_max):
                self._react(message)
                message = self._inbox.get_nowait()
            self._react(message)

    def _patience_s(self) -> float:
        """Return for how long nothing needs to be done unless something happens."""
        now = time.monotonic()
        times = [now + 1.0]
        if self._flush_at is not None:
            times.append(self._flush_at)
        if self._stop_by is not None:
            times.append(self._stop_by)
        elif self.manager_id is not None and not self._is_claiming and self._n_to_claim() > 0:
            times.append(self._pace.claim_at)
        return max(0.0, min(times) - now)

    def _react(self, message: Message) -> None:
        match message:
            case Finished(held=held):
                self._take_report(held)
            case ClaimReply():
                self._take_claimed(message)
            case Registered(answer=answer, retry_s=retry_s):
                self._is_registering = False
                self._register_at = time.monotonic() + retry_s
                if answer is not None:
                    self._take_registered(answer)
            case Delivered(refs=refs, n_accepted=n_accepted):
                with self._held_lock:
                    for ref in refs:
                        self._held.pop(ref, None)
                if n_accepted:
                    self._pace.look_again(time.monotonic())
            case Stale(refs=refs):
                self._drop(refs)
            case NotActive(manager_id=manager_id):
                self._start_over(manager_id)
            case Draining(manager_id=manager_id):
                self._drain(manager_id)
            case ProgramsFound(programs=programs):
                self._change_programs(programs)
            case StopRequested(reason=reason):
                self._stop_requested(reason)

    def _heartbeat_facts(self) -> tuple[int | None, float, list[AttemptRef]]:
        """Return what a heartbeat says: who, how often, and what is held."""
        manager_id = self.manager_id
        with self._held_lock:
            held = [
                AttemptRef.model_construct(record_id=held.record_id, attempt=held.attempt)
                for held in self._held.values()
                if held.manager_id == manager_id
            ]
        return manager_id, self._heartbeat_s, held[:HELD_MAX]

    # Claiming

    def _n_to_claim(self) -> int:
        return self._pace.n_to_claim(len(self._in_engine), self._engine.n_slots, time.monotonic())

    def _claim_if_free(self, now: float) -> None:
        if self.manager_id is None or self._is_claiming or now < self._pace.claim_at:
            return
        if self._has_too_much():
            self._pace.claim_at = now + self._config.poll_max_s
        elif (room := self._n_to_claim()) > 0:
            self._is_claiming = True
            self._desk.claim(self.manager_id, min(room, self._claim_max))

    def _has_too_much(self) -> bool:
        """Return whether there are as many results as can be held; say so when that changes."""
        unsaved_bytes = self._delivery.unsaved_bytes
        is_overfull = unsaved_bytes > self._config.unsaved_bytes_max or len(self._held) >= HELD_MAX
        if is_overfull and not self._is_overfull:
            log.error(
                "not claiming until the server accepts results: %d are waiting, about %d bytes of "
                "them only in memory",
                len(self._held) - len(self._in_engine),
                unsaved_bytes,
            )
        self._is_overfull = is_overfull
        return is_overfull

    def _take_claimed(self, claimed: ClaimReply) -> None:
        self._is_claiming = False
        now = time.monotonic()
        if claimed.tasks is None:
            self._pace.claim_at = now + claimed.retry_s
            return
        self._pace.claimed(len(claimed.tasks), now)
        if claimed.tasks:
            log.debug("claimed %d tasks, of at most %d", len(claimed.tasks), claimed.limit)
        if self._stop_by is not None or claimed.manager_id != self.manager_id:
            refs = [(task.record_id, task.attempt) for task in claimed.tasks]
            self._desk.relinquish(claimed.manager_id, refs, self._stop_reason)
            return
        for task in claimed.tasks:
            held = HeldAttempt(claimed.manager_id, task.record_id, task.attempt, now)
            with self._held_lock:
                self._held[held.ref] = held
            self._in_engine[held.ref] = held
            held.future = self._engine.submit(Task(task.function, task.kwargs))
            held.future.add_done_callback(partial(self._post_finished, held))

    def _post_finished(self, held: HeldAttempt, _: Future[Report]) -> None:
        self._inbox.put(Finished(held))

    def _relinquish_if_stuck(self, now: float) -> None:
        """Give back what did not begin, when what runs takes long: others may have room for it."""
        is_full = len(self._in_engine) > self._engine.n_slots
        if is_full and self._pace.idle_s(now) > self._config.hold_s:
            self._relinquish_waiting("this manager is busy with longer tasks")

    def _relinquish_waiting(self, reason: str) -> None:
        waiting = [
            held
            for held in self._in_engine.values()
            if held.future is not None and self._engine.cancel(held.future)
        ]
        self._forget(waiting)
        by_manager: dict[int, list[tuple[int, int]]] = {}
        for held in waiting:
            by_manager.setdefault(held.manager_id, []).append(held.ref)
        for manager_id, refs in by_manager.items():
            log.info("returning %d tasks unfinished: %s", len(refs), reason)
            self._desk.relinquish(manager_id, refs, reason)

    def _forget(self, gone: Iterable[HeldAttempt]) -> None:
        with self._held_lock:
            for held in gone:
                self._held.pop(held.ref, None)
                self._in_engine.pop(held.ref, None)

    def _drop(self, refs: Iterable[tuple[int, int]]) -> None:
        """Run no further what is not ours. What has a result is returned, for it may be rescued."""
        dropped = [self._in_engine[ref] for ref in refs if ref in self._in_engine]
        if not dropped:
            return
        log.info("%d tasks no longer belong to this manager and are dropped", len(dropped))
        for held in dropped:
            self._end_task(held)
        # A task that cannot be killed goes on, and its result goes back as a late one.
        self._forget(held for held in dropped if held.future and held.future.cancelled())

    def _end_task(self, held: HeldAttempt) -> None:
        if held.future is not None and not self._engine.cancel(held.future):
            self._engine.kill(held.future)

    def _start_over(self, manager_id: int) -> None:
        """Register again. What runs goes on, and is returned in the name of the former id."""
        if manager_id != self.manager_id:
            return
        log.warning("the server has declared manager %d lost; registering again", manager_id)
        self.manager_id = None
        self._forget(
            [
                held
                for held in self._in_engine.values()
                if held.future is not None and self._engine.cancel(held.future)
            ]
        )
        self._register_at = time.monotonic()

    # Returning

    def _take_report(self, held: HeldAttempt) -> None:
        if self._in_engine.pop(held.ref, None) is None or held.future is None:
            return  # it was given back, or is nobody's business any more
        now = time.monotonic()
        self._pace.finished(now)
        try:
            report = held.future.result()
        except CancelledError:
            self._forget([held])
            return
        except EngineFailed as error:
            self._forget([held])
            self._desk.relinquish(held.manager_id, [held.ref], str(error))
            self._fail(str(error))
            return
        self._n_done += 1
        self._n_errors += "error_type" in report
        self._pace.computed(report.get("compute_s", 0.0))
        result: dict[str, Any] = {"record_id": held.record_id, "attempt": held.attempt, **report}
        batch = self._finished.setdefault(held.manager_id, [])
        batch.append(result)
        self._batch_bytes += size_bytes(result)
        if self._flush_at is None:
            self._flush_at = now + self._config.flush_s
        if len(batch) >= self._results_max or self._batch_bytes >= self._batch_bytes_max:
            self._flush()

    def _flush(self) -> None:
        for manager_id, results in self._finished.items():
            self._delivery.put(self._spool.keep(manager_id, results))
        self._finished = {}
        self._batch_bytes = 0
        self._flush_at = None

    # Stopping

    def _stop_requested(self, reason: str) -> None:
        self._n_stops += 1
        now = time.monotonic()
        if self._n_stops == 1:
            log.info(
                "stopping: waiting up to %g s for %d running tasks (%s); send the signal again to "
                "end immediately",
                self._config.grace_s,
                min(len(self._in_engine), self._engine.n_slots),
                reason,
            )
            self._begin_to_stop(now + self._config.grace_s, reason)
        else:
            log.warning("ending immediately")
            self._stop_by = now

    def _drain(self, manager_id: int) -> None:
        """Begin to end as the server wants it: what runs may take as long as it takes."""
        if self._stop_by is None and manager_id == self.manager_id:
            log.info("manager %d is drained: it ends when it has no tasks left", manager_id)
            self._begin_to_stop(math.inf, "the manager is drained")

    def _begin_to_stop(self, stop_by: float, reason: str) -> None:
        if self._stop_by is None:
            self._stop_by = stop_by
            self._stop_reason = reason
            self._relinquish_waiting(reason)
        # A second signal ends one that is drained at once.
        self._stop_by = min(self._stop_by, stop_by)

    def _stop_if_idle(self, now: float) -> None:
        """End when there was nothing to do for long enough, if that is wanted."""
        limit_s = self._config.end_when_idle_s
        if self._held:
            self._worked_at = now
        elif limit_s is not None and now - self._worked_at > limit_s and not self._is_claiming:
            log.info("there were no tasks for %g s", limit_s)
            self._begin_to_stop(now, "the manager had no tasks")

    def _change_programs(self, programs: Programs) -> None:
        log.info("programs are now: %s", _listed(programs))
        self._programs = programs
        if self.manager_id is not None:
            self._desk.report_programs(self.manager_id, programs)

    def _fail(self, reason: str) -> None:
        if self._stop_by is None:
            log.error("the manager ends: %s", reason)
            self._exit_status = 1
            self._begin_to_stop(time.monotonic() + self._config.grace_s, reason)

    def _summarize(self, now: float) -> None:
        self._summary_at = now + self._config.summary_s
        log.info(
            "%d tasks done, %d of them with an error; %d here, %d results not acknowledged",
            self._n_done,
            self._n_errors,
            len(self._in_engine),
            len(self._held) - len(self._in_engine),
        )


def _listed(programs: Programs) -> str:
    return ", ".join(f"{name} {found or '?'}" for name, found in programs.items()) or "none"


@contextlib.contextmanager
def _signals(stop: Callable[[str], None]) -> Generator[None]:
    """Let SIGTERM, SIGINT and SIGUSR1 stop the manager, if this is the thread that gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        stop(reasons[signal.Signals(number)])

    reasons = stop_reasons()
    numbers = tuple(reasons)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
