"""Many people at once: random operations in bulk on overlapping families, and nothing is lost.

    python -m tests.projections.contention --seconds 60 --people 4

Each person has a ledger, and so connections, of its own, as a server process has. At the end every
answer is compared with the log (`judging.py`), and the tables with what the log says.
`tests/api/contention.py` lets the same people come over HTTP.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from recordledger.domain.errors import CommandRefused
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.records.status import Status
from recordledger.projections.actions.bulk import order as do
from recordledger.projections.actions.bulk import undo
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.actions.services import start_service
from recordledger.projections.ledger import Ledger
from recordledger.projections.tables.schema import migrate
from tests.postgres import new_database, running_server

from .judging import Asked, Said, TakenBack, judge
from .stage import ALICE, BOB, RUNNER, Held, Stage, bad, good, staged

PEOPLES_ACTIONS = sorted(set(Action) - {Action.undo})
KNOWN_CODES = {
    "not_found",
    "transition_forbidden",
    "still_referenced",
    "nothing_to_adopt",
    "changed_since",
    "not_undoable",
    "circular_family",
    "wrong_kind",
}


class Hands(Protocol):
    """How somebody does things to records: with a ledger of its own, or over HTTP."""

    def order(self, order: OperationRequest, ids: Sequence[int]) -> Said:
        """Do something to records."""
        ...

    def undo(self, operation: UUID) -> Said:
        """Take an operation back; what was taken back is not named."""
        ...

    def claim(self, limit: int) -> tuple[int, Held]:
        """Register a manager and claim for it; return both."""
        ...

    def hand_in(self, manager_id: int, held: Mapping[int, int], *, fine: bool) -> None:
        """Return results, all good or all bad."""
        ...

    def adopt_child(self, service: int, child: int) -> str | None:
        """Let a service wait for a child, start it if need be; return the code of a refusal."""
        ...


@dataclass
class ByLedger:
    """Does things with a ledger."""

    ledger: Ledger
    stage: Stage

    def order(self, order: OperationRequest, ids: Sequence[int]) -> Said:
        ordered = do(self.ledger, order, ids, actor=ALICE, reason="contention")
        managed = ordered["managed"]
        assert managed is not None  # so few records are changed at once
        return Said(
            UUID(ordered["operation_id"]) if ordered["changed"] else None,
            updated={ids[index] for index in managed["updated_idx"]},
            refused={ids[index]: code for index, code, _ in managed["errors"]},
            new_ids=list(managed["new_ids"].values()),
        )

    def undo(self, operation: UUID) -> Said:
        undone = undo(self.ledger, operation, actor=BOB)
        refused = {id_: code for id_, code, _ in undone["conflicts"]}
        return Said(UUID(undone["operation_id"]), refused=refused, n_undone=undone["n_undone"])

    def claim(self, limit: int) -> tuple[int, Held]:
        manager_id = self.stage.manager()
        return manager_id, self.stage.claim(manager_id, limit)

    def hand_in(self, manager_id: int, held: Mapping[int, int], *, fine: bool) -> None:
        self.stage.hand_in(manager_id, held, good() if fine else bad())

    def adopt_child(self, service: int, child: int) -> str | None:
        try:
            if self.stage.statuses(service) == {service: Status.waiting}:
                start_service(self.ledger, service, runner=RUNNER)
            self.stage.adopt_children(service, [child])
        except (CommandRefused, KeyError) as refusal:
            return str(getattr(refusal, "code", "not_found"))
        return None


@dataclass
class Person:
    """Somebody who does this and that, and remembers what was answered."""

    hands: Hands
    stage: Stage
    random: random.Random
    ids: list[int]
    services: list[int]
    asked: list[Asked] = field(default_factory=list[Asked])
    taken_back: list[TakenBack] = field(default_factory=list[TakenBack])
    codes: Counter[str] = field(default_factory=Counter[str])
    n_done: Counter[str] = field(default_factory=Counter[str])

    def act_until(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            what = self.random.choices(
                [self.order, self.undo, self.compute, self.adopt_child], [10, 4, 4, 2]
            )[0]
            what()
            self.n_done[what.__name__] += 1

    def some(self) -> list[int]:
        n = self.random.choice([1, 5, 50, len(self.ids) // 2])
        return self.random.choices(self.ids, k=n)

    def order(self) -> None:
        order = OperationRequest(
            self.random.choice([*PEOPLES_ACTIONS, Action.modify]),
            tag=self.random.choice(["gpu", "cpu", "new"]),
            priority=self.random.choice(list(Priority)),
            text="hm",
            delete_children=self.random.random() < 0.5,
            propagate=self.random.random() < 0.5,
        )
        # Erasing too much would leave nobody anything to do.
        ids = self.some() if order.action is not Action.erase else self.some()[:1]
        begin = self.stage.newest()
        said = self.hands.order(order, ids)
        self.asked.append(Asked(order, frozenset(ids), said, begin, self.stage.newest()))
        self.codes.update(said.refused.values())
        self.ids += said.new_ids

    def undo(self) -> None:
        """Take back something that was done lately, an undo too."""
        done = [each.said.operation for each in self.asked[-20:] if each.said.updated]
        done += [each.said.operation for each in self.taken_back[-5:] if each.said.n_undone]
        known = [operation for operation in done if operation is not None]
        if not known:
            return
        operation = self.random.choice(known)
        said = self.hands.undo(operation)
        self.taken_back.append(TakenBack(operation, said, self.stage.newest()))
        self.codes.update(said.refused.values())

    def compute(self) -> None:
        manager_id, held = self.hands.claim(20)
        ids = list(held)
        half = {id_: held[id_] for id_ in ids[::2]}
        self.hands.hand_in(manager_id, half, fine=self.random.random() < 0.5)
        self.stage.silence(manager_id)
        self.stage.lose_silent()
        late = {id_: held[id_] for id_ in ids[1::2]}
        self.hands.hand_in(manager_id, late, fine=True)

    def adopt_child(self) -> None:
        service, child = self.random.choice(self.services), self.random.choice(self.ids)
        if code := self.hands.adopt_child(service, child):
            self.codes[code] += 1


@dataclass(frozen=True)
class Contention:
    """How long, how many, on how much, and by which chance."""

    seconds: float
    n_people: int = 4
    n_records: int = 400
    seed: int = 0


Entrance = Callable[[Stage], AbstractContextManager[Hands]]


def by_ledger(own: Stage) -> AbstractContextManager[Hands]:
    """Let somebody work with the ledger of the stage."""
    return nullcontext(ByLedger(own.ledger, own))


def contend(url: str, how: Contention, entrance: Entrance = by_ledger) -> str:
    """Let people contend on a migrated database; return what was done, or raise.

    Args:
        url: of the database.
        how: how much.
        entrance: gives somebody, who has this stage, hands.

    Raises:
        AssertionError: something was lost, or the tables are not what the log says.
    """
    with staged(url) as stage:
        n_deadlocks = stage.n_deadlocks()
        tasks, services = stage.submit(how.n_records), stage.services(10)
        deadline = time.monotonic() + how.seconds

        def be(number: int) -> Person:
            with staged(url) as own, entrance(own) as hands:
                ids = [*tasks, *services]
                chance = random.Random(how.seed + number)  # noqa: S311
                person = Person(hands, own, chance, ids, services)
                person.act_until(deadline)
                return person

        with ThreadPoolExecutor(how.n_people) as pool:
            people = list(pool.map(be, range(how.n_people)))
        judged = judge(
            stage,
            [asked for person in people for asked in person.asked],
            [undone for person in people for undone in person.taken_back],
        )
        stage.require_sound(but=["services"])  # Nobody waits for children here.
        codes, n_done = Counter[str](), Counter[str]()
        for person in people:
            codes += person.codes
            n_done += person.n_done
        assert set(codes) <= KNOWN_CODES, codes
        assert stage.n_deadlocks() == n_deadlocks
        return (
            f"{n_done.total()} requests {dict(n_done)}, {stage.head()} events, "
            f"refusals: {dict(codes)}; {judged}"
        )


def main(entrance_on: Callable[[str], AbstractContextManager[Entrance]] | None = None) -> int:
    """Run it on a fresh database, of the embedded server if no other is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    how = Contention(asked.seconds, asked.people, asked.records, asked.seed)
    with running_server() as server, new_database(server) as url:
        migrate(url)
        if entrance_on is None:
            said = contend(url, how)
        else:
            with entrance_on(url) as entrance:
                said = contend(url, how, entrance)
        sys.stdout.write(said + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
