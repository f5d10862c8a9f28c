"""The attempts of a record."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime

from .base import Answer

AttemptInclude = Literal["result", "stdout", "stderr", "traceback", "provenance"]


class AttemptOut(Answer):
    """One attempt of a record, and its outcome.

    `ended_by` is the event that ended it. `late`: its outcome arrived after it had ended. Outputs
    and the result are there only if they were asked for by `include`.
    """

    number: int
    manager_id: int | None
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    ended_by: str | None
    late: bool
    compute_s: float | None
    cores: int | None
    error_type: str | None
    error_message: str | None
    result: Any = None
    stdout: str | None = None
    stderr: str | None = None
    traceback: str | None = None
    provenance: dict[str, Any] | None = None


class AttemptsAnswer(Answer):
    """Every attempt of a record, in order."""

    record_id: int
    attempts: list[AttemptOut]
