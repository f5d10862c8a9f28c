"""A dataset of many entries and three specifications: add, submit, status, bulk, results, lock.

    python -m tests.benchmarks.datasets --entries 100000

The figures are in docs/datasets.md. It runs the real server and its jobs, on PostgreSQL with fsync.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from recordledger import Client
from recordledger.workers.supervisor import Plan, Supervisor

from .measuring import Measurement

SPECIFICATIONS: Final = ("hf", "mp2", "ccsd")
FUNCTION: Final = "package.module:energy"
N_READS: Final = 30
# What is asked of 100,000 entries.
SUBMIT_BUDGET_S: Final = 120.0
STATUS_BUDGET_MS: Final = 50.0


def measure(client: Client, n_entries: int, name: str = "benchmark") -> dict[str, Measurement]:
    """Return what each step took; items are entries, cells or records."""
    n_cells = n_entries * len(SPECIFICATIONS)
    found: dict[str, Measurement] = {}

    def timed(what: str) -> Measurement:
        return found.setdefault(what, Measurement())

    dataset = client.add_dataset(name)
    entries = [
        {"name": f"molecule {number}", "input": {"x": number}, "attributes": {"n": number % 10}}
        for number in range(n_entries)
    ]
    with timed("add entries").call(n_entries):
        dataset.add_entries(entries)
    for each in SPECIFICATIONS:
        dataset.add_specification(each, FUNCTION, {"method": each}, tag="benchmark")
    with timed("submit").call(n_cells):
        submitted = dataset.submit()
    if submitted.n_linked != n_cells:
        raise RuntimeError(f"{submitted.n_linked} of {n_cells} cells have a record")
    with timed("submit again, nothing missing").call(n_cells):
        dataset.submit()
    for _ in range(N_READS):
        with timed("status").call(1):
            counts = dataset.status().counts
        if counts != {"waiting": n_cells}:
            raise RuntimeError(f"the status is {counts}")
        with timed("page of 250 of its table").call(250):
            dataset.table(limit=250)
        with timed("page of 250 of its records").call(250):
            dataset.records(limit=250).all()
    with timed("cancel one specification").call(n_entries):
        dataset.cancel_records(specification="hf")
    manager_id = client.register_manager("benchmark", ["benchmark"]).manager_id
    for _ in range(N_READS):
        with timed("claim of 200 of its records").call(200):
            client.claim(manager_id, 200)
    with timed("lock a version").call(n_cells):
        dataset.lock("benchmark")
    with timed("clone with its records").call(n_cells):
        twin = dataset.clone(f"{name}, again", link_records=True)
    with timed("remove a specification").call(n_entries):
        twin.remove_specifications("mp2")
    with timed("delete").call(n_entries):
        twin.delete()
    return found


def main() -> int:
    """Run from the command line; the exit status is 1 if something took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=2_000, help="with three specifications")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="recordledger-bench-") as home,
        Supervisor(Plan(home=Path(home), port=0, workers=0)) as supervisor,
        Client(supervisor.url, supervisor.token, progress=False) as client,
    ):
        found = measure(client, given.entries)
    for name, measured in found.items():
        sys.stdout.write(
            f"{name:>32}: {measured.seconds:8.2f} s, {measured.rate:10,.0f}/s, "
            f"p50 {measured.percentile_ms(50):8.1f} ms, p99 {measured.percentile_ms(99):8.1f} ms\n"
        )
    too_slow = (
        found["submit"].seconds > SUBMIT_BUDGET_S
        or found["status"].percentile_ms(50) > STATUS_BUDGET_MS
    )
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
