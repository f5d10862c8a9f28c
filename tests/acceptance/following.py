"""Kill a follower again and again while others write, and prove that it has seen each event once.

    python -m tests.acceptance.following --events 100000 --kills 50

The follower is `recordledger events --follow --json`, which appends to a file. After a kill it is
started again after the last whole line of that file, as its manual says. Four writers submit and
cancel records over HTTP meanwhile. At the end the file must have every event of the log that is
told, in order, once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Final

from recordledger import Client
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.reading.event_log import HIDDEN
from recordledger.projections.reading.queries import head
from recordledger.projections.tables.schema import migrate
from tests.postgres import new_database, running_server

from .installation import CLI, ROOT, Installation

N_WRITERS: Final = 4
_BATCH: Final = 25
_PATIENCE_S: Final = 120.0


@dataclass(slots=True)
class FollowReport:
    """What the log has, what the follower has seen, and how often it was killed."""

    n_kills: int = 0
    logged: list[int] = field(default_factory=list[int])
    seen: list[int] = field(default_factory=list[int])
    n_torn: int = 0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether each event was seen once, in order."""
        return bool(self.seen) and self.seen == self.logged

    def __str__(self) -> str:
        """Return a few readable lines."""
        missed = len(set(self.logged) - set(self.seen))
        twice = len(self.seen) - len(set(self.seen))
        return (
            f"events:  {len(self.logged)} told by the log, {len(self.seen)} seen in order: "
            f"{self.seen == sorted(self.seen)}, {missed} missed, {twice} seen again\n"
            f"kills:   {self.n_kills}, of which {self.n_torn} tore a line\n"
            f"took:    {self.seconds:.1f} s"
        )


class Follower:
    """The command, and the file that it appends to."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.path = path
        self.path.touch()
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.n_torn = 0

    def start(self) -> None:
        """Go on after the last whole line; what a kill has torn is taken off."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self.n_torn += 1
            os.truncate(self.path, len(whole))
        last = whole.splitlines()[-1:]
        after = json.loads(last[0])["position"] if last else 0
        with self.path.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603
                [*CLI, "events", "--follow", "--json", f"--after={after}"],
                stdout=file,
                env=self._environment,
            )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            with self._process as process:
                process.send_signal(signal.SIGKILL)

    def last(self) -> int:
        """Return the newest position that is in the file."""
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65_536))
            lines = file.read().split(b"\n")[:-1]
        try:
            return int(json.loads(lines[-1])["position"]) if lines else 0
        except ValueError:
            return 0

    def seen(self) -> list[int]:
        """Return all positions in the file, in its order."""
        with self.path.open("rb") as file:
            return [json.loads(line)["position"] for line in file]


def follow(
    database_url: str, folder: Path, *, n_events: int, n_kills: int, seed: int
) -> FollowReport:
    """Write, follow and kill on an empty database; return what came of it."""
    report, chance, began = FollowReport(), random.Random(seed), monotonic()  # noqa: S311
    stop = Event()
    with ExitStack() as stack:
        place = Installation(database_url, stack)
        token = issue_token(place.ledger, "ben", Role.admin).secret
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RECORDLEDGER_")}
        environment |= {
            "RECORDLEDGER_URL": place.url,
            "RECORDLEDGER_TOKEN": token,
            "PYTHONPATH": str(ROOT),
        }
        follower = Follower(folder / "events.jsonl", environment)
        stack.callback(follower.kill)
        writers = [
            Thread(target=_write, args=(place.url, token, number, stop), daemon=True)
            for number in range(N_WRITERS)
        ]
        stack.callback(stop.set)
        for writer in writers:
            writer.start()
        follower.start()
        for kill in range(1, n_kills + 1):
            # It has seen something since it was started, and is in the midst of more.
            next_kill = n_events * kill // (n_kills + 1)
            _until(lambda position=next_kill: follower.last() >= position, stop)  # type: ignore[misc]
            stop.wait(chance.uniform(0.0, 0.1))
            follower.kill()
            report.n_kills += 1
            follower.start()
        _until(lambda: head(place.ledger) >= n_events, stop)
        stop.set()
        for writer in writers:
            writer.join()
        with place.ledger.datastore.reading() as db:
            rows = db.execute(
                "SELECT notification_id FROM ledger_events WHERE topic <> ALL(%s) ORDER BY 1",
                (list(HIDDEN),),
            )
            report.logged = [row[0] for row in rows]
        _until(lambda: follower.last() >= report.logged[-1], Event())
        follower.kill()
        report.seen = follower.seen()
        report.n_torn = follower.n_torn
    report.seconds = monotonic() - began
    return report


def _write(url: str, token: str, number: int, stop: Event) -> None:
    with Client(url, token, progress=False) as client:
        n_batches = 0
        while not stop.is_set():
            n_batches += 1
            kwargs = [{"writer": number, "batch": n_batches, "n": n} for n in range(_BATCH)]
            ids = client.add_records("noop", kwargs, tag="nobody", find_existing=False).ids
            client.cancel_records([id_ for id_ in ids if id_ is not None])


def _until(is_so: Callable[[], bool], stop: Event) -> None:
    deadline = monotonic() + _PATIENCE_S
    while not is_so():
        if monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE_S} s")
        stop.wait(0.02)


def main() -> int:
    """Run from the command line; exit status 0 if each event was seen once, in order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed  # noqa: S311
    with (
        tempfile.TemporaryDirectory(prefix="recordledger-following-") as folder,
        running_server() as server_url,
        new_database(server_url) as url,
    ):
        migrate(url)
        report = follow(url, Path(folder), n_events=given.events, n_kills=given.kills, seed=seed)
    print(f"seed:    {seed}")
    print(report)
    print("Each event was seen once." if report.holds else "NOT each event was seen once.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
