"""Services: where one stands, what is below it, and its next state."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field

from recordledger.domain.records.status import Status

from .base import Answer, Message
from .fields import RecordId, ShortText


class ServiceChildOut(Answer):
    """A child of a service by the service's own name for it, as it is now."""

    key: str
    record_id: int
    status: Status | None


class ServiceAnswer(Answer):
    """Where a service stands, or stood after the iteration that was asked for.

    `awaited` are the children that it waits, or waited, for: the first ones of `n_awaited`.
    `output` is what it has said: in all iterations, or in the one that was asked for.
    """

    record_id: int
    status: Status
    function: str
    iteration: int
    decided_at: AwareDatetime | None
    code_version: str | None
    progress: float | None
    n_children: int
    awaited: list[ServiceChildOut]
    n_awaited: int
    until: Literal["all", "any"]
    takes_errors: bool
    wake_at: AwareDatetime | None
    due: bool
    state: Any
    output: str


class TreeNodeOut(Answer):
    """A record in the tree below a service; `n_more` of its children are not shown.

    `is_repeated`: another service has it too, and its children are shown there.
    """

    record_id: int
    parent_id: int | None
    key: str
    status: Status
    kind: Literal["task", "service"]
    function: str
    iteration: int
    awaited: bool
    n_more: int
    is_repeated: bool


class TreeAnswer(Answer):
    """A record and what is below it: parents before their children, level by level."""

    record_id: int
    nodes: list[TreeNodeOut]


class IterateRequest(Message):
    """The next state of a running service, from which it can go on, and its new children."""

    state: Any
    children: list[RecordId] = Field(default_factory=list[int], max_length=100_000)
    output: str | None = None


class FinishRequest(Message):
    """How a service ended: a result, or an error if `error_type` is set."""

    result: Any = None
    error_type: ShortText | None = None
    error_message: str | None = Field(default=None, max_length=1_000, pattern=r"^[^\x00]*$")
