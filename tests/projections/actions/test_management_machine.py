"""People and managers do anything to any family: a simple model and the live ledger must agree.

The model is a pile of cards for each record (`Pile`), what came of each of its attempts (`Try`), a
list of relations, and for each operation what it did to whom. It shares no code with the ledger but
the names of statuses and actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from recordledger.domain.errors import CircularFamily, OperationNotFound
from recordledger.domain.records.actions import Action
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.events import Kind, Priority, ResultAdopted
from recordledger.domain.records.status import Status
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.reading.queries import get_records
from tests.domain.records.test_propagation import naive
from tests.domain.specification import ROWS
from tests.sizes import N_MANAGEMENT_RUNS, N_MANAGEMENT_STEPS

from ..invariants import violations
from ..stage import ALICE, Stage, bad, good

# What people do, the event by which the specification's table names it, and where it leads.
EVENTS = {
    Action.reset: "reset",
    Action.cancel: "cancelled",
    Action.uncancel: "uncancelled",
    Action.delete: "soft_deleted",
    Action.undelete: "undeleted",
    Action.invalidate: "invalidated",
    Action.uninvalidate: "uninvalidated",
    Action.hold: "held",
    Action.release: "released",
    Action.fail: "failed",
    Action.revive: "revived",
    Action.modify: "rerouted",
    Action.comment: "commented",
    Action.erase: "erased",
    Action.resubmit: "resubmitted",
    Action.adopt: "result_adopted",
}
RESTORING = {
    Action.uncancel: "cancelled",
    Action.undelete: "soft_deleted",
    Action.uninvalidate: "invalidated",
}
FAMILIAL = {
    Action.cancel,
    Action.delete,
    Action.erase,
    Action.invalidate,
    Action.reset,
    Action.modify,
}
# What was said, computed, made or destroyed stays so.
LASTING = {"commented", "erased", "resubmitted", "created"}
# What does not stand in the way of taking back what was done before it.
HARMLESS = {"commented", "resubmitted"}
TABLE = {(status, event.topic): target for (status, event), target in ROWS.items()}

NUMBERS = st.integers(0, 10_000)
SOME = st.lists(NUMBERS, min_size=1, max_size=5)
ORDERS = st.builds(
    OperationRequest,
    st.sampled_from(sorted(EVENTS)),
    tag=st.sampled_from("ab"),
    priority=st.sampled_from(Priority),
    text=st.just("hm"),
    attempt=st.none() | st.integers(1, 3),
    delete_children=st.booleans(),
    propagate=st.booleans(),
)


@dataclass(frozen=True)
class Pile:
    """What a record is (the last card) and what it was; an erased one has no cards."""

    cards: tuple[str, ...]
    kind: Kind
    tag: str
    priority: Priority
    outcome: str | None = None
    holder: int | None = None

    @property
    def status(self) -> str:
        return self.cards[-1] if self.cards else "(none)"

    def but(self, **changes: Any) -> Pile:
        return Pile(**{**vars(self), **changes})

    def with_top(self, top: str, **changes: Any) -> Pile:
        return self.but(cards=(*self.cards[:-1], top), **changes)

    def after(self, event: str, tag: str, priority: Priority) -> Pile:
        """Return the pile after an event that people cause."""
        target = TABLE[self.status, event]
        if event == "erased":
            return self.but(cards=())
        if event == "rerouted":
            return self.but(tag=tag, priority=priority)
        if target == "unchanged":
            return self
        if target == "what it was":
            return self.but(cards=self.cards[:-1])
        if event in ("cancelled", "soft_deleted"):
            return self.back().but(cards=(*self.back().cards, target))
        if event == "result_adopted":
            return self.with_top(target, outcome=target, holder=None)
        outcome = None if event in ("reset", "revived") else self.outcome
        holder = None if event in ("reset", "revived") else self.holder
        return self.with_top(target, outcome=outcome, holder=holder)

    def back(self) -> Pile:
        """Return what comes back: a lost attempt does not resume."""
        return self.with_top("waiting", holder=None) if self.status == "running" else self


@dataclass
class Try:
    """An attempt: who had it, and what came of it: accepted, late good, late bad or nothing."""

    manager_id: int
    answer: str | None = None


@dataclass
class Done:
    """What an operation did: whom it changed, what they were, and how often they had changed."""

    action: Action
    before: dict[int, Pile] = field(default_factory=dict[int, Pile])
    count: dict[int, int] = field(default_factory=dict[int, int])
    event: dict[int, str] = field(default_factory=dict[int, str])
    harmless: set[int] = field(default_factory=set[int])


class Management(RuleBasedStateMachine):
    """The rules. One ledger serves all runs; each has records and tags of its own."""

    stage: Stage
    n_runs = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).n_runs += 1
        self.run = self.n_runs
        self.tags = [f"run{self.run}a", f"run{self.run}b"]
        self.piles: dict[int, Pile] = {}
        self.counts: dict[int, int] = {}
        self.edges: list[tuple[int, int]] = []
        self.operations: dict[UUID, Done] = {}
        # All that a manager was ever given; it may return any of it at any time, and again.
        self.held: dict[int, dict[int, int]] = {}
        self.lost: set[int] = set()
        self.tries: dict[int, dict[int, Try]] = {}

    # Helpers

    def pick(self, numbers: Iterable[int]) -> list[int]:
        ids = sorted(self.piles)
        return [ids[number % len(ids)] for number in numbers] if ids else []

    def change(self, record_id: int, pile: Pile) -> None:
        self.piles[record_id] = pile
        self.counts[record_id] = self.counts.get(record_id, 0) + 1

    def there(self) -> dict[int, Status]:
        return {id_: Status(pile.status) for id_, pile in self.piles.items() if pile.cards}

    def parents(self, record_id: int) -> list[int]:
        return [parent for parent, child in self.edges if child == record_id]

    def reach(self, ids: Iterable[int], *, up: bool) -> set[int]:
        found: set[int] = set()
        todo = list(ids)
        while todo:
            id_ = todo.pop()
            for parent, child in self.edges:
                here, there = (child, parent) if up else (parent, child)
                if here == id_ and there not in found:
                    found.add(there)
                    todo.append(there)
        return found

    def queue(self) -> list[int]:
        """Return who may be claimed, in the order of claiming by a manager of both tags."""
        return sorted(
            (
                id_
                for id_, pile in self.piles.items()
                if pile.status == "waiting" and pile.kind is Kind.task
            ),
            key=lambda id_: (
                self.tags.index(self.piles[id_].tag),
                -self.piles[id_].priority,
                id_,
            ),
        )

    # What managers and services do

    @initialize()
    def begin(self) -> None:
        """Begin with a family, of which one runs and one is in error, both with late results."""
        self.submit(n=4, tag=0, priority=Priority.normal)
        self.start_service(children=[0, 1])
        self.claim(n=2)
        self.fall_silent(which=0)
        self.claim(n=3)
        self.hand_in(which=0, fine=True, parts=2)  # while another manager has the same records
        self.hand_in(which=1, fine=False, parts=0)
        assert [pile.status for pile in self.piles.values()] == [
            *("running", "error", "error", "waiting"),
            "running",
        ]
        assert self.ready_for(Action.adopt) == sorted(self.piles)[:2]

    @rule(n=st.integers(1, 4), tag=NUMBERS, priority=st.sampled_from(Priority))
    def submit(self, n: int, tag: int, priority: Priority) -> None:
        name = self.tags[tag % 2]
        for id_ in self.stage.submit(n, tag=name, priority=priority):
            self.change(id_, Pile(("waiting",), Kind.task, name, priority))

    @rule(children=SOME)
    def start_service(self, children: list[int]) -> None:
        chosen = [id_ for id_ in dict.fromkeys(self.pick(children)) if self.piles[id_].cards]
        service = self.stage.service(*chosen, tag=self.tags[0])
        self.change(service, Pile(("running",), Kind.service, self.tags[0], Priority.normal))
        self.edges += [(service, child) for child in chosen]

    @precondition(lambda self: self.edges)
    @rule(which=NUMBERS, child=NUMBERS)
    def ask_for_another_child(self, which: int, child: int) -> None:
        services = [
            id_
            for id_, pile in self.piles.items()
            if pile.kind is Kind.service and pile.status in ("waiting", "running")
        ]
        if not services:
            return
        parent = services[which % len(services)]
        [wanted] = self.pick([child])
        if not self.piles[wanted].cards:
            return
        starts = self.piles[parent].status == "waiting"
        if wanted in {parent, *self.reach([parent], up=True)}:
            with pytest.raises(CircularFamily):
                self.stage.adopt_children(parent, [wanted])
        else:
            self.stage.adopt_children(parent, [wanted])
            if (parent, wanted) not in self.edges:
                self.edges.append((parent, wanted))
            self.change(parent, self.piles[parent])
        if starts:
            self.change(parent, self.piles[parent].with_top("running"))

    @rule(n=st.integers(1, 3))
    def claim(self, n: int) -> None:
        manager_id = self.stage.manager(*self.tags)
        held = self.stage.claim(manager_id, n)
        assert list(held) == self.queue()[:n]
        self.held[manager_id] = held
        for id_, attempt in held.items():
            self.change(id_, self.piles[id_].with_top("running", holder=manager_id))
            tries = self.tries.setdefault(id_, {})
            tries[attempt] = Try(manager_id)
            assert list(tries) == list(range(1, attempt + 1))

    @precondition(lambda self: self.held)
    @rule(which=NUMBERS, fine=st.booleans(), parts=NUMBERS)
    def hand_in(self, which: int, fine: bool, parts: int) -> None:
        """Return some of what a manager was ever given, lost or not, in time or not."""
        managers = sorted(self.held)
        manager_id = managers[which % len(managers)]
        everything = self.held[manager_id]
        held = {id_: n for i, (id_, n) in enumerate(everything.items()) if parts % 3 != i % 3}
        answer = self.stage.hand_in(manager_id, held, good() if fine else bad())
        expected: dict[str, list[int]] = {"accepted": [], "late": [], "duplicate": [], "gone": []}
        for index, (id_, attempt) in enumerate(held.items()):
            expected[self.became_of(manager_id, id_, attempt, fine=fine)].append(index)
        assert answer["accepted_idx"] == expected["accepted"]
        assert answer["late_idx"] == expected["late"]
        assert answer["duplicate_idx"] == expected["duplicate"]
        errors = [(index, code) for index, code, _ in answer["errors"]]
        assert errors == [(index, "not_found") for index in expected["gone"]]

    def became_of(self, manager_id: int, id_: int, attempt: int, *, fine: bool) -> str:
        """Let a result come; return whether it is accepted, late, a duplicate, or for nobody."""
        pile, tried = self.piles[id_], self.tries[id_][attempt]
        if not pile.cards:
            return "gone"
        if pile.status == "running" and pile.holder == manager_id:
            top = "complete" if fine else "error"
            self.change(id_, pile.with_top(top, outcome=top))
            tried.answer = "accepted"
            return "accepted"
        if tried.answer is not None:
            return "duplicate"
        tried.answer = "late good" if fine else "late bad"
        return "late"

    @precondition(lambda self: self.held.keys() - self.lost)
    @rule(which=NUMBERS)
    def fall_silent(self, which: int) -> None:
        managers = sorted(self.held.keys() - self.lost)
        manager_id = managers[which % len(managers)]
        self.lost.add(manager_id)
        self.stage.silence(manager_id)
        self.stage.lose_silent()
        for id_, pile in self.piles.items():
            if pile.status == "running" and pile.holder == manager_id:
                self.change(id_, pile.back())

    @rule(which=NUMBERS, fine=st.booleans())
    def finish_service(self, which: int, fine: bool) -> None:
        running = [
            id_
            for id_, pile in self.piles.items()
            if pile.kind is Kind.service and pile.status == "running"
        ]
        if running:
            id_ = running[which % len(running)]
            self.stage.finish(id_, good() if fine else bad())
            top = "complete" if fine else "error"
            self.change(id_, self.piles[id_].with_top(top, outcome=top))

    # What people do

    @precondition(lambda self: self.piles)
    @rule(order=ORDERS, numbers=SOME)
    def order(self, order: OperationRequest, numbers: list[int]) -> None:
        """Order anything, which most records refuse."""
        self.carry_out(order, self.pick(numbers))

    @precondition(lambda self: self.there())
    @rule(order=ORDERS, wish=NUMBERS, numbers=SOME)
    def order_what_is_possible(
        self, order: OperationRequest, wish: int, numbers: list[int]
    ) -> None:
        """Order something as somebody does who has seen what the records are."""
        self.carry_out(*self.possible(order, wish, numbers))

    @precondition(lambda self: self.there())
    @rule(order=ORDERS, wish=NUMBERS, numbers=SOME)
    def order_and_think_better_of_it(
        self, order: OperationRequest, wish: int, numbers: list[int]
    ) -> None:
        before = self.stage.image()
        operation = self.carry_out(*self.possible(order, wish, numbers))
        done = self.operations[operation]
        self.take_back(operation)
        stopped = any(pile.status == "running" for pile in done.before.values())
        if not stopped and not LASTING.intersection(done.event.values()):
            assert self.stage.image() == before

    def possible(
        self, order: OperationRequest, wish: int, numbers: list[int]
    ) -> tuple[OperationRequest, list[int]]:
        """Return an order, and records that do not refuse it. Erasing would end too many lives."""
        ready = {
            action: ids
            for action in sorted(EVENTS.keys() - {Action.erase})
            if (ids := self.ready_for(action))
        }
        action = list(ready)[wish % len(ready)]
        ids = [ready[action][number % len(ready[action])] for number in numbers]
        return replace(order, action=action, attempt=None), ids

    def carry_out(self, given: OperationRequest, ids: list[int]) -> UUID:
        """Let Alice do something; return the operation."""
        action = given.action
        name = f"run{self.run}{given.tag}"
        order = replace(given, tag=name)
        priority = Priority.normal if order.priority is None else order.priority
        refusals = self.refusals(order, ids)
        accepted = set(ids) - refusals.keys()
        managed = manage(self.stage.ledger, order, ids, actor=ALICE)
        assert {ids[index] for index in managed["updated_idx"]} == accepted
        assert {ids[index]: code for index, code, _ in managed["errors"]} == refusals
        happens = dict.fromkeys(sorted(accepted), EVENTS[action])
        down = order.delete_children
        if action in FAMILIAL and (down or action not in (Action.delete, Action.erase)):
            if order.propagate or action is not Action.invalidate:
                happens |= naive(action, sorted(accepted), self.relations(), self.there())
        elif action is Action.delete:
            happens |= self.ancestors_of_deleted(accepted)
        restored = self.restored(action, accepted) if action in RESTORING else {}
        done = Done(action)
        for id_, event in happens.items():
            after = self.piles[id_].after(event, name, priority)
            self.happen(done, id_, event, after)
        for id_, pile in restored.items():
            self.happen(done, id_, "restored", pile)
        assert {ids[index] for index in managed["new_ids"]} == (
            accepted if action is Action.resubmit else set()
        )
        for index, new_id in managed["new_ids"].items():
            assert new_id not in self.piles
            pile = self.piles[ids[index]]
            self.piles[new_id] = Pile((), pile.kind, pile.tag, pile.priority)
            self.happen(done, new_id, "created", self.piles[new_id].but(cards=("waiting",)))
        if action is Action.adopt:
            self.require_newest_adopted(accepted, order.attempt)
        operation = UUID(managed["operation_id"])
        self.operations[operation] = done
        return operation

    def require_newest_adopted(self, ids: Iterable[int], attempt: int | None) -> None:
        for id_ in ids:
            late = [n for n, tried in self.tries[id_].items() if tried.answer == "late good"]
            event = self.stage.events(id_)[-1]
            assert isinstance(event, ResultAdopted)
            assert event.attempt == (attempt or late[-1])

    def happen(self, done: Done, id_: int, event: str, after: Pile) -> None:
        before = self.piles[id_]
        if event == "rerouted" and after == before:
            return
        done.before[id_], done.event[id_] = before, event
        if event in HARMLESS:
            done.harmless.add(id_)
        else:
            self.change(id_, after)
        if event == "erased":
            self.edges = [edge for edge in self.edges if id_ not in edge]
        done.count[id_] = self.counts[id_]

    def refusals(self, order: OperationRequest, ids: Iterable[int]) -> dict[int, str]:
        """Return who refuses, and with which code."""
        found: dict[int, str] = {}
        for id_ in ids:
            if not self.piles[id_].cards:
                found[id_] = "not_found"
            elif order.action is Action.adopt and not self.has_late_result(id_, order.attempt):
                found[id_] = "nothing_to_adopt"
            elif (self.piles[id_].status, EVENTS[order.action]) not in TABLE:
                found[id_] = "transition_forbidden"
        while order.action is Action.erase:
            spared = set(self.there()) - (set(ids) - found.keys())
            more = {id_ for id_ in ids if spared.intersection(self.parents(id_))} - found.keys()
            if not more:
                break
            found |= dict.fromkeys(more, "still_referenced")
        return found

    def has_late_result(self, id_: int, attempt: int | None) -> bool:
        return any(
            tried.answer == "late good" and attempt in (None, number)
            for number, tried in self.tries.get(id_, {}).items()
        )

    def ready_for(self, action: Action) -> list[int]:
        order = OperationRequest(action)
        return [id_ for id_ in sorted(self.piles) if not self.refusals(order, [id_])]

    def relations(self) -> list[tuple[int, int]]:
        return list(self.edges)

    def ancestors_of_deleted(self, ids: set[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        todo = list(ids)
        while todo:
            for parent in self.parents(todo.pop()):
                known = parent in ids or parent in found
                if not known and self.piles[parent].status != "deleted":
                    found[parent] = "soft_deleted"
                    todo.append(parent)
        return found

    def restored(self, action: Action, ids: set[int]) -> dict[int, Pile]:
        found: dict[int, Pile] = {}
        for id_ in ids:
            went = self.went(id_, action)
            above = self.reach([id_], up=True)
            relatives = (above | self.reach({id_, *above}, up=False)) - ids
            for relative in relatives & went.before.keys():
                if self.counts[relative] == went.count[relative] and (
                    relative not in went.harmless
                ):
                    found[relative] = went.before[relative].back()
        return found

    def went(self, id_: int, action: Action) -> Done:
        """Return the operation that took a record away: the last one that put the card there."""
        for done in reversed(self.operations.values()):
            changed = id_ in done.event and id_ not in done.harmless
            if changed and done.count[id_] == self.counts[id_]:
                return done
        raise AssertionError(f"nobody has taken {id_} away for {action} to bring it back")

    @precondition(lambda self: self.operations)
    @rule(which=NUMBERS)
    def undo(self, which: int) -> None:
        operations = list(self.operations)
        # Mostly the newest ones, which can be undone.
        self.take_back(operations[-1 - which % min(len(operations), 3 if which % 4 else 50)])

    def take_back(self, operation: UUID) -> None:
        undone = self.operations[operation]
        if not undone.before:
            with pytest.raises(OperationNotFound):
                self.stage.undo(operation)
            return
        conflicts = {
            id_: code for id_ in undone.before if (code := self.conflict(undone, id_)) is not None
        }
        possible = undone.before.keys() - conflicts.keys()
        said = self.stage.undo(operation)
        assert said["n_undone"] == len(possible)
        assert {id_: code for id_, code, _ in said["conflicts"]} == conflicts
        done = Done(Action.undo)
        for id_ in sorted(possible):
            after = undone.before[id_]
            if undone.event[id_] == "rerouted":  # by another such event, also while it runs
                self.happen(done, id_, "rerouted", after)
            else:
                self.happen(done, id_, "restored", after.back())
        self.operations[UUID(said["operation_id"])] = done

    def conflict(self, undone: Done, id_: int) -> str | None:
        """Return why a record does not let an operation be taken back, if it does not."""
        if not self.piles[id_].cards:
            return "not_found"
        if self.counts[id_] != undone.count[id_]:
            return "changed_since"
        return "not_undoable" if undone.event[id_] in LASTING else None

    # What must hold after every step

    @invariant()
    def the_records_are_what_the_model_says(self) -> None:
        found = get_records(self.stage.ledger, self.piles)
        expected = {id_: pile for id_, pile in self.piles.items() if pile.cards}
        assert {id_: (*each.prior, each.status) for id_, each in found.items()} == {
            id_: pile.cards for id_, pile in expected.items()
        }
        for id_, record in found.items():
            pile = expected[id_]
            assert (record.tag, record.priority) == (pile.tag, pile.priority)
            said = record.outcome and ("error" if record.outcome.error_type else "complete")
            assert said == pile.outcome
            if pile.status == "running":
                assert record.manager_id == pile.holder

    @invariant()
    def the_queue_is_what_the_model_says(self) -> None:
        ids = self.stage.ask(
            "SELECT q.record_id FROM claim_queue q JOIN lanes l ON l.id = q.lane_id"
            " WHERE l.tag = ANY(%s) ORDER BY l.tag, q.rank, q.record_id",
            [self.tags],
        )
        assert [row[0] for row in ids] == self.queue()

    @invariant()
    def the_counts_are_what_the_model_says(self) -> None:
        rows = self.stage.ask(
            "SELECT l.tag, c.status, c.n_records FROM status_counts c"
            " JOIN lanes l ON l.id = c.lane_id WHERE l.tag = ANY(%s) AND n_records <> 0",
            [self.tags],
        )
        expected: dict[tuple[str, str], int] = {}
        for pile in self.piles.values():
            if pile.cards:
                place = pile.tag, pile.status
                expected[place] = expected.get(place, 0) + 1
        assert {(tag, status): n for tag, status, n in rows} == expected

    @invariant()
    def the_tables_are_what_the_log_says(self) -> None:
        self.stage.require_equal()

    @invariant()
    def the_named_invariants_hold(self) -> None:
        assert violations(self.stage, self.piles) == {}

    @invariant()
    def the_attempts_are_what_the_model_says(self) -> None:
        with self.stage.ledger.datastore.reading() as db:
            histories = self.stage.ledger.histories(db, list(self.tries))
        for id_, tries in self.tries.items():
            found = attempts(histories[id_])
            assert {number: each.manager_id for number, each in found.items()} == {
                number: tried.manager_id for number, tried in tries.items()
            }
            late = {number for number, each in found.items() if each.late}
            assert late == {n for n, tried in tries.items() if (tried.answer or "")[:4] == "late"}

    def teardown(self) -> None:
        # Services end here whenever chance wants it; it is not the ledger that ends them.
        self.stage.require_sound(but=["services"])


def test_the_ledger_does_what_the_model_does(stage: Stage) -> None:
    machine: type[Management] = type("Machine", (Management,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=N_MANAGEMENT_RUNS,
            stateful_step_count=N_MANAGEMENT_STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=True,
        ),
    )
