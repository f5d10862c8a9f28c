"""A webhook: an address that receives events; its events, state and rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from ..errors import ImpossibleHistory
from ..records.events import Event, Stamp, events_of

URL_CHARACTERS_MAX: Final = 2_000


class WebhookState(StrEnum):
    """Whether a webhook receives events. What is removed never comes back."""

    enabled = auto()
    disabled = auto()
    removed = auto()


class WebhookFilter(BaseModel):
    """The filter of a webhook: its events meet every condition that is not empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    dataset_id: int | None = None


EVERYTHING: Final = WebhookFilter()


class WebhookAdded(Event):
    """The address receives the events after the position `after` that meet the filter.

    Its secret is not in the log.
    """

    topic = "webhook_added"

    url: str
    filter: WebhookFilter
    after: int


class WebhookChanged(Event):
    """The webhook has another address or filter from now on; None keeps what it was."""

    topic = "webhook_changed"

    url: str | None = None
    filter: WebhookFilter | None = None


class WebhookEnabled(Event):
    """The webhook receives events again, from where it was."""

    topic = "webhook_enabled"


class WebhookDisabled(Event):
    """The webhook receives nothing until it is enabled; what happens meanwhile waits for it.

    If the server gave up, `failing_since` says since when nothing arrived, and `error` what the
    last attempt met.
    """

    topic = "webhook_disabled"

    failing_since: AwareDatetime | None = None
    error: str | None = None


class WebhookRemoved(Event):
    """The webhook receives nothing any more; its secret is destroyed."""

    topic = "webhook_removed"


WEBHOOK_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class WebhookAggregate:
    """The state of one webhook, folded from its history.

    Attributes:
        why: why it is disabled, in words; None while it is not.
    """

    id: int
    version: int = 0
    state: WebhookState | None = None
    url: str = ""
    filter: WebhookFilter = EVERYTHING
    owner: str = ""
    why: str | None = None
    created_at: datetime | None = None
    modified_at: datetime | None = None


def evolve_webhook(webhook: WebhookAggregate, event: Event) -> WebhookAggregate:
    """Return the webhook after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the webhook is.
    """
    webhook = replace(webhook, version=webhook.version + 1, modified_at=event.timestamp)
    match event, webhook.state:
        case WebhookAdded(), None:
            return replace(
                webhook,
                state=WebhookState.enabled,
                url=event.url,
                filter=event.filter,
                owner=event.actor,
                created_at=event.timestamp,
            )
        case WebhookChanged(), WebhookState.enabled | WebhookState.disabled:
            return replace(
                webhook, url=event.url or webhook.url, filter=event.filter or webhook.filter
            )
        case WebhookEnabled(), WebhookState.disabled:
            return replace(webhook, state=WebhookState.enabled, why=None)
        case WebhookDisabled(), WebhookState.enabled:
            return replace(
                webhook, state=WebhookState.disabled, why=event.error or event.reason or event.actor
            )
        case WebhookRemoved(), WebhookState.enabled | WebhookState.disabled:
            return replace(webhook, state=WebhookState.removed)
        case _:
            raise ImpossibleHistory(
                f"webhook {webhook.id}",
                webhook.version,
                f"{event.topic} cannot happen to a webhook that is {webhook.state or 'not there'}",
            )


def change(
    webhook: WebhookAggregate, stamp: Stamp, *, url: str | None, what: WebhookFilter | None
) -> list[Event]:
    """Return the event by which address or filter change; none if they are so already."""
    url = None if url == webhook.url else url
    what = None if what == webhook.filter else what
    if url is None and what is None:
        return []
    return [WebhookChanged(url=url, filter=what, **stamp.model_dump())]


def enable(webhook: WebhookAggregate, stamp: Stamp) -> list[Event]:
    """Return the event by which the webhook receives events again; none if it is."""
    if webhook.state is not WebhookState.disabled:
        return []
    return [WebhookEnabled(**stamp.model_dump())]


def disable(
    webhook: WebhookAggregate,
    stamp: Stamp,
    *,
    failing_since: datetime | None = None,
    error: str | None = None,
) -> list[Event]:
    """Return the event by which the webhook receives nothing; none if it is so already."""
    if webhook.state is not WebhookState.enabled:
        return []
    return [WebhookDisabled(failing_since=failing_since, error=error, **stamp.model_dump())]


def remove(webhook: WebhookAggregate, stamp: Stamp) -> list[Event]:
    """Return the event that ends the webhook; none if it has ended, or never was."""
    if webhook.state in (None, WebhookState.removed):
        return []
    return [WebhookRemoved(**stamp.model_dump())]
