"""How records and their histories look in answers, built as plain values for speed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic_core import from_json

from recordledger.domain.errors import TooLarge
from recordledger.domain.events import Event, Payload
from recordledger.domain.record import Record
from recordledger.projections import queries
from recordledger.projections.ledger import Ledger, Placed

from .schemas import Include

# What a record looks like whose payloads were not asked for.
_NO_PAYLOADS: Final[dict[str, Any]] = {
    "kwargs": None,
    "result": None,
    "stdout": None,
    "stderr": None,
    "traceback": None,
    "provenance": None,
}


def payload_of(record: Record, name: Include) -> Payload | None:
    """Return the reference to one of a record's payloads; None if it has none."""
    if name == "kwargs":
        return record.spec
    outcome = record.outcome
    return None if outcome is None else getattr(outcome, name)


def payload_bytes(record: Record, include: Collection[Include]) -> int:
    """Return how much the wanted payloads of a record would add to an answer."""
    found = (payload_of(record, name) for name in include)
    return sum(payload.size_bytes for payload in found if payload is not None)


def require_room(found: Iterable[Record], include: Collection[Include], bytes_max: int) -> None:
    """Refuse to answer with more than the server can hold, unless it is a single record.

    Raises:
        TooLarge: ask for fewer records, or for less of each.
    """
    sizes = [payload_bytes(record, include) for record in found] if include else []
    if len(sizes) > 1 and sum(sizes) > bytes_max:
        raise TooLarge(
            f"the answer (the payloads of {len(sizes)} records; ask for fewer at once)",
            sum(sizes),
            bytes_max,
            "answer_bytes_max",
        )


def fitting(found: Sequence[Record], include: Collection[Include], bytes_max: int) -> int:
    """Return how many of these records fit into one answer; at least one."""
    if not include:
        return len(found)
    total = 0
    for index, record in enumerate(found):
        total += payload_bytes(record, include)
        if total > bytes_max and index:
            return index
    return len(found)


def rendered(
    ledger: Ledger, found: Iterable[Record], include: Collection[Include]
) -> list[dict[str, Any]]:
    """Return records as `RecordOut` has them, with the payloads that are wanted."""
    shown = list(found)
    wanted: dict[tuple[int, Include], bytes] = {
        (index, name): payload.digest
        for index, record in enumerate(shown)
        for name in include
        if (payload := payload_of(record, name)) is not None
    }
    contents = queries.payload_contents(ledger, wanted.values()) if wanted else {}
    rows = [_record_out(record) for record in shown]
    for (index, name), digest in wanted.items():
        if (data := contents.get(digest)) is not None:
            rows[index][name] = _payload_out(name, data)
    return rows


def _record_out(record: Record) -> dict[str, Any]:
    outcome, spec = record.outcome, record.spec
    return {
        "id": record.id,
        "status": record.status,
        "kind": record.kind,
        "function": record.function,
        "required_programs": record.required_programs,
        "tag": record.tag,
        "priority": record.priority.name,
        "owner": record.owner,
        "fingerprint": spec.digest.hex() if spec is not None else "",
        "created_at": record.created_at,
        "modified_at": record.modified_at,
        "attempt": record.attempt,
        "manager_id": record.manager_id,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "compute_s": outcome and outcome.compute_s,
        "error_type": outcome and outcome.error_type,
        "error_message": outcome and outcome.error_message,
        "retries": record.retry.retries,
        "retry_delay_s": record.retry.delay_s,
        "retry_on": record.retry.on,
        "retries_used": record.retries_used,
        "not_before": record.not_before,
        "version": record.version,
        **_NO_PAYLOADS,
    }


def _payload_out(name: Include, data: bytes) -> Any:
    match name:
        case "kwargs":
            return from_json(data)["kwargs"]
        case "result" | "provenance":
            return from_json(data)
        case "stdout" | "stderr" | "traceback":
            return data.decode("utf-8", "backslashreplace")


def event_out(placed: Placed) -> dict[str, Any]:
    """Return one event of a history as `EventOut` has it."""
    recorded = placed.recorded
    event = recorded.event
    return {
        "position": placed.position,
        "version": recorded.version,
        "kind": event.topic,
        "timestamp": event.timestamp,
        "actor": event.actor,
        "operation_id": str(event.operation_id),
        "reason": event.reason,
        "data": {name: _shown(value) for name, value in event if name not in Event.model_fields},
    }


def _shown(value: object) -> Any:
    """Return a field's value as plain values: digests in hex, priorities by name."""
    match value:
        case bytes():
            return value.hex()
        case IntEnum():
            return value.name
        case datetime():
            return value
        case BaseModel():
            return {name: _shown(item) for name, item in value}
        case tuple():
            return [_shown(item) for item in cast("tuple[object, ...]", value)]
        case _:
            return value
