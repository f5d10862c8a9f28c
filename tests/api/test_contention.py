"""Four people at once over HTTP, on the same families: no fault, and every answer is true."""

from __future__ import annotations

import os

from tests.projections.contention import Contention, contend

from .contention import over_http

SECONDS = float(os.environ.get("RECORDLEDGER_TEST_CONTENTION_S", "5"))


def test_people_at_once_over_http_get_answers_that_are_true(database_url: str) -> None:
    with over_http(database_url) as entrance:
        said = contend(database_url, Contention(SECONDS, n_records=120, seed=11), entrance)
    assert "transition_forbidden" in said
