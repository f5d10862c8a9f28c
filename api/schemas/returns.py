"""Results that managers return."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .base import Answer, Message, Refusal
from .fields import RecordId


class ResultIn(Message):
    """The outcome of one attempt: a result, or an error if `error_type` is set.

    `result` is a JSON value: as such in JSON, or already encoded as JSON bytes in msgpack.
    """

    record_id: RecordId
    attempt: int = Field(ge=1, le=2**31 - 1)
    result: Any = None
    error_type: str | None = Field(default=None, max_length=200)
    error_message: str | None = Field(default=None, max_length=10_000)
    traceback: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    provenance: dict[str, Any] | None = None
    compute_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cores: int | None = Field(
        default=None, ge=1, le=100_000, description="How many processor cores the task had."
    )


class ReturnRequest(Message):
    """Results; a malformed one is refused by its index and spoils no other."""

    results: list[Any] = Field(
        description="Each a ResultIn.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/ResultIn"}},
    )


class ReturnAnswer(Answer):
    """The outcome of each result, by its index.

    `late`: kept aside, the attempt was over. `duplicate`: it was there already.
    """

    operation_id: str | None
    accepted_idx: list[int]
    late_idx: list[int]
    duplicate_idx: list[int]
    errors: list[Refusal]
