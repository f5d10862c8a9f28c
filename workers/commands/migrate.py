"""The command that brings a database's schema up to date."""

from __future__ import annotations

from typing import Final

import click

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
    given_url,
)
from .terminal import exits_on_ledger_errors


@click.command()
@DATABASE_URL
@DATABASE_SCHEMA
@exits_on_ledger_errors
def migrate(database_url: str | None, database_schema: str) -> None:
    """Bring the database's schema up to date. Forward only; run it before `serve`."""
    from recordledger.projections.tables.schema import migrate as migrate_schema

    version = migrate_schema(given_url(database_url), database_schema)
    click.echo(f"The schema is version {version}.")


COMMANDS: Final = (migrate,)
