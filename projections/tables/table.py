"""What a table that follows from the log is: declared once, in the module that writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, TypeAlias

from recordledger.domain.aggregates import AGGREGATES, EVENT_TYPES
from recordledger.domain.records.events import Event
from recordledger.domain.records.transitions import TRANSITIONS, Destination
from recordledger.domain.streams import Stream

from ..store.database import Db
from .changes import Changes, SharedChanges

Rows: TypeAlias = Collection[Sequence[Any]]

MOVES: Final[frozenset[type[Event]]] = frozenset(
    event_type
    for (source, event_type), target in TRANSITIONS.items()
    if target is not Destination.unchanged and target is not source
)
"""The events that take a record from one status to another."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The aggregate whose history alone says what a row is.

    Attributes:
        column: the column that has its number.
        stream: its kind; None if the table has rows of all kinds, and a column `stream`.
        columns: the columns that follow from the history; all if empty.
    """

    column: str
    stream: Stream | None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CountedFrom:
    """What the rows of a table, or some of their columns, follow from, if from many aggregates.

    Attributes:
        sources: the tables that they are counted from; none if it is the log.
        expected: the statement that counts them again, with each source in braces, and `{only}`
            where a row can be asked for; None if the self-audit reads the log for it.
        parameters: those of the statement.
        columns: what is counted, after the key; all columns if empty.
        record: the column of the key that has the number of a record to which the row belongs.
        only: the same column in the statement.
    """

    sources: tuple[str, ...] = ()
    expected: LiteralString | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    columns: tuple[str, ...] = ()
    record: str | None = None
    only: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a replay puts what each batch adds to a table, to add it up at the end.

    Attributes:
        name: of the table of the parts.
        add_up: the statement that fills the table from them.
        columns: columns that only the parts have, with their types.
    """

    name: str
    add_up: LiteralString
    columns: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionTable:
    """A table that is written in the transaction of the events that it follows from.

    Attributes:
        name: its name.
        key: the columns that identify its rows.
        owner: whose history alone says what a row is, if one aggregate's does.
        counted: what its rows follow from otherwise.
        zero: the column of counts in which 0 means the same as that there is no such row.
        events: the types of events that concern it; None if all events of its owner's kind do.
        actions: whether only events of an operation on records concern it.
        write: brings the table, and others of its module, from what was to what is. None if
            another table's does so, or if it is enough to add `rows`.
        write_shared: does the same for one event that many plain records share. None if no action
            whose event is shared concerns the table.
        columns: the columns of `rows`, in their order, with their types.
        rows: returns the rows that changes add.
        parts: where a replay adds up `rows`.
        key_last: whether a replay only adds rows, so that the key is best made when all are in.
    """

    name: str
    key: tuple[str, ...]
    owner: Owner | None = None
    counted: CountedFrom | None = None
    zero: str | None = None
    events: frozenset[type[Event]] | None = None
    actions: bool = False
    write: Callable[[Db, Changes], None] | None = None
    write_shared: Callable[[Db, SharedChanges], None] | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    rows: Callable[[Db, Changes], Rows] | None = None
    parts: Parts | None = None
    key_last: bool = False

    def concerning(self) -> frozenset[type[Event]]:
        """Return the types of the events that concern it."""
        if self.events is not None:
            return self.events
        if self.owner is None or self.owner.stream is None:
            return frozenset(EVENT_TYPES.values())
        return frozenset(AGGREGATES[self.owner.stream].events)


def write_nothing(db: Db, changes: SharedChanges) -> None:
    """Write nothing of plain records, for a table that holds nothing of them."""
