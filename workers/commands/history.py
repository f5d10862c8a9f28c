"""Commands that print what has happened: to one thing, or to everything as it happens."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from .moments import time_given
from .selection import RECORD_ID
from .terminal import JSON, console, exits_on_ledger_errors, print_json, print_table

if TYPE_CHECKING:
    from recordledger.api.client import LogEvent
    from recordledger.api.client.results.events import EventSequence

_KIND = click.option(
    "--kind", multiple=True, help="Only events of this kind, like errored. Repeatable."
)
_ACTOR = click.option(
    "--actor", multiple=True, help="Only events of this actor, like user:ann. Repeatable."
)


@click.command()
@click.argument("record_id", type=RECORD_ID, required=False)
@click.option("--operation", help="Of this operation on records, by id.")
@click.option("--manager", type=RECORD_ID, help="Of this manager, by id.")
@click.option("--dataset", help="Of this dataset, by name.")
@click.option("--records", is_flag=True, help="With --dataset: of its records too.")
@click.option("--user", help="Operations of this user, by name; newest first.")
@click.option("--oldest-first", is_flag=True, help="With --user: oldest first.")
@_KIND
@_ACTOR
@click.option("--since", callback=time_given, help="Only from then on, like 2026-11-21T16:30. UTC.")
@click.option("--until", callback=time_given, help="Only before then. UTC.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Maximum number of events to print of an operation, a dataset or a user.",
)
@click.option("--words", is_flag=True, help="Print sentences instead of a table.")
@JSON
@exits_on_ledger_errors
def history(
    record_id: int | None,
    operation: str | None,
    manager: int | None,
    dataset: str | None,
    user: str | None,
    since: datetime | None,
    until: datetime | None,
    words: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the history of the record RECORD_ID, oldest first; or of something else.

    \b
    Examples:
      recordledger history 411 --kind errored
      recordledger history --user ann --since 2026-11-21 --words
      recordledger history --dataset "water clusters" --records
    """
    from recordledger.api.client import Client, LogEvents

    subjects = {
        "RECORD_ID": record_id,
        "--operation": operation,
        "--manager": manager,
        "--dataset": dataset,
        "--user": user,
    }
    if sum(each is not None for each in subjects.values()) != 1:
        raise click.UsageError(f"select one history: one of {', '.join(subjects)}")
    if given["records"] and dataset is None:
        raise click.UsageError("--records can only be used with --dataset")
    if user is not None and given["actor"]:
        raise click.UsageError("--actor cannot be used with --user, which is the actor")
    # Exactly one subject is given, and only options that it takes.
    common = {"kind": given["kind"], "after": since, "before": until}
    by = {"actor": given["actor"]}
    limit = {"limit": given["limit"]}
    with Client() as client:
        found: EventSequence | LogEvents
        if record_id is not None:
            found = client.history(record_id, **common, **by)
        elif operation is not None:
            found = client.operation_history(operation, **common, **by, **limit)
        elif manager is not None:
            found = client.manager_history(manager, **common, **by)
        elif dataset is not None:
            of_dataset = client.dataset(dataset)
            found = of_dataset.history(**common, **by, **limit, records=given["records"])
        else:
            newest_first = not given["oldest_first"]
            found = client.user_history(user or "", **common, **limit, newest_first=newest_first)
    if as_json:
        print_json(list(found))
    elif words:
        click.echo(found.in_words)
    elif isinstance(found, LogEvents):
        columns = ("when (UTC)", "what", "kind", "", "by", "reason")
        rows = [
            (
                each.timestamp,
                f"{each.stream} {each.id}",
                each.kind.replace("_", " "),
                each.summary,
                each.actor,
                each.reason,
            )
            for each in found
        ]
        print_table(columns, rows)
    else:
        click.echo(repr(found))


@click.command()
@click.argument("record_ids", type=RECORD_ID, nargs=-1, required=True)
@JSON
@exits_on_ledger_errors
def timeline(record_ids: tuple[int, ...], as_json: bool) -> None:
    """Draw the life of records: a bar each, in which a letter and a colour stand for a status.

    Below it is said how long they waited and ran, and in which attempts. A short time is drawn
    longer than it was, so that it is seen. NO_COLOR switches the colours off.

    \b
    Examples:
      recordledger timeline 411
      recordledger timeline 411 412 413
    """
    from recordledger.api.client import Client, Timelines

    with Client() as client:
        found = [client.timeline(record_id) for record_id in dict.fromkeys(record_ids)]
    if as_json:
        print_json(found if len(record_ids) > 1 else found[0])
    else:
        console(80).print(Timelines(found))


@click.command()
@click.option("--follow", is_flag=True, help="Continue with new events, until Ctrl-C.")
@click.option(
    "--after",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Only events after this position of the log.",
)
@click.option("--new", is_flag=True, help="Only new events; with --follow.")
@_KIND
@click.option("--record", multiple=True, type=RECORD_ID, help="Only of this record. Repeatable.")
@click.option("--tag", multiple=True, help="Only of records with these tags now. Repeatable.")
@click.option("--dataset", help="Only of this dataset and the records that it has now, by name.")
@_ACTOR
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@exits_on_ledger_errors
def events(follow: bool, after: int, new: bool, as_json: bool, **conditions: Any) -> None:
    """Print the events of records, managers, datasets and jobs, in order.

    A line begins with the event's position in the log, from which one can go on by --after.

    \b
    Examples:
      recordledger events --follow --new
      recordledger events --kind errored --tag gpu --json
    """
    from recordledger.api.client import Client

    with Client() as client:
        try:
            for event in client.events(after=None if new else after, follow=follow, **conditions):
                click.echo(event.model_dump_json() if as_json else _line(event))
        except KeyboardInterrupt:
            # That is how following ends.
            return


def _line(event: LogEvent) -> str:
    from recordledger.api.client.tables import printable

    when = event.timestamp.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    reason = f"({event.reason})" if event.reason else ""
    what = f"{event.stream} {event.id}"
    words = (event.position, when, what, event.kind, event.summary, event.actor, reason)
    return printable("  ".join(str(each) for each in words if each != ""))


@click.command()
@click.argument("record_id", type=click.IntRange(1, 2**63 - 1))
@click.option("--output", is_flag=True, help="Print the output and the traceback of each attempt.")
@exits_on_ledger_errors
def attempts(record_id: int, output: bool) -> None:
    """Print every attempt of the record RECORD_ID, and the outcome of each."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.attempts(
            record_id, include=("stdout", "stderr", "traceback") if output else ()
        )
    click.echo(repr(found))
    for attempt in found:
        for name in ("stdout", "stderr", "traceback"):
            if text := getattr(attempt, name):
                click.echo(f"\n--- attempt {attempt.number}: {name}\n{text.rstrip()}")


COMMANDS: Final = (attempts, history, timeline, events)
