"""How records and their histories look in answers, built as plain values for speed."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, cast
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json

from recordledger.domain.errors import TooLarge
from recordledger.domain.records.attempts import Attempt, attempts
from recordledger.domain.records.events import Commented, Erased, Event, Outcome, Payload
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.streams import Stream
from recordledger.projections.actions.service_steps import output_of
from recordledger.projections.ledger import Ledger, Placed
from recordledger.projections.reading import event_log, queries
from recordledger.projections.tables.payloads import text_of

from ..schemas.attempts import AttemptInclude
from ..schemas.records import Include

# What a record looks like whose payloads were not asked for.
_NO_PAYLOADS: Final[dict[str, Any]] = {
    "kwargs": None,
    "result": None,
    "stdout": None,
    "stderr": None,
    "traceback": None,
    "provenance": None,
}


# Maximum number of items of a long list that are shown.
_SHOWN_MAX: Final = 10
_NO_OUTCOME: Final = {name: None for name in _NO_PAYLOADS if name != "kwargs"}


def payload_of(record: RecordAggregate, name: Include) -> Payload | None:
    """Return the reference to one of a record's payloads; None if it has none."""
    if name == "kwargs":
        return record.spec
    outcome = record.outcome
    return None if outcome is None else getattr(outcome, name)


def payload_bytes(record: RecordAggregate, include: Collection[Include]) -> int:
    """Return how much the wanted payloads of a record would add to an answer."""
    found = (payload_of(record, name) for name in include)
    return sum(payload.size_bytes for payload in found if payload is not None)


def require_answer_size(
    found: Iterable[RecordAggregate], include: Collection[Include], bytes_max: int
) -> None:
    """Refuse to answer with more than the server can hold, unless it is a single record.

    Raises:
        TooLarge: ask for fewer records, or for less of each.
    """
    sizes = [payload_bytes(record, include) for record in found] if include else []
    if len(sizes) > 1 and sum(sizes) > bytes_max:
        raise TooLarge(
            f"the answer (the payloads of {len(sizes)} records; ask for fewer)",
            sum(sizes),
            bytes_max,
            "answer_bytes_max",
        )


def fitting(found: Sequence[RecordAggregate], include: Collection[Include], bytes_max: int) -> int:
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
    ledger: Ledger,
    found: Iterable[RecordAggregate],
    include: Collection[Include],
    erased: Container[int] = (),
) -> list[dict[str, Any]]:
    """Return records as `RecordOut` has them, with the payloads that are wanted.

    What errors say always comes with them, read together with the other payloads. Of those that
    were erased since, by id, neither comes, even if another record has the same.
    """
    shown = list(found)
    wanted: dict[tuple[int, Include], bytes] = {
        (index, name): payload.digest
        for index, record in enumerate(shown)
        if record.id not in erased
        for name in include
        if (payload := payload_of(record, name)) is not None
    }
    outcomes = [record.outcome for record in shown if record.outcome is not None]
    messages = _digests(outcome.error_message for outcome in outcomes)
    contents = queries.payload_contents(ledger, messages.union(wanted.values()))
    texts = {digest: contents[digest].decode() for digest in messages & contents.keys()}
    rows = [
        _record_out(record, {} if record.id in erased else texts) | {"erased": record.id in erased}
        for record in shown
    ]
    for (index, name), digest in wanted.items():
        if (data := contents.get(digest)) is not None:
            rows[index][name] = _payload_out(name, data)
    if "stdout" in include:
        for record, row in zip(shown, rows, strict=True):
            if record.iteration and row["stdout"] is None and record.id not in erased:
                # A service that has not ended has said something already.
                output = output_of(ledger, record.id, record.iteration)
                row["stdout"] = _payload_out("stdout", output) or None
    return rows


def _digests(texts: Iterable[Payload | str | None]) -> set[bytes]:
    """Return where the texts are, but for those of old events, which hold them themselves."""
    return {text.digest for text in texts if isinstance(text, Payload)}


def _record_out(record: RecordAggregate, texts: Mapping[bytes, str]) -> dict[str, Any]:
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
        "error_message": outcome and text_of(outcome.error_message, texts),
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


def attempts_out(
    ledger: Ledger, history: Sequence[Placed], include: Collection[AttemptInclude], bytes_max: int
) -> list[dict[str, Any]]:
    """Return the attempts in a history as `AttemptOut` has them, with the payloads wanted.

    Raises:
        TooLarge: there are several, and their payloads are more than an answer can hold.
    """
    found = list(attempts(placed.recorded.event for placed in history).values())
    outcomes = {each.number: each.outcome for each in found if each.outcome is not None}
    wanted: dict[tuple[int, AttemptInclude], Payload] = {
        (number, name): payload
        for number, outcome in outcomes.items()
        for name in include
        if (payload := getattr(outcome, name)) is not None
    }
    n_bytes = sum(payload.size_bytes for payload in wanted.values())
    if len(outcomes) > 1 and n_bytes > bytes_max:
        what = f"the answer (the payloads of {len(outcomes)} attempts; ask for fewer fields)"
        raise TooLarge(what, n_bytes, bytes_max, "answer_bytes_max")
    messages = _digests(outcome.error_message for outcome in outcomes.values())
    if isinstance(history[-1].recorded.event, Erased):
        messages.clear()
        wanted.clear()
    digests = messages.union(payload.digest for payload in wanted.values())
    contents = queries.payload_contents(ledger, digests)
    texts = {digest: contents[digest].decode() for digest in messages & contents.keys()}
    rows = {each.number: _attempt_out(each, texts) for each in found}
    for (number, name), payload in wanted.items():
        if (data := contents.get(payload.digest)) is not None:
            rows[number][name] = _payload_out(name, data)
    return list(rows.values())


def _attempt_out(attempt: Attempt, texts: Mapping[bytes, str]) -> dict[str, Any]:
    outcome = attempt.outcome
    return {
        "number": attempt.number,
        "manager_id": attempt.manager_id,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "ended_by": attempt.ended_by,
        "late": attempt.late,
        "compute_s": outcome and outcome.compute_s,
        "cores": outcome and outcome.cores,
        "error_type": outcome and outcome.error_type,
        "error_message": outcome and text_of(outcome.error_message, texts),
        **_NO_OUTCOME,
    }


def events_out(ledger: Ledger, history: Iterable[Placed]) -> list[dict[str, Any]]:
    """Return a history as `EventOut` has it; what was said is shown, or that it was erased.

    Of an erased record nothing is shown, even if another one says the same.
    """
    shown = list(history)
    events = [placed.recorded.event for placed in shown]
    erased = any(isinstance(event, Erased) for event in events)
    digests = set[bytes]() if erased else _digests(map(_text_of_event, events))
    contents = queries.payload_contents(ledger, digests)
    texts = {digest: data.decode() for digest, data in contents.items()}
    return [_event_out(placed, texts) for placed in shown]


def log_out(ledger: Ledger, found: Sequence[Placed]) -> list[dict[str, Any]]:
    """Return events of the log as `LogEventOut` has them; what was said as in a history."""
    speakers = {
        placed.recorded.number
        for placed in found
        if isinstance(_text_of_event(placed.recorded.event), Payload)
    }
    texts: dict[bytes, str] = {}
    if speakers:
        digests = _digests(_text_of_event(placed.recorded.event) for placed in found)
        contents = queries.payload_contents(ledger, digests)
        texts = {digest: data.decode() for digest, data in contents.items()}
        # Asked for after the texts: of what is erased meanwhile nothing is shown either.
        speakers = event_log.remaining(ledger, speakers)
    return [
        _log_event_out(placed, texts if placed.recorded.number in speakers else {})
        for placed in found
    ]


def _log_event_out(placed: Placed, texts: Mapping[bytes, str]) -> dict[str, Any]:
    recorded = placed.recorded
    where = {"stream": recorded.stream.name, "id": recorded.number}
    shown = where | _event_out(placed, texts)
    return shortened(shown) if recorded.stream is Stream.dataset else shown


def shortened(event: dict[str, Any]) -> dict[str, Any]:
    """Cut the long lists of an event; say how long they are."""
    data: dict[str, Any] = event["data"]
    for name, value in list(data.items()):
        if isinstance(value, list) and len(value) > _SHOWN_MAX:  # pyright: ignore[reportUnknownArgumentType]
            data[name] = value[:_SHOWN_MAX]
            data[f"n_{name}"] = len(value)  # pyright: ignore[reportUnknownArgumentType]
    return event


def _text_of_event(event: Event) -> Payload | str | None:
    if isinstance(event, Commented):
        return event.text
    outcome: Outcome | None = getattr(event, "outcome", None)
    return None if outcome is None else outcome.error_message


def _event_out(placed: Placed, texts: Mapping[bytes, str]) -> dict[str, Any]:
    recorded = placed.recorded
    event = recorded.event
    data = {name: _shown(value) for name, value in event if name not in Event.model_fields}
    text = _text_of_event(event)
    if isinstance(text, Payload):
        place, name = (data, "text") if "text" in data else (data["outcome"], "error_message")
        place[name] = texts.get(text.digest, place[name] | {"erased": True})
    return {
        "position": placed.position,
        "version": recorded.version,
        "kind": event.topic,
        "timestamp": event.timestamp,
        "actor": event.actor,
        "operation_id": str(event.operation_id),
        "reason": event.reason,
        "data": data,
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
        case UUID():
            return str(value)
        case BaseModel():
            return {name: _shown(item) for name, item in value}
        case tuple():
            return [_shown(item) for item in cast("tuple[object, ...]", value)]
        case _:
            return value
