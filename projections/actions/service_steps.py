"""One step of a service: what it is decided from, and what the decision changes.

The decision itself is made in between, outside of any transaction. That a step is stored twice, or
after somebody else's, is impossible: it names the place at which it was decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.errors import CircularFamily, Superseded
from recordledger.domain.records.commands import Change, FinishService, IterateService, StartService
from recordledger.domain.records.events import Kind, Outcome, Payload, Reset, ServiceIterated
from recordledger.domain.records.record import RecordAggregate, decide
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import Lane
from recordledger.domain.specs.service_rules import (
    Awaited,
    ServiceFault,
    ServiceLimits,
    require_keys,
    require_limit,
)
from recordledger.domain.streams import Stream

from ..ledger import Ledger, Operation
from ..log.mapper import unpack_outcome
from ..store.database import one
from ..store.statements import statements
from ..tables import families, payloads, records, service_queue
from .submission import NewRecord, create_of, store_specifications

RUNNER: Final = "server:service-runner"

_LOG_SQL: Final = statements("log.ledger_events")
_GOES_ON: Final = "the children that caused the error are complete"


class DecisionPoint(NamedTuple):
    """Where a service stands in its life; what was decided there holds only there."""

    status: Status | None
    attempt: int
    iteration: int

    @classmethod
    def of(cls, record: RecordAggregate) -> DecisionPoint:
        """Return where a service stands."""
        return cls(record.status, record.attempt, record.iteration)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the next decision about a service is made from.

    Attributes:
        record: the service.
        now: by the database's clock.
        due: whether what it waits for has come, or its time.
        n_children: of all earlier iterations.
        awaited: the children that it waits for, as they are.
        results: where the results of those that are complete are, by key.
        takes_errors: whether it decides about children that have not ended well.
        code_version: of the class that made the state.
        spec, state: their contents; None where there are none, or where they were destroyed.
    """

    record: RecordAggregate
    now: datetime
    due: bool
    n_children: int
    awaited: tuple[Awaited, ...]
    results: Mapping[str, Payload]
    takes_errors: bool
    code_version: str | None
    spec: bytes | None
    state: bytes | None

    @property
    def place(self) -> DecisionPoint:
        """Where the service stands."""
        return DecisionPoint.of(self.record)

    @property
    def resumes(self) -> bool:
        """Whether it is only to be taken up again, and not to decide anything yet."""
        status, iteration = self.record.status, self.record.iteration
        return status is Status.error or (status is Status.waiting and iteration > 0)

    @property
    def begins(self) -> bool:
        """Whether its first decision is to be made."""
        return self.record.iteration == 0


def situation_of(ledger: Ledger, service_id: int) -> Situation | None:
    """Return what the next decision about a service is made from; None if there is none to make.

    It is read without locks. If the service changes meanwhile, so does its place, and what is
    decided from a mixture is refused.
    """
    with ledger.datastore.reading() as db:
        found = records.get(db, [service_id], ledger.lanes)
        waits = service_queue.waits_of(db, service_id)
        now: datetime = one(db, _LOG_SQL["now"], prepare=True)[0]
        if not found or waits is None:
            return None
        [record] = found
        alarm = record.status is Status.running and waits.wake_at is not None
        due = waits.due or (alarm and waits.wake_at is not None and waits.wake_at <= now)
        if not due and record.status is not Status.waiting:
            return None
        rows = service_queue.awaited_by(db, service_id)
        spec, state = record.spec, record.service_state
        contents = payloads.load(db, [each.digest for each in (spec, state) if each is not None])
    outcomes = {row.child.key: unpack_outcome(row.outcome) for row in rows if row.outcome}
    return Situation(
        record=record,
        now=now,
        due=due,
        n_children=waits.n_children,
        awaited=tuple(row.child for row in rows),
        results={key: each.result for key, each in outcomes.items() if each.result is not None},
        takes_errors=waits.takes_errors,
        code_version=waits.code_version,
        spec=None if spec is None else contents.get(spec.digest),
        state=None if state is None else contents.get(state.digest),
    )


@dataclass(frozen=True, slots=True)
class NewChild:
    """A child that a service asks for."""

    key: str
    entry: NewRecord
    find_existing: bool


@dataclass(frozen=True, slots=True)
class Iteration:
    """A decision to wait: the fields are those of `Wait`, ready to be stored."""

    state: bytes
    children: Sequence[NewChild] = ()
    awaited: frozenset[str] = frozenset()
    any_child: bool = False
    takes_errors: bool = False
    wake_at: datetime | None = None
    output: bytes = b""
    progress: float | None = None
    code_version: str | None = None


class _MoreToLock(Exception):
    """Records turned out to be concerned that were not locked; nothing has happened."""

    def __init__(self, record_ids: set[int]) -> None:
        super().__init__()
        self.record_ids = record_ids


def resume(ledger: Ledger, service_id: int, place: DecisionPoint, *, runner: str) -> None:
    """Take a service up again that was stopped, or was in error because of its children.

    Raises:
        Superseded: it does not stand there any more.
    """

    def work(operation: Operation) -> None:
        record = _at(place, operation.lock([service_id]), service_id)
        if record.status is Status.error:
            stamp = operation.stamp.model_copy(update={"reason": _GOES_ON})
            reset = Change(event=Reset(**stamp.model_dump()))
            record = operation.happen(record, decide(record, reset))
        _started(operation, record, runner)

    ledger.operate(work, actor=RUNNER)


def iterate(
    ledger: Ledger,
    service_id: int,
    place: DecisionPoint,
    step: Iteration,
    *,
    runner: str,
    limits: ServiceLimits,
) -> None:
    """Store a decision to wait, with all that it brings about, in one transaction.

    Raises:
        Superseded: the service does not stand there any more.
        Fault: the ledger cannot do what was decided; the service should become this error.
    """
    entries = [child.entry for child in step.children]
    ledger.lanes.intern(Lane(each.tag, each.specification.required_programs) for each in entries)
    # Who may stand for a new child is looked up before anything is locked, and again afterwards.
    to_lock: set[int] = set()
    if shared := _shared(step):
        with ledger.datastore.reading() as db:
            known = records.existing(db, sorted({digest for digest, _ in shared}))
        to_lock.update(known[identity] for identity in shared if identity in known)

    def work(operation: Operation) -> None:
        _iterate(operation, service_id, place, step, runner, limits, to_lock)

    while True:
        try:
            return ledger.operate(work, actor=RUNNER)
        except _MoreToLock as more:
            to_lock |= more.record_ids


def _shared(step: Iteration) -> list[tuple[bytes, Kind]]:
    """Return for which new children existing records may stand."""
    return [child.entry.identity for child in step.children if child.find_existing]


def _contents(step: Iteration) -> dict[bytes, bytes]:
    specifications = (child.entry.specification for child in step.children)
    contents = {each.payload.digest: each.canonical for each in specifications}
    for data in (step.state, step.output):
        if data:
            contents[payloads.payload_of(data).digest] = data
    return contents


def _iterate(
    operation: Operation,
    service_id: int,
    place: DecisionPoint,
    step: Iteration,
    runner: str,
    limits: ServiceLimits,
    to_lock: set[int],
) -> None:
    named = {child.key for child in step.children} | step.awaited
    older = service_queue.keys_of(operation.db, service_id, named) if place.iteration else {}
    # The children too: nobody may change one while the service begins to wait for it.
    there = to_lock.union(older.values())
    locked = operation.lock({service_id, *there})
    record = _at(place, locked, service_id)
    require_keys([child.key for child in step.children], step.awaited, older)
    services = [id_ for id_ in there if id_ in locked and locked[id_].kind is Kind.service]
    _require_family(operation, service_id, step, services, limits)
    known = store_specifications(
        operation, _contents(step), {digest for digest, _ in _shared(step)}
    )
    if more := {known[each] for each in _shared(step) if each in known} - locked.keys():
        raise _MoreToLock(more)
    record = _started(operation, record, runner)
    children = _children(operation, record, step.children, known)
    command = IterateService(
        stamp=operation.stamp,
        state=payloads.payload_of(step.state),
        children=tuple(children.values()),
        output=payloads.payload_of(step.output) if step.output else None,
        keys=tuple(children),
        awaits=tuple(sorted(step.awaited)) or None,
        any_child=step.any_child or None,
        takes_errors=step.takes_errors or None,
        wake_at=step.wake_at,
        progress=step.progress,
        code_version=step.code_version,
    )
    operation.happen(record, decide(record, command))


def _at(
    place: DecisionPoint, locked: Mapping[int, RecordAggregate], service_id: int
) -> RecordAggregate:
    record = locked.get(service_id)
    if record is None or DecisionPoint.of(record) != place:
        raise Superseded(service_id)
    return record


def _started(operation: Operation, record: RecordAggregate, runner: str) -> RecordAggregate:
    """Return the service as it is when it runs."""
    if record.status is Status.running:
        return record
    command = StartService(stamp=operation.stamp, runner=runner)
    return operation.happen(record, decide(record, command))


def _children(
    operation: Operation,
    service: RecordAggregate,
    wanted: Sequence[NewChild],
    known: dict[tuple[bytes, Kind], int],
) -> dict[str, int]:
    """Create the children that are not there; return all by key."""
    missing = {c.entry.identity for c in wanted if c.find_existing} - known.keys()
    n_new = len(missing) + sum(not child.find_existing for child in wanted)
    new_ids = iter(records.next_ids(operation.db, n_new) if n_new else [])
    # The children belong to whom the service belongs to.
    stamp = operation.stamp.model_copy(update={"actor": service.owner})
    found: dict[str, int] = {}
    for child in wanted:
        identity = child.entry.identity
        if child.find_existing and identity in known:
            found[child.key] = known[identity]
            continue
        record = RecordAggregate(next(new_ids))
        command = create_of(child.entry, stamp, cause=service.id)
        operation.happen(record, decide(record, command))
        found[child.key] = record.id
        if child.find_existing:
            known[identity] = record.id
    return found


def _require_family(
    operation: Operation,
    service_id: int,
    step: Iteration,
    services: Sequence[int],
    limits: ServiceLimits,
) -> None:
    """Refuse circles and bottomless depths. Only services have children: tasks make neither.

    `services` are those that are there already and will be, or are, children.
    """
    if services:
        try:
            families.require_no_circle(operation.db, service_id, services)
        except CircularFamily as error:
            raise ServiceFault("CircularFamily", str(error)) from error
    if services or any(child.entry.kind is Kind.service for child in step.children):
        depth = families.n_levels_above(operation.db, service_id) + 2
        require_limit("levels of services", depth, limits.depth, "service_depth")


def finish(
    ledger: Ledger,
    service_id: int,
    place: DecisionPoint,
    outcome: Outcome,
    contents: Mapping[bytes, bytes],
    *,
    runner: str,
    cause: int | None = None,
) -> None:
    """Let a service end, well or badly.

    Args:
        ledger: where.
        service_id: which service.
        place: where it stood when this was decided.
        outcome: how the decision ended.
        contents: what the outcome names, by digest.
        runner: who has decided it.
        cause: the child because of which it is an error.

    Raises:
        Superseded: the service does not stand there any more.
    """

    def work(operation: Operation) -> None:
        record = _at(place, operation.lock([service_id]), service_id)
        record = _started(operation, record, runner)
        payloads.store(operation.db, contents)
        command = FinishService(stamp=operation.stamp, outcome=outcome, cause=cause)
        operation.happen(record, decide(record, command))

    ledger.operate(work, actor=RUNNER)


def output_of(ledger: Ledger, service_id: int, iteration: int) -> bytes:
    """Return what a service has said up to one of its iterations."""
    with ledger.datastore.reading() as db:
        said = [
            placed.recorded.event.output
            for placed in ledger.history(db, Stream.record, service_id)
            if isinstance(placed.recorded.event, ServiceIterated)
            and placed.recorded.event.output is not None
            and placed.recorded.event.iteration <= iteration
        ]
        contents = payloads.load(db, (payload.digest for payload in said))
    return b"".join(contents.get(payload.digest, b"") for payload in said)
