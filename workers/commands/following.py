"""Commands that print what has happened: to one record, or to everything as it happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from .selecting import RECORD_ID
from .terminal import JSON, print_json, says_what_is_wrong

if TYPE_CHECKING:
    from recordledger.api.client import LogEvent

_KIND = click.option("--kind", multiple=True, help="Only these, like errored. Repeatable.")
_ACTOR = click.option("--actor", multiple=True, help="Only by these, like user:ann. Repeatable.")


def _moment(_ctx: click.Context, param: click.Parameter, given: str | None) -> datetime | None:
    """Return a date or a time as ISO 8601 has it, in UTC if it does not say."""
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is no time like 2026-11-21T16:30", param=param
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


@click.command()
@click.argument("record_id", type=RECORD_ID)
@_KIND
@_ACTOR
@click.option("--since", callback=_moment, help="Only from then on, like 2026-11-21T16:30. UTC.")
@click.option("--until", callback=_moment, help="Only before then. UTC.")
@JSON
@says_what_is_wrong
def history(
    record_id: int,
    kind: tuple[str, ...],
    actor: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Print what has happened to the record RECORD_ID, oldest first."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.history(record_id, kind=kind, actor=actor, after=since, before=until)
    if as_json:
        print_json(found.events)
        return
    click.echo(repr(found))


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option(
    "--after",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Only events after this position of the log.",
)
@click.option("--new", is_flag=True, help="Only what happens from now on; with --follow.")
@_KIND
@click.option("--record", multiple=True, type=RECORD_ID, help="Only of these. Repeatable.")
@click.option("--tag", multiple=True, help="Only of records with these tags now. Repeatable.")
@click.option("--dataset", help="Only of this dataset and the records that it has now, by name.")
@_ACTOR
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@says_what_is_wrong
def events(follow: bool, after: int, new: bool, as_json: bool, **conditions: Any) -> None:
    r"""Print what has happened to records, managers, datasets and jobs, in order.

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


COMMANDS: Final = (history, events)
