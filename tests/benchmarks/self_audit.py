"""Measure the self-audit: what a lap costs, and how long a wrong row stays unseen.

    python -m tests.benchmarks.self_audit --records 1000000 --done 0.5

A ledger is filled: records are submitted, and some of them claimed and returned. Then the
self-audit proves all of it without a rest, goes round when nothing has happened and when something
has, and at last runs as `recordledger work` runs it, with its share of a core, while rows are
changed at random moments. What is measured at the end is the time from the change to the event that
tells of it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, process_time
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from recordledger.projections.actions.submission import create_records
from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import EVERY_S, SHARE, Lap, SelfAuditor
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import migrate
from tests.projections.stage import ALICE, Stage, entry, staged

from .measuring import end_in_order

_BATCH: Final = 2_000
_TOUCHED: Final = 5_000
_POLL_S: Final = 0.05


def fill(stage: Stage, n_records: int, done: float) -> None:
    """Submit records, and let some of them be done."""
    for start in range(0, n_records, _BATCH):
        n = min(_BATCH, n_records - start)
        create_records(
            stage.ledger,
            [entry(start + place) for place in range(n)],
            actor=ALICE,
            find_existing=False,
        )
    complete(stage, int(n_records * done))


def complete(stage: Stage, n: int) -> None:
    """Claim tasks and return them."""
    manager_id = stage.manager()
    while n > 0 and (held := stage.claim(manager_id, min(n, 1_000))):
        stage.hand_in(manager_id, held)
        n -= len(held)


def lap_of(stage: Stage, audit: SelfAuditor) -> tuple[Lap, float]:
    """Go round once; return what came of it, and the seconds of this process and the database's.

    Of a processor: others may be using the machine too.
    """
    began = _busy_s(stage)
    lap = audit.lap()
    return lap, _busy_s(stage) - began


def _busy_s(stage: Stage) -> float:
    backends = stage.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
    times = [psutil.Process(pid).cpu_times() for (pid,) in backends]
    return process_time() + sum(each.user + each.system for each in times)


def found_after(stage: Stage, n_records: int, chance: random.Random) -> float:
    """Change a row; return the seconds until it is told."""
    record_id = chance.randint(1, n_records)
    before = stage.ask("SELECT count(*) FROM divergences")[0][0]
    began = perf_counter()
    stage.do("UPDATE records SET owner = 'eve' WHERE id = %s", [record_id])
    while stage.ask("SELECT count(*) FROM divergences")[0][0] == before:
        Event().wait(_POLL_S)
    seconds = perf_counter() - began
    repair(stage.ledger, actor="user:root")
    return seconds


def measure(
    stage: Stage, n_records: int, *, done: float, times: int, share: float, every_s: float
) -> dict[str, Any]:
    """Return all figures."""
    began = perf_counter()
    fill(stage, n_records, done)
    stage.do("ANALYZE")
    figures: dict[str, Any] = {"records": n_records, "events": stage.head()}
    figures["filled_s"] = perf_counter() - began
    audit = SelfAuditor(stage.ledger, share=1, every_s=10**9)
    proved, figures["first_proof_s"] = lap_of(stage, audit)
    figures["folded"] = proved.n_folded
    assert proved.found == []
    quiet, figures["quiet_lap_s"] = lap_of(stage, audit)
    assert (quiet.n_folded, quiet.found) == (0, [])
    complete(stage, min(_TOUCHED, n_records // 10))
    touched, figures["touched_lap_s"] = lap_of(stage, audit)
    figures["touched"] = touched.n_folded
    stage.do("UPDATE status_counts SET n_records = n_records + 1 WHERE status = 'waiting'")
    certain, figures["certain_lap_s"] = lap_of(stage, audit)
    assert certain.certain
    assert len(certain.found) == 1
    repair(stage.ledger, actor="user:root")
    audit.close()
    figures["found_after_s"] = watched(stage, n_records, times, share, every_s)
    return figures


def watched(stage: Stage, n_records: int, times: int, share: float, every_s: float) -> list[float]:
    """Let the self-audit run as a job does, and change rows; return when each was found."""
    stop, chance = Event(), random.Random(1)  # noqa: S311 - not for secrets
    audit = SelfAuditor(stage.ledger, share=share, every_s=every_s)

    def run() -> None:
        while not stop.is_set():
            next_at = perf_counter() + every_s
            audit.lap(stop)
            stop.wait(max(next_at - perf_counter(), 0))

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        found: list[float] = []
        for _ in range(times):
            stop.wait(chance.uniform(0, every_s))
            found.append(found_after(stage, n_records, chance))
        return found
    finally:
        stop.set()
        thread.join()
        audit.close()


def table_of(figures: dict[str, Any]) -> Table:
    """Return the table that is printed."""
    n = figures["records"]
    found = sorted(figures["found_after_s"])
    table = Table(title=f"{n:,} records, {figures['events']:,} events", show_header=False)
    rows = {
        "first proof": f"{figures['first_proof_s']:.1f} s of work, "
        f"{figures['folded'] / figures['first_proof_s']:,.0f} records/s",
        "a lap, nothing touched": f"{figures['quiet_lap_s']:.2f} s of work, "
        f"{figures['quiet_lap_s'] / n * 1e6:.2f} s per million records",
        f"a lap, {figures['touched']:,} records touched": f"{figures['touched_lap_s']:.2f} s",
        "a lap in one snapshot": f"{figures['certain_lap_s']:.2f} s",
    }
    if found:
        rows["a wrong row was found after"] = (
            f"{found[0]:.1f} to {found[-1]:.1f} s, median {found[len(found) // 2]:.1f} s, "
            f"{len(found)} times"
        )
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def main() -> int:
    """Run from the command line; the exit status is 1 if a row was found after a minute only."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=5_000, help="how many")
    parser.add_argument("--done", type=float, default=0.5, help="which part of them is complete")
    parser.add_argument("--times", type=int, default=5, help="rows to change")
    parser.add_argument("--share", type=float, default=SHARE, help="of one core")
    parser.add_argument("--every-s", type=float, default=EVERY_S, help="between two laps")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-self-audit-"))
        Path(home).chmod(0o755)
        postgres = stack.enter_context(EmbeddedPostgres(home, settings={"fsync": "off"}))
        migrate(postgres.url)
        stage = stack.enter_context(staged(postgres.url))
        figures = measure(
            stage,
            given.records,
            done=given.done,
            times=given.times,
            share=given.share,
            every_s=given.every_s,
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2), "utf-8")
    Console(width=120).print(table_of(figures))
    return int(any(seconds > 60 for seconds in figures["found_after_s"]))


if __name__ == "__main__":
    sys.exit(main())
