"""What holds for every event: its name, its immutability, and what it does not accept."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from pydantic import ValidationError

from recordledger.domain.admin.access import TOKEN_EVENTS
from recordledger.domain.admin.divergence import DIVERGENCE_EVENTS
from recordledger.domain.admin.job import JOB_EVENTS
from recordledger.domain.admin.webhook import WEBHOOK_EVENTS
from recordledger.domain.records import events as e
from recordledger.domain.records.events import RECORD_EVENTS, Event, Payload
from recordledger.domain.routing.manager import MANAGER_EVENTS
from tests.examples import ONE_OF_EACH, claimed, created, payload

EVERY_EVENT = (
    *RECORD_EVENTS,
    *MANAGER_EVENTS,
    *TOKEN_EVENTS,
    *JOB_EVENTS,
    *WEBHOOK_EVENTS,
    *DIVERGENCE_EVENTS,
)
each_event = pytest.mark.parametrize("event_type", EVERY_EVENT, ids=lambda found: found.topic)
each_record_event = pytest.mark.parametrize(
    "event_type", RECORD_EVENTS, ids=lambda found: found.topic
)


def test_the_catalogue_names_every_event_of_a_record() -> None:
    of_record = {found for found in vars(e).values() if isinstance(found, type)}
    assert {found for found in of_record if issubclass(found, Event)} - {Event} == {*RECORD_EVENTS}
    assert len(RECORD_EVENTS) == 29


def test_no_two_events_have_the_same_topic() -> None:
    topics = [event_type.topic for event_type in EVERY_EVENT]
    assert len(set(topics)) == len(topics)


@each_event
def test_the_topic_is_the_name_in_snake_case(event_type: type[Event]) -> None:
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", event_type.__name__).lower()
    assert event_type.topic == snake


@each_event
def test_every_event_says_what_is_now_true(event_type: type[Event]) -> None:
    assert event_type.__doc__ is not None
    assert event_type.__doc__ != Event.__doc__
    assert event_type.class_version >= 1


@each_record_event
def test_an_event_does_not_change(event_type: type[Event]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(ONE_OF_EACH[event_type](), "actor", "mallory")  # noqa: B010


@each_record_event
def test_an_event_holds_nothing_that_is_not_declared(event_type: type[Event]) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        event_type.model_validate(ONE_OF_EACH[event_type]().model_dump() | {"surprise": 1})


@each_record_event
def test_an_event_reads_back_from_what_it_was_written_as(event_type: type[Event]) -> None:
    event = ONE_OF_EACH[event_type]()
    assert event_type.model_validate(event.model_dump()) == event


@each_record_event
def test_an_event_has_a_moment_that_everybody_understands(event_type: type[Event]) -> None:
    fields = ONE_OF_EACH[event_type]().model_dump()
    with pytest.raises(ValidationError, match="timezone_aware"):
        event_type.model_validate(fields | {"timestamp": datetime(2026, 3, 1)})  # noqa: DTZ001


def test_a_lease_ends_at_a_moment_that_everybody_understands() -> None:
    with pytest.raises(ValidationError, match="timezone_aware"):
        claimed(lease_expires_at=datetime(2026, 3, 1))  # noqa: DTZ001


@pytest.mark.parametrize(("digest", "size_bytes"), [(b"", 1), (b"x" * 31, 1), (b"x" * 32, -1)])
def test_a_payload_has_a_whole_digest_and_a_size(digest: bytes, size_bytes: int) -> None:
    with pytest.raises(ValidationError):
        Payload(digest=digest, size_bytes=size_bytes)


def test_equal_bytes_are_one_payload() -> None:
    assert payload("x") == payload(b"x") != payload("y")
    assert created(spec=payload("x")) == created(spec=payload("x"))
