"""Claim a few tasks from many lanes, by many managers side by side.

    python -m tests.benchmarks.lanes --tasks 1000000 --managers 200

Half of the waiting tasks are in one hot lane, the others in a thousand lanes: a lane is a tag and
the programs it needs. All managers of a kind claim at a steady pace: without pauses one would see
how long a queue of claims is, and not how long a claim takes. What they get they give back.

The same claims are then made by the ledger alone, one after the other: without HTTP, without
clients that want the same cores, and without waiting for others.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from rich.console import Console
from rich.table import Table

from recordledger import AsyncClient, Client
from recordledger.api.client import RecordSpec
from recordledger.api.schemas.claims import AttemptRef
from recordledger.projections.actions.managing import relinquish
from recordledger.workers.supervisor import Plan, Supervisor
from tests.projections.stage import BOB, Stage, staged

from .measuring import Measurement, end_in_order
from .over_http import FUNCTION, SMALL_CLAIM, submit

N_LANES: Final = 1_000
N_MANAGERS: Final = 20
CLAIMS_PER_S: Final = 20.0
HOT_TAG: Final = "hot"
PROGRAMS: Final[dict[str, str | None]] = {"alpha": "1.0", "beta": "1.0"}
LEASE_S: Final = 3_600.0
_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Ability:
    """What a manager can claim."""

    tags: tuple[str, ...]
    programs: dict[str, str | None]


def kinds(n_managers: int, hot_tag: str = HOT_TAG) -> dict[str, list[Ability]]:
    """Return the kinds of managers that are measured: all of a kind alike, or each different."""
    some = tuple(tag_of(n) for n in range(0, N_LANES, N_LANES // 50))
    names = list(PROGRAMS)
    different = [
        Ability(
            (hot_tag, tag_of(7 * n), "*")[n % 3 :],
            {names[n % 2]: "1.0", f"program-{n}": None} | (PROGRAMS if n % 5 == 0 else {}),
        )
        for n in range(n_managers)
    ]
    return {
        "hot lane": [Ability((hot_tag,), dict(PROGRAMS))] * n_managers,
        "50 tags": [Ability(some, dict(PROGRAMS))] * n_managers,
        "any tag": [Ability(("*",), dict(PROGRAMS))] * n_managers,
        "all different": different,
    }


def tag_of(lane: int) -> str:
    """Return the tag of a lane: two lanes have the same, and need different programs."""
    return f"lane-{lane // 2 % (N_LANES // 2)}"


def fill(client: Client, n_records: int) -> None:
    """Submit tasks to all lanes in turn."""
    needs = [[name] for name in PROGRAMS]
    for first in range(0, n_records, _BATCH):
        specs = [
            RecordSpec(
                function=FUNCTION,
                kwargs={"mark": f"lanes-{index}"},
                tag=tag_of(index % N_LANES),
                required_programs=needs[index % 2],
            )
            for index in range(first, min(first + _BATCH, n_records))
        ]
        added = client.add_records(specs)
        assert len(added.inserted_idx) == len(specs), added


def claims(
    url: str, token: str, managers: Sequence[Ability], n_claims: int, per_s: float = CLAIMS_PER_S
) -> Measurement:
    """Let managers claim over HTTP, so many times a second in all."""
    return asyncio.run(_claims(url, token, managers, n_claims, per_s))


async def _claims(
    url: str, token: str, managers: Sequence[Ability], n_claims: int, per_s: float
) -> Measurement:
    measured = Measurement()
    chance = random.Random(len(managers))  # noqa: S311 - the same each time
    async with AsyncClient(url, token, progress=False) as client:
        ids = [
            (
                await client.register_manager(
                    f"claimer-{n}", able.tags, able.programs, lease_s=LEASE_S
                )
            ).manager_id
            for n, able in enumerate(managers)
        ]
        # The lanes of a manager are found once, with its first claim.
        for manager_id in ids:
            await _claim(client, manager_id)
        began = perf_counter()

        async def claim_at(due: float, manager_id: int) -> None:
            await asyncio.sleep(max(0.0, began + due - perf_counter()))
            took, n_tasks = await _claim(client, manager_id)
            measured.latencies_s.append(took)
            measured.n_items += n_tasks

        # Managers know nothing of each other: their calls come at any time.
        dues = sorted(chance.uniform(0, n_claims / per_s) for _ in range(n_claims))
        turns = [claim_at(due, ids[n % len(ids)]) for n, due in enumerate(dues)]
        await asyncio.gather(*turns)
        measured.seconds = perf_counter() - began
        for manager_id in ids:
            await client.deactivate_manager(manager_id)
    return measured


async def _claim(client: AsyncClient, manager_id: int) -> tuple[float, int]:
    began = perf_counter()
    tasks = (await client.claim(manager_id, SMALL_CLAIM)).tasks
    took = perf_counter() - began
    held = [AttemptRef(record_id=task.record_id, attempt=task.attempt) for task in tasks]
    await client.relinquish(manager_id, held)
    return took, len(tasks)


def claims_alone(stage: Stage, managers: Sequence[Ability], n_claims: int) -> Measurement:
    """Let managers claim in turn, without HTTP."""
    measured = Measurement()
    ids = [stage.manager(*able.tags, programs=able.programs) for able in managers]
    for n in range(len(ids) + n_claims):
        manager_id = ids[n % len(ids)]
        began = perf_counter()
        held = stage.claim(manager_id, SMALL_CLAIM)
        took = perf_counter() - began
        relinquish(stage.ledger, manager_id, held, user=BOB)
        if n >= len(ids):  # The lanes of each manager are found once.
            measured.latencies_s.append(took)
            measured.n_items += len(held)
            measured.seconds += took
    return measured


def measure(
    n_tasks: int, n_managers: int, n_claims: int, per_s: float
) -> dict[str, tuple[Measurement, Measurement]]:
    """Return for each kind of managers how long claims take: over HTTP, and without."""
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-lanes-"))
        supervisor = stack.enter_context(Supervisor(Plan(home=Path(home), port=0, workers=0)))
        url, token = supervisor.url, supervisor.token
        with Client(url, token, progress=False) as client:
            submit(client, n_tasks // 2, HOT_TAG)
            fill(client, n_tasks - n_tasks // 2)
        of_all = kinds(n_managers)
        over_http = {
            name: claims(url, token, managers, n_claims, per_s) for name, managers in of_all.items()
        }
        stage = stack.enter_context(staged(supervisor.database_url))
        return {
            name: (over_http[name], claims_alone(stage, managers, n_claims))
            for name, managers in of_all.items()
        }


def main() -> None:
    """Run from the command line."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks that wait")
    parser.add_argument("--managers", type=int, default=N_MANAGERS, help="of each kind")
    parser.add_argument("--claims", type=int, default=200, help="by the managers of each kind")
    parser.add_argument("--per-second", type=float, default=CLAIMS_PER_S, help="claims in all")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    figures = measure(given.tasks, given.managers, given.claims, given.per_second)
    table = Table(
        title=f"claims of {SMALL_CLAIM} out of {given.tasks:,} tasks, {given.managers} managers, "
        f"{given.per_second:g} claims and as many returns a second"
    )
    for title in ("managers of", "HTTP p50 ms", "p99 ms", "ledger alone p50 ms", "p99 ms"):
        table.add_column(title, justify="left" if title == "managers of" else "right")
    for name, pair in figures.items():
        cells = [f"{each.percentile_ms(part):.1f}" for each in pair for part in (50, 99)]
        table.add_row(name, *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
