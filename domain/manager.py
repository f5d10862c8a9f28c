"""A manager: the agent that claims, runs and returns tasks; its events, state and rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from .errors import ImpossibleHistory
from .events import Event, Stamp


class ManagerState(StrEnum):
    """Whether a manager may claim. Its id is new at every boot, so nobody comes back."""

    active = auto()
    inactive = auto()
    lost = auto()


class ManagerRegistered(Event):
    """The manager may claim tasks of these tags, in this order, that these programs can run."""

    topic = "manager_registered"

    name: str
    hostname: str
    tags: tuple[str, ...]
    programs: dict[str, str | None]
    lease_s: float
    heartbeat_s: float


class ManagerDeactivated(Event):
    """The manager said good-bye, or was sent away; it has no attempts any more."""

    topic = "manager_deactivated"


class ManagerDeclaredLost(Event):
    """The manager's lease ran out in silence; its attempts were taken back."""

    topic = "manager_declared_lost"


MANAGER_EVENTS: Final[tuple[type[Event], ...]] = (
    ManagerRegistered,
    ManagerDeactivated,
    ManagerDeclaredLost,
)


@dataclass(frozen=True, slots=True)
class Manager:
    """The state of one manager, folded from its history. `lease_s`, `heartbeat_s`: seconds."""

    id: int
    version: int = 0
    state: ManagerState | None = None
    name: str = ""
    hostname: str = ""
    tags: tuple[str, ...] = ()
    programs: dict[str, str | None] = field(default_factory=dict[str, str | None])
    lease_s: float = 0.0
    heartbeat_s: float = 0.0
    owner: str = ""
    registered_at: datetime | None = None
    modified_at: datetime | None = None


def evolve_manager(manager: Manager, event: Event) -> Manager:
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
        case ManagerDeactivated() if manager.state is ManagerState.active:
            return replace(manager, state=ManagerState.inactive)
        case ManagerDeclaredLost() if manager.state is ManagerState.active:
            return replace(manager, state=ManagerState.lost)
        case _:
            raise ImpossibleHistory(
                f"manager {manager.id}",
                manager.version,
                f"{event.topic} cannot happen to a manager that is {manager.state or 'not there'}",
            )


def fold_manager(manager_id: int, history: Iterable[Event]) -> Manager:
    """Return the state of a manager after its whole history."""
    manager = Manager(manager_id)
    for event in history:
        manager = evolve_manager(manager, event)
    return manager


def deactivate(manager: Manager, stamp: Stamp, *, lost: bool = False) -> list[Event]:
    """Return the event that ends an active manager; none if it has ended already."""
    if manager.state is not ManagerState.active:
        return []
    event_type = ManagerDeclaredLost if lost else ManagerDeactivated
    return [event_type(**stamp.model_dump())]
