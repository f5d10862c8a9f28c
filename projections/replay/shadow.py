"""A shadow: a schema with empty twins of the projections, to be compared or put in place.

A twin has the columns of its table, what PostgreSQL computes and checks, and the same settings for
storage. Keys and indexes are built when the rows are in, which is faster, from what the catalogue
says of the live ones. What else the statements of projections need (the log, payloads, lanes) are
views of the live tables: nothing that was forgotten can be written to a live table by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from recordledger.domain.errors import SchemaMismatch

from ..store.statements import shipped, statements
from ..tables.inline import PARTS

_SQL: Final = statements("replay.shadow")

_VIEWS: Final = ("ledger_events", "payloads", "lanes")
# The first of two keys of an advisory lock; the second is the hash of a shadow's name. A
# transaction that works on a shadow holds it: a shadow that nobody holds was left behind.
_SHADOW_LOCK: Final = 730_195_601
_NAME_BYTES: Final = 40
_PAGE_BYTES: Final = 8192


class Shadow:
    """Twins of some tables, in a schema of their own."""

    def __init__(self, live: str, tables: Iterable[str], name: str | None = None) -> None:
        """Say which.

        Args:
            live: the schema of the ledger.
            tables: those that have twins.
            name: of the shadow's schema; a new one if not given.
        """
        self.live = live
        self.name = name or f"{_prefix(live)}{uuid4().hex[:8]}"
        self.tables = tuple(tables)

    def create(self, connection: Connection[Any], *, logged: bool) -> None:
        """Make the schema, its empty tables, and views of what else is needed.

        Args:
            connection: whose role may create schemas.
            logged: whether the tables shall survive a crash of the database.
        """
        name, live = self.name, self.live
        kind = SQL("TABLE" if logged else "UNLOGGED TABLE")
        options = self._options(connection)
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        for table in self.tables:
            statement = SQL(
                "CREATE {} {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY"
                " INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION){}"
            )
            made, twin = Identifier(name, table), Identifier(live, table)
            connection.execute(statement.format(kind, made, twin, options.get(table, SQL(""))))
        for table, parts in PARTS.items():
            columns = [SQL("LIKE {}").format(Identifier(live, table))] + [
                SQL("{} {}").format(Identifier(column), SQL(shipped(kind)))
                for column, kind in parts.columns.items()
            ]
            connection.execute(
                SQL("CREATE UNLOGGED TABLE {} ({})").format(
                    Identifier(name, parts.name), SQL(", ").join(columns)
                )
            )
        for view in _VIEWS:
            connection.execute(
                SQL("CREATE VIEW {} AS SELECT * FROM {}").format(
                    Identifier(name, view), Identifier(live, view)
                )
            )

    def use(self, connection: Connection[Any]) -> None:
        """Let the statements of this transaction find the shadow."""
        connection.execute(SQL("SET LOCAL search_path = {}").format(Identifier(self.name)))

    def drop(self, connection: Connection[Any]) -> None:
        """Remove the schema and all that is in it."""
        _drop(connection, self.name)

    @contextmanager
    def kept(self, connection: Connection[Any], *, logged: bool) -> Generator[None]:
        """Give the shadow to all sessions, and remove it at the end; first, what others have left.

        If this process is killed, the next one that makes a shadow removes it.
        """
        remove_leftovers(connection, self.live)
        connection.execute(_SQL["hold"], {"lock": _SHADOW_LOCK, "name": self.name})
        try:
            with connection.transaction():
                self.create(connection, logged=logged)
            yield
        finally:
            self.drop(connection)
            connection.execute(_SQL["let_go"], {"lock": _SHADOW_LOCK, "name": self.name})

    def add_keys(self, connection: Connection[Any], tables: Collection[str] | None = None) -> None:
        """Give tables, or these of them, the primary keys that the live ones have and they lack.

        In a transaction: meanwhile no rebuild puts others into the places of the live ones.
        """
        self.lock_live(connection)
        for table, name, definition in self._missing(connection, "primary_keys"):
            if tables is None or table in tables:
                self._add_constraint(connection, table, name, definition)

    def complete(self, connection: Connection[Any]) -> None:
        """Give the tables all else that the live ones have: so that they can take their places.

        In a transaction, as `add_keys`.
        """
        self.add_keys(connection)
        for table, name, definition in self._missing(connection, "constraints"):
            self._add_constraint(connection, table, name, definition)
        for table, _, definition in self._missing(connection, "indexes"):
            on = f" ON {_quoted(connection, self.live, table)} USING "
            here = f" ON {_quoted(connection, self.name, table)} USING "
            connection.execute(shipped(definition.replace(on, here, 1)))
        self._copy_columns(connection)
        self._copy_privileges(connection)

    def split(self, connection: Connection[Any], n: int) -> list[Shadow]:
        """Return at most `n` shadows, each with some of the tables, about equally large."""
        groups: list[list[str]] = [[] for _ in range(n)]
        sizes = [0] * n
        for table, size_bytes in self._ask(connection, "sizes", self.name):
            smallest = sizes.index(min(sizes))
            groups[smallest].append(table)
            # One that is empty takes some time too.
            sizes[smallest] += size_bytes + _PAGE_BYTES
        return [Shadow(self.live, group, self.name) for group in groups if group]

    def lock_live(self, connection: Connection[Any]) -> None:
        """Keep the live tables from being replaced until the end of the transaction."""
        tables = SQL(", ").join(Identifier(self.live, table) for table in self.tables)
        connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(tables))

    def forget_live(self, connection: Connection[Any]) -> None:
        """Make the shadow independent of the live tables, which may then be dropped or altered.

        It keeps its own copy of the lanes; the log and the payloads are seen in the live ones only.
        """
        for view in _VIEWS:
            connection.execute(SQL("DROP VIEW {}").format(Identifier(self.name, view)))
        for parts in PARTS.values():
            connection.execute(SQL("DROP TABLE {}").format(Identifier(self.name, parts.name)))
        connection.execute(
            SQL("CREATE TABLE {} AS SELECT * FROM {}").format(
                Identifier(self.name, "lanes"), Identifier(self.live, "lanes")
            )
        )

    def require_plain(self, connection: Connection[Any]) -> None:
        """Return if the live tables have nothing that their twins would lack.

        Raises:
            SchemaMismatch: they have.
        """
        if rows := self._ask(connection, "not_carried_over"):
            what = ", ".join(f"{kind} {name} of {table}" for table, kind, name in rows[:5])
            raise SchemaMismatch(
                f"a rebuilt table would lack what was added to the live one by hand: {what}; drop "
                "it first and add it again afterwards"
            )

    def _options(self, connection: Connection[Any]) -> dict[str, Composable]:
        """Return the settings for storage of those tables that have some."""
        parts: dict[str, list[Composable]] = {}
        for table, name, value in self._ask(connection, "options"):
            setting = SQL("{} = {}").format(Identifier(*name.split(".")), Literal(value))
            parts.setdefault(table, []).append(setting)
        return {
            table: SQL(" WITH ({})").format(SQL(", ").join(found)) for table, found in parts.items()
        }

    def _missing(self, connection: Connection[Any], what: str) -> list[tuple[str, str, str]]:
        """Return tables, names and definitions of what live tables have and their twins not yet."""
        present = {tuple(row[:2]) for row in self._ask(connection, what, self.name)}
        return [row for row in self._ask(connection, what) if tuple(row[:2]) not in present]

    def _add_constraint(
        self, connection: Connection[Any], table: str, name: str, definition: str
    ) -> None:
        connection.execute(
            SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                Identifier(self.name, table), Identifier(name), SQL(shipped(definition))
            )
        )

    def _copy_columns(self, connection: Connection[Any]) -> None:
        """Copy the settings of columns for statistics."""
        for table, column, target, options in self._ask(connection, "columns"):
            alter = SQL("ALTER TABLE {} ALTER COLUMN {} ").format(
                Identifier(self.name, table), Identifier(column)
            )
            if target is not None:
                connection.execute(alter + SQL("SET STATISTICS {}").format(Literal(target)))
            for name, value in options:
                given = SQL("SET ({} = {})").format(Identifier(name), Literal(value))
                connection.execute(alter + given)

    def _copy_privileges(self, connection: Connection[Any]) -> None:
        """Copy who may do what; what was never granted or revoked by hand is left as it is."""
        wanted = self._ask(connection, "privileges")
        present = self._ask(connection, "privileges", self.name)
        for table in self.tables:
            made = Identifier(self.name, table)
            given = [row for row in present if row[0] == table]
            due = [row for row in wanted if row[0] == table]
            if sorted(map(str, given)) != sorted(str(row) for row in due if row[3] is None):
                for grantee in dict.fromkeys(row[1] for row in given):
                    connection.execute(SQL("REVOKE ALL ON {} FROM {}").format(made, _role(grantee)))
            else:
                due = [row for row in due if row[3] is not None]
            for _, grantee, privilege, column, grantable in due:
                connection.execute(
                    SQL("GRANT {}{} ON {} TO {}{}").format(
                        SQL(shipped(privilege)),
                        SQL(" ({})").format(Identifier(column)) if column else SQL(""),
                        made,
                        _role(grantee),
                        SQL(" WITH GRANT OPTION" if grantable else ""),
                    )
                )

    def _ask(self, connection: Connection[Any], what: str, schema: str | None = None) -> list[Any]:
        parameters = {"schema": schema or self.live, "tables": list(self.tables)}
        return connection.execute(_SQL[what], parameters).fetchall()


def remove_leftovers(connection: Connection[Any], live: str) -> None:
    """Remove the shadows of those that were killed."""
    rows = connection.execute(_SQL["shadows"], {"prefix": _prefix(live)}).fetchall()
    for (name,) in rows:
        held = {"lock": _SHADOW_LOCK, "name": name}
        row = connection.execute(_SQL["try_to_hold"], held).fetchone()
        if row and row[0]:
            _drop(connection, name)
            connection.execute(_SQL["let_go"], held)


def is_shadow(name: str, live: str) -> bool:
    """Return whether a schema of this name would be taken for a shadow, and removed."""
    return re.fullmatch(re.escape(_prefix(live)) + "[0-9a-f]{8}", name) is not None


def _prefix(live: str) -> str:
    """Return how the names of shadows begin. PostgreSQL cuts names off after 63 bytes."""
    return f"{live.encode()[:_NAME_BYTES].decode(errors='ignore')}_shadow_"


def _drop(connection: Connection[Any], name: str) -> None:
    connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


def _quoted(connection: Connection[Any], *names: str) -> str:
    row = connection.execute(_SQL["quoted"], {"names": list(names)}).fetchone()
    return str(row[0]) if row else ""


def _role(name: str | None) -> Composed:
    return SQL("{}").format(SQL("PUBLIC") if name is None else Identifier(name))
