"""The table `tokens`: who may come in, by the SHA-256 of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from recordledger.domain.admin.access import Role, TokenAggregate
from recordledger.domain.streams import Stream

from ..store.database import Db, one
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.tokens")


def next_id(db: Db) -> int:
    """Return a new token id."""
    return int(one(db, _SQL["next_id"])[0])


def write(db: Db, changes: Changes) -> None:
    """Bring the rows of tokens to what they are now."""
    for token in changes.after(TokenAggregate):
        db.execute(
            _SQL["write"],
            {
                "id": token.id,
                "version": token.version,
                "user": token.user,
                "role": token.role,
                "token_hash": token.token_hash,
                "issued_at": token.issued_at,
                "expires_at": token.expires_at,
                "revoked_at": token.revoked_at,
            },
        )


TABLE: Final = ProjectionTable(
    name="tokens", key=("id",), owner=Owner("id", Stream.token), write=write
)


def lock(db: Db, token_id: int) -> TokenAggregate:
    """Lock and return a token; an unissued one if there is none with this id."""
    row = db.execute(_SQL["lock"], {"id": token_id}).fetchone()
    return from_row(row) if row else TokenAggregate(token_id)


def by_hash(db: Db, token_hash: bytes) -> TokenAggregate | None:
    """Return the token with this hash if it opens anything now."""
    row = db.execute(_SQL["by_hash"], {"token_hash": token_hash}, prepare=True).fetchone()
    return from_row(row) if row else None


def page(db: Db, after: int, limit: int) -> list[TokenAggregate]:
    """Return the tokens with ids above `after`, at most `limit`."""
    return [from_row(row) for row in db.execute(_SQL["page"], {"after": after, "limit": limit})]


def from_row(row: Sequence[Any]) -> TokenAggregate:
    """Return the token that a row of `tokens` holds."""
    id_, version, user, role, token_hash, issued_at, expires_at, revoked_at = row
    return TokenAggregate(
        id=id_,
        version=version,
        user=user,
        role=Role(role),
        token_hash=token_hash,
        issued_at=issued_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
