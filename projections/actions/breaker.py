"""The circuit breaker at work: what it keeps from a claim, and learns from what is returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.routing.breaker import (
    AttemptEnd,
    Breaker,
    due_probes,
    judge,
    probe,
    programs_of,
)
from recordledger.domain.routing.manager import ManagerAggregate

from ..ledger import Operation
from ..tables import claim_queue, managers
from ..tables.records import ClaimableTask


def lock_probes(
    operation: Operation, manager: ManagerAggregate, now: datetime, limit: int
) -> dict[str, ClaimableTask]:
    """Lock and return one task of each suspended program whose pause is over, if there is one."""
    if not due_probes(manager, now):
        return {}
    manager = managers.get(operation.db, manager.id, "lock")
    lanes = operation.ledger.lanes
    taken: dict[str, ClaimableTask] = {}
    for program in due_probes(manager, now)[:limit]:
        ordered = lanes.open_to(manager, manager.suspended.keys() - {program})
        only_its = [
            [id_ for id_ in ids if program in programs_of(lanes.lane(id_).required_programs)]
            for ids in ordered
        ]
        for task in claim_queue.lock_next(operation.db, only_its, 1):
            taken[program] = task
    return taken


def append_probes(
    operation: Operation, manager_id: int, taken: Mapping[str, ClaimableTask], breaker: Breaker
) -> None:
    """Append ProgramProbed for each program that gets a trial task.

    Call it when all tasks of the claim are locked: what was locked after the operation's time was
    read could have changed after it.
    """
    if taken:
        manager = managers.get(operation.db, manager_id)
        events = [
            probe(manager, program, task.id, breaker, operation.stamp)
            for program, task in taken.items()
        ]
        operation.happen(manager, events)


class Watch:
    """What the breaker makes of a manager's results. While nothing fails it costs one look.

    It locks the manager, if it has to, before any record is locked: as all do who lock both.

    Args:
        operation: in which the results are taken.
        manager: whose they are.
        breaker: the rules.
        error_types: of the results; None where there is no error.
    """

    def __init__(
        self,
        operation: Operation,
        manager: ManagerAggregate,
        breaker: Breaker,
        error_types: Sequence[str | None],
    ) -> None:
        self._operation = operation
        self._breaker = breaker
        self._manager: ManagerAggregate | None = None
        self._ended: list[AttemptEnd] = []
        self._failures: dict[str, int] = {}
        if breaker.failures == 0 or not manager.is_alive:
            return
        if any(map(breaker.counts, error_types)) or managers.failures(operation.db, manager.id):
            locked = managers.get(operation.db, manager.id, "lock")
            if locked.is_alive:
                self._manager = locked
                self._failures = managers.failures(operation.db, manager.id)

    @property
    def is_on(self) -> bool:
        """Whether it wants to know how attempts have ended."""
        return self._manager is not None

    def note(self, record: RecordAggregate, error_type: str | None) -> None:
        """Take note of how an attempt has ended."""
        if self._manager is not None:
            self._ended.append(AttemptEnd(record.required_programs, error_type))

    def judge(self) -> None:
        """Let happen what follows from it."""
        if self._manager is None:
            return
        operation, manager = self._operation, self._manager
        events, now = judge(manager, self._failures, self._ended, self._breaker, operation.stamp)
        operation.happen(manager, events)
        managers.keep_failures(operation.db, manager.id, self._failures, now)
