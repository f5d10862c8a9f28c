"""How results show themselves: as text in a terminal, as escaped HTML in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

CELL_CHARACTERS_MAX: Final = 60
LONG: Final = 2_000
ROWS_MAX: Final = 20

Row = Sequence[str]


def shown(value: Any, characters_max: int = CELL_CHARACTERS_MAX) -> str:
    r"""Return a value as one short line that no terminal takes for a command.

    >>> shown("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    match value:
        case None:
            return ""
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            text = ", ".join(str(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case Mapping():
            text = ", ".join(f"{key} {item or ''}".strip() for key, item in value.items())  # pyright: ignore[reportUnknownVariableType]
        case _:
            text = str(value)
    return printable(text if len(text) <= characters_max else text[: characters_max - 1] + "…")


def few(values: Sequence[Any], n_max: int = 5) -> str:
    """Return a list as Python writes it; of a long one its beginning and its length.

    >>> few([1, 2]), few(range(1000))
    ('[1, 2]', '[0, 1, 2, 3, 4, ... 1,000 in all]')
    """
    texts = [repr(value) for value in values[:n_max]]
    if len(values) > n_max:
        texts.append(f"... {len(values):,} in all")
    return f"[{', '.join(texts)}]"


def printable(text: str) -> str:
    """Return the text with control characters spelt out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def text_table(columns: Row, rows: Sequence[Row], *, title: str = "") -> str:
    """Return aligned columns; of many rows the first ones and the last one."""
    kept = [[printable(cell) for cell in row] for row in (columns, *shortened(rows))]
    widths = [max(map(len, cells)) for cells in zip(*kept, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in kept
    ]
    return "\n".join([printable(title), *lines] if title else lines)


def html_table(columns: Row, rows: Sequence[Row], *, title: str = "") -> str:
    """Return the same as an HTML table. Everything in it is escaped."""
    head = "".join(f"<th>{_html(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>"
        for row in shortened(rows)
    )
    caption = f"<caption>{_html(title)}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_fields(fields: Mapping[str, str], *, title: str) -> str:
    """Return one thing's fields as a table of two columns, without those that are empty."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{_html(name)}</th>"
        f"<td style='text-align:left'>{_html(text)}</td></tr>"
        for name, text in fields.items()
        if text
    )
    return f"<table><caption>{_html(title)}</caption><tbody>{rows}</tbody></table>"


def shortened(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with a line of dots for the middle of too many."""
    if len(rows) <= ROWS_MAX:
        return list(rows)
    dots = ["…" for _ in rows[0]]
    return [*rows[: ROWS_MAX - 2], dots, rows[-1]]


def _html(text: str) -> str:
    from html import escape

    return escape(printable(text))
