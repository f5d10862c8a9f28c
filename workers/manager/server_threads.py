"""The manager's threads that talk to the server for it: one claims, and one gives heartbeats."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from recordledger.api.client import Client, ClientError, Refused, Unauthorized
from recordledger.api.schemas.claims import AttemptRef, TaskOut
from recordledger.api.schemas.presence import RegisterAnswer

log = logging.getLogger(__name__)

_NOT_ACTIVE: Final = frozenset({"manager_not_active", "manager_not_found", "not_your_manager"})


@dataclass(frozen=True, slots=True)
class ClaimReply:
    """The server answered a claim; None if it did not, or refused."""

    manager_id: int
    limit: int
    tasks: list[TaskOut] | None
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stale:
    """These attempts are not this manager's any more."""

    refs: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class NotActive:
    """The server does not take this manager for alive."""

    manager_id: int


@dataclass(frozen=True, slots=True)
class Registered:
    """The server answered a registration; None if it did not, or refused."""

    answer: RegisterAnswer | None
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Draining:
    """The server gives this manager nothing more; it shall end when it has nothing left."""

    manager_id: int


News: TypeAlias = ClaimReply | Stale | NotActive | Registered | Draining


class ClaimThread:
    """The thread that claims tasks, gives them back, and registers the manager again.

    Args:
        client: closed by `end`, so it must be of no other use.
        register: registers the manager through a client.
        tell: called with what the server answers.
    """

    def __init__(
        self,
        client: Client,
        register: Callable[[Client], RegisterAnswer],
        tell: Callable[[News], None],
    ) -> None:
        self._client = client
        self._register_by = register
        self._tell = tell
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def end(self) -> None:
        """End with the current request."""
        self._ended.set()
        self._jobs.put(None)
        self._client.close()

    def claim(self, manager_id: int, limit: int) -> None:
        """Claim tasks; report the answer."""
        self._jobs.put(lambda: self._claim(manager_id, limit))

    def register(self) -> None:
        """Register the manager; report the answer."""
        self._jobs.put(self._register)

    def report_programs(self, manager_id: int, programs: Mapping[str, str | None]) -> None:
        """Say which programs there are now."""
        self._jobs.put(lambda: self._report_programs(manager_id, programs))

    def relinquish(self, manager_id: int, refs: Iterable[tuple[int, int]], reason: str) -> None:
        """Give attempts back."""
        attempts = [AttemptRef(record_id=record_id, attempt=number) for record_id, number in refs]
        if attempts:
            self._jobs.put(lambda: self._relinquish(manager_id, attempts, reason))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _claim(self, manager_id: int, limit: int) -> None:
        try:
            tasks = self._client.claim(manager_id, limit).tasks
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it was, the manager goes on
            retry_s = 0.0
            if isinstance(error, ClientError) and error.code in _NOT_ACTIVE:
                self._tell(NotActive(manager_id))
            elif not self._ended.is_set():
                # A client that is closed in the middle of a request may raise anything.
                log.warning("cannot claim: %s: %s", type(error).__name__, error)
                retry_s = _retry_s(error)
            self._tell(ClaimReply(manager_id, limit, None, retry_s))
        else:
            self._tell(ClaimReply(manager_id, limit, tasks))

    def _register(self) -> None:
        try:
            answer = self._register_by(self._client)
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it was, the manager goes on
            if not self._ended.is_set():
                log.warning("cannot register: %s: %s", type(error).__name__, error)
            self._tell(Registered(None, _retry_s(error)))
        else:
            self._tell(Registered(answer))

    def _report_programs(self, manager_id: int, programs: Mapping[str, str | None]) -> None:
        try:
            self._client.report_programs(manager_id, programs)
        except Exception as error:  # noqa: BLE001, RUF100
            if isinstance(error, ClientError) and error.code in _NOT_ACTIVE:
                self._tell(NotActive(manager_id))  # It registers again, with what there is now.
            elif not self._ended.is_set():
                log.warning("cannot report programs: %s: %s", type(error).__name__, error)

    def _relinquish(self, manager_id: int, attempts: list[AttemptRef], reason: str) -> None:
        try:
            self._client.relinquish(manager_id, attempts, reason)
        except Exception as error:  # noqa: BLE001, RUF100
            if self._ended.is_set():
                return
            # They are in no heartbeat any more, so their lease runs out.
            log.warning(
                "cannot return %d tasks unfinished: %s: %s",
                len(attempts),
                type(error).__name__,
                error,
            )


def _retry_s(error: Exception) -> float:
    """Return when to try again, in seconds: what is refused may be so for long."""
    match error:
        case Unauthorized():  # a token is being replaced
            return random.uniform(1, 4)  # noqa: S311
        case Refused():
            return random.uniform(5, 15)  # noqa: S311
        case _:
            return random.uniform(0.5, 1.5)  # noqa: S311


class Pulse:
    """The thread that sends heartbeats.

    Args:
        client: closed by `end`, so it must be of no other use.
        ask: returns who lives, how often to say so, and what it holds.
        tell: called with what follows from the server's answers.
    """

    def __init__(
        self,
        client: Client,
        ask: Callable[[], tuple[int | None, float, list[AttemptRef]]],
        tell: Callable[[News], None],
    ) -> None:
        self._client = client
        self._ask = ask
        self._tell = tell
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def end(self) -> None:
        """End with the current request."""
        self._ended.set()
        self._client.close()

    def _run(self) -> None:
        while True:
            _, heartbeat_s, _ = self._ask()
            if self._ended.wait(heartbeat_s * random.uniform(0.8, 1.0)):  # noqa: S311
                return
            manager_id, _, held = self._ask()
            if manager_id is not None:
                self._beat(manager_id, held)

    def _beat(self, manager_id: int, held: list[AttemptRef]) -> None:
        try:
            answer = self._client.heartbeat(manager_id, held)
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it was, the heart beats on
            if isinstance(error, ClientError) and error.code in _NOT_ACTIVE:
                self._tell(NotActive(manager_id))
            elif not self._ended.is_set():
                log.warning("no heartbeat: %s: %s", type(error).__name__, error)
        else:
            if answer.stale:
                refs = frozenset((ref.record_id, ref.attempt) for ref in answer.stale)
                self._tell(Stale(refs))
            if answer.draining:
                self._tell(Draining(manager_id))
