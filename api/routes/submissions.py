"""What people submit: entries become records to create, and a wrong one spoils no other."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from recordledger.domain.errors import CommandRefused, InvalidInput, TooLarge
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.retries import parse_retry
from recordledger.domain.routing.lanes import parse_requirements, parse_tag
from recordledger.domain.specs.fingerprint import specify
from recordledger.projections.actions.submission import NewRecord, Submitted, create_records

from ..http.errors import plain, refusal_of
from ..http.request_context import Call
from ..schemas.submissions import CreateRequest, RecordIn

MESSAGE_CHARACTERS_MAX: Final = 1_000


def create(call: Call) -> dict[str, Any]:
    """Create the records of a request; return the answer as `CreateAnswer` has it."""
    asked = call.parse(CreateRequest)
    desk = call.desk
    limit = desk.settings.records_per_request
    if len(asked.records) > limit:
        raise TooLarge("the request's records", len(asked.records), limit, "records_per_request")
    entries: list[NewRecord] = []
    places: list[int] = []
    errors: list[dict[str, Any]] = []
    for index, given in enumerate(asked.records):
        try:
            entries.append(_new_record(given, desk.settings.payload_bytes_max))
            places.append(index)
        except InvalidInput as error:
            errors.append(refused(index, error))
    answer: dict[str, Any] = {
        "operation_id": None,
        "ids": [None] * len(asked.records),
        "inserted_idx": [],
        "existing_idx": [],
        "errors": errors,
    }
    if entries:
        submitted = create_records(
            desk.ledger,
            entries,
            actor=call.visitor.actor,
            find_existing=asked.find_existing,
            reason=asked.reason,
            request=call.key,
        )
        _fill_in(answer, submitted, places)
    for outcome in ("inserted", "existing"):
        desk.metrics.submitted.labels(outcome).inc(len(answer[f"{outcome}_idx"]))
    desk.metrics.submitted.labels("refused").inc(len(errors))
    return answer


def refused(index: int, error: CommandRefused) -> dict[str, Any]:
    """Return a refusal as `Refusal` has it."""
    message = plain(str(error), MESSAGE_CHARACTERS_MAX)
    return {"idx": index, "code": error.code, "message": message}


def _new_record(given: Any, payload_bytes_max: int) -> NewRecord:
    try:
        record = RecordIn.model_validate(given)
    except ValidationError as error:
        raise refusal_of(error, "the entry") from error
    return NewRecord(
        specification=specify(
            record.function,
            record.kwargs,
            parse_requirements(record.required_programs),
            size_bytes_max=payload_bytes_max,
        ),
        tag=parse_tag(record.tag),
        priority=Priority[record.priority],
        retry=parse_retry(record.retries, record.retry_delay_s, record.retry_on),
        kind=Kind(record.kind),
    )


def _fill_in(answer: dict[str, Any], submitted: Submitted, places: list[int]) -> None:
    existing = {places[index] for index in submitted["existing_idx"]}
    answer["operation_id"] = submitted["operation_id"]
    for place, record_id in zip(places, submitted["ids"], strict=True):
        answer["ids"][place] = record_id
    answer["existing_idx"] = sorted(existing)
    answer["inserted_idx"] = [place for place in places if place not in existing]
