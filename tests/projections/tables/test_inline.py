"""A write enters the tables that its events concern, and no others."""

from __future__ import annotations

import pytest

from recordledger.domain.records.events import Event
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.projections.tables.changes import Changes
from recordledger.projections.tables.inline import concerned
from tests.examples import RECORD_ID, claimed, completed, created, relinquished

from ..stage import Stage

WAITING = fold(RECORD_ID, [created()])
RUNNING = fold(RECORD_ID, [created(), claimed()])
MOVED = {"records", "datasets", "status_counts"}


@pytest.mark.parametrize(
    ("before", "event", "names"),
    [
        (WAITING, claimed(), MOVED | {"claim_queue"}),
        (RUNNING, completed(), MOVED | {"payload_references", "services"}),
        (RUNNING, relinquished(), MOVED | {"claim_queue", "services"}),
    ],
    ids=["claim", "return", "relinquish"],
)
def test_a_write_enters_only_the_tables_that_its_events_concern(
    stage: Stage, before: RecordAggregate, event: Event, names: set[str]
) -> None:
    changes = Changes(stage.ledger.lanes)
    changes.happen(before, [event])
    assert {table.name for table in concerned(changes) if table.write is not None} == names
