"""The command that runs the demo on a ledger of its own."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Final

import click

from .services import follow
from .signals import exit_on_sigterm
from .terminal import exits_on_ledger_errors


@click.command()
@click.option("--smoke", is_flag=True, help="Compute only a few points, to check the installation.")
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the plot and the table of results.",
)
@click.option("--workers", default=2, show_default=True, help="Number of processes that compute.")
@click.option(
    "--only",
    type=click.Choice(("curves", "band")),
    help="Demo to run: independent tasks, or a service with iterations.",
)
@exits_on_ledger_errors
def demo(smoke: bool, output: Path, workers: int, only: str | None) -> None:
    """Compute energy curves and a reaction's barrier through a ledger of their own, and draw them.

    The curves are tasks by the hundred. The barrier is found by a service, a nudged elastic band:
    it asks for gradients, looks at them, and asks again, until it has converged.

    A ledger is started in a temporary directory, and nothing of it stays but the output.

    Exit status is 0 when everything came out as it should.
    """
    from recordledger.api.client import Client

    from ..demo.band import run_band
    from ..demo.curves import run_demo
    from ..supervisor import Plan, Supervisor

    logging.getLogger().setLevel(logging.WARNING)
    exit_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="recordledger-demo-") as home:
        click.echo(f"Starting PostgreSQL, the API and a manager with {workers} processes ...")
        plan = Plan(home=Path(home), port=0, workers=workers)
        with Supervisor(plan) as supervisor:
            with Client(supervisor.url, supervisor.token) as client:
                status = 0 if only == "band" else run_demo(client, output, smoke=smoke)
                if only != "curves":
                    status |= run_band(client, output, follow, smoke=smoke)
            click.echo("Stopping ...")
    sys.exit(status)


COMMANDS: Final = (demo,)
