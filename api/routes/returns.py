"""What managers return: results become outcomes and payloads, and as little as can be is lost.

A result is hours of somebody's computer. So text that PostgreSQL or Unicode would not have is
repaired, what is too long is cut, and only what cannot be kept is refused, by its index.
"""

from __future__ import annotations

from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.records.events import Outcome, Payload
from recordledger.domain.specs.canonical import NESTING_MAX, canonical_json
from recordledger.projections.actions.managing import ReturnedResult, return_results
from recordledger.projections.tables.payloads import payload_of

from ..http.errors import plain, refusal_of
from ..http.request_context import Call
from ..http.wire import is_about_surrogates
from ..schemas.returns import ResultIn, ReturnRequest
from .submissions import refused

# What is kept of an error; the traceback is kept whole.
ERROR_TYPE_CHARACTERS_MAX: Final = 200
ERROR_MESSAGE_CHARACTERS_MAX: Final = 1_000
_TEXTS: Final = ("traceback", "stdout", "stderr")


def accept_results(call: Call, manager_id: int) -> dict[str, Any]:
    """Take the results of a request; return the answer as `ReturnAnswer` has it."""
    asked = call.parse(ReturnRequest)
    desk = call.desk
    limit = desk.settings.results_per_request
    if len(asked.results) > limit:
        raise TooLarge("the request's results", len(asked.results), limit, "results_per_request")
    results: list[ReturnedResult] = []
    places: list[int] = []
    errors: list[dict[str, Any]] = []
    for index, given in enumerate(asked.results):
        try:
            results.append(_returned(given, desk.settings.payload_bytes_max))
            places.append(index)
        except InvalidInput as error:
            errors.append(refused(index, error))
    answer: dict[str, Any] = {
        "operation_id": None,
        "accepted_idx": [],
        "late_idx": [],
        "duplicate_idx": [],
        "errors": errors,
    }
    # `results` are the valid ones; `places` are their indexes in the request.
    if results:
        taken = return_results(
            desk.ledger,
            manager_id,
            results,
            user=call.visitor.actor,
            policies=desk.settings.policies,
            breaker=desk.settings.breaker,
            request=call.key,
        )
        answer["operation_id"] = taken["operation_id"]
        answer["accepted_idx"] = [places[index] for index in taken["accepted_idx"]]
        answer["late_idx"] = [places[index] for index in taken["late_idx"]]
        answer["duplicate_idx"] = [places[index] for index in taken["duplicate_idx"]]
        errors += [
            {"idx": places[index], "code": code, "message": message}
            for index, code, message in taken["errors"]
        ]
        errors.sort(key=lambda error: error["idx"])
    # Each index of the request is now in exactly one of the lists.
    for outcome in ("accepted", "late", "duplicate"):
        desk.metrics.returned.labels(outcome).inc(len(answer[f"{outcome}_idx"]))
    desk.metrics.returned.labels("refused").inc(len(errors))
    return answer


def _returned(given: Any, payload_bytes_max: int) -> ReturnedResult:
    try:
        result = ResultIn.model_validate(_cleaned(given))
    except ValidationError as error:
        raise refusal_of(error, "the entry") from error
    contents: dict[bytes, bytes] = {}

    def keep(data: bytes) -> Payload:
        payload = payload_of(data)
        contents[payload.digest] = data
        return payload

    payloads: dict[str, Payload | None] = {}
    if result.error_type is None or result.result is not None:
        payloads["result"] = keep(_result_bytes(result.result, payload_bytes_max))
    for name in _TEXTS:
        text: str | None = getattr(result, name)
        if text:
            payloads[name] = keep(_shortened(text.encode(), payload_bytes_max))
    if result.provenance is not None:
        data = canonical_json(result.provenance)
        _require_size("the provenance", data, payload_bytes_max)
        payloads["provenance"] = keep(data)
    if result.error_message is not None:
        payloads["error_message"] = keep(result.error_message.encode())
    outcome = Outcome(
        error_type=result.error_type,
        compute_s=result.compute_s,
        cores=result.cores,
        **payloads,
    )
    return ReturnedResult(result.record_id, result.attempt, outcome, contents)


def _cleaned(given: Any) -> Any:
    """Return an entry with texts that can be kept: valid Unicode, and no longer than they may."""
    if not isinstance(given, dict):
        return given
    entry = dict(cast("dict[str, Any]", given))
    for name, characters_max in (
        ("error_type", ERROR_TYPE_CHARACTERS_MAX),
        ("error_message", ERROR_MESSAGE_CHARACTERS_MAX),
    ):
        if isinstance(text := entry.get(name), str):
            entry[name] = plain(text, characters_max)
    for name in _TEXTS:
        text = entry.get(name)
        if isinstance(text, bytes):
            entry[name] = text.decode("utf-8", "backslashreplace")
        elif isinstance(text, str) and not text.isascii():
            entry[name] = text.encode("utf-8", "backslashreplace").decode()
    return entry


def _result_bytes(result: Any, bytes_max: int) -> bytes:
    """Return a result as JSON: as it came if it came as bytes, else in canonical form."""
    if not isinstance(result, bytes):
        data = canonical_json(result)
        _require_size("the result", data, bytes_max)
        return data
    _require_size("the result", result, bytes_max)
    try:
        value = from_json(result, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        if is_about_surrogates(error):
            raise InvalidInput(
                "the result has a lone surrogate, which is not valid Unicode"
            ) from error
        raise InvalidInput(f"the result's bytes are not JSON: {error}") from error
    # What the decoder lets through is rare, so it is looked for in the cheapest way first: NUL,
    # deep nesting, and infinity, which it makes of numbers that are beyond a double.
    if (
        b"\\u0000" in result
        or result.count(b"[") + result.count(b"{") > NESTING_MAX
        or b"Infinity" in to_json(value, inf_nan_mode="constants")
    ):
        canonical_json(value)
    return result


def _require_size(what: str, data: bytes, bytes_max: int) -> None:
    if len(data) > bytes_max:
        raise TooLarge(
            f"{what} (return less: write large data to a file and return its location)",
            len(data),
            bytes_max,
            "payload_bytes_max",
        )


def _shortened(data: bytes, bytes_max: int) -> bytes:
    """Return a text that fits: its beginning and its end, where it is too long."""
    if len(data) <= bytes_max:
        return data
    note = b"\n... %d bytes left out ...\n" % (len(data) - bytes_max)
    half = (bytes_max - len(note) - 8) // 2
    head = data[:half].decode("utf-8", "ignore").encode()
    tail = data[-half:].decode("utf-8", "ignore").encode()
    return head + note + tail
