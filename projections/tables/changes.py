"""What is written together: aggregates, each before and after, and the events in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from recordledger.domain.aggregates import AGGREGATES, STREAM_OF, State
from recordledger.domain.records.events import Event, Outcome
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.streams import Stream

from ..log.mapper import EventMapper, Recorded
from .lanes import LaneRegistry

S = TypeVar("S", bound=State)


class RecordClass(NamedTuple):
    """Locked records that are alike in all that the rules of a shared event ask for.

    Attributes:
        ids: theirs, ascending.
        versions: the number of events of each.
        like: one that stands for all of them. It has their status, stack of earlier statuses, kind,
            lane, priority, and whether a retry's pause lasts; its other fields mean nothing.
    """

    ids: Sequence[int]
    versions: Sequence[int]
    like: RecordAggregate


class ClassChange(NamedTuple):
    """An event of a class of records, and what stands for them before and after it.

    Attributes:
        event: what happens to all of them.
        ids: theirs, ascending.
        versions: the number that the event has in the history of each.
        before, after: one that stands for all of them.
        outcomes: what each record's event says in place of the shared outcome; None if there is
            nothing of its own in it.
    """

    event: Event
    ids: Sequence[int]
    versions: Sequence[int]
    before: RecordAggregate
    after: RecordAggregate
    outcomes: Sequence[Outcome] | None = None


class EventOfMany(NamedTuple):
    """An event, the records that share it, and its number in the history of each.

    `outcomes` are as in `ClassChange`.
    """

    event: Event
    ids: list[int]
    versions: list[int]
    outcomes: list[Outcome]


class SharedRows(NamedTuple):
    """What the log takes of events that have one topic, in its order.

    Attributes:
        event: one of them, for what all share.
        state: the bytes of all, or those of each.
        ids: the records.
        versions: the number of the event in the history of each.
    """

    event: Event
    state: bytes | list[bytes]
    ids: list[int]
    versions: list[int]


class SharedChanges:
    """Events that many plain records share: they cost O(classes) of Python, not O(records).

    A record is plain if it is a task and has no relatives. Each record has one of the events.

    Attributes:
        lanes: the routing keys; those of the changed records must be interned when it is written.
        classes: the records, before and after.
        order: the ids, as the log shall have them; None for ascending.
    """

    def __init__(self, lanes: LaneRegistry) -> None:
        """Begin with nothing."""
        self.lanes = lanes
        self.classes: list[ClassChange] = []
        self.order: Sequence[int] | None = None

    def happen(
        self,
        event: Event,
        classes: Iterable[RecordClass],
        outcomes: Sequence[Outcome] | None = None,
    ) -> None:
        """Let one event happen to all records of these classes.

        Args:
            event: what happens.
            classes: to which records; only one class if there are outcomes.
            outcomes: of each record, in place of the event's own.

        Raises:
            ImpossibleHistory: the event cannot happen to one of them.
        """
        for each in classes:
            versions = [version + 1 for version in each.versions]
            after = evolve(each.like, event)
            self.classes.append(ClassChange(event, each.ids, versions, each.like, after, outcomes))

    @property
    def events(self) -> list[EventOfMany]:
        """Each of the events, with its records."""
        found: dict[Event, EventOfMany] = {}
        for each in self.classes:
            shared = found.setdefault(each.event, EventOfMany(each.event, [], [], []))
            shared.ids.extend(each.ids)
            shared.versions.extend(each.versions)
            shared.outcomes.extend(each.outcomes or ())
        return list(found.values())

    def rows(self, mapper: EventMapper) -> SharedRows | None:
        """Return the rows of the log; None if nothing has happened."""
        found = self.events
        if not found:
            return None
        versions: dict[int, int] = {}
        states: dict[int, bytes] = {}
        for event, ids, numbers, outcomes in found:
            versions.update(zip(ids, numbers, strict=True))
            if outcomes:
                states.update(zip(ids, mapper.states_of(event, outcomes), strict=True))
            else:
                states.update(dict.fromkeys(ids, mapper.state_of(event)))
        ids = list(self.order or sorted(versions))
        first, *others = found
        # Each command lets one thing happen to all records that it can decide about together.
        assert all(other.event.topic == first.event.topic for other in others)  # noqa: S101
        is_one = not others and not first.outcomes
        state = states[ids[0]] if is_one else [states[id_] for id_ in ids]
        return SharedRows(first.event, state, ids, [versions[id_] for id_ in ids])


class Changes:
    """Changes of aggregates that are collected first, and then written with one statement a table.

    Attributes:
        lanes: the routing keys; those of the changed records must be interned when it is written.
        happened: all the events, in their order.
        event_types: the types of these events.
        has_actions: whether any of them belongs to an operation on records.
        destroys: whether payloads that nobody names any more are destroyed; a replay destroys none.
    """

    def __init__(self, lanes: LaneRegistry, *, destroys: bool = True) -> None:
        """Begin with nothing."""
        self.lanes = lanes
        self.destroys = destroys
        self.happened: list[Recorded] = []
        self.event_types: set[type[Event]] = set()
        self.has_actions = False
        self._changed: dict[Stream, dict[int, tuple[Any, Any]]] = {}

    def __len__(self) -> int:
        """Return how many aggregates change."""
        return sum(map(len, self._changed.values()))

    def happen(self, state: S, events: Iterable[Event]) -> S:
        """Apply events to an aggregate; return its new state."""
        stream = STREAM_OF[type(state)]
        evolve = AGGREGATES[stream].evolve
        after = state
        happened: list[Recorded] = []
        for event in events:
            after = evolve(after, event)
            happened.append(Recorded(stream, state.id, after.version, event))
        if happened:
            self.add(state, after, happened)
        return after

    def add(self, before: S, after: S, happened: Iterable[Recorded]) -> None:
        """Add an aggregate that events have changed already."""
        changed = self._changed.setdefault(STREAM_OF[type(after)], {})
        known = changed.get(after.id)
        changed[after.id] = (before if known is None else known[0], after)
        for recorded in happened:
            self.happened.append(recorded)
            self.event_types.add(type(recorded.event))
            self.has_actions = self.has_actions or recorded.event.action is not None

    @property
    def records(self) -> Sequence[tuple[RecordAggregate, RecordAggregate]]:
        """Each changed record, before and after."""
        return list(self._changed.get(Stream.record, {}).values())

    @property
    def erased(self) -> set[int]:
        """The records that do not exist now, though they may have before."""
        return {after.id for _, after in self.records if not after.exists}

    def after(self, state_type: type[S]) -> list[S]:
        """Return the changed aggregates of one kind as they are now."""
        return [after for _, after in self._changed.get(STREAM_OF[state_type], {}).values()]

    def clear(self) -> None:
        """Begin again with nothing."""
        self.happened = []
        self.event_types = set()
        self.has_actions = False
        self._changed = {}
