"""Earlier moments: what was is answered as it was, whatever happened since."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from recordledger.domain.errors import (
    BeforeTheBeginning,
    DatasetNotFound,
    FutureMoment,
    TimelineBehind,
)
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event
from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream
from recordledger.projections.reading import as_of, diff, timeline
from recordledger.projections.reading.as_of import Moment, moment_of
from recordledger.projections.reading.diff import Between, ChangeFilter
from recordledger.projections.reading.queries import counts as counts_now
from recordledger.projections.reading.queries import get_records as get_records_now
from recordledger.projections.replay.replay import check_replay
from tests.postgres import new_database

from ..collection import Collection
from ..happenings import TAGS, Happenings, Past, log_of, pasts, position_at
from ..stage import ALICE, BOB, Stage, staged, together

N_POSITIONS: Final = 200
MANY: Final = 100_000


@pytest.fixture(scope="module")
def eventful(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A stage on which much has happened; its timeline has many marks and counts."""
    with (
        pytest.MonkeyPatch.context() as patch,
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as stage,
    ):
        patch.setattr(timeline, "MARK_EVERY", 16)
        patch.setattr(timeline, "COUNT_EVERY", 50)
        happenings = Happenings(stage, seed=7)
        for _ in range(2):
            happenings.go_on(80)
            happenings.bring_about_what_is_rare()
        sizes = random.Random(7)  # noqa: S311
        while timeline.advance(stage.ledger, sizes.randint(1, 60)):
            pass
        yield stage


Log = list[tuple[int, Stream, int, Event]]


@pytest.fixture(scope="module")
def log(eventful: Stage) -> Log:
    return log_of(eventful)


@pytest.fixture(scope="module")
def end(log: Log) -> Past:
    """What there is after the whole log."""
    *_, (_, past) = pasts(log)
    return past


def at(stage: Stage, position: int) -> Moment:
    return moment_of(stage.ledger, position)


def query(stage: Stage, moment: Moment, page: int = MANY, **which: Any) -> list[RecordAggregate]:
    """Return all records that met conditions, page by page."""
    found: list[RecordAggregate] = []
    before_id = None
    while True:
        part = as_of.query_records(stage.ledger, RecordFilter(**which), page, moment, before_id)
        found += [each.record for each in part]
        if len(part) < page:
            return found
        before_id = found[-1].id


def by_hand(past: Past, which: RecordFilter) -> list[int]:
    """Return who meets conditions, newest first."""
    return [
        record.id
        for record in sorted(past.records.values(), key=lambda record: -record.id)
        if _meets(record, which) and (which.dataset is None or record.id in _in_cells(past, which))
    ]


def _meets(record: RecordAggregate, which: RecordFilter) -> bool:
    assert record.created_at is not None
    assert record.modified_at is not None
    return (
        (which.ids is None or record.id in which.ids)
        and (which.status is None or record.status in which.status)
        and (which.tag is None or record.tag in which.tag)
        and (which.owner is None or record.owner in which.owner)
        and (which.manager_id is None or record.manager_id in which.manager_id)
        and (which.function is None or record.function in which.function)
        and (which.created_after is None or record.created_at >= which.created_after)
        and (which.created_before is None or record.created_at < which.created_before)
        and (which.modified_after is None or record.modified_at >= which.modified_after)
        and (which.modified_before is None or record.modified_at < which.modified_before)
    )


def _in_cells(past: Past, which: RecordFilter) -> set[int]:
    assert which.dataset is not None
    return {
        record_id
        for (specification, entry), record_id in past.cells.get(which.dataset, {}).items()
        if which.specification is None or specification in which.specification
        if which.entry is None or entry in which.entry
    }


def some_filter(log: Log, past: Past, pick: random.Random) -> RecordFilter:
    """Return one to three conditions that some records may meet."""
    ids = sorted(past.records) or [1]
    times = [event.timestamp for _, _, _, event in log]
    managers = sorted({each.manager_id for each in past.records.values()} - {None}, key=str) or [1]
    possible: dict[str, Any] = {
        "ids": tuple(pick.choices(ids, k=5)),
        "status": tuple(pick.choices(list(Status), k=pick.randint(1, 4))),
        "tag": tuple(pick.choices(TAGS, k=pick.randint(1, 2))),
        "owner": (pick.choice([ALICE, BOB]),),
        "manager_id": tuple(pick.choices(managers, k=2)),
        "function": ("psi4",),
        "created_after": pick.choice(times),
        "created_before": pick.choice(times),
        "modified_after": pick.choice(times),
        "modified_before": pick.choice(times),
    }
    if past.cells:
        possible["cells"] = {
            "dataset": pick.choice(sorted(past.cells)),
            "specification": pick.choice([None, (1,)]),
            "entry": pick.choice([None, tuple(range(1, 4))]),
        }
    names = pick.sample(sorted(possible), pick.randint(1, 3))
    found = {name: possible[name] for name in names}
    return RecordFilter(**found.pop("cells", {}), **found)


def test_any_moment_is_answered_as_the_log_says_row_by_row(
    eventful: Stage, log: Log, end: Past
) -> None:
    pick = random.Random(11)  # noqa: S311
    positions = set(pick.sample([position for position, *_ in log], min(N_POSITIONS, len(log))))
    n_found: Counter[str] = Counter()
    for position, past in pasts(log):
        if position not in positions:
            continue
        moment = at(eventful, position)
        assert moment.position == position
        rows = as_of.query_records(eventful.ledger, RecordFilter(), MANY, moment)
        assert [each.record for each in rows] == [
            past.records[id_] for id_ in sorted(past.records, reverse=True)
        ]
        gone = {id_ for id_ in past.records if id_ not in end.records}
        assert {each.record.id for each in rows if each.is_erased} == gone
        wanted = [*pick.sample(sorted(past.records), min(3, len(past.records))), *past.erased]
        got = as_of.get_records(eventful.ledger, [*wanted, 10**6], moment)
        assert {id_: each.record for id_, each in got.items()} == {
            id_: past.records[id_] for id_ in wanted if id_ in past.records
        }
        statuses = Counter(record.status for record in past.records.values())
        counts = as_of.counts(eventful.ledger, moment)
        assert counts == {status: statuses[status] for status in Status}
        assert as_of.counts_by_tag(eventful.ledger, moment) == Counter(
            (record.tag, record.status) for record in past.records.values()
        )
        for _ in range(2):
            which = some_filter(log, past, pick)
            conditions = {field.name: getattr(which, field.name) for field in fields(which)}
            expected = by_hand(past, which)
            if which.dataset is None or which.dataset in past.cells:
                found = query(eventful, moment, pick.choice([1, 3, 50]), **conditions)
                assert [record.id for record in found] == expected
                n_found["some" if expected else "none"] += 1
                n_found.update(name for name, value in conditions.items() if value and expected)
    # Every condition was met by somebody, at least once.
    assert n_found["some"] > 50
    assert all(n_found[field.name] for field in fields(RecordFilter))


def test_the_newest_moment_is_what_is_now(eventful: Stage, log: Log, end: Past) -> None:
    moment = at(eventful, log[-1][0])
    found = {record.id: record for record in query(eventful, moment)}
    assert found == get_records_now(eventful.ledger, found)
    assert found.keys() == end.records.keys()
    assert as_of.counts(eventful.ledger, moment) == counts_now(eventful.ledger)


def test_the_past_of_every_kind_of_event_was_tried(log: Log) -> None:
    kinds = {event.topic for _, stream, _, event in log if stream is Stream.record}
    missing = {event_type.topic for event_type in e.RECORD_EVENTS} - kinds
    # Those that only time or a service's end brings about.
    assert missing <= {"lease_expired", "retry_due", "relinquished"}, len(log)


def test_a_time_is_the_beginning_of_the_log_in_which_nothing_is_later(stage: Stage) -> None:
    pick = random.Random(3)  # noqa: S311
    first, *_ = stage.submit(3)
    start = stage.record(first).created_at
    assert start is not None
    # Clocks are read before positions are given out: times go back and forth.
    for step in range(400):
        moment = start + timedelta(milliseconds=step - pick.choice([0, 0, 0, 1, 5, 300]))
        stage.happen(first, e.Commented, text="x", timestamp=max(moment, start))
        if step % 90 == 0:
            timeline.advance(stage.ledger)
    log = log_of(stage)
    first_ats = sorted(event.timestamp for _, _, _, event in log)
    now = stage.ask("SELECT clock_timestamp()")[0][0]
    wanted = [each for each in first_ats if each <= now] + [
        now,
        start + timedelta(microseconds=100_500),
    ]
    for moment in pick.sample(wanted, min(100, len(wanted))):
        expected = position_at(log, moment)
        assert moment_of(stage.ledger, moment).position == expected


def test_many_moments_in_time(eventful: Stage, log: Log) -> None:
    pick = random.Random(5)  # noqa: S311
    times = [event.timestamp for _, _, _, event in log]
    for moment in [*pick.choices(times, k=60), times[-1], max(times)]:
        for shift in (timedelta(0), timedelta(microseconds=-1)):
            expected = position_at(log, moment + shift)
            if not expected:
                with pytest.raises(BeforeTheBeginning):
                    moment_of(eventful.ledger, moment + shift)
                continue
            found = moment_of(eventful.ledger, moment + shift)
            assert found.position == expected
            happened = {position: event.timestamp for position, _, _, event in log}
            assert found.happened_at == happened[expected]


def test_moments_that_are_none_are_refused(stage: Stage) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(BeforeTheBeginning):
        moment_of(stage.ledger, past)
    with pytest.raises(BeforeTheBeginning):
        moment_of(stage.ledger, 0)
    with pytest.raises(FutureMoment):
        moment_of(stage.ledger, 1)
    stage.submit(2)
    head = stage.newest()
    with pytest.raises(BeforeTheBeginning) as before:
        moment_of(stage.ledger, past)
    assert before.value.first == 1
    with pytest.raises(BeforeTheBeginning):
        moment_of(stage.ledger, 0)
    with pytest.raises(FutureMoment) as future:
        moment_of(stage.ledger, head + 1)
    assert future.value.head == head
    with pytest.raises(FutureMoment):
        moment_of(stage.ledger, datetime.now(UTC) + timedelta(hours=1))
    assert moment_of(stage.ledger, head).position == head


def test_a_question_takes_the_timeline_there_if_that_is_not_far(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "BATCH", 10)
    monkeypatch.setattr(timeline, "CATCH_UP_MAX", 30)
    (first, *_) = stage.submit(100)
    # One record needs no table at all.
    assert as_of.get_records(stage.ledger, [first], at(stage, 50))[first].record.id == first
    assert as_of.counts(stage.ledger, at(stage, 25))[Status.waiting] == 25
    with pytest.raises(TimelineBehind) as behind:
        as_of.counts(stage.ledger, at(stage, 100))
    assert 25 < behind.value.position < 100
    assert behind.value.wanted == 100
    with pytest.raises(TimelineBehind):
        as_of.query_records(stage.ledger, RecordFilter(), 1, at(stage, 100))
    assert as_of.counts(stage.ledger, at(stage, 100))[Status.waiting] == 100
    assert stage.ask("SELECT position FROM timeline") == [(100,)]


def test_an_erased_record_is_what_it_was_but_for_its_payloads(stage: Stage) -> None:
    one, other = stage.submit(2)
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id))
    before = stage.record(one)
    position = stage.newest()
    stage.done(Action.erase, one)
    found = as_of.get_records(stage.ledger, [one, other], at(stage, position))
    assert found[one] == as_of.PastRecord(before, is_erased=True)
    assert not found[other].is_erased
    assert as_of.get_records(stage.ledger, [one], at(stage, stage.newest())) == {}
    assert [record.id for record in query(stage, at(stage, position))] == [other, one]
    assert [record.id for record in query(stage, at(stage, stage.newest()))] == [other]


# Datasets ----------------------------------------------------------------------------------------


def test_a_dataset_is_found_by_what_it_was_called_then(stage: Stage) -> None:
    dataset = Collection.made(stage, 2, ["hf", "mp2"], name="Water")
    dataset.submit()
    first = at(stage, stage.newest())
    dataset.rename({"m1": "ice"})
    dataset.unspecify("mp2")
    second = at(stage, stage.newest())
    dataset.delete()
    third = at(stage, stage.newest())
    with stage.ledger.datastore.reading() as db:
        then = as_of.dataset_at(stage.ledger, db, "water", first)
        assert (then.id, then.name, set(then.specifications)) == (
            dataset.id,
            "Water",
            {"hf", "mp2"},
        )
        assert as_of.entries_named(db, then, ["m1", "ice"]).keys() == {"m1"}
        later = as_of.dataset_at(stage.ledger, db, dataset.id, second)
        assert set(later.specifications) == {"hf"}
        assert as_of.entries_named(db, later, ["m1", "ice"]).keys() == {"ice"}
        for wanted in ("water", dataset.id, "other", 10**6):
            with pytest.raises(DatasetNotFound):
                as_of.dataset_at(stage.ledger, db, wanted, third)
        with pytest.raises(DatasetNotFound):
            as_of.dataset_version(db, 10**6, first)
    assert len(query(stage, first, dataset=dataset.id)) == 4
    assert len(query(stage, second, dataset=dataset.id)) == 2
    assert query(stage, third, dataset=dataset.id) == []


# The tables --------------------------------------------------------------------------------------


def rows_of(stage: Stage) -> dict[str, list[Any]]:
    return {
        table: stage.ask(f"SELECT * FROM {table} ORDER BY {', '.join(key)}")  # noqa: S608
        for table, key in timeline.TABLES.items()
    }


def test_replay_compares_the_tables_of_the_past_too(eventful: Stage) -> None:
    assert check_replay(eventful.ledger, past=True).equal
    kept = rows_of(eventful)
    assert len(kept["timeline_counts"]) > 10
    assert len(kept["timeline_marks"]) > 10
    wrong = "UPDATE record_changes SET old_status = 'held' WHERE position = %s"
    (position, old_status) = eventful.ask(
        "SELECT position, old_status FROM record_changes WHERE old_status = 'waiting' LIMIT 1"
    )[0]
    eventful.do(wrong, [position])
    report = check_replay(eventful.ledger, past=True)
    assert [each.table for each in report.differences] == ["record_changes"]
    eventful.do(
        "UPDATE record_changes SET old_status = %s WHERE position = %s", [old_status, position]
    )


def test_the_tables_can_be_emptied_and_filled_anew(eventful: Stage) -> None:
    before = rows_of(eventful)
    timeline.forget(eventful.ledger)
    assert eventful.ask("SELECT position, newest_id, latest_at FROM timeline") == [(0, 0, None)]
    while timeline.advance(eventful.ledger):
        pass
    assert rows_of(eventful) == before


def test_several_may_fill_the_tables_at_once(stage: Stage) -> None:
    ids = stage.submit(60)
    stage.done(Action.hold, *ids)

    def fill() -> None:
        while timeline.advance(stage.ledger, 7):
            pass

    together(fill, fill, fill)
    assert stage.ask("SELECT count(*) FROM record_changes") == [(120,)]
    stage.require_equal()


# Differences -------------------------------------------------------------------------------------


def test_what_changed_between_two_moments_is_what_the_log_says(eventful: Stage, log: Log) -> None:
    pick = random.Random(13)  # noqa: S311
    known = [position for position, *_ in log]
    for _ in range(40):
        a, b = sorted(pick.choices(known, k=2))
        before, after = state_at(log, a), state_at(log, b)
        happened: dict[int, list[Event]] = {}
        for position, stream, number, event in log:
            if stream is Stream.record and a < position <= b:
                happened.setdefault(number, []).append(event)
        between = Between(at(eventful, a), at(eventful, b))
        found = all_changes(eventful, between, pick.choice([2, 1_000]))
        assert [each.record_id for each in found] == sorted(happened)
        ways: Counter[Any] = Counter()
        for each in found:
            old, new = before.get(each.record_id), after.get(each.record_id)
            assert (each.from_status, each.from_tag) == (old and old.status, old and old.tag)
            assert (each.to_status, each.to_tag) == (new and new.status, new and new.tag)
            events = happened[each.record_id]
            assert each.n_events == len(events)
            assert list(each.newest) == events[::-1][: diff.NEWEST_MAX]
            ways[each.from_status, each.to_status] += 1
        assert diff.counts(eventful.ledger, between) == ways
        require_filtered(eventful, between, found, pick)


def state_at(log: Log, position: int) -> dict[int, RecordAggregate]:
    for here, past in pasts(log):
        if here == position:
            return dict(past.records)
    raise AssertionError(position)


def all_changes(
    stage: Stage, between: Between, page: int, which: ChangeFilter = diff.EVERYTHING
) -> list[diff.RecordDifference]:
    found: list[diff.RecordDifference] = []
    while True:
        after_id = found[-1].record_id if found else 0
        part = diff.changes(stage.ledger, between, page, after_id, which)
        found += part
        if len(part) < page:
            return found


def require_filtered(
    stage: Stage, between: Between, everything: list[diff.RecordDifference], pick: random.Random
) -> None:
    places = [*Status, None]
    old, new = pick.choices(places, k=3), pick.choices(places, k=4)
    which = ChangeFilter(from_statuses=tuple(old), to_statuses=tuple(new))
    expected = [each for each in everything if each.from_status in old and each.to_status in new]
    assert all_changes(stage, between, 3, which) == expected
    assert sum(diff.counts(stage.ledger, between, which).values()) == len(expected)


def test_changes_of_a_tag_are_those_of_records_that_had_it(stage: Stage) -> None:
    one, other, third = (*stage.submit(2, tag="gpu"), *stage.submit(1, tag="cpu"))
    a = at(stage, stage.newest())
    for tag in ("cpu", "big"):
        stage.done(Action.modify, other, tag=tag)
    stage.done(Action.hold, one, third)
    between = Between(a, at(stage, stage.newest()))
    assert a.position < between.b.position

    def of(*tags: str) -> list[int]:
        return [each.record_id for each in all_changes(stage, between, 9, ChangeFilter(tags=tags))]

    assert of("gpu") == [one, other]
    assert of("cpu") == [other, third]
    assert of("big", "cpu") == [other, third]
    assert of("none") == []
    change = all_changes(stage, between, 9)[1]
    assert (change.from_tag, change.to_tag, change.n_events) == ("gpu", "big", 2)
    assert isinstance(change.newest[0].operation_id, UUID)
