"""Tokens: issue, list, revoke; for administrators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from recordledger.domain.admin.access import Permission, TokenAggregate
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.actions.tokens import issue_token, revoke_token
from recordledger.projections.tables import tokens

from ..http.auth import Visitor, allowed
from ..http.cursors import Cursor, Limit
from ..http.errors import TokenNotFound
from ..http.openapi import request_body
from ..http.request_context import Call, endpoint
from ..http.wire import Reply
from ..schemas.tokens import NewTokenAnswer, TokenOut, TokenRequest, TokensAnswer
from .histories import in_utc

router = APIRouter(prefix="/v1", tags=["tokens"])

TokenIdInPath = Annotated[int, Path(ge=1, le=ID_MAX)]
Administrator = Annotated[Visitor, allowed(Permission.admin)]


@router.post("/tokens", response_model=NewTokenAnswer, openapi_extra=request_body(TokenRequest))
@endpoint(Administrator)
def issue(call: Call) -> Reply:
    """Issue a token; its secret is in this answer and nowhere else.

    An idempotency key has no effect here, since the secret is not kept: if the answer was lost,
    revoke the token and issue another.
    """
    asked = call.parse(TokenRequest)
    expires_at = asked.expires_at and in_utc(asked.expires_at, "expires_at")
    new = issue_token(
        call.desk.ledger,
        asked.user,
        asked.role,
        actor=call.visitor.actor,
        expires_at=expires_at,
    )
    return {"token": _token_out(new.token), "secret": new.secret}


@router.get("/tokens", response_model=TokensAnswer)
@endpoint(Administrator)
def list_tokens(
    call: Call,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Reply:
    """Get one page of the tokens, without their secrets, oldest first."""
    pages = call.pages(Stream.token)
    after = pages.last_id(cursor, 0)
    with call.desk.ledger.datastore.reading() as db:
        found = tokens.page(db, after, limit + 1)
    shown, next_cursor = pages.cut(found, limit, lambda token: token.id)
    return {"tokens": [_token_out(token) for token in shown], "next_cursor": next_cursor}


@router.post("/tokens/{token_id}/revoke", response_model=TokenOut)
@endpoint(Administrator)
def revoke(call: Call, token_id: TokenIdInPath) -> Reply:
    """Revoke a token: it opens nothing any more. To revoke it again changes nothing."""
    desk = call.desk
    revoke_token(desk.ledger, token_id, actor=call.visitor.actor)
    desk.doorkeeper.forget()
    with desk.ledger.datastore.reading() as db:
        found = tokens.page(db, token_id - 1, 1)
    if not found or found[0].id != token_id:
        raise TokenNotFound(token_id)
    return _token_out(found[0])


def _token_out(token: TokenAggregate) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "role": token.role,
        "issued_at": token.issued_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
