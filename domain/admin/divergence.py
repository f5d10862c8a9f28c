"""A divergence: a row of a table that is not what the log says; its events and state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from ..errors import ImpossibleHistory
from ..records.events import Event, events_of


class DivergenceState(StrEnum):
    """Where a divergence stands. Gone means that the row is right again without a repair."""

    open = auto()
    repaired = auto()
    gone = auto()


class RowFault(StrEnum):
    """What is wrong with a row: it says something else, is not there, or should not be there."""

    changed = auto()
    missing = auto()
    extra = auto()


class DivergenceFound(Event):
    """A row of a table differs from the log. The event has none of the row's values.

    `key` are the values of the table's key, as text; `columns` those that differ if the row was
    `changed`.
    """

    topic = "divergence_found"
    words = "{who} found a row of {table} that differs from the log"

    table: str
    key: tuple[str, ...]
    fault: RowFault
    columns: tuple[str, ...] = ()


class DivergenceRepaired(Event):
    """A user asked for the repair of the row, which was made in the same transaction."""

    topic = "divergence_repaired"
    words = "{who} repaired the row"


class DivergenceGone(Event):
    """The row agrees with the log again, by a later event of its own or a change by hand."""

    topic = "divergence_gone"
    words = "the row agrees with the log again"


DIVERGENCE_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class DivergenceAggregate:
    """The state of one divergence, folded from its history."""

    id: int
    version: int = 0
    state: DivergenceState | None = None
    table: str = ""
    key: tuple[str, ...] = ()
    fault: RowFault = RowFault.changed
    columns: tuple[str, ...] = ()
    found_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str | None = None

    def __str__(self) -> str:
        """Return one line for people.

        >>> print(DivergenceAggregate(1, table="records", key=("411",), columns=("tag", "version")))
        records 411: tag and version differ from the log
        """
        where = f"{self.table} {', '.join(self.key)}"
        match self.fault:
            case RowFault.missing:
                return f"{where}: the row is missing"
            case RowFault.extra:
                return f"{where}: the log has no such row"
            case _:
                verb = "differs" if len(self.columns) == 1 else "differ"
                return f"{where}: {' and '.join(self.columns)} {verb} from the log"


def evolve_divergence(divergence: DivergenceAggregate, event: Event) -> DivergenceAggregate:
    """Return the divergence after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the divergence is.
    """
    divergence = replace(divergence, version=divergence.version + 1)
    match event, divergence.state:
        case DivergenceFound(), None:
            return replace(
                divergence,
                state=DivergenceState.open,
                table=event.table,
                key=event.key,
                fault=event.fault,
                columns=event.columns,
                found_at=event.timestamp,
            )
        case DivergenceRepaired() | DivergenceGone(), DivergenceState.open:
            is_repaired = isinstance(event, DivergenceRepaired)
            return replace(
                divergence,
                state=DivergenceState.repaired if is_repaired else DivergenceState.gone,
                ended_at=event.timestamp,
                ended_by=event.actor,
            )
        case _:
            raise ImpossibleHistory(
                f"divergence {divergence.id}",
                divergence.version,
                f"{event.topic} cannot happen to one that is {divergence.state or 'not there'}",
            )
