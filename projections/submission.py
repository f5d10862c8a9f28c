"""Submitting records: new ones, or the ones that exist already with the same specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from psycopg import Rollback

from recordledger.domain.commands import Create
from recordledger.domain.events import Kind, Priority
from recordledger.domain.fingerprint import Specification
from recordledger.domain.lanes import Lane
from recordledger.domain.record import Record, decide
from recordledger.domain.retries import NO_RETRY, Retry

from . import payloads, records
from .idempotency import RequestKey
from .ledger import Ledger, Operation


@dataclass(frozen=True, slots=True)
class NewRecord:
    """What a record is made from."""

    specification: Specification
    tag: str
    priority: Priority
    retry: Retry = NO_RETRY
    kind: Kind = Kind.task


class Submitted(TypedDict):
    """What became of a submission: an id for each entry, and the indexes of those that existed."""

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
        StoreUnavailable: the database does not answer.
    """
    ledger.lanes.intern(Lane(entry.tag, entry.specification.required_programs) for entry in entries)
    contents = {
        entry.specification.payload.digest: entry.specification.canonical for entry in entries
    }

    def work(operation: Operation) -> Submitted:
        known = _store_specifications(operation, contents, find_existing=find_existing)
        ids, existing_idx = _create(operation, entries, known, find_existing=find_existing)
        return {"operation_id": str(operation.id), "ids": ids, "existing_idx": existing_idx}

    return ledger.operate(work, actor=actor, reason=reason, request=request)


def find_or_create(
    operation: Operation, entries: Sequence[NewRecord], *, find_existing: bool
) -> tuple[list[int], list[int]]:
    """Return a record for each entry, all of them locked, and the indexes of those that existed.

    Records are locked before payloads are stored, as everywhere. Which ones exist is only known
    for sure when the payloads are held; if there are more of them then, all is taken anew.
    """
    contents = {
        entry.specification.payload.digest: entry.specification.canonical for entry in entries
    }
    found: set[int] = set()
    if find_existing and contents:
        found.update(records.existing(operation.db, sorted(contents)).values())
    while True:
        with operation.savepoint() as savepoint:
            if found:
                operation.lock(found)
            known = _store_specifications(operation, contents, find_existing=find_existing)
            complete = found.issuperset(known.values())
            if not complete:
                raise Rollback(savepoint)
        if complete:
            return _create(operation, entries, known, find_existing=find_existing)
        found.update(known.values())


def _create(
    operation: Operation,
    entries: Sequence[NewRecord],
    known: dict[bytes, int],
    *,
    find_existing: bool,
) -> tuple[list[int], list[int]]:
    """Create what is not known; return the ids of all, and the indexes of those that were."""
    ids: list[int] = []
    existing_idx: list[int] = []
    digests = {entry.specification.payload.digest for entry in entries}
    n_new = len(digests - known.keys()) if find_existing else len(entries)
    new_ids = iter(records.next_ids(operation.db, n_new) if n_new else [])
    for index, entry in enumerate(entries):
        digest = entry.specification.payload.digest
        if find_existing and digest in known:
            ids.append(known[digest])
            existing_idx.append(index)
            continue
        record = Record(next(new_ids))
        operation.happen(record, decide(record, _command(operation, entry)))
        known[digest] = record.id
        ids.append(record.id)
    return ids, existing_idx


def _store_specifications(
    operation: Operation, contents: dict[bytes, bytes], *, find_existing: bool
) -> dict[bytes, int]:
    """Store what is new; return the records that may stand for what is not, if that is wanted.

    Whoever brings a specification first makes the others wait; whoever finds it there locks it.
    So two submissions of the same specification never both believe to be the first.
    """
    new = payloads.store(operation.db, contents)
    old = contents.keys() - new
    if not find_existing or not old:
        return {}
    payloads.lock(operation.db, old)
    return records.existing(operation.db, sorted(old))


def _command(operation: Operation, entry: NewRecord) -> Create:
    return Create(
        stamp=operation.stamp,
        kind=entry.kind,
        spec=entry.specification.payload,
        function=entry.specification.function,
        required_programs=entry.specification.required_programs,
        tag=entry.tag,
        priority=entry.priority,
        retry=entry.retry,
    )
