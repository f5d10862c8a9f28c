"""Timelines: the periods of a record, read from its history."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given as for_all

from recordledger.domain.records.events import Kind
from recordledger.domain.records.status import Status
from recordledger.domain.records.timeline import StatusPeriod, periods
from tests.examples import (
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    erased,
    errored,
    given,
    lease_expired,
    reset,
    retry_due,
    service_iterated,
    service_started,
    soft_deleted,
    uncancelled,
    undeleted,
)

from ..specification import live
from .test_histories import LIVES

S = Status


def test_a_record_is_in_one_period_after_the_other() -> None:
    found = periods(
        [
            created(timestamp=at(0)),
            claimed(7, timestamp=at(10)),
            lease_expired(timestamp=at(15)),
            claimed(8, attempt=2, timestamp=at(40)),
            completed(attempt=2, timestamp=at(60)),
        ]
    )
    assert found == [
        StatusPeriod(S.waiting, at(0), "created", at(10), "claimed"),
        StatusPeriod(
            S.running, at(10), "claimed", at(15), "lease_expired", attempt=1, manager_id=7
        ),
        StatusPeriod(S.waiting, at(15), "lease_expired", at(40), "claimed"),
        StatusPeriod(S.running, at(40), "claimed", at(60), "completed", attempt=2, manager_id=8),
        StatusPeriod(S.complete, at(60), "completed"),
    ]
    assert [each.duration_s(at(100)) for each in found] == [10, 5, 25, 20, 40]


def test_nothing_that_happened_is_no_period() -> None:
    assert periods([]) == []


def test_what_changes_nothing_of_it_is_inside_of_a_period() -> None:
    found = periods(
        [
            created(kind=Kind.service, timestamp=at(0)),
            commented(timestamp=at(1)),
            service_started(timestamp=at(2)),
            service_iterated(timestamp=at(3)),
            service_iterated(iteration=2, timestamp=at(4)),
        ]
    )
    assert found == [
        StatusPeriod(S.waiting, at(0), "created", at(2), "service_started"),
        StatusPeriod(S.running, at(2), "service_started", attempt=1),
    ]


def test_the_pause_before_a_retry_is_a_period_of_its_own() -> None:
    found = periods(
        [
            created(retries=1, retry_delay_s=30, timestamp=at(0)),
            claimed(timestamp=at(1)),
            errored(timestamp=at(2)),
            reset(retry=1, not_before=at(32), timestamp=at(2)),
            retry_due(timestamp=at(33)),
        ]
    )
    assert [(each.status, each.is_pause, each.start, each.end) for each in found[2:]] == [
        (S.error, False, at(2), at(2)),
        (S.waiting, True, at(2), at(33)),
        (S.waiting, False, at(33), None),
    ]


@pytest.mark.parametrize(("away", "back"), [(cancelled, uncancelled), (soft_deleted, undeleted)])
def test_what_was_taken_away_and_brought_back_has_periods_too(away: type, back: type) -> None:
    found = periods(
        [created(), claimed(timestamp=at(1)), away(timestamp=at(2)), back(timestamp=at(5))]
    )
    assert [each.status for each in found][-1] is S.waiting
    assert found[-2].duration_s(at(9)) == 3
    assert found[-2].attempt is None


def test_the_last_period_of_an_erased_record_has_ended() -> None:
    found = periods([created(), erased(timestamp=at(4))])
    assert found == [StatusPeriod(S.waiting, at(0), "created", at(4), "erased")]


def test_a_clock_that_was_set_back_makes_no_period_of_negative_length() -> None:
    found = periods([created(timestamp=at(10)), claimed(timestamp=at(3))])
    assert [(each.start, each.end) for each in found] == [(at(10), at(10)), (at(10), None)]
    assert found[-1].duration_s(at(5)) == 0


@for_all(LIVES)
def test_periods_follow_on_each_other_without_gaps(choices: list[int]) -> None:
    history, _ = live(choices)
    found = periods(history)
    assert len({each.attempt for each in found} - {None}) == given(*history).record.attempt
    for before, after in pairwise(found):
        assert before.end == after.start
        assert before.ended_by == after.began_by
    assert all(each.end is not None for each in found[:-1])
