"""The command that serves the HTTP API."""

from __future__ import annotations

from typing import Any, Final

import click

from .options import SettingsCommand, server_settings, settings_of
from .terminal import exits_on_ledger_errors


@click.command(cls=SettingsCommand, settings=server_settings)
@exits_on_ledger_errors
def serve(**given: Any) -> None:
    """Serve the HTTP API. docs/reference/settings.md has all settings of its environment."""
    from recordledger.api.server import serve as serve_api
    from recordledger.api.settings import Settings

    from ..supervisor import end_with_supervisor

    settings = settings_of(Settings, given)
    end_with_supervisor()
    serve_api(settings)


COMMANDS: Final = (serve,)
