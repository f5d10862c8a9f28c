"""Origins: what was imported, from which ledger, and what it was called there."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from recordledger.domain.admin.access import Permission
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.tables import origins

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit, Listing
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.origins import ImportedKind, OriginsAnswer

router = APIRouter(prefix="/v1/origins", tags=["origins"])

Id = Annotated[int | None, Query(ge=1, le=ID_MAX)]


@router.get("", response_model=OriginsAnswer)
@endpoint(Annotated[Visitor, allowed(Permission.read)])
def list_origins(
    call: Call,
    kind: ImportedKind = "record",
    imported_id: Id = None,
    ledger_id: UUID | None = None,
    origin_id: Id = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of what was imported, by ids here: all, or what fits.

    `imported_id` is the id here; `ledger_id` and `origin_id` are the ledger and the id there. What
    came from one ledger by way of another has an origin in each.
    """
    pages = call.pages(Listing.origins)
    number, n_shown = pages.last_pair(cursor)
    with call.desk.ledger.datastore.reading() as db:
        found = origins.page(
            db,
            Stream[kind],
            limit + 1,
            since=number,
            skip=n_shown,
            number=imported_id,
            ledger_id=ledger_id,
            origin_id=origin_id,
        )

    def key_of(last: origins.OriginRow) -> tuple[int, int]:
        n_of_last = sum(each.number == last.number for each in found[:limit])
        return last.number, n_of_last + (n_shown if last.number == number else 0)

    shown, next_cursor = pages.cut(found, limit, key_of)
    return {"origins": list(map(_origin_out, shown)), "next_cursor": next_cursor}


def _origin_out(origin: origins.OriginRow) -> dict[str, Any]:
    return {
        "kind": origin.stream.name,
        "id": origin.number,
        "ledger_id": str(origin.ledger_id),
        "origin_id": origin.origin_id,
        "archive_hash": origin.archive_hash,
        "imported_at": origin.imported_at,
        "imported_by": origin.imported_by,
    }
