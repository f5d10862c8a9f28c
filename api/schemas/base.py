"""What every request and every answer is, and how errors are written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """Base of every request: unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """Base of every answer: it is not changed, and a client ignores what a newer server adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Refusal(Answer):
    """Why one entry of a bulk call was refused: its index, a stable code and a sentence."""

    idx: int
    code: str
    message: str


class Problem(Answer):
    """An error (RFC 9457). `code` is stable; `detail` says what was wrong and what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
