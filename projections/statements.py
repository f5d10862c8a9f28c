"""Named SQL statements, read from the `.sql` files beside the code that runs them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(noun: str) -> dict[str, LiteralString]:
    """Return the statements of `sql/<noun>.sql` by name.

    A statement starts at a line `-- name: <name>`; the comment after it says what it is for.
    """
    text = (files("recordledger.projections.sql") / f"{noun}.sql").read_text()
    parts = _NAME.split(text)
    # The files ship with the package, so their text is as trusted as a literal in the code.
    return {
        name: cast("LiteralString", body.strip().rstrip(";"))
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
