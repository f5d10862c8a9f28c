"""Replay: fold the whole log again, into a shadow of the projections, and compare row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import Connection, IsolationLevel
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from recordledger.domain.access import Token, evolve_token
from recordledger.domain.dataset import Dataset, evolve_dataset
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.job import Job, evolve_job
from recordledger.domain.lanes import Lane
from recordledger.domain.manager import Manager, evolve_manager
from recordledger.domain.record import Record, evolve
from recordledger.domain.streams import Stream, stream_number

from .database import Db, as_ledger_errors, connect, cursor_of
from .lanes import LaneRegistry
from .ledger import Ledger, write_projections
from .mapper import Recorded
from .statements import statements

_SQL: Final = statements("replay")

# The inline projections, and what tells their rows apart.
PROJECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "records": ("id",),
    "claim_queue": ("lane_id", "rank", "record_id"),
    "status_counts": ("lane_id", "status"),
    "rescue_counts": ("kind",),
    "payload_references": ("digest", "stream", "number"),
    "dependencies": ("parent_id", "child_id"),
    "services": ("record_id",),
    "service_children": ("service_id", "key"),
    "comments": ("record_id", "version"),
    "operations": ("id",),
    "operation_changes": ("operation_id", "record_id", "version"),
    "managers": ("id",),
    "tokens": ("id",),
    "jobs": ("id",),
    "datasets": ("id",),
    "dataset_entries": ("dataset_id", "number", "added_in"),
    "dataset_specifications": ("dataset_id", "number"),
    "dataset_records": ("dataset_id", "specification", "entry", "added_in"),
    "dataset_counts": ("dataset_id", "specification", "status"),
    "dataset_versions": ("dataset_id", "number"),
    "origins": ("origin_ledger", "stream", "origin_id"),
}
# In these a count of zero is the same as no row.
_COUNTED: Final = frozenset({"status_counts", "dataset_counts"})
_BATCH: Final = 5_000

Progress = Callable[[int, int], None]


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
            return f"{where}: the log says there is such a row, and there is none"
        if self.replayed is None:
            return f"{where}: there is such a row, and the log says there is none"
        changes = (
            f"{name} is {self.live.get(name)!r}, and the log says {self.replayed.get(name)!r}"
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
    ledger: Ledger, *, differences_max: int = 20, progress: Progress | None = None
) -> ReplayReport:
    """Fold the log into a shadow schema and compare it with the live tables, row by row.

    It may run while the ledger is in use: log and tables are read in one snapshot, in which they
    must agree exactly, because they are written in the same transactions. Nothing stays behind.

    Args:
        ledger: which.
        differences_max: how many are reported for each table.
        progress: called with the number of events folded so far, and of all.

    Raises:
        ImpossibleHistory: the log itself is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
        StoreUnavailable: the database does not answer.
    """
    shadow = f"{ledger.schema}_shadow_{uuid4().hex[:8]}"
    with as_ledger_errors(), connect(ledger.url, ledger.schema) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction(force_rollback=True):
            _create_shadow(connection, shadow, ledger.schema)
            report = _fold_all(ledger, connection, progress)
            for table, key in PROJECTIONS.items():
                report.differences += _differences(
                    connection, table, key, (ledger.schema, shadow), differences_max
                )
            rows = connection.execute(_SQL["missing_payloads"], {"limit": differences_max})
            report.missing_payloads = [(digest.hex(), record_id) for digest, record_id in rows]
    return report


def _create_shadow(connection: Connection[Any], shadow: str, live: str) -> None:
    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(shadow)))
    for table in PROJECTIONS:
        connection.execute(
            SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING ALL)").format(
                Identifier(shadow, table), Identifier(live, table)
            )
        )
    path = SQL("SET LOCAL search_path = {}, {}").format(Identifier(shadow), Identifier(live))
    connection.execute(path)


def _fold_all(
    ledger: Ledger, connection: Connection[Any], progress: Progress | None
) -> ReplayReport:
    totals = connection.execute(
        "SELECT coalesce(max(notification_id), 0), count(*) FROM ledger_events"
    ).fetchone()
    position, n_all = totals or (0, 0)
    report = ReplayReport(position=position)
    db = cursor_of(connection)
    batch = _Batch(ledger)
    for (stream, number), history in _streams(ledger, connection, position):
        report.n_events += batch.add(stream, number, history)
        if len(batch) >= _BATCH:
            batch.write(db)
            if progress:
                progress(report.n_events, n_all)
    batch.write(db)
    if progress:
        progress(report.n_events, n_all)
    return report


def _streams(
    ledger: Ledger, connection: Connection[Any], position: int
) -> Iterator[tuple[tuple[Stream, int], list[Recorded]]]:
    """Give each aggregate's whole history, one after the other, in bounded memory."""
    event_of = ledger.event_mapper.event_of
    current: UUID | None = None
    history: list[Recorded] = []
    key = (Stream.record, 0)
    with connection.cursor("replay", row_factory=tuple_row) as events:
        events.itersize = 10_000
        events.execute(_SQL["events"], {"position": position}, binary=True)
        for originator_id, version, topic, state in events:
            if originator_id != current:
                if history:
                    yield key, history
                current, history, key = originator_id, [], _stream_number(originator_id, version)
            if version != len(history) + 1:
                raise ImpossibleHistory(
                    f"{key[0].name} {key[1]}", version, f"version {len(history) + 1} is missing"
                )
            history.append(Recorded(*key, version, event_of(topic, state)))
    if history:
        yield key, history


def _stream_number(originator_id: UUID, version: int) -> tuple[Stream, int]:
    try:
        return stream_number(originator_id)
    except ValueError:
        raise ImpossibleHistory(
            f"stream {originator_id}", version, "there is no such kind of stream"
        ) from None


class _Batch:
    """Folded aggregates that are written to the shadow together."""

    def __init__(self, ledger: Ledger) -> None:
        # Not the ledger's own registry: what it remembers may not be what the table has.
        self._lanes = LaneRegistry(ledger.datastore)
        self._clear()

    def _clear(self) -> None:
        self._records: list[tuple[Record, Record]] = []
        self._managers: list[Manager] = []
        self._tokens: list[Token] = []
        self._jobs: list[Job] = []
        self._datasets: list[Dataset] = []
        self._happened: list[Recorded] = []

    def __len__(self) -> int:
        n_others = len(self._managers) + len(self._tokens) + len(self._jobs) + len(self._datasets)
        return len(self._records) + n_others

    def add(self, stream: Stream, number: int, history: list[Recorded]) -> int:
        """Fold the history of one aggregate; return how many events it has."""
        match stream:
            case Stream.record:
                record = Record(number)
                for recorded in history:
                    record = evolve(record, recorded.event)
                self._records.append((Record(number), record))
            case Stream.manager:
                manager = Manager(number)
                for recorded in history:
                    manager = evolve_manager(manager, recorded.event)
                self._managers.append(manager)
            case Stream.token:
                token = Token(number)
                for recorded in history:
                    token = evolve_token(token, recorded.event)
                self._tokens.append(token)
            case Stream.dataset:
                dataset = Dataset(number)
                for recorded in history:
                    dataset = evolve_dataset(dataset, recorded.event)
                self._datasets.append(dataset)
            case Stream.job:
                job = Job(number)
                for recorded in history:
                    job = evolve_job(job, recorded.event)
                self._jobs.append(job)
        self._happened += history
        return len(history)

    def write(self, db: Db) -> None:
        """Write what was folded through the same statements as live operations."""
        lanes = self._lanes
        lanes.intern(_lanes(after for _, after in self._records))
        write_projections(
            db,
            lanes,
            self._records,
            self._managers,
            self._tokens,
            self._jobs,
            self._datasets,
            self._happened,
        )
        self._clear()


def _lanes(records: Iterable[Record]) -> Iterator[Lane]:
    for record in records:
        if record.exists:
            yield Lane(record.tag, record.required_programs)


def _differences(
    connection: Connection[Any],
    table: str,
    key: tuple[str, ...],
    schemas: tuple[str, str],
    limit: int,
) -> list[Difference]:
    live, shadow = schemas
    rows = connection.execute(
        SQL(_SQL["differences"]).format(
            key=SQL(", ").join(map(Identifier, key)),
            live=Identifier(live, table),
            shadow=Identifier(shadow, table),
            counted=SQL("n_records <> 0" if table in _COUNTED else "true"),
        ),
        {"limit": limit},
    ).fetchall()
    return [Difference(table, tuple(map(_readable, row[:-2])), row[-2], row[-1]) for row in rows]


def _readable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
