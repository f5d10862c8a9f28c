"""What services wait for, kept right by whoever changes a child, whatever else happens."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from recordledger.domain.errors import Superseded
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.status import Status
from recordledger.domain.specs.service_rules import ServiceFault, ServiceLimits
from recordledger.projections.actions import service_steps
from recordledger.projections.actions.service_steps import DecisionPoint, Iteration, NewChild
from recordledger.projections.actions.submission import NewRecord, create_records
from recordledger.projections.tables import service_queue

from ..invariants import violations
from ..stage import ALICE, Stage, bad, entry, good, key, spec, together

LIMITS = ServiceLimits()


def row(stage: Stage, service_id: int) -> tuple[Any, ...]:
    """Return what a service waits for: awaited, open, troubled, and whether it is due."""
    [found] = stage.ask(
        "SELECT n_awaited, n_open, n_troubled, due FROM services WHERE record_id = %s",
        [service_id],
    )
    return tuple(found)


def new(name: str, x: object = 0, *, share: bool = True, kind: Kind = Kind.task) -> NewChild:
    return NewChild(
        name, NewRecord(spec(x), "gpu", Priority.normal, kind=kind), find_existing=share
    )


def place_of(stage: Stage, service_id: int) -> DecisionPoint:
    return DecisionPoint.of(stage.record(service_id))


def iterate(stage: Stage, service_id: int, *children: NewChild, **step: Any) -> None:
    """Store a decision that is made where the service stands."""
    service_steps.iterate(
        stage.ledger,
        service_id,
        place_of(stage, service_id),
        Iteration(b"{}", children, **step),
        runner="test",
        limits=LIMITS,
    )


def children(stage: Stage, service_id: int) -> dict[str, int]:
    rows = stage.ask(
        "SELECT key, child_id FROM service_children WHERE service_id = %s", [service_id]
    )
    return {name: child for name, child in rows}  # noqa: C416 - rows are no pairs for a checker


def test_a_service_is_due_when_all_its_children_are_complete(stage: Stage) -> None:
    [service] = stage.services(1)
    iterate(stage, service, new("a", 1), new("b", 2))
    assert row(stage, service) == (2, 2, 0, False)
    manager_id = stage.manager()
    for n_open in (1, 0):
        stage.hand_in(manager_id, stage.claim(manager_id, 1))
        assert row(stage, service) == (2, n_open, 0, n_open == 0)
    stage.require_equal()


def test_a_claim_writes_nothing_of_services(stage: Stage) -> None:
    [service] = stage.services(1)
    iterate(stage, service, new("a", 1))
    before = stage.ask("SELECT xmin::text FROM services WHERE record_id = %s", [service])
    stage.claim(stage.manager())
    assert stage.ask("SELECT xmin::text FROM services WHERE record_id = %s", [service]) == before


@pytest.mark.parametrize(
    ("action", "status", "counts"),
    [
        (Action.cancel, "waiting", (0, 2)),  # with the whole family
        (Action.delete, "waiting", (0, 2)),
        (Action.hold, "waiting", (2, 0)),
        (Action.fail, "error", (1, 1)),
        (Action.invalidate, "complete", (1, 1)),
    ],
)
def test_each_way_of_a_child_is_counted_there_and_back(
    stage: Stage, action: Action, status: str, counts: tuple[int, int]
) -> None:
    [service] = stage.services(1)
    iterate(stage, service, new("a", 1), new("b", 2))
    [child, _] = children(stage, service).values()
    manager_id = stage.manager()
    if status != "waiting":
        [(id_, attempt)] = stage.claim(manager_id, 1).items()
        assert id_ == child
        stage.hand_in(manager_id, {id_: attempt}, good() if status == "complete" else bad())
    before = row(stage, service)
    operation = stage.done(action, child, propagate=False)
    assert violations(stage, [service, child]) == {}
    assert row(stage, service)[1:3] == counts
    assert stage.undo(operation)["conflicts"] == []
    assert row(stage, service)[:3] == before[:3]
    assert violations(stage, [service, child]) == {}
    stage.require_equal()


def test_a_child_that_is_retried_is_open_all_the_time(stage: Stage) -> None:
    [service] = stage.services(1)
    retried = NewChild("a", entry(1, retries=1), find_existing=True)
    iterate(stage, service, retried)
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id), bad())
    assert row(stage, service) == (1, 1, 0, False)
    stage.hand_in(manager_id, stage.claim(manager_id), bad())
    assert row(stage, service) == (1, 0, 1, True)


def test_what_is_awaited_no_more_is_not_counted_any_more(stage: Stage) -> None:
    [service] = stage.services(1)
    iterate(stage, service, new("a", 1), new("b", 2), any_child=True)
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    a, b = children(stage, service).values()
    stage.hand_in(manager_id, {a: held[a]})
    assert row(stage, service) == (2, 1, 0, True)
    iterate(stage, service, new("c", 3))
    assert row(stage, service) == (1, 1, 0, False)
    stage.hand_in(manager_id, {b: held[b]})
    assert row(stage, service) == (1, 1, 0, False)
    iterate(stage, service, awaited=frozenset({"a", "b"}))
    assert row(stage, service) == (2, 0, 0, True)
    stage.finish(service, good())
    assert row(stage, service) == (0, 0, 0, False)
    stage.require_equal()


def test_one_child_by_two_names_counts_twice(stage: Stage) -> None:
    [service] = stage.services(1)
    iterate(stage, service, new("a", 1), new("b", 1))
    assert len(set(children(stage, service).values())) == 1
    assert row(stage, service) == (2, 2, 0, False)
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id))
    assert row(stage, service) == (2, 0, 0, True)


def test_a_task_does_not_stand_for_a_service_of_the_same_specification(stage: Stage) -> None:
    [task] = create_records(stage.ledger, [entry(7)], actor=ALICE)["ids"]
    [service] = stage.services(1)
    iterate(stage, service, new("a", 7), new("b", 7, kind=Kind.service))
    found = children(stage, service)
    assert found["a"] == task
    assert stage.record(found["b"]).kind is Kind.service


def test_children_that_end_at_once_are_all_counted(stage: Stage) -> None:
    services = stage.services(2)
    for service in services:
        iterate(stage, service, *(new(str(x), x) for x in range(16)))
    managers = [stage.manager() for _ in range(8)]
    held = [stage.claim(manager_id, 2) for manager_id in managers]
    returns = [
        partial(stage.hand_in, manager_id, mine)
        for manager_id, mine in zip(managers, held, strict=True)
    ]
    together(*returns)
    assert [row(stage, service) for service in services] == [(16, 0, 0, True)] * 2
    assert stage.n_deadlocks() == 0


def test_a_child_that_ends_while_a_service_begins_to_wait_for_it_is_counted(stage: Stage) -> None:
    for number in range(20):
        x = f"race {number}"
        [child] = create_records(stage.ledger, [entry(x)], actor=ALICE)["ids"]
        [service] = stage.services(1)
        manager_id = stage.manager()
        held = stage.claim(manager_id)
        assert list(held) == [child]
        together(
            partial(iterate, stage, service, new("a", x), new("b", x + "b")),
            partial(stage.hand_in, manager_id, held),
        )
        assert row(stage, service) == (2, 1, 0, False)
        stage.hand_in(manager_id, stage.claim(manager_id))
        assert row(stage, service) == (2, 0, 0, True)
    stage.require_equal()


def test_of_two_who_decide_at_the_same_place_one_is_refused(stage: Stage) -> None:
    [service] = stage.services(1)
    place = place_of(stage, service)

    def decide(x: int) -> str:
        step = Iteration(b"{}", [new("a", x)])
        try:
            service_steps.iterate(stage.ledger, service, place, step, runner=str(x), limits=LIMITS)
        except Superseded:
            return "refused"
        return "stored"

    assert sorted(together(lambda: decide(1), lambda: decide(2))) == ["refused", "stored"]
    assert len(children(stage, service)) == 1
    assert stage.topics(service) == ["created", "service_started", "service_iterated"]


def test_a_decision_that_cannot_be_stored_leaves_nothing(stage: Stage) -> None:
    [service] = stage.services(1)
    n_events = stage.head()
    with pytest.raises(ServiceFault):
        iterate(stage, service, new("a", 1), awaited=frozenset({"nobody"}))
    assert (stage.head(), children(stage, service)) == (n_events, {})
    assert stage.status(service) is Status.waiting


def test_an_erased_service_leaves_no_trace_of_what_it_waited_for(stage: Stage) -> None:
    parent, below = stage.services(2)
    stage.adopt_children(parent, [below])
    assert stage.ask("SELECT wanted FROM services WHERE record_id = %s", [below]) == [(True,)]
    stage.done(Action.erase, parent, delete_children=False)
    assert stage.ask("SELECT record_id, wanted FROM services") == [(below, False)]
    assert stage.ask("SELECT count(*) FROM service_children") == [(0,)]
    stage.require_equal()


def test_of_many_runners_each_gets_others(stage: Stage) -> None:
    ids = stage.services(24)

    def pick(number: int) -> list[int]:
        got: list[int] = []
        while len(got) < 6:
            with stage.ledger.datastore.writing() as db:
                got += service_queue.pick(db, f"r{number}", 3, active_max=100, lease_s=60) or ()
        return got

    picked = together(*(lambda n=n: pick(n) for n in range(4)))
    assert sorted(id_ for got in picked for id_ in got) == ids


def test_no_more_services_are_started_than_may_run(stage: Stage) -> None:
    ids = stage.services(5)

    def pick(active_max: int, *done: int) -> list[int]:
        with stage.ledger.datastore.writing() as db:
            found = service_queue.pick(db, "r", 10, active_max=active_max, lease_s=60, done=done)
        assert found is not None
        return found

    assert pick(2) == ids[:2]
    assert pick(2) == [], "those that were picked count, though they have not begun"
    for id_ in ids[:2]:
        iterate(stage, id_, new("a", id_))
    assert pick(2, *ids[:2]) == []
    assert pick(3) == ids[2:3]


def test_a_lease_that_is_over_is_another_ones(stage: Stage) -> None:
    [service] = stage.services(1)

    def pick(runner: str) -> list[int] | None:
        with stage.ledger.datastore.writing() as db:
            return service_queue.pick(db, runner, 1, active_max=9, lease_s=60)

    assert pick("lost") == [service]
    assert pick("other") == []
    stage.do("UPDATE service_leases SET lease_expires_at = now()")
    assert pick("other") == [service]
    assert stage.ask("SELECT runner FROM service_leases") == [("other",)]


def test_an_older_ledger_learns_what_its_services_wait_for(stage: Stage) -> None:
    [a, b] = stage.submit(2)
    [above] = stage.services(1)
    service, ended = stage.service(a, b), stage.service(a)
    stage.adopt_children(above, [service, ended])
    stage.finish(ended, good())
    manager_id = stage.manager()
    [(first, attempt)] = stage.claim(manager_id, 1).items()
    stage.hand_in(manager_id, {first: attempt})
    for table in ("services", "service_children"):
        stage.do(f"DELETE FROM {table}")  # noqa: S608
    with stage.connected() as connection, connection.transaction():
        service_queue.fill(connection)
    assert row(stage, service) == (2, 1, 0, False)
    assert row(stage, above) == (2, 1, 0, False)
    assert violations(stage, [a, b, above, service, ended]) == {}
    stage.require_equal()


def test_a_request_that_is_repeated_creates_a_service_once(stage: Stage) -> None:
    new_service = [NewRecord(spec("s"), "gpu", Priority.normal, kind=Kind.service)]
    request = key("k")
    ids = [
        create_records(stage.ledger, new_service, actor=ALICE, request=request)["ids"]
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
    assert [event.topic for event in stage.events(ids[0][0])] == [e.Created.topic]
