"""The command that folds the whole log again: it checks, rebuilds, or goes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    open_ledger,
    running_database,
)
from .moments import moment
from .signals import exit_on_sigterm
from .terminal import exits_on_ledger_errors, print_table

if TYPE_CHECKING:
    from rich.progress import Task
    from rich.text import Text

    from recordledger.projections.ledger import Ledger
    from recordledger.projections.replay.replay import Progress, ReplayReport


def _check(ledger: Ledger, jobs: int | None, differences: int, *, past: bool) -> None:
    """Compare the tables with the log, print what differs, and exit with 1 if anything does."""
    from recordledger.projections.replay.replay import check_replay

    with _progress_bar() as (progress, rate):
        report = check_replay(
            ledger, differences_max=differences, progress=progress, jobs=jobs, past=past
        )
    click.echo(f"{report.n_events} events up to position {report.position}{rate(report.n_events)}")
    _print_differences(report)
    if not report.equal:
        click.echo("The tables differ from the log.")
        sys.exit(1)
    click.echo("The tables agree with the log, row by row.")


def _print_differences(report: ReplayReport) -> None:
    for difference in report.differences:
        click.echo(str(difference))
    for digest, record_id in report.missing_payloads:
        click.echo(f"payload {digest}, which record {record_id} names, is not there")


def _rebuild(ledger: Ledger, jobs: int | None, only: tuple[str, ...]) -> None:
    """Replace the live tables by new ones."""
    from recordledger.projections.replay.rebuild import rebuild as rebuild_tables

    with _progress_bar() as (progress, rate):
        done = rebuild_tables(ledger, only=only or None, progress=progress, jobs=jobs)
    click.echo(f"{done.n_events} events up to position {done.position}{rate(done.n_events)}")
    click.echo(f"Rebuilt: {', '.join(done.tables)}.")
    click.echo(f"Other transactions had to wait for {1000 * done.waited_s:.0f} ms.")


def _reconstruct(ledger: Ledger, jobs: int | None, as_of: int | datetime, into: str | None) -> None:
    """Keep the tables as they were in a schema, or print how many records there were."""
    from recordledger.projections.replay.reconstruction import keep, position_of, replay_to
    from recordledger.projections.store.database import cursor_of
    from recordledger.projections.tables.status_counts import by_status

    position = position_of(ledger, as_of)
    if into is not None:
        with _progress_bar() as (progress, _):
            keep(ledger, position, into, progress=progress, jobs=jobs)
        click.echo(f"The tables as they were at position {position} are in the schema {into}.")
        click.echo(f'Remove them with: DROP SCHEMA "{into}" CASCADE')
        return
    with (
        _progress_bar() as (progress, _),
        replay_to(ledger, position, progress=progress, jobs=jobs) as connection,
    ):
        counts = by_status(cursor_of(connection))
    rows = [(str(status), n) for status, n in sorted(counts.items(), key=lambda item: item[0])]
    print_table(("status", "records"), rows, title=f"At position {position}")


@contextmanager
def _progress_bar() -> Generator[tuple[Progress, Callable[[int], str]]]:
    """Give a bar with rate and remaining time, and what says in the end how fast it was."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        """Events a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} events/s" if task.speed else "")

    began = monotonic()

    def rate(n_events: int) -> str:
        seconds = max(monotonic() - began, 1e-3)
        return f", {n_events / seconds:,.0f} a second"

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    with Bar(*columns, TimeRemainingColumn(), transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task("folding the log", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total), rate


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--check", is_flag=True, help="Compare with the live tables; change nothing.")
@click.option(
    "--differences",
    default=20,
    show_default=True,
    help="Maximum number of differences to show for each table.",
)
@click.option("--past", is_flag=True, help="With --check: the tables of the past too.")
@click.option("--rebuild", is_flag=True, help="Replace the live tables by new ones.")
@click.option("--only", multiple=True, help="Rebuild only this table. Repeatable.")
@click.option(
    "--as-of",
    callback=moment,
    metavar="MOMENT",
    help="Fold up to then: a position of the log, a time like 2026-11-21T16:30 (UTC), or -2h.",
)
@click.option("--into", help="Create the tables as they were then in this new schema.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Number of processes that fold the log. [the number of processors, if the log is long]",
)
@exits_on_ledger_errors
def replay(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    check: bool,
    past: bool,
    differences: int,
    rebuild: bool,
    only: tuple[str, ...],
    as_of: int | datetime | None,
    into: str | None,
    jobs: int | None,
) -> None:
    """Fold the whole log again: to check the tables, to rebuild them, or to see them as they were.

    It may run while the ledger is in use. Without --database-url it looks at the embedded database
    of `recordledger up`, which must be running. docs/replay.md says more.

    \b
    Examples:
      recordledger replay --check
      recordledger replay --rebuild --only records --only claim_queue
      recordledger replay --as-of 4711
      recordledger replay --as-of 2026-11-21T16:30 --into friday

    Exit status is 0, and with --check 1 if the tables differ from the log.
    """
    if [check, rebuild, as_of is not None].count(True) != 1:
        raise click.UsageError("give one of --check, --rebuild and --as-of")
    if only and not rebuild:
        raise click.UsageError("--only can only be used with --rebuild")
    if past and not check:
        raise click.UsageError("--past can only be used with --check")
    if into is not None and as_of is None:
        raise click.UsageError("--into can only be used with --as-of")
    ledger = open_ledger(running_database(home, database_url), database_schema)
    exit_on_sigterm()
    try:
        if as_of is not None:
            _reconstruct(ledger, jobs, as_of, into)
        elif rebuild:
            _rebuild(ledger, jobs, only)
        else:
            _check(ledger, jobs, differences, past=past)
    finally:
        ledger.close()


COMMANDS: Final = (replay,)
