"""References: the result of another record, or a part of it, in place of a value in `kwargs`.

In a specification a reference is the JSON object

    {"$payload": {"digest": "<SHA-256 in hex>", "path": ["energy"], "size_bytes": 120}}

and what it stands for is put in its place when the task is claimed. It names content, not a record:
the same inputs make the same specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from ..records.events import Payload
from .service import Reference

MARK: Final = "$payload"
MARK_BYTES: Final = b'"$payload"'
_Object = Mapping[str, Any]
_Array = Sequence[Any]
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class ReferenceBroken(Exception):
    """What a specification refers to is not there; the message says what."""


def as_json(value: Any) -> Any:
    """Return a value of `kwargs` with each `Reference` as the JSON object that stands for it."""
    if isinstance(value, Reference):
        fields = {"digest": value.payload.digest.hex(), "size_bytes": value.payload.size_bytes}
        return {MARK: {**fields, "path": list(value.path)}}
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in cast("_Object", value).items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in cast("_Array", value)]
    return value


def references_in(value: Any) -> Iterator[Reference]:
    """Give the references in a JSON value. What only resembles one is a value like any other."""
    todo = [value]
    while todo:
        item = todo.pop()
        if (found := _reference(item)) is not None:
            yield found
        elif isinstance(item, dict):
            todo += cast("_Object", item).values()
        elif isinstance(item, list | tuple):
            todo += cast("_Array", item)


def payloads_referred_to(canonical: bytes, value: Any) -> tuple[Payload, ...]:
    """Return the payloads that a specification refers to, each once.

    Args:
        canonical: its bytes; without a mark in them it is not looked at more closely.
        value: what they say.
    """
    if MARK_BYTES not in canonical:
        return ()
    found = {each.payload.digest: each.payload for each in references_in(value)}
    return tuple(found[digest] for digest in sorted(found))


def resolve(value: Any, contents: Mapping[bytes, Any]) -> Any:
    """Return a JSON value with what its references stand for in their places.

    Args:
        value: as it is in a specification.
        contents: what the referenced payloads hold, by digest; those that are not there any more
            are left out.

    Raises:
        ReferenceBroken: a payload, or the path in it, is not there.
    """
    if (found := _reference(value)) is not None:
        return _part(found, contents)
    if isinstance(value, dict):
        return {key: resolve(item, contents) for key, item in cast("_Object", value).items()}
    if isinstance(value, list):
        return [resolve(item, contents) for item in cast("_Array", value)]
    return value


def _reference(value: Any) -> Reference | None:
    if not isinstance(value, dict) or set(cast("_Object", value)) != {MARK}:
        return None
    match cast("_Object", value)[MARK]:
        case {"digest": str(digest), "path": [*path], "size_bytes": int(size_bytes), **others} if (
            not others
            and _DIGEST.fullmatch(digest)
            and size_bytes >= 0
            and all(isinstance(step, int | str) for step in path)
        ):
            payload = Payload(digest=bytes.fromhex(digest), size_bytes=size_bytes)
            return Reference(payload, tuple(path))
        case _:
            return None


def _part(reference: Reference, contents: Mapping[bytes, Any]) -> Any:
    name = reference.payload.digest.hex()[:12]
    if reference.payload.digest not in contents:
        raise ReferenceBroken(
            f"the payload {name}... was destroyed: the record with this result and all references "
            "to it were erased"
        )
    part = contents[reference.payload.digest]
    for depth, step in enumerate(reference.path):
        try:
            part = part[step]
        except (LookupError, TypeError):
            where = "".join(f"[{each!r}]" for each in reference.path[: depth + 1])
            raise ReferenceBroken(
                f"the payload {name}... has nothing at {where}: it is a {type(part).__name__} there"
            ) from None
    return part
