"""Elections: of all the processes that could do a job, one does it, by a lock in the database.

The leader publishes the settings that it does the job with, for processes that have to know them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from recordledger.domain.errors import StoreUnavailable

from .database import DEFAULT_SCHEMA, Db, as_ledger_errors, connect
from .statements import statements

_SQL = statements("store.election")
# Advisory locks of two numbers are apart from those of one; this first number is the ledger's.
_SPACE: Final = 730_195


class Election:
    """Whether this process leads in one job; leadership ends with the connection that won it."""

    def __init__(
        self,
        url: str,
        job: str,
        schema: str = DEFAULT_SCHEMA,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Stand for the job of this name; see `leading`.

        Args:
            url: where the database is.
            job: the name of the job.
            schema: where the ledger's tables are.
            settings: what this process does the job with, as JSON values; published for
                `settings_in_force` when it is elected, if there are any.
        """
        self._url = url
        self._schema = schema
        self._lock = _lock_of(job, schema)
        self._job = job
        self._settings = dict(settings or {})
        self._connection: Connection[Any] | None = None

    def leading(self) -> bool:
        """Return whether this process leads now, and try to lead if nobody does.

        Raises:
            StoreUnavailable: the database does not answer; then nobody knows, so nobody leads.
        """
        with as_ledger_errors():
            try:
                if self._connection is not None:
                    self._connection.execute("SELECT 1")
                    return True
                connection = connect(self._url, self._schema)
                row = connection.execute(_SQL["try"], self._lock).fetchone()
                if row and row[0]:
                    self._connection = connection
                    # Before the job begins: it never runs with settings that nobody can see.
                    if self._settings:
                        published = {"name": self._job, "settings": Jsonb(self._settings)}
                        connection.execute(_SQL["publish"], published)
                    return True
                connection.close()
            except (psycopg.Error, StoreUnavailable):
                self.resign()
                raise
            return False

    def resign(self) -> None:
        """Stop leading; another process may take over at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def settings_in_force(db: Db, job: str, schema: str = DEFAULT_SCHEMA) -> dict[str, Any] | None:
    """Return what the process published that leads in a job now; None if none does."""
    row = db.execute(_SQL["in_force"], {"name": job, **_lock_of(job, schema)}).fetchone()
    return row[0] if row else None


def _lock_of(job: str, schema: str) -> dict[str, int]:
    return {"space": _SPACE, "job": zlib.crc32(f"{schema}/{job}".encode()) & 0x7FFF_FFFF}
