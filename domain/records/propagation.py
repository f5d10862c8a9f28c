"""Propagation: what an operation on a record brings about in its family.

A family is a graph without cycles: services are parents, the records they have asked for are
children, and a child may have several parents. Everything here walks it with a worklist, so neither
depth nor width meets a limit of the interpreter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from .actions import DELETE_CHILDREN, PROPAGATE, Action, Group, Reach
from .events import BY_TOPIC, EVENT_OF, Event
from .record import RecordAggregate
from .status import Status

# The options without which children, or parents, do not follow.
DOWN: Final = DELETE_CHILDREN.name
UP: Final = PROPAGATE.name
UNFINISHED: Final = frozenset({Status.waiting, Status.running, Status.error, Status.held})

# Actions that bring back what an earlier operation took away.
RESTORES: Final[Mapping[Action, type[Event]]] = {
    action: EVENT_OF[Action[action.row.opposite]]
    for action in Action
    if action.row.restores and action.row.opposite is not None
}

# What would bring a record back of which nothing can be expected in this status.
REMEDIES: Final[Mapping[Status, Action]] = {
    Status(action.row.remedy_for): action for action in Action if action.row.remedy_for is not None
}

_STATUSES: Final[Mapping[Group, AbstractSet[Status]]] = {
    Group.unfinished: UNFINISHED,
    Group.complete: frozenset({Status.complete}),
    Group.error: frozenset({Status.error}),
    Group.not_deleted: frozenset(Status) - {Status.deleted},
    Group.existing: frozenset(Status),
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
    """The event of a relative, the record that caused it, and whether it is a child."""

    record_id: int
    event_type: type[Event]
    cause: int
    is_child: bool


def consequences(
    action: Action,
    meant: Sequence[int],
    family: Family,
    records: Mapping[int, RecordAggregate],
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
    left_out = {name for name, is_on in ((DOWN, down), (UP, up)) if not is_on}
    parents, children = action.row.parents, action.row.children
    if parents is not None and parents.option not in left_out:
        plan.climb(parents)
    if children is not None and children.option not in left_out:
        plan.descend(children, spared)
    return plan.found


class _Plan:
    """Who is affected so far, and why."""

    def __init__(
        self, family: Family, records: Mapping[int, RecordAggregate], meant: Sequence[int]
    ) -> None:
        self.found: list[Consequence] = []
        self._family = family
        self._records = records
        self._affected: dict[int, tuple[type[Event] | None, int]] = {
            record_id: (None, record_id) for record_id in meant
        }

    def climb(self, reach: Reach) -> None:
        """Add the event to every ancestor of the group, or `otherwise` to those of another."""
        outcomes = [(reach.event, reach.group), *([reach.otherwise] if reach.otherwise else [])]
        todo = deque(self._affected)
        while todo:
            record_id = todo.popleft()
            for parent in self._family.parents.get(record_id, ()):
                record = self._records.get(parent)
                if parent in self._affected or record is None:
                    continue
                for event, group in outcomes:
                    if record.status in _STATUSES[group]:
                        self._add(parent, BY_TOPIC[event], record_id, is_child=False)
                        todo.append(parent)
                        break

    def descend(self, reach: Reach, spared: AbstractSet[int]) -> None:
        """Add the event to children of the group that no other record of the group needs.

        Args:
            reach: what happens, and to which children.
            spared: leave these as they are.
        """
        event_type, group = BY_TOPIC[reach.event], _STATUSES[reach.group]
        below = None if reach.below is None else BY_TOPIC[reach.below]
        todo = deque(
            id_ for id_, (what, _) in self._affected.items() if below is None or what is below
        )
        while todo:
            parent = todo.popleft()
            for child in self._family.children.get(parent, ()):
                record = self._records.get(child)
                if child in self._affected or record is None or record.status not in group:
                    continue
                if child in spared:
                    continue
                if reach.shared or not self._is_needed(child, group):
                    self._add(child, event_type, parent, is_child=True)
                    todo.append(child)

    def _is_needed(self, child: int, group: AbstractSet[Status]) -> bool:
        return any(
            parent not in self._affected and self._records[parent].status in group
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
