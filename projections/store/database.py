"""Connections to PostgreSQL: one pool a process, and database faults as the ledger's own errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, LiteralString, cast

import psycopg
import psycopg.errors
from eventsourcing.postgres import PostgresDatastore
from psycopg import Connection, Cursor
from psycopg.abc import Params
from psycopg.adapt import PyFormat
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, dict_row, tuple_row
from psycopg.sql import SQL, Composed, Identifier, Placeholder
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from recordledger.domain.errors import LedgerError, StorageFull, StoreUnavailable

from .statements import shipped

DEFAULT_SCHEMA: Final = "recordledger"

# What statements run on: rows come back as tuples, values travel in binary.
Db = Cursor[TupleRow]

_FULL = (psycopg.errors.DiskFull,)
# A kind of OperationalError that no later attempt would be spared: something is too long or too
# deep. The limits of the domain should have refused it, so it is a bug, and must be seen as such.
_BUGS = (psycopg.errors.ProgramLimitExceeded,)
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
)


def connection_options(url: str, schema: str) -> str:
    """Return the libpq options of every connection of the ledger, after those that the URL has.

    The just-in-time compiler is off: the ledger's statements are short and it only delays them.
    Pages are priced as on disks without moving parts: with the default price PostgreSQL would
    rather walk through all records backwards than use an index for a page of them.
    """
    given: dict[str, Any] = conninfo_to_dict(url)
    # Quoted as SQL has it, or capitals would be folded; then as libpq splits options.
    quoted = '"' + schema.replace('"', '""') + '"'
    escaped = re.sub(r"([\\\s])", r"\\\1", quoted)
    ours = f"-c search_path={escaped} -c jit=off -c random_page_cost=1.1 -c timezone=UTC"
    return f"{given.get('options', '')} {ours}".strip()


def connect(url: str, schema: str = DEFAULT_SCHEMA) -> Connection[TupleRow]:
    """Return one connection outside of any pool, in autocommit mode."""
    with as_ledger_errors():
        return psycopg.connect(
            url, autocommit=True, options=connection_options(url, schema), connect_timeout=10
        )


def cursor_of(connection: Connection[Any]) -> Db:
    """Return a cursor of the kind that all statements run on."""
    return connection.cursor(row_factory=tuple_row, binary=True)


def one(
    db: Db | Connection[Any],
    statement: LiteralString | SQL | Composed,
    parameters: Params | None = None,
    *,
    prepare: bool | None = None,
) -> TupleRow:
    """Return the row of a statement that always returns one, such as an aggregate.

    Raises:
        LedgerError: it returned none, which is a bug.
    """
    row: TupleRow | None = db.execute(statement, parameters, prepare=prepare).fetchone()
    if row is None:  # pragma: no cover
        raise LedgerError(f"no row was returned by {statement!r}; this is a bug")
    return row


def insert_rows(
    db: Db, table: str, columns: Mapping[str, str], rows: Collection[Sequence[Any]]
) -> None:
    """Add rows to a table that has none of them, with one array a column: for a few at a time.

    Args:
        db: in a transaction.
        table: its name, looked up in the search path.
        columns: those that are given, in the order of the rows, with their types.
        rows: what is added.
    """
    if rows:
        arrays = map(list[Any], zip(*rows, strict=True))
        parameters = dict(zip(columns, arrays, strict=True))
        db.execute(_insert(table, tuple(columns.items())), parameters, prepare=True)


@cache
def _insert(table: str, columns: tuple[tuple[str, str], ...]) -> Composed:
    names = SQL(", ").join(Identifier(name) for name, _ in columns)
    arrays = SQL(", ").join(
        SQL("{}::{}[]").format(Placeholder(name, PyFormat.BINARY), SQL(shipped(kind)))
        for name, kind in columns
    )
    return SQL("INSERT INTO {} ({}) SELECT * FROM unnest({}) AS new").format(
        Identifier(table), names, arrays
    )


def copy_rows(
    db: Db, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]
) -> None:
    """Add rows to a table that has none of them: the fastest way in, and no second chance.

    Args:
        db: in a transaction.
        table: its name, looked up in the search path.
        columns: those that are given, in the order of the rows, with their types.
        rows: what is added.
    """
    statement = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        Identifier(table), SQL(", ").join(map(Identifier, columns))
    )
    with db.copy(statement) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


class LedgerDatastore(PostgresDatastore):
    """The library's datastore, over a pool that refills itself when the database was away."""

    def __init__(self, url: str, schema: str, *, pool_size: int, timeout_s: float) -> None:
        """Prepare a pool; it connects in the background, and when it is used.

        Args:
            url: where the database is.
            schema: where the ledger's tables are.
            pool_size: maximum number of connections.
            timeout_s: seconds that a request waits for a connection before StoreUnavailable is
                raised.
        """
        super().__init__("", "", "", "", "", schema=schema)
        # The library's pool takes a host, a port and so on; a URL can say more (TLS, sockets).
        self.pool = cast(
            "Any",
            ConnectionPool(
                url,
                kwargs={
                    "autocommit": True,
                    "row_factory": dict_row,
                    "options": connection_options(url, schema),
                    "connect_timeout": 5,
                },
                min_size=1,
                max_size=pool_size,
                timeout=timeout_s,
                reconnect_timeout=2.0,
                open=False,
                name="ledger",
            ),
        )

    def register_type_adapters(self) -> None:
        """Do nothing: the ledger sends columns, not the library's composite type."""

    @contextmanager
    def reading(self) -> Generator[Db]:
        """Give a cursor; every statement is a transaction of its own."""
        with as_ledger_errors():
            self.pool.open()
            with self.pool.connection() as connection:
                yield cursor_of(connection)

    @contextmanager
    def writing(self) -> Generator[Db]:
        """Give a cursor inside one transaction, which commits at the end or leaves no trace.

        Raises:
            StoreUnavailable: the database does not answer. When it went away during the commit
                itself, the effect is not known; an idempotency key makes repeating it safe.
        """
        with as_ledger_errors():
            self.pool.open()
            with self.pool.connection() as connection, connection.transaction():
                yield cursor_of(connection)


@contextmanager
def as_ledger_errors() -> Generator[None]:
    """Turn faults of the database that a later attempt may not meet into the ledger's errors.

    Mistakes in the ledger's own SQL stay what they are: they are bugs, and must be seen as such.
    """
    try:
        yield
    except _BUGS:
        raise
    except _FULL as error:
        raise StorageFull(
            f"the database has no space left ({_first_line(error)}); nothing was half-done. "
            "Free some space and send the same request again"
        ) from error
    except _UNAVAILABLE as error:
        raise StoreUnavailable(
            f"the database does not answer now ({_first_line(error)}); nothing was half-done. "
            "Send the same request again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
