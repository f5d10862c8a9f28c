"""Policies decide nothing by themselves: they come with the command, and `decide` obeys them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recordledger.domain.records import events as e
from recordledger.domain.records.attempts import Attempt
from recordledger.domain.records.commands import Return
from recordledger.domain.records.events import Outcome
from recordledger.domain.records.policies import ADOPT_LATE_RESULTS, AUTO_RESET, PolicySettings
from recordledger.domain.records.record import RETRY_POLICY, RecordAggregate, decide, fold
from tests.examples import cancelled, claimed, created, lease_expired, stamp


def returned(outcome: Outcome, attempt: int = 1, **policies: object) -> Return:
    command = Return(stamp=stamp(), manager_id=7, attempt=attempt, outcome=outcome)
    return replace(command, **policies)  # type: ignore[arg-type]


def running(retries: int = 0) -> RecordAggregate:
    return fold(1, [created(retries=retries), claimed(manager_id=7)])


@pytest.mark.parametrize(
    ("retries", "auto_resets", "used", "actor"),
    [
        (0, 0, 0, None),
        (0, 2, 0, AUTO_RESET),
        (0, 2, 1, AUTO_RESET),
        (0, 2, 2, None),
        (1, 2, 0, RETRY_POLICY),
        (1, 2, 1, AUTO_RESET),
        (3, 2, 2, RETRY_POLICY),
        (3, 2, 3, None),
    ],
)
def test_errors_are_reset_until_both_limits_are_reached(
    retries: int, auto_resets: int, used: int, actor: str | None
) -> None:
    record = replace(running(retries=retries), retries_used=used)
    events = decide(record, returned(Outcome(error_type="OSError"), auto_resets=auto_resets))
    resets = [event for event in events if isinstance(event, e.Reset)]
    assert [(each.actor, each.retry) for each in resets] == ([(actor, used + 1)] if actor else [])
    action = "reset" if actor == AUTO_RESET else None
    assert [(each.action, each.reason) for each in resets] == (
        [(action, "OSError in attempt=1")] if actor else []
    )


def late_events(record: RecordAggregate, outcome: Outcome) -> list[e.Event]:
    past = Attempt(number=1, manager_id=7, started_at=stamp().timestamp)
    return decide(record, returned(outcome, adopt_late=True, past=past))


def test_a_good_late_result_is_adopted_by_the_policy() -> None:
    record = fold(1, [created(), claimed(manager_id=7), lease_expired()])
    late, adopted = late_events(record, Outcome())
    assert isinstance(late, e.LateResult)
    assert isinstance(adopted, e.ResultAdopted)
    assert (adopted.actor, adopted.action, adopted.attempt) == (ADOPT_LATE_RESULTS, "adopt", 1)


def test_a_bad_late_result_is_not_and_neither_is_one_of_a_cancelled_record() -> None:
    waiting = fold(1, [created(), claimed(manager_id=7), lease_expired()])
    stopped = fold(1, [created(), claimed(manager_id=7), cancelled()])
    for record, outcome in ((waiting, Outcome(error_type="OSError")), (stopped, Outcome())):
        assert [type(event) for event in late_events(record, outcome)] == [e.LateResult]


def test_the_first_pattern_that_matches_counts() -> None:
    policies = PolicySettings({"MemoryError": 0, "*Error": 2, "*": 5})
    found = [policies.resets_of(each) for each in ("MemoryError", "OSError", "Signal", None)]
    assert found == [0, 2, 5, 0]
    assert PolicySettings().resets_of("OSError") == 0
