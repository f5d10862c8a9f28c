"""Churn a small ledger for long, and see whether its tables keep their size.

    python -m tests.benchmarks.churn --claims 1000000
    python -m tests.benchmarks.churn --claims 10000000 --rows-only

A few thousand records are claimed, and given back, or returned with an error and reset, over and
over, so that every claim ends with the record waiting again. With `--rows-only`, rows are written
as such claims write them, but by a few plain statements and without a log: ten times as fast, and
so ten times as much between two visits of autovacuum.

The log grows, as it must; all other tables must not, however many claims there were. The exit
status is 1 if one did: if at the end it is larger than `GROWTH_MAX` times what it was after half of
the claims. (A table that grows with every claim is then twice as large.) Let it run for a minute at
least: autovacuum comes every ten seconds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Final

from rich.console import Console
from rich.table import Table

from recordledger.domain.records.actions import Action
from recordledger.projections.actions.managing import relinquish
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import migrate
from tests.projections.stage import ALICE, BOB, Stage, bad, staged

from .measuring import end_in_order

N_RECORDS: Final = 4_000
N_TAGS: Final = 10
N_THREADS: Final = 2
CLAIM_MAX: Final = 100
N_ROWS: Final = 10
GROWTH_MAX: Final = 1.5
# What a table may have at any rate: a page or two for each of its indexes, and what is written
# between two visits of autovacuum.
FREE_BYTES: Final = 4_000_000
CHURNED: Final = ("records", "claim_queue", "status_counts", "manager_heartbeats")

_SIZES: Final = """
    SELECT s.relname, pg_table_size(s.relid), pg_indexes_size(s.relid), s.n_dead_tup
      FROM pg_stat_user_tables s
     WHERE s.schemaname = 'recordledger' AND s.relname = ANY(%s)
"""


class Sizes(dict[str, tuple[int, int, int]]):
    """By table: its bytes, those of its indexes, and how many dead rows it has."""

    def bytes_of(self, table: str) -> int:
        """Return the bytes of a table with its indexes."""
        return sum(self[table][:2])


def sizes(stage: Stage) -> Sizes:
    """Return how large the churned tables are."""
    rows = stage.ask(_SIZES, [list(CHURNED)])
    return Sizes({name: (heap, indexes, dead) for name, heap, indexes, dead in rows})


def churn(stage: Stage, n_claims: int, seed: int) -> None:
    """Claim so many tasks, and see to it that each waits again."""
    chance = random.Random(seed)  # noqa: S311 - a seed that can be repeated is wanted
    tags = [f"tag{n}" for n in range(N_TAGS)]
    managers = [stage.manager("*"), *(stage.manager(*chance.sample(tags, 3)) for _ in range(4))]
    n_left = n_claims
    while n_left > 0:
        manager_id = chance.choice(managers)
        held = stage.claim(manager_id, min(n_left, chance.randint(1, CLAIM_MAX)))
        n_left -= len(held)
        if chance.random() < 0.5:
            relinquish(stage.ledger, manager_id, held, user=BOB)
        elif held:
            stage.hand_in(manager_id, held, bad())
            manage(stage.ledger, OperationRequest(Action.reset), list(held), actor=ALICE)


_CLAIM: Final = """
      WITH taken AS (
           DELETE FROM claim_queue
            WHERE (lane_id, rank, record_id) IN (
                  SELECT lane_id, rank, record_id FROM claim_queue
                   WHERE lane_id = %(lane_id)s ORDER BY rank, record_id LIMIT %(n)s)
        RETURNING record_id)
    UPDATE records
       SET version = version + 1, status = 'running', attempt = attempt + 1, manager_id = %(n)s,
           started_at = clock_timestamp(), modified_at = clock_timestamp()
     WHERE id IN (SELECT record_id FROM taken)
 RETURNING id
"""
_GIVE_BACK: Final = """
      WITH given AS (
           UPDATE records
              SET version = version + 1, status = 'waiting', manager_id = NULL, started_at = NULL,
                  modified_at = clock_timestamp()
            WHERE id = ANY(%(ids)s)
        RETURNING lane_id, -priority, id)
    INSERT INTO claim_queue SELECT * FROM given
"""
_COUNT: Final = """
    UPDATE status_counts
       SET n_records = n_records + CASE status WHEN 'running' THEN %(n)s ELSE -%(n)s END
     WHERE lane_id = %(lane_id)s AND status IN ('running', 'waiting')
"""


def churn_rows(stage: Stage, n_claims: int, seed: int) -> None:
    """Write to the tables what so many claims write, and what takes them back.

    Each thread has lanes of its own, so that none waits for another.
    """
    chance = random.Random(seed)  # noqa: S311 - a seed that can be repeated is wanted
    lane_ids = [row[0] for row in stage.ask("SELECT id FROM lanes ORDER BY id")]
    own = lane_ids[seed % N_THREADS :: N_THREADS]
    n_left = n_claims
    with stage.connected() as connection:
        while n_left > 0:
            which = {"lane_id": chance.choice(own), "n": chance.randint(1, CLAIM_MAX)}
            with connection.transaction():
                ids = [row[0] for row in connection.execute(_CLAIM, which)]
                connection.execute(_COUNT, which | {"n": len(ids)})
            n_left -= len(ids)
            with connection.transaction():
                connection.execute(_GIVE_BACK, {"ids": ids})
                connection.execute(_COUNT, which | {"n": -len(ids)})


Churn = Callable[[Stage, int, int], None]


def measure(
    stage: Stage,
    n_claims: int,
    tell: Callable[[int, float, Sizes], None],
    how: Churn = churn,
) -> tuple[Sizes, Sizes]:
    """Churn; return the sizes after half of it and at the end, and tell those in between."""
    for first in range(0, N_RECORDS, N_TAGS):
        stage.submit(N_TAGS, tag=f"tag{first // N_TAGS % N_TAGS}")
    measured: list[Sizes] = []
    for row in range(N_ROWS):
        began = perf_counter()
        share = n_claims // N_ROWS // N_THREADS
        threads = [
            Thread(target=how, args=(stage, share, N_THREADS * row + n)) for n in range(N_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        measured.append(sizes(stage))
        tell((row + 1) * share * N_THREADS, perf_counter() - began, measured[-1])
    return measured[N_ROWS // 2 - 1], measured[-1]


def grown(before: Sizes, after: Sizes) -> list[str]:
    """Return the tables that did not keep their size."""
    return [
        table
        for table in CHURNED
        if after.bytes_of(table) > GROWTH_MAX * before.bytes_of(table)
        and after.bytes_of(table) > FREE_BYTES
    ]


def table_of(rows: Sequence[tuple[int, float, Mapping[str, tuple[int, int, int]]]]) -> Table:
    """Return the table that is printed: megabytes of table and of indexes, and dead rows."""
    table = Table(title=f"{N_RECORDS:,} records: MB of rows + MB of indexes (dead rows)")
    for title in ("claims", "/s", *CHURNED):
        table.add_column(title, justify="right")
    for n_claims, rate, found in rows:
        cells = [
            f"{heap / 1e6:.2f} + {indexes / 1e6:.2f} ({dead:,})"
            for heap, indexes, dead in (found[name] for name in CHURNED)
        ]
        table.add_row(f"{n_claims:,}", f"{rate:,.0f}", *cells)
    return table


def main() -> int:
    """Run from the command line; the exit status is 1 if a table grew."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--claims", type=int, default=200_000, help="tasks to claim")
    parser.add_argument("--rows-only", action="store_true", help="write rows, but no log")
    given = parser.parse_args()
    rows: list[tuple[int, float, Sizes]] = []

    def tell(n_claims: int, seconds: float, found: Sizes) -> None:
        n_before = rows[-1][0] if rows else 0
        rows.append((n_claims, (n_claims - n_before) / seconds, found))
        sys.stderr.write(f"{n_claims:,} claims in {seconds:.0f} s more\n")

    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-churn-"))
        Path(home).chmod(0o755)
        postgres = stack.enter_context(EmbeddedPostgres(home, settings={"fsync": "off"}))
        migrate(postgres.url)
        stage = stack.enter_context(staged(postgres.url))
        how = churn_rows if given.rows_only else churn
        before, after = measure(stage, given.claims, tell, how)
    Console(width=150).print(table_of(rows))
    larger = grown(before, after)
    sys.stdout.write(f"grown: {', '.join(larger)}\n" if larger else "No table grew.\n")
    return int(bool(larger))


if __name__ == "__main__":
    sys.exit(main())
