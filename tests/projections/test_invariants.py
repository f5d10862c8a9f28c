"""The invariants hold after ordinary work, and each is found broken by what breaks it."""

from __future__ import annotations

from typing import Final

import pytest

from recordledger.domain.records.actions import Action

from .invariants import NAMES, violations
from .stage import Stage, bad

# A statement behind the ledger's back, and the invariants that it breaks.
DAMAGES: Final = {
    "UPDATE status_counts SET n_records = n_records + 1 WHERE status = 'waiting'": {"counters"},
    "DELETE FROM status_counts WHERE status = 'error'": {"counters"},
    "DELETE FROM claim_queue WHERE record_id = (SELECT min(record_id) FROM claim_queue)": {"queue"},
    "UPDATE claim_queue SET rank = rank - 1": {"queue"},
    "UPDATE records SET retries = 7 WHERE status = 'error'": {"live-row"},
    "UPDATE records SET attempt = attempt + 1 WHERE status = 'running'": {
        "live-row",
        "open-attempt",
    },
    "UPDATE records SET status = 'held' WHERE status = 'waiting'": {
        "counters",
        "queue",
        "live-row",
    },
    "UPDATE services SET n_open = n_open - 1": {"services"},
    "DELETE FROM services": {"services"},
    "UPDATE service_children SET awaited = false": {"services"},
    "DELETE FROM dependencies": {"children"},
}


def some_of_everything(stage: Stage) -> list[int]:
    """Return records that wait, run, have failed, were cancelled and were erased; a service."""
    ids = stage.submit(6)
    manager_id = stage.manager()
    held = stage.claim(manager_id, 2)
    stage.hand_in(manager_id, {ids[0]: held[ids[0]]}, bad())
    stage.done(Action.cancel, ids[2])
    stage.done(Action.erase, ids[3])
    return [*ids, stage.service(ids[4], ids[5])]


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_invariant_holds_until_it_is_broken(stage: Stage, damage: str) -> None:
    ids = some_of_everything(stage)
    assert violations(stage, ids) == {}
    stage.do(damage)
    assert violations(stage, ids).keys() == DAMAGES[damage]


def test_there_is_a_damage_for_each_invariant() -> None:
    assert set().union(*DAMAGES.values()) == set(NAMES)
