"""What managers say to the ledger, and what it says about them, as operations."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from recordledger.domain.routing.manager import ManagerState

from ...schemas.base import Answer
from ...schemas.claims import (
    AttemptRef,
    ClaimAnswer,
    ClaimRequest,
    RelinquishRequest,
    RequeuedAnswer,
)
from ...schemas.managers import (
    DeactivateRequest,
    DrainAnswer,
    DrainRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    ProgramsAnswer,
    ProgramsRequest,
    RegisterAnswer,
    RegisterRequest,
    RescuesAnswer,
)
from ...schemas.returns import ResultIn, ReturnAnswer
from .. import exchange, wire
from ..errors import ClientError, InvalidArgument
from ..exchange import Operation, Session
from ..progress import bar
from ..results.bulk import ReturnMetadata
from ..results.events import HistoryEvent, ManagerHistory
from ..results.managers import Manager, Managers
from .records import conditions, listed, moved, tell_what_was_done


class _ManagersAnswer(Answer):
    managers: list[Manager]
    next_cursor: str | None


class _HistoryAnswer(Answer):
    manager_id: int
    events: list[HistoryEvent]


def managers(
    session: Session, state: ManagerState | str | Iterable[ManagerState | str] | None = None
) -> Operation[Managers]:
    """Return managers, oldest first: all, whether or not they are still active, or some.

    Args:
        session: the client's.
        state: only those in this state, or in one of several: "active", "draining", "inactive",
            "lost".
    """
    query: list[tuple[str, str]] = [("state", str(each)) for each in listed(state) or ()]
    found = Managers()
    cursor: str | None = None
    while True:
        page = query if cursor is None else [*query, ("cursor", cursor)]
        path = f"/v1/managers?{urlencode(page)}".rstrip("?")
        answer = yield from exchange.get(session, path, _ManagersAnswer)
        found += answer.managers
        cursor = answer.next_cursor
        if cursor is None:
            return found


def manager(session: Session, manager_id: int) -> Operation[Manager]:
    """Return one manager.

    Raises:
        NotFound: there is no such manager.
    """
    return (yield from exchange.get(session, _path(manager_id), Manager))


def manager_history(
    session: Session,
    manager_id: int,
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
) -> Operation[ManagerHistory]:
    """Return the events of a manager, oldest first; signs of life are not among them.

    Args:
        session: the client's.
        manager_id: whose.
        kind: only of this kind, like `program_suspended`, or of several.
        actor: only by this one, like `user:ann`, or by several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.

    Raises:
        InvalidArgument: a time has no zone.
        NotFound: there is no such manager.
        Refused: there is no such kind of event.
    """
    query = urlencode(conditions(kind=kind, actor=actor, after=after, before=before))
    path = f"{_path(manager_id, 'events')}?{query}".rstrip("?")
    answer = yield from exchange.get(session, path, _HistoryAnswer)
    return ManagerHistory(answer.manager_id, tuple(answer.events))


def register_manager(
    session: Session,
    name: str,
    tags: Sequence[str],
    programs: Mapping[str, str | None] | None = None,
    *,
    hostname: str | None = None,
    lease_s: float | None = None,
    heartbeat_s: float | None = None,
) -> Operation[RegisterAnswer]:
    """Introduce a manager, which gets a new id at every start.

    Args:
        session: the client's.
        name: as people know it.
        tags: what it claims, in this order; "*" is everything.
        programs: what it has: name to version, or to None where that is not known.
        hostname: where it runs; None for this machine's name.
        lease_s: for how long it may be silent, in seconds; None for the server's default.
        heartbeat_s: how often it gives a sign of life; None for the server's default.
    """
    request = wire.message(
        RegisterRequest,
        name=name,
        hostname=hostname or socket.gethostname(),
        tags=list(tags),
        programs=dict(programs or {}),
        lease_s=lease_s,
        heartbeat_s=heartbeat_s,
    )
    return (yield from exchange.post(session, "/v1/managers", RegisterAnswer, _body(request)))


def heartbeat(
    session: Session, manager_id: int, held: Iterable[AttemptRef]
) -> Operation[HeartbeatAnswer]:
    """Give a sign of life, and extend the lease on what the manager has.

    Args:
        session: the client's.
        manager_id: from `register_manager`.
        held: every attempt that the manager has and whose return was not acknowledged. What is
            not among them goes back to the queue when its lease is over.

    Returns:
        Until when the lease runs, and which attempts are the manager's no more.
    """
    request = wire.message(HeartbeatRequest, held=list(held))
    path = _path(manager_id, "heartbeat")
    return (yield from exchange.post(session, path, HeartbeatAnswer, _body(request)))


def claim(session: Session, manager_id: int, limit: int = 20) -> Operation[ClaimAnswer]:
    """Take tasks to run: at most `limit`, and at most what the server gives at once.

    Raises:
        Refused: with code "manager_not_active", the manager must register anew.
    """
    limits = (yield from exchange.server(session)).limits
    request = wire.message(ClaimRequest, limit=min(limit, limits.claim_per_request))
    path = _path(manager_id, "claim")
    return (yield from exchange.post(session, path, ClaimAnswer, _body(request)))


def return_results(
    session: Session, manager_id: int, results: Sequence[ResultIn]
) -> Operation[ReturnMetadata]:
    """Hand in what came of attempts.

    Args:
        session: the client's.
        manager_id: from `register_manager`.
        results: one for each attempt. A `result` is a JSON value, or already encoded by
            `json_bytes`, which tells beforehand whether it can be sent.

    Raises:
        InvalidArgument: a value cannot be sent, and nothing was; `idx` says which entry's.
    """
    limits = (yield from exchange.server(session)).limits
    entries = [_packed(result, idx) for idx, result in enumerate(results)]
    room_bytes = wire.room_bytes({}, limits.body_bytes)
    parts = wire.spans(entries, limits.results_per_request, room_bytes, "results")
    path = _path(manager_id, "results")
    done: list[tuple[int, ReturnAnswer]] = []
    with bar(session.progress, len(entries), "returning results") as progress:
        for part in parts:
            body = wire.pack_list({}, "results", entries[part.start : part.stop])
            try:
                answer = yield from exchange.post(session, path, ReturnAnswer, body)
            except ClientError as error:
                tell_what_was_done(error, _returned(done) if done else None, part.start)
                raise
            done.append((part.start, answer))
            progress.update(len(part))
    return _returned(done)


def relinquish(
    session: Session, manager_id: int, attempts: Iterable[AttemptRef], reason: str | None = None
) -> Operation[list[int]]:
    """Give attempts back unfinished; return the records that wait again.

    What is the manager's no more is left as it is.
    """
    wanted = list(attempts)
    limits = (yield from exchange.server(session)).limits
    requeued: list[int] = []
    for part in wire.slices(wanted, limits.ids_per_request):
        request = wire.message(
            RelinquishRequest, attempts=wanted[part.start : part.stop], reason=reason
        )
        path = _path(manager_id, "relinquish")
        answer = yield from exchange.post(session, path, RequeuedAnswer, _body(request))
        requeued += answer.record_ids
    return requeued


def deactivate_manager(
    session: Session, manager_id: int, reason: str | None = None
) -> Operation[list[int]]:
    """End a manager; return the records it had, which wait again."""
    request = wire.message(DeactivateRequest, reason=reason)
    path = _path(manager_id, "deactivate")
    return (yield from exchange.post(session, path, RequeuedAnswer, _body(request))).record_ids


def drain_manager(
    session: Session, manager_id: int, reason: str | None = None
) -> Operation[ManagerState]:
    """Give a manager nothing more to do, so that it ends when it is done; return its state."""
    request = wire.message(DrainRequest, reason=reason)
    path = _path(manager_id, "drain")
    return (yield from exchange.post(session, path, DrainAnswer, _body(request))).state


def report_programs(
    session: Session, manager_id: int, programs: Mapping[str, str | None]
) -> Operation[bool]:
    """Say which programs a manager has now; return whether these are others than before.

    Args:
        session: the client's.
        manager_id: from `register_manager`.
        programs: all of them: name to version, or to None where that is not known.
    """
    request = wire.message(ProgramsRequest, programs=dict(programs))
    path = _path(manager_id, "programs")
    body = wire.pack(request.model_dump())
    return (yield from exchange.post(session, path, ProgramsAnswer, body)).changed


def rescues(session: Session) -> Operation[RescuesAnswer]:
    """Return how many results came late, how many of these were adopted, and what they had cost."""
    return (yield from exchange.get(session, "/v1/rescues", RescuesAnswer))


def _path(manager_id: int, verb: str = "") -> str:
    return f"/v1/managers/{wire.record_id(manager_id, what='manager_id')}/{verb}".rstrip("/")


def _packed(given: ResultIn, idx: int) -> bytes:
    """Return one result as msgpack, with what came of the attempt as JSON bytes."""
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


def _body(request: Any) -> bytes:
    return wire.pack(request.model_dump(exclude_none=True))
