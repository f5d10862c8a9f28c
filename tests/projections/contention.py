"""Many people at once: random operations in bulk on overlapping sets, and nothing is lost.

    python -m tests.projections.contention --seconds 60 --people 4

Each person has a ledger, and so connections, of its own, as a server process has. At the end every
change that was answered stands in the log, and the tables are what the log says.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from recordledger.domain.errors import CommandRefused
from recordledger.domain.events import Priority
from recordledger.domain.propagation import Action
from recordledger.domain.status import Status
from recordledger.projections.bulk import undo
from recordledger.projections.ledger import Ledger
from recordledger.projections.management import Order, manage
from recordledger.projections.schema import migrate
from recordledger.projections.services import start_service
from tests.postgres import new_database, running_server

from .stage import ALICE, BOB, RUNNER, Stage, bad, good, staged

PEOPLES_ACTIONS = sorted(set(Action) - {Action.undo})
KNOWN_CODES = {
    "not_found",
    "transition_forbidden",
    "still_referenced",
    "nothing_to_adopt",
    "changed_since",
    "not_undoable",
}


@dataclass
class Person:
    """Somebody who does this and that, and remembers what was answered."""

    ledger: Ledger
    stage: Stage
    random: random.Random
    ids: list[int]
    services: list[int]
    changed: dict[UUID, set[int]] = field(default_factory=dict[UUID, set[int]])
    codes: Counter[str] = field(default_factory=Counter[str])
    n_done: int = 0

    def act_until(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            self.random.choices(
                [self.order, self.undo, self.compute, self.adopt_child], [10, 3, 4, 2]
            )[0]()
            self.n_done += 1

    def some(self) -> list[int]:
        n = self.random.choice([1, 5, 50, len(self.ids) // 2])
        return self.random.choices(self.ids, k=n)

    def order(self) -> None:
        order = Order(
            self.random.choice(PEOPLES_ACTIONS),
            tag=self.random.choice(["gpu", "cpu", "new"]),
            priority=self.random.choice(list(Priority)),
            text="hm",
            delete_children=self.random.random() < 0.5,
            propagate=self.random.random() < 0.5,
        )
        # Erasing too much would leave nobody anything to do.
        ids = self.some() if order.action is not Action.erase else self.some()[:1]
        managed = manage(self.ledger, order, ids, actor=ALICE, reason="contention")
        self.codes.update(code for _, code, _ in managed["errors"])
        if order.action is not Action.modify:  # it may be what it was already
            operation = UUID(managed["operation_id"])
            self.changed[operation] = {ids[index] for index in managed["updated_idx"]}
        self.ids += managed["new_ids"].values()

    def undo(self) -> None:
        done = [operation for operation, ids in self.changed.items() if ids]
        if not done:
            return
        undone = undo(self.ledger, self.random.choice(done[-20:]), actor=BOB)
        self.codes.update(code for _, code, _ in undone["conflicts"])
        self.n_undone = undone["n_undone"]

    def compute(self) -> None:
        manager_id = self.stage.manager()
        held = self.stage.claim(manager_id, 20)
        ids = list(held)
        half = {id_: held[id_] for id_ in ids[::2]}
        self.stage.hand_in(manager_id, half, self.random.choice([good(), bad()]))
        self.stage.silence(manager_id)
        self.stage.lose_silent()
        late = {id_: held[id_] for id_ in ids[1::2]}
        self.stage.hand_in(manager_id, late)

    def adopt_child(self) -> None:
        service, child = self.random.choice(self.services), self.random.choice(self.ids)
        try:
            if self.stage.statuses(service) == {service: Status.waiting}:
                start_service(self.ledger, service, runner=RUNNER)
            self.stage.adopt_children(service, [child])
        except (CommandRefused, KeyError) as refusal:
            self.codes[getattr(refusal, "code", "not_found")] += 1


def contend(url: str, *, seconds: float, n_people: int, n_records: int, seed: int) -> str:
    """Let people contend on a migrated database; return what was done, or raise.

    Raises:
        AssertionError: something was lost, or the tables are not what the log says.
    """
    with staged(url) as stage:
        tasks, services = stage.submit(n_records), stage.services(10)
        deadline = time.monotonic() + seconds

        def be(number: int) -> Person:
            with staged(url) as own:
                ids = [*tasks, *services]
                chance = random.Random(seed + number)  # noqa: S311
                person = Person(own.ledger, own, chance, ids, services)
                person.act_until(deadline)
                return person

        with ThreadPoolExecutor(n_people) as pool:
            people = list(pool.map(be, range(n_people)))
        logged: dict[UUID, set[int]] = {}
        for operation, record_id in stage.ask(
            "SELECT operation_id, record_id FROM operation_changes"
        ):
            logged.setdefault(operation, set()).add(record_id)
        codes: Counter[str] = Counter()
        for person in people:
            codes += person.codes
            for operation, ids in person.changed.items():
                assert ids <= logged.get(operation, set()), "an answered change is not in the log"
        assert set(codes) <= KNOWN_CODES | {"circular_family", "wrong_kind"}, codes
        stage.require_sound(but=["services"])  # Nobody waits for children here.
        n_done = sum(person.n_done for person in people)
        return f"{n_done} requests, {stage.head()} events, refusals: {dict(codes)}"


def main() -> int:
    """Run it on a fresh database, of the embedded server if no other is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with running_server() as server, new_database(server) as url:
        migrate(url)
        said = contend(
            url,
            seconds=asked.seconds,
            n_people=asked.people,
            n_records=asked.records,
            seed=asked.seed,
        )
        sys.stdout.write(said + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
