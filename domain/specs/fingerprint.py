"""Specifications: what to compute, in canonical bytes, content-addressed by their SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidInput, TooLarge
from ..records.events import Payload
from .canonical import canonical_json
from .references import payloads_referred_to

FUNCTION_PATTERN: Final = re.compile(r"[A-Za-z_][\w.-]*(:[A-Za-z_][\w.]*)?", re.ASCII)
FUNCTION_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Specification:
    """What to compute. `canonical` is what is stored and hashed: JSON, keys sorted, UTF-8.

    1 and 1.0 are different inputs and have different fingerprints. `refers_to` are the payloads
    that take the places of references in it, which must be kept as long as it is.
    """

    function: str
    required_programs: tuple[str, ...]
    canonical: bytes
    payload: Payload
    refers_to: tuple[Payload, ...] = ()


def specify(
    function: str,
    kwargs: Mapping[str, Any],
    required_programs: tuple[str, ...],
    *,
    size_bytes_max: int,
) -> Specification:
    """Return the specification in canonical form.

    Args:
        function: an entry point's name, or `module:function`.
        kwargs: JSON values only.
        required_programs: canonical requirements (see `lanes.parse_requirements`).
        size_bytes_max: largest canonical form that is taken.

    Raises:
        InvalidInput: something in it is not a JSON value; the message names it.
        TooLarge: the canonical form is over the limit.
    """
    if len(function) > FUNCTION_CHARACTERS_MAX or not FUNCTION_PATTERN.fullmatch(function):
        raise InvalidInput(
            f"{function[:120]!r} is not a function: write an entry point's name, or "
            "'module:function'"
        )
    canonical = canonical_json(
        {"function": function, "kwargs": kwargs, "required_programs": required_programs}
    )
    if len(canonical) > size_bytes_max:
        raise TooLarge("the specification", len(canonical), size_bytes_max, "payload_bytes_max")
    return Specification(
        function,
        required_programs,
        canonical,
        Payload(digest=digest_of(canonical), size_bytes=len(canonical)),
        payloads_referred_to(canonical, kwargs),
    )


def digest_of(data: bytes) -> bytes:
    """Return the SHA-256 of the bytes: the name of a payload."""
    return hashlib.sha256(data).digest()
