"""The command that starts everything on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
)
from .options import SettingsCommand, server_settings
from .signals import stop_on_signals
from .terminal import exits_on_ledger_errors


@click.command(cls=SettingsCommand, settings=server_settings)
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option(
    "--workers",
    default=2,
    show_default=True,
    help="Number of processes of the local manager; 0 starts no manager.",
)
@click.option(
    "--tag", "tags", multiple=True, help="Tag that the local manager claims. Repeatable. [*]"
)
@click.option(
    "--allow",
    multiple=True,
    help="Functions that the local manager may run, 'module:function' with wildcards. Repeatable.",
)
@exits_on_ledger_errors
def up(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    host: str,
    port: int,
    workers: int,
    tags: tuple[str, ...],
    allow: tuple[str, ...],
) -> None:
    """Start a database, the API, the server's jobs and a manager; Ctrl-C stops them all.

    The data are kept in the user's data directory, and are there at the next start. With
    --database-url, that database is used instead of an embedded one.

    \b
    Examples:
      recordledger up
      recordledger up --workers 4 --allow 'mypackage.chemistry:*'
    """
    from recordledger import __version__
    from recordledger.api.client.connection import home_folder

    from ..supervisor import Plan, Supervisor

    plan = Plan(
        home=home or home_folder(),
        database_url=database_url,
        database_schema=database_schema,
        host=host,
        port=port,
        workers=workers,
        tags=tags or ("*",),
        allow=allow,
    )
    stop = stop_on_signals()
    with Supervisor(plan) as supervisor:
        click.echo(f"Record Ledger {__version__} is up at {supervisor.url}")
        click.echo(f"  data and logs   {plan.home}")
        click.echo("  in Python       from recordledger import Client; client = Client()")
        click.echo("Ctrl-C stops it.")
        supervisor.wait(stop)
        click.echo("Stopping: the manager returns its finished results ...")


COMMANDS: Final = (up,)
