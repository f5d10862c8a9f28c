"""Policies: changes of records that depend on time and not on a request."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from recordledger.domain.records.actions import Action
from recordledger.domain.records.commands import Change, EndRetryPause
from recordledger.domain.records.events import Failed
from recordledger.domain.records.policies import FAILED_AFTER
from recordledger.domain.records.record import RETRY_POLICY, decide
from recordledger.domain.records.status import Status

from ..ledger import Intent, Ledger, Operation
from ..store.election import settings_in_force
from ..store.statements import statements

_SQL = statements("actions.policies")
SLICE: Final = 2_000
# The job that fails old errors. The process that is elected to do it publishes `failed_after_s`.
FAILED_AFTER_JOB: Final = "failed-after"


def fail_old_errors(ledger: Ledger, failed_after_s: float, limit: int = SLICE) -> int:
    """Declare failed at most `limit` records whose error is this old; return how many."""
    parameters = {"older_than_s": failed_after_s, "limit": limit}
    with ledger.datastore.reading() as db:
        ids = [row[0] for row in db.execute(_SQL["old_errors"], parameters)]
    if not ids:
        return 0

    def work(operation: Operation) -> int:
        locked = operation.lock(ids)
        before = operation.stamp.timestamp - timedelta(seconds=failed_after_s)
        failed = Failed(**operation.stamp.model_dump())
        n_failed = 0
        for record in locked.values():
            # It may have been reset, and may have erred again, before it was locked.
            if record.status is not Status.error or (record.finished_at or before) > before:
                continue
            operation.happen(record, decide(record, Change(event=failed)))
            n_failed += 1
        return n_failed

    reason = f"in error for more than {failed_after_s:g} s"
    return ledger.operate(work, actor=FAILED_AFTER, reason=reason, intent=Intent(Action.fail))


def failed_after_s_in_force(ledger: Ledger) -> float | None:
    """Return the age at which errors become failures now; None if no process sees to that."""
    with ledger.datastore.reading() as db:
        found = settings_in_force(db, FAILED_AFTER_JOB, ledger.schema)
    return None if found is None else found["failed_after_s"]


def end_retry_pauses(ledger: Ledger, limit: int = SLICE) -> int:
    """Let at most `limit` records be claimed whose pause before a retry is over; say how many."""
    with ledger.datastore.reading() as db:
        ids = [row[0] for row in db.execute(_SQL["retries_due"], {"limit": limit})]
    if not ids:
        return 0

    def work(operation: Operation) -> int:
        locked = operation.lock(ids)
        command = EndRetryPause(stamp=operation.stamp)
        return sum(
            operation.happen(record, decide(record, command)) is not record
            for record in locked.values()
        )

    return ledger.operate(work, actor=RETRY_POLICY)
