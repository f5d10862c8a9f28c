"""Tokens."""

from __future__ import annotations

from pydantic import Field

from ...schemas.base import Answer
from ...schemas.tokens import TokenOut
from .table import Table


class Token(TokenOut):
    """A token, without its secret."""


class NewToken(Answer):
    """A token that was just issued. `secret` is what to hand over; it is shown this once."""

    token: Token
    secret: str = Field(repr=False)


class Tokens(Table[Token]):
    """Tokens, oldest first."""

    noun = "tokens"
    columns = ("id", "user", "role", "issued_at", "expires_at", "revoked_at")
