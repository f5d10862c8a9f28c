"""Anything happens to services at any point; in the end none waits for what cannot come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
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

from recordledger.domain.errors import OperationNotFound, Superseded
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Kind
from recordledger.domain.records.status import Status
from recordledger.projections.reading.queries import get_records
from tests.postgres import new_database
from tests.projections.invariants import violations
from tests.projections.stage import Stage, bad, empty, good, staged
from tests.sizes import N_SERVICE_RUNS, N_SERVICE_STEPS

from ..service_house import House

NUMBERS = st.integers(0, 10_000)
SPECS: st.SearchStrategy[tuple[str, Mapping[str, Any]]] = st.one_of(
    st.tuples(
        st.just("fan"),
        st.fixed_dictionaries(
            {
                "n": st.integers(0, 3),
                "rounds": st.integers(1, 3),
                "takes_errors": st.booleans(),
                "shared": st.booleans(),
                "of": st.sampled_from("ab"),
            }
        ),
    ),
    st.tuples(st.just("nest"), st.fixed_dictionaries({"depth": st.integers(0, 2)})),
    st.tuples(
        st.just("clock"),
        st.fixed_dictionaries(
            {"wait_s": st.just(0), "n": st.integers(1, 3), "until": st.just("any")}
        ),
    ),
    st.tuples(
        st.just("odd"),
        st.fixed_dictionaries({"how": st.just("raises"), "at": st.integers(1, 2)}),
    ),
)
ACTIONS = (
    Action.cancel,
    Action.uncancel,
    Action.reset,
    Action.delete,
    Action.undelete,
    Action.invalidate,
    Action.uninvalidate,
    Action.hold,
    Action.release,
    Action.fail,
    Action.revive,
    Action.modify,
    Action.erase,
)


class Services(RuleBasedStateMachine):
    """The rules. Each run begins with an empty ledger."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        empty(self.stage.url)
        self.stage.ledger.lanes = type(self.stage.ledger.lanes)(self.stage.ledger.datastore)
        self.house = House(self.stage)
        self.runners = [self.house.runner, self.house.another("second")]
        self.in_hand: list[Callable[[], None]] = []
        self.held: list[tuple[int, dict[int, int]]] = []
        self.operations: list[UUID] = []

    # What there is

    def ids(self) -> list[int]:
        return [row[0] for row in self.stage.ask("SELECT id FROM records ORDER BY id")]

    @initialize()
    def begin(self) -> None:
        self.house.add("fan", n=2, rounds=2, of="a")
        self.house.add("nest", depth=1)
        self.step(0)

    @rule(what=SPECS)
    def add(self, what: tuple[str, Mapping[str, Any]]) -> None:
        name, kwargs = what
        self.house.add(name, **kwargs)

    # Runners

    @rule(n=st.integers(1, 6))
    def step(self, n: int) -> None:
        """Let the first runner take some steps."""
        self.runners[0].run_until_idle(steps_max=n)

    @rule(which=st.integers(0, 1))
    def pick(self, which: int) -> None:
        """Let a runner take a service in hand and decide, and then be slow, or die."""
        for service_id in self.runners[which].pick(1) or ():
            self.in_hand.append(self.runners[which].decide(service_id))

    @precondition(lambda self: self.in_hand)
    @rule(which=NUMBERS)
    def wake_up(self, which: int) -> None:
        """Let a runner that was slow store what it has decided, however late it is."""
        with contextlib.suppress(Superseded):
            self.in_hand.pop(which % len(self.in_hand))()

    @rule()
    def lose_leases(self) -> None:
        self.stage.do("UPDATE service_leases SET lease_expires_at = now() - interval '1 s'")

    # Managers

    @rule(n=st.integers(1, 4))
    def claim(self, n: int) -> None:
        if held := self.stage.claim(self.house.manager_id, n):
            self.held.append((self.house.manager_id, held))

    @precondition(lambda self: self.held)
    @rule(which=NUMBERS, fine=st.booleans())
    def hand_in(self, which: int, fine: bool) -> None:
        manager_id, held = self.held.pop(which % len(self.held))
        self.stage.hand_in(manager_id, held, good() if fine else bad())

    @rule()
    def lose_the_manager(self) -> None:
        self.stage.silence(self.house.manager_id)
        self.stage.lose_silent()
        self.house.manager_id = self.stage.manager()

    # People

    @rule(action=st.sampled_from(ACTIONS), which=NUMBERS, propagate=st.booleans())
    def order(self, action: Action, which: int, propagate: bool) -> None:
        """Do something to a record that does not refuse it, if there is one."""
        wanted = {
            Action.uncancel: ["cancelled"],
            Action.undelete: ["deleted"],
            Action.uninvalidate: ["invalid"],
            Action.reset: ["error"],
            Action.fail: ["error"],
            Action.revive: ["failed"],
            Action.release: ["held"],
            Action.hold: ["waiting"],
            Action.invalidate: ["complete"],
            Action.cancel: ["waiting", "running", "error", "held"],
            Action.modify: ["waiting", "running", "error", "held"],
        }.get(action)
        rows = self.stage.ask("SELECT id, status FROM records ORDER BY id")
        ready = [id_ for id_, status in rows if wanted is None or status in wanted]
        if action is Action.erase and which % 4:
            return
        if ready:
            options: dict[str, Any] = {"propagate": propagate, "delete_children": propagate}
            if action is Action.modify:
                options["tag"] = "cpu" if propagate else "gpu"
            done = self.stage.order(action, ready[which % len(ready)], **options)
            self.operations.append(UUID(done["operation_id"]))

    @precondition(lambda self: self.operations)
    @rule(which=NUMBERS)
    def undo(self, which: int) -> None:
        operation = self.operations[-1 - which % min(3, len(self.operations))]
        try:
            undone = self.stage.undo(operation)
        except OperationNotFound:
            return
        self.operations.append(UUID(undone["operation_id"]))

    # What must hold

    @invariant()
    def the_tables_are_what_the_log_says(self) -> None:
        self.stage.require_sound()

    @invariant()
    def the_named_invariants_hold(self) -> None:
        assert violations(self.stage, self.ids()) == {}

    @invariant()
    def no_child_was_made_that_its_service_does_not_know(self) -> None:
        ids = self.ids()
        with self.stage.ledger.datastore.reading() as db:
            histories = self.stage.ledger.histories(db, ids)
        rows = self.stage.ask("SELECT service_id, child_id FROM service_children")
        known: set[tuple[int, int]] = {(service, child) for service, child in rows}
        for id_ in ids:
            [created] = [event for event in histories[id_] if isinstance(event, e.Created)]
            if created.cause in histories:
                assert (created.cause, id_) in known

    def teardown(self) -> None:
        """Let everybody finish: whoever still waits can be told what for."""
        while self.in_hand:
            self.wake_up(0)
        # Those who were slow are lost now; another one takes over what they had.
        self.lose_leases()
        self.house.runner = self.house.another("last")
        for manager_id, held in self.held:
            self.stage.hand_in(manager_id, held)
        self.lose_the_manager()
        self.house.go()
        self.require_that_nobody_waits_in_vain()
        self.the_tables_are_what_the_log_says()
        self.the_named_invariants_hold()

    def require_that_nobody_waits_in_vain(self) -> None:
        records = get_records(self.stage.ledger, self.ids())
        waits = self.stage.ask(
            "SELECT service_id, child_id FROM service_children WHERE awaited ORDER BY 1, 2"
        )
        awaited: dict[int, list[Status | None]] = {}
        for service_id, child_id in waits:
            awaited.setdefault(service_id, []).append(records[child_id].status)
        for record in records.values():
            if record.kind is Kind.task:
                assert record.status not in (Status.waiting, Status.running)
                continue
            of_children = awaited.get(record.id, [])
            if record.status is Status.running:
                # What holds the child up is a person's will, or further down.
                assert {Status.held, Status.running}.intersection(of_children), record
            assert record.status is not Status.waiting, record
            error_type = record.outcome and record.outcome.error_type
            if record.status is Status.error and error_type in ("ChildError", "ChildUnavailable"):
                assert set(of_children) != {Status.complete}, record


@pytest.fixture
def stage(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as made,
    ):
        yield made


def test_no_service_waits_for_what_cannot_come(stage: Stage) -> None:
    machine: type[Services] = type("Machine", (Services,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=N_SERVICE_RUNS,
            stateful_step_count=N_SERVICE_STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=True,
        ),
    )
