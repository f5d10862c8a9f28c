"""Webhooks."""

from __future__ import annotations

from pydantic import Field

from ...schemas.base import Answer
from ...schemas.webhooks import WebhookAnswer, WebhookAttemptOut, WebhookOut
from .table import Table


class Webhook(WebhookOut):
    """A webhook, without its secret, and how far it was delivered to."""


class WebhookDetails(WebhookAnswer):
    """A webhook and its history."""


class NewWebhook(Answer):
    """A webhook that was just added. `secret` is what messages are signed with; shown this once."""

    webhook: Webhook
    secret: str = Field(repr=False)


class WebhookAttempt(WebhookAttemptOut):
    """A delivery to a webhook."""


class Webhooks(Table[Webhook]):
    """Webhooks, oldest first."""

    noun = "webhooks"
    columns = ("id", "enabled", "url", "kinds", "position", "n_failures", "why")


class WebhookAttempts(Table[WebhookAttempt]):
    """Deliveries to a webhook, newest first."""

    noun = "attempts"
    columns = ("attempted_at", "message_id", "n_events", "upto", "status_code", "error")
