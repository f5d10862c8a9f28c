"""A PostgreSQL for tests: one server per session, and databases that are made and dropped freely.

`RECORDLEDGER_TEST_DATABASE_URL` names another server, whose role must be allowed to create
databases. Without it the embedded server runs in a temporary folder, with `fsync` off: these tests
kill no server and cut no power. Tests that do start a server of their own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, ObjectInUse

from recordledger.projections.store.embedded import EmbeddedPostgres

DROP_TIMEOUT_S = 30.0
URL_VARIABLE = "RECORDLEDGER_TEST_DATABASE_URL"

_ROOM_BYTES: Final = 6 * 1024**3

_FAST_AND_UNSAFE: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "off",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "1h",
}


@contextlib.contextmanager
def running_server() -> Generator[str]:
    """Yield the URL of a server on which databases may be created; end it if it is ours."""
    if given := os.environ.get(URL_VARIABLE):
        yield given
        return
    with (
        temporary_home("recordledger-tests-") as home,
        EmbeddedPostgres(home, settings=_FAST_AND_UNSAFE, create_databases=True) as postgres,
    ):
        yield postgres.url


@contextlib.contextmanager
def temporary_home(prefix: str = "rl-") -> Generator[Path]:
    """Yield a folder for a server, with a short path, in memory where there is room for it.

    A database is some thousand files: on a disk, making and removing them takes most of the time.
    """
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix=prefix, dir=memory if roomy else None) as folder:
        # Where root has no user namespaces, the server runs as somebody else, who must get in.
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def new_database(server_url: str, *, template: str | None = None) -> Generator[str]:
    """Create a database, empty or as a copy of another, yield its URL, and drop it."""
    name = f"test_{secrets.token_hex(8)}"
    # Files are copied four times as fast as what is in them is logged, as long as nobody waits for
    # the disk. PostgreSQL 14 knows no other way.
    _execute(
        server_url,
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        ),
    )
    try:
        yield with_database(server_url, name)
    finally:
        _drop(server_url, name)


def _drop(server_url: str, name: str) -> None:
    """Drop a database, whoever is connected to it.

    FORCE may not end an autovacuum worker, which is the superuser's: then it is left to finish.
    """
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    deadline = time.monotonic() + DROP_TIMEOUT_S
    while True:
        try:
            _execute(server_url, statement)
        except (InsufficientPrivilege, ObjectInUse):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def new_template(server_url: str, fill: Callable[[str], object]) -> Generator[str]:
    """Create a database, let `fill` put a schema in, yield its name for copies, and drop it."""
    with new_database(server_url) as url:
        fill(url)
        name = urlsplit(url).path.removeprefix("/")
        # A copy waits for whoever is connected to the original, so nobody may be.
        _execute(
            server_url,
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)),
        )
        yield name


def with_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(name, safe="")))


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
