"""Tokens."""

from __future__ import annotations

from pydantic import AwareDatetime

from recordledger.domain.admin.access import Role

from .base import Answer, Message
from .fields import ShortText


class TokenRequest(Message):
    """A token to issue."""

    user: ShortText
    role: Role
    expires_at: AwareDatetime | None = None


class TokenOut(Answer):
    """A token, without its secret."""

    id: int
    user: str
    role: Role
    issued_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None


class NewTokenAnswer(Answer):
    """A token that was just issued; `secret` is shown this once."""

    token: TokenOut
    secret: str


class TokensAnswer(Answer):
    """One page of tokens; `next_cursor` is None on the last."""

    tokens: list[TokenOut]
    next_cursor: str | None
