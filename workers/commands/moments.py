"""Moments as people write them: a position of the log, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_POSITION: Final = re.compile(r"@?(\d{1,18})", re.ASCII)
_AGO: Final = re.compile(
    r"(-)?(\d{1,9}) *(s|min|h|d|w|seconds?|minutes?|hours?|days?|weeks?)( +ago)?", re.ASCII
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def moment(_ctx: click.Context, param: click.Parameter, given: str | None) -> int | datetime | None:
    """Return what was written as a position, or as a time with a zone."""
    if given is None:
        return None
    try:
        return moment_of(given, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{given!r} is not a position or time: write a position like 4711, a time like "
            "2026-11-21T16:30 "
            "(UTC), or how long ago, like '2 hours ago'",
            param=param,
        ) from None


def moment_of(text: str, now: datetime) -> int | datetime:
    """Parse a position or a time.

    >>> moment_of("2 hours ago", datetime(2026, 11, 21, 16, 30, tzinfo=UTC)).isoformat()
    '2026-11-21T14:30:00+00:00'

    Raises:
        ValueError: it is neither.
        OverflowError: it is before all times.
    """
    if found := _POSITION.fullmatch(text):
        return int(found[1])
    return _time_of(text, now)


def time_given(_ctx: click.Context, param: click.Parameter, given: str | None) -> datetime | None:
    """Return what was written as a time with a zone; UTC if it does not say."""
    if given is None:
        return None
    try:
        return _time_of(given, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{given!r} is not a time like 2026-11-21T16:30", param=param
        ) from None


def _time_of(text: str, now: datetime) -> datetime:
    if (found := _AGO.fullmatch(text)) and (found[1] or found[4]):
        return now - timedelta(seconds=int(found[2]) * _SECONDS[found[3][0]])
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


AS_OF: Final = click.option(
    "--as-of",
    callback=moment,
    metavar="MOMENT",
    help="As it was then: a position of the log, a time like 2026-11-21T16:30 (UTC), or -2h.",
)
