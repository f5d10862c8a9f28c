"""When to claim, and how much: enough to keep the workers busy, and no more than begins soon.

What a manager has claimed no other manager runs. So it prefetches by time, not by number: many
tasks if they take milliseconds, none if they take minutes.
"""

from __future__ import annotations

import random
from typing import Final

OVERHEAD_S: Final = 0.0003
_NEWEST: Final = 0.1


class Pace:
    """Learns how long tasks take, and how often the server has some.

    Args:
        poll_min_s, poll_max_s: pauses when the server had nothing, which double in between.
        prefetch_s: how much work to have ready, in seconds of computing.
        prefetch_max: maximum number of tasks.
    """

    def __init__(
        self, *, poll_min_s: float, poll_max_s: float, prefetch_s: float, prefetch_max: int
    ) -> None:
        self.claim_at = 0.0
        self._poll_min_s = poll_min_s
        self._poll_max_s = poll_max_s
        self._prefetch_s = prefetch_s
        self._prefetch_max = prefetch_max
        self._pause_s = poll_min_s
        self._task_s: float | None = None
        self._moved_at = 0.0

    def n_to_claim(self, n_here: int, n_slots: int, now: float) -> int:
        """Return how many tasks to claim, with `n_here` here that run or wait to."""
        prefetch = 0
        if self._task_s is not None:
            # While nothing moves, what runs takes at least as long as that.
            task_s = max(self._task_s, self.idle_s(now) if n_here >= n_slots else 0.0)
            prefetch = min(int(n_slots * self._prefetch_s / task_s), self._prefetch_max)
        if n_here > n_slots + prefetch // 2:
            return 0
        return n_slots + prefetch - n_here

    def idle_s(self, now: float) -> float:
        """Return for how long nothing has begun or ended."""
        return now - self._moved_at

    def claimed(self, n_tasks: int, now: float) -> None:
        """Learn from the answer to a claim when to claim next."""
        if n_tasks:
            self._moved_at = now
            self._pause_s = self._poll_min_s
            self.claim_at = now
            return
        self.claim_at = now + self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311
        self._pause_s = min(2 * self._pause_s, self._poll_max_s)

    def look_again(self, now: float) -> None:
        """Claim soon: something was returned, and there may be more to do now."""
        self._pause_s = self._poll_min_s
        self.claim_at = min(self.claim_at, now + self._poll_min_s)

    def finished(self, now: float) -> None:
        """Learn that the workers move on."""
        self._moved_at = now

    def computed(self, compute_s: float) -> None:
        """Learn how long a task took."""
        taken_s = compute_s + OVERHEAD_S
        before_s = taken_s if self._task_s is None else self._task_s
        self._task_s = before_s + _NEWEST * (taken_s - before_s)
