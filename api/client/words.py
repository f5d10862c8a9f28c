"""Events in words: a sentence for every kind, and what it says besides in a few words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from string import Formatter
from typing import Any, Final, cast

from ..schemas.events import EventOut
from .tables import shown

# What a line has no room for: digests, and what stands elsewhere in the row.
_UNTOLD: Final = frozenset(
    {
        "kind",
        "spec",
        "state",
        "priority",
        "retries",
        "lease_expires_at",
        "keys",
        "awaits",
        "until",
        "any_child",
        "takes_errors",
        "code_version",
    }
)
# Number of items of a list that are shown before the number of the others.
_LISTED: Final = 6


def summary(event: EventOut, without: Collection[str] = ()) -> str:
    """Return what an event says besides who and when, in a few words; some fields left out."""
    data = {
        key: value
        for key, value in event.data.items()
        if value not in (None, [], {}, ()) and key not in without
    }
    parts: list[str] = []
    for name, value in data.items():
        match name, value:
            case "outcome", dict():
                parts.append(_outcome(value))  # pyright: ignore[reportUnknownArgumentType]
            case "text", _:
                parts.append(_text(value))
            case "function", _:
                parts.append(str(value))
            case ("retries", 0) | ("priority", 1 | "normal"):
                continue
            case "progress", float():
                parts.append(f"{100 * value:.0f} %")
            case "children", list():
                ids = cast("list[int]", value)
                more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
                parts.append(f"children {', '.join(map(str, ids[:_LISTED]))}{more}")
            case (("retries" | "priority"), _):
                parts.append(f"{name} {value}")
            case _ if name in _UNTOLD or (isinstance(value, dict) and "digest" in value):
                continue
            case _:
                parts.append(f"{name.removesuffix('_id').replace('_', ' ')} {shown(value)}")
    return ", ".join(part for part in parts if part)


def _text(text: object) -> str:
    """Return what a comment or an error says, or that it was destroyed with its record."""
    match text:
        case {"erased": True}:
            return "(erased)"
        case _:
            return str(text or "")


def _outcome(outcome: dict[str, Any]) -> str:
    parts: list[str] = []
    if error_type := outcome.get("error_type"):
        parts.append(f"{error_type}: {_text(outcome.get('error_message'))}".rstrip(": "))
    if (compute_s := outcome.get("compute_s")) is not None:
        parts.append(f"computed in {duration(compute_s)}")
    match outcome.get("result"):
        case {"size_bytes": int(size_bytes)}:
            parts.append(f"result {size_bytes:,} bytes")
        case _:
            pass
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time span as people write it.

    >>> [duration(s) for s in (0.0123, 4.5, 75, 7_300, 180_000)]
    ['12 ms', '4.5 s', '1 min 15 s', '2 h 1 min', '2 d 2 h']
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit_s, unit, smaller_s, smaller in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // smaller_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


@cache
def sentences() -> Mapping[str, str]:
    """Return what each kind of event says, with its own fields and `who` did it."""
    # Imported only here, when an event is printed: it takes a while to load all of them.
    from recordledger.domain.aggregates import EVENT_TYPES

    return {topic: each.words for topic, each in EVENT_TYPES.items() if each.words}


def in_words(event: EventOut) -> str:
    """Return what happened as a sentence: who did what, with what outcome, and why."""
    sentence = sentences().get(event.kind, f"{event.kind.replace('_', ' ')}, by {{who}}")
    used = {name for _, name, _, _ in Formatter().parse(sentence) if name}
    values = {name: shown(event.data.get(name)) or "?" for name in used}
    words = sentence.format(**values | {"who": _who(event.actor)})
    if event.actor == f"manager:{event.data.get('manager_id')}":
        used.add("manager_id")
    more = summary(event, without=used)
    return words + (f": {more}" if more else "") + (f" ({event.reason})" if event.reason else "")


def _who(actor: str) -> str:
    """Return an actor as people say it.

    >>> [_who(actor) for actor in ("user:ann", "manager:3", "server:lease-reaper")]
    ['ann', 'manager 3', 'the server (lease-reaper)']
    """
    kind, _, name = actor.partition(":")
    match kind:
        case "user":
            return name
        case "manager" | "policy":
            return f"{kind} {name}"
        case "server":
            return f"the server ({name})"
        case _:
            return actor
