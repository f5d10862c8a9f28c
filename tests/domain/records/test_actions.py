"""The rows of the actions on records: what they say agrees with the events and the rules."""

from __future__ import annotations

import pytest

from recordledger.domain.records.actions import NEW_PRIORITY, ON_RECORDS, Action, Option
from recordledger.domain.records.events import EVENT_OF, Priority
from recordledger.domain.records.propagation import REMEDIES
from recordledger.domain.records.record import inverse
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS, sources
from tests.examples import HISTORIES, given, stamp
from tests.examples import ONE_OF_EACH as EVENTS

OPTIONS = {option.name: option for action in Action for option in action.row.options}


@pytest.mark.parametrize("action", Action)
def test_an_action_is_its_name_as_text(action: Action) -> None:
    assert Action[str(action)] is action
    assert action == action.name == action.value


@pytest.mark.parametrize("action", ON_RECORDS)
def test_what_an_undo_takes_back_has_an_inverse(action: Action) -> None:
    event_type = EVENT_OF[action]
    for status in sources(event_type):
        assert status is not None
        before = given(*HISTORIES[status]).record
        is_undoable = inverse(before, EVENTS[event_type](), stamp(), None) is not None
        assert is_undoable is action.row.undoable


@pytest.mark.parametrize("status", Status)
def test_a_remedy_can_happen_in_the_status_that_it_is_for(status: Status) -> None:
    if status in REMEDIES:
        assert (status, EVENT_OF[REMEDIES[status]]) in TRANSITIONS
    else:
        assert status in (Status.waiting, Status.running, Status.complete)


@pytest.mark.parametrize("action", Action)
def test_sentences_can_be_put_into_others(action: Action) -> None:
    assert action.row.text[0].isupper()
    assert not action.row.text.endswith(".")
    assert action.row.done[0].islower()
    assert action.row.options or not action.row.needs_option


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_an_option_has_a_default_or_is_needed(option: Option) -> None:
    needing = [
        action for action in Action if option in action.row.options and action.row.needs_option
    ]
    has_meaning = option.default is not None or option.unset != ""
    assert has_meaning or needing
    assert not option.help.endswith(".")


@pytest.mark.parametrize("action", [action for action in Action if action.row.opposite])
def test_opposites_are_each_others(action: Action) -> None:
    assert action.row.opposite is not None
    assert Action[action.row.opposite].row.opposite == action


def test_priorities_are_those_of_the_events() -> None:
    assert NEW_PRIORITY.choices == tuple(priority.name for priority in Priority)


def test_the_actions_that_concern_relatives_are_those_of_the_propagation_rules() -> None:
    assert {action.name for action in Action if action.row.is_familial} == {
        *("reset", "modify", "cancel", "uncancel", "delete", "undelete", "erase"),
        *("invalidate", "uninvalidate"),
    }


def test_a_reset_and_a_change_of_tag_reach_children_only() -> None:
    assert {action.name for action in Action if action.row.is_downward} == {"reset", "modify"}
