"""Webhooks."""

from __future__ import annotations

from pydantic import Field

from ...schemas.base import Answer
from ...schemas.webhooks import WebhookAnswer, WebhookAttemptOut, WebhookOut
from .table import Table


class Webhook(WebhookOut):
    """A webhook, without its secret, and how far it was told."""


class WebhookDetails(WebhookAnswer):
    """A webhook and what has happened to it."""


class NewWebhook(Answer):
    """A webhook that was just added. `secret` is what messages are signed with; shown this once."""

    webhook: Webhook
    secret: str = Field(repr=False)


class WebhookAttempt(WebhookAttemptOut):
    """An attempt to tell a webhook something."""


class Webhooks(Table[Webhook]):
    """Webhooks, oldest first."""

    noun = "webhooks"
    columns = ("id", "enabled", "url", "kinds", "position", "n_failures", "why")


class WebhookAttempts(Table[WebhookAttempt]):
    """Attempts to tell a webhook something, newest first."""

    noun = "attempts"
    columns = ("attempted_at", "message_id", "n_events", "upto", "status_code", "error")
