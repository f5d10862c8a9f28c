"""Webhooks: added, changed, given up, removed, and how far delivery has come."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.admin import webhook as rules
from recordledger.domain.admin.webhook import WebhookAdded, WebhookAggregate, WebhookFilter
from recordledger.domain.errors import TooManyWebhooks, WebhookNotFound
from recordledger.domain.streams import Stream

from ..ledger import Ledger, Operation, Placed
from ..store.database import Db, one
from ..store.statements import statements
from ..tables.idempotency import RequestKey
from ..tables.webhooks import from_row

_SQL = statements("tables.webhooks")

DELIVERER: Final = "server:webhooks"
_SECRET_BYTES: Final = 32


class AddedWebhook(NamedTuple):
    """A webhook that was just added. `secret` is what messages to it are signed with."""

    webhook: WebhookAggregate
    secret: bytes


class WebhookProgress(NamedTuple):
    """A webhook, and the `position` up to which its events were delivered.

    `failing_since` is when the attempts began to fail; `next_try_at` is when the next one is due.
    """

    webhook: WebhookAggregate
    position: int
    n_failures: int
    failing_since: datetime | None
    next_try_at: datetime


def add(
    ledger: Ledger,
    url: str,
    what: WebhookFilter,
    *,
    after: int | None,
    limit: int,
    actor: str,
    reason: str | None = None,
) -> AddedWebhook:
    """Add a webhook; its secret is returned here and never again.

    Args:
        ledger: where.
        url: its address, which was looked at already.
        what: the filter of its events.
        after: only what happened after this position; None: only what happens from now on.
        limit: how many there may be.
        actor: who adds it.
        reason: why; on the event.

    Raises:
        TooManyWebhooks: there are as many already.
    """
    secret = secrets.token_bytes(_SECRET_BYTES)

    def work(operation: Operation) -> WebhookAggregate:
        db = operation.db
        db.execute(_SQL["lock_all"])
        if _number(db, "count") >= limit:
            raise TooManyWebhooks(limit)
        position = _head(db) if after is None else after
        new = WebhookAggregate(_number(db, "next_id"))
        added = WebhookAdded(url=url, filter=what, after=position, **operation.stamp.model_dump())
        db.execute(_SQL["keep_secret"], {"id": new.id, "secret": secret})
        db.execute(_SQL["begin"], {"id": new.id, "position": position})
        return operation.happen(new, [added])

    return AddedWebhook(ledger.operate(work, actor=actor, reason=reason), secret)


def modify(
    ledger: Ledger,
    webhook_id: int,
    *,
    url: str | None = None,
    what: Callable[[WebhookFilter], WebhookFilter] | None = None,
    enabled: bool | None = None,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> None:
    """Change a webhook; what is None stays. With another address or filter, messages begin again.

    Args:
        ledger: where.
        webhook_id: which.
        url: its address, which was looked at already.
        what: makes the new filter from the old one.
        enabled: whether it receives events.
        actor: who changes it.
        reason: why; on every event.
        request: identifies the request if it may be sent again.

    Raises:
        WebhookNotFound: there is none with this id.
    """

    def work(operation: Operation) -> None:
        webhook, stamp = _lock(operation.db, webhook_id), operation.stamp
        new_filter = None if what is None else what(webhook.filter)
        events = rules.change(webhook, stamp, url=url, what=new_filter)
        if events:
            operation.db.execute(_SQL["start_over"], {"id": webhook_id})
        if enabled is not None:
            decide = rules.enable if enabled else rules.disable
            events += decide(webhook, stamp)
            operation.db.execute(_SQL["try_now"], {"id": webhook_id})
        operation.happen(webhook, events)

    ledger.operate(work, actor=actor, reason=reason, request=request)


def disable_failing(
    ledger: Ledger, webhook_id: int, *, failing_since: datetime, error: str
) -> bool:
    """Disable a webhook that nothing arrives at; return whether it was enabled.

    Raises:
        WebhookNotFound: it was removed.
    """

    def work(operation: Operation) -> bool:
        webhook = _lock(operation.db, webhook_id)
        events = rules.disable(webhook, operation.stamp, failing_since=failing_since, error=error)
        operation.happen(webhook, events)
        return bool(events)

    return ledger.operate(work, actor=DELIVERER, reason="no message was delivered")


def remove(
    ledger: Ledger,
    webhook_id: int,
    *,
    actor: str,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> None:
    """Remove a webhook: nothing is sent to it any more, and its secret is destroyed.

    Raises:
        WebhookNotFound: there is none with this id.
    """

    def work(operation: Operation) -> None:
        webhook = _lock(operation.db, webhook_id)
        operation.db.execute(_SQL["forget"], {"id": webhook_id})
        operation.happen(webhook, rules.remove(webhook, operation.stamp))

    ledger.operate(work, actor=actor, reason=reason, request=request)


def seen(ledger: Ledger, webhook_id: int | None = None) -> list[WebhookProgress]:
    """Return the webhooks that were not removed, oldest first; or the one with this id."""
    with ledger.datastore.reading() as db:
        rows = db.execute(_SQL["all"], {"id": webhook_id}).fetchall()
    return [WebhookProgress(from_row(row[:12]), *row[12:]) for row in rows]


def get(ledger: Ledger, webhook_id: int) -> WebhookProgress:
    """Return a webhook.

    Raises:
        WebhookNotFound: there is none with this id.
    """
    for found in seen(ledger, webhook_id):
        return found
    raise WebhookNotFound(webhook_id)


def secret_of(ledger: Ledger, webhook_id: int) -> bytes:
    """Return what messages to a webhook are signed with.

    Raises:
        WebhookNotFound: there is none with this id.
    """
    with ledger.datastore.reading() as db:
        row = db.execute(_SQL["secret"], {"id": webhook_id}).fetchone()
    if row is None:
        raise WebhookNotFound(webhook_id)
    return bytes(row[0])


def history(ledger: Ledger, webhook_id: int) -> list[Placed]:
    """Return the history of a webhook, oldest first."""
    with ledger.datastore.reading() as db:
        return ledger.history(db, Stream.webhook, webhook_id)


def _lock(db: Db, webhook_id: int) -> WebhookAggregate:
    row = db.execute(_SQL["lock"], {"id": webhook_id}).fetchone()
    if row is None:
        raise WebhookNotFound(webhook_id)
    return from_row(row)


def _number(db: Db, statement: str) -> int:
    return int(one(db, _SQL[statement])[0])


def _head(db: Db) -> int:
    return int(one(db, statements("log.ledger_events")["head"])[0])
