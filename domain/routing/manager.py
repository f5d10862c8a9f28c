"""A manager: the agent that claims, runs and returns tasks; its events, state and rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import AwareDatetime

from ..errors import ImpossibleHistory, ManagerNotActive
from ..records.events import Event, Imported, Stamp, events_of
from .manager_state import ALIVE, ManagerState


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a manager gets no tasks of a program, and until when.

    Attributes:
        n_times: how often on end; each time for longer.
        n_failures: failures in a row so far.
        error_type: of the last of them.
        since: when it was suspended this time.
        until: when one task may be tried, or the next one if that does not end.
        probing: whether one is being tried.
    """

    n_times: int
    n_failures: int
    error_type: str
    since: datetime
    until: datetime
    probing: bool = False


class ManagerRegistered(Event):
    """The manager may claim tasks of these tags, in this order, that these programs can run."""

    topic = "manager_registered"
    words = "{who} registered it"

    name: str
    hostname: str
    tags: tuple[str, ...]
    programs: dict[str, str | None]
    lease_s: float
    heartbeat_s: float


class ManagerDraining(Event):
    """The manager claims nothing more; it ends when it has finished what it has."""

    topic = "manager_draining"
    words = "{who} drains it"


class ProgramsChanged(Event):
    """The manager has other programs than before: these are all that it has now."""

    topic = "programs_changed"
    words = "its programs changed"

    programs: dict[str, str | None]


class ProgramSuspended(Event):
    """Too many tasks in a row that require this program failed: it gets no more until then.

    `n_times` counts suspensions on end, `n_failures` the failures in a row.
    """

    topic = "program_suspended"
    words = "it gets no more tasks for {program} until {until}"

    program: str
    n_times: int
    n_failures: int
    error_type: str
    until: AwareDatetime

    @property
    def suspension(self) -> Suspension:
        """What this makes of the program."""
        return Suspension(
            self.n_times, self.n_failures, self.error_type, self.timestamp, self.until
        )


class ProgramProbed(Event):
    """The manager got one task that requires the suspended program, to see whether it ends well."""

    topic = "program_probed"
    words = "it tries {program} again with record {record_id}"

    program: str
    record_id: int
    until: AwareDatetime


class ProgramResumed(Event):
    """A task that requires the program ended well: the manager gets such tasks as before."""

    topic = "program_resumed"
    words = "it gets tasks for {program} again"

    program: str


class ManagerDeactivated(Event):
    """The manager ended, or an administrator ended it; it has no attempts any longer."""

    topic = "manager_deactivated"
    words = "{who} ended it"


class ManagerDeclaredLost(Event):
    """The manager's lease ran out in silence; its attempts were taken back."""

    topic = "manager_declared_lost"
    words = "{who} declared it lost"


MANAGER_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class ManagerAggregate:
    """The state of one manager, folded from its history. `lease_s`, `heartbeat_s`: seconds."""

    id: int
    version: int = 0
    state: ManagerState | None = None
    name: str = ""
    hostname: str = ""
    tags: tuple[str, ...] = ()
    programs: dict[str, str | None] = field(default_factory=dict[str, str | None])
    suspended: Mapping[str, Suspension] = field(default_factory=dict[str, Suspension])
    lease_s: float = 0.0
    heartbeat_s: float = 0.0
    owner: str = ""
    registered_at: datetime | None = None
    modified_at: datetime | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has a lease, and may have attempts."""
        return self.state in ALIVE


def evolve_manager(manager: ManagerAggregate, event: Event) -> ManagerAggregate:
    """Return the manager after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the manager is.
    """
    manager = replace(manager, version=manager.version + 1, modified_at=event.timestamp)
    match event:
        case ManagerRegistered() if manager.state is None:
            return replace(
                manager,
                state=ManagerState.active,
                name=event.name,
                hostname=event.hostname,
                tags=event.tags,
                programs=event.programs,
                lease_s=event.lease_s,
                heartbeat_s=event.heartbeat_s,
                owner=event.actor,
                registered_at=event.timestamp,
            )
        case ManagerDraining() if manager.state is ManagerState.active:
            return replace(manager, state=ManagerState.draining)
        case ManagerDeactivated() if manager.is_alive:
            return replace(manager, state=ManagerState.inactive)
        case ManagerDeclaredLost() if manager.is_alive:
            return replace(manager, state=ManagerState.lost)
        case Imported() if manager.state is not None:
            ended = ManagerState.inactive if manager.is_alive else manager.state
            return replace(manager, state=ended)
        case ProgramsChanged(programs=programs) if manager.is_alive:
            # Another version may have fixed the errors.
            same = {
                name: each
                for name, each in manager.suspended.items()
                if manager.programs.get(name, "") == programs.get(name, "")
            }
            return replace(manager, programs=programs, suspended=same)
        # The circuit breaker: suspended, then probing with one task, then resumed.
        case ProgramSuspended(program=program) if manager.is_alive:
            return replace(manager, suspended={**manager.suspended, program: event.suspension})
        case ProgramProbed(program=program, until=until) if program in manager.suspended:
            probed = replace(manager.suspended[program], until=until, probing=True)
            return replace(manager, suspended={**manager.suspended, program: probed})
        case ProgramResumed(program=program) if program in manager.suspended:
            suspended = {name: each for name, each in manager.suspended.items() if name != program}
            return replace(manager, suspended=suspended)
        case _:
            raise ImpossibleHistory(
                f"manager {manager.id}",
                manager.version,
                f"{event.topic} cannot happen to a manager that is {manager.state or 'not there'}",
            )


def fold_manager(manager_id: int, history: Iterable[Event]) -> ManagerAggregate:
    """Return the state of a manager after its whole history."""
    manager = ManagerAggregate(manager_id)
    for event in history:
        manager = evolve_manager(manager, event)
    return manager


def deactivate(manager: ManagerAggregate, stamp: Stamp, *, lost: bool = False) -> list[Event]:
    """Return the event that ends a manager; none if it has ended already."""
    if not manager.is_alive:
        return []
    event_type = ManagerDeclaredLost if lost else ManagerDeactivated
    return [event_type(**stamp.model_dump())]


def drain(manager: ManagerAggregate, stamp: Stamp) -> list[Event]:
    """Return the event that keeps a manager from claiming; none if it claims nothing already."""
    if manager.state is not ManagerState.active:
        return []
    return [ManagerDraining(**stamp.model_dump())]


def change_programs(
    manager: ManagerAggregate, programs: Mapping[str, str | None], stamp: Stamp
) -> list[Event]:
    """Return the event that a manager has other programs; none if they are the same.

    Raises:
        ManagerNotActive: it has ended.
    """
    if not manager.is_alive:
        raise ManagerNotActive(manager.id, str(manager.state))
    if programs == manager.programs:
        return []
    return [ProgramsChanged(programs=dict(programs), **stamp.model_dump())]
