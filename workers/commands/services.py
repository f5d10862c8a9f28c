"""Commands about services: add one, look at it at any iteration, and see the tree below it."""

from __future__ import annotations

import json

import click

from .selecting import RECORD_ID
from .terminal import JSON, print_json, says_what_is_wrong


@click.command("service")
@click.argument("record_id", type=RECORD_ID)
@click.option("--iteration", type=click.IntRange(1), help="Where it stood after this one.")
@JSON
@says_what_is_wrong
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
    help="Children of one service.",
)
@JSON
@says_what_is_wrong
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


COMMANDS: tuple[click.Command, ...] = (service, tree)
