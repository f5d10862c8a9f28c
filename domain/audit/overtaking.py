"""The order of claiming, as a log shows it: nobody is overtaken in the queue for long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple
from uuid import UUID

from ..records import events as e
from ..records.events import Event
from ..records.status import Status
from ..routing.breaker import programs_of
from ..routing.lanes import WILDCARD, Lane, satisfies
from ..routing.manager import ManagerAggregate, ProgramProbed, ProgramsChanged
from .findings import EventPlace, Finding
from .memory import RecordMemory
from .origins import is_foreign

# How many lanes are looked at after each claim; the next ones after the next.
LOOKS_MAX: Final = 64
# Others may have a task locked for a moment; not three times on end.
TIMES_MIN: Final = 3
# Entries of tasks that have left a lane are swept out when there are more of them than this.
_DEAD_MAX: Final = 64


class _Entry(NamedTuple):
    """A waiting task; within a lane, entries sort as they should be claimed."""

    lane_id: int
    rank: int
    record_id: int
    version: int


class _ClaimedTask(NamedTuple):
    """A task that was claimed: where it stood."""

    place: EventPlace
    lane_id: int
    rank: int
    rerouted_at: datetime | None


@dataclass(slots=True)
class _Passed:
    """A task that one manager passes over: since when, and how often on end."""

    entry: _Entry
    since: datetime
    first: EventPlace
    n_times: int = 1


@dataclass(slots=True)
class _View:
    """What a manager can take.

    Attributes:
        changed_at: when it got other programs; None if it always had these.
        n_lanes: how many lanes were considered.
        group_of: the place among its tags of the one that opens a lane, by lane.
        lane_ids: the keys of that, in a fixed order.
        next_look: where among them the next look begins.
        passed: the first task of a lane that it has passed over, by lane.
    """

    changed_at: datetime | None = None
    n_lanes: int = 0
    group_of: dict[int, int] = field(default_factory=dict[int, int])
    lane_ids: list[int] = field(default_factory=list[int])
    next_look: int = 0
    passed: dict[int, _Passed] = field(default_factory=dict[int, _Passed])

    def looks(self) -> list[int]:
        """Return the lanes to look at now; all of them have their turn."""
        if len(self.lane_ids) <= LOOKS_MAX:
            return self.lane_ids
        start = self.next_look % len(self.lane_ids)
        found = self.lane_ids[start : start + LOOKS_MAX]
        found += self.lane_ids[: LOOKS_MAX - len(found)]
        self.next_look = start + LOOKS_MAX
        return found


class ClaimableQueue:
    """All that may be claimed, lane by lane. Each change costs the logarithm of a lane's length."""

    def __init__(self) -> None:
        """Begin empty."""
        self.lanes: list[Lane] = []
        self._ids: dict[Lane, int] = {}
        self._entries: dict[int, _Entry] = {}
        self._heaps: list[list[_Entry]] = []
        self._n_alive: list[int] = []

    @property
    def n_entries(self) -> int:
        """How many entries are kept, those of tasks that have left included."""
        return sum(map(len, self._heaps))

    def lane_id(self, lane: Lane) -> int:
        """Return the small number of a lane."""
        found = self._ids.get(lane)
        if found is None:
            found = self._ids[lane] = len(self.lanes)
            self.lanes.append(lane)
            self._heaps.append([])
            self._n_alive.append(0)
        return found

    def put(self, record_id: int, life: RecordMemory) -> None:
        """Bring the place of a record to what it is now."""
        if not life.is_claimable or life.lane is None:
            self.leave(record_id)
            return
        old = self._entries.get(record_id)
        entry = _Entry(self.lane_id(life.lane), -life.priority, record_id, life.version)
        if old is not None:
            if old[:2] == entry[:2]:
                return
            self._remove(old)
        self._entries[record_id] = entry
        heappush(self._heaps[entry.lane_id], entry)
        self._n_alive[entry.lane_id] += 1

    def leave(self, record_id: int) -> None:
        """Take a record out, if it is there."""
        entry = self._entries.get(record_id)
        if entry is not None:
            self._remove(entry)

    def head(self, lane_id: int) -> _Entry | None:
        """Return the task of a lane that should be claimed next."""
        heap = self._heaps[lane_id]
        while heap and self._entries.get(heap[0].record_id) != heap[0]:
            heappop(heap)
        return heap[0] if heap else None

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.record_id]
        lane_id = entry.lane_id
        self._n_alive[lane_id] -= 1
        heap = self._heaps[lane_id]
        if len(heap) > 2 * self._n_alive[lane_id] + _DEAD_MAX:
            heap[:] = [each for each in heap if self._entries.get(each.record_id) == each]
            heapify(heap)


class Order:
    """Claims follow tag order, priority, age.

    From the log alone it sees, exactly, that every task that was claimed could be claimed by that
    manager, and that the tasks of one claim are in order. It also sees whom a claim has passed
    over: a task that should have come before one that was claimed. Once is no fault, because
    others lock what they are about to change; reported is a task that the same manager has passed
    over three times on end or more, over longer than the tolerance, while the task stayed where it
    was. Looked at is the first task of each lane, and after one claim at most `LOOKS_MAX` lanes,
    others the next time. What suspended programs, pauses, holds and draining keep from a claim is
    not passed over, and a task that the circuit breaker tries is out of order rightly.

    Not in the log: claims that got nothing, who asked when, and how many tasks were asked for.
    Claims in another ledger, which came here by an import, had another queue before them.
    """

    def __init__(
        self, finding: Finding, managers: Mapping[int, ManagerAggregate], tolerance_s: float
    ) -> None:
        """Know nothing yet.

        Args:
            finding: where to report.
            managers: as they are; others keep them up to date.
            tolerance_s: seconds for which a task may be passed over, and for which what has just
                changed may not have been seen by a claim.
        """
        self.queue = ClaimableQueue()
        self._finding = finding
        self._managers = managers
        self._tolerance = timedelta(seconds=tolerance_s)
        self._views: dict[int, _View] = {}
        self._claims: list[_ClaimedTask] = []
        self._last: e.Claimed | None = None
        self._probes: tuple[UUID | None, set[int]] = (None, set())
        self._n_looks = 0
        self._n_lanes = 0

    def next_operation(self, operation_id: UUID) -> None:
        """Judge the claim that is at an end when an event of another operation comes."""
        if self._last is not None and operation_id != self._last.operation_id:
            self.judge()

    def claimed(self, place: EventPlace, event: e.Claimed, life: RecordMemory) -> None:
        """Take note of a claim; `life` is the record before it."""
        if is_foreign(event.operation_id):
            return
        self._finding.n_checked += 1
        if life.status is not Status.waiting or life.lane is None:
            return
        if life.rare.not_before is not None:
            self._finding.report("a task was claimed during the pause before its retry", [place])
            return
        probed_in, probes = self._probes
        if event.operation_id == probed_in and place.number in probes:
            return
        self._last = event
        lane_id = self.queue.lane_id(life.lane)
        self._claims.append(_ClaimedTask(place, lane_id, -life.priority, life.rare.rerouted_at))

    def manager_changed(self, manager_id: int, event: Event) -> None:
        """Note an event of a manager."""
        if isinstance(event, ProgramProbed):
            if event.operation_id != self._probes[0]:
                self._probes = event.operation_id, set()
            self._probes[1].add(event.record_id)
        elif isinstance(event, ProgramsChanged):
            self._views[manager_id] = _View(event.timestamp)
        elif (manager := self._managers.get(manager_id)) and not manager.is_alive:
            self._views.pop(manager_id, None)

    def judge(self) -> None:
        """Judge the claim that is at an end."""
        claims, event = self._claims, self._last
        self._claims, self._last = [], None
        manager = None if event is None else self._managers.get(event.manager_id)
        if event is None or manager is None or not manager.is_alive:
            return
        view = self._view(manager)
        latest = event.timestamp - self._tolerance
        previous: tuple[tuple[int, int, int], _ClaimedTask] | None = None
        for claim in claims:
            if claim.rerouted_at is not None and claim.rerouted_at >= latest:
                continue
            group = view.group_of.get(claim.lane_id)
            if group is None:
                if view.changed_at is None or view.changed_at < latest:
                    lane = self.queue.lanes[claim.lane_id]
                    needs = ", ".join(lane.required_programs) or "nothing"
                    self._finding.report(
                        f"manager {manager.id} cannot take what has the tag {lane.tag} and "
                        f"requires {needs}",
                        [claim.place],
                    )
                continue
            here = group, claim.rank, claim.place.number
            if previous is not None and here < previous[0]:
                self._finding.report(
                    f"record {here[2]} should have come before record {previous[0][2]}",
                    [previous[1].place, claim.place],
                )
                continue
            previous = here, claim
        if previous is not None:
            self._look(manager, view, previous[0], previous[1].place, event.timestamp)

    def _view(self, manager: ManagerAggregate) -> _View:
        view = self._views.setdefault(manager.id, _View())
        for lane_id in range(view.n_lanes, len(self.queue.lanes)):
            lane = self.queue.lanes[lane_id]
            group = group_of(manager, lane)
            if group is not None:
                view.group_of[lane_id] = group
                view.lane_ids.append(lane_id)
        view.n_lanes = len(self.queue.lanes)
        return view

    def _look(
        self,
        manager: ManagerAggregate,
        view: _View,
        last: tuple[int, int, int],
        place: EventPlace,
        at: datetime,
    ) -> None:
        """Look who has been passed over by a claim whose last task stood at `last`."""
        looks = view.looks()
        self._n_looks += len(looks)
        self._n_lanes += len(view.lane_ids)
        if self._n_looks < self._n_lanes:
            self._finding.note = f"{self._n_looks:,} of {self._n_lanes:,} heads of lanes looked at"
        for lane_id in looks:
            group = view.group_of[lane_id]
            if group > last[0]:
                continue
            head = self.queue.head(lane_id)
            if (
                head is None
                or (group, head.rank, head.record_id) > last
                or self._is_suspended(manager, lane_id)
            ):
                view.passed.pop(lane_id, None)
                continue
            passed = view.passed.get(lane_id)
            if passed is None or passed.entry != head:
                view.passed[lane_id] = _Passed(head, at, place)
                continue
            passed.n_times += 1
            if passed.n_times >= TIMES_MIN and at - passed.since > self._tolerance:
                seconds = (at - passed.since).total_seconds()
                self._finding.report(
                    f"manager {manager.id} has passed over record {head.record_id} "
                    f"{passed.n_times} times in {seconds:.0f} s",
                    [passed.first, place],
                )
                view.passed[lane_id] = _Passed(head, at, place)

    def _is_suspended(self, manager: ManagerAggregate, lane_id: int) -> bool:
        if not manager.suspended:
            return False
        programs = programs_of(self.queue.lanes[lane_id].required_programs)
        return not manager.suspended.keys().isdisjoint(programs)


def group_of(manager: ManagerAggregate, lane: Lane) -> int | None:
    """Return which of a manager's tags opens a lane to it, by its place; None if none does.

    The same rule as `lanes_by_tag`, for one lane.
    """
    if not satisfies(manager.programs, lane.required_programs):
        return None
    for group, tag in enumerate(manager.tags):
        if tag in (WILDCARD, lane.tag):
            return group
    return None
