"""Events of records, of managers and of the log."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, overload

from ...schemas.events import EventOut, LogEventOut
from ..tables import html_table, printable, shown, text_table
from ..words import duration, in_words, summary
from .table import Table

_HISTORY_COLUMNS: Final = ("#", "when (UTC)", "after", "what", "by", "")


class HistoryEvent(EventOut):
    """One event: who did what, when and why."""

    @property
    def in_words(self) -> str:
        """What happened, as a sentence."""
        return in_words(self)

    @property
    def summary(self) -> str:
        """What this kind of event says besides who and when, in a few words."""
        return summary(self)


class LogEvent(LogEventOut):
    """One event of the log: its aggregate (`stream` and `id`), who caused it, when and why."""

    @property
    def in_words(self) -> str:
        """The aggregate and the event, as a sentence."""
        return f"{self.stream} {self.id}: {in_words(self)}"

    @property
    def summary(self) -> str:
        """What this kind of event says besides who and when, in a few words."""
        return summary(self)


class LogEvents(Table[LogEvent]):
    """Events of several things, in the order of the call."""

    noun = "events"
    columns = ("timestamp", "stream", "id", "kind", "summary", "actor", "reason")

    def __init__(self, subject: str, events: Iterable[LogEvent] = ()) -> None:
        super().__init__(events)
        self.subject = subject

    @property
    def in_words(self) -> str:
        """What happened, a line an event, times in UTC."""
        return _in_lines(self)

    def _title(self) -> str:
        return f"{self.subject}: {super()._title()}"


class EventSequence(Sequence[HistoryEvent]):
    """Events, oldest first; shows itself as a table."""

    events: tuple[HistoryEvent, ...]

    @abstractmethod
    def _title(self) -> str:
        """Return what stands above the table."""

    @overload
    def __getitem__(self, index: int) -> HistoryEvent: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HistoryEvent, ...]: ...
    def __getitem__(self, index: int | slice) -> HistoryEvent | tuple[HistoryEvent, ...]:
        """Return an event by its place, from 0."""
        return self.events[index]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.events)

    @property
    def in_words(self) -> str:
        """What happened, a line an event, times in UTC."""
        return _in_lines(self.events)

    def __repr__(self) -> str:
        """Return the timeline in text, times in UTC."""
        return text_table(_HISTORY_COLUMNS, self._rows(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(_HISTORY_COLUMNS, self._rows(), title=self._title())

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        before: datetime | None = None
        for event in self.events:
            passed = "" if before is None else duration((event.timestamp - before).total_seconds())
            before = event.timestamp
            what = event.summary + (f" ({event.reason})" if event.reason else "")
            rows.append(
                [
                    str(event.version),
                    event.timestamp.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
                    passed,
                    event.kind.replace("_", " "),
                    shown(event.actor, 30),
                    shown(what, 120),
                ]
            )
        return rows


@dataclass(frozen=True, repr=False)
class History(EventSequence):
    """Every event of a record, oldest first; shows itself as a timeline."""

    record_id: int
    events: tuple[HistoryEvent, ...]

    def _title(self) -> str:
        return f"Record {self.record_id}"


@dataclass(frozen=True, repr=False)
class ManagerHistory(EventSequence):
    """Every event of a manager, oldest first; shows itself as a timeline."""

    manager_id: int
    events: tuple[HistoryEvent, ...]

    def _title(self) -> str:
        return f"Manager {self.manager_id}"


def _in_lines(events: Iterable[HistoryEvent | LogEvent]) -> str:
    return "\n".join(
        f"{event.timestamp.strftime('%Y-%m-%d %H:%M:%S')}  {printable(event.in_words)}"
        for event in events
    )
