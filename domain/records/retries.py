"""Retries: which errors of a record are reset by themselves, how often, and after what pause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final

from ..errors import InvalidInput

RETRIES_MAX: Final = 1_000
DELAY_S_MAX: Final = 3_600.0
PATTERNS_MAX: Final = 20
_PATTERN: Final = re.compile(r"!?[A-Za-z0-9_.*?\[\]-]{1,200}")

# Computing it once more gives the same once more.
HOPELESS: Final = ("ResultNotSerializable", "ResultTooLarge")


@dataclass(frozen=True, slots=True)
class Retry:
    """What the submitter of a record wants done about its errors.

    Attributes:
        retries: how many errors may be reset by themselves.
        delay_s: seconds before the first retry; it doubles with each further one, up to
            `DELAY_S_MAX`. 0 is at once.
        on: patterns (as of file names) of the error types that qualify; one that begins with `!`
            excludes. Empty: all but those that computing again cannot repair.
    """

    retries: int = 0
    delay_s: float = 0.0
    on: tuple[str, ...] = ()

    def qualifies(self, error_type: str) -> bool:
        """Return whether an error of this type may be reset by itself.

        >>> Retry(1, on=("OSError", "*Timeout*")).qualifies("ReadTimeoutError")
        True
        >>> Retry(1, on=("!ValueError",)).qualifies("ValueError")
        False
        """
        refused = [pattern[1:] for pattern in self.on if pattern.startswith("!")]
        if any(fnmatchcase(error_type, pattern) for pattern in refused):
            return False
        wanted = [pattern for pattern in self.on if not pattern.startswith("!")]
        if wanted:
            return any(fnmatchcase(error_type, pattern) for pattern in wanted)
        return error_type not in HOPELESS

    def pause(self, number: int) -> timedelta:
        """Return the pause before a retry, the first of which is number 1.

        >>> [Retry(3, delay_s=10).pause(number).total_seconds() for number in (1, 2, 3)]
        [10.0, 20.0, 40.0]
        """
        # Beyond 2**60 the bound is what counts, and a float stays a float.
        return timedelta(seconds=min(self.delay_s * 2.0 ** min(number - 1, 60), DELAY_S_MAX))


NO_RETRY: Final = Retry()


def parse_retry(retries: int, delay_s: float = 0.0, on: Sequence[str] = ()) -> Retry:
    """Return what is to be done about errors, or refuse it.

    Raises:
        InvalidInput: a number is out of its range, or a pattern has characters that names of
            error types do not have.
    """
    if not 0 <= retries <= RETRIES_MAX:
        raise InvalidInput(f"retries is {retries}: it must be from 0 to {RETRIES_MAX}")
    if not 0 <= delay_s <= DELAY_S_MAX:
        raise InvalidInput(f"retry_delay_s is {delay_s:g}: it must be from 0 to {DELAY_S_MAX:g}")
    if len(on) > PATTERNS_MAX:
        raise InvalidInput(f"retry_on has {len(on)} patterns: the limit is {PATTERNS_MAX}")
    for pattern in on:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidInput(
                f"{pattern[:120]!r} in retry_on is not a pattern of error types; write one like "
                "'OSError', '*Timeout*' or '!ValueError'"
            )
    return Retry(retries, delay_s, tuple(dict.fromkeys(on)))
