"""Claiming tasks and returning results, as operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...schemas.claims import (
    AttemptRef,
    ClaimAnswer,
    ClaimRequest,
    RelinquishRequest,
    RequeuedAnswer,
)
from ...schemas.returns import ResultIn, ReturnAnswer
from .. import exchange, wire
from ..errors import ClientError, InvalidArgument
from ..exchange import Operation, Session
from ..parts import add_progress, moved
from ..progress import bar
from ..results.bulk import ReturnMetadata
from .managers import path_of


def claim(session: Session, manager_id: int, limit: int = 20) -> Operation[ClaimAnswer]:
    """Take tasks to run: at most `limit`, and at most what the server gives at once.

    Raises:
        Refused: with code "manager_not_active", the manager must register again.

    >>> for task in client.claim(7, limit=20).tasks:
    ...     print(task.record_id, task.attempt, task.function)
    """
    limits = (yield from exchange.server(session)).limits
    request = wire.message(ClaimRequest, limit=min(limit, limits.claim_per_request))
    path = path_of(manager_id, "claim")
    return (yield from exchange.post(session, path, ClaimAnswer, wire.body(request)))


def return_results(
    session: Session, manager_id: int, results: Sequence[ResultIn]
) -> Operation[ReturnMetadata]:
    """Return the results or errors of attempts.

    Args:
        manager_id: from `register_manager`.
        results: one for each attempt. A `result` is a JSON value, or already encoded by
            `json_bytes`, which checks beforehand whether it can be sent.

    Raises:
        InvalidArgument: a value cannot be sent, and nothing was; `idx` says which entry's.

    >>> client.return_results(7, [ResultIn(record_id=413, attempt=1, result={"y": 9.0})])
    """
    limits = (yield from exchange.server(session)).limits
    entries = [_packed(result, idx) for idx, result in enumerate(results)]
    room_bytes = wire.room_bytes({}, limits.body_bytes)
    parts = wire.spans(entries, limits.results_per_request, room_bytes, "results")
    path = path_of(manager_id, "results")
    done: list[tuple[int, ReturnAnswer]] = []
    with bar(session.progress, len(entries), "returning results") as progress:
        for part in parts:
            body = wire.pack_list({}, "results", entries[part.start : part.stop])
            try:
                answer = yield from exchange.post(session, path, ReturnAnswer, body)
            except ClientError as error:
                add_progress(error, _returned(done) if done else None, part.start)
                raise
            done.append((part.start, answer))
            progress.update(len(part))
    return _returned(done)


def relinquish(
    session: Session, manager_id: int, attempts: Iterable[AttemptRef], reason: str | None = None
) -> Operation[list[int]]:
    """Give attempts back unfinished; return the records that wait again.

    What is the manager's no more is left as it is.

    >>> client.relinquish(7, [AttemptRef(record_id=413, attempt=1)], reason="walltime is over")
    """
    wanted = list(attempts)
    limits = (yield from exchange.server(session)).limits
    requeued: list[int] = []
    for part in wire.slices(wanted, limits.ids_per_request):
        request = wire.message(
            RelinquishRequest, attempts=wanted[part.start : part.stop], reason=reason
        )
        path = path_of(manager_id, "relinquish")
        answer = yield from exchange.post(session, path, RequeuedAnswer, wire.body(request))
        requeued += answer.record_ids
    return requeued


def _packed(given: ResultIn, idx: int) -> bytes:
    """Return one result as msgpack, with the outcome of the attempt as JSON bytes."""
    what = f"results[{idx}]"
    document = {name: value for name, value in given if value is not None}
    result = given.result
    if result is None and given.error_type is None:
        document["result"] = b"null"
    elif result is not None and not isinstance(result, bytes):
        try:
            document["result"] = wire.json_bytes(result)
        except InvalidArgument as error:
            raise InvalidArgument(f"{what}.{error.detail}", idx=idx) from None
    if given.provenance is not None:
        wire.pack_json(given.provenance, what=f"{what}.provenance", idx=idx)
    return wire.pack_text(document, what=what, idx=idx)


def _returned(done: Sequence[tuple[int, ReturnAnswer]]) -> ReturnMetadata:
    """Return the answers to the parts as one answer to the call."""
    return ReturnMetadata(
        operation_ids=[answer.operation_id for _, answer in done if answer.operation_id],
        errors=[moved(error, start) for start, answer in done for error in answer.errors],
        accepted_idx=[start + idx for start, answer in done for idx in answer.accepted_idx],
        late_idx=[start + idx for start, answer in done for idx in answer.late_idx],
        duplicate_idx=[start + idx for start, answer in done for idx in answer.duplicate_idx],
    )
