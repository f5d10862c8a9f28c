"""Who may come in: tokens to issue, list and revoke, as operations for administrators."""

from __future__ import annotations

from datetime import datetime

from recordledger.domain.admin.access import Role

from ...schemas.base import Answer
from ...schemas.tokens import TokenRequest
from .. import exchange, wire
from ..exchange import Operation, Session
from ..results.tokens import NewToken, Token, Tokens


class _TokensAnswer(Answer):
    tokens: list[Token]
    next_cursor: str | None


def issue_token(
    session: Session, user: str, role: Role | str = Role.user, expires_at: datetime | None = None
) -> Operation[NewToken]:
    """Issue a token; its `secret` is what to hand over, and is never shown again.

    If the answer is lost on its way, `NotConnected` says so: look into `tokens()`, and revoke the
    one whose secret nobody knows.

    Args:
        user: requests with the token act as this user.
        role: "reader", "user", "compute" or "admin".
        expires_at: with a time zone; None for never.

    >>> client.issue_token("ben", role="reader").secret
    """
    request = wire.message(TokenRequest, user=user, role=role, expires_at=expires_at)
    body = wire.pack(request.model_dump(exclude_none=True))
    # The secret is kept nowhere, so the server cannot give the same answer twice.
    return (yield from exchange.post(session, "/v1/tokens", NewToken, body, is_repeatable=False))


def tokens(session: Session) -> Operation[Tokens]:
    """Return all tokens without their secrets, oldest first.

    >>> [token.id for token in client.tokens() if token.user == "ben"]
    """
    found = Tokens()
    cursor: str | None = None
    while True:
        path = "/v1/tokens" + ("" if cursor is None else f"?cursor={cursor}")
        answer = yield from exchange.get(session, path, _TokensAnswer)
        found += answer.tokens
        cursor = answer.next_cursor
        if cursor is None:
            return found


def revoke_token(session: Session, token_id: int) -> Operation[Token]:
    """End a token: it opens nothing any more.

    Raises:
        NotFound: there is no such token.

    >>> client.revoke_token(3)
    """
    path = f"/v1/tokens/{wire.record_id(token_id, what='token_id')}/revoke"
    return (yield from exchange.post(session, path, Token, b""))
