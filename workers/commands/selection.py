"""Which records a command is about: by id, or by conditions that the server looks up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import click

from recordledger.domain.records.filters import CONDITIONS, RecordCondition, RecordFilter

from .moments import time_given

Command = TypeVar("Command", bound=Callable[..., Any])

RECORD_ID = click.IntRange(1, 2**63 - 1)

NAMES: Final = tuple(name for name in CONDITIONS if name != "ids")
"""The conditions that are options; ids are arguments."""
OF_RECORDS: Final = tuple(name for name in NAMES if CONDITIONS[name].attribute is not None)
"""Those that are not about cells of a dataset."""


def with_conditions(command: Command) -> Command:
    """Give a command the options that say which records."""
    return _with_options(command, NAMES)


def with_record_conditions(command: Command) -> Command:
    """Give a command the options that say which records, whatever dataset these are in."""
    return _with_options(command, OF_RECORDS)


def _with_options(command: Command, names: Sequence[str]) -> Command:
    for name in reversed(names):
        command = _option(name, CONDITIONS[name])(command)
    return command


def _option(name: str, condition: RecordCondition) -> Callable[[Command], Command]:
    kind: dict[str, Any] = {}
    text = condition.text + (" Repeatable." if condition.is_list else "")
    if condition.value is int:
        kind = {"type": RECORD_ID}
    elif condition.value is datetime:
        kind = {"callback": time_given, "metavar": "TIME"}
        text += " Like 2026-11-21T16:30 (UTC), or -2h."
    elif _is_enumeration(condition):
        kind = {"type": click.Choice([str(each) for each in condition.value])}
    flag = "--" + name.replace("_", "-")
    return click.option(flag, name, multiple=condition.is_list, help=text, **kind)


def _is_enumeration(condition: RecordCondition) -> bool:
    return isinstance(condition.value, type) and issubclass(condition.value, StrEnum)


def conditions_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take the conditions out of a command's options, as the client takes them."""
    found = {name: given.pop(name, None) for name in NAMES}
    return {
        name: list(value) if CONDITIONS[name].is_list else value
        for name, value in found.items()
        if value
    }


def filter_of(given: Mapping[str, Any]) -> RecordFilter | None:
    """Return the conditions on records among a command's options, as the ledger takes them.

    None if there is no condition.
    """
    found: dict[str, Any] = {}
    for name in OF_RECORDS:
        condition = CONDITIONS[name]
        if value := given[name]:
            found[name] = condition.kept(
                map(condition.value, value) if _is_enumeration(condition) else value
            )
    return RecordFilter(**found) if found else None


def selection_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take what says which records out of a command's options: ids, or conditions.

    Raises:
        click.UsageError: neither is there, or both.
    """
    ids = list(given.pop("ids"))
    everything = given.pop("everything")
    conditions = conditions_of(given)
    if ids and (conditions or everything):
        raise click.UsageError("give either ids or conditions, not both")
    if not (ids or conditions or everything):
        raise click.UsageError(
            "select records by ids, by conditions like --status error, or by --all"
        )
    if ids:
        return {"ids": ids}
    return conditions | ({"all": True} if everything else {})
