"""What managers do: register, give heartbeats, claim, return, relinquish, end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final, TypedDict

from recordledger.domain.errors import CommandRefused, NotYourManager
from recordledger.domain.records.attempts import Attempt, attempts
from recordledger.domain.records.commands import Claim, ExpireLease, LoseManager, Relinquish, Return
from recordledger.domain.records.events import Completed, Errored, LateResult, Outcome
from recordledger.domain.records.policies import PolicySettings
from recordledger.domain.records.record import RecordAggregate, decide, is_current
from recordledger.domain.routing.breaker import Breaker
from recordledger.domain.routing.manager import (
    ManagerAggregate,
    ManagerRegistered,
    change_programs,
    deactivate,
    drain,
)
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.streams import Stream

from ..ledger import Ledger, Operation
from ..tables import claim_queue, families, managers, payloads, records
from ..tables.idempotency import RequestKey
from ..tables.records import ClaimableTask
from . import breaker as circuit

REAPER: Final = "server:lease-reaper"
NO_POLICIES: Final = PolicySettings()
NO_BREAKER: Final = Breaker(failures=0)


@dataclass(frozen=True, slots=True)
class Registration:
    """How a manager presents itself. `lease_s` and `heartbeat_s` are seconds."""

    name: str
    hostname: str
    tags: tuple[str, ...]
    programs: dict[str, str | None]
    lease_s: float
    heartbeat_s: float


class ClaimedTask(TypedDict):
    """A task that was given to a manager; its specification is the payload `spec`."""

    record_id: int
    attempt: int
    spec: bytes


class ClaimedTasks(TypedDict):
    """The tasks of one claim, in the order in which they should be run."""

    operation_id: str
    tasks: list[ClaimedTask]


class ExtendedLeases(TypedDict):
    """What a heartbeat is answered: until when, and which attempts are not theirs any more.

    `draining`: it will get no more tasks, and shall end when it has none left.
    """

    lease_expires_at: str
    stale: list[tuple[int, int]]
    draining: bool


@dataclass(frozen=True, slots=True)
class ReturnedResult:
    """What a manager returns for an attempt, and the bytes that the outcome names, by digest."""

    record_id: int
    attempt: int
    outcome: Outcome
    contents: Mapping[bytes, bytes]


class ReturnedResults(TypedDict):
    """The outcome of each result, by its index; `errors` are (index, code, message)."""

    operation_id: str
    accepted_idx: list[int]
    late_idx: list[int]
    duplicate_idx: list[int]
    errors: list[tuple[int, str, str]]


def register_manager(
    ledger: Ledger, new: Registration, *, actor: str, request: RequestKey | None = None
) -> int:
    """Register a manager; return its id, which is new at every boot."""

    def work(operation: Operation) -> int:
        manager = ManagerAggregate(managers.next_id(operation.db))
        registered = ManagerRegistered(
            name=new.name,
            hostname=new.hostname,
            tags=new.tags,
            programs=new.programs,
            lease_s=new.lease_s,
            heartbeat_s=new.heartbeat_s,
            **operation.stamp.model_dump(),
        )
        manager = operation.happen(manager, [registered])
        managers.first_beat(operation.db, manager)
        return manager.id

    return ledger.operate(work, actor=actor, request=request)


def heartbeat(
    ledger: Ledger, manager_id: int, held: Mapping[int, int], *, user: str
) -> ExtendedLeases:
    """Extend a manager's lease, and compare what it says it has with what it has.

    Attempts that the manager names but does not have any more are answered as stale: it can stop
    computing them. An attempt that it has but has not named for a whole lease (its claim's answer
    was lost) is taken back.

    Args:
        ledger: where.
        manager_id: whose lease.
        held: attempt numbers by record id, finished but unacknowledged ones too.
        user: whose token it is.

    Raises:
        ManagerNotFound, ManagerNotActive, NotYourManager: it must register again.
    """

    def work(operation: Operation) -> ExtendedLeases:
        manager, lease_expires_at = _own(operation, manager_id, user)
        running = records.running_of_manager(operation.db, manager_id)
        has = {(attempt.record_id, attempt.attempt) for attempt in running}
        oldest = lease_expires_at - timedelta(seconds=2 * manager.lease_s)
        forgotten = {
            attempt.record_id: attempt.attempt
            for attempt in running
            if held.get(attempt.record_id) != attempt.attempt and attempt.started_at < oldest
        }
        for record in operation.lock(forgotten).values():
            command = ExpireLease(stamp=operation.stamp, attempt=forgotten[record.id])
            operation.happen(record, decide(record, command))
        return {
            "lease_expires_at": lease_expires_at.isoformat(),
            "stale": sorted(set(held.items()) - has),
            "draining": manager.state is ManagerState.draining,
        }

    return ledger.operate(work, actor=f"manager:{manager_id}")


def claim(
    ledger: Ledger,
    manager_id: int,
    limit: int,
    *,
    user: str,
    spec_bytes_max: int | None = None,
    breaker: Breaker = NO_BREAKER,
    request: RequestKey | None = None,
) -> ClaimedTasks:
    """Give a manager the next tasks that it can run: by its tags' order, priority, then age.

    The cost grows neither with the depth of the queue nor with the tasks of other lanes.

    Args:
        ledger: where.
        manager_id: who claims.
        limit: maximum number of tasks.
        user: whose token it is.
        spec_bytes_max: bytes of all the specifications at most, unless it is one task.
        breaker: when programs that fail on a manager are tried there again.
        request: identifies the request if it may be sent again.

    Raises:
        ManagerNotFound, ManagerNotActive, NotYourManager: it must register again.
    """

    def work(operation: Operation) -> ClaimedTasks:
        manager, lease_expires_at = _own(operation, manager_id, user)
        if manager.state is ManagerState.draining:
            return {"operation_id": str(operation.id), "tasks": []}
        ledger.lanes.refresh(operation.db)
        beaten_at = lease_expires_at - timedelta(seconds=manager.lease_s)
        probes = circuit.lock_probes(operation, manager, beaten_at, limit)
        ordered = ledger.lanes.open_to(manager, manager.suspended)
        taken = claim_queue.lock_next(operation.db, ordered, limit - len(probes))
        circuit.append_probes(operation, manager_id, probes, breaker)
        given = _within([*probes.values(), *taken], spec_bytes_max)
        if given:
            command = Claim(
                stamp=operation.stamp, manager_id=manager_id, lease_expires_at=lease_expires_at
            )
            for alike in records.classes_of(given, ledger.lanes):
                for event in decide(alike.like, command):
                    operation.happen_to_classes(event, [alike])
            operation.append_in_order([task.id for task in given])
        return {
            "operation_id": str(operation.id),
            "tasks": [
                {"record_id": task.id, "attempt": task.attempt + 1, "spec": task.spec}
                for task in given
            ],
        }

    return ledger.operate(work, actor=f"manager:{manager_id}", request=request)


def _within(tasks: Sequence[ClaimableTask], spec_bytes_max: int | None) -> list[ClaimableTask]:
    """Return the first of these tasks, as many as the bytes of their specifications allow.

    The others stay where they are; their locks end with the transaction.
    """
    if spec_bytes_max is None:
        return list(tasks)
    n_bytes = list(accumulate(task.spec_size_bytes for task in tasks))
    return list(tasks[: max(1, bisect_right(n_bytes, spec_bytes_max))])


def return_results(
    ledger: Ledger,
    manager_id: int,
    results: Sequence[ReturnedResult],
    *,
    user: str,
    policies: PolicySettings = NO_POLICIES,
    breaker: Breaker = NO_BREAKER,
    request: RequestKey | None = None,
) -> ReturnedResults:
    """Take what a manager returns: accept what is current, keep aside what is late.

    A manager that is not active any more may still return: its results are late, not lost.
    Failures in a row suspend the programs that the tasks required, if there is a breaker.

    Raises:
        ManagerNotFound, NotYourManager: the token belongs to another user.
    """

    def work(operation: Operation) -> ReturnedResults:
        manager = managers.get(operation.db, manager_id)
        _require_owner(manager, user)
        watch = circuit.Watch(
            operation, manager, breaker, [result.outcome.error_type for result in results]
        )
        accepted = _accept_alike(operation, manager_id, results, watch)
        if accepted is not None:
            return accepted
        # From here on no other transaction changes these records, until this one commits.
        found = operation.lock(result.record_id for result in results)
        answer = ReturnedResults(
            operation_id=str(operation.id),
            accepted_idx=[],
            late_idx=[],
            duplicate_idx=[],
            errors=[],
        )
        past = _Past(ledger, operation)
        contents: dict[bytes, bytes] = {}
        for index, result in enumerate(results):
            record = found.get(result.record_id, RecordAggregate(result.record_id))
            command = Return(
                stamp=operation.stamp,
                manager_id=manager_id,
                attempt=result.attempt,
                outcome=result.outcome,
                auto_resets=policies.resets_of(result.outcome.error_type),
                adopt_late=policies.adopt_late_results,
            )
            # Only a stale attempt needs the history, to distinguish a duplicate from a late result.
            if record.exists and not is_current(record, manager_id, result.attempt):
                command = replace(command, past=past.attempt(record.id, result.attempt))
            try:
                events = decide(record, command)
            except CommandRefused as refusal:
                answer["errors"].append((index, refusal.code, str(refusal)))
                continue
            match events:
                case []:
                    answer["duplicate_idx"].append(index)
                case [LateResult(), *_]:
                    answer["late_idx"].append(index)
                    past.note_late(record.id, result)
                case [Completed() | Errored(), *_]:
                    answer["accepted_idx"].append(index)
                    past.forget(record.id)
                    watch.note(record, result.outcome.error_type)
                case _:  # pragma: no cover - decide returns one of these for a Return
                    raise AssertionError(events)
            if events:
                contents.update(result.contents)
            found[record.id] = operation.happen(record, events)
        # Contents of duplicates and refusals are left out: no event refers to them.
        payloads.store(operation.db, contents)
        watch.judge()
        return answer

    return ledger.operate(work, actor=f"manager:{manager_id}", request=request)


def _accept_alike(
    operation: Operation,
    manager_id: int,
    results: Sequence[ReturnedResult],
    watch: circuit.Watch,
) -> ReturnedResults | None:
    """Take good results of current attempts class by class.

    Returns:
        None if there is anything else among them, or a record with relatives. Nothing has happened
        then, but the records are locked.
    """
    given = {result.record_id: result for result in results}
    is_good = all(result.outcome.error_type is None for result in results)
    if watch.is_on or not is_good or len(given) != len(results) or not results:
        return None
    ids = sorted(given)
    classes = records.lock_attempts(operation.db, manager_id, ids, operation.ledger.lanes)
    n_current = sum(
        given[id_].attempt == alike.like.attempt for alike in classes for id_ in alike.ids
    )
    if n_current != len(ids) or families.has_relatives(operation.db, ids):
        return None
    contents: dict[bytes, bytes] = {}
    for alike in classes:
        outcomes = [given[id_].outcome for id_ in alike.ids]
        command = Return(
            stamp=operation.stamp,
            manager_id=manager_id,
            attempt=alike.like.attempt,
            outcome=outcomes[0],
        )
        for event in decide(alike.like, command):
            operation.happen_to_classes(event, [alike], outcomes)
    for result in results:
        contents.update(result.contents)
    payloads.store(operation.db, contents)
    return ReturnedResults(
        operation_id=str(operation.id),
        accepted_idx=list(range(len(results))),
        late_idx=[],
        duplicate_idx=[],
        errors=[],
    )


def relinquish(
    ledger: Ledger,
    manager_id: int,
    given_back: Mapping[int, int],
    *,
    user: str,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> list[int]:
    """Give attempts back unfinished; return the records that wait again because of it.

    Args:
        ledger: where.
        manager_id: who gives them back.
        given_back: attempt numbers by record id; those that it does not have are passed over.
        user: whose token it is.
        reason: why; on every event.
        request: identifies the request if it may be sent again.

    Raises:
        ManagerNotFound, NotYourManager: the token belongs to another user.
    """

    def work(operation: Operation) -> list[int]:
        _require_owner(managers.get(operation.db, manager_id), user)
        waiting: list[int] = []
        for record in operation.lock(given_back).values():
            command = Relinquish(
                stamp=operation.stamp, manager_id=manager_id, attempt=given_back[record.id]
            )
            events = decide(record, command)
            operation.happen(record, events)
            if events:
                waiting.append(record.id)
        return waiting

    return ledger.operate(work, actor=f"manager:{manager_id}", reason=reason, request=request)


def deactivate_manager(
    ledger: Ledger,
    manager_id: int,
    *,
    actor: str,
    owner: str | None,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> list[int]:
    """End a manager; return the records that it had, which wait again.

    Args:
        ledger: where.
        manager_id: which; ending one that has ended changes nothing.
        actor: who does it.
        owner: whose the manager must be; None if any will do.
        reason: why; on every event.
        request: identifies the request if it may be sent again.

    Raises:
        ManagerNotFound, NotYourManager: the token belongs to another user.
    """

    def work(operation: Operation) -> list[int]:
        managers.lock_heartbeat(operation.db, manager_id)
        manager = managers.get(operation.db, manager_id, "lock")
        if owner is not None:
            _require_owner(manager, owner)
        held = records.lock_of_manager(operation.db, manager_id, ledger.lanes)
        for record in held:
            command = Relinquish(
                stamp=operation.stamp, manager_id=manager_id, attempt=record.attempt
            )
            operation.happen(record, decide(record, command))
        operation.happen(manager, deactivate(manager, operation.stamp))
        managers.forget_heartbeat(operation.db, manager_id)
        return [record.id for record in held]

    return ledger.operate(work, actor=actor, reason=reason, request=request)


def drain_manager(
    ledger: Ledger,
    manager_id: int,
    *,
    actor: str,
    owner: str | None,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> str:
    """Give a manager nothing more to do, so that it ends when it is done; return its state.

    Args: as of `deactivate_manager`.

    Raises:
        ManagerNotFound, NotYourManager: the token belongs to another user.
    """

    def work(operation: Operation) -> str:
        manager = managers.get(operation.db, manager_id, "lock")
        if owner is not None:
            _require_owner(manager, owner)
        manager = operation.happen(manager, drain(manager, operation.stamp))
        return str(manager.state)

    return ledger.operate(work, actor=actor, reason=reason, request=request)


def report_programs(
    ledger: Ledger,
    manager_id: int,
    programs: Mapping[str, str | None],
    *,
    user: str,
    request: RequestKey | None = None,
) -> bool:
    """Take note of what a manager has now; return whether that is a change.

    Raises:
        ManagerNotFound, ManagerNotActive, NotYourManager: it must register again.
    """

    def work(operation: Operation) -> bool:
        manager = managers.get(operation.db, manager_id, "lock")
        _require_owner(manager, user)
        events = change_programs(manager, programs, operation.stamp)
        operation.happen(manager, events)
        return bool(events)

    return ledger.operate(work, actor=f"manager:{manager_id}", request=request)


def lose_silent_managers(ledger: Ledger, limit: int = 100) -> dict[int, list[int]]:
    """Declare lost the managers whose lease is over; return the records that each had."""
    with ledger.datastore.reading() as db:
        silent = managers.silent(db, limit)
    return {
        manager_id: requeued
        for manager_id in silent
        if (requeued := _lose_manager(ledger, manager_id)) is not None
    }


def _lose_manager(ledger: Ledger, manager_id: int) -> list[int] | None:
    def work(operation: Operation) -> list[int] | None:
        if not managers.lock_heartbeat(operation.db, manager_id):
            return None  # It gave a heartbeat, or ended, just now.
        manager = managers.get(operation.db, manager_id, "lock")
        held = records.lock_of_manager(operation.db, manager_id, ledger.lanes)
        for record in held:
            command = LoseManager(stamp=operation.stamp, manager_id=manager_id)
            operation.happen(record, decide(record, command))
        operation.happen(manager, deactivate(manager, operation.stamp, lost=True))
        managers.forget_heartbeat(operation.db, manager_id)
        return [record.id for record in held]

    return ledger.operate(work, actor=REAPER, reason="its lease ran out without a heartbeat")


class _Past:
    """The attempts of records as their histories have them; read once for each record."""

    def __init__(self, ledger: Ledger, operation: Operation) -> None:
        self._ledger = ledger
        self._operation = operation
        self._known: dict[int, dict[int, Attempt]] = {}

    def attempt(self, record_id: int, number: int) -> Attempt | None:
        if record_id not in self._known:
            placed = self._ledger.history(self._operation.db, Stream.record, record_id)
            happened = self._operation.happened_to(record_id)
            history = [*(place.recorded.event for place in placed), *happened]
            self._known[record_id] = attempts(history)
        return self._known[record_id].get(number)

    def note_late(self, record_id: int, result: ReturnedResult) -> None:
        attempt = self._known[record_id][result.attempt]
        self._known[record_id][result.attempt] = replace(attempt, outcome=result.outcome)

    def forget(self, record_id: int) -> None:
        self._known.pop(record_id, None)


def _own(operation: Operation, manager_id: int, user: str) -> tuple[ManagerAggregate, datetime]:
    manager, lease_expires_at = managers.beat(operation.db, manager_id)
    _require_owner(manager, user)
    return manager, lease_expires_at


def _require_owner(manager: ManagerAggregate, user: str) -> None:
    if manager.owner != user:
        raise NotYourManager(manager.id)
