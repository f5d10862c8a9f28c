"""What an audit finds: for each invariant how much was checked, and which events break it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..streams import Stream


class EventPlace(NamedTuple):
    """Where an event stands: its position in the log, and as which event of which stream."""

    position: int
    stream: Stream
    number: int
    version: int

    def __str__(self) -> str:
        """Return it as people say it.

        >>> print(EventPlace(17, Stream.record, 411, 3))
        position 17 (record 411, event 3)
        """
        return f"position {self.position} ({self.stream.name} {self.number}, event {self.version})"


@dataclass(frozen=True, slots=True)
class Breach:
    """Events that break an invariant, in the order of the log, and what is wrong with them."""

    what: str
    places: tuple[EventPlace, ...] = ()

    def __str__(self) -> str:
        """Return one readable line."""
        where = ", ".join(map(str, self.places))
        return f"{where}: {self.what}" if where else self.what


@dataclass(slots=True)
class Finding:
    """The outcome of one invariant.

    Attributes:
        name: of the invariant.
        what: what it says, in a few words.
        unit: of what `n_checked` counts.
        breaches: the first of the breaches; `n_breaches` counts all.
        note: what the numbers do not show.
        unchecked: why it was not checked; empty if it was.
    """

    name: str
    what: str
    unit: str = "events"
    n_checked: int = 0
    n_breaches: int = 0
    breaches: list[Breach] = field(default_factory=list[Breach])
    breaches_max: int = 20
    note: str = ""
    unchecked: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether anything breaks it."""
        return self.n_breaches > 0

    def report(self, what: str, places: Iterable[EventPlace] = ()) -> None:
        """Note that something breaks it."""
        self.n_breaches += 1
        if len(self.breaches) < self.breaches_max:
            self.breaches.append(Breach(what, tuple(places)))

    def __str__(self) -> str:
        """Return one line: the name, how it stands, and how much was checked."""
        if self.unchecked:
            return f"{self.name:<20} not checked: {self.unchecked}"
        how = f"BROKEN {self.n_breaches:,} x" if self.is_broken else "ok"
        note = f" ({self.note})" if self.note else ""
        return f"{self.name:<20} {how}: {self.n_checked:,} {self.unit}{note}; {self.what}"
