"""Named SQL statements, read from the `.sql` files beside the code that runs them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(name: str) -> dict[str, LiteralString]:
    """Return the statements of a file of SQL, by their names.

    A statement starts at a line `-- name: <name>`; the comment after it says what it is for.

    Args:
        name: the file, as a module of `projections` is named: `tables.records` is the file
            `projections/tables/records.sql`.
    """
    parts = _NAME.split(sql_file(name))
    return {
        name: shipped(body.strip().rstrip(";"))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def sql_file(name: str) -> LiteralString:
    """Return a file of SQL that ships with the package, by its name (see `statements`)."""
    room, _, noun = name.rpartition(".")
    return shipped((files("recordledger.projections") / room / f"{noun}.sql").read_text())


def shipped(text: str) -> LiteralString:
    """Return SQL that ships with the package, as trusted as a literal in the code."""
    return text  # pyright: ignore[reportReturnType]
