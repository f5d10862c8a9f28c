"""Service runners are killed at random moments: nothing is stuck, and nothing is done twice."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from recordledger.domain.records.status import Status
from recordledger.projections.reading.queries import counts
from tests.installed import install_services
from tests.projections.stage import Stage, staged
from tests.sizes import N_CRASH_SERVICES
from tests.workers.service_house import House

from .installation import Program

N_CHILDREN: Final = 3
N_ROUNDS: Final = 3
N_KILLS: Final = 5
LEASE_S: Final = 0.5
DEADLINE_S: Final = 60.0


class Runners:
    """Two of them, in processes of their own; whichever is killed is started again."""

    def __init__(self, url: str, site: str, stack: contextlib.ExitStack) -> None:
        lease = f"--service-lease-s={LEASE_S}"
        self._arguments = ("work", f"--database-url={url}", lease, "--no-seal")
        self._environment = {"PYTHONPATH": site}
        self._stack = stack
        self.programs = [self._start(), self._start()]

    def _start(self) -> Program:
        program = Program("work", self._arguments, self._environment)
        self._stack.callback(program.end, signal.SIGKILL)
        return program

    def kill(self, which: int) -> None:
        self.programs[which].kill()
        self.programs[which] = self._start()

    def said(self) -> str:
        return "\n".join("".join(each.lines[-20:]) for each in self.programs)


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    with staged(database_url) as made:
        yield made


def test_runners_may_be_killed_at_any_moment(stage: Stage, tmp_path: Path) -> None:
    moments = random.Random(7)  # noqa: S311 - not for secrets
    site = install_services(tmp_path / "site", {"fan": "tests.workers.invented_services:Fan"})
    house = House(stage)
    ids = [
        house.add("fan", n=N_CHILDREN, rounds=N_ROUNDS, shared=False, of=str(x))
        for x in range(N_CRASH_SERVICES)
    ]
    n_all = N_CRASH_SERVICES * (1 + N_ROUNDS * N_CHILDREN)
    with contextlib.ExitStack() as stack:
        runners = Runners(stage.url, site, stack)

        def has_grown(n_events: int) -> bool:
            house.compute(limit=moments.randint(1, 20))
            ended = counts(stage.ledger)[Status.complete] == n_all
            return ended or stage.head() >= n_events

        for _ in range(N_KILLS):
            n_events = stage.head() + moments.randint(20, 120)
            stage.wait(lambda n=n_events: has_grown(n), DEADLINE_S)  # type: ignore[misc]
            runners.kill(moments.randrange(2))
        stage.wait(lambda: has_grown(1_000_000), DEADLINE_S)
        assert {stage.status(id_) for id_ in ids} == {Status.complete}, runners.said()
    # Not one child more than was asked for, and each service's history reads as if nothing was.
    assert sum(counts(stage.ledger).values()) == n_all
    for id_ in ids:
        assert stage.topics(id_) == [
            "created",
            "service_started",
            *["service_iterated"] * N_ROUNDS,
            "completed",
        ]
    stage.require_equal()
