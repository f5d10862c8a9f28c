"""A webhook: added, changed, switched off and on, removed."""

from __future__ import annotations

from typing import Final

import pytest

from recordledger.domain.admin import webhook as module
from recordledger.domain.admin.webhook import (
    WEBHOOK_EVENTS,
    WebhookAdded,
    WebhookAggregate,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookFilter,
    WebhookRemoved,
    WebhookState,
    change,
    disable,
    enable,
    evolve_webhook,
    remove,
)
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.events import Event
from tests.examples import T0, at, created, stamp

SAID: Final = stamp().model_dump()
LATER: Final = stamp(timestamp=at(9), reason="maintenance")
FILTER: Final = WebhookFilter(kinds=("errored",))
ADDED: Final = WebhookAdded(url="https://x.org/a", filter=FILTER, after=7, **SAID)
CHANGED: Final = WebhookChanged(url="https://x.org/b", **SAID)
DISABLED: Final = WebhookDisabled(**LATER.model_dump())
ENABLED: Final = WebhookEnabled(**SAID)
REMOVED: Final = WebhookRemoved(**SAID)


def fold(*history: Event) -> WebhookAggregate:
    webhook = WebhookAggregate(3)
    for event in history:
        webhook = evolve_webhook(webhook, event)
    return webhook


def test_a_webhook_that_was_added_is_enabled() -> None:
    assert fold(ADDED) == WebhookAggregate(
        3, 1, WebhookState.enabled, "https://x.org/a", FILTER, "alice", None, T0, T0
    )


def test_what_is_not_changed_stays() -> None:
    webhook = fold(ADDED, CHANGED)
    assert (webhook.url, webhook.filter) == ("https://x.org/b", FILTER)
    webhook = fold(ADDED, DISABLED, WebhookChanged(filter=WebhookFilter(), **SAID))
    assert (webhook.url, webhook.filter) == ("https://x.org/a", WebhookFilter())


def test_a_disabled_webhook_says_why_until_it_is_enabled() -> None:
    failing = WebhookDisabled(failing_since=T0, error="answered 500", **SAID)
    assert fold(ADDED, failing).why == "answered 500"
    assert fold(ADDED, DISABLED).why == "maintenance"
    assert fold(ADDED, WebhookDisabled(**SAID)).why == "alice"
    webhook = fold(ADDED, DISABLED, ENABLED)
    assert (webhook.state, webhook.why) == (WebhookState.enabled, None)


@pytest.mark.parametrize(
    ("history", "event"),
    [
        ((), CHANGED),
        ((ADDED,), ADDED),
        ((ADDED,), ENABLED),
        ((ADDED,), created()),
        ((ADDED, DISABLED), DISABLED),
        ((ADDED, REMOVED), CHANGED),
        ((ADDED, REMOVED), ENABLED),
        ((ADDED, REMOVED), REMOVED),
    ],
)
def test_nothing_else_can_have_happened_to_a_webhook(
    history: tuple[Event, ...], event: Event
) -> None:
    with pytest.raises(ImpossibleHistory) as caught:
        fold(*history, event)
    assert (caught.value.stream, caught.value.version) == ("webhook 3", len(history) + 1)


def test_only_what_is_new_is_changed() -> None:
    webhook = fold(ADDED)
    assert change(webhook, LATER, url=webhook.url, what=FILTER) == []
    assert change(webhook, LATER, url=None, what=None) == []
    assert change(webhook, LATER, url="https://y.org", what=FILTER) == [
        WebhookChanged(url="https://y.org", **LATER.model_dump())
    ]
    assert change(webhook, LATER, url=webhook.url, what=WebhookFilter()) == [
        WebhookChanged(filter=WebhookFilter(), **LATER.model_dump())
    ]


def test_what_is_so_already_causes_nothing() -> None:
    on, off, gone = fold(ADDED), fold(ADDED, DISABLED), fold(ADDED, REMOVED)
    assert (enable(on, LATER), disable(off, LATER), remove(gone, LATER)) == ([], [], [])
    assert (enable(gone, LATER), disable(gone, LATER), remove(WebhookAggregate(1), LATER)) == (
        [],
        [],
        [],
    )
    assert [type(each) for each in enable(off, LATER)] == [WebhookEnabled]
    assert disable(on, LATER, failing_since=T0, error="x") == [
        WebhookDisabled(failing_since=T0, error="x", **LATER.model_dump())
    ]
    assert [type(each) for each in remove(off, LATER)] == [WebhookRemoved]


def test_the_catalogue_names_every_event_of_a_webhook() -> None:
    found = {each for each in vars(module).values() if isinstance(each, type)}
    assert {each for each in found if issubclass(each, Event)} - {Event} == {*WEBHOOK_EVENTS}
