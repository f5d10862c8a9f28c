"""What an operation brings about in a family: each row of the specification, and every family."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.commands import Change
from recordledger.domain.records.events import EVENT_OF, Event
from recordledger.domain.records.propagation import (
    RESTORES,
    UNFINISHED,
    Consequence,
    Family,
    consequences,
)
from recordledger.domain.records.record import RecordAggregate, decide, evolve, inverse
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS
from tests.examples import HISTORIES, ONE_OF_EACH, given, rerouted, stamp
from tests.sizes import N_FAMILIES_TAKEN_BACK

Edges = Iterable[tuple[int, int]]

W, R, C, X = Status.waiting, Status.running, Status.complete, Status.error
CANCELLED, DELETED, INVALID = Status.cancelled, Status.deleted, Status.invalid
HELD, FAILED = Status.held, Status.failed
EXAMPLE: dict[Status, RecordAggregate] = {
    status: given(*history).record for status, history in HISTORIES.items()
}


def records_in(statuses: Mapping[int, Status]) -> dict[int, RecordAggregate]:
    """Return records in these statuses, by id."""
    return {id_: replace(EXAMPLE[status], id=id_) for id_, status in statuses.items()}


def topics(found: Iterable[Consequence]) -> dict[int, str]:
    """Return what happens to whom."""
    return {each.record_id: each.event_type.topic for each in found}


def after(
    action: Action,
    meant: int | Sequence[int],
    edges: Edges,
    statuses: Mapping[int, Status],
    **how: Any,
) -> dict[int, str]:
    """Return what an action brings about, by relative."""
    ids = [meant] if isinstance(meant, int) else meant
    return topics(consequences(action, ids, Family.of(edges), records_in(statuses), **how))


# The family of the examples: 1 asks for 10 and 11

TWO_CHILDREN = [(1, 10), (1, 11)]
# Services 1 to 4; each shares a child with the next.
FOUR_SERVICES = [(1, 10), (1, 12), (2, 12), (2, 23), (3, 23), (3, 34), (4, 34), (4, 40)]
# 1 asks for 2 and 3, and both ask for 4.
DIAMOND = [(1, 2), (1, 3), (2, 4), (3, 4)]


# Cancel


def test_cancelling_a_service_cancels_its_unfinished_children() -> None:
    assert after(Action.cancel, 1, TWO_CHILDREN, {1: R, 10: W, 11: C}) == {10: "cancelled"}


def test_the_unfinished_are_those_that_may_still_be_computed() -> None:
    assert {W, R, X, HELD} == UNFINISHED


@pytest.mark.parametrize("status", Status)
def test_the_unfinished_are_cancelled_and_the_others_stay(status: Status) -> None:
    found = after(Action.cancel, 1, TWO_CHILDREN, {1: R, 10: status, 11: status})
    assert found == (dict.fromkeys((10, 11), "cancelled") if status in UNFINISHED else {})
    found = after(Action.cancel, 10, TWO_CHILDREN, {1: status, 10: W, 11: C})
    assert found == ({1: "cancelled"} if status in UNFINISHED else {})


def test_cancelling_a_child_cancels_its_service_and_then_its_other_children() -> None:
    assert after(Action.cancel, 10, TWO_CHILDREN, {1: R, 10: W, 11: W}) == {
        1: "cancelled",
        11: "cancelled",
    }


def test_a_child_that_another_live_service_needs_is_not_cancelled() -> None:
    statuses = {1: R, 2: R, 3: R, 4: R, 10: W, 12: W, 23: W, 34: W, 40: W}
    assert after(Action.cancel, 1, FOUR_SERVICES, statuses) == {10: "cancelled"}
    both = after(Action.cancel, [1, 2], FOUR_SERVICES, statuses)
    assert both == dict.fromkeys((10, 12), "cancelled")


def test_a_service_that_has_ended_needs_nobody() -> None:
    for ended in (C, CANCELLED, DELETED, INVALID, FAILED):
        assert after(Action.cancel, 1, [(1, 10), (2, 10)], {1: R, 2: ended, 10: W}) == {
            10: "cancelled"
        }


def test_cancelling_a_shared_child_cancels_all_that_need_it() -> None:
    statuses = {1: R, 2: R, 3: R, 4: R, 10: W, 12: W, 23: W, 34: W, 40: W}
    assert after(Action.cancel, 12, FOUR_SERVICES, statuses) == dict.fromkeys(
        (1, 2, 10), "cancelled"
    )


# Soft delete


def test_deleting_a_service_deletes_its_children_or_not() -> None:
    statuses = {1: C, 10: C, 11: X}
    assert after(Action.delete, 1, TWO_CHILDREN, statuses) == dict.fromkeys(
        (10, 11), "soft_deleted"
    )
    assert after(Action.delete, 1, TWO_CHILDREN, statuses, down=False) == {}


def test_deleting_a_child_deletes_its_parents_whatever_they_are() -> None:
    for status in set(Status) - {DELETED}:
        found = after(Action.delete, 10, TWO_CHILDREN, {1: status, 10: W, 11: C})
        assert found == dict.fromkeys((1, 11), "soft_deleted")
        found = after(Action.delete, 10, TWO_CHILDREN, {1: status, 10: W, 11: C}, down=False)
        assert found == {1: "soft_deleted"}


def test_deleting_a_child_leaves_a_parent_that_is_deleted_and_its_other_children() -> None:
    assert after(Action.delete, 10, TWO_CHILDREN, {1: DELETED, 10: W, 11: C}) == {}


def test_a_child_that_another_live_record_needs_is_not_deleted() -> None:
    statuses = {1: C, 2: C, 3: C, 4: C, 10: C, 12: C, 23: C, 34: C, 40: C}
    assert after(Action.delete, 1, FOUR_SERVICES, statuses) == {10: "soft_deleted"}
    assert after(Action.delete, 1, FOUR_SERVICES, statuses | {2: DELETED}) == {
        10: "soft_deleted",
        12: "soft_deleted",
    }


# Hard delete


def test_destroying_a_service_destroys_its_children_or_not() -> None:
    statuses = {1: C, 10: DELETED, 11: X}
    assert after(Action.erase, 1, TWO_CHILDREN, statuses) == dict.fromkeys((10, 11), "erased")
    assert after(Action.erase, 1, TWO_CHILDREN, statuses, down=False) == {}


def test_destroying_spares_children_with_another_parent_and_all_parents() -> None:
    statuses: dict[int, Status] = dict.fromkeys((1, 2, 3, 4, 10, 12, 23, 34, 40), C)
    assert after(Action.erase, 1, FOUR_SERVICES, statuses) == {10: "erased"}
    assert after(Action.erase, 10, TWO_CHILDREN, {1: C, 10: C, 11: C}) == {}


def test_what_something_else_refers_to_is_spared_with_what_it_needs() -> None:
    edges = [(1, 10), (1, 11), (10, 100), (11, 100), (11, 110)]
    statuses: dict[int, Status] = dict.fromkeys((1, 10, 11, 100, 110), C)
    assert set(after(Action.erase, 1, edges, statuses)) == {10, 11, 100, 110}
    assert set(after(Action.erase, 1, edges, statuses, spared={10})) == {11, 110}


def test_what_was_destroyed_before_needs_nobody() -> None:
    records = records_in({1: C, 10: C})
    family = Family.of([(1, 10), (2, 10)])
    assert topics(consequences(Action.erase, [1], family, records)) == {10: "erased"}


# Invalidate


def test_invalidating_reaches_up_and_not_down() -> None:
    assert after(Action.invalidate, 10, TWO_CHILDREN, {1: C, 10: C, 11: C}) == {1: "invalidated"}
    assert after(Action.invalidate, 1, TWO_CHILDREN, {1: C, 10: C, 11: C}) == {}
    assert after(Action.invalidate, 10, TWO_CHILDREN, {1: C, 10: C, 11: C}, up=False) == {}


def test_invalidating_cancels_unfinished_parents_with_their_children() -> None:
    assert after(Action.invalidate, 10, TWO_CHILDREN, {1: R, 10: C, 11: W}) == dict.fromkeys(
        (1, 11), "cancelled"
    )
    grandparents = [(0, 1), *TWO_CHILDREN, (2, 11)]
    statuses = {0: R, 1: C, 2: R, 10: C, 11: W}
    assert after(Action.invalidate, 10, grandparents, statuses) == {
        0: "cancelled",
        1: "invalidated",
    }


def test_invalidating_leaves_a_child_that_another_live_service_needs() -> None:
    shared = [(1, 10), (1, 12), (2, 12)]
    statuses = {1: R, 2: R, 10: C, 12: W}
    assert after(Action.invalidate, 10, shared, statuses) == {1: "cancelled"}
    assert after(Action.invalidate, 10, shared, statuses | {2: C}) == {
        1: "cancelled",
        12: "cancelled",
    }


def test_invalidating_leaves_what_is_unfinished_below_what_is_invalidated() -> None:
    assert after(Action.invalidate, 1, TWO_CHILDREN, {1: C, 10: W, 11: R}) == {}
    above = [(0, 1), *TWO_CHILDREN]
    assert after(Action.invalidate, 1, above, {0: C, 1: C, 10: W, 11: R}) == {0: "invalidated"}


def test_a_parent_that_an_invalidation_cancels_is_no_child() -> None:
    family = Family.of(TWO_CHILDREN)
    found = consequences(Action.invalidate, [10], family, records_in({1: R, 10: C, 11: C}))
    assert found == [Consequence(1, e.Cancelled, cause=10, is_child=False)]


def test_invalidating_leaves_parents_that_are_out_of_it() -> None:
    for status in (CANCELLED, DELETED, INVALID, FAILED):
        assert after(Action.invalidate, 10, TWO_CHILDREN, {1: status, 10: C, 11: W}) == {}


# Reset and modify


def test_resetting_a_service_resets_its_errored_children_and_no_parent() -> None:
    assert after(Action.reset, 1, TWO_CHILDREN, {1: X, 10: X, 11: C}) == {10: "reset"}
    assert after(Action.reset, 10, TWO_CHILDREN, {1: X, 10: X, 11: X}) == {}
    shared = [(1, 10), (2, 10)]
    for other in (R, X):
        assert after(Action.reset, 1, shared, {1: X, 2: other, 10: X}) == {10: "reset"}


def test_modifying_a_service_modifies_its_unfinished_children_and_no_parent() -> None:
    found = after(Action.modify, 1, TWO_CHILDREN, {1: W, 10: W, 11: C})
    assert found == {10: "rerouted"}
    assert after(Action.modify, 10, TWO_CHILDREN, {1: W, 10: W, 11: W}) == {}
    shared = [(1, 10), (2, 10)]
    assert after(Action.modify, 1, shared, {1: W, 2: R, 10: W}) == {10: "rerouted"}


NOT_FAMILIAL = set(Action) - {
    Action.cancel,
    Action.delete,
    Action.erase,
    Action.invalidate,
    Action.reset,
    Action.modify,
}


@pytest.mark.parametrize("action", sorted(NOT_FAMILIAL))
def test_nothing_else_concerns_relatives_by_itself(action: Action) -> None:
    for status in Status:
        assert after(action, [1, 4], DIAMOND, dict.fromkeys((1, 2, 3, 4), status)) == {}


# Who is counted, and why it happened


def test_a_consequence_names_the_record_that_was_meant() -> None:
    statuses = {0: R, 1: R, 10: W, 11: W, 100: W}
    edges = [(0, 1), *TWO_CHILDREN, (11, 100)]
    found = consequences(Action.cancel, [10], Family.of(edges), records_in(statuses))
    assert {each.record_id: (each.cause, each.is_child) for each in found} == {
        1: (10, False),
        0: (10, False),
        11: (10, True),
        100: (10, True),
    }


def test_who_was_meant_is_no_consequence() -> None:
    assert after(Action.cancel, [1, 10, 11], TWO_CHILDREN, {1: R, 10: W, 11: W}) == {}


def test_a_parent_that_stays_does_not_keep_the_next_one() -> None:
    two_parents = [(1, 10), (2, 10)]
    assert after(Action.cancel, 10, two_parents, {1: C, 2: R, 10: W}) == {2: "cancelled"}
    assert after(Action.cancel, [10, 1], two_parents, {1: R, 2: R, 10: W}) == {2: "cancelled"}
    assert after(Action.cancel, 10, two_parents, {2: R, 10: W}) == {2: "cancelled"}


def test_a_family_need_not_know_the_parents_of_its_children() -> None:
    downwards = Family(children={1: (10,)})
    found = consequences(Action.cancel, [1], downwards, records_in({1: R, 10: W}))
    assert topics(found) == {10: "cancelled"}


def test_a_diamond_is_walked_once() -> None:
    for action, status in ((Action.cancel, W), (Action.delete, C), (Action.erase, C)):
        found = consequences(
            action, [1], Family.of(DIAMOND), records_in(dict.fromkeys((1, 2, 3, 4), status))
        )
        assert sorted(each.record_id for each in found) == [2, 3, 4]


def test_a_child_is_looked_at_again_when_its_last_parent_has_gone() -> None:
    # 2 is a child of 1 and of 3, which is looked at later.
    edges = [(1, 2), (1, 3), (3, 2)]
    assert set(after(Action.erase, 1, edges, {1: C, 2: C, 3: C})) == {2, 3}


def test_a_relative_that_is_not_there_is_passed_over() -> None:
    family = Family.of([(0, 1), (1, 2)])
    assert consequences(Action.cancel, [1], family, records_in({1: W})) == []


# Shape


def test_a_family_knows_who_is_above_and_below() -> None:
    family = Family.of([*DIAMOND, (0, 1), (0, 1)])
    assert family.parents == {1: [0], 2: [1], 3: [1], 4: [2, 3]}
    assert family.ancestors([4]) == {0, 1, 2, 3}
    assert family.ancestors([2, 3]) == {0, 1}
    assert family.descendants([2]) == {4}
    assert family.descendants([0, 3]) == {1, 2, 3, 4}
    assert Family().ancestors([1]) == set()


@pytest.mark.parametrize("meant", [1, 500, 1000])
def test_a_thousand_levels_are_no_limit(meant: int) -> None:
    edges = [(level, level + 1) for level in range(1, 1000)]
    everybody = dict.fromkeys(range(1, 1001), W)
    for action in (Action.cancel, Action.delete):
        assert set(after(action, meant, edges, everybody)) == set(everybody) - {meant}
    done = dict.fromkeys(range(1, 1001), C)
    assert len(after(Action.invalidate, 1000, edges, done)) == 999
    assert len(after(Action.erase, 1, edges, done)) == 999


@pytest.mark.timed
@pytest.mark.parametrize("n_services", [1, 5])
def test_a_hundred_thousand_children_take_a_moment(n_services: int) -> None:
    n_children = 100_000
    services = range(1, n_services + 1)
    children = range(100, 100 + n_children)
    edges = [(service, child) for service in services for child in children]
    family, records = Family.of(edges), records_in(dict.fromkeys([*services, *children], W))
    begin = time.process_time()
    found = consequences(Action.cancel, list(services), family, records)
    assert len(found) == n_children
    assert len(consequences(Action.cancel, [100], family, records)) == n_children + n_services - 1
    assert len(consequences(Action.cancel, [1], family, records)) == n_children * (n_services == 1)
    assert time.process_time() - begin < 5


# Every family

N_MAX = 8
IDS = range(N_MAX)
PAIRS = [(parent, child) for child in IDS for parent in range(child)]
FAMILIES = st.lists(st.sampled_from(PAIRS), max_size=16, unique=True)
STATUSES = st.lists(st.sampled_from(Status), min_size=N_MAX, max_size=N_MAX)
LIVELY = st.lists(st.sampled_from([W, R, X, HELD, C]), min_size=N_MAX, max_size=N_MAX)
MEANT = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
ACTIONS = st.sampled_from(sorted(set(Action) - NOT_FAMILIAL))


def event_of(event_type: type[Event]) -> Event:
    return rerouted(tag="cpu") if event_type is e.Rerouted else ONE_OF_EACH[event_type]()


def allowed(
    action: Action, ids: Iterable[int], records: Mapping[int, RecordAggregate]
) -> list[int]:
    """Return those to whom the rules allow it."""
    return [id_ for id_ in ids if (records[id_].status, EVENT_OF[action]) in TRANSITIONS]


def naive(
    action: Action,
    meant: Sequence[int],
    edges: Sequence[tuple[int, int]],
    status: Sequence[Status] | Mapping[int, Status],
) -> dict[int, str]:
    """Return the consequences by going over all relations until nothing changes any more."""
    happens = dict.fromkeys(meant, "meant")
    live = {
        Action.cancel: UNFINISHED,
        Action.invalidate: UNFINISHED,
        Action.delete: set(Status) - {DELETED},
        Action.erase: set(Status),
        Action.reset: {X},
        Action.modify: UNFINISHED,
    }[action]
    up = {Action.cancel: "cancelled", Action.delete: "soft_deleted"}.get(action)
    down = {
        Action.cancel: "cancelled",
        Action.delete: "soft_deleted",
        Action.erase: "erased",
        Action.invalidate: "cancelled",
        Action.reset: "reset",
        Action.modify: "rerouted",
    }[action]
    before = None
    while before != happens:
        before = dict(happens)
        for parent, child in edges:
            if child in happens and parent not in happens:
                if up and status[parent] in live:
                    happens[parent] = up
                elif action is Action.invalidate and status[parent] is C:
                    happens[parent] = "invalidated"
                elif action is Action.invalidate and status[parent] in UNFINISHED:
                    happens[parent] = "cancelled"
    before = None
    while before != happens:
        before = dict(happens)
        for parent, child in edges:
            if parent not in happens or child in happens or status[child] not in live:
                continue
            if action is Action.invalidate and happens[parent] != "cancelled":
                continue
            needed = any(
                other not in happens and status[other] in live
                for other, its in edges
                if its == child
            )
            if not needed or action in (Action.reset, Action.modify):
                happens[child] = down
    return {id_: what for id_, what in happens.items() if what != "meant"}


@for_all(ACTIONS, FAMILIES, STATUSES | LIVELY, MEANT)
def test_the_consequences_are_those_of_the_plain_account(
    action: Action, edges: list[tuple[int, int]], status: list[Status], some: list[int]
) -> None:
    records = records_in(dict(enumerate(status)))
    meant = allowed(action, some, records)
    found = consequences(action, meant, Family.of(edges), records)
    assert topics(found) == naive(action, meant, edges, status)
    assert len(found) == len(topics(found))


@for_all(ACTIONS, FAMILIES, STATUSES | LIVELY, MEANT, st.randoms(use_true_random=False))
def test_the_order_in_which_anything_is_named_does_not_matter(
    action: Action,
    edges: list[tuple[int, int]],
    status: list[Status],
    some: list[int],
    random: object,
) -> None:
    records = records_in(dict(enumerate(status)))
    meant = allowed(action, some, records)
    expected = topics(consequences(action, meant, Family.of(edges), records))
    parents: dict[int, list[int]] = {}
    children: dict[int, list[int]] = {}
    for parent, child in reversed(edges):
        parents.setdefault(child, []).append(parent)
        children.setdefault(parent, []).append(child)
    shuffled = Family(parents, children)
    assert topics(consequences(action, meant[::-1], shuffled, records)) == expected


@for_all(ACTIONS, FAMILIES, STATUSES | LIVELY, MEANT)
def test_the_rules_allow_every_consequence(
    action: Action, edges: list[tuple[int, int]], status: list[Status], some: list[int]
) -> None:
    records = records_in(dict(enumerate(status)))
    found = consequences(action, allowed(action, some, records), Family.of(edges), records)
    for each in found:
        assert decide(records[each.record_id], Change(event=event_of(each.event_type)))


@for_all(FAMILIES, LIVELY, MEANT)
def test_what_a_live_service_needs_is_never_taken_from_it(
    edges: list[tuple[int, int]], status: list[Status], some: list[int]
) -> None:
    records = records_in(dict(enumerate(status)))
    meant = allowed(Action.cancel, some, records)
    hit = {*meant, *after(Action.cancel, meant, edges, dict(enumerate(status)))}
    for parent, child in edges:
        if child in hit:
            assert parent in hit or status[parent] not in UNFINISHED


@settings(max_examples=N_FAMILIES_TAKEN_BACK)
@for_all(ACTIONS, FAMILIES, STATUSES | LIVELY, MEANT)
def test_taking_everything_back_leaves_the_family_as_it_was(
    action: Action, edges: list[tuple[int, int]], status: list[Status], some: list[int]
) -> None:
    if action is Action.erase:
        return
    records = records_in(dict(enumerate(status)))
    meant = allowed(action, some, records)
    found = consequences(action, meant, Family.of(edges), records)
    happened = {
        **dict.fromkeys(meant, EVENT_OF[action]),
        **{each.record_id: each.event_type for each in found},
    }
    for id_, event_type in happened.items():
        before, event = records[id_], event_of(event_type)
        opposite = inverse(before, event, stamp(), None)
        assert opposite is not None
        restored = evolve(evolve(before, event), opposite)
        if before.status is R and event_type is not e.Rerouted:
            before = replace(before, status=W, manager_id=None)
        assert replace(restored, version=before.version, modified_at=before.modified_at) == before


EVENTS = {
    Action.reset: "reset",
    Action.cancel: "cancelled",
    Action.uncancel: "uncancelled",
    Action.delete: "soft_deleted",
    Action.undelete: "undeleted",
    Action.erase: "erased",
    Action.invalidate: "invalidated",
    Action.uninvalidate: "uninvalidated",
    Action.hold: "held",
    Action.release: "released",
    Action.fail: "failed",
    Action.revive: "revived",
    Action.modify: "rerouted",
    Action.comment: "commented",
    Action.resubmit: "resubmitted",
    Action.adopt: "result_adopted",
}


def test_each_action_lets_its_own_event_happen() -> None:
    assert {action: event_type.topic for action, event_type in EVENT_OF.items()} == EVENTS
    assert set(RESTORES) == {Action.uncancel, Action.undelete, Action.uninvalidate}


def test_every_action_has_its_event_and_what_restores_has_its_opposite() -> None:
    assert set(EVENT_OF) == set(Action) - {Action.undo}
    for action, taken_away in RESTORES.items():
        opposite = inverse(EXAMPLE[W], ONE_OF_EACH[taken_away](), stamp(), None)
        assert type(opposite) is EVENT_OF[action]
