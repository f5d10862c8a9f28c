"""The table that CONTRIBUTING.md adds: written, replayed, rebuilt, audited and repaired."""

from __future__ import annotations

from recordledger.projections.replay.rebuild import rebuild
from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import SelfAuditor
from tests.projections.stage import ALICE, Stage

LOST = "SELECT record_id, attempt FROM lost_attempts ORDER BY record_id"


def test_lost_attempts_have_rows(stage: Stage) -> None:
    manager_id, held = stage.running(2)
    stage.silence(manager_id)
    stage.lose_silent()
    written = stage.ask(LOST)
    assert written == [(record_id, 1) for record_id in sorted(held)]

    # A replay finds the same rows.
    stage.require_equal()

    # A ledger that was there before the migration has an empty table; `rebuild` fills it.
    stage.do("DELETE FROM lost_attempts")
    rebuild(stage.ledger, only=["lost_attempts"])
    assert stage.ask(LOST) == written

    # The self-audit finds a wrong row, and the repair corrects it.
    stage.do("UPDATE lost_attempts SET attempt = 7 WHERE record_id = 1")
    audit = SelfAuditor(stage.ledger, share=1.0)
    [found] = audit.lap().found
    audit.close()
    assert (found.table, found.columns) == ("lost_attempts", ("attempt",))
    [repaired] = repair(stage.ledger, actor=ALICE)
    assert repaired.refusal is None
    assert stage.ask(LOST) == written
    stage.require_equal()
