"""The self-audit: how far it is, what it has found, and putting that right; for administrators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter

from recordledger.domain.admin.access import Permission
from recordledger.domain.admin.divergence import DivergenceAggregate
from recordledger.domain.errors import InvalidInput
from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import state
from recordledger.projections.tables import divergences
from recordledger.projections.tables.inline import PROJECTIONS

from ..http.auth import Visitor, allowed
from ..http.openapi import request_body
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.self_audit import RepairAnswer, RepairRequest, SelfAuditAnswer

router = APIRouter(prefix="/v1/self-audit", tags=["self-audit"])

Administrator = Annotated[Visitor, allowed(Permission.admin)]


@router.get("", response_model=SelfAuditAnswer)
@endpoint(Administrator)
def get_self_audit(call: Call) -> Reply:
    """Get how far the self-audit is, and the rows that it found not to be what the log says."""
    ledger = call.desk.ledger
    found = state(ledger)
    with ledger.datastore.reading() as db:
        open_now = divergences.open_now(db)
    return {
        "position": found.position,
        "age_s": found.age_s,
        "n_ranges": found.n_ranges,
        "n_unproved": found.n_unproved,
        "divergences": list(map(_divergence_out, open_now)),
    }


@router.post("/repair", response_model=RepairAnswer, openapi_extra=request_body(RepairRequest))
@endpoint(Administrator)
def repair_rows(call: Call) -> Reply:
    """Put rows right that the self-audit has found: all, those of a table, or one.

    Each row is compared with the log again under its lock, and changed together with the event that
    says so. An idempotency key has no effect: what is right is not repaired again.
    """
    asked = call.parse(RepairRequest)
    if asked.table is not None and asked.table not in PROJECTIONS:
        raise InvalidInput(
            f"there is no table {asked.table!r}; the tables are {', '.join(PROJECTIONS)}"
        )
    if asked.key is not None and asked.table is None:
        raise InvalidInput("a key can only be used with a table")
    done = repair(
        call.desk.ledger,
        actor=call.visitor.actor,
        reason=asked.reason,
        table=asked.table,
        key=asked.key,
    )
    return {
        "repairs": [
            {"divergence": _divergence_out(each.divergence), "refusal": each.refusal}
            for each in done
        ]
    }


def _divergence_out(divergence: DivergenceAggregate) -> dict[str, Any]:
    return {
        "id": divergence.id,
        "state": divergence.state,
        "table": divergence.table,
        "key": list(divergence.key),
        "fault": divergence.fault,
        "columns": list(divergence.columns),
        "found_at": divergence.found_at,
        "ended_at": divergence.ended_at,
        "ended_by": divergence.ended_by,
    }
