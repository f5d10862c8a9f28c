"""Kill -9 everything in random order while tasks run, and prove that nothing was lost or doubled.

    python -m tests.acceptance.crash --cycles 20 --tasks 2000

A submitter keeps a list of every acknowledged submission outside of the database. PostgreSQL, the
API and the manager are killed in random order; the supervisor brings them back. At the end every
acknowledged record must be complete, no record may have two accepted results, and the tables must
be what the log says.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from time import monotonic

from recordledger import Client
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.audit import AuditReport, audit
from recordledger.workers.supervisor import Plan, Supervisor

VICTIMS = ("postgres", "serve", "manager")
FUNCTION = "recordledger.workers.demo.functions:sleep"
TASK_S = 0.02
SETTLE_S = 300.0


@dataclass(slots=True)
class CrashReport:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter[str])
    acknowledged: list[int] = field(default_factory=list[int])
    statuses: Counter[str] = field(default_factory=Counter[str])
    n_accepted: Counter[int] = field(default_factory=Counter[int])
    n_events: Counter[str] = field(default_factory=Counter[str])
    audit: AuditReport = field(default_factory=AuditReport)

    @property
    def lost(self) -> int:
        """How many acknowledged submissions are not complete at the end."""
        return len(self.acknowledged) - self.statuses["complete"]

    @property
    def doubled(self) -> int:
        """How many records have more than one accepted result."""
        return sum(n > 1 for n in self.n_accepted.values())

    @property
    def holds(self) -> bool:
        """Whether everything that was promised held, and every fault really fired."""
        return not self.lost and not self.doubled and self.audit.holds and bool(self.acknowledged)

    def __str__(self) -> str:
        """Return a few readable lines."""
        kills = ", ".join(f"{n} x {name}" for name, n in sorted(self.kills.items()))
        events = ", ".join(f"{n} {name}" for name, n in sorted(self.n_events.items()))
        return "\n".join(
            [
                f"killed -9:     {kills}",
                f"acknowledged:  {len(self.acknowledged)} submissions; lost: {self.lost}",
                f"accepted:      {sum(self.n_accepted.values())} results; twice: {self.doubled}",
                f"events:        {events}",
                f"audit:         {self.audit}",
            ]
        )


def crash(home: Path, *, n_cycles: int, n_tasks: int, seed: int, workers: int = 2) -> CrashReport:
    """Run tasks under fire; return what came of it."""
    chance = random.Random(seed)  # noqa: S311 - a seed that can be repeated is wanted
    report = CrashReport()
    plan = Plan(home=home, port=0, workers=workers, lease_s=4.0, heartbeat_s=0.5)
    with Supervisor(plan) as supervisor:
        client = Client(supervisor.url, supervisor.token, retries_s=SETTLE_S, progress=False)
        with client:
            submitter = Thread(target=_submit, args=(client, n_tasks, report.acknowledged))
            submitter.start()
            for victim in islice(_turns(chance), n_cycles):
                Event().wait(chance.uniform(0.2, 1.5))
                kill(supervisor, victim)
                report.kills[victim] += 1
            submitter.join()
            client.wait(report.acknowledged, timeout_s=SETTLE_S)
            records = client.get_records(report.acknowledged)
            report.statuses = Counter(str(record.status) for record in records)
        _read_log(supervisor.database_url, report)
    return report


def _turns(chance: random.Random) -> Iterator[str]:
    """Give everybody a turn, and then again, in an order that is chance."""
    while True:
        yield from chance.sample(VICTIMS, len(VICTIMS))


def _submit(client: Client, n_tasks: int, acknowledged: list[int]) -> None:
    for first in range(0, n_tasks, 50):
        kwargs = [{"seconds": TASK_S}] * min(50, n_tasks - first)
        submitted = client.add_records(FUNCTION, kwargs, find_existing=False)
        acknowledged += [id_ for id_ in submitted.ids if id_ is not None]


def kill(supervisor: Supervisor, victim: str) -> None:
    def pid_now() -> int | None:
        if victim == "postgres":
            postgres = supervisor.postgres
            return None if postgres is None or postgres.poll() is not None else postgres.pid
        process = supervisor.child(victim).process
        return None if process is None or process.poll() is not None else process.pid

    pid = until(pid_now, f"{victim} is alive")
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid_now() != pid or None, f"{victim} is dead")


def until(found: Callable[[], int | bool | None], what: str, timeout_s: float = 90.0) -> int:
    deadline = monotonic() + timeout_s
    pause = Event()
    while monotonic() < deadline:
        if (value := found()) is not None:
            return int(value)
        pause.wait(0.02)
    raise TimeoutError(f"not after {timeout_s} s: {what}")


def _read_log(url: str, report: CrashReport) -> None:
    """Count in the log itself, not in the projections."""
    ledger = Ledger(url)
    try:
        with ledger.datastore.reading() as db:
            rows = db.execute("SELECT originator_id, topic FROM ledger_events").fetchall()
        report.n_events = Counter(topic for _, topic in rows)
        report.n_accepted = Counter(
            id_.int & (2**64 - 1) for id_, topic in rows if topic in ("completed", "errored")
        )
        report.audit = audit(ledger)
    finally:
        ledger.close()


def main() -> int:
    """Run from the command line; exit status 0 if everything held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed  # noqa: S311
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    with tempfile.TemporaryDirectory(prefix="recordledger-crash-") as home:
        report = crash(Path(home), n_cycles=given.cycles, n_tasks=given.tasks, seed=seed)
    print(f"seed:          {seed}")
    print(report)
    print("Everything held." if report.holds else "NOT everything held.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
