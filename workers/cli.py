"""The command line: `recordledger <verb>`."""

from __future__ import annotations

import logging
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from .commands.signals import exit_on_sigterm
from .commands.terminal import says_what_is_wrong

# Which module of `commands` has which commands. It is imported when one of them is asked for.
MODULES: Final = {
    "archives": ("export", "import", "origins"),
    "audit": ("audit", "self-audit"),
    "backup": ("backup", "restore"),
    "datasets": ("dataset",),
    "history": ("attempts", "events", "history", "timeline"),
    "management": (
        "adopt",
        "cancel",
        "cancel-job",
        "comment",
        "delete",
        "fail",
        "hold",
        "invalidate",
        "modify",
        "release",
        "reset",
        "resubmit",
        "revive",
        "uncancel",
        "undelete",
        "undo",
        "uninvalidate",
    ),
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
_MODULE_OF: Final = {name: module for module, names in MODULES.items() for name in names}


class _Commands(click.Group):
    """The commands of the table, each imported when it is asked for, and those that are added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *_MODULE_OF])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; return None if there is none of this name."""
        if (module := _MODULE_OF.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        found = import_module(f".commands.{module}", __package__)
        commands: tuple[click.Command, ...] = found.COMMANDS
        return next(command for command in commands if command.name == cmd_name)


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


@main.command()
@click.option("--smoke", is_flag=True, help="Few points: is everything there?")
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the plot and the table of results go.",
)
@click.option("--workers", default=2, show_default=True, help="Processes that compute.")
@click.option(
    "--only",
    type=click.Choice(("curves", "band")),
    help="One of the two: tasks that are independent, or a service with its iterations.",
)
@says_what_is_wrong
def demo(smoke: bool, output: Path, workers: int, only: str | None) -> None:
    """Compute energy curves and a reaction's barrier through a ledger of their own, and draw them.

    The curves are tasks by the hundred. The barrier is found by a service, a nudged elastic band:
    it asks for gradients, looks at them, and asks again, until it has converged.

    A ledger is started in a temporary directory, and nothing of it stays but the output.

    Exit status is 0 when everything came out as it should.
    """
    from recordledger.api.client import Client

    from .demo.band import run_band
    from .demo.curves import run_demo
    from .supervisor import Plan, Supervisor

    logging.getLogger().setLevel(logging.WARNING)
    exit_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="recordledger-demo-") as home:
        click.echo(f"Starting PostgreSQL, the API and a manager with {workers} processes ...")
        plan = Plan(home=Path(home), port=0, workers=workers)
        with Supervisor(plan) as supervisor:
            with Client(supervisor.url, supervisor.token) as client:
                status = 0 if only == "band" else run_demo(client, output, smoke=smoke)
                if only != "curves":
                    status |= run_band(client, output, smoke=smoke)
            click.echo("Stopping ...")
    sys.exit(status)


if __name__ == "__main__":
    main()
