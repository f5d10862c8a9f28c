"""The command that serves the HTTP API."""

from __future__ import annotations

from typing import Any, Final

import click

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
)
from .terminal import says_what_is_wrong


@click.command()
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--host", default=None, help="Where the API listens. [127.0.0.1]")
@click.option("--port", default=None, type=int, help="Its port. [7420]")
@says_what_is_wrong
def serve(
    database_url: str | None, database_schema: str, host: str | None, port: int | None
) -> None:
    """Serve the HTTP API. All settings can come from the environment, RECORDLEDGER_*."""
    from recordledger.api.http.settings import Settings
    from recordledger.api.server import serve as serve_api

    from ..supervisor import end_with_supervisor

    given: dict[str, Any] = {
        "database_url": database_url,
        "database_schema": database_schema,
        "host": host,
        "port": port,
    }
    end_with_supervisor()
    serve_api(Settings(**{name: value for name, value in given.items() if value is not None}))


COMMANDS: Final = (serve,)
