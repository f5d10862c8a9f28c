"""Which records a command is about: by id, or by conditions that the server looks up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from recordledger.domain.records.status import Status

Command = TypeVar("Command", bound=Callable[..., Any])

RECORD_ID = click.IntRange(1, 2**63 - 1)

_CONDITIONS = (
    click.option(
        "--status",
        multiple=True,
        type=click.Choice([str(status) for status in Status]),
        help="Only records in this status. Repeatable.",
    ),
    click.option("--tag", multiple=True, help="Only records with this tag. Repeatable."),
    click.option("--owner", multiple=True, help="Only this user's, like user:ann. Repeatable."),
    click.option("--function", multiple=True, help="Only of this function. Repeatable."),
    click.option("--dataset", help="Only of this dataset, by name."),
    click.option("--specification", multiple=True, help="Of the dataset: only this. Repeatable."),
    click.option("--entry", multiple=True, help="Of the dataset: only this. Repeatable."),
)
NAMES = ("status", "tag", "owner", "function", "dataset", "specification", "entry")


def with_conditions(command: Command) -> Command:
    """Give a command the options that say which records."""
    for option in reversed(_CONDITIONS):
        command = option(command)
    return command


def conditions_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take the conditions out of a command's options, as the client takes them."""
    found = {name: given.pop(name, None) for name in NAMES}
    return {
        name: value if isinstance(value, str) else list(value)
        for name, value in found.items()
        if value
    }


def selection_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take what says which records out of a command's options: ids, or conditions.

    Raises:
        click.UsageError: neither is there, or both.
    """
    ids = list(given.pop("ids"))
    everything = given.pop("everything")
    conditions = conditions_of(given)
    if ids and (conditions or everything):
        raise click.UsageError("give ids or conditions, and not both")
    if not (ids or conditions or everything):
        raise click.UsageError("say which records: ids, conditions like --status error, or --all")
    if ids:
        return {"ids": ids}
    return conditions | ({"all": True} if everything else {})
