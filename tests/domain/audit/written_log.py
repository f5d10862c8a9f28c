"""A log that is written by hand, event by event, and audited meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self
from uuid import UUID

from recordledger.domain.audit.invariants import Audit
from recordledger.domain.records.events import Event
from recordledger.domain.routing.manager import ManagerRegistered
from recordledger.domain.streams import Stream
from tests.domain.specification import N_MANAGERS
from tests.examples import at, claimed, created

# Alice's record, and the manager that has registered first.
R: Final = 411
M: Final = 1
LONG_S: Final = 1_000.0


def said(operation: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Return what an event says besides its own fields."""
    return {
        "timestamp": at(seconds),
        "actor": "bob",
        "operation_id": UUID(int=operation),
        **more,
    }


@dataclass
class Log:
    """A log that is written by hand. One operation is one second, if nothing else is said."""

    audit: Audit = field(default_factory=Audit)
    position: int = 0
    second: float = 0.0
    versions: dict[tuple[Stream, int], int] = field(default_factory=dict[tuple[Stream, int], int])

    def manager(self, *events: Event, number: int = M) -> Self:
        """Let something happen to a manager."""
        return self.happen(Stream.manager, number, *events)

    def record(self, *events: Event, number: int = R) -> Self:
        """Let something happen to a record, each event in an operation of its own."""
        for event in events:
            self.second += 1
            self.happen(
                Stream.record,
                number,
                event.model_copy(
                    update={"timestamp": at(self.second), "operation_id": self.operation()}
                ),
            )
        return self

    def operation(self) -> UUID:
        """Return an operation that nothing else belongs to."""
        return UUID(int=10**6 + self.position)

    def happen(self, stream: Stream, number: int, *events: Event) -> Self:
        """Append events as they are."""
        for event in events:
            version = self.versions.get((stream, number), 0) + 1
            self.append(stream, number, version, event)
        return self

    def append(self, stream: Stream, number: int, version: int, event: Event) -> Self:
        """Append an event under a version that may be wrong."""
        self.position += 1
        self.versions[stream, number] = version
        self.audit.feed(self.position, stream, number, version, event)
        return self

    def found(self) -> dict[str, list[tuple[int, ...]]]:
        """Return the positions of the events that break an invariant, by its name."""
        self.audit.end()
        return {
            finding.name: [tuple(place.position for place in each.places) for each in breaches]
            for finding in self.audit.findings
            if (breaches := finding.breaches)
        }

    def what(self, name: str) -> str:
        """Return what is wrong with an invariant."""
        [finding] = [each for each in self.audit.findings if each.name == name]
        return "; ".join(each.what for each in finding.breaches)


def registered(
    *tags: str, programs: dict[str, str | None] | None = None, **more: Any
) -> ManagerRegistered:
    return ManagerRegistered(
        name="cluster",
        hostname="node7",
        tags=tags or ("*",),
        programs={"psi4": "1.9"} if programs is None else programs,
        lease_s=120,
        heartbeat_s=30,
        **said(900, 0, **more),
    )


def log(**options: Any) -> Log:
    """Return a log in which three managers have registered, at positions 1 to 3."""
    made = Log(Audit(**options))
    for number in range(1, N_MANAGERS + 1):
        made.manager(registered(), number=number)
    return made


def by(manager_id: int, event: Event) -> Event:
    """Return an event that a manager has caused."""
    return event.model_copy(update={"actor": f"manager:{manager_id}"})


@dataclass
class Claims(Log):
    """A log of claims."""

    n_operations: int = 0

    def submit(self, *ids: int, at_s: float = 0.0, **fields: Any) -> Self:
        for id_ in ids:
            self.n_operations += 1
            event = created(timestamp=at(at_s), operation_id=UUID(int=self.n_operations), **fields)
            self.happen(Stream.record, id_, event)
        return self

    def claim(self, *ids: int, at_s: float = 10.0, manager_id: int = M) -> Self:
        self.n_operations += 1
        for id_ in ids:
            event = claimed(
                manager_id, timestamp=at(at_s), operation_id=UUID(int=self.n_operations)
            )
            self.happen(Stream.record, id_, event)
        return self


def claims(*tags: str, programs: Iterable[str] = ("psi4",), **options: Any) -> Claims:
    """Return a log in which a manager of these tags has registered, at position 1."""
    made = Claims(Audit(**options))
    made.manager(registered(*tags, programs=dict.fromkeys(programs, "1.9")))
    return made


def passed_over(written: Claims, *times_s: float) -> Claims:
    """Let 2 and later ones be claimed at these times, and 1 wait for ever."""
    for place, time_s in enumerate(times_s):
        written.submit(100 + place, tag="gpu", at_s=time_s).claim(100 + place, at_s=time_s)
    return written
