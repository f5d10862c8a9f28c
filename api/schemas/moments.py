"""Moments of the log: how a request names one, and how an answer does."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, Field

from recordledger.domain.streams import ID_MAX

from .base import Answer

_POSITION: Final = re.compile(r"@?(\d{1,19})", re.ASCII)


def moment_in(value: Any) -> Any:
    """Parse a position or a time; positions may be written with an @.

    >>> moment_in("@411")
    411

    Raises:
        ValueError: it is neither; no time zone, for instance.
    """
    if isinstance(value, str):
        if found := _POSITION.fullmatch(value):
            value = int(found[1])
        else:
            value = datetime.fromisoformat(value)
    match value:
        case bool():
            pass
        case int() if 0 <= value <= ID_MAX:
            return value
        case datetime(tzinfo=zone) if zone is not None:
            return value
        case _:
            pass
    raise ValueError("it must be a position of the log or a time with a time zone")


AsOf = Annotated[
    int | AwareDatetime,
    BeforeValidator(moment_in),
    Field(
        description="As it was then: a position of the log, or a time: up to the last event before "
        "the first one that is later.",
        examples=[411, "2026-03-01T12:00:00Z"],
    ),
]


class MomentOut(Answer):
    """Of which moment an answer is: the position of the last event it knows, and when that was."""

    position: int
    happened_at: AwareDatetime
