"""What managers say of themselves, as operations: that they are there, and that they end."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

from recordledger.domain.routing.manager_state import ManagerState

from ...schemas.claims import (
    AttemptRef,
    RequeuedAnswer,
)
from ...schemas.presence import (
    DeactivateRequest,
    DrainAnswer,
    DrainRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    ProgramsAnswer,
    ProgramsRequest,
    RegisterAnswer,
    RegisterRequest,
)
from .. import exchange, wire
from ..exchange import Operation, Session
from .managers import path_of


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
        name: as people know it.
        tags: what it claims, in this order; "*" is everything.
        programs: what it has: name to version, or to None where that is not known.
        hostname: where it runs; None for this machine's name.
        lease_s: for how long it may be silent, in seconds; None for the server's default.
        heartbeat_s: seconds between two heartbeats; None for the server's default.

    >>> client.register_manager("gpu-node", ["gpu", "*"], {"psi4": "1.9"}).manager_id
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
    return (yield from exchange.post(session, "/v1/managers", RegisterAnswer, wire.body(request)))


def heartbeat(
    session: Session, manager_id: int, held: Iterable[AttemptRef]
) -> Operation[HeartbeatAnswer]:
    """Send a heartbeat, and extend the lease on the manager's attempts.

    Args:
        manager_id: from `register_manager`.
        held: every attempt that the manager has and whose return was not acknowledged. What is
            not among them goes back to the queue when its lease is over.

    Returns:
        Until when the lease runs, and which attempts are the manager's no more.

    >>> client.heartbeat(7, [AttemptRef(record_id=413, attempt=1)]).lease_expires_at
    """
    request = wire.message(HeartbeatRequest, held=list(held))
    path = path_of(manager_id, "heartbeat")
    return (yield from exchange.post(session, path, HeartbeatAnswer, wire.body(request)))


def deactivate_manager(
    session: Session, manager_id: int, reason: str | None = None
) -> Operation[list[int]]:
    """End a manager; return the records it had, which wait again.

    >>> client.deactivate_manager(7, reason="the node is switched off")
    """
    request = wire.message(DeactivateRequest, reason=reason)
    path = path_of(manager_id, "deactivate")
    return (yield from exchange.post(session, path, RequeuedAnswer, wire.body(request))).record_ids


def drain_manager(
    session: Session, manager_id: int, reason: str | None = None
) -> Operation[ManagerState]:
    """Give a manager nothing more to do, so that it ends when it is done; return its state.

    >>> client.drain_manager(7, reason="maintenance at noon")
    """
    request = wire.message(DrainRequest, reason=reason)
    path = path_of(manager_id, "drain")
    return (yield from exchange.post(session, path, DrainAnswer, wire.body(request))).state


def report_programs(
    session: Session, manager_id: int, programs: Mapping[str, str | None]
) -> Operation[bool]:
    """Say which programs a manager has now; return whether these are others than before.

    Args:
        manager_id: from `register_manager`.
        programs: all of them: name to version, or to None where that is not known.

    >>> client.report_programs(7, {"psi4": "1.9.1", "xtb": None})
    """
    request = wire.message(ProgramsRequest, programs=dict(programs))
    path = path_of(manager_id, "programs")
    body = wire.pack(request.model_dump())
    return (yield from exchange.post(session, path, ProgramsAnswer, body)).changed
