"""Properties of all histories: folded, they are what the simple model says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.commands import RecordCommand
from recordledger.domain.records.events import RECORD_EVENTS
from recordledger.domain.records.record import evolve
from recordledger.domain.records.status import Status
from tests.domain.specification import GONE, N_MANAGERS, NONE, ONLY_SERVICES, ONLY_TASKS, ROWS, live
from tests.examples import (
    HISTORIES,
    ONE_OF_EACH,
    Given,
    cancelled,
    claim,
    claimed,
    commented,
    create,
    created,
    expire_lease,
    failure,
    given,
    hand_in,
    lose_manager,
    relinquish,
    soft_deleted,
    start_service,
    success,
    uncancelled,
    undeleted,
)

# Hypothesis likes short lists: long lives are asked for, or nothing would ever happen twice.
CHOICES = st.integers(0, 2**16)
LIVES = st.lists(CHOICES, max_size=10) | st.lists(CHOICES, min_size=15, max_size=40)

MANAGERS = st.integers(1, N_MANAGERS)
ATTEMPTS = st.integers(0, 5)
COMMANDS: st.SearchStrategy[RecordCommand] = st.one_of(
    st.builds(create, retries=st.integers(0, 2)),
    st.builds(claim, MANAGERS),
    st.builds(
        hand_in,
        st.sampled_from([success(), failure()]),
        manager_id=MANAGERS,
        attempt=ATTEMPTS,
    ),
    st.builds(relinquish, MANAGERS, attempt=ATTEMPTS),
    st.builds(lose_manager, MANAGERS),
    st.builds(expire_lease, attempt=ATTEMPTS),
    st.builds(start_service),
)


@for_all(LIVES)
def test_every_legal_history_folds_to_what_the_model_says(choices: list[int]) -> None:
    history, model = live(choices)
    record = given(*history).record
    if model.status in (NONE, GONE):
        assert record.status is None
    else:
        assert [*record.prior, record.status] == model.cards
    assert record.version == len(history)
    assert record.attempt == model.n_attempts
    assert record.manager_id == model.holder
    assert record.outcome == model.outcome
    assert record.retries_used == model.retries_used
    assert (record.not_before is not None) == model.pauses
    assert record.iteration == model.n_iterations
    assert (record.kind, record.tag, record.priority) == (model.kind, model.tag, model.priority)


@for_all(LIVES)
def test_nothing_else_can_follow_on_a_legal_history(choices: list[int]) -> None:
    history, model = live(choices)
    record = given(*history).record
    for event_type in RECORD_EVENTS:
        if (model.status, event_type) not in ROWS:
            with pytest.raises(ImpossibleHistory):
                evolve(record, ONE_OF_EACH[event_type]())


@for_all(LIVES)
def test_the_attempts_agree_with_the_record(choices: list[int]) -> None:
    history, model = live(choices)
    lived = given(*history)
    found, record = lived.attempts, lived.record
    assert {number: attempt.manager_id for number, attempt in found.items()} == (
        model.attempt_managers
    )
    assert list(found) == list(range(1, record.attempt + 1))
    running = [number for number, attempt in found.items() if attempt.ended_at is None]
    assert running == ([record.attempt] if record.status is Status.running else [])
    answered = {number for number, attempt in found.items() if attempt.outcome is not None}
    assert answered == model.attempts_answered


@for_all(LIVES, COMMANDS)
def test_what_is_decided_can_follow_on_the_history(
    choices: list[int], command: RecordCommand
) -> None:
    history, _ = live(choices)
    decided = given(*history).when(command)
    if decided.refusal is None:
        decided.then(*decided.events)


@for_all(LIVES, COMMANDS)
def test_deciding_again_what_is_already_so_causes_nothing(
    choices: list[int], command: RecordCommand
) -> None:
    history, _ = live(choices)
    again = given(*history).when(command).after.when(command)
    assert again.events == ()


# What it was: every nesting of putting away and bringing back, to this depth

DEPTH = 8
AWAY_AND_BACK = (cancelled, soft_deleted, uncancelled, undeleted)


def nestings(lived: Given, cards: list[str], depth: int) -> Iterator[tuple[Given, list[str]]]:
    """Yield all that can come of a record by the four events, with the cards it should have."""
    yield lived, cards
    if depth == 0:
        return
    for builder in AWAY_AND_BACK:
        event = builder()
        target = ROWS.get((cards[-1], type(event)))
        if target is None:
            continue
        if target == "what it was":
            after = cards[:-1]
        else:
            top = "waiting" if cards[-1] == "running" else cards[-1]
            after = [*cards[:-1], top, target]
        yield from nestings(lived.and_then(event), after, depth - 1)


@pytest.mark.parametrize("status", Status)
def test_whatever_was_put_away_comes_back_as_what_it_was(status: Status) -> None:
    start = given(*HISTORIES[status])
    first = start.record
    n_seen = 0
    for lived, cards in nestings(start, [*first.prior, str(status)], DEPTH):
        n_seen += 1
        record = lived.record
        assert [*record.prior, record.status] == cards
    assert n_seen > DEPTH


def test_the_example_of_the_specification() -> None:
    lived = given(created(), cancelled(), soft_deleted(), undeleted(), uncancelled())
    assert lived.status is Status.waiting
    assert lived.record.prior == ()


def test_a_running_record_comes_back_waiting_and_may_be_claimed() -> None:
    for away, back in ((cancelled(), uncancelled()), (soft_deleted(), undeleted())):
        returned = given(created(), claimed(1), away, commented(), back)
        assert returned.status is Status.waiting
        returned.when(claim(2)).then(claimed(2, attempt=2))


def test_the_model_knows_which_events_belong_to_which_kind() -> None:
    kinds = {each: str(each.only) for each in RECORD_EVENTS if each.only is not None}
    assert kinds == dict.fromkeys(ONLY_TASKS, "task") | dict.fromkeys(ONLY_SERVICES, "service")
