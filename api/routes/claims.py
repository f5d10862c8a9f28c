"""What managers get: claimed tasks, with their arguments as they were stored.

Where a specification refers to the result of another record, that result is put in its place here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.events import Outcome
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.specs.references import MARK_BYTES, ReferenceBroken, references_in, resolve
from recordledger.projections.actions.managing import (
    ClaimedTask,
    ClaimedTasks,
    ReturnedResult,
    claim,
    relinquish,
    return_results,
)
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import queries
from recordledger.projections.tables.payloads import payload_of

from ..http.request_context import Call
from ..http.wire import Format, Prepared, Reply
from ..schemas.claims import ClaimRequest


def answer_claim(call: Call, manager_id: int) -> Reply:
    """Claim tasks for a manager; return the answer as `ClaimedTasks` has it."""
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
    specs |= _resolved(call, manager_id, taken, specs)
    if call.wanted is Format.json:
        return _as_json(taken, specs)
    return _as_values(taken, specs)


def _resolved(
    call: Call, manager_id: int, taken: ClaimedTasks, specs: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """Return the specifications that have references, with what these stand for in their places.

    Tasks whose references lead nowhere become errors, and those for which the answer has no room
    are given back: both are taken out of what was claimed.
    """
    marked = {digest: from_json(data) for digest, data in specs.items() if MARK_BYTES in data}
    if not marked:
        return {}
    ledger, settings = call.desk.ledger, call.desk.settings
    wanted = {
        digest: {each.payload.digest for each in references_in(spec)}
        for digest, spec in marked.items()
    }
    given_back = _tasks_over_limit(ledger, taken, wanted, settings.answer_bytes_max)
    kept = marked.keys() & {task["spec"] for task in taken["tasks"]}
    named = set[bytes]().union(*(wanted[digest] for digest in kept))
    contents = queries.payload_contents(ledger, named)
    found: dict[bytes, bytes] = {}
    broken: dict[bytes, Exception] = {}
    for digest in kept:
        try:
            values = {each: from_json(contents[each]) for each in wanted[digest] & contents.keys()}
            found[digest] = canonical_json(resolve(marked[digest], values))
        except (ReferenceBroken, ValueError, InvalidInput) as error:
            broken[digest] = error
    lost = [task for task in taken["tasks"] if task["spec"] in broken]
    taken["tasks"] = [task for task in taken["tasks"] if task["spec"] not in broken]
    user = call.visitor.actor
    if lost:
        errors = [_error_of(task, broken[task["spec"]]) for task in lost]
        return_results(ledger, manager_id, errors, user=user, policies=settings.policies)
    if given_back:
        attempts = {task["record_id"]: task["attempt"] for task in given_back}
        reason = (
            "the answer to the claim would have been too large with everything that the "
            "record refers to"
        )
        relinquish(ledger, manager_id, attempts, user=user, reason=reason)
    return found


def _tasks_over_limit(
    ledger: Ledger, taken: ClaimedTasks, wanted: Mapping[bytes, set[bytes]], bytes_max: int
) -> list[ClaimedTask]:
    """Take out of a claim the last tasks, if their references would make the answer too large."""
    sizes = queries.payload_sizes(ledger, set[bytes]().union(*wanted.values()))
    n_bytes = 0
    for place, task in enumerate(taken["tasks"]):
        n_bytes += sum(sizes.get(digest, 0) for digest in wanted.get(task["spec"], ()))
        if place and n_bytes > bytes_max:
            given_back = taken["tasks"][place:]
            taken["tasks"] = taken["tasks"][:place]
            return given_back
    return []


def _error_of(task: ClaimedTask, error: Exception) -> ReturnedResult:
    message = str(error)
    if not isinstance(error, ReferenceBroken):
        message = f"a reference cannot be resolved: {message}"
    data = message.encode()
    payload = payload_of(data)
    outcome = Outcome(error_type=ReferenceBroken.__name__, error_message=payload)
    return ReturnedResult(task["record_id"], task["attempt"], outcome, {payload.digest: data})


def _as_json(taken: ClaimedTasks, specs: dict[bytes, bytes]) -> Prepared:
    """Return the answer with the stored specifications put in unread: they are JSON objects."""
    tasks = b",".join(
        b'{"record_id":%d,"attempt":%d,%s' % (task["record_id"], task["attempt"], spec[1:])
        for task in taken["tasks"]
        if (spec := specs.get(task["spec"])) is not None
    )
    return Prepared(b'{"operation_id":"%s","tasks":[%s]}' % (taken["operation_id"].encode(), tasks))


def _as_values(taken: ClaimedTasks, specs: dict[bytes, bytes]) -> dict[str, Any]:
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
