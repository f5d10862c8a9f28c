"""Propagation: what an operation on a record brings about in its family.

A family is a graph without cycles: services are parents, the records they have asked for are
children, and a child may have several parents. Everything here walks it with a worklist, so neither
depth nor width meets a limit of the interpreter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Final

from . import events as e
from .events import Event
from .record import Record
from .status import Status

UNFINISHED: Final = frozenset({Status.waiting, Status.running, Status.error, Status.held})


class Action(StrEnum):
    """What people do to records."""

    reset = auto()
    cancel = auto()
    uncancel = auto()
    delete = auto()
    undelete = auto()
    erase = auto()
    invalidate = auto()
    uninvalidate = auto()
    hold = auto()
    release = auto()
    fail = auto()
    revive = auto()
    modify = auto()
    comment = auto()
    resubmit = auto()
    adopt = auto()
    undo = auto()


# What each action lets happen to the records that were meant, where that needs no more thought.
EVENT_OF: Final[Mapping[Action, type[Event]]] = {
    Action.reset: e.Reset,
    Action.cancel: e.Cancelled,
    Action.uncancel: e.Uncancelled,
    Action.delete: e.SoftDeleted,
    Action.undelete: e.Undeleted,
    Action.erase: e.Erased,
    Action.invalidate: e.Invalidated,
    Action.uninvalidate: e.Uninvalidated,
    Action.hold: e.Held,
    Action.release: e.Released,
    Action.fail: e.Failed,
    Action.revive: e.Revived,
    Action.modify: e.Rerouted,
    Action.comment: e.Commented,
    Action.resubmit: e.Resubmitted,
    Action.adopt: e.ResultAdopted,
}

# Actions that bring back what an earlier operation took away.
RESTORES: Final[Mapping[Action, type[Event]]] = {
    Action.uncancel: e.Cancelled,
    Action.undelete: e.SoftDeleted,
    Action.uninvalidate: e.Invalidated,
}


@dataclass(frozen=True, slots=True)
class Family:
    """Who is whose parent, as far as an operation needs to know."""

    parents: Mapping[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])
    children: Mapping[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])

    @classmethod
    def of(cls, edges: Iterable[tuple[int, int]]) -> Family:
        """Return the family with these edges, each (parent, child)."""
        parents: dict[int, list[int]] = {}
        children: dict[int, list[int]] = {}
        for parent, child in sorted(set(edges)):
            children.setdefault(parent, []).append(child)
            parents.setdefault(child, []).append(parent)
        return cls(parents, children)

    def ancestors(self, ids: Iterable[int]) -> set[int]:
        """Return all ancestors of these records, not counting themselves unless they are."""
        return _reachable(ids, self.parents)

    def descendants(self, ids: Iterable[int]) -> set[int]:
        """Return all descendants of these records, not counting themselves unless they are."""
        return _reachable(ids, self.children)


@dataclass(frozen=True, slots=True)
class Consequence:
    """What happens to a relative: which event, because of which record, and whether as a child."""

    record_id: int
    event_type: type[Event]
    cause: int
    is_child: bool


def consequences(
    action: Action,
    meant: Sequence[int],
    family: Family,
    records: Mapping[int, Record],
    *,
    down: bool = True,
    up: bool = True,
    spared: AbstractSet[int] = frozenset(),
) -> list[Consequence]:
    """Return what an action on the records that were meant brings about in their family.

    Args:
        action: what is done.
        meant: the records to which it is done; the rules have allowed it for each.
        family: all their ancestors, the descendants of these, and the parents of those.
        records: the state of all of them before the action.
        down: whether children follow (`delete_children`).
        up: whether parents follow (`propagate`).
        spared: records that no erasure reaches, because something else refers to them.
    """
    plan = _Plan(family, records, meant)
    match action:
        case Action.cancel:
            plan.climb(e.Cancelled, _is_unfinished)
            plan.descend(e.Cancelled, _is_unfinished)
        case Action.delete:
            plan.climb(e.SoftDeleted, _is_not_deleted)
            if down:
                plan.descend(e.SoftDeleted, _is_not_deleted)
        case Action.erase:
            if down:
                plan.descend(e.Erased, _exists, spared=spared)
        case Action.invalidate:
            if up:
                plan.climb(e.Invalidated, _is_complete, otherwise=(e.Cancelled, _is_unfinished))
                plan.descend(e.Cancelled, _is_unfinished, below=e.Cancelled)
        case Action.reset:
            plan.descend(e.Reset, _is_error, shared=True)
        case Action.modify:
            plan.descend(e.Rerouted, _is_unfinished, shared=True)
        case _:
            pass
    return plan.found


Condition = Callable[[Record], bool]


def _is_unfinished(record: Record) -> bool:
    return record.status in UNFINISHED


def _is_not_deleted(record: Record) -> bool:
    return record.exists and record.status is not Status.deleted


def _is_complete(record: Record) -> bool:
    return record.status is Status.complete


def _is_error(record: Record) -> bool:
    return record.status is Status.error


def _exists(record: Record) -> bool:
    return record.exists


class _Plan:
    """Who is affected so far, and why."""

    def __init__(self, family: Family, records: Mapping[int, Record], meant: Sequence[int]) -> None:
        self.found: list[Consequence] = []
        self._family = family
        self._records = records
        self._affected: dict[int, tuple[type[Event] | None, int]] = {
            record_id: (None, record_id) for record_id in meant
        }

    def climb(
        self,
        event_type: type[Event],
        condition: Condition,
        otherwise: tuple[type[Event], Condition] | None = None,
    ) -> None:
        """Let it happen to every ancestor that meets the condition, or the other thing."""
        todo = deque(self._affected)
        while todo:
            record_id = todo.popleft()
            for parent in self._family.parents.get(record_id, ()):
                record = self._records.get(parent)
                if parent in self._affected or record is None:
                    continue
                if condition(record):
                    self._add(parent, event_type, record_id, is_child=False)
                elif otherwise is not None and otherwise[1](record):
                    self._add(parent, otherwise[0], record_id, is_child=False)
                else:
                    continue
                todo.append(parent)

    def descend(
        self,
        event_type: type[Event],
        condition: Condition,
        *,
        below: type[Event] | None = None,
        shared: bool = False,
        spared: AbstractSet[int] = frozenset(),
    ) -> None:
        """Let it happen to children that meet the condition and that nobody else needs.

        Args:
            event_type: what happens.
            condition: of a child to be affected, and of another parent to need it.
            below: begin only below records to which this happens; None for all.
            shared: take children also where another parent needs them.
            spared: leave these as they are.
        """
        todo = deque(
            id_ for id_, (what, _) in self._affected.items() if below is None or what is below
        )
        while todo:
            parent = todo.popleft()
            for child in self._family.children.get(parent, ()):
                record = self._records.get(child)
                if child in self._affected or record is None or not condition(record):
                    continue
                if child in spared:
                    continue
                if shared or not self._is_needed(child, condition):
                    self._add(child, event_type, parent, is_child=True)
                    todo.append(child)

    def _is_needed(self, child: int, condition: Condition) -> bool:
        return any(
            parent not in self._affected and condition(self._records[parent])
            for parent in self._family.parents.get(child, ())
            if parent in self._records
        )

    def _add(self, record_id: int, event_type: type[Event], via: int, *, is_child: bool) -> None:
        cause = self._affected[via][1]
        self._affected[record_id] = event_type, cause
        self.found.append(Consequence(record_id, event_type, cause, is_child))


def _reachable(ids: Iterable[int], edges: Mapping[int, Sequence[int]]) -> set[int]:
    found: set[int] = set()
    todo = list(ids)
    while todo:
        for neighbour in edges.get(todo.pop(), ()):
            if neighbour not in found:
                found.add(neighbour)
                todo.append(neighbour)
    return found
