"""Elections: of all the processes that could do a job, one does it, by a lock in the database."""

from __future__ import annotations

import zlib
from typing import Any, Final

import psycopg
from psycopg import Connection

from recordledger.domain.errors import StoreUnavailable

from .database import DEFAULT_SCHEMA, as_ledger_errors, connect
from .statements import statements

_SQL = statements("store.election")
# Advisory locks of two numbers are apart from those of one; this first number is the ledger's.
_SPACE: Final = 730_195


class Election:
    """Whether this process leads in one job; leadership ends with the connection that won it."""

    def __init__(self, url: str, job: str, schema: str = DEFAULT_SCHEMA) -> None:
        """Stand for the job of this name; see `leading`."""
        self._url = url
        self._schema = schema
        self._job = zlib.crc32(f"{schema}/{job}".encode()) & 0x7FFF_FFFF
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
                row = connection.execute(
                    _SQL["try"], {"space": _SPACE, "job": self._job}
                ).fetchone()
                if row and row[0]:
                    self._connection = connection
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
