"""One moment of a ledger, to be read for as long as it takes, a part at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final, LiteralString

from psycopg import Connection, IsolationLevel
from psycopg.rows import tuple_row

from ..ledger import Ledger
from ..store.database import as_ledger_errors, connect

_ROWS: Final = 2_000


@contextmanager
def snapshot(ledger: Ledger) -> Generator[Connection[Any]]:
    """Give a connection that sees the ledger as it is now, whatever happens meanwhile."""
    with as_ledger_errors(), closing(connect(ledger.url, ledger.schema)) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            yield connection


def rows_of(
    connection: Connection[Any],
    query: LiteralString,
    parameters: Mapping[str, Any] | None = None,
    *,
    at_once: int = _ROWS,
) -> Iterator[tuple[Any, ...]]:
    """Give the rows of a query, `at_once` in memory at a time. Several may be read in turns."""
    name = f"rows_{id(query):x}"
    with connection.cursor(name, row_factory=tuple_row) as cursor:
        cursor.itersize = at_once
        cursor.execute(query, parameters, binary=True)
        yield from cursor
