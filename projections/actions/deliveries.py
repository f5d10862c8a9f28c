"""How far delivery to webhooks has come: what is due, what is on its way, and its outcome.

A message is noted before it is sent: a worker that dies leaves behind which one it was, and the
next one sends the same again under the same id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.admin.webhook import WebhookFilter

from ..ledger import Ledger
from ..reading.event_log import EventFilter
from ..store.election import settings_in_force
from ..store.statements import statements
from ..tables.webhooks import filter_of
from . import webhooks

_SQL = statements("tables.webhooks")

ATTEMPTS_KEPT: Final = 100
# The job that sends messages. The process that is elected to do it publishes
# `webhook_allow_private`, as it was given.
WEBHOOKS_JOB: Final = "webhooks"


class DeliveryTask(NamedTuple):
    """A webhook that a worker has in hand.

    `message_id` and `upto` are of the message that is on its way already, if one is: it holds the
    events after `position` up to there.
    """

    webhook_id: int
    url: str
    filter: EventFilter
    secret: bytes
    position: int
    message_id: str | None
    upto: int | None
    n_failures: int
    failing_since: datetime | None


class DeliveryAttempt(NamedTuple):
    """One attempt to send a message: which events, and its outcome."""

    message_id: str
    after: int
    upto: int
    n_events: int
    attempted_at: datetime
    duration_s: float
    status_code: int | None
    error: str | None


class Failing(NamedTuple):
    """Since when nothing arrives at a webhook, and for how many seconds that is."""

    since: datetime
    seconds: float


def allow_private_in_force(ledger: Ledger) -> str | None:
    """Return where the sending process allows webhooks besides the public Internet.

    None if no process sends messages now.
    """
    with ledger.datastore.reading() as db:
        found = settings_in_force(db, WEBHOOKS_JOB, ledger.schema)
    return None if found is None else found["webhook_allow_private"]


def due(ledger: Ledger) -> list[int]:
    """Return the webhooks that have events due and that no worker has in hand."""
    with ledger.datastore.reading() as db:
        return [row[0] for row in db.execute(_SQL["due"], prepare=True)]


def lease_delivery(
    ledger: Ledger, webhook_id: int, worker: str, lease_s: float
) -> DeliveryTask | None:
    """Lease a webhook for some seconds; None if another worker has it, or it is not enabled.

    A worker that has it already extends its lease.
    """
    parameters = {"id": webhook_id, "worker": worker, "lease_s": lease_s}
    with ledger.datastore.writing() as db:
        row = db.execute(_SQL["take"], parameters).fetchone()
    if row is None:
        return None
    url, kinds, tags, actors, dataset_id, secret, *rest = row
    which = filter_of(kinds, tags, actors, dataset_id)
    return DeliveryTask(webhook_id, url, _events_of(which), bytes(secret), *rest)


def note_message(
    ledger: Ledger, task: DeliveryTask, worker: str, message_id: str, upto: int
) -> bool:
    """Note which message goes out; return whether the worker still has the webhook in hand."""
    parameters = {"worker": worker, "message_id": message_id, "upto": upto}
    return _do(ledger, "set_out", task.webhook_id, **parameters)


def skip_events(ledger: Ledger, task: DeliveryTask, worker: str, upto: int) -> bool:
    """Note that there is nothing for a webhook up to a position."""
    return _do(ledger, "pass_over", task.webhook_id, worker=worker, upto=upto)


def delivered(ledger: Ledger, task: DeliveryTask, worker: str, message_id: str) -> bool:
    """Note that a message has arrived; return whether the worker still had it to do."""
    return _do(ledger, "delivered", task.webhook_id, worker=worker, message_id=message_id)


def failed(
    ledger: Ledger, task: DeliveryTask, worker: str, message_id: str, pause_s: float
) -> Failing | None:
    """Note that a message has not arrived, and when to try again; let the webhook go.

    Returns:
        For how long it has been so; None if the worker had it no more.
    """
    parameters = {
        "id": task.webhook_id,
        "worker": worker,
        "message_id": message_id,
        "pause_s": pause_s,
    }
    with ledger.datastore.writing() as db:
        row = db.execute(_SQL["failed"], parameters).fetchone()
    return None if row is None else Failing(*row)


def release(ledger: Ledger, webhook_id: int, worker: str) -> None:
    """Let a webhook go: another worker may take it at once."""
    _do(ledger, "release", webhook_id, worker=worker)


def note_attempt(
    ledger: Ledger,
    task: DeliveryTask,
    message_id: str,
    upto: int,
    n_events: int,
    *,
    duration_s: float,
    status_code: int | None,
    error: str | None,
) -> None:
    """Keep the outcome of an attempt, and the newest hundred with it."""
    parameters = {
        "id": task.webhook_id,
        "message_id": message_id,
        "after": task.position,
        "upto": upto,
        "n_events": n_events,
        "duration_s": duration_s,
        "status_code": status_code,
        "error": error,
        "kept": ATTEMPTS_KEPT - 1,
    }
    with ledger.datastore.writing() as db:
        db.execute(_SQL["note_attempt"], parameters)


def attempts(ledger: Ledger, webhook_id: int, limit: int) -> list[DeliveryAttempt]:
    """Return the newest deliveries to a webhook, newest first.

    Raises:
        WebhookNotFound: there is none with this id.
    """
    webhooks.get(ledger, webhook_id)
    with ledger.datastore.reading() as db:
        rows = db.execute(_SQL["attempts"], {"id": webhook_id, "limit": limit})
        return [DeliveryAttempt(*row) for row in rows]


def _events_of(which: WebhookFilter) -> EventFilter:
    return EventFilter(
        kinds=frozenset(which.kinds),
        tags=frozenset(which.tags),
        actors=frozenset(which.actors),
        dataset_id=which.dataset_id,
    )


def _do(ledger: Ledger, statement: str, webhook_id: int, **parameters: object) -> bool:
    with ledger.datastore.writing() as db:
        return db.execute(_SQL[statement], {"id": webhook_id, **parameters}).rowcount == 1
