"""Submitting records: new ones, or the ones that exist already with the same specification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from psycopg import Rollback

from recordledger.domain.records.commands import Create
from recordledger.domain.records.events import Kind, Priority, Stamp
from recordledger.domain.records.record import RecordAggregate, decide
from recordledger.domain.records.retries import NO_RETRY, Retry
from recordledger.domain.routing.lanes import Lane
from recordledger.domain.specs.fingerprint import Specification

from ..ledger import Ledger, Operation
from ..tables import payloads, records
from ..tables.idempotency import RequestKey


@dataclass(frozen=True, slots=True)
class NewRecord:
    """What a record is made from."""

    specification: Specification
    tag: str
    priority: Priority
    retry: Retry = NO_RETRY
    kind: Kind = Kind.task

    @property
    def identity(self) -> tuple[bytes, Kind]:
        """What an existing record must have to stand for a new one: fingerprint and kind."""
        return self.specification.payload.digest, self.kind


class Submitted(TypedDict):
    """The outcome of a submission: an id for each entry, and the indexes of those that existed."""

    operation_id: str
    ids: list[int]
    existing_idx: list[int]


def create_records(
    ledger: Ledger,
    entries: Sequence[NewRecord],
    *,
    actor: str,
    find_existing: bool = True,
    reason: str | None = None,
    request: RequestKey | None = None,
) -> Submitted:
    """Create a record for each entry, or find the one that there is.

    Args:
        ledger: where.
        entries: in any order; the ids ascend in that order.
        actor: the owner of the new records.
        find_existing: give back the oldest record of the same specification, unless it is
            cancelled, deleted or invalid. Equal entries then get one record.
        reason: why; on every event.
        request: identifies the request if it may be sent again.

    Raises:
        IdempotencyConflict: the request's key was used for something else.
    """
    ledger.lanes.intern(Lane(entry.tag, entry.specification.required_programs) for entry in entries)
    contents = {
        entry.specification.payload.digest: entry.specification.canonical for entry in entries
    }

    def work(operation: Operation) -> Submitted:
        known = store_specifications(operation, contents, contents if find_existing else ())
        ids, existing_idx = _create(operation, entries, known, find_existing=find_existing)
        return {"operation_id": str(operation.id), "ids": ids, "existing_idx": existing_idx}

    return ledger.operate(work, actor=actor, reason=reason, request=request)


def find_or_create(
    operation: Operation, entries: Sequence[NewRecord], *, find_existing: bool
) -> tuple[list[int], list[int]]:
    """Return a record for each entry, all of them locked, and the indexes of those that existed.

    Records are locked before payloads are stored, as everywhere. Which ones exist is only known for
    sure when the payloads are held; if there are more of them then, all is taken again.
    """
    contents = {
        entry.specification.payload.digest: entry.specification.canonical for entry in entries
    }
    to_find = sorted(contents) if find_existing else []
    found = set(records.existing(operation.db, to_find).values()) if to_find else set[int]()
    while True:
        with operation.savepoint() as savepoint:
            if found:
                operation.lock(found)
            known = store_specifications(operation, contents, to_find)
            complete = found.issuperset(known.values())
            if not complete:
                raise Rollback(savepoint)
        if complete:
            return _create(operation, entries, known, find_existing=find_existing)
        found.update(known.values())


def _create(
    operation: Operation,
    entries: Sequence[NewRecord],
    known: dict[tuple[bytes, Kind], int],
    *,
    find_existing: bool,
) -> tuple[list[int], list[int]]:
    """Create what is not known; return the ids of all, and the indexes of those that were."""
    ids: list[int] = []
    existing_idx: list[int] = []
    distinct = {entry.identity for entry in entries}
    n_new = len(distinct - known.keys()) if find_existing else len(entries)
    new_ids = iter(records.next_ids(operation.db, n_new) if n_new else [])
    for index, entry in enumerate(entries):
        if find_existing and entry.identity in known:
            ids.append(known[entry.identity])
            existing_idx.append(index)
            continue
        record = RecordAggregate(next(new_ids))
        operation.happen(record, decide(record, create_of(entry, operation.stamp)))
        known[entry.identity] = record.id
        ids.append(record.id)
    return ids, existing_idx


def store_specifications(
    operation: Operation, contents: Mapping[bytes, bytes], to_find: Iterable[bytes]
) -> dict[tuple[bytes, Kind], int]:
    """Store what is new; return the records that may stand for specifications to be found.

    A transaction that brings a specification first makes the others wait; a transaction that finds
    it there locks it. So two submissions of the same specification never both believe to be the
    first.

    Args:
        operation: in which transaction.
        contents: what is to be stored, by digest.
        to_find: the specifications among them of which existing records are wanted.
    """
    new = payloads.store(operation.db, contents)
    old = sorted(set(to_find) - new)
    if not old:
        return {}
    payloads.lock(operation.db, old)
    return records.existing(operation.db, old)


def create_of(entry: NewRecord, stamp: Stamp, cause: int | None = None) -> Create:
    """Return the command that makes the record of an entry, because of a service or not."""
    return Create(
        stamp=stamp,
        kind=entry.kind,
        spec=entry.specification.payload,
        function=entry.specification.function,
        required_programs=entry.specification.required_programs,
        tag=entry.tag,
        priority=entry.priority,
        retry=entry.retry,
        refers_to=entry.specification.refers_to,
        cause=cause,
    )
