"""Kill -9 everything in random order while the demo's band is computed, and judge what comes of it.

    python -m tests.acceptance.band --kills 12

A nudged elastic band is a service of some 25 iterations (ammonia by PySCF; some 90 on the surface
of Mueller and Brown). PostgreSQL, the runner, the API and the manager are killed in turn, until it
has ended. It must end with the same numbers as without a kill, because every decision is a function
of what is in the ledger, and its history must read as if nothing had happened.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Final

from recordledger import Client
from recordledger.domain.records.status import Status
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.audit import AuditReport, audit
from recordledger.projections.replay.replay import ReplayReport, check_replay
from recordledger.workers.demo.band import SERVICE, neb_specification
from recordledger.workers.supervisor import Plan, Supervisor

from .crash import kill

VICTIMS: Final = ("work", "serve", "manager", "postgres")
TIMEOUT_S: Final = 900.0


@dataclass(slots=True)
class BandReport:
    """What was done, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter[str])
    status: str = ""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    happened: Sequence[str] = ()
    history: str = ""
    n_children: int = 0
    statuses: Counter[str] = field(default_factory=Counter[str])
    audit: AuditReport = field(default_factory=AuditReport)
    replay: ReplayReport = field(default_factory=ReplayReport)

    @property
    def holds(self) -> bool:
        """Whether the band is complete, has no child too many, and the ledger is sound."""
        return (
            self.status == Status.complete
            # Ends that relax share gradients that were computed before.
            and self.n_children <= self.result["n_gradients"]
            and self.statuses == {"complete": self.n_children + 1}
            and self.audit.holds
            and self.replay.equal
        )


def band(home: Path, *, n_kills: int, seed: int, engine: str, pause_s: float) -> BandReport:
    """Compute a small band under fire; return what came of it."""
    chance = random.Random(seed)  # noqa: S311 - a seed that can be repeated is wanted
    report = BandReport()
    plan = Plan(home=home, port=0, workers=2, lease_s=4.0, heartbeat_s=0.5)
    kwargs = neb_specification(smoke=True, engine=engine).kwargs
    with Supervisor(plan) as supervisor:
        client = Client(supervisor.url, supervisor.token, retries_s=300.0, progress=False)
        with client:
            (id_,) = client.add_service(SERVICE, kwargs).ids
            assert id_ is not None
            deadline = monotonic() + TIMEOUT_S
            victims: list[str] = []
            while client.get_records(id_).status in (Status.waiting, Status.running):
                if monotonic() > deadline:
                    break
                Event().wait(chance.uniform(0.2, 2.0) * pause_s)
                if report.kills.total() < n_kills:
                    victims = victims or chance.sample(VICTIMS, len(VICTIMS))
                    report.kills[victims[-1]] += 1
                    kill(supervisor, victims.pop())
            record = client.get_records(id_, include=("result",))
            report.status = str(record.status)
            report.error = f"{record.error_type}: {record.error_message}"
            report.result = record.result or {}
            history = client.history(id_)
            report.happened = [event.kind for event in history]
            report.history = repr(history)
            report.n_children = client.service(id_).n_children
            report.statuses = Counter(
                {str(status): n for status, n in client.counts().items() if n}
            )
        ledger = Ledger(supervisor.database_url)
        try:
            report.audit = audit(ledger)
            report.replay = check_replay(ledger)
        finally:
            ledger.close()
    return report


def main() -> int:
    """Run from the command line; exit status 0 if everything held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--engine", choices=("auto", "pyscf", "scipy"), default="auto")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two, about")
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed  # noqa: S311
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    with tempfile.TemporaryDirectory(prefix="recordledger-band-") as home:
        report = band(
            Path(home), n_kills=given.kills, seed=seed, engine=given.engine, pause_s=given.pause
        )
    kills = ", ".join(f"{n} x {name}" for name, n in sorted(report.kills.items()))
    print(report.history)
    print(f"seed:       {seed}\nkilled -9:  {kills}\nstatus:     {report.status}")
    if report.status == Status.complete:
        print(f"barrier:    {report.result['barrier']:.6f}; children: {report.n_children}")
    else:
        print(report.error)
    print(f"audit:      {report.audit}")
    print("Everything held." if report.holds else "NOT everything held.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
