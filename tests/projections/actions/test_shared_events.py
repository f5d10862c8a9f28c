"""An event that many plain records share does to each what it does to one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, LiteralString

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import EVENT_OF, Event, Priority
from recordledger.domain.records.retries import Retry
from recordledger.projections.actions import operations as actions
from recordledger.projections.actions.operations import OperationRequest, SliceOutcome, manage
from recordledger.projections.ledger import Intent, Operation
from recordledger.projections.log.mapper import EventMapper, MsgpackTranscoder
from recordledger.projections.tables.inline import can_be_shared

from ..stage import ALICE, Stage, bad, empty, staged

Way = Callable[[Operation, OperationRequest, set[int]], SliceOutcome]

# What differs between two tries of the same: when, and which operation.
IMAGE: Final[Mapping[str, LiteralString]] = {
    "records": (
        "SELECT id, version, status, prior, lane_id, tag, priority, attempt, manager_id,"
        " started_at, finished_at, outcome, error_type, error_message, retries_used, iteration,"
        " service_state, not_before, kind, spec, function,"
        " owner, created_at, retries, retry_delay_s, retry_on"
        " FROM records ORDER BY id"
    ),
    "claim_queue": "SELECT * FROM claim_queue ORDER BY 1, 2, 3",
    "status_counts": "SELECT * FROM status_counts WHERE n_records <> 0 ORDER BY 1, 2",
    "comments": "SELECT record_id, version, author, text FROM comments ORDER BY 1, 2",
    "payload_references": "SELECT * FROM payload_references ORDER BY 1, 2, 3",
    "operations": "SELECT action, actor, reason, n_changes FROM operations ORDER BY started_at",
    "operation_changes": "SELECT record_id, version FROM operation_changes ORDER BY 1, 2",
    "ledger_events": (
        "SELECT originator_id, originator_version, topic, state FROM ledger_events ORDER BY 1, 2"
    ),
}
ORDERS: Final = [
    *(
        OperationRequest(action)
        for action in sorted(actions.SHARED - {Action.modify, Action.comment})
    ),
    OperationRequest(Action.modify, tag="cpu"),
    OperationRequest(Action.modify, tag="gpu", priority=Priority.low),
    OperationRequest(Action.modify, priority=Priority.high),
    OperationRequest(Action.comment, text="looks wrong"),
]


def one_by_one(operation: Operation, order: OperationRequest, ids: set[int]) -> SliceOutcome:
    """Do it as it is done to services and families."""
    return actions.do_one_by_one(operation, order, ids, frozenset())


def shared(operation: Operation, order: OperationRequest, ids: set[int]) -> SliceOutcome:
    """Do it class by class."""
    done = actions.do_alike(operation, order, ids)
    assert done is not None
    return done


def attempted(stage: Stage, way: Way, order: OperationRequest, ids: Sequence[int]) -> Any:
    """Return what a way of doing it answers and leaves behind; it is rolled back."""

    def work(operation: Operation) -> Any:
        done = way(operation, order, set(ids))
        operation.write()
        refusals = {id_: (why.code, str(why)) for id_, why in sorted(done.refusals.items())}
        left: dict[str, list[Any]] = {
            name: operation.db.execute(sql).fetchall() for name, sql in IMAGE.items()
        }
        left["ledger_events"] = [(*row[:3], said(row[2], row[3])) for row in left["ledger_events"]]
        return (done.updated, refusals, done.n_children, done.n_parents), left

    intent = Intent(order.action, dry_run=True)
    return stage.ledger.operate(work, actor=ALICE, reason="a test", intent=intent)


def said(topic: str, state: bytes) -> dict[str, Any]:
    """Return what an event says, but for when and in which operation."""
    event = EventMapper(MsgpackTranscoder()).event_of(topic, bytes(state))
    return event.model_dump(exclude={"timestamp", "operation_id"})


def plain_records(stage: Stage) -> list[int]:
    """Return records in each status, with the things that make classes of them, and no record."""
    stage.intern("cpu")
    waiting = [*stage.submit(2), *stage.submit(1, tag="cpu", priority=Priority.high)]
    manager_id, running = stage.running(2, tag="run")
    other_id, done = stage.running(3, tag="done")
    held_by = list(done.items())
    stage.hand_in(other_id, dict(held_by[:1]))
    stage.hand_in(other_id, dict(held_by[1:]), bad())
    again_id, again = stage.running(1, tag="again", retry=Retry(1, 3600.0, ()))
    stage.hand_in(again_id, again, bad())
    assert manager_id
    ids = [*waiting, *running, *done, *again]
    for action, record_id in ((Action.hold, waiting[0]), (Action.fail, held_by[1][0])):
        manage(stage.ledger, OperationRequest(action), [record_id], actor=ALICE)
    for action in (Action.cancel, Action.delete):
        more = stage.submit(2, tag="past")
        _, was_running = stage.running(1, tag="was running")
        manage(stage.ledger, OperationRequest(action), [*more, *was_running], actor=ALICE)
        ids += [*more, *was_running]
    return [*ids, max(ids) + 1_000]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_both_ways_leave_the_same_rows_events_and_answers(
    reused_database_url: str, data: st.DataObject
) -> None:
    empty(reused_database_url)
    with staged(reused_database_url) as stage:
        known = plain_records(stage)
        for _ in range(4):
            order = data.draw(st.sampled_from(ORDERS))
            ids = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
            assert attempted(stage, shared, order, ids) == attempted(stage, one_by_one, order, ids)
            manage(stage.ledger, order, ids, actor=ALICE)
        stage.require_equal()
        stage.require_sound()


def test_each_action_does_the_same_both_ways_to_records_in_every_status(stage: Stage) -> None:
    known = plain_records(stage)
    for order in ORDERS:
        assert attempted(stage, shared, order, known) == attempted(stage, one_by_one, order, known)


@pytest.mark.parametrize("action", sorted(actions.SHARED))
def test_each_table_that_a_shared_event_concerns_can_be_written_at_once(action: Action) -> None:
    assert can_be_shared(EVENT_OF[action])


@pytest.mark.parametrize("event", [e.ResultAdopted, e.Imported])
def test_an_event_that_another_table_must_follow_is_not_shared(event: type[Event]) -> None:
    assert not can_be_shared(event)


def test_records_with_relatives_and_services_are_done_one_by_one(stage: Stage) -> None:
    [child] = stage.submit(1)
    service = stage.service(child)
    [alone] = stage.submit(1)

    def work(operation: Operation) -> list[bool]:
        cancel = OperationRequest(Action.cancel)
        return [
            actions.do_alike(operation, cancel, ids) is None
            for ids in ({child}, {service}, {alone, child}, {alone})
        ]

    intent = Intent(Action.cancel, dry_run=True)
    assert stage.ledger.operate(work, actor=ALICE, intent=intent) == [True, True, True, False]
