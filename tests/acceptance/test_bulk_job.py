"""A bulk job goes on exactly where it was, wherever in a slice `recordledger work` is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from psycopg import Connection

from recordledger.domain.admin.job import JobAggregate, JobState
from recordledger.domain.records.actions import Action
from recordledger.projections.actions import bulk
from recordledger.projections.actions.bulk import SLICE
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.log.recorder import LOG_LOCK
from recordledger.projections.tables import jobs
from tests.projections.stage import ALICE, Stage, staged, until

N_RECORDS: Final = 12_000
DEADLINE_S: Final = 60.0

# A lock that stops the worker at one place of a slice, until it is given back.
AT_THE_BEGINNING: Final = "SELECT FROM jobs WHERE id = {job_id} FOR UPDATE"
AT_A_RECORD: Final = "SELECT FROM records WHERE id = {record_id} FOR UPDATE"
AT_THE_APPEND: Final = f"SELECT pg_advisory_xact_lock({LOG_LOCK})"
# Where it is killed: at which place, and of which slice.
KILLS: Final = (
    (AT_A_RECORD, 1),
    (AT_THE_APPEND, 1),
    (AT_A_RECORD, 3),
    (AT_THE_BEGINNING, 3),
    (AT_A_RECORD, 4),
)


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url) as made:
        yield made


@contextmanager
def working(stage: Stage, log: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run the server's jobs in a process of their own, and kill it in the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "recordledger.workers.cli", "work", "--no-seal"],
            env={**os.environ, "RECORDLEDGER_DATABASE_URL": stage.url},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def job_now(stage: Stage, job_id: int) -> JobAggregate:
    with stage.ledger.datastore.reading() as db:
        return jobs.get(db, job_id)


def waiting_for(stage: Stage, blocker: Connection[Any]) -> list[int]:
    """Return which sessions wait for a lock that this connection has."""
    rows = stage.ask(
        "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
        [blocker.info.backend_pid],
    )
    return [row[0] for row in rows]


def kill_in_the_middle(
    stage: Stage, job_id: int, ids: list[int], log: Path, kills: Iterable[tuple[str, int]]
) -> None:
    """Kill one worker after the other, each stopped at a certain place of the job."""
    for lock, n_slices in kills:
        statement = lock.format(job_id=job_id, record_id=ids[n_slices * SLICE + SLICE // 2])
        with stage.connected() as blocker:
            with blocker.transaction():
                blocker.execute(statement.encode())
                sessions = killed_while_it_waits(stage, blocker, log)
            # The session that it leaves behind goes on now, and must come to nothing.
            gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(%s))"
            until(lambda: stage.ask(gone, [sessions])[0][0], blocker, DEADLINE_S)  # noqa: B023
        job = job_now(stage, job_id)
        assert (job.state, job.n_done) == (JobState.running, n_slices * SLICE)
        assert 0 < job.n_done < job.n_total == len(ids)


def killed_while_it_waits(stage: Stage, blocker: Connection[Any], log: Path) -> list[int]:
    """Start a worker, and kill it when it waits for this connection; return its sessions there."""
    with working(stage, log) as process:
        until(lambda: waiting_for(stage, blocker) or process.poll(), blocker, DEADLINE_S)
        sessions = waiting_for(stage, blocker)
        assert process.poll() is None, log.read_text()
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(sessions) == 1
    return sessions


def finish(stage: Stage, job_id: int, log: Path) -> JobAggregate:
    """Let a worker go on to the end; return the job."""
    with working(stage, log), stage.connected() as clock:
        until(lambda: job_now(stage, job_id).state is not JobState.running, clock, 3 * DEADLINE_S)
    return job_now(stage, job_id)


def times_changed(stage: Stage, ids: list[int], operation: UUID) -> Counter[int]:
    """Count in the log itself how many events of an operation each record has."""
    with stage.ledger.datastore.reading() as db:
        return Counter(
            record_id
            for record_id, history in stage.ledger.in_slices(db, ids, SLICE)
            for event in history
            if event.operation_id == operation
        )


def test_a_job_that_is_killed_again_and_again_changes_every_record_once_and_is_undone(
    stage: Stage, tmp_path: Path
) -> None:
    log = tmp_path / "work.log"
    ids = [id_ for _ in range(N_RECORDS // SLICE) for id_ in stage.submit(SLICE)]
    before = stage.image()

    ordered = bulk.order(stage.ledger, OperationRequest(Action.cancel), ids, actor=ALICE)
    operation = UUID(ordered["operation_id"])
    assert ordered["job_id"] is not None
    kill_in_the_middle(stage, ordered["job_id"], ids, log, KILLS)
    job = finish(stage, ordered["job_id"], log)
    assert (job.state, job.n_done, job.n_updated) == (JobState.finished, N_RECORDS, N_RECORDS)
    assert (job.n_refused, job.n_relatives) == (0, 0)
    assert times_changed(stage, ids, operation) == dict.fromkeys(ids, 1)
    assert set(stage.statuses(*ids).values()) == {"cancelled"}
    stage.require_equal()

    undone = stage.undo(operation)
    assert undone["job_id"] is not None
    kill_in_the_middle(stage, undone["job_id"], ids, log, KILLS[:2])
    job = finish(stage, undone["job_id"], log)
    assert (job.state, job.n_done, job.n_updated) == (JobState.finished, N_RECORDS, N_RECORDS)
    assert times_changed(stage, ids, UUID(undone["operation_id"])) == dict.fromkeys(ids, 1)
    assert stage.image() == before
    stage.require_equal()
