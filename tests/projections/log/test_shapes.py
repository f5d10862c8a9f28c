"""Stored shapes, once more: no field of an event changes without an example of how it is stored.

`shapes/fields.json` says which fields each event has, and which stored example has all of them. If
a test here fails, read what it says, do that, and then note the new fields:

    python -m tests.projections.log.test_shapes
"""

from __future__ import annotations

import json
import sys
import types
from enum import Enum
from hashlib import sha256
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgpack
import pytest
from pydantic import AwareDatetime, BaseModel

from recordledger.domain.aggregates import EVENT_TYPES
from recordledger.domain.errors import UnknownEvent
from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Priority
from recordledger.projections.log.mapper import VERSION_KEY
from recordledger.projections.log.upcasters import UPCASTERS, Shape

from .test_mapper import FULL, MAPPER, SHAPES, lines_of

OF_ERRORS: Final = {"error_type", "error_message", "traceback"}
NOTED: Final = SHAPES / "fields.json"

TO_DO: Final = """
The fields of the event {topic!r} have changed:
{changes}
Such events stand in somebody's log as they were, and must be read for ever. So

* if only fields were added that may be missing: put an event that has them as the first into
  EXAMPLES of test_mapper.py, and its bytes as the first line into shapes/{topic}.v{version}.hex;
* else (renamed, removed, required, of another type): raise class_version of {name}, write the
  upcaster from the old shape, and put the examples into a new file shapes/{topic}.v{next}.hex.

No old line is ever changed. Then note the new fields: python -m tests.projections.log.test_shapes
"""


def named(annotation: Any) -> str:
    """Return a type as text that changes if what is stored does; models with all their fields."""
    origin: Any = get_origin(annotation)
    arguments: tuple[Any, ...] = get_args(annotation)
    if annotation is AwareDatetime:
        return "time"
    if annotation is types.NoneType:
        return "None"
    if origin in (types.UnionType, Union):
        return " | ".join(sorted(map(named, arguments)))
    if origin is Annotated:
        return named(arguments[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(named, arguments))}]"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inside = ", ".join(f"{name}: {text}" for name, text in fields_of(annotation).items())
        return f"{annotation.__name__}({inside})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"{annotation.__name__}({', '.join(str(each.value) for each in annotation)})"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def fields_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the types of a model's fields, by name; those that may be missing say so."""
    return {
        name: named(field.annotation) + ("" if field.is_required() else ", may be missing")
        for name, field in model.model_fields.items()
    }


def newest_example(topic: str) -> bytes:
    """Return the stored example that has all fields."""
    return lines_of(SHAPES / f"{topic}.v{EVENT_TYPES[topic].class_version}.hex")[0]


def noted() -> dict[str, dict[str, Any]]:
    """Return what is noted, by topic."""
    found: dict[str, dict[str, Any]] = json.loads(NOTED.read_text("utf-8"))
    return found


def what_to_do(topic: str, before: dict[str, str], now: dict[str, str]) -> str:
    """Return what whoever changed an event has to do."""
    changes = [
        f"  {name}: {before.get(name, '(not there)')} -> {now.get(name, '(gone)')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    version = EVENT_TYPES[topic].class_version
    return TO_DO.format(
        topic=topic,
        changes="\n".join(changes),
        version=version,
        next=version + 1,
        name=EVENT_TYPES[topic].__name__,
    )


@pytest.mark.parametrize("topic", EVENT_TYPES)
def test_no_field_has_changed_without_a_new_stored_example(topic: str) -> None:
    entry = noted().get(topic, {"fields": {}, "example": ""})
    now = fields_of(EVENT_TYPES[topic])
    assert entry["fields"] == now, what_to_do(topic, entry["fields"], now)
    assert entry["example"] == sha256(newest_example(topic)).hexdigest()


@pytest.mark.parametrize("topic", EVENT_TYPES)
def test_the_newest_stored_example_has_every_field(topic: str) -> None:
    shape = msgpack.unpackb(newest_example(topic), timestamp=3)
    assert set(shape) - {VERSION_KEY} == set(EVENT_TYPES[topic].model_fields)


def test_only_events_that_there_are_are_noted() -> None:
    assert set(noted()) == set(EVENT_TYPES)


def test_everything_that_outcomes_can_say_is_stored_for_each_event_that_has_one() -> None:
    for topic, event_type in EVENT_TYPES.items():
        if "outcome" in event_type.model_fields:
            newest = msgpack.unpackb(newest_example(topic), timestamp=3)["outcome"]
            if "error_type" in newest:
                # No result, and whatever else there is; and the other way round.
                assert set(newest) == set(e.Outcome.model_fields) - {"result"}, topic
            else:
                assert set(newest) == set(e.Outcome.model_fields) - OF_ERRORS, topic


def test_a_changed_field_is_named_with_what_to_do() -> None:
    now = fields_of(EVENT_TYPES["rerouted"])
    before = {name: text for name, text in now.items() if name != "tag"} | {"label": "str"}
    said = what_to_do("rerouted", before, now)
    assert "tag: (not there) -> None | str, may be missing" in said
    assert "label: str -> (gone)" in said
    assert "shapes/rerouted.v1.hex" in said
    assert "shapes/rerouted.v2.hex" in said


def test_types_are_told_apart() -> None:
    class Small(BaseModel):
        size: int

    class Large(BaseModel):
        size: int
        unit: str = ""

    assert named(tuple[int, ...]) == "tuple[int, ...]"
    assert named(dict[str, str | None]) == "dict[str, None | str]"
    assert named(Priority) == "Priority(0, 1, 2)"
    assert named(Small) == "Small(size: int)"
    assert named(Large) == "Large(size: int, unit: str, may be missing)"


# An upcaster, as one would be written


class ReroutedLater(Event):
    """`Rerouted` as it might be one day: what was `tag` is called `label`."""

    topic = "rerouted"
    class_version = 2

    label: str | None = None
    priority: Priority | None = None


def upcast_rerouted_v1(shape: Shape) -> Shape:
    """Give the tag its new name."""
    return {("label" if name == "tag" else name): value for name, value in shape.items()}


def test_a_renamed_field_is_read_from_old_examples_through_its_upcaster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = lines_of(SHAPES / "rerouted.v1.hex")
    before = [MAPPER.event_of("rerouted", state) for state in examples]
    monkeypatch.setitem(EVENT_TYPES, "rerouted", ReroutedLater)
    with pytest.raises(UnknownEvent, match="rerouted in version 1"):
        MAPPER.event_of("rerouted", examples[0])
    monkeypatch.setitem(UPCASTERS, ("rerouted", 1), upcast_rerouted_v1)
    for state, event in zip(examples, before, strict=True):
        assert isinstance(event, e.Rerouted)
        fields: dict[str, Any] = {**dict(event), "label": event.tag}
        del fields["tag"]
        assert MAPPER.event_of("rerouted", state) == ReroutedLater(**fields)
    newest = ReroutedLater(label="gpu", **FULL)
    assert MAPPER.event_of("rerouted", MAPPER.state_of(newest)) == newest


def note() -> int:
    """Note the fields of events; refuse those that have changed without a new example."""
    kept = noted() if NOTED.exists() else {}
    entries: dict[str, dict[str, Any]] = {}
    for topic, event_type in sorted(EVENT_TYPES.items()):
        entry = {
            "fields": fields_of(event_type),
            "example": sha256(newest_example(topic)).hexdigest(),
        }
        old = kept.get(topic, {"fields": {}, "example": ""})
        if old["fields"] != entry["fields"] and old["example"] == entry["example"]:
            sys.stderr.write(what_to_do(topic, old["fields"], fields_of(event_type)))
            return 1
        entries[topic] = entry
    NOTED.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(note())
