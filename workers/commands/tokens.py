"""Commands about tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import click

from .terminal import console, exits_on_ledger_errors


@click.group()
def token() -> None:
    """Issue, list and revoke tokens. What they open is decided by their role."""


@token.command("issue")
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice(["reader", "user", "compute", "admin"]),
    default="user",
    show_default=True,
    help="What the token is for; `compute` is for managers.",
)
@click.option("--days", type=click.FloatRange(min=0), help="Days until it expires. [never]")
@exits_on_ledger_errors
def issue_token(user: str, role: str, days: float | None) -> None:
    """Issue a token with which its bearer acts as USER. It is printed once and kept nowhere."""
    from recordledger.api.client import Client

    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Client() as client:
        click.echo(client.issue_token(user, role, expires_at=expires_at).secret)


@token.command("list")
@exits_on_ledger_errors
def list_tokens() -> None:
    """Print all tokens, without their secrets."""
    from rich.table import Table

    from recordledger.api.client import Client

    table = Table("token", "user", "role", "issued", "expires", "revoked")
    with Client() as client:
        for each in client.tokens():
            moments = (each.issued_at, each.expires_at, each.revoked_at)
            table.add_row(
                str(each.id), each.user, each.role, *(f"{at:%F %T}" if at else "" for at in moments)
            )
    console().print(table)


@token.command("revoke")
@click.argument("token_id", type=click.IntRange(1, 2**63 - 1))
@exits_on_ledger_errors
def revoke_token(token_id: int) -> None:
    """Revoke the token TOKEN_ID: it opens nothing any more, a few seconds from now."""
    from recordledger.api.client import Client

    with Client() as client:
        client.revoke_token(token_id)
    click.echo(f"Token {token_id} is revoked.")


COMMANDS: Final = (token,)
