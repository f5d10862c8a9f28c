"""Webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from recordledger.domain.admin.webhook import URL_CHARACTERS_MAX
from recordledger.domain.streams import ID_MAX

from .base import Answer, Message
from .events import EventOut
from .fields import RecordId, ShortText, Text

Conditions = Annotated[list[ShortText], Field(max_length=100)]


class WebhookRequest(Message):
    """A webhook to add: its address and filter; without a filter it gets all events."""

    url: str = Field(max_length=URL_CHARACTERS_MAX, examples=["https://lab.example.org/ledger"])
    kinds: Conditions | None = None
    tags: Conditions | None = None
    actors: Conditions | None = None
    dataset_id: RecordId | None = None
    after: int | None = Field(
        default=None,
        ge=0,
        le=ID_MAX,
        description="Only what happened after this position; null: what happens from now on.",
    )
    reason: Text | None = None


class ChangeWebhookRequest(Message):
    """What is to be changed of a webhook; what is not there stays as it is."""

    url: str | None = Field(default=None, max_length=URL_CHARACTERS_MAX)
    kinds: Conditions | None = None
    tags: Conditions | None = None
    actors: Conditions | None = None
    dataset_id: RecordId | None = None
    enabled: bool | None = None
    reason: Text | None = None


class WebhookTestRequest(Message):
    """A test needs nothing said."""


class WebhookOut(Answer):
    """A webhook, without its secret, and how far delivery has come.

    Everything up to `position` that its filter lets through has arrived. `n_failures` attempts have
    failed since, the first at `failing_since`. `why` says why it is disabled.
    """

    id: int
    url: str
    enabled: bool
    why: str | None
    kinds: list[str]
    tags: list[str]
    actors: list[str]
    dataset_id: int | None
    owner: str
    created_at: AwareDatetime
    modified_at: AwareDatetime
    position: int
    n_failures: int
    failing_since: AwareDatetime | None
    next_try_at: AwareDatetime | None


class NewWebhookAnswer(Answer):
    """A webhook that was just added; `secret` is shown this once."""

    webhook: WebhookOut
    secret: str


class WebhooksAnswer(Answer):
    """All webhooks."""

    webhooks: list[WebhookOut]


class WebhookAnswer(WebhookOut):
    """A webhook and its history."""

    events: list[EventOut]


class RemovedWebhook(Answer):
    """Which webhook was removed."""

    id: int


class WebhookAttemptOut(Answer):
    """A delivery to a webhook of the events after one position, up to another.

    `status_code` is of the answer, if there was one; `error` is None if the message has arrived.
    """

    message_id: str
    after: int
    upto: int
    n_events: int
    attempted_at: AwareDatetime
    duration_s: float
    status_code: int | None
    error: str | None


class WebhookAttemptsAnswer(Answer):
    """The newest attempts, newest first."""

    webhook_id: int
    attempts: list[WebhookAttemptOut]


class WebhookTested(Answer):
    """The outcome of a test."""

    message_id: str
    has_arrived: bool
    status_code: int | None
    error: str | None
    duration_s: float
