"""What managers get: claimed tasks, with their arguments as they were stored."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from recordledger.projections import queries
from recordledger.projections.dispatch import ClaimAnswer, claim

from .desk import Call
from .schemas import ClaimRequest
from .wire import Format, Prepared, Reply


def give(call: Call, manager_id: int) -> Reply:
    """Claim tasks for a manager; return the answer as `ClaimAnswer` has it."""
    limit = call.parse(ClaimRequest).limit
    desk = call.desk
    taken = claim(
        desk.ledger,
        manager_id,
        limit,
        user=call.visitor.actor,
        spec_bytes_max=desk.settings.answer_bytes_max,
        breaker=desk.settings.breaker,
        request=call.key,
    )
    desk.metrics.claimed.inc(len(taken["tasks"]))
    specs = queries.payload_contents(desk.ledger, [task["spec"] for task in taken["tasks"]])
    if call.wanted is Format.json:
        return _as_json(taken, specs)
    return _as_values(taken, specs)


def _as_json(taken: ClaimAnswer, specs: dict[bytes, bytes]) -> Prepared:
    """Return the answer with the stored specifications put in unread: they are JSON objects."""
    tasks = b",".join(
        b'{"record_id":%d,"attempt":%d,%s' % (task["record_id"], task["attempt"], spec[1:])
        for task in taken["tasks"]
        if (spec := specs.get(task["spec"])) is not None
    )
    return Prepared(b'{"operation_id":"%s","tasks":[%s]}' % (taken["operation_id"].encode(), tasks))


def _as_values(taken: ClaimAnswer, specs: dict[bytes, bytes]) -> dict[str, Any]:
    values = {digest: from_json(spec, cache_strings="keys") for digest, spec in specs.items()}
    return {
        "operation_id": taken["operation_id"],
        "tasks": [
            {
                "record_id": task["record_id"],
                "attempt": task["attempt"],
                **values[task["spec"]],
            }
            for task in taken["tasks"]
            if task["spec"] in values
        ],
    }
