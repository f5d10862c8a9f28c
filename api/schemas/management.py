"""Actions on records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, create_model

from recordledger.domain.records.actions import ON_RECORDS, Option

from .base import Answer, Message, Refusal
from .fields import MANAGED_MAX, RecordId, Text
from .records import RecordQuery


class _Selection(Message):
    """Which records: exactly one of `ids` and `query`."""

    ids: list[RecordId] | None = Field(default=None, max_length=MANAGED_MAX)
    query: RecordQuery | None = Field(
        default=None, description="The records that meet it when the request is served."
    )
    all: bool = Field(default=False, description="Must be true for a query without any condition.")


def _field_of(option: Option) -> Any:
    """Return the type and the field of an option, as a model has them."""
    actions = [f"`{action}`" for action in ON_RECORDS if option in action.row.options]
    unset = f"; if not given, {option.unset}" if option.unset else ""
    described = f"Of {' and '.join(actions)}: {option.help}{unset}."
    kind: Any = option.kind
    bounds: dict[str, Any] = {"ge": option.least, "le": option.most}
    if option.choices:
        kind = Literal[option.choices]
    elif kind is str:
        kind = Text if option.least else str
        bounds = {"min_length": option.least}
    if option.default is None:
        kind = kind | None
    return kind, Field(default=option.default, description=described, **bounds)


# The options of all actions, each once.
OPTIONS: Final = tuple({each.name: each for one in ON_RECORDS for each in one.row.options}.values())

if TYPE_CHECKING:
    _Options = _Selection
else:
    _Options = create_model(
        "_Options", __base__=_Selection, **{each.name: _field_of(each) for each in OPTIONS}
    )


class ManageRequest(_Options):
    """What to do something to, and how: exactly one of `ids` and `query`.

    Of the options of all actions, each action takes its own and refuses the others.
    """

    reason: Text | None = None
    dry_run: bool = Field(
        default=False, description="Report what would change, and change nothing."
    )


class ManageAnswer(Answer):
    """The outcome of each record, by its index in `ids` (of the request, or of this answer).

    `operation_id` is None where nothing was changed. `ids` are those that a query has found.
    `new_ids` are those of resubmitted records, in the order of the ids, None where there is none.
    With a `job_id` (status 202) the job has only begun, and reports the rest.
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
