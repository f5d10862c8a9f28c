"""Actions on records."""

from __future__ import annotations

from pydantic import Field

from .base import Answer, Message, Refusal
from .fields import MANAGED_MAX, PriorityName, RecordId, Text
from .records import RecordQuery


class ManageRequest(Message):
    """What to do something to, and how: exactly one of `ids` and `query`.

    Of the fields from `new_tag` to `propagate`, each action takes its own and refuses the others.
    """

    ids: list[RecordId] | None = Field(default=None, max_length=MANAGED_MAX)
    query: RecordQuery | None = Field(
        default=None, description="The records that meet it when the request is served."
    )
    all: bool = Field(default=False, description="Must be true for a query without any condition.")
    new_tag: str | None = Field(default=None, description="Of `modify`.")
    new_priority: PriorityName | None = Field(default=None, description="Of `modify`.")
    text: Text | None = Field(default=None, min_length=1, description="Of `comment`.")
    attempt: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Of `adopt`: which late result; the newest if not given.",
    )
    delete_children: bool = Field(default=True, description="Of `delete` and `erase`.")
    propagate: bool = Field(
        default=True, description="Of `invalidate`: whether what was made from it follows."
    )
    reason: Text | None = None
    dry_run: bool = Field(default=False, description="Say what would happen, and change nothing.")


class ManageAnswer(Answer):
    """What became of each record, by its index in `ids` (of the request, or of this answer).

    `operation_id` is None where nothing was changed. `ids` are those that a query has found.
    `new_ids` are those of resubmitted records, in the order of the ids, None where there is none.
    With a `job_id` (status 202) the job has only begun, and tells the rest.
    """

    operation_id: str | None
    updated_idx: list[int]
    errors: list[Refusal]
    n_selected: int
    n_children_updated: int
    n_parents_updated: int
    new_ids: list[int | None] = Field(default_factory=list[int | None])
    ids: list[int] | None = None
    job_id: int | None = None
