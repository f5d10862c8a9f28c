"""Imports are told in this ledger's numbers, and nobody here is taken for somebody there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from recordledger.domain.audit.origins import (
    NOT_HERE,
    Ids,
    is_foreign,
    operation_of,
    short_name,
    translated,
)
from recordledger.domain.dataset import (
    DatasetAggregate,
    DatasetCreated,
    DatasetDeleted,
    RecordsLinked,
    evolve_dataset,
)
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.events import Event
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager import (
    ManagerAggregate,
    ManagerDeactivated,
    ManagerDeclaredLost,
    ManagerRegistered,
    ProgramProbed,
    evolve_manager,
)
from recordledger.domain.routing.manager_state import ManagerState
from tests.examples import (
    ELSEWHERE,
    HISTORIES,
    at,
    cancelled,
    claimed,
    created,
    given,
    given_status,
    imported,
    resubmitted,
    service_iterated,
)

IDS: Final = Ids(ELSEWHERE, records={1: 101, 2: 102}, managers={7: 70}, datasets={3: 30})
SAID: Final[dict[str, Any]] = {"timestamp": at(0), "actor": "user:ann", "operation_id": UUID(int=5)}


def test_an_operation_of_another_ledger_has_one_id_here_and_never_one_of_ours() -> None:
    there = uuid4()
    here = operation_of(ELSEWHERE, there)
    assert here == operation_of(ELSEWHERE, there)
    assert len({here, operation_of(uuid4(), there), operation_of(ELSEWHERE, uuid4())}) == 3
    assert is_foreign(here)
    assert is_foreign(operation_of(uuid4(), here))
    assert here.variant == there.variant
    assert not is_foreign(there)


@pytest.mark.parametrize(
    ("actor", "here"),
    [
        ("user:ann", "user:ann@aaaaaaaa"),
        ("policy:retry", "policy:retry@aaaaaaaa"),
        ("manager:7", "manager:70"),
        ("manager:8", "manager:8@aaaaaaaa"),
    ],
)
def test_actors_are_told_apart_from_those_of_this_ledger(actor: str, here: str) -> None:
    assert short_name(ELSEWHERE) == "aaaaaaaa"
    assert IDS.actor(actor) == here


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (created(), {}),
        (created().model_copy(update={"resubmission_of": 2}), {"resubmission_of": 102}),
        (created().model_copy(update={"resubmission_of": 9}), {"resubmission_of": NOT_HERE}),
        (resubmitted(new_record_id=1), {"new_record_id": 101}),
        (claimed(7), {"manager_id": 70}),
        (claimed(8), {"manager_id": NOT_HERE}),
        (cancelled(cause=1), {"cause": 101}),
        (cancelled(cause=9), {"cause": NOT_HERE}),
        (
            service_iterated(children=(1, 2)),
            {"children": (101, 102), "keys": ("1", "2")},
        ),
        (
            ProgramProbed(program="psi4", record_id=2, until=at(1), **SAID),
            {"record_id": 102},
        ),
        (DatasetCreated(name="water", **SAID), {}),
        (DatasetCreated(name="water", cloned_from=3, **SAID), {"cloned_from": 30}),
        (DatasetCreated(name="water", cloned_from=4, **SAID), {"cloned_from": NOT_HERE}),
        (
            RecordsLinked(specification=1, entries=(1, 2), record_ids=(2, 9), **SAID),
            {"record_ids": (102, NOT_HERE)},
        ),
    ],
    ids=lambda given: given.topic if isinstance(given, Event) else None,
)
def test_only_names_and_numbers_are_changed(event: Event, changes: dict[str, Any]) -> None:
    here = translated(event, IDS)
    expected = {
        "actor": IDS.actor(event.actor),
        "operation_id": operation_of(ELSEWHERE, event.operation_id),
        **changes,
    }
    assert here == event.model_copy(update=expected)


def test_what_an_undo_names_is_still_what_it_undid() -> None:
    undone = cancelled()
    undo = cancelled().model_copy(update={"undoes": undone.operation_id})
    here = translated(undo, IDS)
    assert here.undoes == translated(undone, IDS).operation_id != undone.operation_id


@pytest.mark.parametrize("status", [Status.waiting, Status.running, Status.held])
def test_what_might_be_run_is_held_when_it_is_imported(status: Status) -> None:
    arrived = given_status(status).record
    assert arrived.status is status
    here = given(*HISTORIES[status], imported()).record
    assert (here.status, here.manager_id, here.claimable) == (Status.held, None, False)


def test_what_is_over_stays_what_it_is_when_it_is_imported() -> None:
    for status in set(Status) - {Status.waiting, Status.running, Status.held}:
        before, after = given_status(status).record, given(*HISTORIES[status], imported()).record
        assert replace(after, version=before.version, modified_at=before.modified_at) == before


def registered() -> ManagerRegistered:
    return ManagerRegistered(
        name="cluster", hostname="n", tags=("*",), programs={}, lease_s=9, heartbeat_s=3, **SAID
    )


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (registered(), ManagerState.inactive),
        (ManagerDeactivated(**SAID), ManagerState.inactive),
        (ManagerDeclaredLost(**SAID), ManagerState.lost),
    ],
    ids=["alive", "gone", "lost"],
)
def test_an_imported_manager_claims_nothing(last: Event, state: ManagerState) -> None:
    manager = evolve_manager(ManagerAggregate(7), registered())
    if not isinstance(last, ManagerRegistered):
        manager = evolve_manager(manager, last)
    manager = evolve_manager(manager, imported())
    assert manager.state is state


def test_a_manager_that_never_registered_cannot_have_been_imported() -> None:
    with pytest.raises(ImpossibleHistory, match="not there"):
        evolve_manager(ManagerAggregate(7), imported())


def test_an_imported_dataset_is_what_it_was() -> None:
    dataset = evolve_dataset(DatasetAggregate(3), DatasetCreated(name="water", **SAID))
    after = evolve_dataset(dataset, imported())
    assert (after.name, after.version, after.is_live) == ("water", 2, True)
    deleted = evolve_dataset(evolve_dataset(dataset, DatasetDeleted(**SAID)), imported())
    assert not deleted.is_live
    with pytest.raises(ImpossibleHistory):
        evolve_dataset(DatasetAggregate(3), imported())


def test_an_attempt_that_ran_there_is_over_here() -> None:
    [attempt] = given(*HISTORIES[Status.running], imported()).attempts.values()
    assert attempt.ended_by == "imported"
    finished = given(*HISTORIES[Status.complete], imported())
    assert finished.attempts[1].ended_by == "completed"
