"""Who could take a task, and what those lack who could not: managers beside a lane."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Final, NamedTuple

from .breaker import programs_of
from .lanes import WILDCARD, Lane, program_name, satisfies
from .manager import ManagerAggregate
from .manager_state import ManagerState


class Cause(StrEnum):
    """Why a record is where it is. Programs may depend on these codes."""

    in_queue = auto()
    retry_pause = auto()
    no_manager = auto()
    no_wildcard_manager = auto()
    tag_not_claimed = auto()
    programs_missing = auto()
    managers_draining = auto()
    programs_suspended = auto()
    service_not_started = auto()
    running = auto()
    lease_over = auto()
    service_running = auto()
    completed = auto()
    result_adopted = auto()
    no_retries = auto()
    error_not_retried = auto()
    retries_used_up = auto()
    service_error = auto()
    failed = auto()
    held = auto()
    cancelled = auto()
    deleted = auto()
    invalidated = auto()
    erased = auto()


class Fit(StrEnum):
    """How a manager that is alive stands to a lane: the best first."""

    able = auto()
    suspended = auto()
    draining = auto()
    lacking = auto()
    other_tag = auto()


_OBSTACLES: Final[Mapping[Fit, Cause | None]] = {
    Fit.able: None,
    Fit.suspended: Cause.programs_suspended,
    Fit.draining: Cause.managers_draining,
    Fit.lacking: Cause.programs_missing,
    Fit.other_tag: Cause.tag_not_claimed,
}


class ManagerSigns(NamedTuple):
    """A manager and its heartbeats, by the database's clock; None once it has ended."""

    manager: ManagerAggregate
    heartbeat_at: datetime | None
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Lack:
    """A required program that a manager does not have as it is required.

    Attributes:
        requirement: in its canonical form.
        is_absent: whether the manager has no such program at all.
        version: the one that it has; None if it is absent, or if nobody knows.
    """

    requirement: str
    is_absent: bool
    version: str | None = None

    def __str__(self) -> str:
        """Return it in words.

        >>> str(Lack("psi4>=1.9", is_absent=False, version="1.8"))
        'psi4>=1.9 (it has 1.8)'
        """
        if self.is_absent:
            return self.requirement
        return f"{self.requirement} (it has {self.version or 'an unknown version'})"


def claims_tag(manager: ManagerAggregate, tag: str) -> bool:
    """Return whether a manager claims tasks of this tag; `*` is open to `*` only."""
    return tag in manager.tags or WILDCARD in manager.tags


def missing_requirements(
    manager: ManagerAggregate, required_programs: Iterable[str]
) -> tuple[Lack, ...]:
    """Return what a manager lacks of these requirements in canonical form."""
    found: list[Lack] = []
    for requirement in required_programs:
        if not satisfies(manager.programs, (requirement,)):
            name = program_name(requirement)
            version = manager.programs.get(name)
            found.append(Lack(requirement, name not in manager.programs, version))
    return tuple(found)


def suspended_of(manager: ManagerAggregate, required_programs: Iterable[str]) -> list[str]:
    """Return which of these programs the circuit breaker keeps from a manager now."""
    return [name for name in programs_of(required_programs) if name in manager.suspended]


def fit(manager: ManagerAggregate, lane: Lane) -> Fit:
    """Return how a manager that is alive stands to a lane."""
    if not claims_tag(manager, lane.tag):
        return Fit.other_tag
    if not satisfies(manager.programs, lane.required_programs):
        return Fit.lacking
    if manager.state is ManagerState.draining:
        return Fit.draining
    return Fit.suspended if suspended_of(manager, lane.required_programs) else Fit.able


def obstacle(lane: Lane, fits: Collection[Fit]) -> Cause | None:
    """Return why no manager can take the tasks of a lane; None if one can.

    Args:
        lane: which.
        fits: how each manager that is alive stands to it; several may be described at once.
    """
    if not fits:
        return Cause.no_manager
    best = min(fits, key=_RANK.__getitem__)
    if best is Fit.other_tag and lane.tag == WILDCARD:
        return Cause.no_wildcard_manager
    return _OBSTACLES[best]


_RANK: Final = {each: rank for rank, each in enumerate(Fit)}


class Ability(NamedTuple):
    """What decides which lanes a manager can take: managers that have it in common are alike."""

    state: ManagerState | None
    tags: tuple[str, ...]
    programs: frozenset[tuple[str, str | None]]
    suspended: frozenset[str]

    @classmethod
    def of(cls, manager: ManagerAggregate) -> Ability:
        """Return the ability of a manager."""
        return cls(
            manager.state,
            manager.tags,
            frozenset(manager.programs.items()),
            frozenset(manager.suspended),
        )


class Openness(NamedTuple):
    """The managers that can take a lane's tasks: their ids, or why none can."""

    able_ids: list[int]
    blocked: Cause | None


class Crew:
    """The managers that are alive, those alike together, so that many lanes are judged fast."""

    def __init__(self, managers: Iterable[ManagerAggregate]) -> None:
        self._alike: dict[Ability, list[ManagerAggregate]] = {}
        for manager in managers:
            self._alike.setdefault(Ability.of(manager), []).append(manager)
        # By the required programs: how each kind stands to them where its tag fits.
        self._stand: dict[tuple[str, ...], list[tuple[list[ManagerAggregate], Fit]]] = {}

    def openness(self, lane: Lane) -> Openness:
        """Return who can take the tasks of a lane."""
        programs = lane.required_programs
        if programs not in self._stand:
            self._stand[programs] = [
                (alike, fit(alike[0], Lane(alike[0].tags[0], programs)))
                for alike in self._alike.values()
            ]
        able: list[int] = []
        fits: set[Fit] = set()
        for alike, found in self._stand[programs]:
            found = found if claims_tag(alike[0], lane.tag) else Fit.other_tag
            fits.add(found)
            if found is Fit.able:
                able += [manager.id for manager in alike]
        return Openness(sorted(able), obstacle(lane, fits))
