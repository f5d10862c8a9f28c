"""Sends results to the server until it has acknowledged each, whatever fails meanwhile.

A result that the server does not take becomes an error of its record that says why, for sending it
again would be refused again and hold up all the others. What is refused for another reason, like an
attempt that was never ours, is logged and dropped.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from recordledger.api.client import (
    Client,
    ClientError,
    Forbidden,
    InvalidArgument,
    NotConnected,
    Refused,
    ServerFault,
    Unauthorized,
)
from recordledger.api.schemas.returns import ResultIn

from .spool import ResultBatch, Spool

log = logging.getLogger(__name__)

PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 15.0
POSTPONE_S: Final = 60.0
IN_MEMORY_MAX: Final = 16
TOO_LARGE: Final = "ResultTooLarge"
REFUSED: Final = "ResultRefused"
# The fault is in what the function returned, so that another result would be taken.
_FAULTS_OF_RESULTS: Final = frozenset({"too_large", "invalid_input"})
# The server does not know us: wrong server, wrong token, or its database was put back in time.
_NOT_OURS: Final = frozenset({"manager_not_found", "not_your_manager"})

Result = dict[str, Any]
Ref = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The server has these attempts' results, or will never take them: they are not ours now."""

    refs: frozenset[Ref]
    n_accepted: int


class Delivery:
    """The thread that returns results.

    Args:
        client: closed by `end`, so it must be of no other use.
        spool: where the batches are on disk.
        body_bytes: how much the server takes in one request.
        tell: called, from this thread, with what was delivered.
    """

    def __init__(
        self, client: Client, spool: Spool, body_bytes: int, tell: Callable[[Delivered], None]
    ) -> None:
        self._client = client
        self._body_bytes = body_bytes
        self._spool = spool
        self._tell = tell
        self._batches = deque[ResultBatch]()
        self._postponed = deque[tuple[float, ResultBatch]]()
        self._unsaved: dict[ResultBatch, int] = {}
        self._condition = threading.Condition()
        self._n_open = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, batch: ResultBatch) -> None:
        """Deliver this batch after those before it."""
        with self._condition:
            if batch.path is None:
                self._unsaved[batch] = sum(map(size_bytes, batch.results()))
            elif len(self._batches) >= IN_MEMORY_MAX:
                batch.forget()
            self._batches.append(batch)
            self._n_open += 1
            self._condition.notify_all()

    @property
    def unsaved_bytes(self) -> int:
        """About how many bytes of results are in memory only: the disk does not take them."""
        with self._condition:
            return sum(self._unsaved.values())

    def drain(self, timeout_s: float) -> int:
        """Wait until all is delivered, or the time is up; return how many batches are left."""
        with self._condition:
            self._condition.wait_for(lambda: self._n_open == 0, timeout_s)
            return self._n_open

    def end(self) -> None:
        """Deliver no more. What is left is on disk; the thread ends with its current request."""
        self._ended.set()
        self._client.close()
        with self._condition:
            self._condition.notify_all()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            try:
                is_over = self._deliver(batch)
            except Exception:
                if self._ended.is_set():
                    return  # a client that is closed in the middle of a request may raise anything
                log.exception("a batch of results cannot be delivered")
                self._set_aside(batch, "this is a fault in recordledger; please report it")
                is_over = True
            if not is_over:
                self._postponed.append((time.monotonic() + POSTPONE_S, batch))
                continue
            with self._condition:
                self._unsaved.pop(batch, None)
                self._n_open -= 1
                self._condition.notify_all()

    def _next(self) -> ResultBatch | None:
        with self._condition:
            while not self._ended.is_set():
                left_s = None
                if self._postponed:
                    left_s = self._postponed[0][0] - time.monotonic()
                    if left_s <= 0:
                        return self._postponed.popleft()[1]
                if self._batches:
                    return self._batches.popleft()
                self._condition.wait(left_s)
            return None

    def _deliver(self, batch: ResultBatch) -> bool:
        """Return whether this is over, and not to be tried again after the others."""
        pause_s = PAUSE_MIN_S
        while not self._ended.is_set():
            try:
                results = batch.results()
                n_accepted = self._send(batch.manager_id, results)
            except (OSError, NotConnected, ServerFault, Unauthorized, Forbidden) as error:
                if self._ended.is_set():
                    return False
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                level = logging.ERROR if isinstance(error, Refused) else logging.WARNING
                log.log(level, "results wait to be returned: %s", error)
                self._save()
                batch.forget()
                if isinstance(error, Forbidden) and error.code in _NOT_OURS:
                    return False
                self._ended.wait(pause_s * random.uniform(0.5, 1))  # noqa: S311
            except ClientError as error:
                self._set_aside(batch, str(error))
                return True
            except ValueError as error:
                self._set_aside(batch, str(error), damaged=True)
                return True
            else:
                self._spool.done(batch)
                self._tell(Delivered(batch.refs, n_accepted))
                return True
        return False

    def _save(self) -> None:
        """Write to disk what is in memory only, as far as there is room now."""
        with self._condition:
            unsaved = list(self._unsaved)
        for batch in unsaved:
            if not self._spool.retry(batch):
                return
            batch.forget()
            with self._condition:
                self._unsaved.pop(batch, None)

    def _send(self, manager_id: int, results: list[Result]) -> int:
        """Return results, in halves where a whole is refused; return how many were accepted."""
        if not results:
            return 0
        entries = [ResultIn.model_validate(result) for result in results]
        try:
            answer = self._client.return_results(manager_id, entries)
        except (Unauthorized, Forbidden):
            raise
        except Refused as refusal:
            if refusal.code in _NOT_OURS:
                raise
            return self._send_around(manager_id, results, refusal)
        if answer.late_idx:
            log.info(
                "%d results were late; the server stores them as late results", len(answer.late_idx)
            )
        n_accepted = len(answer.accepted_idx)
        for error in answer.errors:
            n_accepted += self._replace(manager_id, results[error.idx], error.code, error.message)
        return n_accepted

    def _send_around(self, manager_id: int, results: list[Result], refusal: Refused) -> int:
        """Send all but what made the server, or our own client, refuse the request as a whole."""
        idx = refusal.idx if isinstance(refusal, InvalidArgument) else None
        if idx is None and len(results) == 1:
            idx = 0
        if idx is not None:
            rest = results[:idx] + results[idx + 1 :]
            code = "too_large" if refusal.status == 413 else "invalid_input"
            n_accepted = self._replace(manager_id, results[idx], code, refusal.detail)
            return n_accepted + self._send(manager_id, rest)
        middle = len(results) // 2
        return self._send(manager_id, results[:middle]) + self._send(manager_id, results[middle:])

    def _replace(self, manager_id: int, result: Result, code: str, message: str) -> int:
        """Return a refused result as an error of its record if that helps, or drop it."""
        what = f"record {result['record_id']}, attempt {result['attempt']}"
        replaced = result.get("error_type") in (TOO_LARGE, REFUSED)
        if code in _FAULTS_OF_RESULTS and not replaced:
            log.warning("the result of %s is returned as an error: %s", what, message)
            is_large = code == "too_large" or size_bytes(result) > self._body_bytes
            error_type = TOO_LARGE if is_large else REFUSED
            return self._send(manager_id, [_error(result, error_type, message)])
        log.error("the result of %s was refused and is dropped: %s: %s", what, code, message)
        return 0

    def _set_aside(self, batch: ResultBatch, why: str, *, damaged: bool = False) -> None:
        aside = self._spool.set_aside(batch, damaged=damaged)
        log.error(
            "results of manager %d cannot be returned: %s (%s)",
            batch.manager_id,
            why,
            f"they are in {aside}" if aside else "they were only in memory and are dropped",
        )
        self._tell(Delivered(batch.refs, 0))


def size_bytes(result: Result) -> int:
    """Return about how large a result is on its way."""
    large = ("result", "stdout", "stderr", "traceback", "error_message")
    return 512 + sum(len(result.get(name) or "") for name in large)


def _error(result: Result, error_type: str, message: str) -> Result:
    return {
        "record_id": result["record_id"],
        "attempt": result["attempt"],
        "error_type": error_type,
        "error_message": f"the result cannot be stored: {message}"[:10_000],
        "compute_s": result.get("compute_s"),
    }
