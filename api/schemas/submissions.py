"""Records to create."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from recordledger.domain.records.retries import DELAY_S_MAX, PATTERNS_MAX, RETRIES_MAX

from .base import Answer, Message, Refusal
from .fields import PriorityName, Text


class RecordIn(Message):
    """A record to create."""

    function: str = Field(examples=["recordledger.workers.demo.functions:quadratic"])
    kwargs: dict[str, Any] = Field(default_factory=dict[str, Any], examples=[{"x": 1.5}])
    required_programs: list[str] = Field(
        default_factory=list[str], max_length=50, examples=[["psi4>=1.9"]]
    )
    tag: str = Field(default="default", examples=["gpu"])
    priority: PriorityName = "normal"
    retries: int = Field(
        default=0,
        ge=0,
        le=RETRIES_MAX,
        description="Number of errors that are reset automatically.",
    )
    retry_delay_s: float = Field(
        default=0,
        ge=0,
        le=DELAY_S_MAX,
        description="Pause before the first retry, in seconds; it doubles with each further one.",
    )
    retry_on: list[str] = Field(
        default_factory=list[str],
        max_length=PATTERNS_MAX,
        description="Patterns of the error types that qualify; `!` before one excludes.",
        examples=[["OSError", "*Timeout*"]],
    )
    kind: Literal["task", "service"] = Field(
        default="task", description="Whether managers run it as a whole, or the server iterates it."
    )


class CreateRequest(Message):
    """Records to create, in one operation: all valid ones or none."""

    records: list[Any] = Field(
        description="Each a RecordIn; an invalid one is refused by its index and does not affect "
        "the others.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/RecordIn"}},
    )
    find_existing: bool = True
    reason: Text | None = None


class CreateAnswer(Answer):
    """The outcome of each entry, by its index: `ids` has None where an entry was refused."""

    operation_id: str | None
    ids: list[int | None]
    inserted_idx: list[int]
    existing_idx: list[int]
    errors: list[Refusal]
