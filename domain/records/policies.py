"""Policies: what the server does to records automatically, if enabled; all are off by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

AUTO_RESET: Final = "policy:auto-reset@1"
ADOPT_LATE_RESULTS: Final = "policy:adopt-late-results@1"
FAILED_AFTER: Final = "policy:failed-after@1"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What is switched on.

    Attributes:
        auto_reset: how often a record whose error's type matches the pattern is reset, counted
            since a person last reset it, its own retries included; the first pattern that
            matches counts.
        failed_after_s: seconds after which an error becomes a failure; None for never.
        adopt_late_results: whether a good result that comes late becomes the record's result.
    """

    auto_reset: Mapping[str, int] = field(default_factory=dict[str, int])
    failed_after_s: float | None = None
    adopt_late_results: bool = False

    def resets_of(self, error_type: str | None) -> int:
        """Return how often a record with this error is reset automatically.

        >>> PolicySettings({"MemoryError": 0, "*Error": 2}).resets_of("OSError")
        2
        """
        if error_type is None:
            return 0
        for pattern, limit in self.auto_reset.items():
            if fnmatchcase(error_type, pattern):
                return limit
        return 0
