"""The command line: `recordledger <verb>`, and which module has which command."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Final

import click

# Which module of `commands` has which commands. It is imported when one of them is asked for.
MODULES: Final = {
    "archives": ("export", "import", "origins"),
    "audit": ("audit", "self-audit"),
    "backup": ("backup", "restore"),
    "datasets": ("dataset",),
    "demo": ("demo",),
    "history": ("attempts", "events", "history", "timeline"),
    "manager": ("manager",),
    "migrate": ("migrate",),
    "past": ("diff", "past"),
    "proof": ("receipt", "seal", "verify"),
    "records": (
        "comments",
        "errors",
        "job",
        "jobs",
        "list",
        "operations",
        "show",
        "status",
    ),
    "replay": ("replay",),
    "routing": ("managers", "queue", "why"),
    "serve": ("serve",),
    "services": ("add-service", "service", "tree"),
    "tokens": ("token",),
    "up": ("up",),
    "webhooks": ("webhook",),
    "work": ("work",),
}
# All others are here: one for each action on records.
ACTIONS: Final = "management"
_MODULE_OF: Final = {name: module for module, names in MODULES.items() for name in names}


class _Commands(click.Group):
    """The commands of all modules. A module is imported when one of its commands is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*_MODULE_OF, *_commands_of(ACTIONS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; return None if there is none of this name."""
        return _commands_of(_MODULE_OF.get(cmd_name, ACTIONS)).get(cmd_name)


def _commands_of(module: str) -> dict[str, click.Command]:
    found: tuple[click.Command, ...] = import_module(
        f"recordledger.workers.commands.{module}"
    ).COMMANDS
    return {str(command.name): command for command in found}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recordledger")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens.")
def main(verbose: bool) -> None:
    """Record Ledger: the system of record for large numbers of computations."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    for noisy in ("httpx2", "httpcore2", "psycopg.pool", "distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Each task that loses its worker is an error with a traceback to it; the engine says it better.
    logging.getLogger("parsl").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    main()
