"""The event that CONTRIBUTING.md adds: from the command to the tables, the audit and the words."""

from __future__ import annotations

from recordledger.api.client.words import in_words
from recordledger.api.schemas.events import EventOut
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.commands import PutAside
from recordledger.domain.records.events import SetAside
from recordledger.domain.records.record import decide
from recordledger.domain.records.status import Status
from recordledger.projections.ledger import Operation
from recordledger.projections.self_audit.self_audit import SelfAuditor
from tests.projections.stage import BOB, Stage


def test_a_record_is_set_aside(stage: Stage) -> None:
    manager_id, held = stage.running(1)
    [record_id] = held

    def work(operation: Operation) -> None:
        [record] = operation.lock([record_id]).values()
        command = PutAside(stamp=operation.stamp, manager_id=manager_id, attempt=record.attempt)
        operation.happen(record, decide(record, command))

    stage.ledger.operate(work, actor=BOB)
    record = stage.record(record_id)
    assert (record.status, record.manager_id) == (Status.held, None)

    # The log has it, and what reads the log knows what it means.
    history = stage.events(record_id)
    assert isinstance(history[-1], SetAside)
    assert attempts(history)[1].ended_by == "set_aside"
    stage.require_sound()

    # The tables are what a replay makes of the log, and the self-audit finds no wrong row.
    stage.require_equal()
    audit = SelfAuditor(stage.ledger, share=1.0)
    assert not audit.lap().found
    audit.close()

    shown = EventOut.model_construct(
        kind="set_aside",
        actor="user:bob",
        reason=None,
        data={"manager_id": manager_id, "attempt": 1},
    )
    assert in_words(shown) == f"manager {manager_id} set attempt 1 aside"
