"""`recordledger work` finds rows that were changed behind its back, also after it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import state
from recordledger.projections.tables.divergences import open_now
from tests.projections.stage import Stage, staged

EVERY_S: Final = 0.3
DEADLINE_S: Final = 60.0


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url) as made:
        yield made


@contextmanager
def working(stage: Stage, log: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run the server's jobs in a process of their own, and kill it in the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "recordledger.workers.cli", "work", "--no-services"],
            env={
                **os.environ,
                "RECORDLEDGER_DATABASE_URL": stage.url,
                "RECORDLEDGER_SELF_AUDIT_EVERY_S": str(EVERY_S),
                "RECORDLEDGER_SELF_AUDIT_SHARE": "1",
            },
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def found(stage: Stage) -> list[tuple[str, tuple[str, ...]]]:
    """Return the rows that are known to be wrong."""
    with stage.ledger.datastore.reading() as db:
        return [(each.table, each.key) for each in open_now(db)]


def errors(log: Path) -> list[str]:
    """Return the lines by which the processes tell of errors."""
    return [line for line in log.read_text().splitlines() if "ERROR" in line]


def test_it_finds_within_a_minute_what_was_changed_and_goes_on_after_a_kill(
    stage: Stage, tmp_path: Path
) -> None:
    ids = stage.submit(3)
    log = tmp_path / "work.log"
    with working(stage, log):
        stage.wait(lambda: state(stage.ledger).n_ranges > 0, DEADLINE_S)
        stage.do("UPDATE records SET owner = 'eve' WHERE id = %s", [ids[1]])
        stage.wait(lambda: found(stage), DEADLINE_S)
        assert found(stage) == [("records", (str(ids[1]),))]
        # Two of them: one looks and the other stands by; then the one that looks is killed.
        with working(stage, log) as other:
            stage.do("DELETE FROM records WHERE id = %s", [ids[2]])
            stage.wait(lambda: len(found(stage)) == len(errors(log)) == 2, DEADLINE_S)
            assert other.poll() is None
    with working(stage, log):
        stage.do("UPDATE status_counts SET n_records = 7")
        stage.wait(lambda: len(found(stage)) == len(errors(log)) == 3, DEADLINE_S)
        done = repair(stage.ledger, actor="user:root")
        assert [each.refusal for each in done] == [None] * 3
        stage.require_equal()
        stage.wait(lambda: state(stage.ledger).position == stage.newest(), DEADLINE_S)
        assert state(stage.ledger).n_unproved == 0
    assert found(stage) == []
    assert f"records {ids[1]}: owner differs from the log" in errors(log)[0]
    assert len(errors(log)) == 3
