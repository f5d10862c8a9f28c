"""What commands on the database itself have in common: where it is, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from recordledger.projections.ledger import Ledger

DATABASE_URL = click.option(
    "--database-url",
    envvar="RECORDLEDGER_DATABASE_URL",
    help="PostgreSQL to use, as a URL. [env: RECORDLEDGER_DATABASE_URL]",
)
DATABASE_SCHEMA = click.option(
    "--database-schema",
    envvar="RECORDLEDGER_DATABASE_SCHEMA",
    default="recordledger",
    show_default=True,
    help="Schema of the database that holds the ledger.",
)
HOME = click.option(
    "--home",
    envvar="RECORDLEDGER_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the data are kept. The default is the user's data directory.",
)


def url_of(database_url: str | None) -> str:
    """Return the URL that was given.

    Raises:
        click.UsageError: none was.
    """
    if not database_url:
        raise click.UsageError(
            "say which database: --database-url, or RECORDLEDGER_DATABASE_URL in the environment"
        )
    return database_url


def running_database(home: Path | None, database_url: str | None) -> str:
    """Return the URL that was given, or that of the embedded database that runs."""
    if database_url:
        return database_url
    from recordledger.api.client.connection import home_folder
    from recordledger.projections.embedded import EmbeddedPostgres

    return EmbeddedPostgres(home or home_folder()).attach()


def open_ledger(database_url: str | None, schema: str, *, pool_size: int = 2) -> Ledger:
    """Return the ledger of a database, if its schema is the one that this code works with."""
    from recordledger.projections.ledger import Ledger
    from recordledger.projections.schema import check

    url = url_of(database_url)
    check(url, schema)
    return Ledger(url, schema, pool_size=pool_size)
