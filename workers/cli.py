"""The command line: `recordledger <verb>`."""

from __future__ import annotations

import logging

import click

from .commands import command_names, find_command


class _Commands(click.Group):
    """The commands of all modules. A module is imported when one of its commands is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; return None if there is none of this name."""
        return find_command(cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recordledger")
@click.option("-v", "--verbose", is_flag=True, help="Log more details.")
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
