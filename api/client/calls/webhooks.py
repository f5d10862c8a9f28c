"""Who receives events: webhooks to add, change, test and remove, for administrators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from ...schemas.webhooks import (
    ChangeWebhookRequest,
    RemovedWebhook,
    WebhookAttemptsAnswer,
    WebhookRequest,
    WebhooksAnswer,
    WebhookTested,
)
from .. import exchange, wire
from ..arguments import listed
from ..errors import InvalidArgument
from ..exchange import Operation, Session
from ..results.webhooks import (
    NewWebhook,
    Webhook,
    WebhookAttempt,
    WebhookAttempts,
    WebhookDetails,
    Webhooks,
)
from . import datasets

_PATH = "/v1/webhooks"


class _WebhooksAnswer(WebhooksAnswer):
    webhooks: list[Webhook]  # type: ignore[assignment]


class _DeliveryAttemptsAnswer(WebhookAttemptsAnswer):
    attempts: list[WebhookAttempt]  # type: ignore[assignment]


def add_webhook(
    session: Session,
    url: str,
    *,
    kind: str | Iterable[str] | None = None,
    tag: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    dataset: int | str | None = None,
    after: int | None = None,
    reason: str | None = None,
) -> Operation[NewWebhook]:
    """Add an address that receives events; its `secret` is returned only here.

    If the answer is lost on its way, `NotConnected` says so: look into `webhooks()`, and remove the
    one whose secret nobody knows.

    Args:
        url: an https address of the public Internet, unless the server allows others.
        kind: only of this kind, like `errored`, or of several.
        tag: only of records that have this tag, or one of several, when a message is sent.
        actor: only by this one, like `user:ann`, or by several.
        dataset: only of this dataset, by name or id, and of the records that it has then.
        after: what happened after this position of the log too; None: from now on.
        reason: why; kept with the event.

    Raises:
        Refused: the address is not allowed, or the limit of webhooks is reached.

    >>> client.add_webhook("https://example.org/ledger", kind="errored").secret
    """
    given = yield from _conditions(session, kind, tag, actor, dataset)
    request = wire.message(WebhookRequest, url=url, after=after, reason=reason, **given)
    body = wire.pack(request.model_dump(exclude_none=True))
    return (yield from exchange.post(session, _PATH, NewWebhook, body, is_repeatable=False))


def webhooks(session: Session) -> Operation[Webhooks]:
    """Return all webhooks, oldest first, without their secrets.

    >>> [webhook.url for webhook in client.webhooks()]
    """
    answer = yield from exchange.get(session, _PATH, _WebhooksAnswer)
    return Webhooks(answer.webhooks)


def webhook(session: Session, webhook_id: int) -> Operation[WebhookDetails]:
    """Return a webhook and its history.

    Raises:
        NotFound: there is no such webhook.

    >>> client.webhook(1).enabled
    """
    return (yield from exchange.get(session, _path(webhook_id), WebhookDetails))


def modify_webhook(
    session: Session,
    webhook_id: int,
    *,
    url: str | None = None,
    kind: str | Iterable[str] | None = None,
    tag: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    dataset: int | str | None = None,
    enabled: bool | None = None,
    reason: str | None = None,
) -> Operation[WebhookDetails]:
    """Change a webhook; what is None stays as it is, and an empty list lets everything through.

    Args:
        webhook_id: which.
        url: its new address.
        kind: as of `add_webhook`.
        tag: as of `add_webhook`.
        actor: as of `add_webhook`.
        dataset: as of `add_webhook`; 0 for any.
        enabled: whether it receives events. It goes on where it was.
        reason: why; kept with every event.

    Raises:
        NotFound: there is no such webhook.
        Refused: the address is not allowed.

    >>> client.modify_webhook(1, kind=["errored", "failed"])
    """
    given = yield from _conditions(session, kind, tag, actor, dataset)
    more = {"url": url, "enabled": enabled, "reason": reason}
    given |= {name: value for name, value in more.items() if value is not None}
    request = wire.message(ChangeWebhookRequest, **given)
    if not request.model_fields_set:
        raise InvalidArgument("pass at least one thing to change")
    body = wire.pack(request.model_dump(exclude_unset=True))
    path = _path(webhook_id)
    return (yield from exchange.post(session, path, WebhookDetails, body, method="PATCH"))


def remove_webhook(
    session: Session, webhook_id: int, *, reason: str | None = None
) -> Operation[RemovedWebhook]:
    """End a webhook: nothing is sent to it any more, and its secret is destroyed.

    Args:
        webhook_id: which.
        reason: why; kept with the event.

    Raises:
        NotFound: there is no such webhook.

    >>> client.remove_webhook(1)
    """
    query = "" if reason is None else "?" + urlencode({"reason": reason})
    path = _path(webhook_id) + query
    return (yield from exchange.post(session, path, RemovedWebhook, b"", method="DELETE"))


def webhook_deliveries(
    session: Session, webhook_id: int, *, limit: int = 100
) -> Operation[WebhookAttempts]:
    """Return the newest deliveries to a webhook, newest first.

    Args:
        webhook_id: which.
        limit: maximum number of deliveries; 100 are kept.

    Raises:
        NotFound: there is no such webhook.

    >>> [attempt.status for attempt in client.webhook_deliveries(1)]
    """
    path = f"{_path(webhook_id)}/deliveries?limit={max(1, min(limit, 100))}"
    answer = yield from exchange.get(session, path, _DeliveryAttemptsAnswer)
    return WebhookAttempts(answer.attempts)


def test_webhook(session: Session, webhook_id: int) -> Operation[WebhookTested]:
    """Send a webhook a message of type `ledger.test`, now, and return its outcome.

    Raises:
        NotFound: there is no such webhook.

    >>> client.test_webhook(1)
    """
    path = f"{_path(webhook_id)}/test"
    return (yield from exchange.post(session, path, WebhookTested, b""))


def _conditions(
    session: Session,
    kind: str | Iterable[str] | None,
    tag: str | Iterable[str] | None,
    actor: str | Iterable[str] | None,
    dataset: int | str | None,
) -> Operation[dict[str, Any]]:
    given: dict[str, Any] = {"kinds": kind, "tags": tag, "actors": actor}
    found: dict[str, Any] = {
        name: list(listed(value) or ()) for name, value in given.items() if value is not None
    }
    if dataset == 0:
        found["dataset_id"] = None
    elif dataset is not None:
        found["dataset_id"] = yield from datasets.dataset(session, dataset)
    return found


def _path(webhook_id: int) -> str:
    return f"{_PATH}/{wire.record_id(webhook_id, what='webhook_id')}"
