"""Forge a sealed log in every way, and prove that each forgery is found; verify many receipts.

    python -m tests.acceptance.forgery --events 1000 --receipts 10000

One ledger is forged: so many times a random bit of a random event is flipped, and so many times an
event is left out, swapped with another, inserted, or the log is cut off; each time the whole log is
verified, and put back. Then history is rewritten with all its hashes and signatures, by who has
the key. Another ledger gives receipts, which our verifier checks, and one that was written from the
specifications alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Final

from recordledger.domain.records.actions import Action
from recordledger.projections.proof.receipts import make_receipt, verify_receipt
from recordledger.projections.proof.verification import verify_log
from recordledger.projections.tables.schema import migrate
from recordledger.workers.jobs.sealing import Sealer, read_checkpoints
from tests import independent
from tests.postgres import new_database, running_server
from tests.projections.forger import Forger
from tests.projections.stage import Stage, good, staged

FORGERIES: Final = ("flip", "drop", "swap", "insert", "truncate")
_BATCH: Final = 500


@dataclass(slots=True)
class ForgeryReport:
    """What was tried, and what was found."""

    n_events: int = 0
    tried: Counter[str] = field(default_factory=Counter[str])
    missed: list[str] = field(default_factory=list[str])
    n_receipts: int = 0
    refused: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def holds(self) -> bool:
        """Whether every forgery was found, and every receipt verified."""
        return not self.missed and not self.refused and self.n_receipts > 0

    def __str__(self) -> str:
        """Return a few readable lines."""
        tried = ", ".join(f"{n} x {name}" for name, n in self.tried.items())
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return "\n".join(
            [
                f"log:       {self.n_events} events",
                f"forged:    {tried}; not found: {self.missed}",
                f"receipts:  {self.n_receipts} verified by both verifiers; not: {self.refused}",
                f"took:      {took}",
            ]
        )


def forge(
    server_url: str, home: Path, *, n_events: int, n_receipts: int, seed: int
) -> ForgeryReport:
    """Forge and verify on databases of a server; return what came of it."""
    report = ForgeryReport()
    with _sealed(server_url, home / "forged", n_events) as (stage, sealer):
        report.n_events = stage.head()
        _forge_each(stage, report, n_events, random.Random(seed))  # noqa: S311
        _rewrite(stage, sealer, report, home / "forged" / "checkpoints")
    with _sealed(server_url, home / "honest", n_receipts) as (stage, sealer):
        _verify_receipts(stage, str(sealer.key().verifier), report, n_receipts)
    return report


@contextmanager
def _sealed(server_url: str, home: Path, n_records: int) -> Generator[tuple[Stage, Sealer]]:
    """Give a ledger with so many records, a part of them done, that is sealed now and then."""
    with new_database(server_url) as url:
        migrate(url)
        with staged(url) as stage:
            sealer = Sealer(stage.ledger, home=home, checkpoint_dir=home / "checkpoints")
            manager_id = stage.manager()
            for first in range(0, n_records, _BATCH):
                ids = stage.submit(min(_BATCH, n_records - first))
                sealer.run(Event())
                held = stage.claim(manager_id, len(ids) // 2)
                stage.hand_in(manager_id, held, good())
                stage.order(Action.comment, ids[-1], text="a remark")
            sealer.run(Event())
            yield stage, sealer


def _forge_each(stage: Stage, report: ForgeryReport, n: int, chance: random.Random) -> None:
    forger = Forger(stage.url, chance)
    for forgery in FORGERIES:
        began = perf_counter()
        for _ in range(n):
            report.tried[forgery] += 1
            with ExitStack() as undo:
                told = getattr(forger, forgery)(undo)
                if verify_log(stage.ledger).holds:
                    report.missed.append(told)
        report.seconds[forgery] = perf_counter() - began
    if not verify_log(stage.ledger).holds:
        report.missed.append("it was not put back as it was")


def _rewrite(stage: Stage, sealer: Sealer, report: ForgeryReport, kept: Path) -> None:
    """Rewrite all of history, with the key; only what is kept elsewhere can tell."""
    checkpoints = read_checkpoints(kept)
    keys = [sealer.key().verifier]
    if not verify_log(stage.ledger, keys=keys, checkpoints=checkpoints).holds:
        report.missed.append("the checkpoints do not fit what was not forged")
    Forger(stage.url).rewrite(sealer.key())
    if not verify_log(stage.ledger, keys=keys).holds:
        report.missed.append("the forger has not rewritten history well")
    for name, checkpoint in checkpoints.items():
        report.tried["rewritten, one checkpoint kept"] += 1
        if verify_log(stage.ledger, keys=keys, checkpoints={name: checkpoint}).holds:
            report.missed.append(f"rewritten, and {name} kept")


def _verify_receipts(stage: Stage, key: str, report: ForgeryReport, n: int) -> None:
    seconds = report.seconds
    for record_id in range(1, n + 1):
        began = perf_counter()
        text = make_receipt(stage.ledger, record_id)
        made = perf_counter()
        try:
            found = verify_receipt(text, key=key)
            ours = perf_counter()
            agrees = independent.verify(text, key) == (record_id, found.n_events)
        except Exception as error:
            report.refused.append(f"{record_id}: {error}")
            continue
        if found.record_id != record_id or not agrees:
            report.refused.append(f"{record_id}: the verifiers do not agree")
            continue
        report.n_receipts += 1
        seconds["receipts made"] = seconds.get("receipts made", 0) + made - began
        seconds["receipts verified"] = seconds.get("receipts verified", 0) + ours - made


def main() -> int:
    """Run from the command line; exit status 0 if everything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100, help="forgeries of each kind")
    parser.add_argument("--receipts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed  # noqa: S311
    with (
        tempfile.TemporaryDirectory(prefix="recordledger-forgery-") as home,
        running_server() as url,
    ):
        report = forge(url, Path(home), n_events=given.events, n_receipts=given.receipts, seed=seed)
    print(f"seed:      {seed}")
    print(report)
    print("Everything was found." if report.holds else "NOT everything was found.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
