"""What people see of a service: where it stands, what it waits for, and the tree below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from recordledger.domain.errors import InvalidInput, RecordNotFound, WrongKind
from recordledger.domain.records.events import Kind, ServiceIterated
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream

from ..ledger import Ledger
from ..tables import payloads, records, service_queue
from ..tables.service_queue import Waits


@dataclass(frozen=True, slots=True)
class SeenChild:
    """A child of a service, as it is now."""

    key: str
    record_id: int
    status: Status | None


@dataclass(frozen=True, slots=True)
class ServiceStanding:
    """Where a service stands, or stood after one of its iterations.

    Attributes:
        record: as it is now.
        waits: what it waits for now.
        iteration: which is shown; 0 before the first.
        at: when that was decided.
        children: those that it waits, or waited, for; the first ones if there are very many.
        n_awaited: how many there are.
        state: JSON; None before the first iteration.
        output: what it has said: in this iteration, or in all of them.
    """

    record: RecordAggregate
    waits: Waits
    iteration: int
    at: datetime | None
    code_version: str | None
    progress: float | None
    children: Sequence[SeenChild]
    n_awaited: int
    state: bytes | None
    output: bytes


def view(
    ledger: Ledger, service_id: int, iteration: int | None = None, *, children_max: int = 1_000
) -> ServiceStanding:
    """Return where a service stands, or stood after an iteration.

    Raises:
        RecordNotFound, WrongKind: there is no such service.
        InvalidInput: it has had no such iteration.
    """
    with ledger.datastore.reading() as db:
        found = records.get(db, [service_id], ledger.lanes)
        if not found:
            raise RecordNotFound(service_id)
        [record] = found
        waits = service_queue.waits_of(db, service_id)
        if record.kind is not Kind.service or waits is None:
            raise WrongKind("shown as a service", record.kind)
        decided = [
            placed.recorded.event
            for placed in ledger.history(db, Stream.record, service_id)
            if isinstance(placed.recorded.event, ServiceIterated)
        ]
        if iteration is not None:
            told = [event for event in decided if event.iteration == iteration]
            if not told:
                raise InvalidInput(
                    f"service {service_id} has {record.iteration} iterations; there is no "
                    f"iteration {iteration}"
                )
        else:
            told = decided
        # `told` is the iteration that was asked for, or all; its last event says what is awaited.
        newest = told[-1] if told else None
        if newest is None or (iteration is None and record.status is Status.complete):
            awaited: dict[str, int] = {}
        else:
            awaited = {**newest.named_children}
            awaited |= service_queue.keys_of(db, service_id, newest.awaits or ())
        shown = dict(list(awaited.items())[:children_max])
        statuses = {
            child.id: child.status
            for child in records.get(db, sorted(set(shown.values())), ledger.lanes)
        }
        said = [event.output for event in told if event.output is not None]
        kept = [newest.state] if newest is not None else []
        contents = payloads.load(db, (payload.digest for payload in (*said, *kept)))
    return ServiceStanding(
        record=record,
        waits=waits,
        iteration=newest.iteration if newest is not None else 0,
        at=newest.timestamp if newest is not None else None,
        code_version=newest.code_version if newest is not None else None,
        progress=_progress(record, newest),
        children=[SeenChild(key, id_, statuses.get(id_)) for key, id_ in shown.items()],
        n_awaited=len(awaited),
        state=contents.get(newest.state.digest) if newest is not None else None,
        output=b"".join(contents.get(payload.digest, b"") for payload in said),
    )


def _progress(record: RecordAggregate, newest: ServiceIterated | None) -> float | None:
    if record.status is Status.complete:
        return 1.0
    return None if newest is None else newest.progress


@dataclass(frozen=True, slots=True)
class ServiceTreeNode:
    """A record in the tree below a service.

    Attributes:
        parent_id: of which service it is shown as a child; None for the root.
        key: that service's name for it.
        iteration: in which it was asked for.
        awaited: whether that service waits for it now.
        n_more: how many children are not shown.
        is_repeated: whether its children are shown where it stood first.
    """

    record_id: int
    parent_id: int | None
    key: str
    status: Status
    kind: Kind
    function: str
    iteration: int
    awaited: bool
    n_more: int = 0
    is_repeated: bool = False


def tree(
    ledger: Ledger, record_id: int, *, nodes_max: int, children_max: int
) -> list[ServiceTreeNode]:
    """Return a record and what is below it, parents before their children, level by level.

    Args:
        ledger: where.
        record_id: the root.
        nodes_max: maximum number of records; those that are left out are counted.
        children_max: maximum number of children of one service.

    Raises:
        RecordNotFound: there is no such record.
    """
    with ledger.datastore.reading() as db:
        found = records.get(db, [record_id], ledger.lanes)
        if not found:
            raise RecordNotFound(record_id)
        [root] = found
        assert root.status is not None  # noqa: S101 - it exists
        nodes = [
            ServiceTreeNode(
                root.id, None, "", root.status, root.kind, root.function, 0, awaited=False
            )
        ]
        shown = {root.id}
        level = [root.id] if root.kind is Kind.service else []
        # `level` are the services whose children are not listed yet; each is listed once.
        while level:
            room = max(0, min(children_max, nodes_max - len(nodes)))
            below: list[int] = []
            for row in service_queue.children_of(db, level, room):
                if len(nodes) >= nodes_max:
                    break
                is_known = row.record_id in shown and row.kind is Kind.service
                nodes.append(
                    ServiceTreeNode(
                        row.record_id,
                        row.service_id,
                        row.key,
                        row.status,
                        row.kind,
                        row.function,
                        row.iteration,
                        row.awaited,
                        is_repeated=is_known,
                    )
                )
                if row.kind is Kind.service and not is_known:
                    shown.add(row.record_id)
                    below.append(row.record_id)
            level = below
        counts = service_queue.n_children_of(db, sorted(shown))
    n_shown = Counter(node.parent_id for node in nodes)
    return [
        replace(node, n_more=counts.get(node.record_id, 0) - n_shown[node.record_id])
        if not node.is_repeated
        else node
        for node in nodes
    ]
