"""A manager registers once, and ends once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recordledger.domain.errors import ImpossibleHistory, ManagerNotActive
from recordledger.domain.records.events import Event
from recordledger.domain.routing.breaker import NO_PROGRAM
from recordledger.domain.routing.manager import (
    MANAGER_EVENTS,
    ManagerAggregate,
    ManagerDeactivated,
    ManagerDeclaredLost,
    ManagerDraining,
    ManagerRegistered,
    ProgramProbed,
    ProgramResumed,
    ProgramsChanged,
    ProgramSuspended,
    Suspension,
    change_programs,
    deactivate,
    drain,
    evolve_manager,
    fold_manager,
)
from recordledger.domain.routing.manager_state import ManagerState
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

DRAINING = ManagerDraining(**stamp(timestamp=at(5)).model_dump())
CHANGED = ProgramsChanged(programs={"xtb": "6.6"}, **stamp(timestamp=at(5)).model_dump())
SUSPENDED = ProgramSuspended(
    program="psi4",
    n_times=1,
    n_failures=10,
    error_type="OSError",
    until=at(65),
    **stamp(timestamp=at(5)).model_dump(),
)
PROBED = ProgramProbed(
    program="psi4", record_id=411, until=at(130), **stamp(timestamp=at(70)).model_dump()
)
RESUMED = ProgramResumed(program="psi4", **stamp(timestamp=at(71)).model_dump())

HISTORIES: dict[ManagerState | None, tuple[Event, ...]] = {
    None: (),
    ManagerState.active: (REGISTERED,),
    ManagerState.draining: (REGISTERED, DRAINING),
    ManagerState.inactive: (REGISTERED, DEACTIVATED),
    ManagerState.lost: (REGISTERED, DECLARED_LOST),
}


def test_a_registered_manager_is_active_and_belongs_to_who_registered_it() -> None:
    assert fold_manager(7, [REGISTERED]) == ManagerAggregate(
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
    (ManagerState.active, ManagerDraining),
    *(
        (state, event_type)
        for state in (ManagerState.active, ManagerState.draining)
        for event_type in (
            ManagerDeactivated,
            ManagerDeclaredLost,
            ProgramsChanged,
            ProgramSuspended,
        )
    ),
}
ILLEGAL = [
    pytest.param(state, event, id=f"{state}-{event.topic}")
    for state in HISTORIES
    for event in (
        REGISTERED,
        DRAINING,
        CHANGED,
        SUSPENDED,
        PROBED,
        RESUMED,
        DEACTIVATED,
        DECLARED_LOST,
        created(),
    )
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
    assert str(caught.value).endswith(f"a manager that is {state or 'not there'}")


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


def test_an_active_manager_is_drained_once() -> None:
    assert drain(fold_manager(7, [REGISTERED]), stamp(timestamp=at(5))) == [DRAINING]
    for state in HISTORIES:
        if state is not ManagerState.active:
            assert drain(fold_manager(7, HISTORIES[state]), stamp()) == []


def test_a_manager_has_the_programs_that_it_reports() -> None:
    manager = fold_manager(7, [REGISTERED])
    assert change_programs(manager, {"xtb": "6.6"}, stamp(timestamp=at(5))) == [CHANGED]
    assert change_programs(manager, manager.programs, stamp()) == []
    assert evolve_manager(manager, CHANGED).programs == {"xtb": "6.6"}


@pytest.mark.parametrize("state", [None, ManagerState.inactive, ManagerState.lost])
def test_a_manager_that_has_ended_reports_nothing(state: ManagerState | None) -> None:
    with pytest.raises(ManagerNotActive) as caught:
        change_programs(fold_manager(7, HISTORIES[state]), {}, stamp())
    assert (caught.value.manager_id, caught.value.state) == (7, str(state))


def test_a_program_is_suspended_tried_and_resumed() -> None:
    suspended = fold_manager(7, [REGISTERED, SUSPENDED])
    expected = Suspension(1, 10, "OSError", since=at(5), until=at(65))
    assert suspended.suspended == {"psi4": expected}
    probed = evolve_manager(suspended, PROBED)
    assert probed.suspended == {"psi4": replace(expected, until=at(130), probing=True)}
    assert evolve_manager(probed, RESUMED).suspended == {}


def test_another_version_of_a_suspended_program_is_not_suspended() -> None:
    suspended = fold_manager(7, [REGISTERED, SUSPENDED])
    cases: list[tuple[dict[str, str | None], set[str]]] = [
        ({"psi4": "1.9"}, {"psi4"}),
        ({"psi4": "1.10", "xtb": None}, set()),
        ({"xtb": None}, set()),
    ]
    for programs, still in cases:
        changed = ProgramsChanged(programs=programs, **stamp(timestamp=at(9)).model_dump())
        assert set(evolve_manager(suspended, changed).suspended) == still


def test_tasks_without_a_program_stay_suspended_whatever_programs_change() -> None:
    suspended = fold_manager(7, [REGISTERED, SUSPENDED.model_copy(update={"program": NO_PROGRAM})])
    assert set(evolve_manager(suspended, CHANGED).suspended) == {NO_PROGRAM}


def test_the_catalogue_names_every_event_of_a_manager() -> None:
    events = {type(event) for history in HISTORIES.values() for event in history}
    assert events | {ProgramsChanged, ProgramSuspended, ProgramProbed, ProgramResumed} == {
        *MANAGER_EVENTS
    }
