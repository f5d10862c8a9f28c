"""Access: tokens, whose they are and what they allow; their events and state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from pydantic import AwareDatetime

from ..errors import ImpossibleHistory
from ..records.events import Digest, Event, Stamp, events_of


class Permission(StrEnum):
    """What a request needs; every route names one."""

    read = auto()
    submit = auto()
    compute = auto()
    admin = auto()


class Role(StrEnum):
    """What a token is for."""

    reader = auto()
    user = auto()
    compute = auto()
    admin = auto()


PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.reader: frozenset({Permission.read}),
    Role.user: frozenset({Permission.read, Permission.submit}),
    Role.compute: frozenset({Permission.compute}),
    Role.admin: frozenset(Permission),
}


class TokenIssued(Event):
    """Requests with the token act as this user. Only the SHA-256 of the token is kept."""

    topic = "token_issued"

    user: str
    role: Role
    token_hash: Digest
    expires_at: AwareDatetime | None = None


class TokenRevoked(Event):
    """The token opens nothing any more."""

    topic = "token_revoked"


TOKEN_EVENTS: Final = events_of(__name__)


@dataclass(frozen=True, slots=True)
class TokenAggregate:
    """The state of one token, folded from its history."""

    id: int
    version: int = 0
    user: str = ""
    role: Role = Role.reader
    token_hash: bytes = b""
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


def evolve_token(token: TokenAggregate, event: Event) -> TokenAggregate:
    """Return the token after the event.

    Raises:
        ImpossibleHistory: the event cannot follow on what the token is.
    """
    token = replace(token, version=token.version + 1)
    match event:
        case TokenIssued() if token.issued_at is None:
            return replace(
                token,
                user=event.user,
                role=event.role,
                token_hash=event.token_hash,
                issued_at=event.timestamp,
                expires_at=event.expires_at,
            )
        case TokenRevoked() if token.issued_at is not None and token.revoked_at is None:
            return replace(token, revoked_at=event.timestamp)
        case _:
            raise ImpossibleHistory(
                f"token {token.id}", token.version, f"{event.topic} cannot happen to it"
            )


def revoke(token: TokenAggregate, stamp: Stamp) -> list[Event]:
    """Return the event that ends the token; none if it has ended already."""
    if token.issued_at is None or token.revoked_at is not None:
        return []
    return [TokenRevoked(**stamp.model_dump())]
