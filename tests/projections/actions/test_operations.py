"""Operations on records: one call is one operation, answered per index, and undone exactly."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from recordledger.domain.errors import IdempotencyConflict, OperationNotFound
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.records.status import Status
from recordledger.projections.actions.managing import relinquish
from recordledger.projections.actions.operations import Managed, OperationRequest, manage
from recordledger.projections.actions.submission import create_records
from recordledger.projections.reading.queries import counts
from recordledger.projections.tables import comments, operations

from ..stage import ALICE, BOB, Stage, bad, entry, good, key, together


def codes(managed: Managed) -> dict[int, str]:
    """Return the codes of the refusals, by index."""
    return {index: code for index, code, _ in managed["errors"]}


def errored(stage: Stage, n: int = 1, **how: object) -> list[int]:
    """Return records with an error."""
    manager_id, held = stage.running(n, **how)
    stage.hand_in(manager_id, held, bad())
    return list(held)


def completed(stage: Stage, n: int = 1) -> list[int]:
    """Return records with a result."""
    manager_id, held = stage.running(n)
    stage.hand_in(manager_id, held, good())
    return list(held)


# One call


def test_one_call_is_one_operation_with_an_actor_and_a_reason(stage: Stage) -> None:
    ids = stage.submit(3)
    order = OperationRequest(Action.cancel)
    managed = manage(stage.ledger, order, ids, actor=BOB, reason="wrong basis set")
    for record_id in ids:
        event = stage.events(record_id)[-1]
        assert isinstance(event, e.Cancelled)
        assert (event.actor, event.reason, event.action) == (BOB, "wrong basis set", "cancel")
        assert (str(event.operation_id), event.cause) == (managed["operation_id"], None)
    with stage.ledger.datastore.reading() as db:
        row = operations.get(db, UUID(managed["operation_id"]))
    assert row[1:4] == ("cancel", BOB, "wrong basis set")
    assert (row.undoes, row.n_changes) == (None, 3)
    stage.require_equal()


def test_the_answer_is_by_index_in_the_order_of_the_caller(stage: Stage) -> None:
    waiting, other = stage.submit(2)
    [done] = completed(stage)[-1:]
    stage.order(Action.cancel, other)
    [late] = stage.submit(1)
    managed = stage.order(Action.cancel, 999, late, done, late, other, 999, waiting)
    assert managed["updated_idx"] == [1]
    assert codes(managed) == {
        0: "not_found",
        2: "transition_forbidden",
        4: "transition_forbidden",
        6: "transition_forbidden",
    }
    [message] = [text for index, _, text in managed["errors"] if index == 2]
    assert message.startswith("a record with status complete cannot be cancelled")
    assert managed["n_children_updated"] == managed["n_parents_updated"] == 0


def test_a_call_that_changes_nothing_leaves_nothing(stage: Stage) -> None:
    before = stage.head()
    for ids in ([], [7], [7, 8, 7]):
        managed = stage.order(Action.reset, *ids)
        assert managed["updated_idx"] == []
        assert len(managed["errors"]) == len(set(ids))
        with stage.ledger.datastore.reading() as db, pytest.raises(OperationNotFound):
            operations.get(db, UUID(managed["operation_id"]))
    assert stage.head() == before


@pytest.mark.parametrize("action", sorted(set(Action) - {Action.undo}))
def test_a_dry_run_says_what_would_happen_and_does_nothing(stage: Stage, action: Action) -> None:
    waiting, held, cancelled, deleted = stage.submit(4)
    stage.order(Action.hold, held)
    stage.order(Action.cancel, cancelled)
    stage.order(Action.delete, deleted)
    ids = [waiting, held, cancelled, deleted, 999]
    order = OperationRequest(action, tag="elsewhere", text="hm")
    before, image = stage.head(), stage.image()
    dry = manage(stage.ledger, order, ids, actor=ALICE, dry_run=True)
    assert (stage.head(), stage.image()) == (before, image)
    real = manage(stage.ledger, order, ids, actor=ALICE)
    assert (dry["updated_idx"], dry["errors"]) == (real["updated_idx"], real["errors"])
    stage.require_equal()


def test_a_repeated_request_has_one_effect_and_one_answer(stage: Stage) -> None:
    ids = stage.submit(2)
    order = OperationRequest(Action.cancel)
    first = manage(stage.ledger, order, [*ids, 99], actor=ALICE, request=key("once"))
    before = stage.head()
    again = manage(stage.ledger, order, [*ids, 99], actor=ALICE, request=key("once"))
    assert again["operation_id"] == first["operation_id"]
    assert again["updated_idx"] == first["updated_idx"] == [0, 1]
    assert [tuple(error) for error in again["errors"]] == first["errors"]
    assert stage.head() == before
    with pytest.raises(IdempotencyConflict):
        manage(stage.ledger, order, ids, actor=ALICE, request=key("once", b"another"))


def test_modifying_names_a_routing_key_that_was_never_used(stage: Stage) -> None:
    low, high = stage.submit(2)
    stage.done(Action.modify, high, tag="new", priority=Priority.high)
    record = stage.record(high)
    assert (record.tag, record.priority) == ("new", Priority.high)
    assert list(stage.claim(stage.manager("new"))) == [high]
    assert stage.queue() == [low]
    stage.require_equal()


def test_modifying_to_what_it_is_changes_nothing(stage: Stage) -> None:
    [record_id] = stage.submit(1)
    before = stage.head()
    managed = stage.order(Action.modify, record_id, tag="gpu", priority=Priority.normal)
    assert (managed["updated_idx"], stage.head()) == ([0], before)


def test_comments_are_listed_with_author_and_time(stage: Stage) -> None:
    [record_id] = stage.submit(1)
    stage.done(Action.comment, record_id, text="first", actor=BOB)
    stage.done(Action.cancel, record_id)
    stage.done(Action.comment, record_id, text="second")
    with stage.ledger.datastore.reading() as db:
        found = comments.page(db, record_id, 0, 10)
        assert comments.page(db, record_id, found[0].version, 10) == found[1:]
    assert [(each.author, each.text) for each in found] == [(BOB, "first"), (ALICE, "second")]
    assert found[0].commented_at < found[1].commented_at
    stage.require_equal()


def test_a_resubmitted_record_and_the_new_one_name_each_other(stage: Stage) -> None:
    first, second = errored(stage, 2)
    [waiting] = stage.submit(1)
    managed = stage.order(Action.resubmit, second, waiting, first)
    assert codes(managed) == {1: "transition_forbidden"}
    assert set(managed["new_ids"]) == {0, 2}
    for index, old_id in ((0, second), (2, first)):
        new_id = managed["new_ids"][index]
        old, new = stage.record(old_id), stage.record(new_id)
        assert (old.status, new.status) == (Status.error, Status.waiting)
        assert (new.spec, new.tag, new.function) == (old.spec, old.tag, old.function)
        [created], [*_, resubmitted] = stage.events(new_id), stage.events(old_id)
        assert isinstance(created, e.Created)
        assert isinstance(resubmitted, e.Resubmitted)
        assert (created.resubmission_of, resubmitted.new_record_id) == (old_id, new_id)
    stage.require_equal()


def test_operations_are_listed_newest_first(stage: Stage) -> None:
    ids = stage.submit(2)
    done = [stage.done(Action.hold, *ids), stage.done(Action.release, *ids)]
    done.append(stage.done(Action.cancel, *ids, actor=BOB))
    with stage.ledger.datastore.reading() as db:
        found = operations.page(db, 10)
        assert [row.id for row in found] == done[::-1]
        assert [row.id for row in operations.page(db, 10, actor=BOB)] == [done[2]]
        assert [row.id for row in operations.page(db, 10, action="hold")] == [done[0]]
        place = (found[0].started_at, found[0].id)
        assert operations.page(db, 1, before=place) == [found[1]]
        assert found[0].started_at - found[2].started_at < timedelta(minutes=5)


# Place in the queue


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (Action.cancel, Action.uncancel),
        (Action.delete, Action.undelete),
        (Action.hold, Action.release),
    ],
)
def test_who_comes_back_has_the_old_place_in_the_queue(
    stage: Stage, away: Action, back: Action
) -> None:
    ids = stage.submit(4)
    stage.done(away, ids[0], ids[2])
    assert stage.queue() == [ids[1], ids[3]]
    stage.done(back, ids[2], ids[0])
    assert stage.queue() == ids
    assert list(stage.claim(stage.manager())) == ids


def test_what_was_given_back_or_reset_has_the_old_place_in_the_queue(stage: Stage) -> None:
    manager_id, held = stage.running(4)
    ids = list(held)
    stage.hand_in(manager_id, {ids[1]: 1}, bad())
    relinquish(stage.ledger, manager_id, {ids[2]: 1, ids[0]: 1}, user=BOB)
    later = stage.submit(1)
    stage.done(Action.reset, ids[1])
    assert list(stage.claim(stage.manager())) == [*ids[:3], *later]


# Adopting


def with_late_result(stage: Stage) -> int:
    """Return a waiting record whose first attempt was answered late."""
    tag = f"late-{stage.head()}"
    [record_id] = stage.submit(1, tag=tag)
    manager_id = stage.manager(tag)
    held = stage.claim(manager_id)
    relinquish(stage.ledger, manager_id, held, user=BOB)
    assert stage.hand_in(manager_id, held, good())["late_idx"] == [0]
    return record_id


def test_a_late_result_is_adopted_and_the_running_attempt_is_stale(stage: Stage) -> None:
    record_id = with_late_result(stage)
    second = stage.manager()
    held = stage.claim(second)
    stage.done(Action.adopt, record_id)
    record = stage.record(record_id)
    assert (record.status, record.manager_id) == (Status.complete, None)
    assert record.outcome == good()[0]
    assert stage.hand_in(second, held, bad())["late_idx"] == [0]
    assert codes(stage.order(Action.adopt, record_id)) == {0: "transition_forbidden"}
    stage.require_equal()


def test_only_a_good_late_result_of_the_attempt_that_was_named_is_adopted(stage: Stage) -> None:
    manager_id, held = stage.running(1)
    [record_id] = held
    relinquish(stage.ledger, manager_id, held, user=BOB)
    stage.hand_in(manager_id, held, bad())
    assert codes(stage.order(Action.adopt, record_id)) == {0: "nothing_to_adopt"}
    again = with_late_result(stage)
    assert codes(stage.order(Action.adopt, again, attempt=2)) == {0: "nothing_to_adopt"}
    assert codes(stage.order(Action.adopt, 999)) == {0: "not_found"}
    stage.done(Action.adopt, again, attempt=1)


# Undo


def prepared(stage: Stage, action: Action) -> list[int]:
    """Return records to which an action can be done, in different circumstances."""
    waiting = stage.submit(2)
    match action:
        case Action.reset | Action.fail:
            return errored(stage, 2, retries=0)
        case Action.revive:
            ids = errored(stage, 2)
            stage.done(Action.fail, *ids)
            return ids
        case Action.uncancel:
            ids = [*waiting, *errored(stage)[-1:]]
            stage.done(Action.cancel, ids[-1])
            return ids[-1:]
        case Action.undelete:
            ids = [*completed(stage), *stage.submit(1)]
            stage.done(Action.cancel, ids[-1])
            stage.done(Action.delete, *ids)
            return ids
        case Action.invalidate:
            return completed(stage)
        case Action.uninvalidate:
            ids = completed(stage)
            stage.done(Action.invalidate, *ids)
            return ids
        case Action.release:
            stage.done(Action.hold, *waiting)
            return waiting
        case Action.adopt:
            ids = [with_late_result(stage), with_late_result(stage)]
            stage.done(Action.hold, ids[1])
            return ids
        case Action.cancel | Action.delete | Action.modify:
            stage.done(Action.hold, waiting[1])
            return [*waiting, *errored(stage)[-1:]]
        case _:
            return waiting


UNDOABLE = sorted(
    set(Action) - {Action.undo, Action.comment, Action.resubmit, Action.erase},
)


@pytest.mark.parametrize("action", UNDOABLE)
def test_an_undo_restores_the_projections_exactly_and_is_undone(
    stage: Stage, action: Action
) -> None:
    ids = prepared(stage, action)
    before = stage.image()
    options = {"tag": "cpu", "priority": Priority.high} if action is Action.modify else {}
    operation = stage.done(action, *ids, **options)
    done = stage.image()
    assert done != before
    dry = stage.undo(operation, dry_run=True)
    assert stage.image() == done
    undone = stage.undo(operation)
    assert (undone["n_undone"], undone["conflicts"]) == (len(ids), [])
    assert (dry["n_undone"], dry["conflicts"]) == (len(ids), [])
    assert stage.image() == before
    redone = stage.undo(UUID(undone["operation_id"]))
    assert stage.image() == done
    stage.undo(UUID(redone["operation_id"]))
    assert stage.image() == before
    with stage.ledger.datastore.reading() as db:
        assert operations.undone_by(db, operation) == [UUID(undone["operation_id"])]
        assert operations.get(db, UUID(undone["operation_id"])).undoes == operation
    for record_id in ids:
        assert stage.events(record_id)[-1].undoes == UUID(redone["operation_id"])
    stage.require_equal()


def test_what_ran_when_it_was_cancelled_or_adopted_waits_after_the_undo(stage: Stage) -> None:
    record_id = with_late_result(stage)
    other = stage.manager()
    for attempt, action in enumerate((Action.adopt, Action.cancel, Action.delete), start=2):
        assert stage.claim(other) == {record_id: attempt}
        operation = stage.done(action, record_id)
        assert stage.undo(operation)["n_undone"] == 1
        assert (stage.status(record_id), stage.queue()) == (Status.waiting, [record_id])
    assert stage.hand_in(other, stage.claim(other), good())["accepted_idx"] == [0]
    stage.require_equal()


def test_a_record_that_has_changed_since_is_listed_and_left_as_it_is(stage: Stage) -> None:
    ids = errored(stage, 4)
    operation = stage.done(Action.reset, *ids)
    stage.done(Action.cancel, ids[1])
    stage.done(Action.comment, ids[2], text="hm")
    [claimed] = stage.claim(stage.manager(), 1)
    assert claimed == ids[0]
    before = [stage.record(id_) for id_ in ids[:2]]
    undone = stage.undo(operation)
    assert undone["n_undone"] == 2
    assert [(id_, code) for id_, code, _ in undone["conflicts"]] == [
        (ids[0], "changed_since"),
        (ids[1], "changed_since"),
    ]
    assert [text.split("has been ")[1] for *_, text in undone["conflicts"]] == [
        "claimed since then; it was left unchanged",
        "cancelled since then; it was left unchanged",
    ]
    assert [stage.record(id_) for id_ in ids[:2]] == before
    assert list(stage.statuses(*ids).values()) == ["running", "cancelled", "error", "error"]
    assert stage.undo(operation)["n_undone"] == 0
    stage.require_equal()


def test_what_was_said_or_made_anew_is_not_taken_back(stage: Stage) -> None:
    [record_id] = errored(stage)
    comment = stage.done(Action.comment, record_id, text="hm")
    resubmission = stage.done(Action.resubmit, record_id)
    for operation, n in ((comment, 1), (resubmission, 2)):
        undone = stage.undo(operation)
        assert [code for _, code, _ in undone["conflicts"]] == ["not_undoable"] * n
    stage.done(Action.cancel, record_id)
    erasure = stage.done(Action.erase, record_id)
    assert [code for _, code, _ in stage.undo(erasure)["conflicts"]] == ["not_found"]
    for unknown in (uuid4(), UUID(int=0)):
        with pytest.raises(OperationNotFound):
            stage.undo(unknown)


def test_what_nobody_ordered_is_no_operation_to_undo(stage: Stage) -> None:
    submitted = create_records(stage.ledger, [entry("x")], actor=ALICE)
    with pytest.raises(OperationNotFound):
        stage.undo(UUID(submitted["operation_id"]))


def test_of_two_undos_at_once_one_finds_nothing_left_to_do(stage: Stage) -> None:
    ids = stage.submit(50)
    operation = stage.done(Action.cancel, *ids)
    answers = together(lambda: stage.undo(operation), lambda: stage.undo(operation))
    assert sorted(answer["n_undone"] for answer in answers) == [0, 50]
    assert stage.queue() == ids
    stage.require_equal()


def test_the_counts_follow(stage: Stage) -> None:
    ids = stage.submit(5)
    operation = stage.done(Action.cancel, *ids[:3])
    stage.done(Action.delete, *ids[2:4])
    found = counts(stage.ledger)
    assert (found[Status.waiting], found[Status.cancelled], found[Status.deleted]) == (1, 2, 2)
    stage.undo(operation)
    assert counts(stage.ledger)[Status.waiting] == 3
