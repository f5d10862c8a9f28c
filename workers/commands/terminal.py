"""What commands have in common: how they print, and how they say what is wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from recordledger.domain.errors import LedgerError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
T = TypeVar("T")

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_CELL_CHARACTERS_MAX = 200


def exits_on_ledger_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Print the ledger's own errors as one sentence, and exit with 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from recordledger.api.client import ClientError

        try:
            return command(*args, **kwargs)
        except (LedgerError, ClientError) as error:
            raise click.ClickException(str(error)) from error

    return run


def console(width: int = 120) -> Console:
    """Return what tables are printed on; `width` columns where there is no terminal."""
    from rich.console import Console

    # Piped output is read by programs: it must not depend on how wide a terminal might be.
    return Console(
        width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", str(width))),
        highlight=False,
    )


def json_object(text: str, what: str) -> Any:
    """Return the JSON object that an option has, or the file that it names after an @."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise click.UsageError(f"{what}: {error}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f'{what} must be an object, like \'{{"basis": "sto-3g"}}\'')
    return value  # pyright: ignore[reportUnknownVariableType]


def print_json(value: Any) -> None:
    """Print what the client has returned as JSON."""
    from pydantic_core import to_json

    click.echo(to_json(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print a table. Whatever users wrote into the cells, no terminal takes it for a command."""
    from rich.table import Table
    from rich.text import Text

    from recordledger.api.client.tables import shown

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(shown(cell, _CELL_CHARACTERS_MAX)) for cell in row))
    console().print(table)
