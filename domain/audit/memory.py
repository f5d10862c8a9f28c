"""What an audit remembers of each record: a few words, however long its history is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ..records import events as e
from ..records.events import Event, Kind, Outcome, Priority
from ..records.status import Status
from ..records.transitions import ENDS, REVERTIBLE, TRANSITIONS, Destination, remembered
from ..routing.lanes import Lane
from ..streams import Stream
from .findings import EventPlace


@dataclass(slots=True)
class StreamCursor:
    """How far a stream has come: its newest event's number and time."""

    version: int = 0
    at: datetime | None = None


@dataclass(slots=True)
class RareFields:
    """What most records never have.

    Attributes:
        prior: what it was before each cancellation or deletion that still holds.
        not_before: until when it may not be claimed.
        over: the managers of attempts that ended without a result, by number.
        kept: late results, by attempt.
        children: whom a service has asked for.
        touched: operations of people and policies that changed it.
        rerouted_at: when it was given another tag or priority.
    """

    prior: tuple[Status, ...] = ()
    not_before: datetime | None = None
    over: dict[int, int] = field(default_factory=dict[int, int])
    kept: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    children: tuple[int, ...] = ()
    touched: tuple[int, ...] = ()
    rerouted_at: datetime | None = None


_NOTHING: Final = RareFields()


@dataclass(slots=True)
class RecordMemory(StreamCursor):
    """A record as far as the invariants need it, folded independently of `RecordAggregate`.

    Attributes:
        status: None before `Created` and after `Erased`.
        attempt: number of the newest attempt.
        holder: the manager that has the running attempt; None for a service's.
        lease_ends_at: of the running attempt, when it was claimed.
        live: position of the running attempt's beginning; 0 while none runs. `live_version` is
            that event's number in the stream.
        accepted: position of the outcome that holds; 0 while none does. `accepted_version` is
            that event's number, and `is_good` says whether it is a result.
        lane, priority: its place in the queue.
    """

    status: Status | None = None
    kind: Kind = Kind.task
    attempt: int = 0
    holder: int | None = None
    lease_ends_at: datetime | None = None
    live: int = 0
    live_version: int = 0
    accepted: int = 0
    accepted_version: int = 0
    is_good: bool = False
    lane: Lane | None = None
    priority: Priority = Priority.normal
    rarely: RareFields | None = None

    @property
    def rare(self) -> RareFields:
        """What most records do not have, to be read."""
        return self.rarely or _NOTHING

    @property
    def is_claimable(self) -> bool:
        """Whether a manager may take it."""
        return (
            self.status is Status.waiting
            and self.kind is Kind.task
            and (self.rarely is None or self.rarely.not_before is None)
        )

    def began(self, number: int) -> EventPlace:
        """Return the event with which the running attempt of this record began."""
        return EventPlace(self.live, Stream.record, number, self.live_version)

    def accepted_at(self, number: int) -> EventPlace:
        """Return the event by which the outcome that holds was accepted."""
        return EventPlace(self.accepted, Stream.record, number, self.accepted_version)

    def target(self, event: Event) -> Status | Destination | None:
        """Return where the event leads by the table; None if it cannot happen."""
        event_type = type(event)
        if self.status is None and self.version:
            return None
        if event.only not in (None, self.kind):
            return None
        target = TRANSITIONS.get((self.status, event_type))
        if target is Destination.stated and getattr(event, "status", "") not in REVERTIBLE:
            return None
        return target

    def happen(self, place: EventPlace, event: Event, target: Status | Destination | None) -> None:
        """Fold an event that leads to `target`. One that cannot happen leaves the status alone."""
        if target is not None and target is not Destination.unchanged:
            self._move(event, target)
        self.version, self.at = place.version, event.timestamp
        if event.action is not None:
            self._more().touched = (*self.rare.touched, hash(event.operation_id))
        if event.ends_pause and self.rarely is not None:
            self.rarely.not_before = None
        match event:
            case e.Claimed() | e.ServiceStarted():
                self._begin(place, event)
            case e.Completed() | e.Errored():
                self.live, self.holder = 0, None
                self._accept(place, isinstance(event, e.Completed))
            case e.Created():
                self.kind, self.priority = event.kind, event.priority
                self.lane = Lane(event.tag, event.required_programs)
            case _:
                self._rest(place, event)

    def _pause_until(self, not_before: datetime | None) -> None:
        if not_before is not None or self.rarely is not None:
            self._more().not_before = not_before

    def _rest(self, place: EventPlace, event: Event) -> None:
        if self.live and type(event) in ENDS:
            if self.holder is not None:
                self._more().over[self.attempt] = self.holder
            self.live, self.holder = 0, None
        match event:
            case e.ResultAdopted():
                self._accept(place, is_good=True)
            case e.LateResult(attempt=attempt, outcome=outcome):
                more = self._more()
                more.over.pop(attempt, None)
                more.kept[attempt] = outcome
            case e.Reset(not_before=not_before):
                self.accepted, self.is_good = 0, False
                self._pause_until(not_before)
            case e.Revived():
                self.accepted, self.is_good = 0, False
            case e.Reverted():
                self.accepted, self.is_good = 0, False
                if self.status is Status.complete:
                    self._accept(place, is_good=True)
            case e.ServiceIterated(children=children):
                self._more().children = (*self.rare.children, *children)
            case e.Rerouted(tag=tag, priority=priority):
                if tag is not None and self.lane is not None:
                    self.lane = Lane(tag, self.lane.required_programs)
                self.priority = self.priority if priority is None else priority
                self._more().rerouted_at = event.timestamp
            case e.Erased():
                self.rarely = self.lane = None
            case _:
                pass

    def _move(self, event: Event, target: Status | Destination) -> None:
        if isinstance(target, Status):
            if event.remembers and self.status is not None:
                self._more().prior = (*self.rare.prior, remembered(self.status))
            self.status = target
        elif target is Destination.gone:
            self.status = None
        elif target is Destination.prior:
            more = self._more()
            self.status, more.prior = more.prior[-1], more.prior[:-1]
        else:
            self.status = Status(getattr(event, "status", ""))

    def _begin(self, place: EventPlace, event: e.Claimed | e.ServiceStarted) -> None:
        self.attempt = event.attempt
        self.live, self.live_version = place.position, place.version
        self.accepted, self.is_good = 0, False
        if isinstance(event, e.Claimed):
            self.holder, self.lease_ends_at = event.manager_id, event.lease_expires_at

    def _accept(self, place: EventPlace, is_good: bool) -> None:
        self.accepted, self.accepted_version = place.position, place.version
        self.is_good = is_good

    def _more(self) -> RareFields:
        if self.rarely is None:
            self.rarely = RareFields()
        return self.rarely
