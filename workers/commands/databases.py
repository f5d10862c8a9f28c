"""Options of the commands that use the database itself, and the ledger that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from recordledger.projections.ledger import Ledger

DATABASE_URL = click.option(
    "--database-url",
    envvar="RECORDLEDGER_DATABASE_URL",
    show_envvar=True,
    help="URL of the PostgreSQL database, 15 or newer: postgresql://user:secret@host/name",
)
DATABASE_SCHEMA = click.option(
    "--database-schema",
    envvar="RECORDLEDGER_DATABASE_SCHEMA",
    default="recordledger",
    show_default=True,
    show_envvar=True,
    help="PostgreSQL schema with all of the ledger's tables.",
)
HOME = click.option(
    "--home",
    envvar="RECORDLEDGER_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Folder where the data are kept. [the user's data directory]",
)
SEAL_KEY_FILE = click.option(
    "--seal-key-file",
    envvar="RECORDLEDGER_SEAL_KEY_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    show_envvar=True,
    help="Secret key for seals; created if missing. [seals/LEDGER_ID.key below --home]",
)
CHECKPOINT_DIR = click.option(
    "--checkpoint-dir",
    envvar="RECORDLEDGER_CHECKPOINT_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Folder where each new checkpoint is written, as a file that is never changed. [nowhere]",
)


def given_url(database_url: str | None) -> str:
    """Return the URL, which must be given."""
    if not database_url:
        raise click.UsageError(
            "no database is given: use --database-url, or RECORDLEDGER_DATABASE_URL in the "
            "environment"
        )
    return database_url


def running_database(home: Path | None, database_url: str | None) -> str:
    """Return the URL that is given, or that of the embedded database, which must be running."""
    if database_url:
        return database_url
    from recordledger.api.client.connection import home_folder
    from recordledger.projections.store.embedded import EmbeddedPostgres

    return EmbeddedPostgres(home or home_folder()).attach()


def open_ledger(database_url: str | None, schema: str, *, pool_size: int = 2) -> Ledger:
    """Return the ledger of a database, whose schema must be up to date."""
    from recordledger.projections.ledger import Ledger
    from recordledger.projections.tables.schema import check

    url = given_url(database_url)
    check(url, schema)
    return Ledger(url, schema, pool_size=pool_size)
