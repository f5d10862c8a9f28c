"""What sealing costs writers: the same writes with the sealer and without it, in turns.

    python -m tests.benchmarks.sealing --rounds 8 --tasks 20000

Over HTTP, as managers and users write: tasks are submitted, claimed and returned in bulk. One
process serves, and one does the server's jobs; only the latter is started anew for each round, with
the sealer or without. Which of the two is first changes with each round. What was not sealed in its
own round is sealed between rounds, unmeasured.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter

import psutil

from recordledger import Client
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.seals import newest_seal
from recordledger.workers.jobs.sealing import Sealer
from recordledger.workers.supervisor import Plan, Supervisor

from . import over_http
from .measuring import end_in_order


def measure(n_rounds: int, n_tasks: int, seal_every_s: float) -> dict[bool, list[float]]:
    """Return events a second with the sealer (True) and without, for each round."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="recordledger-bench-") as home:
        plan = Plan(home=Path(home), port=0, workers=0)
        with Supervisor(plan) as supervisor:
            # The one that the supervisor has started would seal in both.
            work = supervisor.child("work")
            work.arguments = [*work.arguments, "--no-seal"]
            assert work.process is not None
            work.process.terminate()
            ledger = Ledger(supervisor.database_url, pool_size=2)
            sealer = Sealer(ledger, home=Path(home))
            with Client(supervisor.url, supervisor.token, progress=False) as client:
                manager_id = client.register_manager("bench", ["*"]).manager_id
                for number in range(2 * n_rounds):
                    seals = number % 2 == (number // 2) % 2
                    sealer.run(Event())
                    before_it = newest_seal(ledger)
                    with _working(supervisor.database_url, Path(home), seals, seal_every_s) as pid:
                        began, before = perf_counter(), _seconds(pid)
                        over_http.submit(client, n_tasks, f"bench-{number}")
                        _, tasks = over_http.claim(client, manager_id, n_tasks)
                        over_http.hand_in(client, manager_id, tasks)
                        took = perf_counter() - began
                        rate, spent = 3 * n_tasks / took, _seconds(pid) - before
                    newest = newest_seal(ledger)
                    n_sealed = (newest.size if newest else 0) - (before_it.size if before_it else 0)
                    if seals and not n_sealed:
                        raise RuntimeError("nothing was sealed in a round: take more tasks")
                    print(
                        f"round {number // 2 + 1}, {'sealed' if seals else 'not sealed':>10}: "
                        f"{rate:7,.0f} events/s, {spent:.2f} s of the jobs' processor time in "
                        f"{took:.1f} s, {n_sealed} events sealed, "
                        f"load {os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
                    rates[seals].append(rate)
            ledger.close()
    return rates


@contextmanager
def _working(url: str, home: Path, seals: bool, seal_every_s: float) -> Generator[int]:
    """Run the server's jobs in a process of their own; give its number."""
    command = [sys.executable, "-m", "recordledger.workers.cli", "work", f"--home={home}"]
    command += [f"--database-url={url}", "--no-services", f"--seal-every-s={seal_every_s}"]
    command += ["--seal" if seals else "--no-seal"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        # It is at work when it has taken the time that its imports take.
        Event().wait(3)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run from the command line."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=10_000)
    # More often than usual, so that no round ends before its turn to seal.
    parser.add_argument("--seal-every-s", type=float, default=1.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    rates = measure(given.rounds, given.tasks, given.seal_every_s)
    sealed, plain = (statistics.median(rates[each]) for each in (True, False))
    print(f"medians: {sealed:,.0f} events/s sealed, {plain:,.0f} not sealed")
    costs = [1 - one / other for one, other in zip(rates[True], rates[False], strict=True)]
    print(f"sealing costs {statistics.median(costs):.1%} of the rate (median of pairs)")


if __name__ == "__main__":
    main()
