"""Canonical JSON: one form in bytes for each value, so that a hash can stand for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from ..errors import InvalidInput

NESTING_MAX: Final = 100
INTEGER_MAX: Final = 10**4300 - 1  # as many digits as Python writes and reads
_CONTAINERS: Final = (dict, list, tuple)


def canonical_json(value: Any) -> bytes:
    """Return the value as JSON with sorted keys and no spaces, in UTF-8.

    Raises:
        InvalidInput: NaN or infinity, a NUL or a lone surrogate in a string, something
            that JSON has no form for, or nesting deeper than `NESTING_MAX`.
    """
    if not _well_built(value):
        raise InvalidInput(_error_text(value))
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        data = text.encode()
    except (TypeError, ValueError):
        raise InvalidInput(_error_text(value)) from None
    if b"\\u0000" in data and (complaint := _fault(value, "", 0)):
        raise InvalidInput(complaint)
    return data


def _well_built(value: Any) -> bool:
    """Return whether all keys are strings and no container is deeper than `NESTING_MAX`.

    `json.dumps` would turn the key 1 into "1", and its own limit depends on the caller's stack.
    Level by level, and containers only: it costs little beside `json.dumps`.
    """
    level: list[Any] = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(NESTING_MAX):
        inner: list[Any] = []
        for container in level:
            items: Iterable[Any] = container
            if isinstance(container, dict):
                members = cast("Mapping[Any, Any]", container)
                if any(not isinstance(key, str) for key in members):
                    return False
                items = members.values()
            inner += [item for item in items if isinstance(item, _CONTAINERS)]
        if not inner:
            return True
        level = inner
    return False


def _error_text(value: Any) -> str:
    return _fault(value, "", 0) or "the value has no form in JSON"


def _fault(value: Any, path: str, depth: int) -> str | None:
    """Return what is wrong with the first bad part of a value, and where; None if nothing is."""
    where = path.lstrip(".") or "the value"
    if depth >= NESTING_MAX and isinstance(value, _CONTAINERS):
        return f"{where[:80]}... is nested deeper than {NESTING_MAX} levels"
    match value:
        case None | bool():
            return None
        case int():
            if abs(value) <= INTEGER_MAX:
                return None
            return f"{where} is an integer of too many digits; use a string"
        case float():
            finite = value == value and abs(value) != float("inf")
            return None if finite else f"{where} is {value}: JSON has no such number; use null"
        case str():
            if "\0" in value:
                return f"{where} has a NUL character; remove it"
            if any("\ud800" <= character <= "\udfff" for character in value):
                return f"{where} has a lone surrogate, which is not valid Unicode"
            return None
        case dict():
            for key, item in cast("Mapping[Any, Any]", value).items():
                if not isinstance(key, str):
                    return f"{where} has the key {key!r}: JSON's keys are strings"
                fault = _fault(key, f"{path}.{key[:40]!a} (the key)", depth + 1) or _fault(
                    item, f"{path}.{key[:40]}", depth + 1
                )
                if fault:
                    return fault
            return None
        case list() | tuple():
            for index, item in enumerate(cast("list[Any]", value)):
                if fault := _fault(item, f"{path}[{index}]", depth + 1):
                    return fault
            return None
        case _:
            return (
                f"{where} is a {type(value).__name__}: JSON has no form for it; "
                "use numbers, strings, lists and dicts"
            )
