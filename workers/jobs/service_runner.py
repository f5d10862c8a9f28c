"""The service runner: picks services that are due, lets them decide, and stores what they decide.

Several may run, in several processes and on several machines. Each takes a lease on what it has in
hand; when one is lost, its services are free again after that. A step is stored only if the service
still stands where it was decided, so nothing ever happens twice, whichever process was slow or has
died.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Final

from recordledger.api.settings import WorkSettings
from recordledger.domain.errors import LedgerError, Superseded
from recordledger.domain.records.events import Outcome
from recordledger.domain.specs.service import Broken, Done, Step, Wait
from recordledger.domain.specs.service_rules import ServiceFault, ServiceLimits
from recordledger.projections.actions import service_steps
from recordledger.projections.actions.service_steps import Situation
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import queries
from recordledger.projections.tables import service_queue
from recordledger.projections.tables.payloads import payload_of

from ..tasks.capture import abridge, readable
from ..tasks.running import ERROR_TYPE_CHARACTERS_MAX, Report, describe, encode_result
from .service_decisions import iteration_of, next_step
from .service_registry import ServiceRegistry

log = logging.getLogger(__name__)

_POLL_S: Final = (0.05, 0.1, 1.0)
# After a fault of the database, or of ours.
_PAUSE_S: Final = 5.0
# How long a decision may take to end when the runner stops; it is made again elsewhere.
_STOP_S: Final = 5.0
# How long a runner that has picked something waits for more to pick at once.
_GATHER_S: Final = 0.005
_DEFAULTS: Final = WorkSettings.model_construct()


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How a runner works.

    Attributes:
        active_max: services that run at once; those that other services wait for do not wait.
        threads: steps at once.
        lease_s: seconds after which the services of a runner that was lost are free again.
        step_warning_s: seconds that a decision may take before a warning is logged.
        output_bytes_max: how much is kept of what a service says.
        limits: of each service.
    """

    active_max: int = _DEFAULTS.max_active_services
    threads: int = _DEFAULTS.service_threads
    lease_s: float = _DEFAULTS.service_lease_s
    step_warning_s: float = _DEFAULTS.service_step_warning_s
    output_bytes_max: int = 1024 * 1024
    limits: ServiceLimits = field(default_factory=ServiceLimits)


class ServiceRunner:
    """Advances services until it is stopped."""

    def __init__(
        self,
        ledger: Ledger,
        registry: ServiceRegistry,
        settings: RunnerSettings | None = None,
        *,
        name: str | None = None,
    ) -> None:
        """Prepare to run the services of a ledger.

        Args:
            ledger: where they are.
            registry: where their classes are.
            settings: how to work.
            name: as people know the runner; unique among those that live.
        """
        self.settings = settings or RunnerSettings()
        # Machines may share a name, and containers a process number.
        self.name = name or f"{platform.node()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._ledger = ledger
        self._registry = registry
        self._lock = Lock()
        self._in_hand: set[int] = set()
        self._done: list[int] = []
        self._held_back: dict[int, float] = {}
        self._changed = Event()
        self._idle_s = _POLL_S[0]

    # The loop

    def run(self, stop: Event) -> None:
        """Pick and advance services, with some threads, until `stop` is set."""
        todo: SimpleQueue[int | None] = SimpleQueue()
        threads = [
            Thread(target=self._work, args=(todo,), name=f"services-{number}", daemon=True)
            for number in range(self.settings.threads)
        ]
        for thread in threads:
            thread.start()
        log.info("services: %s", ", ".join(self._registry.names) or "none installed")
        pause_s = 0.0
        while not stop.wait(pause_s):
            try:
                pause_s = self._round(todo)
            except LedgerError as error:
                log.warning("services: %s", error)
                pause_s = _PAUSE_S
            except Exception:
                # It must outlive its bugs: nobody else advances services.
                log.exception("picking services failed; trying again")
                pause_s = _PAUSE_S
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.join(timeout=_STOP_S)
        self._hand_back()

    def _round(self, todo: SimpleQueue[int | None]) -> float:
        """Pick what there is room for; return for how long to do nothing, unless it changes."""
        n_most = 4 * self.settings.threads
        with self._lock:
            room = n_most - len(self._in_hand)
        self._changed.clear()
        picked = self.pick(room)
        for service_id in picked or ():
            todo.put(service_id)
        if picked is None:
            return random.uniform(0.002, 0.02)  # noqa: S311 - another runner is just picking
        if picked or room < n_most:
            self._idle_s = _POLL_S[0]
        else:
            self._idle_s = min(2 * self._idle_s, _POLL_S[1 if self._active() else 2])
        # What is done here may free others at once. What others do is seen at the next round.
        return _GATHER_S if self._changed.wait(self._idle_s) else 0.0

    def _active(self) -> bool:
        with self._ledger.datastore.reading() as db:
            return service_queue.any_running(db)

    def _work(self, todo: SimpleQueue[int | None]) -> None:
        while (service_id := todo.get()) is not None:
            self.advance(service_id)

    # One service

    def pick(self, room: int) -> list[int] | None:
        """Pick services that are due, at most `room`; release what is done.

        Returns:
            Their ids; None if another runner is just picking.
        """
        now = monotonic()
        with self._lock:
            done, self._done = self._done, []
            ready = [id_ for id_, at in self._held_back.items() if at <= now]
            done += [id_ for id_ in ready if self._held_back.pop(id_)]
            in_hand = self._in_hand.difference(done)
        try:
            with self._ledger.datastore.writing() as db:
                picked = service_queue.pick(
                    db,
                    self.name,
                    room,
                    active_max=self.settings.active_max,
                    lease_s=self.settings.lease_s,
                    in_hand=in_hand,
                    done=done,
                )
        except LedgerError:
            with self._lock:
                self._done += done
            raise
        with self._lock:
            if picked is None:
                self._done += done
            self._in_hand.difference_update(() if picked is None else done)
            self._in_hand.update(picked or ())
        return picked

    def advance(self, service_id: int) -> None:
        """Take one step with a service that is in hand, and be done with it."""
        try:
            self.decide(service_id)()
        except Superseded as refusal:
            log.debug("services: %s", refusal)
        except LedgerError as error:
            log.warning("service %d: %s; trying again", service_id, error)
            self._pause_service(service_id)
            return
        except Exception:
            log.exception("service %d: a step failed; trying again", service_id)
            self._pause_service(service_id)
            return
        with self._lock:
            self._done.append(service_id)
        self._changed.set()

    def _pause_service(self, service_id: int) -> None:
        with self._lock:
            self._held_back[service_id] = monotonic() + _PAUSE_S

    def decide(self, service_id: int) -> Callable[[], None]:
        """Let a service decide; return what stores it, if the service still stands there then."""
        situation = service_steps.situation_of(self._ledger, service_id)
        if situation is None:
            return _nothing
        place = situation.place
        if situation.resumes:
            return partial(service_steps.resume, self._ledger, service_id, place, runner=self.name)
        began = monotonic()
        try:
            step = self._decide(situation)
        except BaseException as error:
            return partial(self._fail, situation, error)
        finally:
            self._watch(situation, monotonic() - began)
        return partial(self._store, situation, step)

    def _decide(self, situation: Situation) -> Step[Any]:
        service = self._registry.find(situation.record.function)
        return next_step(service, situation, self._load, self.settings.limits)

    def _load(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        return queries.payload_contents(self._ledger, digests)

    def _watch(self, situation: Situation, took_s: float) -> None:
        if took_s > self.settings.step_warning_s:
            log.warning(
                "service %d (%s): iteration %d took %.1f s to decide; a decision should only "
                "create tasks, not compute",
                situation.record.id,
                situation.record.function,
                situation.record.iteration + 1,
                took_s,
            )

    def _store(self, situation: Situation, step: Step[Any]) -> None:
        try:
            self._store_step(situation, step)
        except LedgerError:
            raise
        except Exception as error:
            self._fail(situation, error)

    def _store_step(self, situation: Situation, step: Step[Any]) -> None:
        record = situation.record
        match step:
            case Wait():
                service = self._registry.find(record.function)
                service_steps.iterate(
                    self._ledger,
                    record.id,
                    situation.place,
                    iteration_of(step, service, record, self.settings.limits),
                    runner=self.name,
                    limits=self.settings.limits,
                )
            case Done():
                result = encode_result(step.result, self.settings.limits.bytes)
                self._finish(situation, {"result": result}, step.output)
            case Broken():
                report = Report(
                    error_type=readable(step.error_type)[:ERROR_TYPE_CHARACTERS_MAX] or "Broken",
                    error_message=readable(step.message),
                )
                self._finish(situation, _texts(report), step.output)

    def _fail(self, situation: Situation, error: BaseException) -> None:
        """Let a service become an error: what its code raised, or a rule that it has broken."""
        report = describe(error)
        cause = None
        if isinstance(error, ServiceFault):
            report = Report(error_type=error.error_type, error_message=str(error))
            cause = error.cause
        self._finish(situation, _texts(report), "", cause=cause)

    def _finish(
        self,
        situation: Situation,
        contents: dict[str, Any],
        output: str,
        *,
        cause: int | None = None,
    ) -> None:
        record = situation.record
        said = b""
        if record.iteration:
            said = service_steps.output_of(self._ledger, record.id, record.iteration)
        said += readable(output).encode()
        if said:
            half = self.settings.output_bytes_max // 2
            contents["stdout"] = abridge(said[:-half][:half], said[-half:], len(said)).encode()
        error_type = contents.pop("error_type", None)
        named: dict[str, Any] = {name: payload_of(data) for name, data in contents.items()}
        service_steps.finish(
            self._ledger,
            record.id,
            situation.place,
            Outcome(error_type=error_type, **named),
            {payload_of(data).digest: data for data in contents.values()},
            runner=self.name,
            cause=cause,
        )

    def _hand_back(self) -> None:
        try:
            self.pick(0)
        except LedgerError as error:
            log.warning(
                "services: %s; the services in progress are free again in %g s",
                error,
                self.settings.lease_s,
            )

    # For tests, and for use without threads

    def run_until_idle(self, steps_max: int = 10_000) -> int:
        """Advance what is due, one after the other, until nothing is; return how many steps."""
        n_steps = 0
        while picked := self.pick(1):
            for service_id in picked:
                self.advance(service_id)
                n_steps += 1
            if n_steps >= steps_max:
                break
        self.pick(0)
        return n_steps


def _nothing() -> None:
    """Do nothing: the service is not due any more."""


def _texts(report: Report) -> dict[str, Any]:
    """Return what an error says as contents to be stored, and its type as it is."""
    found: dict[str, Any] = {"error_type": report.get("error_type", "Error")}
    for name in ("error_message", "traceback"):
        if (text := report.get(name)) is not None:
            found[name] = str(text).encode()
    return found
