"""Measure the whole stack: `python -m tests.benchmarks --size 10000 --json bench.json`.

A ledger of its own is started in a temporary directory: embedded PostgreSQL with fsync on, and the
real server in a process of its own. Read the rates as ratios to the limit beside them: machines
differ.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from recordledger import Client
from recordledger.workers.supervisor import Plan, Supervisor

from . import datasets, lanes, over_http, raw_sql, services
from .measuring import Measurement, PeakMemory, end_in_order

# Architecture.md's budgets on 2 cores, items a second.
BUDGETS: Final = {
    "submit": 8_000,
    "claim": 8_000,
    "return": 5_000,
    "cycle": 2_500,
    "services": services.RATE_MIN,
    **dict.fromkeys(("cancel", "uncancel", "delete", "undelete", "reset"), 8_000),
}
# More in one call would be a job, which is another thing to measure.
MANAGED_MAX: Final = 10_000
# Entries with three specifications, enough for a job; tests.benchmarks.datasets takes more.
DATASET_MAX: Final = 2_000
LATENCY_BUDGETS: Final = {"claim of 20": "p99 < 50 ms", "dataset: status": "p50 < 50 ms"}
MEMORY_BUDGET_MB: Final = 300
N_SMALL_CLAIMS: Final = 200
N_CHILDREN: Final = 20


def measure(size: int) -> tuple[dict[str, Measurement], dict[str, Measurement], PeakMemory]:
    """Return the figures of the ledger, those of raw SQL, and the server's memory."""
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-bench-"))
        supervisor = stack.enter_context(Supervisor(Plan(home=Path(home), port=0, workers=0)))
        url, token = supervisor.url, supervisor.token
        process = supervisor.child("serve").process
        assert process is not None
        with Client(url, token, progress=False) as client, PeakMemory(process.pid) as memory:
            figures: dict[str, Measurement] = {}
            figures["submit"] = over_http.submit(client, size, "bench")
            manager_id = client.register_manager("bench", ["bench"]).manager_id
            n_small = min(N_SMALL_CLAIMS, max(1, size // 100))
            figures["claim of 20"] = over_http.small_claims(client, manager_id, n_small)
            lanes.fill(client, max(2 * lanes.N_LANES, size // 10))
            for kind, managers in lanes.kinds(lanes.N_MANAGERS, "bench").items():
                figures[f"claim of 20, {kind}"] = lanes.claims(url, token, managers, n_small)
            figures["claim"], tasks = over_http.claim(client, manager_id, size)
            figures["return"] = over_http.hand_in(client, manager_id, tasks)
            figures |= over_http.manage(client, min(size, MANAGED_MAX))
            figures["cycle"] = over_http.cycle(client, url, token, size)
            figures |= {
                f"dataset: {name}": measured
                for name, measured in datasets.measure(client, min(size, DATASET_MAX)).items()
            }
        limit = raw_sql.limits(supervisor.database_url, size)
    figures["services"] = services.run(max(5, size // 200), N_CHILDREN)
    return figures, limit, memory


def table_of(
    size: int, figures: dict[str, Measurement], limit: dict[str, Measurement], memory: PeakMemory
) -> Table:
    """Return the table that is printed."""
    table = Table(title=f"{size:,} tasks over HTTP", caption=_caption(memory))
    for title in ("work", "rate /s", "budget /s", "p50 ms", "p99 ms", "raw SQL /s"):
        table.add_column(title, justify="left" if title == "work" else "right")
    for name, measured in figures.items():
        budget, raw = BUDGETS.get(name), limit.get(name)
        table.add_row(
            name,
            f"{measured.rate:,.0f}",
            f"{budget:,}" if budget else LATENCY_BUDGETS.get(name, ""),
            f"{measured.percentile_ms(50):.1f}",
            f"{measured.percentile_ms(99):.1f}",
            f"{raw.rate:,.0f}" if raw else "",
        )
    return table


def _caption(memory: PeakMemory) -> str:
    return (
        f"server memory {memory.at_rest_mb:.0f} MB at rest, {memory.peak_mb:.0f} MB at the most "
        f"(budget {MEMORY_BUDGET_MB} MB)"
    )


def main() -> None:
    """Run from the command line."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, help="tasks")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    figures, limit, memory = measure(given.size)
    Console(width=100).print(table_of(given.size, figures, limit, memory))
    if given.json:
        summary: dict[str, object] = {
            name.replace(" ", "_"): measured.summary() for name, measured in figures.items()
        }
        summary["raw_sql"] = {name: measured.summary() for name, measured in limit.items()}
        summary["memory_mb"] = {"rest": memory.at_rest_mb, "peak": memory.peak_mb}
        summary["size"] = given.size
        given.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
