"""Rebuilding projections while the ledger is in use: filled beside the live ones, and put in place.

The log is folded into a shadow, and what comes meanwhile is folded later, until little is left.
Then, for a moment, the live tables are locked and after them the log, as writers do it; the rest is
folded, and the tables of the shadow take the places of the live ones, all in one transaction. Until
that commits the live tables are untouched, whatever happens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.errors import LockNotAvailable, QueryCanceled
from psycopg.sql import SQL, Identifier

from recordledger.domain.errors import InvalidInput, RebuildRunning, StoreUnavailable

from ..ledger import Ledger
from ..log.recorder import LOG_LOCK
from ..store.database import Db, as_ledger_errors, connect, cursor_of
from ..store.statements import statements
from ..tables.inline import PROJECTIONS
from .replay import Progress, fill, follow, head, jobs_for
from .shadow import Shadow

_SQL: Final = statements("replay.rebuild")

# The first of two keys of an advisory lock; the second is the hash of the ledger's schema.
_REBUILD_LOCK: Final = 730_195_602
# With so few events left, others may be kept waiting until they are folded.
_FEW: Final = 200
# Each round is shorter than the one before, unless others write faster than this folds: then they
# are kept waiting in the end.
_ROUNDS: Final = 20
# Less than PostgreSQL waits before it looks for circles: nobody else is ever refused for our sake.
_LOCK_S: Final = 0.5
_LOG_LOCK_S: Final = 5.0
_PAUSE_S: Final = 0.2
# What commands lock before all else, in the order in which they do. A transaction that has got one
# of these goes on to its end while this waits for it, holding nothing that it may need.
_LOCKED_FIRST: Final = ("jobs", "datasets", "managers", "records")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild has done.

    Attributes:
        tables: those that were put in place.
        n_events: how many events were folded.
        position: up to where the log was folded when they were; live operations went on from there.
        waited_s: for how long readers and writers had to wait.
    """

    tables: tuple[str, ...]
    n_events: int
    position: int
    waited_s: float


def rebuild(
    ledger: Ledger,
    *,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
    patience_s: float = 60.0,
) -> Rebuilt:
    """Fold the log into new tables, and put them into the places of the live ones.

    It may run while the ledger is in use; it needs space for a second set of the tables. If it is
    interrupted, the live tables are as they were, and the next rebuild removes what it has left.

    Args:
        ledger: which.
        only: the tables to put in place; all projections if not given.
        progress: called with the number of events folded so far, and of all at the beginning.
        jobs: processes that fold; as many as there are processors if the log is long enough.
        patience_s: for how long to try to lock the live tables, at the end.

    Raises:
        InvalidInput: there is no such projection.
        RebuildRunning: another process is rebuilding.
        SchemaMismatch: a live table has something that a new one would lack.
        ImpossibleHistory: the log is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
        StoreUnavailable: the database does not answer, or others keep the tables locked.
    """
    tables = _chosen(only)
    shadow = Shadow(ledger.schema, PROJECTIONS)
    with (
        as_ledger_errors(),
        connect(ledger.url, ledger.schema) as owner,
        _lock_rebuilds(owner, ledger.schema),
        shadow.kept(owner, logged=True),
        connect(ledger.url, shadow.name) as connection,
    ):
        shadow.require_plain(owner)
        db = cursor_of(connection)
        position = head(db)
        n_jobs = jobs_for(db, jobs)
        n_events = fill(ledger, connection, shadow, position, jobs=n_jobs, progress=progress)
        _complete(ledger, shadow.split(connection, n_jobs), tables)
        for _ in range(_ROUNDS):
            if (newest := head(db)) - position <= _FEW:
                break
            with connection.transaction():
                n_events += follow(ledger, db, position, newest)
            position = newest
        switch = _Switch(ledger, connection, shadow, tables)
        with connection.transaction():
            switch.lock_and_follow(position, patience_s)
            switch.put_in_place()
    return Rebuilt(tables, n_events + switch.n_events, switch.position, switch.waited_s)


def _chosen(only: Collection[str] | None) -> tuple[str, ...]:
    if only is None:
        return tuple(PROJECTIONS)
    if unknown := sorted(set(only) - set(PROJECTIONS)):
        raise InvalidInput(
            f"{', '.join(unknown)}: no such projection; the projections are "
            f"{', '.join(PROJECTIONS)}"
        )
    return tuple(table for table in PROJECTIONS if table in only)


@contextmanager
def _lock_rebuilds(connection: Connection[Any], schema: str) -> Generator[None]:
    """Keep all other rebuilds of this ledger away, for as long as the connection lasts."""
    held = {"lock": _REBUILD_LOCK, "schema": schema}
    row = connection.execute(_SQL["try_to_hold"], held).fetchone()
    if not (row and row[0]):
        raise RebuildRunning(schema)
    try:
        yield
    finally:
        connection.execute(_SQL["let_go"], held)


def _complete(ledger: Ledger, shadows: Sequence[Shadow], tables: Collection[str]) -> None:
    """Give the tables what the live ones have, those of all shadows at the same time.

    And for those that will be put in place, let PostgreSQL know what is in them, and that all of it
    can be seen by all.
    """

    def complete(connection: Connection[Any], shadow: Shadow) -> None:
        with connection.transaction():
            shadow.complete(connection)
        for table in shadow.tables:
            if table in tables:
                connection.execute(SQL("VACUUM (ANALYZE) {}").format(Identifier(table)))

    with ExitStack() as stack:
        connections = [stack.enter_context(connect(ledger.url, shadow.name)) for shadow in shadows]
        pool = stack.enter_context(ThreadPoolExecutor(len(shadows)))
        try:
            list(pool.map(complete, connections, shadows))
        except BaseException:
            for connection in connections:
                connection.cancel_safe()
            raise


def _give_up_after(db: Db, seconds: float) -> None:
    db.execute(_SQL["give_up_after"], {"milliseconds": str(int(1000 * seconds))})


class _Switch:
    """The end of a rebuild, in one transaction."""

    def __init__(
        self, ledger: Ledger, connection: Connection[Any], shadow: Shadow, tables: tuple[str, ...]
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._shadow = shadow
        self._tables = tables
        self._began_s = 0.0
        self.n_events = 0
        self.position = 0
        self.waited_s = 0.0

    def lock_and_follow(self, position: int, patience_s: float) -> None:
        """Lock the tables, then the log, and fold what is left of it.

        Writers lock the log last, and so must this. The tables are locked all or none, and for as
        long as PostgreSQL lets a circle be: should a writer hold one and wait for another, this
        gives way and comes again, having folded what has been written meanwhile.
        """
        db = cursor_of(self._connection)
        self.position = position
        # It keeps nobody waiting but VACUUM, which gives way to those that wait for it.
        _give_up_after(db, patience_s)
        self._lock(SQL("SHARE UPDATE EXCLUSIVE"))
        _give_up_after(db, 0)
        deadline = time.monotonic() + patience_s
        while not self._lock_all(db):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the tables were locked by others for {patience_s:.0f} s, perhaps by long "
                    "queries or dumps. Nothing was changed; run the rebuild again when these have "
                    "ended"
                )
            self._follow(db)
            time.sleep(random.uniform(_PAUSE_S / 4, _PAUSE_S))  # noqa: S311
        self._follow(db)

    def put_in_place(self) -> None:
        """Let the tables of the shadow take the places of the live ones."""
        live, name = self._shadow.live, self._shadow.name
        for table in self._tables:
            self._connection.execute(SQL("DROP TABLE {}").format(Identifier(live, table)))
            self._connection.execute(
                SQL("ALTER TABLE {} SET SCHEMA {}").format(
                    Identifier(name, table), Identifier(live)
                )
            )
        self.waited_s = time.monotonic() - self._began_s

    def _lock_all(self, db: Db) -> bool:
        self._began_s = time.monotonic()
        try:
            with self._connection.transaction():
                _give_up_after(db, _LOCK_S)
                self._lock(SQL("ACCESS EXCLUSIVE"))
                # Who has the log commits next, and waits for nobody.
                _give_up_after(db, _LOG_LOCK_S)
                db.execute(_SQL["lock_log"], {"lock": LOG_LOCK})
                _give_up_after(db, 0)
        except (QueryCanceled, LockNotAvailable):
            return False
        return True

    def _lock(self, mode: SQL) -> None:
        first = [table for table in _LOCKED_FIRST if table in self._tables]
        rest = [table for table in self._tables if table not in first]
        live = self._shadow.live
        tables = SQL(", ").join(Identifier(live, table) for table in (*first, *rest))
        self._connection.execute(SQL("LOCK TABLE {} IN {} MODE").format(tables, mode))

    def _follow(self, db: Db) -> None:
        newest = head(db)
        self.n_events += follow(self._ledger, db, self.position, newest)
        self.position = newest
