"""Services: records that the server iterates, and the children that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recordledger.domain.errors import RecordNotFound
from recordledger.domain.records.commands import FinishService, IterateService, StartService
from recordledger.domain.records.events import Outcome
from recordledger.domain.records.record import RecordAggregate, decide

from ..ledger import Ledger, Operation
from ..tables import families, payloads
from ..tables.idempotency import RequestKey


def start_service(
    ledger: Ledger, record_id: int, *, runner: str, request: RequestKey | None = None
) -> int:
    """Begin to iterate a waiting service; return the number of the attempt.

    Raises:
        RecordNotFound, TransitionForbidden, WrongKind: the rules do not allow it.
    """

    def work(operation: Operation) -> int:
        record = _locked(operation, record_id)
        command = StartService(stamp=operation.stamp, runner=runner)
        return operation.happen(record, decide(record, command)).attempt

    return ledger.operate(work, actor=runner, request=request)


def iterate_service(
    ledger: Ledger,
    record_id: int,
    state: bytes,
    children: Sequence[int],
    *,
    runner: str,
    output: bytes | None = None,
    request: RequestKey | None = None,
) -> int:
    """Give a running service its next state and children; return the number of the iteration.

    Args:
        ledger: where.
        record_id: which service.
        state: JSON, from which the service can be continued.
        children: existing records that it waits for, whether or not others wait for them too.
        runner: who iterates it.
        output: what it says, if anything.
        request: identifies the request if it may be sent again.

    Raises:
        RecordNotFound, TransitionForbidden, WrongKind: the rules do not allow it.
        CircularFamily: a child would become its own ancestor.
    """
    contents = {payloads.payload_of(data).digest: data for data in (state, output) if data}

    def work(operation: Operation) -> int:
        wanted = tuple(dict.fromkeys(children))
        # The children too: nobody may delete one while it becomes a child.
        found = operation.lock([record_id, *wanted])
        for child in wanted:
            if child not in found:
                raise RecordNotFound(child)
        record = found.get(record_id, RecordAggregate(record_id))
        families.require_no_circle(operation.db, record_id, wanted)
        payloads.store(operation.db, contents)
        command = IterateService(
            stamp=operation.stamp,
            state=payloads.payload_of(state),
            children=wanted,
            output=payloads.payload_of(output) if output else None,
        )
        return operation.happen(record, decide(record, command)).iteration

    return ledger.operate(work, actor=runner, request=request)


def finish_service(
    ledger: Ledger,
    record_id: int,
    outcome: Outcome,
    contents: Mapping[bytes, bytes],
    *,
    runner: str,
    request: RequestKey | None = None,
) -> None:
    """End a running service, well or badly.

    Raises:
        RecordNotFound, TransitionForbidden, WrongKind: the rules do not allow it.
    """

    def work(operation: Operation) -> bool:
        record = _locked(operation, record_id)
        command = FinishService(stamp=operation.stamp, outcome=outcome)
        events = decide(record, command)
        payloads.store(operation.db, contents)
        operation.happen(record, events)
        return True

    ledger.operate(work, actor=runner, request=request)


def _locked(operation: Operation, record_id: int) -> RecordAggregate:
    return operation.lock([record_id]).get(record_id, RecordAggregate(record_id))
