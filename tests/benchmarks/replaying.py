"""Measure replay: `python -m tests.benchmarks.replaying --events 1000000 --json replay.json`.

A log is made by real operations: each record is created, claimed and completed, every fifth with an
error and a reset in between, every tenth is held and released, cancelled and uncancelled. A longer
one has copies of these histories, with other record ids. Then all tables are rebuilt from the log,
and compared with it. The server is an embedded PostgreSQL with its usual settings, fsync on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from recordledger.domain.records.actions import Action
from recordledger.projections.actions.managing import return_results
from recordledger.projections.replay.rebuild import rebuild
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.schema import migrate
from tests.projections.stage import BOB, Stage, bad, good, result, staged

from .measuring import PeakMemory, end_in_order

# So many records come to be by real operations; the others are copies.
RECORDS_MAX: Final = 20_000
EVENTS_PER_RECORD: Final = 4
RATE_MIN: Final = 50_000
_BATCH: Final = 500
_LOOK_EVERY: Final = 20

_SIZE: Final = "SELECT pg_total_relation_size(%s::regclass)"
# The histories of records up to an id, under ids that are larger by a shift.
_COPY: Final = """
      WITH event AS (
           SELECT *, ('x' || right(replace(originator_id::text, '-', ''), 16))::bit(64)::bigint
                     AS number
             FROM ledger_events
            WHERE originator_id <= '00000000-0000-0001-7fff-ffffffffffff'
              AND notification_id <= %s)
    INSERT INTO ledger_events (originator_id, originator_version, topic, state)
    SELECT ('0000000000000001' || lpad(to_hex(number + %s), 16, '0'))::uuid,
           originator_version, topic, state
      FROM event
     WHERE number <= %s
     ORDER BY notification_id
"""


class PeakOfAll(PeakMemory):
    """The memory of this process and of those that fold; the database's is not in it."""

    _n_looks = 0
    _found_mb = 0.0

    def _now(self) -> float:
        # To look for processes takes long: that would be measured too.
        self._n_looks += 1
        if self._n_looks % _LOOK_EVERY == 1:
            self._found_mb = self._sum_mb()
        return self._found_mb

    def _sum_mb(self) -> float:
        me = psutil.Process()
        found = float(me.memory_info().rss)
        for process in me.children(recursive=True):
            # One that has just ended has no memory.
            with suppress(psutil.NoSuchProcess):
                if "recordledger.projections.replay.filling" in process.cmdline():
                    found += process.memory_info().rss
        return found / 1e6


def processor_s(home: str) -> tuple[float, float]:
    """Return the processor time so far of all Python processes here, and of the database."""
    database = 0.0
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and any(
            home in each for each in process.info["cmdline"] or ()
        ):
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    database += times.user + times.system
            times = process.cpu_times()
            database += times.children_user + times.children_system
    return sum(os.times()[:4]), database


def operate(stage: Stage, n_records: int) -> None:
    """Let so many records live."""
    manager_id = stage.manager()
    for first in range(0, n_records, _BATCH):
        ids = stage.submit(min(_BATCH, n_records - first))
        for action, some in (
            (Action.hold, ids[::10]),
            (Action.release, ids[::10]),
            (Action.cancel, ids[1::10]),
            (Action.uncancel, ids[1::10]),
        ):
            stage.done(action, *some)
        while held := stage.claim(manager_id, 200):
            wrong = [id_ for id_, attempt in held.items() if id_ % 5 == 0 and attempt == 1]
            results = [
                result(id_, attempt, bad() if id_ in wrong else good(b"%d" % id_))
                for id_, attempt in held.items()
            ]
            return_results(stage.ledger, manager_id, results, user=BOB)
            if wrong:
                stage.done(Action.reset, *wrong)


def lengthen(stage: Stage, n_events: int) -> None:
    """Copy the histories of records until the log is about as long."""
    [(n_records,)] = stage.ask("SELECT max(id) FROM records")
    n_before, upto, shift = stage.head(), stage.newest(), 0
    while (left := n_events - stage.head()) > 0:
        shift += n_records
        last = n_records * min(1.0, left / n_before)
        copied = stage.do(_COPY, [upto, shift, max(1, int(last))])
        sys.stderr.write(f"{copied:,} events copied\n")
    # As PostgreSQL itself soon does with a log that has grown: not while we measure.
    stage.do("VACUUM (ANALYZE) ledger_events")


def measure(stage: Stage, home: str, jobs: int | None) -> dict[str, float]:
    """Rebuild all tables and compare them with the log; return rates, memory and sizes."""
    n_events = stage.head()
    with PeakOfAll(os.getpid()) as memory:
        moments = [(perf_counter(), *processor_s(home))]
        done = rebuild(stage.ledger, jobs=jobs)
        moments.append((perf_counter(), *processor_s(home)))
        report = check_replay(stage.ledger, jobs=jobs)
        moments.append((perf_counter(), *processor_s(home)))
    if not report.equal:
        raise RuntimeError("the rebuilt tables are not what the log says")
    costs: dict[str, float] = {}
    for name, before, after in zip(("rebuild", "check"), moments[:-1], moments[1:], strict=True):
        took, python, database = (b - a for a, b in zip(before, after, strict=True))
        costs[f"{name}_rate"] = n_events / took
        costs[f"{name}_python_us"] = 1e6 * python / n_events
        costs[f"{name}_database_us"] = 1e6 * database / n_events
    sizes = [stage.ask(_SIZE, [table])[0][0] for table in PROJECTIONS]
    return {
        "events": n_events,
        "records": stage.ask("SELECT count(*) FROM records")[0][0],
        "log_mb": stage.ask(_SIZE, ["ledger_events"])[0][0] / 1e6,
        "tables_mb": sum(sizes) / 1e6,
        **costs,
        "waited_ms": 1000 * done.waited_s,
        "memory_mb": memory.peak_mb,
    }


def _costs(figures: dict[str, float], name: str) -> list[tuple[str, str]]:
    python, database = figures[f"{name}_python_us"], figures[f"{name}_database_us"]
    return [
        (f"{name}, events/s", f"{figures[f'{name}_rate']:,.0f}"),
        ("  processor time of an event, Python + database, us", f"{python:.1f} + {database:.1f}"),
        ("  if two processors did nothing else, events/s", f"{2e6 / (python + database):,.0f}"),
    ]


def table_of(figures: dict[str, float]) -> Table:
    """Return the table that is printed."""
    table = Table(title=f"Replay of {figures['events']:,.0f} events")
    for title in ("what", "figure"):
        table.add_column(title, justify="left" if title == "what" else "right")
    for what, figure in (
        ("records", f"{figures['records']:,.0f}"),
        ("log with its indexes, MB", f"{figures['log_mb']:,.0f}"),
        ("tables with their indexes, MB", f"{figures['tables_mb']:,.0f}"),
        *_costs(figures, "rebuild"),
        *_costs(figures, "check"),
        ("goal of each, events/s", f"{RATE_MIN:,}"),
        ("others had to wait for the switch, ms", f"{figures['waited_ms']:,.0f}"),
        ("memory of all Python processes at the most, MB", f"{figures['memory_mb']:,.0f}"),
    ):
        table.add_row(what, figure)
    return table


def main() -> None:
    """Run from the command line."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000, help="length of the log")
    parser.add_argument("--jobs", type=int, help="processes that fold")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-replay-"))
        Path(home).chmod(0o755)
        postgres = stack.enter_context(EmbeddedPostgres(home))
        migrate(postgres.url)
        stage = stack.enter_context(staged(postgres.url))
        operate(stage, min(RECORDS_MAX, max(_BATCH, int(given.events / EVENTS_PER_RECORD))))
        lengthen(stage, given.events)
        figures = measure(stage, home, given.jobs)
    Console(width=100).print(table_of(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
