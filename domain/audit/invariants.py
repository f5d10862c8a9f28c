"""The audit: every named invariant, checked from the log alone in one pass over it.

The events are fed in the order of their positions. What is remembered of each record is a few
words (`RecordMemory`), and of those that wait a place in the queue; no history is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ..aggregates import AGGREGATES
from ..errors import ImpossibleHistory
from ..records import events as e
from ..records.events import Event, Kind
from ..records.status import Status
from ..records.transitions import ENDS, Destination
from ..routing.manager import ManagerAggregate, ManagerDeactivated, ManagerDeclaredLost
from ..streams import Stream
from .findings import EventPlace, Finding
from .memory import RecordMemory, StreamCursor
from .origins import is_foreign
from .overtaking import ClaimableQueue, Order

# What is wrong with leases that ended too soon; tests that let them end at will look for it.
TOO_SOON: Final = "before its lease could be over"
_UNFINISHED: Final = frozenset({Status.waiting, Status.running, Status.held})
_QUIET: Final = (e.Commented, e.LateResult, e.Resubmitted, e.ServiceIterated)

Judge: TypeAlias = Callable[[RecordMemory, EventPlace, Any], None]


@dataclass(slots=True)
class Known:
    """What all checks know: the records, and the other aggregates as they are.

    Of a stream in `lost` an event could not be read, so nobody knows what it is since.
    """

    lives: dict[int, RecordMemory] = field(default_factory=dict[int, RecordMemory])
    managers: dict[int, ManagerAggregate] = field(default_factory=dict[int, ManagerAggregate])
    others: dict[tuple[Stream, int], Any] = field(default_factory=dict[tuple[Stream, int], Any])
    lost: set[tuple[Stream, int]] = field(default_factory=set[tuple[Stream, int]])


class Contiguous:
    """The versions of a stream are 1, 2, 3, ... without a gap.

    The log shows this whole, except that it cannot show whether the newest events are missing.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judge(self, strand: StreamCursor, place: EventPlace) -> None:
        """Judge an event; `strand` is its stream before it."""
        self._finding.n_checked += 1
        if place.version != strand.version + 1:
            self._finding.report(f"event {strand.version + 1} was expected", [place])


class Ordered:
    """A reader at position p never later sees anything at or before p.

    From the log alone one sees what this leads to: positions grow, and with them the versions and
    times within each stream. Whether a reader was ever overtaken cannot be seen afterwards.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding
        self._position = 0

    def judge(self, strand: StreamCursor, place: EventPlace, event: Event) -> None:
        """Judge an event; `strand` is its stream before it."""
        self._finding.n_checked += 1
        if place.position <= self._position:
            self._finding.report(
                f"its position is not after {self._position}, the position read before it", [place]
            )
        self._position = max(place.position, self._position)
        if strand.at is not None and event.timestamp < strand.at:
            self._finding.report(
                f"its time {event.timestamp} is before {strand.at}, the time of the event before "
                "it in the stream",
                [place],
            )


class LegalTransition:
    """Every event is an edge of the table.

    The log shows this whole: of records by the table, of all others by their rules.
    """

    def __init__(self, finding: Finding, known: Known) -> None:
        """Report to `finding`; keep what is no record in `known` up to date."""
        self._finding = finding
        self._known = known

    def judge(
        self,
        life: RecordMemory,
        place: EventPlace,
        event: Event,
        target: Status | Destination | None,
    ) -> None:
        """Judge an event of a record; `life` is the record before it, `target` where it leads."""
        self._finding.n_checked += 1
        if target is None:
            status = life.status or ("erased" if life.version else "not there")
            self._finding.report(
                f"{event.topic} cannot happen to a {life.kind} that is {status}", [place]
            )

    def judge_other(self, place: EventPlace, event: Event) -> None:
        """Judge an event of anything else, and fold it."""
        self._finding.n_checked += 1
        kind, number = AGGREGATES[place.stream], place.number
        try:
            if place.stream is Stream.manager:
                managers = self._known.managers
                manager: ManagerAggregate = kind.evolve(
                    managers.get(number, ManagerAggregate(number)), event
                )
                # Of those that have ended there may be very many.
                is_alive = manager.is_alive
                managers[number] = (
                    manager if is_alive else ManagerAggregate(number, state=manager.state)
                )
            else:
                key, others = (place.stream, number), self._known.others
                others[key] = kind.evolve(others.get(key) or kind.new(number), event)
        except ImpossibleHistory as error:
            self._finding.report(str(error), [place])


class SingleLease:
    """At most one live lease per record at every position.

    The log shows this whole: an attempt lives from its claim to the event that ends it.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {e.Claimed: self._begins, e.ServiceStarted: self._begins}

    def _begins(
        self, life: RecordMemory, place: EventPlace, event: e.Claimed | e.ServiceStarted
    ) -> None:
        self._finding.n_checked += 1
        if life.live:
            self._finding.report(
                f"attempt {event.attempt} begins while attempt {life.attempt} runs",
                [life.began(place.number), place],
            )


class Fence:
    """Nothing is accepted for an attempt that is not the current one.

    From the log alone one sees that attempts are numbered without a gap, and that what ends one is
    of that attempt and of the manager that had it. Heartbeats are not in the log: that none was
    accepted of a stale attempt is seen only in that such an attempt ends nothing.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {
            e.Claimed: self._begins,
            e.ServiceStarted: self._begins,
            e.Completed: self._accepted,
            e.Errored: self._accepted,
            e.LeaseExpired: self._given_back,
            e.ManagerLost: self._given_back,
            e.Relinquished: self._given_back,
        }

    def _begins(
        self, life: RecordMemory, place: EventPlace, event: e.Claimed | e.ServiceStarted
    ) -> None:
        self._finding.n_checked += 1
        if event.attempt != life.attempt + 1:
            self._finding.report(
                f"attempt {event.attempt} follows on attempt {life.attempt}", [place]
            )

    def _accepted(
        self, life: RecordMemory, place: EventPlace, event: e.Completed | e.Errored
    ) -> None:
        if not self._is_current(life, place, event.attempt):
            return
        if life.holder is not None and event.actor != f"manager:{life.holder}":
            self._finding.report(
                f"its actor is {event.actor}, but manager {life.holder} had the attempt",
                [life.began(place.number), place],
            )

    def _given_back(
        self,
        life: RecordMemory,
        place: EventPlace,
        event: e.LeaseExpired | e.ManagerLost | e.Relinquished,
    ) -> None:
        if not self._is_current(life, place, event.attempt) or life.holder is None:
            return
        manager_id = getattr(event, "manager_id", life.holder)
        if manager_id != life.holder:
            self._finding.report(
                f"it requeues an attempt of manager {manager_id}, but manager {life.holder} had it",
                [life.began(place.number), place],
            )

    def _is_current(self, life: RecordMemory, place: EventPlace, attempt: int) -> bool:
        self._finding.n_checked += 1
        if not life.live:
            self._finding.report(f"attempt {attempt} ends, but no attempt runs", [place])
            return False
        if attempt != life.attempt:
            self._finding.report(
                f"attempt {attempt} ends, but attempt {life.attempt} runs",
                [life.began(place.number), place],
            )
            return False
        return True


class ExactlyOnceAccept:
    """Functions may run more than once; one result is accepted at most.

    The log shows this whole: between the beginning of an attempt, or what takes its outcome back
    (a reset, a revival, an undo), and the next there is at most one outcome that was accepted.
    A result that came late may be adopted in place of an error, and not of a result.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {
            e.Completed: self._accepted,
            e.Errored: self._accepted,
            e.ResultAdopted: self._adopted,
        }

    def _accepted(
        self, life: RecordMemory, place: EventPlace, event: e.Completed | e.Errored
    ) -> None:
        self._finding.n_checked += 1
        if life.accepted:
            self._finding.report(
                f"a second outcome of attempt {event.attempt} was accepted",
                [life.accepted_at(place.number), place],
            )

    def _adopted(self, life: RecordMemory, place: EventPlace, event: e.ResultAdopted) -> None:
        self._finding.n_checked += 1
        if life.accepted and life.is_good:
            self._finding.report(
                f"a late result of attempt {event.attempt} was adopted, but the record had a "
                "result",
                [life.accepted_at(place.number), place],
            )


class Late:
    """A stale result is kept, and applied never or by adoption.

    The log shows this whole: what came late is of an attempt that was over, of the manager that
    had it, and the only outcome of that attempt; what was adopted had been kept, is what was kept,
    and is no error. Whether a manager has more that it has not returned, nobody knows.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {e.LateResult: self._kept, e.ResultAdopted: self._adopted}

    def _kept(self, life: RecordMemory, place: EventPlace, event: e.LateResult) -> None:
        self._finding.n_checked += 1
        attempt, holder = event.attempt, life.rare.over.get(event.attempt)
        if not 1 <= attempt <= life.attempt:
            self._finding.report(f"attempt {attempt} never began", [place])
        elif life.live and attempt == life.attempt:
            self._finding.report(
                f"attempt {attempt} runs, so its result is not late",
                [life.began(place.number), place],
            )
        elif holder is None:
            self._finding.report(f"attempt {attempt} has an outcome already", [place])
        elif holder != event.manager_id:
            self._finding.report(
                f"attempt {attempt} belonged to manager {holder}, not to manager "
                f"{event.manager_id}",
                [place],
            )

    def _adopted(self, life: RecordMemory, place: EventPlace, event: e.ResultAdopted) -> None:
        self._finding.n_checked += 1
        kept = life.rare.kept.get(event.attempt)
        if kept is None:
            self._finding.report(f"no late result of attempt {event.attempt} is stored", [place])
        elif kept != event.outcome:
            self._finding.report(
                f"it differs from the stored late result of attempt {event.attempt}", [place]
            )
        elif kept.error_type is not None:
            self._finding.report("the adopted outcome is an error", [place])


class Liveness:
    """What was lost waits again.

    From the log alone one sees that attempts begin under managers that are alive only, that none is
    left under a manager when it ends, that leases end no sooner than they could, and that a pause
    before a retry is not ended before its time. Heartbeats are not in the log: how long after its
    last one a manager was declared lost cannot be seen, and neither can be how long a pause went on
    after its time, nor a lost manager that was never declared lost. That nobody stays waiting while
    a manager claims what comes later is `order`. What happened in another ledger and was imported
    from there is not judged.
    """

    def __init__(self, finding: Finding, known: Known) -> None:
        """Report to `finding`."""
        self._finding = finding
        self._known = known
        self._running: dict[int, set[int]] = {}

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {
            **dict.fromkeys(ENDS, self._ends),
            e.Claimed: self._begins,
            e.LeaseExpired: self._lost,
            e.ManagerLost: self._lost,
            e.RetryDue: self._due,
        }

    def manager_changed(self, place: EventPlace, event: Event) -> None:
        """Judge an event of a manager."""
        if isinstance(event, ManagerDeactivated | ManagerDeclaredLost):
            self._finding.n_checked += 1
            for number in sorted(self._running.pop(place.number, ())):
                began = self._known.lives[number].began(number)
                self._finding.report(
                    f"manager {place.number} ended, but still has record {number}", [began, place]
                )

    def lose(self, number: int, life: RecordMemory) -> None:
        """Forget who has a record."""
        if life.holder is not None:
            self._running.get(life.holder, set()).discard(number)

    def _begins(self, life: RecordMemory, place: EventPlace, event: e.Claimed) -> None:
        self.lose(place.number, life)
        if is_foreign(event.operation_id):
            return
        self._finding.n_checked += 1
        if (Stream.manager, event.manager_id) in self._known.lost:
            return
        manager = self._known.managers.get(event.manager_id)
        if manager is None or not manager.is_alive:
            state = manager.state if manager else "not there"
            self._finding.report(f"manager {event.manager_id} claims, but is {state}", [place])
            return
        self._running.setdefault(event.manager_id, set()).add(place.number)

    def _ends(self, life: RecordMemory, place: EventPlace, event: Event) -> None:
        self.lose(place.number, life)

    def _lost(
        self, life: RecordMemory, place: EventPlace, event: e.LeaseExpired | e.ManagerLost
    ) -> None:
        self.lose(place.number, life)
        if is_foreign(event.operation_id):
            return
        self._finding.n_checked += 1
        ends_at = None if life.holder is None else life.lease_ends_at
        if ends_at is not None and event.timestamp < ends_at:
            self._finding.report(
                f"manager {life.holder} lost attempt {life.attempt} {TOO_SOON}",
                [life.began(place.number), place],
            )

    def _due(self, life: RecordMemory, place: EventPlace, event: e.RetryDue) -> None:
        if is_foreign(event.operation_id):
            return
        self._finding.n_checked += 1
        not_before = life.rare.not_before
        if not_before is not None and event.timestamp < not_before:
            self._finding.report(f"the pause lasts until {not_before}", [place])


class Undo:
    """An operation and its undo leave the projections as before.

    From the log alone one sees that what an undo changes had been changed by the operation that it
    names. That it becomes what it was, `replay` and the tests of undoing show.
    """

    def __init__(self, finding: Finding) -> None:
        """Report to `finding`."""
        self._finding = finding

    def judge(self, life: RecordMemory, place: EventPlace, event: Event) -> None:
        """Judge an event that undoes an operation."""
        self._finding.n_checked += 1
        if hash(event.undoes) not in life.rare.touched:
            self._finding.report(
                f"it undoes operation {event.undoes}, which had not changed this record", [place]
            )


class Services:
    """A service is never complete before its children.

    The log shows this whole: when a service completes, none of the records that it has asked for
    waits, runs or is held. A child that ended in error, or was put away, has ended. A service that
    completed in another ledger is not judged: its children may have come here as they were before.
    """

    def __init__(self, finding: Finding, known: Known) -> None:
        """Report to `finding`."""
        self._finding = finding
        self._known = known

    def judges(self) -> Mapping[type[Event], Judge]:
        """Return what judges which events."""
        return {e.Completed: self._completed}

    def _completed(self, life: RecordMemory, place: EventPlace, event: e.Completed) -> None:
        if life.kind is not Kind.service or is_foreign(event.operation_id):
            return
        self._finding.n_checked += 1
        for number in life.rare.children:
            child = self._known.lives.get(number)
            if child is not None and child.status in _UNFINISHED:
                self._finding.report(f"its child {number} is {child.status}", [place])


class Audit:
    """All checks together.

    Attributes:
        findings: one for each invariant that the log alone can break.
        n_events: how many events were fed.
        erased: the records that were erased.
    """

    def __init__(self, *, tolerance_s: float = 30.0, breaches_max: int = 20) -> None:
        """Know nothing yet.

        Args:
            tolerance_s: as of `Order`.
            breaches_max: how many breaches of each invariant are kept; all are counted.
        """
        self.n_events = 0
        self.erased: list[int] = []
        self._breaches_max = breaches_max
        self.findings: list[Finding] = []
        self._known = Known()
        self._strands: dict[tuple[Stream, int], StreamCursor] = {}
        found = self._finding
        self._readable = found("readable", "every event can be read")
        self._contiguous = Contiguous(found("contiguous", "versions of a stream are 1, 2, 3, ..."))
        self._ordered = Ordered(found("ordered", "positions grow, and time in each stream"))
        self._legal = LegalTransition(
            found("legal-transition", "every event is an edge of the table"), self._known
        )
        single = SingleLease(found("single-lease", "one live attempt at most", "attempts"))
        fence = Fence(
            found("fence", "no result of a stale attempt is accepted", "moves of attempts")
        )
        once = ExactlyOnceAccept(
            found("exactly-once-accept", "one result is accepted at most", "outcomes")
        )
        late = Late(
            found("late", "a stale result is stored, never applied automatically", "results")
        )
        self._order = Order(
            found("order", "claims follow tag order, priority, age", "claims"),
            self._known.managers,
            tolerance_s,
        )
        self._liveness = Liveness(
            found("liveness", "lost attempts wait again", "moves of attempts"), self._known
        )
        self._undo = Undo(found("undo", "an undo follows a change", "events"))
        services = Services(
            found("services", "no service completes before its children", "services"), self._known
        )
        self._judges: dict[type[Event], tuple[Judge, ...]] = {}
        for check in (single, fence, once, late, self._liveness, services):
            for event_type, judge in check.judges().items():
                self._judges[event_type] = (*self._judges.get(event_type, ()), judge)

    @property
    def is_broken(self) -> bool:
        """Whether any invariant is broken so far."""
        return any(finding.is_broken for finding in self.findings)

    @property
    def queue(self) -> ClaimableQueue:
        """Who waits to be claimed after the events so far."""
        return self._order.queue

    def feed(self, position: int, stream: Stream, number: int, version: int, event: Event) -> None:
        """Take the next event of the log."""
        self.n_events += 1
        self._readable.n_checked += 1
        if self._known.lost and (stream, number) in self._known.lost:
            return
        place = EventPlace(position, stream, number, version)
        self._order.next_operation(event.operation_id)
        if stream is Stream.record:
            self._feed_record(place, event)
        else:
            self._feed_other(place, event)

    def unreadable(self, place: EventPlace | None, why: str) -> None:
        """Take the next event of the log, which cannot be read, with its place if there is one.

        What its stream was after it cannot be known: what comes later in it is not judged.
        """
        self.n_events += 1
        self._readable.n_checked += 1
        if place is None:
            self._readable.report(why)
            return
        self._readable.report(why, [place])
        self._known.lost.add((place.stream, place.number))
        if place.stream is Stream.manager:
            self._known.managers.pop(place.number, None)
        elif place.stream is Stream.record and place.number in self._known.lives:
            self._liveness.lose(place.number, self._known.lives.pop(place.number))
            self._order.queue.leave(place.number)

    def end(self) -> None:
        """Judge what the last operation has left."""
        self._order.judge()
        if self._known.lost:
            self._readable.note = f"{len(self._known.lost):,} streams not checked from there on"

    def _feed_record(self, place: EventPlace, event: Event) -> None:
        number = place.number
        life = self._known.lives.get(number)
        if life is None:
            life = self._known.lives[number] = RecordMemory()
        self._contiguous.judge(life, place)
        self._ordered.judge(life, place, event)
        target = life.target(event)
        self._legal.judge(life, place, event, target)
        event_type = type(event)
        for judge in self._judges.get(event_type, ()):
            judge(life, place, event)
        if event.undoes is not None:
            self._undo.judge(life, place, event)
        if isinstance(event, e.Claimed):
            self._order.claimed(place, event, life)
        life.happen(place, event, target)
        if event_type not in _QUIET:
            self._order.queue.put(number, life)
        if isinstance(event, e.Erased):
            self.erased.append(number)

    def _feed_other(self, place: EventPlace, event: Event) -> None:
        strand = self._strands.setdefault((place.stream, place.number), StreamCursor())
        self._contiguous.judge(strand, place)
        self._ordered.judge(strand, place, event)
        strand.version, strand.at = place.version, event.timestamp
        self._legal.judge_other(place, event)
        if place.stream is Stream.manager:
            self._liveness.manager_changed(place, event)
            self._order.manager_changed(place.number, event)

    def _finding(self, name: str, what: str, unit: str = "events") -> Finding:
        finding = Finding(name, what, unit, breaches_max=self._breaches_max)
        self.findings.append(finding)
        return finding
