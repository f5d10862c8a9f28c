"""Reading records: by id, by query, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import AwareDatetime, Field, create_model

from recordledger.domain.records.filters import CONDITIONS, RecordCondition
from recordledger.domain.records.status import Status

from .base import Answer, Message
from .fields import IDS_MAX, PAGE_MAX, PriorityName, RecordId, ShortText, Text
from .moments import AsOf, MomentOut

Include = Literal["kwargs", "result", "stdout", "stderr", "traceback", "provenance"]


class GetRequest(Message):
    """Records by id, in the order of the ids."""

    ids: list[RecordId] = Field(max_length=IDS_MAX)
    include: list[Include] = Field(default_factory=list[Include])
    missing_ok: bool = False
    as_of: AsOf | None = None


class RecordOut(Answer):
    """A record as it is, or was. Payloads are there only if they were asked for by `include`.

    `erased`: it was hard-deleted since then, so that its payloads are destroyed.
    """

    id: int
    status: Status
    kind: Literal["task", "service"]
    function: str
    required_programs: list[str]
    tag: str
    priority: PriorityName
    owner: str
    fingerprint: str
    created_at: AwareDatetime
    modified_at: AwareDatetime
    attempt: int
    manager_id: int | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    compute_s: float | None
    error_type: str | None
    error_message: str | None
    retries: int
    retry_delay_s: float = 0.0
    retry_on: list[str] = Field(default_factory=list[str])
    retries_used: int
    not_before: AwareDatetime | None = None
    version: int
    kwargs: dict[str, Any] | None = None
    result: Any = None
    stdout: str | None = None
    stderr: str | None = None
    traceback: str | None = None
    provenance: dict[str, Any] | None = None
    erased: bool = False


class GetAnswer(Answer):
    """The records, in the order of the ids asked for; None where there is none.

    `as_of` is there if it was asked for, here and in other answers.
    """

    records: list[RecordOut | None]
    as_of: MomentOut | None = None


# What a condition's value is in a request; an enumeration is itself.
_VALUES: Final[Mapping[Any, Any]] = {
    int: RecordId,
    str: Text,
    datetime: AwareDatetime,
    int | str: RecordId | ShortText,
}


def _field_of(condition: RecordCondition) -> tuple[Any, Any]:
    value = _VALUES.get(condition.value, condition.value)
    kind = GenericAlias(list, value) if condition.is_list else value
    return kind | None, Field(
        default=None, max_length=condition.values_max, description=condition.text
    )


if TYPE_CHECKING:

    class RecordQuery(Message):
        """What type checkers see: none of the fields, which are made of the conditions."""

else:
    RecordQuery = create_model(
        "RecordQuery",
        __base__=Message,
        __module__=__name__,
        __doc__="Which records: those that meet every condition that is given. Newest first.",
        **{name: _field_of(condition) for name, condition in CONDITIONS.items()},
    )


class QueryRequest(Message):
    """One page of a query; `cursor` is the `next_cursor` of the page before."""

    query: RecordQuery = Field(default_factory=RecordQuery)
    include: list[Include] = Field(default_factory=list[Include])
    limit: int = Field(default=250, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(default=None, max_length=200)
    as_of: AsOf | None = None


class QueryAnswer(Answer):
    """One page; `next_cursor` is None on the last.

    To go on in a query of an earlier moment, name the position of its `as_of`.
    """

    records: list[RecordOut]
    next_cursor: str | None
    as_of: MomentOut | None = None


class RelativesAnswer(Answer):
    """One page of a record's children or parents, by id; `next_cursor` is None on the last."""

    ids: list[int]
    next_cursor: str | None


class ErrorGroupOut(Answer):
    """Records in error that say the same; `newest_ids` are up to five of them."""

    error_type: str | None
    error_message: str | None
    n_records: int
    newest_ids: list[int]
    newest_at: AwareDatetime | None


class ErrorsAnswer(Answer):
    """What the newest 100,000 records in error say, most frequent first."""

    groups: list[ErrorGroupOut]
