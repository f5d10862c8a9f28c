"""Measure the processor time that each command costs a record, and compare two commits by it.

    python -m tests.benchmarks.cost --size 5000
    python -m tests.benchmarks.cost --size 5000 --against d01b964 --pairs 5

Processor time is what the client, the API server and all processes of PostgreSQL use together,
user and system, in microseconds a record: on a busy machine it is more, but a rate by the wall
clock means nothing there. Both commits are measured in turn, so that both meet the same
disturbances; the ratio is that of the medians. The jobs of `work` are stopped meanwhile (SIGSTOP):
what runs behind the log has budgets of its own. WAL is in bytes a record.

The file runs in a checkout of either commit, and so uses only what all of them have.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path.cwd()))

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from recordledger import Client
from recordledger.workers.supervisor import Plan, Supervisor

FUNCTION: Final = "recordledger.workers.demo.functions:noop"
RESULT: Final = '"%010d' + "0123456789abcdef" * 63 + '"'
SUBMIT_BATCH: Final = 1_000
CLAIM_BATCH: Final = 200
# Records of the commands that take one at a time.
ONE_MAX: Final = 300
MANAGED: Final = ("cancel", "uncancel", "hold", "release", "delete", "undelete")
Costs = dict[str, dict[str, float]]
"""By command, and then by what is measured: `cpu_us` and `wal_bytes`, a record."""


class Used(NamedTuple):
    """Processor time in seconds, and the end of the WAL in bytes."""

    cpu_s: float
    wal_bytes: float


class Meter:
    """Reads what the client, the server and PostgreSQL have used so far."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Measure this service, and the process that asks."""
        process = supervisor.child("serve").process
        assert process is not None
        self._db = psycopg.connect(supervisor.database_url, autocommit=True)
        postmaster = psutil.Process(self._db.info.backend_pid).parent()
        assert postmaster is not None
        self._postmaster = postmaster
        self._processes = (psutil.Process(), psutil.Process(process.pid))

    def read(self) -> Used:
        """Return what was used until now; what this connection uses is not counted."""
        cpu_s = sum(_own(each) for each in self._processes)
        ended = self._postmaster.cpu_times()
        cpu_s += ended.children_user + ended.children_system
        for each in self._postmaster.children():
            if each.pid != self._db.info.backend_pid:
                cpu_s += _own(each)
        (wal_bytes,) = self._db.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        ).fetchone() or (0,)
        return Used(cpu_s, float(wal_bytes))


def _own(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def measure(size: int) -> Costs:
    """Return what each command costs in the checkout that this file runs in."""
    with (
        tempfile.TemporaryDirectory(prefix="recordledger-cost-") as home,
        Supervisor(Plan(home=Path(home), port=0, workers=0)) as supervisor,
        Client(supervisor.url, supervisor.token, progress=False) as client,
    ):
        work = supervisor.child("work").process
        assert work is not None
        work.send_signal(signal.SIGSTOP)
        try:
            Commands(client, 500, Meter(supervisor), "warm").run()
            return Commands(client, size, Meter(supervisor), "measured").run()
        finally:
            work.send_signal(signal.SIGCONT)


class Commands:
    """Runs each command on records of its own, and notes what it cost."""

    def __init__(self, client: Client, size: int, meter: Meter, tag: str) -> None:
        """Measure with so many records, which have this tag."""
        self.client: Any = client
        self.size = size
        self.meter = meter
        self.tag = tag
        self.costs: Costs = {}

    def run(self) -> Costs:
        """Return the costs of all commands."""
        manager = self.client.register_manager(self.tag, [self.tag]).manager_id
        self._take("submit", self.size, lambda: self._submit(self.size, "life"))
        tasks: list[Any] = self._take("claim", self.size, lambda: self._claim(manager))
        assert len(tasks) == self.size, len(tasks)
        self._take("return", self.size, lambda: self._return(manager, tasks))
        ids = self._submit(self.size, "managed")
        for name in MANAGED:
            self._take(name, self.size, partial(self._manage, name, ids))
        self._take(
            "modify", self.size, lambda: self.client.modify_records(ids, new_priority="high")
        )
        self._take("comment", self.size, lambda: self.client.add_comment(ids, "a remark"))
        # A manager of its own: after so many errors it is offered no more of these tasks.
        failing = self.client.register_manager(f"{self.tag}-failing", [self.tag]).manager_id
        self._return(failing, self._claim(failing), error_type="Wrong")
        self._take("reset", self.size, lambda: self._manage("reset", ids))
        self._manage("cancel", ids)
        self._one_at_a_time(manager, min(self.size, ONE_MAX))
        return self.costs

    def _take(self, name: str, n_records: int, work: Callable[[], Any]) -> Any:
        before = self.meter.read()
        answer = work()
        after = self.meter.read()
        self.costs[name] = {
            "cpu_us": 1e6 * (after.cpu_s - before.cpu_s) / n_records,
            "wal_bytes": (after.wal_bytes - before.wal_bytes) / n_records,
        }
        return answer

    def _submit(self, n_records: int, mark: str) -> list[int]:
        ids: list[int] = []
        for first in range(0, n_records, SUBMIT_BATCH):
            last = min(first + SUBMIT_BATCH, n_records)
            kwargs = [{"mark": f"{self.tag}-{mark}-{index}"} for index in range(first, last)]
            ids += self.client.add_records(FUNCTION, kwargs, tag=self.tag).ids
        return ids

    def _claim(self, manager: int) -> list[Any]:
        tasks: list[Any] = []
        while got := self.client.claim(manager, CLAIM_BATCH).tasks:
            tasks += got
        return tasks

    def _return(self, manager: int, tasks: list[Any], error_type: str | None = None) -> None:
        for first in range(0, len(tasks), CLAIM_BATCH):
            part = tasks[first : first + CLAIM_BATCH]
            self.client.return_results(manager, [_result(task, error_type) for task in part])

    def _manage(self, action: str, ids: list[int]) -> None:
        answer = getattr(self.client, f"{action}_records")(ids)
        assert len(answer.updated_idx) == len(ids), answer

    def _one_at_a_time(self, manager: int, n_records: int) -> None:
        ids: list[int] = []
        tasks: list[Any] = []

        def submit() -> None:
            for index in range(n_records):
                kwargs = [{"one": f"{self.tag}-{index}"}]
                ids.extend(self.client.add_records(FUNCTION, kwargs, tag=self.tag).ids)

        def claim() -> None:
            tasks.extend(self.client.claim(manager, 1).tasks[0] for _ in range(n_records))

        def hand_in() -> None:
            for task in tasks:
                self._return(manager, [task])

        self._take("submit 1", n_records, submit)
        self._take("claim 1", n_records, claim)
        self._take("return 1", n_records, hand_in)
        self._take("get 1", n_records, lambda: [self.client.get_records(id_) for id_ in ids])


def _result(task: Any, error_type: str | None) -> Any:
    try:
        schema = importlib.import_module("recordledger.api.schemas.returns").ResultIn
    except ModuleNotFoundError:
        schema = importlib.import_module("recordledger.api.schemas").ResultIn
    place = {"record_id": task.record_id, "attempt": task.attempt}
    if error_type is not None:
        return schema(**place, error_type=error_type)
    return schema(**place, result=(RESULT % task.record_id).encode(), compute_s=0.001)


def compare(size: int, against: str, pairs: int) -> tuple[list[Costs], list[Costs]]:
    """Return the costs of this checkout and of another commit, measured in turn."""
    here = Path.cwd()
    ours: list[Costs] = []
    theirs: list[Costs] = []
    with tempfile.TemporaryDirectory(prefix="recordledger-against-") as place:
        other = Path(place) / "checkout"
        _git("worktree", "add", "--quiet", "--detach", str(other), against)
        try:
            for _ in range(pairs):
                theirs.append(_measure_in(other, size))
                ours.append(_measure_in(here, size))
        finally:
            _git("worktree", "remove", "--force", str(other))
    return ours, theirs


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)  # noqa: S603, S607 - the user's own


def _measure_in(checkout: Path, size: int) -> Costs:
    """Run this file in a checkout, with its code first in the path of all processes."""
    found = subprocess.run(  # noqa: S603 - this very file
        [sys.executable, str(Path(__file__).resolve()), "--size", str(size), "--json", "-"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.PIPE,
    )
    costs: Costs = json.loads(found.stdout)
    return costs


def medians(measured: list[Costs], what: str) -> dict[str, float]:
    """Return the median of each command's figure over several runs."""
    return {
        name: statistics.median(costs[name][what] for costs in measured) for name in measured[0]
    }


def table_of(ours: list[Costs], theirs: list[Costs], against: str) -> Table:
    """Return the table that is printed; with what it is compared to, if there is that."""
    table = Table(title="Processor time a record: client, server and PostgreSQL together")
    for name in ("command", "us", "WAL bytes"):
        table.add_column(name, justify="left" if name == "command" else "right")
    if theirs:
        for name in (f"us, {against}", f"WAL bytes, {against}", "ratio of us"):
            table.add_column(name, justify="right")
    cpu, wal = medians(ours, "cpu_us"), medians(ours, "wal_bytes")
    for name in cpu:
        row = [name, f"{cpu[name]:,.0f}", f"{wal[name]:,.0f}"]
        if theirs:
            before = medians(theirs, "cpu_us")[name]
            row += [f"{before:,.0f}", f"{medians(theirs, 'wal_bytes')[name]:,.0f}"]
            row.append(f"{cpu[name] / before:.2f}")
        table.add_row(*row)
    return table


def main() -> None:
    """Measure, compare if that is asked for, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=5_000, help="records a command")
    parser.add_argument("--against", help="a commit to compare with, measured in turn")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each of the two")
    parser.add_argument("--json", help="a file for the figures; - for standard output")
    given = parser.parse_args()
    ours, theirs = (
        compare(given.size, given.against, given.pairs)
        if given.against
        else ([measure(given.size)], [])
    )
    if given.json == "-":
        sys.stdout.write(json.dumps(ours[0]))
        return
    if given.json:
        Path(given.json).write_text(json.dumps({"ours": ours, "theirs": theirs}, indent=1))
    Console().print(table_of(ours, theirs, given.against or ""))


if __name__ == "__main__":
    main()
