"""Telling webhooks what happens: each at its own pace, in order, and at least once.

Of all `work` processes the elected one looks for webhooks that have events due, and has each in
hand for as long as a message takes. Which message is on its way is noted before it is sent; so a
worker that continues after a crash sends the same one, under the same id. Every webhook has a
thread: one that does not answer keeps no other waiting.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Final, NamedTuple
from uuid import uuid4

from pydantic_core import to_json

from recordledger.api.http.rendering import log_out
from recordledger.api.http.webhook_sender import (
    EVENTS_TYPE,
    Result,
    Sender,
    message,
    new_message_id,
)
from recordledger.domain.errors import LedgerError, WebhookNotFound
from recordledger.projections.actions import deliveries, webhooks
from recordledger.projections.actions.deliveries import DeliveryTask
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import event_log

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
# Seconds until the next attempt, by how many have failed; after that the last one for ever. It is
# the schedule that Standard Webhooks gives as an example.
SCHEDULE_S: Final = (
    5.0,
    300.0,
    1_800.0,
    7_200.0,
    18_000.0,
    36_000.0,
    50_400.0,
    72_000.0,
    86_400.0,
)
EVENTS_MAX: Final = 100
BODY_BYTES_MAX: Final = 256 * 1024
_JITTER: Final = 0.2


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How messages are sent to webhooks.

    Attributes:
        sender: sends the messages.
        failing_s: seconds without a delivered message after which a webhook is disabled.
        schedule_s: pauses between attempts, in seconds.
    """

    sender: Sender
    failing_s: float
    schedule_s: Sequence[float] = SCHEDULE_S

    @property
    def lease_s(self) -> float:
        """For how long a worker has a webhook in hand: a message, and what is done around it."""
        return 2 * self.sender.timeout_s + 5.0


class WebhookMessage(NamedTuple):
    """What is to be sent: its body, how many events are in it, and up to where they go."""

    body: bytes
    n_events: int
    upto: int


class Deliverer:
    """The job that sends events to webhooks."""

    def __init__(self, settings: DeliverySettings, stop: Event) -> None:
        """Prepare; `stop` ends what runs after the message that it is at."""
        self._settings = settings
        self._stop = stop
        self._worker = f"{uuid4()}"
        self._busy: dict[int, Thread] = {}
        self._lock = Lock()

    def run(self, ledger: Ledger) -> str | None:
        """Begin with every webhook that is due; there is nothing to say of that."""
        for webhook_id in deliveries.due(ledger):
            with self._lock:
                if webhook_id in self._busy:
                    continue
                thread = Thread(
                    target=self._serve,
                    args=(ledger, webhook_id),
                    name=f"webhook {webhook_id}",
                    daemon=True,
                )
                self._busy[webhook_id] = thread
            thread.start()
        return None

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait until running deliveries have ended, at most `timeout_s` seconds."""
        self._stop.set()
        with self._lock:
            threads = list(self._busy.values())
        ends_at = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _serve(self, ledger: Ledger, webhook_id: int) -> None:
        try:
            self._deliver(ledger, webhook_id)
        except LedgerError as error:
            log.warning("webhook %d: %s", webhook_id, error)
        except Exception:
            log.exception("webhook %d: sending events failed; trying again", webhook_id)
        finally:
            with self._lock:
                self._busy.pop(webhook_id, None)

    def _deliver(self, ledger: Ledger, webhook_id: int) -> None:
        """Tell a webhook everything that there is, until something goes wrong."""
        settings, worker = self._settings, self._worker
        while not self._stop.is_set():
            task = deliveries.lease_delivery(ledger, webhook_id, worker, settings.lease_s)
            if task is None:
                return
            if not self._step(ledger, task):
                return
        deliveries.release(ledger, webhook_id, worker)

    def _step(self, ledger: Ledger, task: DeliveryTask) -> bool:
        """Send the next message; return whether to go on."""
        worker = self._worker
        found = next_message(ledger, task)
        if not found.n_events:
            if found.upto > task.position:
                return deliveries.skip_events(ledger, task, worker, found.upto)
            deliveries.release(ledger, task.webhook_id, worker)
            return False
        message_id = task.message_id or new_message_id()
        if not deliveries.note_message(ledger, task, worker, message_id, found.upto):
            return False
        result = self._settings.sender.send(task.url, task.secret, message_id, found.body)
        deliveries.note_attempt(
            ledger,
            task,
            message_id,
            found.upto,
            found.n_events,
            duration_s=result.duration_s,
            status_code=result.status_code,
            error=result.error,
        )
        if result.has_arrived:
            return deliveries.delivered(ledger, task, worker, message_id)
        self._failed(ledger, task, message_id, result)
        return False

    def _failed(self, ledger: Ledger, task: DeliveryTask, message_id: str, result: Result) -> None:
        settings = self._settings
        planned_s = settings.schedule_s[min(task.n_failures, len(settings.schedule_s) - 1)]
        pause_s = planned_s * random.uniform(1, 1 + _JITTER)  # noqa: S311 - not for secrets
        pause_s = max(pause_s, result.retry_after_s)
        failing = deliveries.failed(ledger, task, self._worker, message_id, pause_s)
        if failing is None:
            return
        log.info("webhook %d: %s; again in %.0f s", task.webhook_id, result.error, pause_s)
        if not result.is_gone and failing.seconds < settings.failing_s:
            return
        try:
            if webhooks.disable_failing(
                ledger, task.webhook_id, failing_since=failing.since, error=str(result.error)
            ):
                log.warning("webhook %d is disabled: %s", task.webhook_id, result.error)
        except WebhookNotFound:
            return


def next_message(ledger: Ledger, task: DeliveryTask) -> WebhookMessage:
    """Return the next message of a webhook; with no events if there is nothing for it up to `upto`.

    What was on its way is made again from the same part of the log.
    """
    if task.upto is not None:
        found = event_log.page(ledger, task.position, event_log.SCAN_MAX, task.filter)
        events = [each for each in found.events if each.position <= task.upto]
        shown = [_written(each) for each in log_out(ledger, events)]
        upto = task.upto
    else:
        found = event_log.page(ledger, task.position, EVENTS_MAX, task.filter)
        events = found.events
        shown = [_written(each) for each in log_out(ledger, events)]
        n_fitting = _fitting(shown)
        upto = found.next_after
        if n_fitting < len(events):
            events, shown = events[:n_fitting], shown[:n_fitting]
            upto = events[-1].position
    if not events:
        return WebhookMessage(b"", 0, upto)
    last = events[-1].recorded.event.timestamp
    data: dict[str, Any] = {"after": task.position, "upto": upto, "events": []}
    empty = message(EVENTS_TYPE, last, data)
    body = empty.replace(b'"events":[]', b'"events":[' + b",".join(shown) + b"]", 1)
    return WebhookMessage(body, len(events), upto)


def _written(event: dict[str, Any]) -> bytes:
    """Return an event as JSON; of one that is too large, what it says is left out."""
    data = to_json(event)
    if len(data) <= BODY_BYTES_MAX:
        return data
    return to_json(event | {"data": {"too_large": True, "n_bytes": len(data)}})


def _fitting(shown: Sequence[bytes]) -> int:
    """Return how many events fit into a message; one at least."""
    n_bytes = 0
    for index, data in enumerate(shown):
        n_bytes += len(data)
        if n_bytes > BODY_BYTES_MAX and index:
            return index
    return len(shown)
