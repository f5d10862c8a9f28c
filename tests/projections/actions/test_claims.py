"""Claims: in the promised order, to those who can, to one only, and to the last task."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from recordledger.domain.errors import ManagerNotActive, ManagerNotFound, NotYourManager
from recordledger.domain.records import events as e
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import satisfies
from recordledger.domain.routing.manager import ManagerAggregate
from recordledger.domain.streams import stream_number
from recordledger.projections.actions.managing import (
    claim,
    deactivate_manager,
    drain_manager,
    relinquish,
)
from recordledger.projections.actions.submission import create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.tables import claim_queue, records
from recordledger.projections.tables.payloads import store

from ..stage import ALICE, BOB, HOUR_S, Held, Stage, bad, entry, spec, staged, together

LOW, NORMAL, HIGH = Priority

# The order


def test_a_claim_goes_by_the_managers_tags_then_priority_then_age(stage: Stage) -> None:
    ids = {
        (tag, priority): stage.submit(2, tag=tag, priority=priority)
        for tag in ("cpu", "gpu", "other")
        for priority in Priority
    }
    manager_id = stage.manager("gpu", "cpu")
    expected = [
        record_id
        for tag in ("gpu", "cpu")
        for priority in (HIGH, NORMAL, LOW)
        for record_id in ids[tag, priority]
    ]
    assert list(stage.claim(manager_id)) == expected
    assert stage.queue() == [id_ for p in (HIGH, NORMAL, LOW) for id_ in ids["other", p]]
    stage.require_equal()


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_the_order_does_not_depend_on_how_many_are_claimed_at_a_time(
    stage: Stage, limit: int
) -> None:
    chance = random.Random(5)  # noqa: S311
    rows = [
        (chance.choice(("a", "b", "c")), chance.choice([LOW, NORMAL, HIGH]), chance.choice((1, 2)))
        for _ in range(40)
    ]
    waiting = [
        (tag, -priority, stage.submit(tag=tag, priority=priority, programs=[f"p{n}"])[0])
        for tag, priority, n in rows
    ]
    manager_id = stage.manager("b", "*", programs={"p1": None, "p2": "1"})
    claimed: list[int] = []
    while held := stage.claim(manager_id, limit):
        assert len(held) <= limit
        claimed += held
    of_b = [id_ for tag, _, id_ in sorted(waiting) if tag == "b"]
    rest = [row[1] for row in sorted(row[1:] for row in waiting if row[0] != "b")]
    assert claimed == of_b + rest


@pytest.mark.parametrize("seed", range(4))
def test_the_order_over_many_lanes_is_that_of_sorting_everything(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    tags = [f"tag{n}" for n in range(40)] + ["*"]
    programs = [(), ("p1",), ("p2>=2",), ("p1", "p2>=2")]
    given = [
        (chance.choice(tags), chance.choice(programs), chance.choice([LOW, NORMAL, HIGH]))
        for _ in range(500)
    ]
    entries = [
        entry(f"{seed}-{n}", tag=tag, programs=needs, priority=priority)
        for n, (tag, needs, priority) in enumerate(given)
    ]
    ids = create_records(stage.ledger, entries, actor=ALICE)["ids"]
    away = set(chance.sample(ids, 60))
    offers: dict[str, str | None] = {"p1": None, "p2": chance.choice(["1", "2"])}
    wanted = [*chance.sample(tags[:-1], 8), "*", *chance.sample(tags[:-1], 2)]
    chance.shuffle(wanted)

    def turn(tag: str) -> int:
        return min(n for n, each in enumerate(wanted) if each in (tag, "*"))

    expected = [
        id_
        for *_, id_ in sorted(
            (turn(tag), -priority, id_)
            for id_, (tag, needs, priority) in zip(ids, given, strict=True)
            if satisfies(offers, needs) and id_ not in away
        )
    ]

    def work(operation: Operation) -> list[int]:
        operation.lock(away)
        claimed: list[int] = []
        with staged(stage.url) as other:
            manager_id = other.manager(*wanted, programs=offers)
            while held := other.claim(manager_id, chance.randint(1, 60)):
                claimed += held
        return claimed

    assert stage.ledger.operate(work, actor=BOB) == expected
    stage.require_equal()


def test_a_claim_walks_on_past_any_number_of_locked_tasks_of_many_lanes(stage: Stage) -> None:
    entries = [entry(f"walk {n}", tag=f"tag{n % 50}") for n in range(900)]
    ids = create_records(stage.ledger, entries, actor=ALICE)["ids"]

    def work(operation: Operation) -> list[int]:
        operation.lock(ids[:-3])
        with staged(stage.url) as other:
            return list(other.claim(other.manager("*"), 2)) + list(
                other.claim(other.manager("tag7", "*"), 2)
            )

    assert stage.ledger.operate(work, actor=ALICE) == ids[-3:]


def test_lanes_of_one_tag_are_merged_by_priority_and_age(stage: Stage) -> None:
    needs = [["p1"], [], ["p2"], ["p1", "p2"], []]
    ids = [stage.submit(programs=programs)[0] for programs in needs]
    urgent = stage.submit(programs=["p2"], priority=HIGH)
    manager_id = stage.manager("gpu", programs={"p1": None, "p2": None})
    assert list(stage.claim(manager_id)) == urgent + ids


def test_a_wildcard_takes_what_the_tags_before_it_have_left(stage: Stage) -> None:
    other, mine, any_ = (
        stage.submit(tag=tag, priority=priority)
        for tag, priority in (("other", HIGH), ("mine", LOW), ("*", NORMAL))
    )
    assert list(stage.claim(stage.manager("mine", "*"))) == mine + other + any_


def test_a_record_for_anybody_goes_only_to_managers_for_anything(stage: Stage) -> None:
    ids = stage.submit(2, tag="*")
    assert stage.claim(stage.manager("gpu", "cpu")) == {}
    assert list(stage.claim(stage.manager("*"))) == ids


def test_a_tag_listed_twice_changes_nothing(stage: Stage) -> None:
    ids = stage.submit(3)
    assert list(stage.claim(stage.manager("gpu", "gpu", "*", "*"))) == ids


@pytest.mark.parametrize(
    ("needs", "offers", "runs"),
    [
        ([], {}, True),
        (["psi4"], {}, False),
        (["psi4"], {"psi4": None}, True),
        (["psi4"], {"psi4": "nightly build"}, True),
        (["psi4>=1.9"], {"psi4": "1.9.1"}, True),
        (["psi4>=1.9"], {"psi4": "1.10"}, True),
        (["psi4>=1.9,<2"], {"psi4": "2.0"}, False),
        (["psi4>=1.9"], {"psi4": "1.9rc1"}, False),
        (["psi4>=1.9"], {"psi4": "2.0a1"}, True),
        (["psi4~=1.4"], {"psi4": "1.9"}, True),
        (["psi4==1.*"], {"psi4": "1.9.1"}, True),
        (["psi4!=1.9.1"], {"psi4": "1.9.1"}, False),
        (["psi4>=1.9"], {"psi4": None}, False),
        (["psi4>=1.9"], {"psi4": "nightly build"}, False),
        (["psi4", "rdkit"], {"psi4": "1"}, False),
        (["psi4", "rdkit"], {"psi4": "1", "rdkit": "1", "more": "1"}, True),
    ],
)
def test_a_task_goes_to_managers_with_all_its_programs(
    stage: Stage, needs: list[str], offers: dict[str, str | None], *, runs: bool
) -> None:
    ids = stage.submit(programs=needs)
    for tag in ("gpu", "*"):
        manager_id = stage.manager(tag, programs=offers)
        held = stage.claim(manager_id)
        assert list(held) == (ids if runs else [])
        relinquish(stage.ledger, manager_id, held, user=BOB)


def test_what_a_manager_cannot_run_does_not_stand_in_its_way(stage: Stage) -> None:
    stage.submit(300, programs=["rare"], priority=HIGH)
    mine = stage.submit(5)
    assert list(stage.claim(stage.manager(), limit=5)) == mine


def test_lanes_that_other_processes_made_are_seen_at_once(stage: Stage) -> None:
    manager_id = stage.manager("new", "gpu")
    assert stage.claim(manager_id) == {}
    with staged(stage.url) as other:
        ids = other.submit(2, tag="new", programs=[]) + other.submit(tag="gpu")
    assert list(stage.claim(manager_id)) == ids


def test_a_rerouted_record_stands_where_its_new_tag_and_priority_put_it(stage: Stage) -> None:
    first, second, third = stage.submit(3)
    stage.intern("cpu")
    stage.happen(second, e.Rerouted, priority=HIGH)
    stage.happen(first, e.Rerouted, tag="cpu", priority=LOW)
    assert list(stage.claim(stage.manager("gpu"))) == [second, third]
    assert list(stage.claim(stage.manager("cpu"))) == [first]
    stage.require_equal()


# What is claimable


def test_a_record_that_was_away_comes_back_to_its_old_place(stage: Stage) -> None:
    ids = stage.submit(7)
    manager_id = stage.manager()
    held = stage.claim(manager_id, 3)
    relinquish(stage.ledger, manager_id, {ids[0]: held[ids[0]]}, user=BOB)
    stage.hand_in(manager_id, {ids[1]: held[ids[1]]}, bad())
    stage.happen(ids[1], e.Reset)
    stage.happen(ids[2], e.Cancelled, e.Uncancelled)
    stage.happen(ids[3], e.Held, e.SoftDeleted)
    stage.happen(ids[3], e.Undeleted, e.Released)
    stage.happen(ids[4], e.Cancelled, e.SoftDeleted, e.Undeleted, e.Uncancelled)
    stage.submit(1)
    assert stage.queue()[:7] == ids
    assert list(stage.claim(manager_id))[:7] == ids
    stage.require_equal()


def test_only_waiting_tasks_are_given_out(stage: Stage) -> None:
    ids = stage.submit(6)
    stage.happen(ids[0], e.Held)
    stage.happen(ids[1], e.Cancelled)
    stage.happen(ids[2], e.SoftDeleted)
    stage.happen(ids[3], e.Erased)
    manager_id = stage.manager()
    assert list(stage.claim(manager_id)) == ids[4:]
    assert stage.claim(manager_id) == {}


def test_a_service_is_not_given_to_managers(stage: Stage) -> None:
    specification = spec("service")
    stage.intern("gpu")

    def work(operation: Operation) -> None:
        store(operation.db, {specification.payload.digest: specification.canonical})
        born = e.Created(
            kind=Kind.service,
            spec=specification.payload,
            function="neb",
            required_programs=(),
            tag="gpu",
            priority=NORMAL,
            **operation.stamp.model_dump(),
        )
        operation.happen(RecordAggregate(1), [born])

    stage.ledger.operate(work, actor=ALICE)
    assert stage.queue() == []
    assert stage.claim(stage.manager()) == {}
    assert stage.status(1) is Status.waiting
    stage.require_equal()


# What a claim gives


def test_a_claim_gives_an_attempt_a_lease_and_the_specification(stage: Stage) -> None:
    (record_id,) = stage.submit()
    manager_id = stage.manager(lease_s=120)
    answer = claim(stage.ledger, manager_id, 1, user=BOB)
    record = stage.record(record_id)
    assert record.spec is not None
    assert answer["tasks"] == [{"record_id": record_id, "attempt": 1, "spec": record.spec.digest}]
    _, claimed = stage.events(record_id)
    assert isinstance(claimed, e.Claimed)
    assert (claimed.attempt, claimed.manager_id) == (1, manager_id)
    assert claimed.actor == f"manager:{manager_id}"
    assert str(claimed.operation_id) == answer["operation_id"]
    lease = claimed.lease_expires_at - claimed.timestamp
    assert timedelta(seconds=119) < lease <= timedelta(seconds=120)
    assert (record.status, record.manager_id, record.attempt) == (Status.running, manager_id, 1)
    assert record.started_at == claimed.timestamp


def test_attempts_are_numbered_on_whoever_claims(stage: Stage) -> None:
    (record_id,) = stage.submit()
    for attempt in range(1, 5):
        manager_id = stage.manager()
        assert stage.claim(manager_id) == {record_id: attempt}
        relinquish(stage.ledger, manager_id, {record_id: attempt}, user=BOB)


def test_a_claim_of_nothing_gets_nothing(stage: Stage) -> None:
    stage.submit()
    assert stage.claim(stage.manager("gpu", "*"), limit=0) == {}


def test_a_claim_ends_before_its_specifications_get_too_large(stage: Stage) -> None:
    entries = [entry(str(number) * 1_000) for number in range(6)]
    ids = create_records(stage.ledger, entries, actor=ALICE)["ids"]
    n_bytes = spec("x" * 1_000).payload.size_bytes
    manager_id = stage.manager()

    def claimed_with(bytes_max: int) -> list[int]:
        answer = claim(stage.ledger, manager_id, 9, user=BOB, spec_bytes_max=bytes_max)
        return [task["record_id"] for task in answer["tasks"]]

    assert claimed_with(n_bytes - 1) == ids[:1]
    assert claimed_with(2 * n_bytes) == ids[1:3]
    assert claimed_with(3 * n_bytes - 1) == ids[3:5]
    assert stage.queue() == ids[5:]


def test_a_claim_says_in_which_operation_it_was_made(stage: Stage) -> None:
    manager_id = stage.manager()
    nothing = claim(stage.ledger, manager_id, 5, user=BOB)
    assert str(UUID(nothing["operation_id"])) == nothing["operation_id"]
    assert nothing["tasks"] == []
    (record_id,) = stage.submit()
    answer = claim(stage.ledger, manager_id, 5, user=BOB)
    assert answer["operation_id"] == str(stage.events(record_id)[-1].operation_id)
    drain_manager(stage.ledger, manager_id, actor=BOB, owner=BOB, reason="maintenance")
    nothing = claim(stage.ledger, manager_id, 5, user=BOB)
    assert str(UUID(nothing["operation_id"])) == nothing["operation_id"]
    assert nothing["tasks"] == []


def test_an_empty_claim_changes_nothing(stage: Stage) -> None:
    manager_id = stage.manager()
    n = stage.head()
    assert stage.claim(manager_id) == {}
    assert stage.head() == n


# Who may claim


def test_only_its_owner_claims_for_a_manager(stage: Stage) -> None:
    stage.submit()
    manager_id = stage.manager(user=BOB)
    with pytest.raises(NotYourManager) as caught:
        stage.claim(manager_id, user=ALICE)
    assert caught.value.manager_id == manager_id
    assert len(stage.queue()) == 1


def test_a_manager_that_has_ended_or_never_was_claims_nothing(stage: Stage) -> None:
    stage.submit()
    manager_id = stage.manager()
    deactivate_manager(stage.ledger, manager_id, actor=BOB, owner=BOB)
    with pytest.raises(ManagerNotActive, match="is inactive; register it again"):
        stage.claim(manager_id)
    with pytest.raises(ManagerNotFound):
        stage.claim(manager_id + 1)
    assert len(stage.queue()) == 1


# Several at once


@pytest.mark.parametrize("n_managers", [2, 6])
def test_managers_that_claim_at_once_share_all_tasks_and_none_twice(
    stage: Stage, n_managers: int
) -> None:
    ids = [
        id_
        for tag in ("a", "b", "*")
        for priority in Priority
        for id_ in stage.submit(40, tag=tag, priority=priority)
    ]

    def drain(manager_id: int) -> list[Held]:
        chance, claims = random.Random(manager_id), list[Held]()  # noqa: S311
        while held := stage.claim(manager_id, chance.randint(1, 12)):
            claims.append(held)
        return claims

    tags = [("*",), ("a", "*"), ("b", "a", "*")]
    managers = [stage.manager(*tags[n % 3]) for n in range(n_managers)]
    answers: list[list[Held]] = together(*(partial(drain, each) for each in managers))
    taken = [id_ for claims in answers for held in claims for id_ in held]
    assert sorted(taken) == sorted(ids)
    assert stage.queue() == []
    for manager_id, claims in zip(managers, answers, strict=True):
        for held in claims:
            for record_id, attempt in held.items():
                record = stage.record(record_id)
                assert (record.manager_id, record.attempt, attempt) == (manager_id, 1, 1)
    stage.require_equal()


def test_a_claim_does_not_wait_for_locked_tasks_and_takes_the_next(stage: Stage) -> None:
    ids = stage.submit(30)
    manager_id = stage.manager()

    def work(operation: Operation) -> list[int]:
        operation.lock(ids[:25])
        with staged(stage.url) as other:
            return list(other.claim(manager_id, 4))

    assert stage.ledger.operate(work, actor=ALICE) == ids[25:29]
    assert list(stage.claim(manager_id)) == ids[:25] + ids[29:]


class LostOnTheWay(Exception):
    """A claim that was written in full, and then did not commit."""


def claim_or_fail(stage: Stage, manager: ManagerAggregate, *, fails: bool) -> int:
    with stage.ledger.datastore.writing() as db:
        operation = Operation(stage.ledger, db, ALICE, None)
        lanes = stage.ledger.lanes.open_to(manager)
        taken = claim_queue.lock_next(db, lanes, 7)
        for alike in records.classes_of(taken, stage.ledger.lanes):
            event = e.Claimed(
                attempt=alike.like.attempt + 1,
                manager_id=manager.id,
                lease_expires_at=operation.stamp.timestamp + timedelta(seconds=HOUR_S),
                **operation.stamp.model_dump(),
            )
            operation.happen_to_classes(event, [alike])
        operation.write()
        if fails:
            raise LostOnTheWay
    return len(taken)


def test_tasks_of_claims_that_do_not_commit_go_to_others(stage: Stage) -> None:
    ids = stage.submit(60)

    def drain(manager: ManagerAggregate) -> int:
        chance, n_taken, n = random.Random(manager.id), 0, 1  # noqa: S311
        while n:
            with contextlib.suppress(LostOnTheWay):
                n = claim_or_fail(stage, manager, fails=chance.random() < 0.5)
                n_taken += n
        return n_taken

    managers = [stage.state_of(stage.manager()) for _ in range(3)]
    counts: list[int] = together(*(partial(drain, manager) for manager in managers))
    # Who found nothing may have looked while another had the rest, and then lost it.
    left = stage.claim(stage.manager())
    assert sum(counts) + len(left) == len(ids)
    assert {stage.record(id_).attempt for id_ in ids} == {1}
    stage.require_equal()


def test_the_log_has_claims_in_the_order_of_claiming_over_lanes_and_attempts(stage: Stage) -> None:
    manager_id = stage.manager(programs={"p": None})
    first = stage.submit(2)
    relinquish(stage.ledger, manager_id, stage.claim(manager_id), user=BOB)
    ids = [*first, *stage.submit(1, programs=["p"]), *stage.submit(2), *stage.submit(1)]
    before = stage.newest()
    assert list(stage.claim(manager_id)) == ids
    rows = stage.ask(
        "SELECT originator_id FROM ledger_events WHERE notification_id > %s"
        " ORDER BY notification_id",
        [before],
    )
    assert [stream_number(row[0])[1] for row in rows] == ids
    stage.require_equal()
    stage.require_sound()
