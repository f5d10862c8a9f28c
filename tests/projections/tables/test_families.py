"""Families: every row of the specification's table of propagation, on a live PostgreSQL."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from uuid import UUID

import pytest

from recordledger.domain.errors import CircularFamily, RecordNotFound, WrongKind
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.records.status import Status
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.actions.services import finish_service, iterate_service, start_service
from recordledger.projections.tables import families

from ..stage import ALICE, RUNNER, Stage, bad, good, together

# How wide the wide family is: 100,000 as in the specification takes half a minute.
WIDTH = int(os.environ.get("RECORDLEDGER_TEST_FAMILY_WIDTH", "4000"))


def complete(stage: Stage, *ids: int) -> None:
    """Let these waiting tasks be computed, and no others."""
    others = [id_ for id_ in stage.queue() if id_ not in ids]
    if others:
        stage.done(Action.hold, *others)
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    assert set(held) == set(ids)
    stage.hand_in(manager_id, held)
    if others:
        stage.done(Action.release, *others)


def err(stage: Stage, *ids: int) -> None:
    """Let these waiting tasks end with an error."""
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    assert set(held) == set(ids)
    stage.hand_in(manager_id, held, bad())


# Relations


def test_a_service_has_its_children_and_they_have_their_parents(stage: Stage) -> None:
    ids = stage.submit(3)
    parent, other = stage.service(*ids), stage.service(ids[1])
    with stage.ledger.datastore.reading() as db:
        assert families.relatives(db, parent, "children", 0, 10) == ids
        assert families.relatives(db, parent, "children", ids[0], 1) == [ids[1]]
        assert families.relatives(db, ids[1], "parents", 0, 10) == [parent, other]
        assert families.relatives(db, ids[0], "children", 0, 10) == []
    iterate_service(stage.ledger, parent, b"{}", [ids[0]], runner=RUNNER)
    assert stage.record(parent).iteration == 2
    stage.require_equal()


def test_nobody_becomes_a_child_of_itself_or_of_its_descendants(stage: Stage) -> None:
    [leaf] = stage.submit(1)
    bottom = stage.service(leaf)
    middle = stage.service(bottom)
    top = stage.service(middle)
    before = stage.head()
    for parent, child in ((top, top), (bottom, top), (bottom, middle), (middle, top)):
        with pytest.raises(CircularFamily) as caught:
            stage.adopt_children(parent, [leaf, child])
        assert (caught.value.parent_id, caught.value.child_id) == (parent, child)
    assert stage.head() == before
    stage.adopt_children(top, [leaf, bottom])
    stage.require_equal()


def test_two_relations_at_once_do_not_close_a_circle(stage: Stage) -> None:
    for _ in range(5):
        services = stage.services(3)
        for each in services:
            start_service(stage.ledger, each, runner=RUNNER)

        def adopt(parent: int, child: int) -> Callable[[], str]:
            def work() -> str:
                try:
                    stage.adopt_children(parent, [child])
                except CircularFamily:
                    return "refused"
                return "adopted"

            return work

        first, second, third = services
        answers = together(adopt(first, second), adopt(second, third), adopt(third, first))
        assert sorted(answers) == ["adopted", "adopted", "refused"]
    stage.require_equal()


def test_only_what_is_there_becomes_a_child_and_only_of_a_service(stage: Stage) -> None:
    [task, child] = stage.submit(2)
    service = stage.service()
    with pytest.raises(RecordNotFound):
        stage.adopt_children(service, [child, 999])
    stage.claim(stage.manager())
    with pytest.raises(WrongKind):
        stage.adopt_children(task, [child])
    assert stage.record(service).iteration == 1


# Cancel


def test_cancelling_and_uncancelling_a_service(stage: Stage) -> None:
    done, open_ = stage.submit(2)
    parent = stage.service(done, open_)
    complete(stage, done)
    managed = stage.order(Action.cancel, parent)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 0)
    assert stage.statuses(parent, done, open_) == {
        parent: "cancelled",
        done: "complete",
        open_: "cancelled",
    }
    assert stage.events(open_)[-1].cause == parent
    managed = stage.order(Action.uncancel, parent)
    assert managed["n_children_updated"] == 1
    assert stage.statuses(parent, done, open_) == {
        parent: "waiting",
        done: "complete",
        open_: "waiting",
    }
    assert stage.events(open_)[-1].cause == parent
    start_service(stage.ledger, parent, runner=RUNNER)
    assert stage.record(parent).iteration == 1
    stage.require_equal()


def test_cancelling_and_uncancelling_a_child(stage: Stage) -> None:
    first, second = stage.submit(2)
    parent = stage.service(first, second)
    grandparent = stage.service(parent)
    managed = stage.order(Action.cancel, first)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 2)
    assert set(stage.statuses(first, second, parent, grandparent).values()) == {"cancelled"}
    managed = stage.order(Action.uncancel, first)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 2)
    assert set(stage.statuses(first, second, parent, grandparent).values()) == {"waiting"}
    stage.require_equal()


def test_uncancelling_brings_back_what_has_not_changed_since(stage: Stage) -> None:
    first, second, third = stage.submit(3)
    parent = stage.service(first, second, third)
    stage.done(Action.cancel, parent)
    stage.done(Action.delete, second, delete_children=False)
    assert stage.statuses(parent, second) == {parent: "deleted", second: "deleted"}
    stage.done(Action.undelete, parent)
    assert stage.statuses(parent, second) == {parent: "cancelled", second: "cancelled"}
    stage.done(Action.uncancel, third)
    # Deleting and undeleting are changes, so these two are left to people.
    assert stage.statuses(parent, first, second, third) == {
        parent: "cancelled",
        first: "waiting",
        second: "cancelled",
        third: "waiting",
    }
    stage.require_equal()


def four_services(stage: Stage, *, finished: bool) -> tuple[list[int], list[int]]:
    """Return four services in a row, each of which shares a child with the next."""
    children = stage.submit(5)
    services = [stage.service(*children[index : index + 2]) for index in range(4)]
    if finished:
        complete(stage, *children)
        for each in services:
            stage.finish(each, good())
    else:
        held = stage.services(1)
        stage.done(Action.hold, *held)
    return services, children


def test_cancelling_one_of_four_services_spares_what_the_others_need(stage: Stage) -> None:
    services, children = four_services(stage, finished=False)
    before = stage.image()
    operation = stage.done(Action.cancel, services[0])
    assert stage.statuses(*services, *children) == {
        **dict.fromkeys(services, "running"),
        **dict.fromkeys(children, "waiting"),
        services[0]: "cancelled",
        children[0]: "cancelled",
    }
    stage.done(Action.uncancel, services[0])
    start_service(stage.ledger, services[0], runner=RUNNER)
    assert stage.statuses(*services) == dict.fromkeys(services, "running")
    assert stage.statuses(*children) == dict.fromkeys(children, "waiting")
    assert stage.image()["claim_queue"] == before["claim_queue"]
    assert {code for _, code, _ in stage.undo(operation)["conflicts"]} == {"changed_since"}
    stage.require_equal()


def test_deleting_one_of_four_finished_services_and_undeleting_it_is_as_before(
    stage: Stage,
) -> None:
    services, children = four_services(stage, finished=True)
    before = stage.image()
    stage.done(Action.delete, services[0])
    assert stage.statuses(*services, *children) == {
        **dict.fromkeys([*services, *children], "complete"),
        services[0]: "deleted",
        children[0]: "deleted",
    }
    stage.done(Action.undelete, services[0])
    assert stage.image() == before
    operation = stage.done(Action.delete, children[2])
    statuses = stage.statuses(*services, *children)
    deleted = {id_ for id_, status in statuses.items() if status == "deleted"}
    assert deleted == {children[2], *services[1:3]}
    stage.undo(operation)
    assert stage.image() == before
    stage.require_equal()


# Delete


def test_deleting_a_service_and_a_child(stage: Stage) -> None:
    children = stage.submit(2)
    parent = stage.service(*children)
    complete(stage, *children)
    stage.finish(parent, good())
    before = stage.image()
    for meant, updated in ((parent, (2, 0)), (children[0], (1, 1))):
        managed = stage.order(Action.delete, meant)
        assert (managed["n_children_updated"], managed["n_parents_updated"]) == updated
        assert set(stage.statuses(parent, *children).values()) == {"deleted"}
        managed = stage.order(Action.undelete, meant)
        assert (managed["n_children_updated"], managed["n_parents_updated"]) == updated
        assert stage.image() == before
    stage.done(Action.delete, parent, delete_children=False)
    assert stage.statuses(parent, *children) == {
        parent: "deleted",
        **dict.fromkeys(children, "complete"),
    }
    stage.done(Action.undelete, parent)
    stage.done(Action.delete, children[1], delete_children=False)
    assert list(stage.statuses(*children, parent).values()) == ["complete", "deleted", "deleted"]
    stage.require_equal()


def test_hard_deleting_a_service_with_and_without_its_children(stage: Stage) -> None:
    for delete_children in (True, False):
        children = stage.submit(2)
        parent = stage.service(*children)
        managed = stage.order(Action.erase, parent, delete_children=delete_children)
        assert managed["n_children_updated"] == 2 * delete_children
        assert list(stage.statuses(parent, *children)) == ([] if delete_children else children)
    assert stage.ask("SELECT count(*) FROM dependencies") == [(0,)]
    stage.require_equal()


def test_hard_deleting_is_refused_with_the_list_of_parents(stage: Stage) -> None:
    [child] = stage.submit(1)
    parents = [stage.service(child), stage.service(child)]
    managed = stage.order(Action.erase, child)
    assert managed["errors"] == [
        (
            0,
            "still_referenced",
            f"record {child} is a child of {parents[0]}, {parents[1]}; delete its parents first",
        )
    ]
    managed = stage.order(Action.erase, child, parents[0])
    assert [code for _, code, _ in managed["errors"]] == ["still_referenced"]
    assert (managed["updated_idx"], managed["n_children_updated"]) == ([1], 0)
    managed = stage.order(Action.erase, child, parents[1])
    assert managed["updated_idx"] == [0, 1]
    assert stage.statuses(child, *parents) == {}
    stage.require_equal()


def test_hard_deleting_a_soft_deleted_family_leaves_nothing(stage: Stage) -> None:
    children = stage.submit(2)
    parent = stage.service(*children)
    top = stage.service(parent)
    stage.done(Action.delete, top)
    assert stage.order(Action.erase, children[0])["errors"][0][1] == "still_referenced"
    stage.done(Action.erase, top)
    assert stage.ask("SELECT count(*) FROM records") == [(0,)]
    stage.require_equal()


# Invalidate


def test_invalidating_a_child_reaches_finished_and_unfinished_parents(stage: Stage) -> None:
    first, second = stage.submit(2)
    finished, unfinished = stage.service(first), stage.service(first, second)
    complete(stage, first)
    stage.finish(finished, good())
    before = stage.image()
    managed = stage.order(Action.invalidate, first)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 2)
    assert stage.statuses(first, second, finished, unfinished) == {
        first: "invalid",
        second: "cancelled",
        finished: "invalid",
        unfinished: "cancelled",
    }
    managed = stage.order(Action.uninvalidate, first)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 2)
    start_service(stage.ledger, unfinished, runner=RUNNER)
    assert stage.image()["claim_queue"] == before["claim_queue"]
    assert stage.statuses(first, second, finished, unfinished) == {
        first: "complete",
        second: "waiting",
        finished: "complete",
        unfinished: "running",
    }
    stage.done(Action.invalidate, first, propagate=False)
    assert stage.statuses(finished, unfinished) == {finished: "complete", unfinished: "running"}
    stage.require_equal()


# Reset and modify


def test_resetting_a_service_resets_its_errored_children_and_no_parent(stage: Stage) -> None:
    good_child, *bad_children = stage.submit(3)
    parent = stage.service(good_child, *bad_children)
    grandparent = stage.service(parent)
    complete(stage, good_child)
    err(stage, *bad_children)
    stage.finish(parent, bad())
    stage.finish(grandparent, bad())
    stage.done(Action.reset, bad_children[0])
    assert stage.statuses(parent, grandparent) == {parent: "error", grandparent: "error"}
    managed = stage.order(Action.reset, parent)
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (1, 0)
    assert stage.statuses(good_child, *bad_children, parent, grandparent) == {
        good_child: "complete",
        **dict.fromkeys(bad_children, "waiting"),
        parent: "waiting",
        grandparent: "error",
    }
    stage.require_equal()


def test_modifying_a_service_modifies_its_unfinished_children_and_no_parent(stage: Stage) -> None:
    done, *open_ = stage.submit(3)
    parent = stage.service(done, *open_)
    complete(stage, done)
    managed = stage.order(Action.modify, parent, tag="cpu", priority=Priority.high)
    assert managed["n_children_updated"] == 2
    assert {stage.record(id_).tag for id_ in (parent, *open_)} == {"cpu"}
    assert stage.record(done).tag == "gpu"
    stage.done(Action.modify, open_[0], tag="other")
    assert {stage.record(id_).tag for id_ in (parent, open_[1])} == {"cpu"}
    stage.require_equal()


@pytest.mark.parametrize("action", [Action.comment, Action.hold, Action.release])
def test_nothing_else_concerns_relatives(stage: Stage, action: Action) -> None:
    children = stage.submit(2)
    [parent] = stage.services(1)
    start_service(stage.ledger, parent, runner=RUNNER)
    stage.adopt_children(parent, children)
    if action is not Action.hold:
        stage.done(Action.hold, children[0])
    before = {id_: stage.record(id_) for id_ in (parent, children[1])}
    managed = stage.order(action, children[0], text="hm")
    assert managed["n_children_updated"] == managed["n_parents_updated"] == 0
    assert {id_: stage.record(id_) for id_ in before} == before


# Refusals


@pytest.mark.parametrize("action", [Action.cancel, Action.reset, Action.uncancel, Action.undelete])
def test_a_refused_record_brings_nothing_about(stage: Stage, action: Action) -> None:
    done, open_ = stage.submit(2)
    parent = stage.service(done, open_)
    complete(stage, done)
    before, head = stage.image(), stage.head()
    managed = stage.order(action, done)
    assert [code for _, code, _ in managed["errors"]] == ["transition_forbidden"]
    assert (stage.image(), stage.head()) == (before, head)
    assert stage.status(parent) is Status.running


# Deep and wide


def test_a_thousand_levels_are_cancelled_deleted_and_brought_back(stage: Stage) -> None:
    n_levels = 1000
    services = stage.services(n_levels)
    # The relations as they are in the table; making them one by one takes longer than all else.
    edges = list(pairwise(services))
    assert len(edges) == n_levels - 1
    link(stage, edges)
    before = stage.image()
    for away, back, meant in (
        (Action.cancel, Action.uncancel, services[0]),
        (Action.cancel, Action.uncancel, services[-1]),
        (Action.delete, Action.undelete, services[n_levels // 2]),
    ):
        managed = stage.order(away, meant)
        assert managed["n_children_updated"] + managed["n_parents_updated"] == n_levels - 1
        stage.order(back, meant)
        assert stage.image() == before


def link(stage: Stage, edges: list[tuple[int, int]]) -> None:
    """Write relations behind the ledger's back."""
    with stage.connected() as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO dependencies VALUES (%s, %s)", edges)


def test_a_wide_family_is_made_cancelled_and_brought_back_in_bounded_memory(stage: Stage) -> None:
    children = [id_ for _ in range(4) for id_ in stage.submit(WIDTH // 4)]
    parent = stage.service()
    for start in range(0, WIDTH, 2_000):
        iterate_service(stage.ledger, parent, b"{}", children[start : start + 2_000], runner=RUNNER)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    managed = stage.order(Action.cancel, children[7])
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (WIDTH - 1, 1)
    operation = UUID(managed["operation_id"])
    managed = stage.order(Action.uncancel, *children[: WIDTH // 2])
    assert managed["errors"] == []
    assert (managed["n_children_updated"], managed["n_parents_updated"]) == (WIDTH // 2, 1)
    assert stage.queue() == children
    if WIDTH < 100_000:  # a dry run has a limit
        dry = stage.undo(operation, dry_run=True)
        assert {code for _, code, _ in dry["conflicts"]} == {"changed_since"}
    stage.done(Action.hold, *children[:10])
    assert time.monotonic() - begin < WIDTH / 400
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown_kb < 500_000
    assert stage.order(Action.reset, children[0])["errors"][0][1] == "transition_forbidden"
    stage.require_equal()


def test_acting_on_a_child_of_a_wide_family_from_many_sides_at_once(stage: Stage) -> None:
    children = stage.submit(40)
    first, second = stage.service(*children[:25]), stage.service(*children[15:])

    def toggle(record_id: int) -> Callable[[], None]:
        def work() -> None:
            for action in (Action.cancel, Action.uncancel) * 3:
                manage(stage.ledger, OperationRequest(action), [record_id], actor=ALICE)

        return work

    together(toggle(children[0]), toggle(children[39]), toggle(first), toggle(second))
    stage.require_equal()


def test_a_service_ends_badly_and_its_result_is_that_of_its_runner(stage: Stage) -> None:
    parent = stage.service()
    outcome, contents = bad("ChildError")
    finish_service(stage.ledger, parent, outcome, contents, runner=RUNNER)
    record = stage.record(parent)
    assert (record.status, record.outcome, record.manager_id) == (Status.error, outcome, None)
