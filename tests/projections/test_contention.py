"""Four people at once, each doing this and that to the same records: nothing is lost."""

from __future__ import annotations

import os

from .contention import Contention, contend
from .stage import Stage

SECONDS = float(os.environ.get("RECORDLEDGER_TEST_CONTENTION_S", "5"))


def test_people_at_once_are_refused_precisely_or_have_their_way(stage: Stage) -> None:
    said = contend(stage.url, Contention(SECONDS, n_records=120, seed=7))
    assert "transition_forbidden" in said
