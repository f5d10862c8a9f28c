"""Replay: fold the whole log again, into a shadow of the projections, and compare row by row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from recordledger.domain.aggregates import AGGREGATES
from recordledger.domain.errors import ImpossibleHistory, LedgerError
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.streams import ID_MAX, Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log import user_blocks
from ..log.mapper import Recorded
from ..reading import timeline
from ..store.database import Db, as_ledger_errors, connect, cursor_of, one
from ..store.statements import statements
from ..tables import inline, service_queue
from ..tables.changes import Changes
from ..tables.inline import INLINE, PARTS, PROJECTIONS
from ..tables.lanes import LaneRegistry
from .filling import AGGREGATES_MAX, EVENTS_MAX, Filler, RecordRange, histories, rows_of, share
from .shadow import Shadow

_SQL: Final = statements("replay.replay")

# Those whose keys the filling of others needs, or that are written by live operations' statements.
_NEEDED_KEYS: Final = frozenset(table.name for table in INLINE if not table.key_last)

Progress = Callable[[int, int], None]
"""Called with the number of events folded so far, and of all."""

JOBS_WORTHWHILE_EVENTS: Final = 200_000
"""With fewer events in the log, several processes would take longer to start than they save."""

# Events of a range of records that is folded at a time, more or less.
_PART_EVENTS: Final = 50_000
_SERVICES: Final = 500
_SLICE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of a projection that is not what the log says.

    `live` and `replayed` are the two rows, None where there is none; `columns` names what differs.
    """

    table: str
    key: tuple[Any, ...]
    live: dict[str, Any] | None
    replayed: dict[str, Any] | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in which the two rows differ."""
        live, replayed = self.live or {}, self.replayed or {}
        names = [*replayed, *(name for name in live if name not in replayed)]
        return tuple(name for name in names if live.get(name) != replayed.get(name))

    def __str__(self) -> str:
        """Return one readable line."""
        where = f"{self.table} {', '.join(map(str, self.key))}"
        if self.live is None:
            return f"{where}: the row is in the log, but missing from the table"
        if self.replayed is None:
            return f"{where}: the row is in the table, but not in the log"
        changes = (
            f"{name} is {self.live.get(name)!r}, but the log has {self.replayed.get(name)!r}"
            for name in self.columns
        )
        return f"{where}: {'; '.join(changes)}"


@dataclass(slots=True)
class ReplayReport:
    """What a replay has found. Equal when there are no differences and no missing payloads."""

    position: int = 0
    n_events: int = 0
    differences: list[Difference] = field(default_factory=list[Difference])
    missing_payloads: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    @property
    def equal(self) -> bool:
        """Whether the live tables are what the log says."""
        return not self.differences and not self.missing_payloads


def check_replay(
    ledger: Ledger,
    *,
    differences_max: int = 20,
    progress: Progress | None = None,
    jobs: int | None = None,
    past: bool = False,
    shadow: Shadow | None = None,
) -> ReplayReport:
    """Fold the log into a shadow schema and compare it with the live tables, row by row.

    It may run while the ledger is in use: log and tables are compared in one snapshot, in which
    they must agree exactly, because they are written in the same transactions. Nothing stays
    behind; if it is killed while several processes work, what it has made is removed by the next.

    Args:
        ledger: which.
        differences_max: how many are reported for each table.
        progress: called with the number of events folded so far, and of all.
        jobs: processes that fold; as many as there are processors if the log is long enough.
        past: whether to compare the tables of the past too, as far as they go.
        shadow: one that exists already, is empty and has its keys; it is empty again afterwards.
            Without it a new one is made, which takes longer than folding a short log.

    Raises:
        ImpossibleHistory: the log itself is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
    """
    report = ReplayReport()
    reused, shadow = shadow is not None, shadow or Shadow(ledger.schema, PROJECTIONS)
    with as_ledger_errors(), connect(ledger.url, ledger.schema) as connection:
        jobs = 1 if reused else jobs_for(cursor_of(connection), jobs)
        if jobs == 1:
            with _snapshot(connection, shadow):
                if not reused:
                    shadow.create(connection, logged=False)
                shadow.use(connection)
                report.position = head(cursor_of(connection))
                report.n_events = fill(
                    ledger, connection, shadow, report.position, progress=progress
                )
                _compare(connection, shadow, report, differences_max)
                if past:
                    _compare_past(ledger, connection, shadow, report, differences_max)
            return report
        with shadow.kept(connection, logged=False):
            with connect(ledger.url, shadow.name) as filling:
                position = head(cursor_of(filling))
                report.n_events = fill(
                    ledger, filling, shadow, position, jobs=jobs, progress=progress
                )
            # What has come meanwhile is folded in the snapshot in which all is compared.
            with _snapshot(connection, shadow):
                shadow.use(connection)
                db = cursor_of(connection)
                report.position = head(db)
                if report.position > position:
                    shadow.add_keys(connection)
                    report.n_events += follow(ledger, db, position, report.position)
                _compare(connection, shadow, report, differences_max)
                if past:
                    _compare_past(ledger, connection, shadow, report, differences_max)
    return report


@contextmanager
def _snapshot(connection: Connection[Any], shadow: Shadow) -> Generator[None]:
    """Give a transaction that sees one state, and leaves none of its own.

    The tables are locked first, so that a rebuild that ends meanwhile does not put others into
    their places, of which this state has no rows.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    with connection.transaction(force_rollback=True):
        shadow.lock_live(connection)
        yield


def jobs_for(db: Db, jobs: int | None) -> int:
    """Return how many processes shall fold a log: as many as said, or as many as it is worth."""
    if jobs is not None:
        return jobs
    return (os.cpu_count() or 1) if head(db) >= JOBS_WORTHWHILE_EVENTS else 1


def head(db: Db) -> int:
    """Return the newest position of the log; 0 if it is empty."""
    return int(_one(db, "head"))


def _compare(
    connection: Connection[Any], shadow: Shadow, report: ReplayReport, differences_max: int
) -> None:
    connection.execute("SET LOCAL work_mem = '64MB'")
    for table in INLINE:
        report.differences += _differences(
            connection,
            table.name,
            table.key,
            (shadow.live, shadow.name),
            differences_max,
            table.zero,
        )
    rows = connection.execute(_SQL["missing_payloads"], {"limit": differences_max})
    report.missing_payloads = [(digest.hex(), record_id) for digest, record_id in rows]


def _compare_past(
    ledger: Ledger,
    connection: Connection[Any],
    shadow: Shadow,
    report: ReplayReport,
    differences_max: int,
) -> None:
    """Fill the tables of the past again as far as they go, and compare them."""
    extent = SQL("SELECT position FROM {}").format(Identifier(shadow.live, "timeline"))
    position = one(connection, extent)[0]
    for table in timeline.TABLES:
        connection.execute(
            SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING ALL)").format(
                Identifier(shadow.name, table), Identifier(shadow.live, table)
            )
        )
    timeline.fill(cursor_of(connection), ledger.event_mapper, position)
    for table, key in timeline.TABLES.items():
        report.differences += _differences(
            connection, table, key, (shadow.live, shadow.name), differences_max
        )


# Folding


def fill(
    ledger: Ledger,
    connection: Connection[TupleRow],
    shadow: Shadow,
    position: int,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> int:
    """Fill the empty tables of a shadow with what the log says up to a position.

    Args:
        ledger: which.
        connection: whose search path is the shadow.
        shadow: which; other processes must be able to see it if there are several jobs.
        position: up to where the log is folded.
        jobs: processes that fold records; with one, everything happens on the connection.
        progress: called with the number of events folded so far, and of all.

    Returns:
        How many events were folded.

    Raises:
        ImpossibleHistory: the log is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
    """
    db = cursor_of(connection)
    n_all = _one(db, "count", {"position": position})
    _require_streams(db, position)
    n_done = 0

    def tell(n: int) -> None:
        nonlocal n_done
        n_done += n
        if progress:
            progress(n_done, n_all)

    parts = _parts(db, position, n_all)
    if jobs > 1:
        share(ledger, shadow.name, parts, jobs, tell)
    else:
        filler = Filler(ledger, connection)
        for part in parts:
            filler.fill(part, tell)
    with connection.transaction():
        for each in PARTS.values():
            db.execute(each.add_up)
        shadow.add_keys(connection, _NEEDED_KEYS)
        _fill_services(ledger, connection, position)
        _fill_others(ledger, connection, position, tell)
    tell(0)
    if n_done != n_all:  # pragma: no cover - the streams were looked at first
        raise LedgerError(f"of {n_all} events only {n_done} were folded; this is a bug")
    return n_done


def _one(db: Db, statement: str, parameters: dict[str, Any] | None = None) -> Any:
    row = db.execute(_SQL[statement], parameters).fetchone()
    return row[0] if row else None


def _require_streams(db: Db, position: int) -> None:
    """Return if every event belongs to a kind of stream that there is."""
    # Between two kinds of streams, before the first kind, and after the last.
    firsts = [0, *(stream_uuid(stream, ID_MAX).int + 1 for stream in Stream)]
    lasts = [*(stream_uuid(stream, 0).int - 1 for stream in Stream), 2**128 - 1]
    parameters = {
        "firsts": [UUID(int=first) for first in firsts],
        "lasts": [UUID(int=last) for last in lasts],
        "position": position,
    }
    row = db.execute(_SQL["stray"], parameters).fetchone()
    if row is not None:
        raise ImpossibleHistory(f"stream {row[0]}", row[1], "there is no such kind of stream")


def _parts(db: Db, position: int, n_events: int) -> Iterator[RecordRange]:
    """Yield all records, in ranges that have about the same number of events each."""
    newest = _one(db, "newest_stream", {"last": stream_uuid(Stream.record, ID_MAX)})
    if newest is None or newest < stream_uuid(Stream.record, 0):
        return
    last = stream_number(newest)[1]
    width = max(1, last * _PART_EVENTS // max(1, n_events))
    for first in range(0, last + 1, width):
        yield RecordRange(first, min(first + width - 1, last), position)


def _fill_services(ledger: Ledger, connection: Connection[TupleRow], position: int) -> None:
    """Write what services wait for. Their children are in, so all count what these are now."""
    db, after = cursor_of(connection), 0
    while True:
        found = db.execute(_SQL["services"], {"after": after, "limit": _SERVICES}).fetchall()
        if not found:
            return
        after = found[-1][0]
        ids = [stream_uuid(Stream.record, id_) for (id_,) in found]
        rows = db.execute(_SQL["histories"], {"ids": ids, "position": position}).fetchall()
        happened: list[Recorded] = []
        changed: list[tuple[RecordAggregate, RecordAggregate]] = []
        for (_, number), history in histories(rows, ledger.event_mapper.event_of):
            folded = fold(number, (recorded.event for recorded in history))
            changed.append((RecordAggregate(number), folded))
            happened += history
        service_queue.follow(db, changed, happened, tell=False)


def _fill_others(
    ledger: Ledger, connection: Connection[TupleRow], position: int, tell: Callable[[int], None]
) -> None:
    """Write what is no record, as live operations do."""
    db, batch = cursor_of(connection), FoldedBatch(ledger)
    others = [stream for stream in Stream if stream is not Stream.record]
    parameters = {
        "first": stream_uuid(min(others), 0),
        "last": stream_uuid(max(others), ID_MAX),
        "position": position,
    }
    with rows_of(connection, "of_streams", parameters) as rows:
        event_of = ledger.event_mapper.event_of
        for (stream, number), history in histories(rows, event_of, batch.user_blocks):
            tell(batch.add(stream, number, history))
            if batch.is_full:
                batch.write(db)
        batch.write(db)


def follow(ledger: Ledger, db: Db, after: int, upto: int) -> int:
    """Bring tables that are what the log says up to a position to a later one.

    What changed is folded from its whole history, and so needs no table that says what it was.

    Args:
        ledger: which.
        db: whose search path is at the tables.
        after: the position that the tables are at.
        upto: the position that they shall be at.

    Returns:
        How many events there were in between.

    Raises:
        ImpossibleHistory: the log is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
    """
    n_events, batch = 0, FoldedBatch(ledger)
    while after < upto:
        bounds = {"after": after, "upto": upto, "limit": _SLICE}
        found = db.execute(_SQL["slice"], bounds, prepare=True).fetchall()
        if not found:
            break
        n_new = Counter(originator_id for _, originator_id in found)
        after = found[-1][0]
        of_them = {"ids": list(n_new), "position": after}
        rows = db.execute(_SQL["histories"], of_them, prepare=True).fetchall()
        event_of = ledger.event_mapper.event_of
        for (stream, number), history in histories(rows, event_of, batch.user_blocks):
            n_known = len(history) - n_new[stream_uuid(stream, number)]
            batch.add(stream, number, history, n_known=n_known)
        batch.write(db)
        n_events += len(found)
    return n_events


class FoldedBatch:
    """Folded aggregates that are written to the shadow together."""

    def __init__(self, ledger: Ledger, lanes: LaneRegistry | None = None) -> None:
        # Not the ledger's own registry: what it remembers may not be what the table has.
        self._changes = Changes(lanes or LaneRegistry(ledger.datastore), destroys=False)
        self.user_blocks: set[tuple[str, int]] = set()

    @property
    def is_full(self) -> bool:
        """Whether it is time to write."""
        changes = self._changes
        return len(changes) >= AGGREGATES_MAX or len(changes.happened) >= EVENTS_MAX

    def add(self, stream: Stream, number: int, history: list[Recorded], *, n_known: int = 0) -> int:
        """Fold the history of one aggregate; return how many events it has.

        The tables that are written to know its first `n_known` events already.
        """
        kind = AGGREGATES[stream]
        before = after = kind.new(number)
        for place, recorded in enumerate(history, start=1):
            after = kind.evolve(after, recorded.event)
            if place == n_known:
                before = after
        self._changes.add(before, after, history[n_known:])
        return len(history)

    def write(self, db: Db) -> None:
        """Write what was folded through the same statements as live operations."""
        changes = self._changes
        changes.lanes.intern(each for change in changes.records for each in change if each.exists)
        inline.write(db, changes)
        user_blocks.write(db, self.user_blocks)
        self.user_blocks.clear()
        changes.clear()


def _differences(
    connection: Connection[Any],
    table: str,
    key: tuple[str, ...],
    schemas: tuple[str, str],
    limit: int,
    zero: str | None = None,
) -> list[Difference]:
    live, shadow = schemas
    rows = connection.execute(
        SQL(_SQL["differences"]).format(
            key=SQL(", ").join(map(Identifier, key)),
            live=Identifier(live, table),
            shadow=Identifier(shadow, table),
            counted=SQL("true" if zero is None else "{} <> 0").format(Identifier(zero or "")),
        ),
        {"limit": limit},
    ).fetchall()
    return [Difference(table, tuple(map(_readable, row[:-2])), row[-2], row[-1]) for row in rows]


def _readable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
