"""What `recordledger replay` does with the log: it checks, rebuilds, or goes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING

import click

from .terminal import print_table

if TYPE_CHECKING:
    from rich.progress import Task
    from rich.text import Text

    from recordledger.projections.ledger import Ledger
    from recordledger.projections.replay.replay import Progress, ReplayReport


def check(ledger: Ledger, jobs: int | None, differences: int, *, past: bool) -> None:
    """Compare the tables with the log, print what differs, and exit with 1 if anything does."""
    from recordledger.projections.replay.replay import check_replay

    with shown() as (progress, rate):
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


def rebuild(ledger: Ledger, jobs: int | None, only: tuple[str, ...]) -> None:
    """Put new tables into the places of the live ones."""
    from recordledger.projections.replay.rebuild import rebuild as rebuild_tables

    with shown() as (progress, rate):
        done = rebuild_tables(ledger, only=only or None, progress=progress, jobs=jobs)
    click.echo(f"{done.n_events} events up to position {done.position}{rate(done.n_events)}")
    click.echo(f"Rebuilt: {', '.join(done.tables)}.")
    click.echo(f"Others had to wait for {1000 * done.waited_s:.0f} ms.")


def go_back(ledger: Ledger, jobs: int | None, as_of: int | datetime, into: str | None) -> None:
    """Keep the tables as they were in a schema, or print how many records there were."""
    from recordledger.projections.replay.reconstruction import keep, position_of, replay_to
    from recordledger.projections.store.database import cursor_of
    from recordledger.projections.tables.status_counts import by_status

    position = position_of(ledger, as_of)
    if into is not None:
        with shown() as (progress, _):
            keep(ledger, position, into, progress=progress, jobs=jobs)
        click.echo(f"The tables as they were at position {position} are in the schema {into}.")
        click.echo(f'Remove them with: DROP SCHEMA "{into}" CASCADE')
        return
    with (
        shown() as (progress, _),
        replay_to(ledger, position, progress=progress, jobs=jobs) as connection,
    ):
        counts = by_status(cursor_of(connection))
    rows = [(str(status), n) for status, n in sorted(counts.items(), key=lambda item: item[0])]
    print_table(("status", "records"), rows, title=f"At position {position}")


@contextmanager
def shown() -> Generator[tuple[Progress, Callable[[int], str]]]:
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
