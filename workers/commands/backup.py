"""Commands that back a ledger up with PostgreSQL's own tools, and restore it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from .databases import DATABASE_SCHEMA, DATABASE_URL, HOME, running_database
from .terminal import exits_on_ledger_errors

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.argument("folder", type=_FOLDER)
@exits_on_ledger_errors
def backup(home: Path | None, database_url: str | None, database_schema: str, folder: Path) -> None:
    """Write a backup of the ledger, as it is at this moment, into the new folder FOLDER.

    It is made by pg_dump, of the PostgreSQL that comes along or in PATH, while the ledger is in
    use. Settings, and keys that lie in files, are not in it: docs/backup.md says what else to keep.

    Exit status is 0 when the backup is complete.
    """
    from recordledger.projections.archives.backup import backup as back_up

    made = back_up(running_database(home, database_url), database_schema, folder)
    click.echo(
        f"{folder}: ledger {made.ledger_id}, {made.n_events:,} events up to position {made.head}, "
        f"{made.dump.size_bytes:,} bytes"
    )


@click.command()
@HOME
@DATABASE_URL
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--verify-only", is_flag=True, help="Only check the backup's files; restore nothing.")
@exits_on_ledger_errors
def restore(home: Path | None, database_url: str | None, folder: Path, verify_only: bool) -> None:
    """Restore the backup in FOLDER into a database without a ledger, and verify it.

    Without --database-url it goes into the embedded database of --home, which is made, and started
    for as long as this takes, if need be. Then the log is folded and compared with the tables, and
    audited.

    Exit status is 0 when the restored ledger is the one of the backup, and verifies.
    """
    from recordledger.projections.archives.backup import check_backup
    from recordledger.projections.archives.backup import restore as restore_into

    if verify_only:
        manifest = check_backup(folder)
        click.echo(
            f"The backup is complete: ledger {manifest.ledger_id}, {manifest.n_events:,} events up "
            "to "
            f"position {manifest.head}."
        )
        return
    with _database(home, database_url) as url:
        verified = restore_into(url, folder, progress=lambda what: click.echo(f"{what} ..."))
    click.echo(
        f"Restored and verified: ledger {verified.manifest.ledger_id}, "
        f"{verified.replay.n_events:,} events up to position {verified.replay.position}. The "
        "tables agree with the log, and all invariants that can be checked in the log hold."
    )


@contextmanager
def _database(home: Path | None, database_url: str | None) -> Generator[str]:
    """Give the database's URL; start the embedded one, and stop it again, if nobody runs it."""
    if database_url:
        yield database_url
        return
    from recordledger.api.client.connection import home_folder
    from recordledger.projections.store.embedded import EmbeddedPostgres, NotRunning

    postgres = EmbeddedPostgres(home or home_folder())
    try:
        url = postgres.attach()
    except NotRunning:
        with postgres as started:
            yield started.url
        return
    yield url


COMMANDS: Final = (backup, restore)
