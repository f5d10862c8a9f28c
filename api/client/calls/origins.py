"""Where imported records, managers and datasets came from, as operations."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from ...schemas.base import Answer
from .. import exchange, wire
from ..exchange import Operation, Session
from ..results.origins import Origin, Origins

_PAGE = 1_000


class _OriginsAnswer(Answer):
    origins: list[Origin]
    next_cursor: str | None


def origins(
    session: Session,
    kind: str = "record",
    *,
    imported_id: int | None = None,
    ledger_id: str | UUID | None = None,
    origin_id: int | None = None,
    limit: int = 100,
) -> Operation[Origins]:
    """Return where imported records came from, by their ids here: all, or those that fit.

    What came from one ledger by way of another has an origin in each.

    Args:
        kind: or managers ("manager"), or datasets ("dataset").
        imported_id: only of this one, by its id here.
        ledger_id: only what came from this ledger.
        origin_id: only what had this id there.
        limit: maximum number of origins.

    Raises:
        InvalidArgument: an id is not valid.
        InvalidInput: nothing of this kind is ever imported.

    >>> client.origins(imported_id=411)
    """
    query: dict[str, int | str] = {"kind": kind}
    if imported_id is not None:
        query["imported_id"] = wire.record_id(imported_id, what="imported_id")
    if origin_id is not None:
        query["origin_id"] = wire.record_id(origin_id, what="origin_id")
    if ledger_id is not None:
        query["ledger_id"] = str(wire.uuid(ledger_id, "a ledger's id"))
    found = Origins()
    while len(found) < limit:
        query["limit"] = min(limit - len(found), _PAGE)
        path = f"/v1/origins?{urlencode(query)}"
        answer = yield from exchange.get(session, path, _OriginsAnswer)
        found += answer.origins
        if answer.next_cursor is None:
            break
        query["cursor"] = answer.next_cursor
    return found
