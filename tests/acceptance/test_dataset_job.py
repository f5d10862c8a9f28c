"""A submission goes on where it was, wherever `recordledger work` is killed in a slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from recordledger.domain.admin.job import JobState
from recordledger.projections.actions.bulk import advance_jobs
from recordledger.projections.actions.dataset_filling import SLICE
from tests.projections.collection import Collection
from tests.projections.stage import Stage, staged, until

from .test_bulk_job import AT_THE_APPEND, DEADLINE_S, finish, job_now, killed_while_it_waits

N_ENTRIES: Final = 2 * SLICE
AT_THE_DATASET: Final = "SELECT FROM datasets FOR UPDATE"


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url) as made:
        yield made


def test_a_submission_that_is_killed_again_and_again_fills_every_cell_once(
    stage: Stage, tmp_path: Path
) -> None:
    log = tmp_path / "work.log"
    water = Collection.made(stage, N_ENTRIES, ("hf", "mp2"))
    job_id = water.submit()["job_id"]
    assert job_id is not None
    for n_slices, place in enumerate((AT_THE_APPEND, AT_THE_DATASET, AT_THE_APPEND)):
        with stage.connected() as blocker:
            with blocker.transaction():
                blocker.execute(place.encode())
                sessions = killed_while_it_waits(stage, blocker, log)
            # The session that it leaves behind goes on now, and must come to nothing.
            gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(%s))"
            until(lambda: stage.ask(gone, [sessions])[0][0], blocker, DEADLINE_S)  # noqa: B023
        assert job_now(stage, job_id).n_done == n_slices * SLICE
        assert len(water.cells()) == n_slices * SLICE
        advance_jobs(stage.ledger)
    job = finish(stage, job_id, log)
    assert (job.state, job.n_done, job.n_updated) == (
        JobState.finished,
        2 * N_ENTRIES,
        2 * N_ENTRIES,
    )
    assert len(water.ids()) == 2 * N_ENTRIES
    assert stage.ask("SELECT count(*) FROM records") == [(2 * N_ENTRIES,)]
    assert water.counts() == {name: {"waiting": N_ENTRIES} for name in ("hf", "mp2")}
    stage.require_equal()
