"""Submissions: new records in the order of their entries, and never two of the same by accident."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Final

import pytest

from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Priority
from recordledger.domain.records.record import fold
from recordledger.domain.records.status import Status
from recordledger.projections.actions.managing import return_results
from recordledger.projections.actions.submission import NewRecord, Submitted, create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.reading.queries import payload_contents
from recordledger.projections.tables.payloads import payload_of, store

from ..stage import (
    ALICE,
    BOB,
    MESSAGE,
    OK,
    TRACEBACK,
    Stage,
    bad,
    entry,
    good,
    result,
    spec,
    together,
)

# How a record gets into each status, from waiting.
INTO: Final[dict[Status, tuple[type[Event], ...]]] = {
    Status.waiting: (),
    Status.held: (e.Held,),
    Status.cancelled: (e.Cancelled,),
    Status.deleted: (e.SoftDeleted,),
}
GIVEN_BACK: Final = (Status.waiting, Status.held)


def submit(stage: Stage, *entries: NewRecord, find_existing: bool = True) -> Submitted:
    return create_records(stage.ledger, entries, actor=ALICE, find_existing=find_existing)


# New records


def test_ids_ascend_in_the_order_of_the_entries(stage: Stage) -> None:
    entries = [entry(x, tag=f"t{x % 3}", priority=Priority(x % 3)) for x in range(50)]
    random.Random(1).shuffle(entries)  # noqa: S311
    submitted = submit(stage, *entries)
    ids = submitted["ids"]
    assert ids == sorted(set(ids))
    assert submitted["existing_idx"] == []
    for record_id, made_from in zip(ids, entries, strict=True):
        record = stage.record(record_id)
        assert record.spec == made_from.specification.payload
        assert (record.tag, record.priority) == (made_from.tag, made_from.priority)
    stage.require_equal()


def test_a_new_record_is_what_its_entry_says(stage: Stage) -> None:
    made_from = entry(
        "H2O", programs=["Psi4>=1.9", "rdkit"], tag="*", priority=Priority.high, retries=3
    )
    (record_id,) = submit(stage, made_from)["ids"]
    record = stage.record(record_id)
    assert record.status is Status.waiting
    assert record.function == "psi4"
    assert record.required_programs == ("psi4>=1.9", "rdkit")
    assert (record.tag, record.priority, record.retry.retries) == ("*", Priority.high, 3)
    assert (record.owner, record.version, record.attempt) == (ALICE, 1, 0)
    assert record.created_at == record.modified_at
    assert record == fold(record_id, stage.events(record_id))
    assert stage.queue() == [record_id]


def test_nothing_submitted_is_nothing_changed(stage: Stage) -> None:
    assert submit(stage)["ids"] == []
    assert stage.head() == 0


# Finding what exists


def test_the_same_specification_gives_back_the_same_record(stage: Stage) -> None:
    first = submit(stage, entry(1), entry(2))
    again = submit(stage, entry(3), entry(2), entry(1))
    assert again["ids"][1:] == first["ids"][::-1]
    assert again["existing_idx"] == [1, 2]
    assert again["ids"][0] > max(first["ids"])
    assert stage.head() == 3


def test_equal_entries_of_one_submission_become_one_record(stage: Stage) -> None:
    submitted = submit(stage, entry(1), entry(2), entry(1), entry(1))
    one, two, *rest = submitted["ids"]
    assert rest == [one, one]
    assert two == one + 1
    assert submitted["existing_idx"] == [2, 3]
    assert stage.head() == 2


def test_tag_priority_and_retries_do_not_make_a_specification_another(stage: Stage) -> None:
    (first,) = submit(stage, entry(1, tag="gpu"))["ids"]
    again = submit(stage, entry(1, tag="cpu", priority=Priority.high, retries=2))
    assert again["ids"] == [first]
    assert stage.record(first).tag == "gpu"


def test_function_arguments_and_programs_do(stage: Stage) -> None:
    others = (
        spec(1),
        spec(1.0),
        spec(2),
        spec(1, function="xtb"),
        spec(1, programs=["psi4"]),
        spec(1, programs=["psi4>=1.9"]),
    )
    entries = [NewRecord(other, "gpu", Priority.normal) for other in others]
    assert len(set(submit(stage, *entries)["ids"])) == len(others)


@pytest.mark.parametrize("status", INTO)
def test_a_record_is_given_back_unless_it_was_put_away(stage: Stage, status: Status) -> None:
    (first,) = submit(stage, entry(1))["ids"]
    stage.happen(first, *INTO[status])
    assert stage.status(first) is status
    again = submit(stage, entry(1))
    assert (again["ids"] == [first]) is (status in GIVEN_BACK)
    assert bool(again["existing_idx"]) is (status in GIVEN_BACK)


@pytest.mark.parametrize("status", [Status.complete, Status.error, Status.failed, Status.invalid])
def test_a_finished_record_is_given_back_unless_it_is_invalid(stage: Stage, status: Status) -> None:
    (first,) = submit(stage, entry(1))["ids"]
    manager_id = stage.manager()
    wrong = status in (Status.error, Status.failed)
    stage.hand_in(manager_id, stage.claim(manager_id), bad() if wrong else good())
    if status is Status.failed:
        stage.happen(first, e.Failed)
    if status is Status.invalid:
        stage.happen(first, e.Invalidated)
    assert stage.status(first) is status
    assert (submit(stage, entry(1))["ids"] == [first]) is (status is not Status.invalid)


def test_the_oldest_that_was_not_put_away_is_given_back(stage: Stage) -> None:
    ids = submit(stage, *[entry(1)] * 4, find_existing=False)["ids"]
    assert len(set(ids)) == 4
    assert submit(stage, entry(1))["ids"] == [ids[0]]
    stage.happen(ids[0], e.Cancelled)
    stage.happen(ids[1], e.SoftDeleted)
    assert submit(stage, entry(1))["ids"] == [ids[2]]
    stage.happen(ids[0], e.Uncancelled)
    assert submit(stage, entry(1))["ids"] == [ids[0]]


def test_an_erased_record_is_not_given_back(stage: Stage) -> None:
    (first,) = submit(stage, entry(1))["ids"]
    stage.happen(first, e.Erased)
    again = submit(stage, entry(1))
    assert again["ids"] != [first]
    assert again["existing_idx"] == []
    stage.require_equal()


def test_a_result_with_the_bytes_of_a_specification_is_not_taken_for_it(stage: Stage) -> None:
    _, held = stage.running()
    canonical = entry("later").specification.canonical
    manager_id = stage.record(next(iter(held))).manager_id
    assert manager_id is not None
    stage.hand_in(manager_id, held, good(canonical))
    again = submit(stage, entry("later"))
    assert again["existing_idx"] == []
    assert again["ids"][0] not in held


def test_without_find_existing_every_entry_is_a_record(stage: Stage) -> None:
    (first,) = submit(stage, entry(1))["ids"]
    more = submit(stage, entry(1), entry(1), find_existing=False)
    assert len({first, *more["ids"]}) == 3
    assert more["existing_idx"] == []


# Payloads


def test_a_specification_is_stored_once_however_many_records_have_it(stage: Stage) -> None:
    same = entry(1)
    ids = submit(stage, *[same] * 5, find_existing=False)["ids"]
    ids += submit(stage, same, same, find_existing=False)["ids"]
    digest = same.specification.payload.digest
    assert stage.ask("SELECT digest, size_bytes FROM payloads") == [
        (digest, len(same.specification.canonical))
    ]
    assert payload_contents(stage.ledger, [digest]) == {digest: same.specification.canonical}
    references = stage.ask("SELECT digest, number FROM payload_references ORDER BY 2")
    assert references == [(digest, record_id) for record_id in ids]


def test_a_record_refers_to_all_that_its_history_names(stage: Stage) -> None:
    manager_id, held = stage.running(2, retries=1)
    one, two = held
    stage.hand_in(manager_id, {one: 1}, bad())
    stage.hand_in(manager_id, stage.claim(manager_id), good())
    stage.happen(two, e.Cancelled)
    stage.hand_in(manager_id, {two: 1}, good(b"late"))
    expected = {
        (payload_of(content).digest, record_id)
        for record_id, contents in {
            one: (OK, MESSAGE, TRACEBACK),
            two: (b"late",),
        }.items()
        for content in contents
    }
    for record_id in held:
        found = stage.record(record_id).spec
        assert found is not None
        expected.add((found.digest, record_id))
    assert set(stage.ask("SELECT digest, number FROM payload_references")) == expected
    stage.require_equal()


def test_an_erased_record_refers_to_nothing(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    stage.hand_in(manager_id, held)
    gone, kept = held
    stage.happen(gone, e.Erased)
    assert {row[0] for row in stage.ask("SELECT number FROM payload_references")} == {kept}
    stage.require_equal()


def test_a_record_that_is_made_and_erased_at_once_leaves_nothing(stage: Stage) -> None:
    specification = spec(1)
    stage.intern("gpu")

    def work(operation: Operation) -> None:
        store(operation.db, {specification.payload.digest: specification.canonical})
        common = operation.stamp.model_dump()
        born = e.Created(
            kind=e.Kind.task,
            spec=specification.payload,
            function="psi4",
            required_programs=(),
            tag="gpu",
            priority=Priority.normal,
            **common,
        )
        operation.happen(fold(1, []), [born, e.Erased(**common)])

    stage.ledger.operate(work, actor=ALICE)
    stage.require_equal()
    assert stage.ask("SELECT count(*) FROM payload_references") == [(0,)]


# Several at once


@pytest.mark.parametrize("old", [False, True])
def test_submissions_at_once_make_no_duplicates_and_no_deadlock(stage: Stage, *, old: bool) -> None:
    chance = random.Random(int(old))  # noqa: S311
    for round_ in range(8):
        names = [f"{round_}/{x}" for x in range(40)]
        if old:  # Half are there already; of these, half were put away and must be made again.
            ids = submit(stage, *map(entry, names[:20]))["ids"]
            for record_id in ids[::2]:
                stage.happen(record_id, e.Cancelled)
        orders = [chance.sample(names, 30) for _ in range(3)]
        answers = together(*(partial(submit, stage, *map(entry, order)) for order in orders))
        made: dict[str, set[int]] = {}
        for order, answer in zip(orders, answers, strict=True):
            for name, record_id in zip(order, answer["ids"], strict=True):
                made.setdefault(name, set()).add(record_id)
        assert {len(ids) for ids in made.values()} == {1}
    live = stage.ask("SELECT spec FROM records WHERE status = 'waiting'")
    assert set(Counter(live).values()) == {1}
    stage.require_equal()


def test_submissions_returns_and_claims_at_once_do_not_lock_each_other(stage: Stage) -> None:
    managers = [stage.manager(), stage.manager()]
    # Results with the bytes of specifications: both sides write the same payloads.
    names = [f"same {x}" for x in range(60)]
    contents = [entry(name).specification.canonical for name in names]

    def compute(manager_id: int, seed: int) -> int:
        chance, n = random.Random(seed), 0  # noqa: S311
        for _ in range(12):
            held = stage.claim(manager_id, 10)
            results = [result(id_, a, good(chance.choice(contents))) for id_, a in held.items()]
            chance.shuffle(results)
            answer = return_results(stage.ledger, manager_id, results, user=BOB)
            n += len(answer["accepted_idx"])
        return n

    def submit_some(seed: int) -> int:
        chance = random.Random(seed)  # noqa: S311
        for _ in range(12):
            submit(stage, *map(entry, chance.sample(names, 20)))
        return 0

    counts = together(
        lambda: compute(managers[0], 1),
        lambda: compute(managers[1], 2),
        lambda: submit_some(3),
        lambda: submit_some(4),
    )
    assert stage.ask("SELECT count(*) FROM records WHERE status = 'complete'") == [(sum(counts),)]
    stage.require_equal()
