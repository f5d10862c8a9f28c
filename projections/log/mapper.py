"""How events become bytes and come back: msgpack maps under short topics.

A stored state is a msgpack map of the event's fields by name, with timestamps in msgpack's own
timestamp type, so that any msgpack reader can make sense of the log in ten years.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgpack
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent, Transcoder
from eventsourcing.utils import register_topic
from pydantic import BaseModel, ValidationError

from recordledger.domain.aggregates import EVENT_TYPES
from recordledger.domain.errors import UnknownEvent, UnreadableEvent
from recordledger.domain.records.events import Event, Outcome, Payload
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from .upcasters import upcast

# The key under which a shape's version is stored, where it is not 1 (as the library does).
VERSION_KEY: Final = "class_version"

# What reading can raise when bytes were altered: whatever they then happen to say.
_NO_EVENT: Final = (
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    msgpack.UnpackException,
)

_PLAIN: Final = (str, int, bytes, datetime, float)

for _topic, _event_type in EVENT_TYPES.items():
    register_topic(_topic, _event_type)


class Recorded(NamedTuple):
    """An event in its place: which aggregate it belongs to, and as which of its events."""

    stream: Stream
    number: int
    version: int
    event: Event

    @property
    def originator_id(self) -> UUID:
        """The stream's UUID, as the library names it."""
        return stream_uuid(self.stream, self.number)

    @property
    def originator_version(self) -> int:
        """The event's number in its stream, from 1, as the library names it."""
        return self.version


class MsgpackTranscoder(Transcoder):
    """Bytes for plain values, datetimes and UUIDs."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(datetime=True)

    def encode(self, obj: Any) -> bytes:
        """Return the value as msgpack.

        One packer serves all threads: packing plain values runs no Python code, and so holds
        the interpreter's lock from start to end.
        """
        return self._packer.pack(obj)

    def decode(self, data: bytes) -> Any:
        """Return the value that was packed; timestamps come back as aware datetimes in UTC."""
        return msgpack.unpackb(data, timestamp=3)


class EventMapper(Mapper[UUID]):
    """Between `Recorded` events and the rows of the log."""

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        """Return the event as the log stores it."""
        recorded = cast("Recorded", domain_event)
        return StoredEvent(
            originator_id=recorded.originator_id,
            originator_version=recorded.version,
            topic=recorded.event.topic,
            state=self.state_of(recorded.event),
        )

    def state_of(self, event: Event) -> bytes:
        """Return the bytes of an event; the same for all records that share the event."""
        return self.transcoder.encode(_shape(event))

    def states_of(self, event: Event, outcomes: Sequence[Outcome]) -> list[bytes]:
        """Return the bytes of events that are alike but for their outcomes.

        They are those of `state_of`: a map of few fields, of which the outcome is the last.
        """
        shape = _shape(event)
        shape.pop("outcome")
        shared = self.transcoder.encode(shape | {"outcome": {}})[:-1]
        return [shared + pack_outcome(outcome) for outcome in outcomes]

    def to_domain_event(self, stored_event: StoredEvent) -> Recorded:
        """Return the event that a row of the log holds.

        Raises:
            UnknownEvent: this version of the code does not know it; it is never skipped.
            UnreadableEvent: the bytes are no such event.
        """
        originator_id = cast("UUID", stored_event.originator_id)
        stream, number = stream_number(originator_id)
        event = self.event_of(stored_event.topic, stored_event.state)
        return Recorded(stream, number, stored_event.originator_version, event)

    def event_of(self, topic: str, state: bytes) -> Event:
        """Return the event of a topic and stored bytes, in its newest shape.

        Raises:
            UnknownEvent: this version of the code does not know it.
            UnreadableEvent: the bytes are no such event.
        """
        event_type = EVENT_TYPES.get(topic)
        if event_type is None:
            raise UnknownEvent(topic)
        try:
            decoded = self.transcoder.decode(state)
            if not isinstance(decoded, dict):
                raise UnreadableEvent(topic, "stored event is not a msgpack map")
            shape = cast("dict[str, Any]", decoded)
            version = shape.pop(VERSION_KEY, 1)
            shape = upcast(topic, shape, version, event_type.class_version)
            for name in ("operation_id", "undoes", "origin_ledger"):
                if name in shape:
                    shape[name] = _uuid(shape[name])
            return event_type.model_validate(shape)
        except _NO_EVENT as error:
            raise UnreadableEvent(topic, _reason(error)) from error

    def timestamp_of(self, topic: str, state: bytes) -> datetime:
        """Return when an event happened, without reading the rest of it.

        Raises:
            UnreadableEvent: the bytes are no event.
        """
        try:
            found = self.transcoder.decode(state)["timestamp"]
        except (*_NO_EVENT, LookupError) as error:
            raise UnreadableEvent(topic, _reason(error)) from error
        if not isinstance(found, datetime):
            raise UnreadableEvent(topic, "its time is not valid")
        return found


def actor_of(topic: str, state: bytes) -> str:
    """Return who did it, from the stored bytes of an event.

    Raises:
        UnreadableEvent: they are those of no event.
    """
    try:
        found = msgpack.unpackb(state, timestamp=3)["actor"]
    except (*_NO_EVENT, LookupError) as error:
        raise UnreadableEvent(topic, _reason(error)) from error
    if not isinstance(found, str):
        raise UnreadableEvent(topic, "its actor is not valid")
    return found


@lru_cache(maxsize=4_096)
def _uuid(data: bytes) -> UUID:
    """Return the UUID of these bytes; all events of an operation share one."""
    return UUID(bytes=data)


def timestamp_of(topic: str, state: bytes) -> datetime:
    """Return when an event happened, from the beginning of its stored bytes: they begin with that.

    Raises:
        UnreadableEvent: they are those of no event.
    """
    unpacker = msgpack.Unpacker(timestamp=3)
    unpacker.feed(state)
    try:
        unpacker.read_map_header()
        if unpacker.unpack() == "timestamp" and isinstance(found := unpacker.unpack(), datetime):
            return found
    except _NO_EVENT as error:
        raise UnreadableEvent(topic, _reason(error)) from error
    raise UnreadableEvent(topic, "the map does not begin with the time")


def _reason(error: Exception) -> str:
    """Return what is wrong with the bytes of an event, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error) or "not valid msgpack"


def _shape(event: Event) -> dict[str, Any]:
    """Return the event's fields as plain values; what is None is left out."""
    shape = {name: _plain(value) for name, value in vars(event).items() if value is not None}
    if event.class_version > 1:
        shape[VERSION_KEY] = event.class_version
    return shape


def _plain(value: Any) -> Any:
    """Return a field's value as msgpack takes it. Nested models become maps without their Nones."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, BaseModel):
        return {name: _plain(item) for name, item in vars(value).items() if item is not None}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value


def pack_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as the `records` table holds it."""
    return msgpack.packb(_plain(outcome))


def unpack_outcome(data: bytes) -> Outcome:
    """Return the outcome that the `records` table holds."""
    return Outcome.model_validate(msgpack.unpackb(data))


def pack_payload(payload: Payload) -> bytes:
    """Return a reference to a payload as the `records` table holds it."""
    return msgpack.packb(_plain(payload))


def unpack_payload(data: bytes) -> Payload:
    """Return the reference to a payload that the `records` table holds."""
    return Payload.model_validate(msgpack.unpackb(data))
