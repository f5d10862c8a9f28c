"""Conditions on records as a program gives them: keyword arguments, with one value or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from recordledger.domain.records.filters import CONDITIONS
from recordledger.domain.records.status import Status

F = TypeVar("F", bound=Callable[..., Any])
Ids = int | Iterable[int | None]


class RecordConditions(TypedDict, total=False):
    """Which records: those that meet every condition. `CONDITIONS` says what each of them means.

    The methods of a dataset take these, for it is the dataset; those of a client `dataset` too.
    """

    status: Status | str | Iterable[Status | str] | None
    tag: str | Iterable[str] | None
    owner: str | Iterable[str] | None
    manager_id: int | Iterable[int] | None
    function: str | Iterable[str] | None
    created_after: datetime | None
    created_before: datetime | None
    modified_after: datetime | None
    modified_before: datetime | None
    specification: str | Iterable[str] | None
    entry: str | Iterable[str] | None


class Conditions(RecordConditions, total=False):
    """Which records, instead of ids: those that meet every condition, as in `query_records`.

    `query` is the same as a mapping. `all=True` must be said if there is no condition at all.
    """

    dataset: int | str | None
    query: Mapping[str, Any] | None
    all: bool


def describes_conditions(operation: F) -> F:
    """Say in an operation's docstring what each condition means, where `which` is described."""
    if operation.__doc__ is not None:  # it is under `python -OO`
        operation.__doc__ = operation.__doc__.replace("        {which}\n", _described())
    return operation


def _described() -> str:
    lines: list[str] = []
    for name in RecordConditions.__annotations__:
        condition = CONDITIONS[name]
        text = condition.text[0].lower() + condition.text[1:].removesuffix(".")
        if condition.is_list:
            text += "; one or several"
        if condition.value is datetime:
            text += "; with a time zone"
        lines.append(f"        {name}: {text}.\n")
    return "".join(lines)
