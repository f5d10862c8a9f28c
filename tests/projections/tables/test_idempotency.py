"""Idempotency keys: one effect and one answer, however often and from wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgpack
import pytest
from psycopg.errors import UniqueViolation

from recordledger.domain.errors import IdempotencyConflict, ManagerNotFound, NotYourManager
from recordledger.domain.records.record import RecordAggregate
from recordledger.projections.actions.managing import (
    Registration,
    claim,
    deactivate_manager,
    drain_manager,
    register_manager,
    relinquish,
    report_programs,
    return_results,
)
from recordledger.projections.actions.submission import create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.tables import idempotency
from recordledger.projections.tables.idempotency import RequestKey
from tests.examples import commented, created

from ..stage import ALICE, BOB, Stage, bad, entry, key, result, together

Ask = Callable[[RequestKey], Any]
"""A request that can be sent with any key."""


def submission(stage: Stage) -> Ask:
    entries = [entry(1), entry(2), entry(1)]
    return lambda request: create_records(
        stage.ledger, entries, actor=ALICE, find_existing=False, request=request
    )


def registration(stage: Stage) -> Ask:
    new = Registration("cluster", "node7", ("*",), {"psi4": "1.9"}, 120, 30)
    return lambda request: register_manager(stage.ledger, new, actor=BOB, request=request)


def claiming(stage: Stage) -> Ask:
    stage.submit(50)
    manager_id = stage.manager()
    return lambda request: claim(stage.ledger, manager_id, 5, user=BOB, request=request)


def returning(stage: Stage) -> Ask:
    manager_id, held = stage.running(3, retries=5)
    results = [*(result(id_, 1, bad()) for id_ in held), result(10**9, 1)]
    return lambda request: return_results(
        stage.ledger, manager_id, results, user=BOB, request=request
    )


def giving_back(stage: Stage) -> Ask:
    manager_id, held = stage.running(3)
    return lambda request: relinquish(stage.ledger, manager_id, held, user=BOB, request=request)


def ending(stage: Stage) -> Ask:
    manager_id, _ = stage.running(3)
    return lambda request: deactivate_manager(
        stage.ledger, manager_id, actor=BOB, owner=BOB, request=request
    )


def draining(stage: Stage) -> Ask:
    manager_id = stage.manager()
    return lambda request: drain_manager(
        stage.ledger, manager_id, actor=BOB, owner=BOB, request=request
    )


def reporting(stage: Stage) -> Ask:
    manager_id = stage.manager(programs={"psi4": "1.9"})
    programs = {"psi4": "1.10"}
    return lambda request: report_programs(
        stage.ledger, manager_id, programs, user=BOB, request=request
    )


REQUESTS: Final = (
    submission,
    registration,
    claiming,
    returning,
    giving_back,
    ending,
    draining,
    reporting,
)


def on_the_wire(answer: object) -> Any:
    """Return an answer as a client sees it: there, tuples are lists."""
    return msgpack.unpackb(msgpack.packb(answer))


def n_keys(stage: Stage) -> int:
    return int(stage.ask("SELECT count(*) FROM idempotency_keys")[0][0])


# One effect


@pytest.mark.parametrize("prepare", REQUESTS)
def test_the_same_request_again_has_no_effect_and_the_same_answer(
    stage: Stage, prepare: Callable[[Stage], Ask]
) -> None:
    ask = prepare(stage)
    first = ask(key())
    n = stage.head()
    for _ in range(3):
        assert on_the_wire(ask(key())) == on_the_wire(first)
    assert stage.head() == n
    assert n_keys(stage) == 1
    stage.require_equal()


@pytest.mark.parametrize("prepare", REQUESTS)
def test_eight_of_the_same_request_at_once_have_one_effect_and_one_answer(
    stage: Stage, prepare: Callable[[Stage], Ask]
) -> None:
    ask, before = prepare(stage), stage.head()
    answers = together(*[partial(ask, key())] * 8)
    n = stage.head()
    assert n > before
    assert all(on_the_wire(answer) == on_the_wire(answers[0]) for answer in answers)
    assert on_the_wire(ask(key())) == on_the_wire(answers[0])
    assert stage.head() == n
    assert n_keys(stage) == 1
    stage.require_equal()


def test_the_answer_of_a_request_that_found_nothing_is_kept_too(stage: Stage) -> None:
    manager_id = stage.manager()
    first = claim(stage.ledger, manager_id, 5, user=BOB, request=key())
    assert first["tasks"] == []
    stage.submit()
    assert claim(stage.ledger, manager_id, 5, user=BOB, request=key()) == first
    assert len(claim(stage.ledger, manager_id, 5, user=BOB, request=key("next"))["tasks"]) == 1


def test_a_request_that_is_answered_with_nothing_has_one_effect_too(stage: Stage) -> None:
    (record_id,) = stage.submit()

    def work(operation: Operation) -> None:
        event = commented("once").model_copy(update=operation.stamp.model_dump())
        operation.happen(operation.lock([record_id])[record_id], [event])

    for _ in range(3):
        stage.ledger.operate(work, actor=ALICE, request=key())
    assert stage.topics(record_id) == ["created", "commented"]


def test_a_large_answer_comes_back_whole(stage: Stage) -> None:
    entries = [entry(1)] * 5_000
    ask = partial(create_records, stage.ledger, entries, actor=ALICE, find_existing=False)
    assert ask(request=key())["ids"] == ask(request=key())["ids"]
    assert stage.head() == 5_000
    (size,) = stage.ask("SELECT octet_length(answer) FROM idempotency_keys")[0]
    assert size < 15_000


# Another request


def test_a_key_that_was_used_for_something_else_is_refused(stage: Stage) -> None:
    ask = submission(stage)
    ask(key())
    n = stage.head()
    with pytest.raises(
        IdempotencyConflict, match="'key' was used for a different request"
    ) as refused:
        ask(key(body=b"another body"))
    assert refused.value.key == "key"
    assert stage.head() == n


def test_of_different_requests_with_one_key_at_once_only_one_happens(stage: Stage) -> None:
    ask = submission(stage)

    def outcome(n: int) -> object:
        try:
            return ask(key(body=bytes([n])))["ids"]
        except IdempotencyConflict:
            return None

    answers = together(*(partial(outcome, n) for n in range(6)))
    assert len([answer for answer in answers if answer]) == 1
    assert stage.head() == 3


def test_another_actors_key_is_another_key(stage: Stage) -> None:
    ask = submission(stage)
    ids = [*ask(key())["ids"], *ask(key(actor=BOB))["ids"], *ask(key("another"))["ids"]]
    assert len(set(ids)) == 9


# What did not happen


def test_a_refused_request_leaves_no_key(stage: Stage) -> None:
    manager_id, held = stage.running()
    for user, number, refusal in (
        (ALICE, manager_id, NotYourManager),
        (BOB, manager_id + 1, ManagerNotFound),
    ):
        with pytest.raises(refusal):
            relinquish(stage.ledger, number, held, user=user, request=key())
        assert n_keys(stage) == 0
    assert relinquish(stage.ledger, manager_id, held, user=BOB, request=key()) == list(held)


def test_a_request_that_fails_after_its_key_was_kept_leaves_none(stage: Stage) -> None:
    stage.intern("gpu", ("psi4",))

    def work(operation: Operation) -> str:
        operation.happen(RecordAggregate(1), [created()])
        return "done"

    assert stage.ledger.operate(work, actor=ALICE, request=key("first")) == "done"
    with pytest.raises(UniqueViolation, match="records_pkey"):
        stage.ledger.operate(work, actor=ALICE, request=key("second"))
    assert stage.ask("SELECT key FROM idempotency_keys") == [("first",)]


def test_old_keys_are_forgotten_a_slice_at_a_time(stage: Stage) -> None:
    ask = submission(stage)
    for number in range(5):
        ask(key(str(number)))
    stage.do("UPDATE idempotency_keys SET created_at = created_at - interval '2 d' WHERE key < '3'")
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with stage.ledger.datastore.writing() as db:
            forgotten.append(idempotency.forget(db, older_than_s=86_400, limit=2))
    assert forgotten == [2, 1, 0]
    assert stage.ask("SELECT key FROM idempotency_keys ORDER BY key") == [("3",), ("4",)]
