"""The self-audit, as operations for administrators: how far it is, and putting rows right."""

from __future__ import annotations

from collections.abc import Sequence

from ...schemas.base import Answer
from ...schemas.self_audit import RepairRequest
from .. import exchange, wire
from ..exchange import Operation, Session
from ..results.self_audit import RepairedRow, SelfAudit


class _RepairAnswer(Answer):
    repairs: list[RepairedRow]


def self_audit(session: Session) -> Operation[SelfAudit]:
    """Return how far the self-audit is, and which rows it found not to be what the log says.

    >>> print(client.self_audit())
    """
    return (yield from exchange.get(session, "/v1/self-audit", SelfAudit))


def repair(
    session: Session,
    table: str | None = None,
    key: Sequence[str | int] | None = None,
    *,
    reason: str | None = None,
) -> Operation[list[RepairedRow]]:
    """Put rows right that the self-audit has found: all, those of a table, or one.

    What cannot be repaired yet says why in its `refusal`. If the answer is lost on its way,
    `NotConnected` says so; `self_audit()` shows what is left.

    Args:
        table: of the rows; None for all tables.
        key: of one row, as `self_audit()` has it.
        reason: why; on the events of the repairs.

    >>> client.repair("records", [411], reason="the disk was changed")
    """
    request = wire.message(
        RepairRequest,
        table=table,
        key=None if key is None else list(map(str, key)),
        reason=reason,
    )
    body = wire.pack(request.model_dump(exclude_none=True))
    answer = yield from exchange.post(
        session, "/v1/self-audit/repair", _RepairAnswer, body, is_repeatable=False
    )
    return answer.repairs
