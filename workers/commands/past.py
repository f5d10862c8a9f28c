"""Moments as people write them (a position, a time, how long ago), and what changed between two."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
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
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

_POSITION: Final = re.compile(r"@?(\d{1,18})", re.ASCII)
_AGO: Final = re.compile(
    r"(-)?(\d{1,9}) *(s|min|h|d|w|seconds?|minutes?|hours?|days?|weeks?)( +ago)?", re.ASCII
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PLACES: Final = click.Choice([*map(str, Status), "none"])


def moment(_ctx: click.Context, param: click.Parameter, given: str | None) -> int | datetime | None:
    """Return what was written as a position, or as a time with a zone."""
    if given is None:
        return None
    try:
        return moment_of(given, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{given!r} is no moment: write a position like 4711, a time like 2026-11-21T16:30 "
            "(UTC), or how long ago, like '2 hours ago'",
            param=param,
        ) from None


def moment_of(text: str, now: datetime) -> int | datetime:
    """Return the position or the time that somebody has written.

    >>> moment_of("2 hours ago", datetime(2026, 11, 21, 16, 30, tzinfo=UTC)).isoformat()
    '2026-11-21T14:30:00+00:00'

    Raises:
        ValueError: it is neither.
        OverflowError: it is before all times.
    """
    if found := _POSITION.fullmatch(text):
        return int(found[1])
    if (found := _AGO.fullmatch(text)) and (found[1] or found[4]):
        return now - timedelta(seconds=int(found[2]) * _SECONDS[found[3][0]])
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


AS_OF: Final = click.option(
    "--as-of",
    callback=moment,
    metavar="MOMENT",
    help="As it was then: a position of the log, a time like 2026-11-21T16:30 (UTC), or -2h.",
)


@click.command()
@click.argument("a", callback=moment)
@click.argument("b", callback=moment)
@click.option("--from-status", multiple=True, type=_PLACES, help="Only from this. Repeatable.")
@click.option("--to-status", multiple=True, type=_PLACES, help="Only to this. Repeatable.")
@click.option("--tag", multiple=True, help="Only records that had this tag. Repeatable.")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Most to print."
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
    click.echo(f"The past is in tables up to position {reached.position}{until}.")


COMMANDS: Final = (
    past,
    diff,
)
