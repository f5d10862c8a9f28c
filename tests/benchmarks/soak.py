"""Soak the whole: hundreds of managers share a ledger for as long as its tasks last.

    python -m tests.benchmarks.soak --managers 200 --tasks 1000000

The database, the server and the server's jobs are the real ones; managers are simulated, by
clients that claim and return over HTTP, in a few processes. Their tags and programs differ. Half of
the tasks are in one hot lane; few managers can run those of the rare lanes. Some managers die with
what they have claimed, and some return it after their lease was over.

At the end every task must be complete, nobody may have starved, the tables must be what the log
says, and the log must pass the audit. Otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final

import psutil
from rich.console import Console
from rich.table import Table

from recordledger import AsyncClient, Client
from recordledger.api.client import RecordSpec, Refused
from recordledger.api.schemas.claims import AttemptRef, TaskOut
from recordledger.api.schemas.returns import ResultIn
from recordledger.projections.store.database import connect
from recordledger.workers.supervisor import Plan, Supervisor

from .measuring import Measurement, end_in_order
from .over_http import FUNCTION, RESULT_1_KIB

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier
    from multiprocessing.synchronize import Event as Flag

N_TAGS: Final = 40
HOT_TAG: Final = "hot"
HOT_SHARE: Final = 0.5
RARE_SHARE: Final = 0.02
RARE_PROGRAM: Final = "rare"
COMMON_PROGRAM: Final = "common"
CLAIM: Final = 20
N_PROCESSES: Final = 2
SUBMIT_BATCH: Final = 1_000
LEASE_S: Final = 8.0
POLL_S: Final = (0.2, 1.6)
# Of 20 managers one dies in the middle, and one is silent for too long, and then returns.
ONE_IN: Final = 20
TIMEOUT_S: Final = 3_600.0
PATIENCE_LEASES: Final = 10
WATCH_S: Final = 0.5
# Managers of one kind, which ask equally often, get shares that differ by less than this factor.
SPREAD_MAX: Final = 3.0
# Lanes of so many tasks are looked at one by one.
LANE_MIN: Final = 50


@dataclass(frozen=True, slots=True)
class Part:
    """What one simulated manager is."""

    number: int
    tags: tuple[str, ...]
    programs: dict[str, str | None]
    lease_s: float
    dies: bool
    is_late: bool


def cast(n_managers: int, lease_s: float) -> list[Part]:
    """Return the managers: their tags, their programs, and what becomes of them."""
    parts: list[Part] = []
    for number in range(n_managers):
        own = [f"tag{(number + step * 7) % N_TAGS}" for step in range(3)]
        tags = ((HOT_TAG, *own), (*own, HOT_TAG), (*own, "*"), ("*",))[number % 4]
        programs: dict[str, str | None] = {COMMON_PROGRAM: f"1.{number % 5}"}
        if number % 8 == 3:  # Of those that take anything, every other one.
            programs[RARE_PROGRAM] = "2.0"
        parts.append(
            Part(
                number,
                tags,
                programs,
                lease_s,
                dies=number % ONE_IN == 5,
                is_late=number % ONE_IN == 6,
            )
        )
    return parts


def specs_of(n_tasks: int) -> Iterator[list[RecordSpec]]:
    """Yield the tasks in batches, those of all lanes mixed."""
    chance = random.Random(n_tasks)  # noqa: S311 - the same tasks each time
    for first in range(0, n_tasks, SUBMIT_BATCH):
        batch: list[RecordSpec] = []
        for index in range(first, min(first + SUBMIT_BATCH, n_tasks)):
            which = chance.random()
            needs = [RARE_PROGRAM] if which < RARE_SHARE else [COMMON_PROGRAM] * (index % 2)
            hot = RARE_SHARE <= which < RARE_SHARE + HOT_SHARE
            tag = HOT_TAG if hot else f"tag{chance.randrange(N_TAGS)}"
            kwargs = {"mark": f"soak-{index}"}
            batch.append(
                RecordSpec(function=FUNCTION, kwargs=kwargs, required_programs=needs, tag=tag)
            )
        yield batch


@dataclass(slots=True)
class Tally:
    """What one manager did, how often it was declared lost, and how long its calls took."""

    part: Part
    n_claimed: int = 0
    n_done: int = 0
    n_late: int = 0
    n_lost: int = 0
    calls: dict[str, list[float]] = field(
        default_factory=lambda: defaultdict[str, list[float]](list)
    )


class Player:
    """A manager whose tasks take no time: claims, returns, gives signs of life."""

    def __init__(self, part: Part, client: AsyncClient, done: Flag) -> None:
        """Take a part; `done` says that there is nothing left to wait for."""
        self._part = part
        self._client = client
        self._done = done
        self._chance = random.Random(part.number)  # noqa: S311 - the same each time
        self._manager_id = 0
        self._beaten_at = 0.0
        self._pause_s = POLL_S[0]
        self._n_until_trouble = 1 + self._chance.randrange(2)
        self._is_dead = False
        self.tally = Tally(part)

    async def run(self) -> None:
        """Work until there is nothing left, or until it is this one's turn to die."""
        await self._register()
        while not self._done.is_set() and not self._is_dead:
            try:
                await self._turn()
            except Refused as refusal:
                if refusal.code != "manager_not_active":
                    raise
                self.tally.n_lost += 1
                await self._register()
        if self._is_dead:
            return
        with contextlib.suppress(Refused):
            await self._client.deactivate_manager(self._manager_id)

    async def _turn(self) -> None:
        """Claim, and return what was claimed, unless this is the time for something else."""
        tasks = await self._claim()
        if not tasks:
            await asyncio.sleep(self._chance.uniform(0.5, 1) * self._pause_s)
            self._pause_s = min(2 * self._pause_s, POLL_S[1])
            await self._beat([])
            return
        self._pause_s = POLL_S[0]
        self._n_until_trouble -= 1
        if self._n_until_trouble == 0 and self._part.dies:
            self._is_dead = True
            return
        if self._n_until_trouble == 0 and self._part.is_late:
            await self._outlast_lease()
        await self._beat(tasks)
        await self._return(tasks)

    async def _outlast_lease(self) -> None:
        """Be silent until one is declared lost."""
        self._beaten_at = math.inf
        while (await self._client.manager(self._manager_id)).state == "active":  # noqa: ASYNC110
            await asyncio.sleep(self._part.lease_s / 4)

    async def _register(self) -> None:
        answer = await self._client.register_manager(
            f"soak-{self._part.number}",
            self._part.tags,
            self._part.programs,
            lease_s=self._part.lease_s,
            heartbeat_s=self._part.lease_s / 4,
        )
        self._manager_id, self._beaten_at = answer.manager_id, monotonic()

    async def _claim(self) -> list[TaskOut]:
        began = perf_counter()
        tasks = (await self._client.claim(self._manager_id, CLAIM)).tasks
        self.tally.calls["claim" if tasks else "claim of nothing"].append(perf_counter() - began)
        self.tally.n_claimed += len(tasks)
        self._beaten_at = monotonic()
        return tasks

    async def _beat(self, tasks: list[TaskOut]) -> None:
        if monotonic() < self._beaten_at + self._part.lease_s / 4:
            return
        held = [AttemptRef(record_id=task.record_id, attempt=task.attempt) for task in tasks]
        began = perf_counter()
        await self._client.heartbeat(self._manager_id, held)
        self.tally.calls["heartbeat"].append(perf_counter() - began)
        self._beaten_at = monotonic()

    async def _return(self, tasks: list[TaskOut]) -> None:
        results = [
            ResultIn(
                record_id=task.record_id,
                attempt=task.attempt,
                result=RESULT_1_KIB.replace(b"0123456789", b"%010d" % task.record_id, 1),
                compute_s=0.001,
            )
            for task in tasks
        ]
        began = perf_counter()
        answer = await self._client.return_results(self._manager_id, results)
        self.tally.calls["return"].append(perf_counter() - began)
        self.tally.n_done += len(answer.accepted_idx)
        self.tally.n_late += len(answer.late_idx)


def _simulate(
    url: str,
    token: str,
    parts: list[Part],
    ready: Barrier,
    go: Flag,
    done: Flag,
    tallies: Queue[list[Tally]],
) -> None:
    """Be some of the managers, in a process of its own."""

    async def all_of_them() -> list[Tally]:
        async with AsyncClient(url, token, progress=False) as client:
            managers = [Player(part, client, done) for part in parts]
            await asyncio.gather(*(manager.run() for manager in managers))
            return [manager.tally for manager in managers]

    ready.wait(TIMEOUT_S)
    go.wait(TIMEOUT_S)
    tallies.put(asyncio.run(all_of_them()))


@dataclass(slots=True)
class Watched:
    """What was seen from outside while the managers worked, at most."""

    server_mb: float = 0.0
    jobs_mb: float = 0.0
    database_mb: float = 0.0


@dataclass(slots=True)
class SoakReport:
    """What was done, how fast, and what was wrong in the end."""

    n_tasks: int
    submit: Measurement = field(default_factory=Measurement)
    cycle: Measurement = field(default_factory=Measurement)
    calls: dict[str, Measurement] = field(default_factory=dict[str, Measurement])
    watched: Watched = field(default_factory=Watched)
    tallies: list[Tally] = field(default_factory=list[Tally])
    sizes: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    lanes: dict[str, tuple[int, float, float]] = field(
        default_factory=dict[str, tuple[int, float, float]]
    )
    faults: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def holds(self) -> bool:
        """Whether everything that was promised held."""
        return not self.faults


def soak(home: Path, n_managers: int, n_tasks: int, *, lease_s: float = LEASE_S) -> SoakReport:
    """Run so many tasks by so many managers; return what came of it."""
    report = SoakReport(n_tasks)
    parts = cast(n_managers, lease_s)
    context = multiprocessing.get_context("spawn")
    ready, go, done = context.Barrier(N_PROCESSES + 1), context.Event(), context.Event()
    tallies: Queue[list[Tally]] = context.Queue()
    with ExitStack() as stack:
        plan = Plan(home=home, port=0, workers=0)
        supervisor = stack.enter_context(Supervisor(plan))
        client = stack.enter_context(Client(supervisor.url, supervisor.token, progress=False))
        stack.enter_context(_watching(supervisor, report.watched))
        processes = [
            context.Process(
                target=_simulate,
                args=(supervisor.url, supervisor.token, each, ready, go, done, tallies),
                daemon=True,
            )
            for each in (parts[n::N_PROCESSES] for n in range(N_PROCESSES))
        ]
        for process in processes:
            process.start()
        ready.wait(TIMEOUT_S)
        for batch in specs_of(n_tasks):
            with report.submit.call(len(batch)):
                client.add_records(batch)
        go.set()
        with report.cycle.call(n_tasks):
            _await_completion(client, n_tasks, PATIENCE_LEASES * lease_s)
        done.set()
        for _ in processes:
            report.tallies += tallies.get(timeout=60)
        for process in processes:
            process.join()
        _judge(supervisor, client, report)
    return report


def _await_completion(client: Client, n_tasks: int, patience_s: float) -> None:
    """Wait until everything is complete, or until nothing has been completed for so long."""
    pause, n_before, give_up_at = Event(), -1, 0.0
    while (n_complete := client.counts()["complete"]) < n_tasks:
        if n_complete != n_before:
            n_before, give_up_at = n_complete, monotonic() + patience_s
        if monotonic() > give_up_at:
            return
        pause.wait(WATCH_S)


@contextlib.contextmanager
def _watching(supervisor: Supervisor, watched: Watched) -> Generator[None]:
    stop = Event()

    def watch() -> None:
        while not stop.wait(WATCH_S):
            with contextlib.suppress(psutil.Error):
                _look(supervisor, watched)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _look(supervisor: Supervisor, watched: Watched) -> None:
    server, work = supervisor.child("serve").process, supervisor.child("work").process
    if server is not None:
        watched.server_mb = max(watched.server_mb, _memory_mb(server.pid))
    if work is not None:
        watched.jobs_mb = max(watched.jobs_mb, _memory_mb(work.pid))
    if supervisor.postgres is not None and supervisor.postgres.pid is not None:
        watched.database_mb = max(watched.database_mb, _memory_mb(supervisor.postgres.pid))


def _memory_mb(pid: int) -> float:
    """Return the memory of a process and its children; pages that they share count once."""
    n_bytes = 0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found = each.memory_full_info()
            n_bytes += getattr(found, "pss", found.uss)
    return n_bytes / 1e6


def _judge(supervisor: Supervisor, client: Client, report: SoakReport) -> None:
    """Note what was measured, and everything that is not as it should be."""
    calls: dict[str, Measurement] = defaultdict(Measurement)
    for tally in report.tallies:
        for name, took in tally.calls.items():
            calls[name].latencies_s += took
            calls[name].n_items += len(took)
            calls[name].seconds = report.cycle.seconds
    report.calls = dict(sorted(calls.items()))
    counts = {name: n for name, n in client.counts().items() if n}
    if counts != {"complete": report.n_tasks}:
        report.faults.append(f"not everything is complete: {counts}")
    with connect(supervisor.database_url) as connection:
        report.sizes = connection.execute(_SIZES).fetchall()
        for lane, n, first_at, first_s, last_s, late_at in connection.execute(_LANES):
            report.lanes[lane] = (n, first_s, last_s)
            if n >= LANE_MIN and first_at > late_at:
                report.faults.append(f"{lane} starved: its first claim came after {first_s:.0f} s")
    _judge_shares(report)
    for words in (("replay", "--check"), ("audit",)):
        checked = _command(supervisor, *words)
        report.notes.append(f"{words[0]}: {_last_line(checked.stdout)}")
        if checked.returncode:
            said = f"{checked.stdout[-1000:]}{checked.stderr[-500:]}"
            report.faults.append(f"{words[0]} ended with {checked.returncode}: {said}")


def _judge_shares(report: SoakReport) -> None:
    """Find managers that got much less than others of their kind, which asked as often."""
    kinds: dict[int, list[Tally]] = defaultdict(list)
    for tally in report.tallies:
        if not tally.part.dies and not tally.part.is_late:
            kinds[tally.part.number % 4].append(tally)
    for kind in kinds.values():
        shares = sorted(tally.n_claimed for tally in kind)
        median = shares[len(shares) // 2]
        report.notes.append(
            f"tasks of each manager with tags like {','.join(kind[0].part.tags)}: "
            f"{shares[0]:,} to {shares[-1]:,}, in the middle {median:,}"
        )
        if median >= 5 * CLAIM and shares[0] * SPREAD_MAX < median:
            report.faults.append(f"a manager got {shares[0]} tasks, others like it {median}")
    n_lost = sum(tally.n_lost for tally in report.tallies if not tally.part.is_late)
    if n_lost:
        report.notes.append(f"managers declared lost because their calls took too long: {n_lost}")
    late = [tally for tally in report.tallies if tally.part.is_late]
    if late and not any(tally.n_late for tally in late):
        report.faults.append("no result came late, though some should have")


# By lane: how many tasks, when the first and the last were claimed, and when three quarters of all
# tasks of all lanes were complete: a lane from which nothing was claimed until then has starved.
_LANES: Final = """
    SELECT array_to_string(l.tag || l.required_programs, ' '), count(*), min(r.started_at),
           extract(epoch FROM min(r.started_at) - a.began_at)::float8,
           extract(epoch FROM max(r.started_at) - a.began_at)::float8,
           a.late_at
      FROM records r
      JOIN lanes l ON l.id = r.lane_id
     CROSS JOIN (SELECT min(started_at) AS began_at,
                        percentile_disc(0.75) WITHIN GROUP (ORDER BY finished_at) AS late_at
                   FROM records) AS a
     GROUP BY l.id, a.began_at, a.late_at
     ORDER BY 5 DESC
"""

_SIZES: Final = """
    SELECT relname::text, pg_table_size(relid), pg_indexes_size(relid)
      FROM pg_stat_user_tables WHERE schemaname = 'recordledger'
     ORDER BY pg_total_relation_size(relid) DESC LIMIT 8
"""


def _command(supervisor: Supervisor, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recordledger.workers.cli", *arguments]
    return subprocess.run(  # noqa: S603 - our own program
        [*command, f"--database-url={supervisor.database_url}"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=TIMEOUT_S,
        check=False,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(nothing said)"])[-1]


def tables_of(report: SoakReport, n_managers: int) -> list[Table]:
    """Return the tables that are printed."""
    work = Table(title=f"{report.n_tasks:,} tasks, {n_managers} managers, over HTTP")
    for title in ("work", "rate /s", "p50 ms", "p99 ms"):
        work.add_column(title, justify="left" if title == "work" else "right")
    rows = {
        "tasks submitted, 1,000 a call": report.submit,
        "tasks claimed, done and returned": report.cycle,
        **{f"calls: {name}": measured for name, measured in report.calls.items()},
    }
    for name, measured in rows.items():
        shown = [f"{measured.percentile_ms(percent):.1f}" for percent in (50, 99)]
        work.add_row(
            name, f"{measured.rate:,.0f}", *(("", "") if measured is report.cycle else shown)
        )
    watched = report.watched
    work.caption = (
        f"memory at the most: server {watched.server_mb:.0f} MB, "
        f"server's jobs {watched.jobs_mb:.0f} MB, PostgreSQL {watched.database_mb:.0f} MB"
    )
    space = Table(title="largest tables")
    for title in ("table", "MB", "MB of indexes"):
        space.add_column(title, justify="left" if title == "table" else "right")
    for name, heap, indexes in report.sizes:
        space.add_row(name, f"{heap / 1e6:,.1f}", f"{indexes / 1e6:,.1f}")
    return [work, space]


def main() -> int:
    """Run from the command line; exit status 0 if everything held."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--managers", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=20_000)
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="recordledger-soak-") as home:
        report = soak(Path(home), given.managers, given.tasks)
    console = Console(width=100)
    for table in tables_of(report, given.managers):
        console.print(table)
    for lane, (n, first_s, last_s) in list(report.lanes.items())[:3]:
        print(f"last lanes: {n:,} x {lane}, claimed from {first_s:.1f} s to {last_s:.1f} s")
    print(*report.notes, *(f"FAULT: {fault}" for fault in report.faults), sep="\n")
    print("Everything held." if report.holds else "NOT everything held.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
