"""The transition table is the one of the specification, no more and no less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records import events as e
from recordledger.domain.records.events import RECORD_EVENTS, Event, Kind
from recordledger.domain.records.record import RecordAggregate, evolve, fold
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import (
    ENDS,
    TRANSITIONS,
    Destination,
    remembered,
    sources,
)
from tests.domain.specification import NONE, ROWS, STATUSES, TABLE
from tests.examples import (
    HISTORIES,
    ONE_OF_EACH,
    RECORD_ID,
    cancelled,
    claimed,
    created,
    erased,
    given,
    given_status,
    reverted,
)

ONLY_KIND = {each: each.only for each in RECORD_EVENTS if each.only is not None}

LISTED = [pytest.param(*row, id=f"{row[0]}-{row[1].topic}") for row in ROWS]
NOT_LISTED = [
    pytest.param(status, event_type, id=f"{status}-{event_type.topic}")
    for status in STATUSES
    for event_type in RECORD_EVENTS
    if (status, event_type) not in ROWS
]


def status_named(name: str) -> Status | None:
    return None if name == NONE else Status(name)


def record_in(name: str) -> RecordAggregate:
    """Return a record in this status, one that can be brought back if that is what it needs."""
    return given_status(status_named(name)).record


@pytest.mark.parametrize(
    ("sources", "event_type", "target"), TABLE, ids=[row[1].topic for row in TABLE]
)
def test_each_row_of_the_specification_is_in_the_table(
    sources: str, event_type: type[Event], target: str
) -> None:
    targets = {TRANSITIONS[status_named(source), event_type] for source in sources.split()}
    assert {found.value for found in targets} == {target}


def test_the_table_has_no_other_rows() -> None:
    assert len(TRANSITIONS) == len(ROWS)


def test_the_specification_and_the_examples_name_every_event() -> None:
    assert {row[1] for row in TABLE} == set(RECORD_EVENTS) == set(ONE_OF_EACH)


def test_the_specification_names_every_status() -> None:
    assert {status_named(name) for name in STATUSES} == {None, *Status}


@pytest.mark.parametrize("status", Status)
def test_every_status_can_be_reached(status: Status) -> None:
    assert fold(RECORD_ID, HISTORIES[status]).status is status


@pytest.mark.parametrize(("status", "event_type"), LISTED)
def test_what_the_table_lists_can_happen(status: str, event_type: type[Event]) -> None:
    before, event = record_in(status), ONE_OF_EACH[event_type]()
    before = replace(before, kind=ONLY_KIND.get(event_type, before.kind))
    after = evolve(before, event)
    expected = {
        "unchanged": before.status,
        "gone": None,
        "what it was": before.prior[-1] if before.prior else None,
        "what the event says": getattr(event, "status", None),
    }
    target = ROWS[status, event_type]
    assert after.status == expected.get(target, target)
    assert after.version == before.version + 1


@pytest.mark.parametrize("event_type", ONLY_KIND)
def test_what_belongs_to_the_other_kind_of_record_cannot_have_happened(
    event_type: type[Event],
) -> None:
    status = next(status for status, listed in ROWS if listed is event_type)
    [other] = set(Kind) - {ONLY_KIND[event_type]}
    record = replace(record_in(status), kind=other)
    with pytest.raises(ImpossibleHistory, match=f"cannot happen to a {other} record") as caught:
        evolve(record, ONE_OF_EACH[event_type]())
    assert caught.value.stream == f"record {RECORD_ID}"
    assert caught.value.version == record.version + 1


@pytest.mark.parametrize(("status", "event_type"), NOT_LISTED)
def test_what_the_table_does_not_list_cannot_have_happened(
    status: str, event_type: type[Event]
) -> None:
    before = record_in(status)
    with pytest.raises(ImpossibleHistory) as caught:
        evolve(before, ONE_OF_EACH[event_type]())
    assert caught.value.stream == f"record {RECORD_ID}"
    assert caught.value.version == before.version + 1
    assert event_type.topic in str(caught.value)


def test_what_is_listed_and_what_is_not_are_everything() -> None:
    assert len(LISTED) + len(NOT_LISTED) == len(STATUSES) * len(RECORD_EVENTS) == 10 * 29


@pytest.mark.parametrize("event_type", RECORD_EVENTS, ids=lambda found: found.topic)
def test_nothing_can_happen_to_an_erased_record(event_type: type[Event]) -> None:
    with pytest.raises(ImpossibleHistory, match=r"a record that is not there$"):
        evolve(given(created(), erased()).record, ONE_OF_EACH[event_type]())


def test_an_event_of_another_aggregate_cannot_have_happened_to_a_record() -> None:
    class SomethingElse(Event):
        """Nothing that a record knows."""

        topic = "something_else"

    with pytest.raises(ImpossibleHistory, match="something_else"):
        evolve(given(created()).record, SomethingElse(**created().model_dump(include=COMMON)))


COMMON = {"timestamp", "actor", "operation_id", "reason"}


def test_the_sources_of_an_event_are_where_it_can_happen() -> None:
    assert sources(e.Created) == (None,)
    assert sources(e.Cancelled) == (Status.waiting, Status.running, Status.error, Status.held)


def test_an_attempt_is_ended_by_what_takes_a_record_out_of_running() -> None:
    results = {e.Completed, e.Errored, e.ResultAdopted}
    losses = {e.LeaseExpired, e.ManagerLost, e.Relinquished}
    assert results | losses | {e.Cancelled, e.SoftDeleted, e.Erased, e.Imported} == ENDS


@pytest.mark.parametrize("status", Status)
def test_only_running_is_not_what_a_record_comes_back_as(status: Status) -> None:
    assert remembered(status) is (Status.waiting if status is Status.running else status)


@pytest.mark.parametrize("stated", [*Status, "banana", ""])
def test_a_reverted_record_is_what_the_event_says_if_that_can_be(stated: str) -> None:
    before = given(created()).record
    if stated in sources(e.Reverted):
        assert evolve(before, reverted(stated)).status == stated
    else:
        with pytest.raises(ImpossibleHistory, match=f"cannot lead to '{stated}'") as caught:
            evolve(before, reverted(stated))
        assert caught.value.stream == f"record {RECORD_ID}"
        assert caught.value.version == before.version + 1


def test_a_lost_manager_is_not_an_error() -> None:
    for event_type in (e.LeaseExpired, e.ManagerLost, e.Relinquished):
        assert TRANSITIONS[Status.running, event_type] is Status.waiting


def test_a_status_can_be_brought_back_only_where_something_was_put_away() -> None:
    back = {row for row, target in TRANSITIONS.items() if target is Destination.prior}
    assert back == {(Status.cancelled, e.Uncancelled), (Status.deleted, e.Undeleted)}
    assert given(created(), claimed(), cancelled()).record.prior == (Status.waiting,)
