"""Commands about services: add one, look at it at any iteration, and see the tree below it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from recordledger.domain.records.status import Status

from .selection import RECORD_ID
from .terminal import JSON, exits_on_ledger_errors, json_object, print_json

if TYPE_CHECKING:
    from recordledger.api.client import Client, Record

FOLLOW_S: Final = 0.5


def follow(client: Client, record_id: int, write: Callable[[str], object]) -> Record:
    """Write what a service says while it runs; return its record when it runs no more."""
    from recordledger.api.client.tables import printable

    n_written = 0
    while True:
        view = client.service(record_id)
        if len(view.output) > n_written:
            # What it says may come from a result: no terminal takes it for a command.
            write("\n".join(map(printable, view.output[n_written:].split("\n"))))
            n_written = len(view.output)
        if view.status not in (Status.waiting, Status.running, Status.held):
            return client.get_records(record_id)
        time.sleep(FOLLOW_S)


@click.command("add-service")
@click.argument("name")
@click.option("--spec", default="{}", help="Its specification: a JSON object, or @FILE.")
@click.option("--tag", default="default", show_default=True, help="Also applies to its children.")
@click.option(
    "--priority",
    type=click.Choice(("low", "normal", "high")),
    default="normal",
    show_default=True,
    help="Also applies to its children.",
)
@click.option(
    "--new", is_flag=True, help="Do not reuse an existing record of the same specification."
)
@click.option("--reason", help="Reason; kept with the event.")
@click.option("--follow", "follows", is_flag=True, help="Print its output until it has ended.")
@JSON
@exits_on_ledger_errors
def add_service(
    name: str,
    spec: str,
    tag: str,
    priority: Any,
    new: bool,
    reason: str | None,
    follows: bool,
    as_json: bool,
) -> None:
    """Add the service NAME, which `recordledger work` advances.

    Exit status is 1 if it is refused, or, with --follow, if it did not end well.

    \b
    Examples:
      recordledger add-service scan --spec @scan.json --follow
      recordledger add-service optimization --tag gpu --spec @molecule.json
    """
    from recordledger.api.client import Client

    with Client() as client:
        added = client.add_service(
            name,
            json_object(spec, "--spec"),
            tag=tag,
            priority=priority,
            find_existing=not new,
            reason=reason,
        )
        for error in added.errors:
            raise click.ClickException(f"{error.code}: {error.message}")
        record_id = added.ids[0] or 0
        if as_json:
            print_json(added)
        else:
            was_there = " already existed" if added.existing_idx else ""
            click.echo(f"service {record_id}{was_there}")
        if not follows:
            return
        record = follow(client, record_id, lambda text: click.echo(text, nl=False, err=as_json))
    if not as_json:
        click.echo(f"service {record.id} is {record.status}")
    if record.error_type is not None:
        click.echo(f"{record.error_type}: {record.error_message}", err=True)
    sys.exit(0 if record.status == Status.complete else 1)


@click.command("service")
@click.argument("record_id", type=RECORD_ID)
@click.option("--iteration", type=click.IntRange(1), help="Show the state after this iteration.")
@JSON
@exits_on_ledger_errors
def service(record_id: int, iteration: int | None, as_json: bool) -> None:
    """Print where the service RECORD_ID stands: what it waits for, its state, what it has said.

    Exit status is 1 when there is no such service.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.service(record_id, iteration=iteration)
    if as_json:
        print_json(found)
        return
    click.echo(repr(found))
    if found.state is not None:
        click.echo(f"State: {json.dumps(found.state)}")


@click.command()
@click.argument("record_id", type=RECORD_ID)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Records."
)
@click.option(
    "--children-limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Maximum number of children shown for each service.",
)
@JSON
@exits_on_ledger_errors
def tree(record_id: int, limit: int, children_limit: int, as_json: bool) -> None:
    """Print the record RECORD_ID and what is below it, with statuses.

    Exit status is 1 when there is no such record.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.tree(record_id, limit=limit, children_limit=children_limit)
    if as_json:
        print_json(found)
    else:
        click.echo(repr(found))


COMMANDS: tuple[click.Command, ...] = (add_service, service, tree)
