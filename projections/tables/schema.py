"""The database's schema: made fresh, brought up to date, or refused when it is too new."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege, UndefinedTable
from psycopg.sql import SQL, Identifier

from recordledger.domain.errors import SchemaMismatch

from ..log import user_blocks
from ..store.database import DEFAULT_SCHEMA, as_ledger_errors, connect
from ..store.statements import shipped, sql_file
from . import late_results, service_queue

_STEP = re.compile(r"(\d{4})_(\w+)\.sql")
# Two processes that start at once migrate one after the other.
_MIGRATION_LOCK: Final = 7_301_956_002


class Step(NamedTuple):
    """One forward step of the schema."""

    version: int
    name: str
    sql: LiteralString


def steps() -> list[Step]:
    """Return all migration steps that this version of the code knows, in order."""
    found = [
        (match, path)
        for path in files("recordledger.projections.tables.migrations").iterdir()
        if (match := _STEP.fullmatch(path.name))
    ]
    return sorted(Step(int(match[1]), match[2], shipped(path.read_text())) for match, path in found)


NEWEST: Final = steps()[-1].version

SCHEMA_SQL: Final = 10
"""The step that `schema.sql` leads to at once; a fresh database goes through the later ones."""

# What fills the projections that a step adds from the log that is there already.
_FILLS: Final[Mapping[int, Callable[[Connection[Any]], None]]] = {
    3: late_results.fill,
    4: service_queue.fill,
    7: user_blocks.fill,
}


def migrate(url: str, schema: str = DEFAULT_SCHEMA, *, stepwise: bool = False) -> int:
    """Bring the ledger's schema to the newest version; return that version.

    Args:
        url: the database, as the role that shall own the ledger.
        schema: the PostgreSQL schema that holds everything of the ledger.
        stepwise: go through every migration step even in a fresh database (for the test that
            compares the two ways).

    Raises:
        SchemaMismatch: the schema is newer than the code, or the role may not create it.
    """
    with as_ledger_errors(), connect(url, schema) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        _require_supported_server(connection)
        _create_schema(connection, schema)
        present = _version(connection)
        _refuse_newer(present)
        if present == 0 and not stepwise:
            connection.execute(sql_file("tables.schema"))
            for step in steps():
                if step.version <= SCHEMA_SQL:
                    _note(connection, step)
        for step in steps():
            if step.version > _version(connection):
                connection.execute(step.sql)
                if fill := _FILLS.get(step.version):
                    fill(connection)
                _note(connection, step)
    return NEWEST


def check(url: str, schema: str = DEFAULT_SCHEMA) -> None:
    """Return if the schema is the one that this code works with.

    Raises:
        SchemaMismatch: it is newer, older, or not there; the message says what to do.
    """
    with as_ledger_errors(), connect(url, schema) as connection:
        try:
            present = _version(connection)
        except UndefinedTable:
            present = 0
        _refuse_newer(present)
        if present < NEWEST:
            raise SchemaMismatch(
                f"the database's schema is version {present} but this version of recordledger "
                f"needs version {NEWEST}: run `recordledger migrate`"
            )


def _version(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return int(row[0]) if row else 0


def _refuse_newer(present: int) -> None:
    if present > NEWEST:
        raise SchemaMismatch(
            f"the database's schema is version {present}, but this version of recordledger "
            f"supports versions up to {NEWEST}: a newer recordledger has migrated it. Upgrade "
            "recordledger; schemas cannot be downgraded"
        )


def _note(connection: Connection[Any], step: Step) -> None:
    connection.execute(
        "INSERT INTO schema_migrations (version, name) VALUES (%s, %s)", (step.version, step.name)
    )


def _create_schema(connection: Connection[Any], schema: str) -> None:
    try:
        with connection.transaction():
            exists = connection.execute(
                "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)
            ).fetchone()
            if not exists:
                connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations ("
                "version integer PRIMARY KEY, name text NOT NULL, "
                "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
    except InsufficientPrivilege as error:
        raise SchemaMismatch(
            f"this role may not create the schema {schema} ({error}); "
            "grant it CREATE on the database, or create the schema and make the role its owner"
        ) from error


def _require_supported_server(connection: Connection[Any]) -> None:
    found = connection.info.server_version
    if found < 150000:
        raise SchemaMismatch(
            f"the server runs PostgreSQL {found // 10000}; the ledger needs 15 or newer"
        )
