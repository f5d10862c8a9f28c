"""A manager registers once, and ends once."""

from __future__ import annotations

import pytest

from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.events import Event
from recordledger.domain.manager import (
    MANAGER_EVENTS,
    Manager,
    ManagerDeactivated,
    ManagerDeclaredLost,
    ManagerRegistered,
    ManagerState,
    deactivate,
    evolve_manager,
    fold_manager,
)
from tests.examples import T0, at, created, stamp

REGISTERED = ManagerRegistered(
    name="laptop",
    hostname="laptop.local",
    tags=("gpu", "*"),
    programs={"psi4": "1.9", "xtb": None},
    lease_s=120.0,
    heartbeat_s=30.0,
    **stamp(actor="bob").model_dump(),
)
DEACTIVATED = ManagerDeactivated(**stamp(timestamp=at(5)).model_dump())
DECLARED_LOST = ManagerDeclaredLost(**stamp(timestamp=at(5)).model_dump())

HISTORIES: dict[ManagerState | None, tuple[Event, ...]] = {
    None: (),
    ManagerState.active: (REGISTERED,),
    ManagerState.inactive: (REGISTERED, DEACTIVATED),
    ManagerState.lost: (REGISTERED, DECLARED_LOST),
}


def test_a_registered_manager_is_active_and_belongs_to_who_registered_it() -> None:
    assert fold_manager(7, [REGISTERED]) == Manager(
        id=7,
        version=1,
        state=ManagerState.active,
        name="laptop",
        hostname="laptop.local",
        tags=("gpu", "*"),
        programs={"psi4": "1.9", "xtb": None},
        lease_s=120.0,
        heartbeat_s=30.0,
        owner="bob",
        registered_at=T0,
        modified_at=T0,
    )


@pytest.mark.parametrize("state", HISTORIES)
def test_a_manager_is_what_its_history_says(state: ManagerState | None) -> None:
    manager = fold_manager(7, HISTORIES[state])
    assert manager.state is state
    assert manager.version == len(HISTORIES[state])


@pytest.mark.parametrize("event", [DEACTIVATED, DECLARED_LOST], ids=lambda event: event.topic)
def test_a_manager_that_ended_keeps_what_it_was(event: Event) -> None:
    manager = fold_manager(7, [REGISTERED, event])
    assert (manager.name, manager.registered_at, manager.modified_at) == ("laptop", T0, at(5))


LEGAL: set[tuple[ManagerState | None, type[Event]]] = {
    (None, ManagerRegistered),
    (ManagerState.active, ManagerDeactivated),
    (ManagerState.active, ManagerDeclaredLost),
}
ILLEGAL = [
    pytest.param(state, event, id=f"{state}-{event.topic}")
    for state in HISTORIES
    for event in (REGISTERED, DEACTIVATED, DECLARED_LOST, created())
    if (state, type(event)) not in LEGAL
]


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_nothing_else_can_have_happened_to_a_manager(
    state: ManagerState | None, event: Event
) -> None:
    with pytest.raises(ImpossibleHistory) as caught:
        fold_manager(7, [*HISTORIES[state], event])
    assert caught.value.stream == "manager 7"
    assert caught.value.version == len(HISTORIES[state]) + 1
    assert str(state or "not there") in str(caught.value)


def test_an_active_manager_is_deactivated_or_declared_lost() -> None:
    manager = fold_manager(7, [REGISTERED])
    assert deactivate(manager, stamp(timestamp=at(5))) == [DEACTIVATED]
    assert deactivate(manager, stamp(timestamp=at(5)), lost=True) == [DECLARED_LOST]


@pytest.mark.parametrize("state", [None, ManagerState.inactive, ManagerState.lost])
@pytest.mark.parametrize("lost", [False, True])
def test_a_manager_that_is_not_active_does_not_end_again(
    state: ManagerState | None, lost: bool
) -> None:
    assert deactivate(fold_manager(7, HISTORIES[state]), stamp(), lost=lost) == []


def test_what_is_decided_can_happen() -> None:
    manager = fold_manager(7, [REGISTERED])
    for lost, state in ((False, ManagerState.inactive), (True, ManagerState.lost)):
        (event,) = deactivate(manager, stamp(), lost=lost)
        assert evolve_manager(manager, event).state is state


def test_the_catalogue_names_every_event_of_a_manager() -> None:
    assert {type(event) for history in HISTORIES.values() for event in history} == {*MANAGER_EVENTS}
