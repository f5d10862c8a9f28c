"""What the server does to records by itself."""

from __future__ import annotations

from .base import Answer


class PoliciesAnswer(Answer):
    """What the server does to records by itself; `actors` are as whom, by policy."""

    auto_reset: dict[str, int]
    failed_after_s: float | None
    adopt_late_results: bool
    actors: dict[str, str]
