"""Managing 10,000 records at a time: cancel, uncancel, reset, soft delete and undelete.

`measure` takes whatever does these things (the ledger itself, or a client), so that the same rows
are measured at every level. By itself it measures the ledger:

    python -m tests.benchmarks.managing
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from recordledger.domain.records.actions import Action
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.tables.schema import migrate
from tests.postgres import new_database, running_server
from tests.projections.stage import ALICE, Stage, bad, staged

from .measuring import end_in_order

N_RECORDS: Final = 10_000
RATE_MIN: Final = 8_000
ACTIONS: Final = (
    Action.cancel,
    Action.uncancel,
    Action.delete,
    Action.undelete,
    Action.reset,
)

# Does something to records, and returns how many were changed.
Manage = Callable[[Action, Sequence[int]], int]


def measure(manage_records: Manage, ids: Sequence[int]) -> dict[str, float]:
    """Return records a second by action, for records that are in error."""
    rates: dict[str, float] = {}
    for action in ACTIONS:
        begin = time.perf_counter()
        n_changed = manage_records(action, ids)
        rates[str(action)] = len(ids) / (time.perf_counter() - begin)
        if n_changed != len(ids):
            raise RuntimeError(f"{action} changed {n_changed} of {len(ids)} records")
    return rates


def errored(stage: Stage, n: int) -> list[int]:
    """Return so many records that are in error."""
    ids = [id_ for start in range(0, n, 1_000) for id_ in stage.submit(min(1_000, n - start))]
    manager_id = stage.manager()
    for _ in range(0, n, 1_000):
        stage.hand_in(manager_id, stage.claim(manager_id, 1_000), bad())
    return ids


def at_once(stage: Stage) -> Manage:
    """Return what does it in the ledger itself, without a server."""

    def work(action: Action, ids: Sequence[int]) -> int:
        return len(manage(stage.ledger, OperationRequest(action), ids, actor=ALICE)["updated_idx"])

    return work


def main() -> int:
    """Measure the ledger; the exit status is 1 if a rate is too low."""
    end_in_order()
    with running_server() as server, new_database(server) as url:
        migrate(url)
        with staged(url) as stage:
            rates = measure(at_once(stage), errored(stage, N_RECORDS))
    for action, rate in rates.items():
        sys.stdout.write(f"{action:>12}: {rate:8,.0f} records/s\n")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{'memory':>12}: {peak_mb:8,.0f} MB at most\n")
    return int(min(rates.values()) < RATE_MIN)


if __name__ == "__main__":
    sys.exit(main())
