"""Tokens: issued once, shown by their owners, kept only as hashes, revoked."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Final, NamedTuple

from recordledger.domain.admin.access import Role, TokenAggregate, TokenIssued, revoke

from ..ledger import Ledger, Operation
from ..tables import tokens

SERVER: Final = "server:gate"
_PREFIX: Final = "rl_"


class IssuedToken(NamedTuple):
    """A token that was just issued. `secret` is shown once and kept nowhere."""

    token: TokenAggregate
    secret: str


def token_hash(secret: str) -> bytes:
    """Return the SHA-256 under which a token is kept; it has 256 random bits, so no salt."""
    return hashlib.sha256(secret.encode()).digest()


def issue_token(
    ledger: Ledger,
    user: str,
    role: Role,
    *,
    actor: str = SERVER,
    expires_at: datetime | None = None,
) -> IssuedToken:
    """Issue a token with which its bearer acts as `user`."""
    secret = _PREFIX + secrets.token_urlsafe(32)

    def work(operation: Operation) -> TokenAggregate:
        issued = TokenIssued(
            user=user,
            role=role,
            token_hash=token_hash(secret),
            expires_at=expires_at,
            **operation.stamp.model_dump(),
        )
        return operation.happen(TokenAggregate(tokens.next_id(operation.db)), [issued])

    return IssuedToken(ledger.operate(work, actor=actor), secret)


def revoke_token(ledger: Ledger, token_id: int, *, actor: str) -> bool:
    """Revoke a token; return whether it was valid until now."""

    def work(operation: Operation) -> bool:
        token = tokens.lock(operation.db, token_id)
        events = revoke(token, operation.stamp)
        operation.happen(token, events)
        return bool(events)

    return ledger.operate(work, actor=actor)


def authenticate(ledger: Ledger, secret: str) -> TokenAggregate | None:
    """Return the valid token with this secret; None if there is none."""
    with ledger.datastore.reading() as db:
        return tokens.by_hash(db, token_hash(secret))
