"""Named SQL statements, read from the `.sql` files beside the code that runs them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(noun: str) -> dict[str, LiteralString]:
    """Return the statements of `sql/<noun>.sql` by name.

    A statement starts at a line `-- name: <name>`; the comment after it says what it is for.
    """
    text = (files("recordledger.projections.sql") / f"{noun}.sql").read_text()
    parts = _NAME.split(text)
    return {
        name: shipped(body.strip().rstrip(";"))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def shipped(text: str) -> LiteralString:
    """Return SQL that ships with the package, as trusted as a literal in the code."""
    return text  # pyright: ignore[reportReturnType]
