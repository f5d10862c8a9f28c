"""Which records: the conditions that a query can have, each declared once.

A condition is a field of `RecordFilter`. The rest of the code reads `CONDITIONS`: the schema of a
query, both clients, the options of the command line, and SQL, for what is now and for what was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Final, Literal, LiteralString, get_type_hints

from .status import Status

IDS_MAX: Final = 10_000
Comparison = Literal["in", ">=", "<"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCondition:
    """A condition on records.

    Attributes:
        value: the type of a value as users give it: int, str, datetime, an enumeration.
        text: what it means, as a sentence for users.
        attribute: of the record, with which values are compared; a column of `records`, which has
            what is now, and of `record_states`, which has what was. None: the condition is about
            cells of a dataset.
        comparison: how they are compared: "in" is to be one of several values.
        values_max: how many values there may be; None for one.
        lower: whether records have it in lower case.
    """

    value: Any
    text: str
    attribute: LiteralString | None
    comparison: Comparison
    values_max: int | None
    lower: bool = False

    @property
    def is_list(self) -> bool:
        """Whether there may be several values, any of which is enough."""
        return self.values_max is not None

    def kept(self, given: Any) -> Any:
        """Return what a user gives, a value or a list of them, as `RecordFilter` has it."""
        if not self.is_list:
            return given
        return tuple(each.lower() if self.lower else each for each in given)


def one_of(
    attribute: LiteralString | None,
    value: Any,
    text: str,
    values_max: int = 100,
    *,
    lower: bool = False,
) -> RecordCondition:
    """Return a condition that is met by any of several values."""
    return RecordCondition(
        value=value,
        text=text,
        attribute=attribute,
        comparison="in",
        values_max=values_max,
        lower=lower,
    )


def one(
    attribute: LiteralString | None, comparison: Comparison, value: Any, text: str
) -> RecordCondition:
    """Return a condition that has one value."""
    return RecordCondition(
        value=value, text=text, attribute=attribute, comparison=comparison, values_max=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records: those that meet every condition that is not None.

    The dataset, and its specifications and entries, are numbers here; users give their names.
    """

    ids: Annotated[tuple[int, ...] | None, one_of("id", int, "Only these.", IDS_MAX)] = None
    status: Annotated[
        tuple[Status, ...] | None,
        one_of("status", Status, "Only records in this status.", len(Status)),
    ] = None
    tag: Annotated[
        tuple[str, ...] | None, one_of("tag", str, "Only records with this tag.", lower=True)
    ] = None
    owner: Annotated[
        tuple[str, ...] | None, one_of("owner", str, "Only this user's, like user:ann.")
    ] = None
    manager_id: Annotated[
        tuple[int, ...] | None,
        one_of(
            "manager_id",
            int,
            "Only of this manager, which has the running attempt or had the accepted one.",
        ),
    ] = None
    function: Annotated[
        tuple[str, ...] | None, one_of("function", str, "Only of this function.")
    ] = None
    created_after: Annotated[
        datetime | None,
        one("created_at", ">=", datetime, "Only what was created then or later."),
    ] = None
    created_before: Annotated[
        datetime | None, one("created_at", "<", datetime, "Only what was created before then.")
    ] = None
    modified_after: Annotated[
        datetime | None,
        one("modified_at", ">=", datetime, "Only records whose last event was then or later."),
    ] = None
    modified_before: Annotated[
        datetime | None,
        one("modified_at", "<", datetime, "Only records whose last event was before then."),
    ] = None
    dataset: Annotated[
        int | None,
        one(None, "in", int | str, "Only of this dataset, by name; programs may give its id."),
    ] = None
    specification: Annotated[
        tuple[int, ...] | None, one_of(None, str, "Of the dataset: only these, by name.", 1_000)
    ] = None
    entry: Annotated[
        tuple[int, ...] | None, one_of(None, str, "Of the dataset: only these, by name.", IDS_MAX)
    ] = None


def _conditions() -> Mapping[str, RecordCondition]:
    hints = get_type_hints(RecordFilter, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0] for each in fields(RecordFilter)}


CONDITIONS: Final = _conditions()
"""The conditions that a query can have, by name."""
