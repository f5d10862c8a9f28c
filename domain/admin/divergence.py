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
    """A row of a table is not what the log says. Nothing of what it holds is told here.

    `key` are the values that tell the rows of the table apart, as text; `columns` those that differ
    if the row was `changed`.
    """

    topic = "divergence_found"
    words = "{who} found a row of {table} that is not what the log says"

    table: str
    key: tuple[str, ...]
    fault: RowFault
    columns: tuple[str, ...] = ()


class DivergenceRepaired(Event):
    """Somebody wanted the row put right, and in the same transaction it was."""

    topic = "divergence_repaired"
    words = "{who} put the row right"


class DivergenceGone(Event):
    """The row is what the log says again: by a later event of its own, or by a hand."""

    topic = "divergence_gone"
    words = "the row is what the log says again"


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
        """Return it as people say it.

        >>> print(DivergenceAggregate(1, table="records", key=("411",), columns=("tag", "version")))
        records 411: tag and version are not what the log says
        """
        where = f"{self.table} {', '.join(self.key)}"
        match self.fault:
            case RowFault.missing:
                return f"{where}: the row is missing"
            case RowFault.extra:
                return f"{where}: there should be no such row"
            case _:
                verb = "is" if len(self.columns) == 1 else "are"
                return f"{where}: {' and '.join(self.columns)} {verb} not what the log says"


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
