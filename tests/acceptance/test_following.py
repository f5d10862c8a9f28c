"""A follower that is killed at any moment sees each event once, in order."""

from __future__ import annotations

from pathlib import Path

from tests.sizes import N_FOLLOWED_EVENTS

from .following import follow


def test_a_follower_that_is_killed_again_and_again_sees_each_event_once(
    database_url: str, tmp_path: Path
) -> None:
    report = follow(database_url, tmp_path, n_events=N_FOLLOWED_EVENTS, n_kills=3, seed=20260103)
    assert report.n_kills == 3
    assert len(report.logged) >= N_FOLLOWED_EVENTS - 100
    assert report.holds, str(report)
