"""Services of many no-op tasks each, through the whole stack: server, runner, manager, workers.

python -m tests.benchmarks.services --services 1000 --children 20
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from recordledger import Client
from recordledger.domain.specs.service import Child, Done, Now, Service, Step, Wait
from recordledger.workers.supervisor import Plan, Supervisor
from tests.installed import install_services

from .measuring import Measurement

RATE_MIN: Final = 500
"""Tasks a second on 2 cores, with everything else that a service takes."""
ROOT: Final = Path(__file__).parents[2]
TIMEOUT_S: Final = 600.0
_TICK_S: Final = 0.05


class ManySpec(BaseModel):
    """How many tasks. `of` tells one service from another."""

    n: int
    of: int


class Many(Service[ManySpec, ManySpec]):
    """Asks for tasks that do nothing, and ends when they have."""

    name = "many"
    version = "1"
    Spec = ManySpec
    State = ManySpec

    def start(self, spec: ManySpec, now: Now) -> Step[ManySpec]:
        """Ask for them."""
        return Wait(spec, {str(x): Child("noop", find_existing=False) for x in range(spec.n)})

    def advance(self, spec: ManySpec, state: ManySpec, now: Now) -> Step[ManySpec]:
        """End."""
        return Done(len(now.ended))


@contextmanager
def installed() -> Generator[None]:
    """Let processes that are started meanwhile have the service."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="recordledger-services-") as folder:
        target = {"many": "tests.benchmarks.services:Many"}
        paths = [install_services(Path(folder) / "site", target), str(ROOT), before or ""]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        try:
            yield
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def measure(client: Client, n_services: int, n_children: int) -> Measurement:
    """Return how fast the tasks of so many services are done, from submission to the last end."""
    measured = Measurement()
    n_before = client.counts()["complete"]
    with measured.call(n_services * n_children):
        kwargs = [{"n": n_children, "of": of} for of in range(n_services)]
        client.add_service("many", kwargs, find_existing=False)
        deadline = time.monotonic() + TIMEOUT_S
        while client.counts()["complete"] < n_before + n_services * (n_children + 1):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the services have not ended: {client.counts()}")
            time.sleep(_TICK_S)
    return measured


def run(n_services: int, n_children: int, workers: int = 2) -> Measurement:
    """Measure a ledger of its own."""
    with ExitStack() as stack:
        stack.enter_context(installed())
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-bench-"))
        plan = Plan(home=Path(home), port=0, workers=workers)
        supervisor = stack.enter_context(Supervisor(plan))
        client = Client(supervisor.url, supervisor.token, progress=False)
        stack.enter_context(client)
        measure(client, workers, 10)  # until all processes have begun
        return measure(client, n_services, n_children)


def main() -> int:
    """Measure; the exit status is 1 if the rate is too low."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--children", type=int, default=20)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    measured = run(given.services, given.children)
    sys.stdout.write(
        f"{given.services:,} services of {given.children} tasks: {measured.rate:,.0f} tasks/s, "
        f"{measured.seconds:.1f} s\n"
    )
    return int(measured.rate < RATE_MIN)


if __name__ == "__main__":
    sys.exit(main())
