"""What changed between two moments, and the tables of the past."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from recordledger.domain.records.status import Status

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    open_ledger,
    running_database,
)
from .moments import moment
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

_PLACES: Final = click.Choice([*map(str, Status), "none"])


@click.command()
@click.argument("a", callback=moment)
@click.argument("b", callback=moment)
@click.option(
    "--from-status", multiple=True, type=_PLACES, help="Only changes from this status. Repeatable."
)
@click.option(
    "--to-status", multiple=True, type=_PLACES, help="Only changes to this status. Repeatable."
)
@click.option("--tag", multiple=True, help="Only records that had this tag. Repeatable.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number to print.",
)
@JSON
@exits_on_ledger_errors
def diff(a: int | datetime, b: int | datetime, limit: int, as_json: bool, **which: Any) -> None:
    """Print which records changed after the moment A and up to B, how, and by whom.

    A moment is a position of the log, a time like 2026-11-21T16:30 (UTC), or how long ago. A
    status is `none` where the record was not there: before it was created, or after it was erased.

    \b
    Examples:
      recordledger diff 2026-11-20 2026-11-21
      recordledger diff '2 hours ago' '1 min ago' --to-status error
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.diff(a, b, **which, limit=limit)
    if as_json:
        counts = [
            {"from_status": before, "to_status": after, "n_records": n}
            for (before, after), n in found.counts.items()
        ]
        whole = {"a": found.a, "b": found.b, "counts": counts, "changes": list(found)}
        print_json(whole | {"is_complete": found.is_complete})
        return
    ways = [(before or "none", after or "none", n) for (before, after), n in found.counts.items()]
    title = f"{found.total:,} records from position {found.a.position} to {found.b.position}"
    print_table(("from", "to", "records"), ways, title)
    rows = [
        (
            each.record_id,
            each.from_status or "none",
            each.to_status or "none",
            each.to_tag or each.from_tag,
            each.n_events,
            each.actors,
            each.kind,
            each.reason,
            each.happened_at,
        )
        for each in found
    ]
    columns = ("id", "from", "to", "tag", "events", "by", "last", "reason", "when (UTC)")
    print_table(columns, rows, "" if found.is_complete else f"The first {len(found):,}")


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--rebuild", is_flag=True, help="Empty the tables of the past first.")
@exits_on_ledger_errors
def past(home: Path | None, database_url: str | None, database_schema: str, rebuild: bool) -> None:
    """Bring the tables of the past to the end of the log, and print how far they go.

    `recordledger work` does that all the time. Questions about earlier moments are answered from
    these tables; docs/time-travel.md says how. Without --database-url it works on the embedded
    database of `recordledger up`, which must be running.
    """
    from rich.progress import Progress

    from recordledger.projections.reading.queries import head
    from recordledger.projections.reading.timeline import advance, forget, how_far

    ledger = open_ledger(running_database(home, database_url), database_schema)
    try:
        if rebuild:
            forget(ledger)
        with Progress(transient=True) as bar:
            task = bar.add_task("following the log", total=head(ledger))
            while advance(ledger):
                bar.update(task, completed=how_far(ledger).position)
        reached = how_far(ledger)
    finally:
        ledger.close()
    until = "" if reached.latest_at is None else f", {reached.latest_at:%F %T} UTC"
    click.echo(f"The tables of the past reach position {reached.position}{until}.")


COMMANDS: Final = (
    past,
    diff,
)
