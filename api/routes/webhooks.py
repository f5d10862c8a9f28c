"""Webhooks: add, list, change, remove, test; for administrators."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.admin.addresses import parse_allowed
from recordledger.domain.admin.webhook import WebhookFilter
from recordledger.domain.streams import ID_MAX
from recordledger.projections.actions import deliveries, webhooks
from recordledger.projections.actions.deliveries import ATTEMPTS_KEPT
from recordledger.projections.actions.webhooks import WebhookProgress
from recordledger.projections.reading import queries

from ..http.auth import Visitor, allowed
from ..http.errors import BeyondHead
from ..http.openapi import request_body
from ..http.rendering import events_out
from ..http.request_context import Call, endpoint
from ..http.webhook_sender import TEST_TYPE, Sender, message, new_message_id, shown_secret
from ..http.wire import Reply
from ..schemas.fields import Text
from ..schemas.webhooks import (
    ChangeWebhookRequest,
    NewWebhookAnswer,
    RemovedWebhook,
    WebhookAnswer,
    WebhookAttemptsAnswer,
    WebhookOut,
    WebhookRequest,
    WebhooksAnswer,
    WebhookTested,
    WebhookTestRequest,
)
from .histories import kinds_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

WebhookIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Administrator = Annotated[Visitor, allowed(Permission.admin)]

# The caller of a test waits for it, and so does one of the server's threads.
_TEST_TIMEOUT_S: Final = 5.0
_CONDITIONS: Final = frozenset(WebhookFilter.model_fields)


@router.post("", response_model=NewWebhookAnswer, openapi_extra=request_body(WebhookRequest))
@endpoint(Administrator)
def add_webhook(call: Call) -> Reply:
    """Add a webhook; the secret that messages are signed with is in this answer and nowhere else.

    An idempotency key has no effect here, since the secret is not shown again: if the answer was
    lost, remove the webhook and add it again.
    """
    asked = call.parse(WebhookRequest)
    desk = call.desk
    _sender(call).target(asked.url)
    head = queries.head(desk.ledger)
    if asked.after is not None and asked.after > head:
        raise BeyondHead(asked.after, head)
    new = webhooks.add(
        desk.ledger,
        asked.url,
        _filter(asked),
        after=asked.after,
        limit=desk.settings.webhooks_max,
        actor=call.visitor.actor,
        reason=asked.reason,
    )
    webhook = _webhook_out(webhooks.get(desk.ledger, new.webhook.id))
    return {"webhook": webhook, "secret": shown_secret(new.secret)}


@router.get("", response_model=WebhooksAnswer)
@endpoint(Administrator)
def list_webhooks(call: Call) -> Reply:
    """Get all webhooks, oldest first, without their secrets."""
    return {"webhooks": [_webhook_out(each) for each in webhooks.seen(call.desk.ledger)]}


@router.get("/{webhook_id}", response_model=WebhookAnswer)
@endpoint(Administrator)
def get_webhook(call: Call, webhook_id: WebhookIdInPath) -> Reply:
    """Get a webhook and its history: who added, changed or disabled it, and why."""
    return _one(call, webhook_id)


@router.patch(
    "/{webhook_id}",
    response_model=WebhookAnswer,
    openapi_extra=request_body(ChangeWebhookRequest, changes=True),
)
@endpoint(Administrator)
def change_webhook(call: Call, webhook_id: WebhookIdInPath) -> Reply:
    """Change what is given, and leave the rest. One that is enabled again goes on where it was."""
    asked = call.parse(ChangeWebhookRequest)
    if asked.url is not None:
        _sender(call).target(asked.url)
    given = _CONDITIONS & asked.model_fields_set

    def changed(before: WebhookFilter) -> WebhookFilter:
        new = _filter(asked).model_dump(include=set(given))
        return before.model_copy(update=new)

    webhooks.modify(
        call.desk.ledger,
        webhook_id,
        url=asked.url,
        what=changed if given else None,
        enabled=asked.enabled,
        actor=call.visitor.actor,
        reason=asked.reason,
        request=call.key,
    )
    return _one(call, webhook_id)


@router.delete("/{webhook_id}", response_model=RemovedWebhook)
@endpoint(Administrator)
def remove_webhook(
    call: Call, webhook_id: WebhookIdInPath, reason: Annotated[Text | None, Query()] = None
) -> Reply:
    """Remove a webhook: nothing is sent to it any more, and its secret is destroyed."""
    webhooks.remove(
        call.desk.ledger,
        webhook_id,
        actor=call.visitor.actor,
        reason=reason,
        request=call.key,
    )
    return {"id": webhook_id}


@router.get("/{webhook_id}/deliveries", response_model=WebhookAttemptsAnswer)
@endpoint(Administrator)
def get_deliveries(
    call: Call,
    webhook_id: WebhookIdInPath,
    limit: Annotated[int, Query(ge=1, le=ATTEMPTS_KEPT)] = ATTEMPTS_KEPT,
) -> Reply:
    """Get the newest deliveries to a webhook, newest first; 100 are kept."""
    found = deliveries.attempts(call.desk.ledger, webhook_id, limit)
    return {"webhook_id": webhook_id, "attempts": [each._asdict() for each in found]}


@router.post(
    "/{webhook_id}/test",
    response_model=WebhookTested,
    openapi_extra=request_body(WebhookTestRequest),
)
@endpoint(Administrator)
def test_webhook(call: Call, webhook_id: WebhookIdInPath) -> Reply:
    """Send a webhook a message of type `ledger.test`, now, and return the outcome.

    It is sent also if the webhook is disabled, and changes nothing.
    """
    call.parse(WebhookTestRequest)
    ledger = call.desk.ledger
    found = webhooks.get(ledger, webhook_id).webhook
    body = message(TEST_TYPE, datetime.now(UTC), {"webhook_id": webhook_id})
    message_id = new_message_id()
    sender = replace(_sender(call), timeout_s=_TEST_TIMEOUT_S)
    result = sender.send(found.url, webhooks.secret_of(ledger, webhook_id), message_id, body)
    return {
        "message_id": message_id,
        "has_arrived": result.has_arrived,
        "status_code": result.status_code,
        "error": result.error,
        "duration_s": result.duration_s,
    }


def _sender(call: Call) -> Sender:
    """Return what sends messages, with the limits of the process that sends them all day."""
    found = deliveries.allow_private_in_force(call.desk.ledger)
    if found is None:
        found = call.desk.settings.webhook_allow_private
    return Sender(parse_allowed(found))


def _filter(asked: WebhookRequest | ChangeWebhookRequest) -> WebhookFilter:
    return WebhookFilter(
        kinds=tuple(sorted(kinds_of(asked.kinds))),
        tags=tuple(sorted({each.lower() for each in asked.tags or ()})),
        actors=tuple(sorted(set(asked.actors or ()))),
        dataset_id=asked.dataset_id,
    )


def _one(call: Call, webhook_id: int) -> Reply:
    ledger = call.desk.ledger
    found = webhooks.get(ledger, webhook_id)
    events = events_out(ledger, webhooks.history(ledger, webhook_id))
    return _webhook_out(found) | {"events": events}


def _webhook_out(found: WebhookProgress) -> dict[str, Any]:
    webhook, which = found.webhook, found.webhook.filter
    own = {
        name: getattr(webhook, name) for name in WebhookOut.model_fields if hasattr(webhook, name)
    }
    return own | {
        "enabled": webhook.state == "enabled",
        "kinds": list(which.kinds),
        "tags": list(which.tags),
        "actors": list(which.actors),
        "dataset_id": which.dataset_id,
        "position": found.position,
        "n_failures": found.n_failures,
        "failing_since": found.failing_since,
        "next_try_at": found.next_try_at if found.n_failures else None,
    }
