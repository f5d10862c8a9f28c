"""Proofs: receipts of records, the newest checkpoint, and that one log begins with another."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.errors import NothingSealed
from recordledger.domain.streams import ID_MAX
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof import receipts, seals

from ..http.request_context import Call, desk_of, endpoint
from ..http.wire import Reply
from ..schemas.proofs import ConsistencyAnswer
from .records import Reader, RecordIdInPath

router = APIRouter(prefix="/v1", tags=["proofs"])

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_NOTE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}
Size = Annotated[int, Query(ge=1, le=ID_MAX, description="Events of the log then.")]


@router.get("/records/{record_id}/receipt", response_model=dict[str, Any])
async def get_receipt(request: Request, visitor: Reader, record_id: RecordIdInPath) -> Response:
    """Get the history of a record with its proof: a file to keep unchanged.

    It is always JSON, in a layout of its own: every byte counts. While the newest events wait for
    the next seal the answer is `not_sealed_yet`.
    """
    return await _as_it_is(request, lambda ledger: receipts.make_receipt(ledger, record_id), _JSON)


@router.get("/checkpoint", response_class=Response, responses=_NOTE)
async def get_checkpoint(request: Request, visitor: Reader) -> Response:
    """Get the newest signed checkpoint, as a note in the format c2sp.org/tlog-checkpoint."""

    def newest(ledger: Ledger) -> str:
        note = seals.newest_checkpoint(ledger)
        if note is None:
            raise NothingSealed
        return note

    return await _as_it_is(request, newest, _TEXT)


@router.get("/proofs/consistency", response_model=ConsistencyAnswer)
@endpoint(Reader)
def prove_consistency(call: Call, first: Size, second: Size) -> Reply:
    """Get what proves that the log of `second` events begins with the one of `first` events.

    The hashes are those of RFC 9162, section 2.1.4, in base64.
    """
    proof = seals.prove_consistency(call.desk.ledger, first, second)
    hashes = [b64encode(each).decode() for each in proof]
    return {"first": first, "second": second, "proof": hashes}


async def _as_it_is(
    request: Request, text_of: Callable[[Ledger], str], media_type: str
) -> Response:
    """Return text that has one form only, whatever the request would rather have."""
    desk = desk_of(request)

    def work() -> bytes:
        desk.check_schema()
        return text_of(desk.ledger).encode()

    data = await desk.in_thread(work)
    return Response(data, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
