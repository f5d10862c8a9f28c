"""The ledger: load, decide, fold, write the projections and append, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.persistence import (
    InfrastructureFactory,
    Mapper,
    StoredEvent,
)
from eventsourcing.postgres import BasePostgresFactory, PostgresFactory
from eventsourcing.utils import Environment, EnvType
from psycopg import Rollback, Transaction
from psycopg.errors import UniqueViolation

from recordledger.domain.aggregates import State
from recordledger.domain.errors import StoreUnavailable
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event, Outcome, Stamp
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from .log.mapper import EventMapper, MsgpackTranscoder, Recorded
from .log.recorder import LedgerRecorder, append, append_shared
from .log.user_blocks import runs_of
from .store.database import DEFAULT_SCHEMA, Db, LedgerDatastore, one
from .store.statements import statements
from .tables import idempotency, inline, records
from .tables.changes import Changes, RecordClass, SharedChanges
from .tables.idempotency import RequestKey
from .tables.lanes import LaneRegistry, UnknownLanes

Answer = TypeVar("Answer")
S = TypeVar("S", bound=State)

_SQL: Final = statements("log.ledger_events")


class Placed(NamedTuple):
    """An event of the log and its position there."""

    position: int
    recorded: Recorded


class LedgerFactory(PostgresFactory):
    """The library's infrastructure, over the ledger's own pool, recorder and mapper."""

    def __init__(self, env: Environment | EnvType | None, datastore: LedgerDatastore) -> None:
        """Use this datastore instead of one made from environment variables."""
        super(BasePostgresFactory, self).__init__(env)
        self.datastore = datastore

    def application_recorder(self) -> LedgerRecorder:
        """Return the recorder over the table `ledger_events`."""
        return LedgerRecorder(self.datastore, events_table_name="ledger_events")


class Ledger(Application[UUID]):
    """The event-sourced application. One per process; threads share it."""

    name = "ledger"

    def __init__(
        self,
        url: str,
        schema: str = DEFAULT_SCHEMA,
        *,
        pool_size: int = 8,
        timeout_s: float = 10.0,
    ) -> None:
        """Prepare to use the database at `url`, whose schema must be up to date.

        Args:
            url: where the database is.
            schema: the PostgreSQL schema of the ledger.
            pool_size: maximum number of connections.
            timeout_s: how long a call waits for a free connection.
        """
        self.url = url
        self.schema = schema
        self.datastore = LedgerDatastore(url, schema, pool_size=pool_size, timeout_s=timeout_s)
        self.lanes = LaneRegistry(self.datastore)
        self.event_mapper = EventMapper(MsgpackTranscoder())
        super().__init__()

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        """Return the infrastructure of this ledger, whatever the environment says."""
        return LedgerFactory(env, self.datastore)

    def construct_mapper(self) -> Mapper[UUID]:
        """Return the mapper between events and rows."""
        return self.event_mapper

    def histories(self, db: Db, record_ids: Sequence[int]) -> dict[int, list[Event]]:
        """Return all events of these records, oldest first, by record."""
        ids = [stream_uuid(Stream.record, record_id) for record_id in record_ids]
        found: dict[int, list[Event]] = {}
        for id_, topic, state in db.execute(_SQL["histories"], {"ids": ids}, prepare=True):
            found.setdefault(stream_number(id_)[1], []).append(
                self.event_mapper.event_of(topic, state)
            )
        return found

    def in_slices(
        self, db: Db, record_ids: Sequence[int], size: int
    ) -> Iterator[tuple[int, list[Event]]]:
        """Yield each of these records with all its events, in bounded memory."""
        for start in range(0, len(record_ids), size):
            part = record_ids[start : start + size]
            found = self.histories(db, part)
            for record_id in part:
                yield record_id, found[record_id]

    def history(self, db: Db, stream: Stream, number: int) -> list[Placed]:
        """Return all events of one aggregate with their positions, oldest first."""
        rows = db.execute(_SQL["history"], {"id": stream_uuid(stream, number)}, prepare=True)
        return [
            Placed(
                position,
                Recorded(stream, number, version, self.event_mapper.event_of(topic, bytes(state))),
            )
            for position, version, topic, state in rows
        ]

    def operate(
        self,
        work: Callable[[Operation], Answer],
        *,
        actor: str,
        reason: str | None = None,
        request: RequestKey | None = None,
        intent: Intent | None = None,
    ) -> Answer:
        """Do the work of one request in one transaction: all of it happens, or nothing.

        Args:
            work: reads, decides and says what happens, through the operation that it is given.
                Its answer must be plain values if there is a `request`.
            actor: who does it; on every event.
            reason: why; on every event.
            request: identifies the request if it may be sent again.
            intent: what people or policies want done to records, if that is what this is.

        Returns:
            The answer of `work`, or the one it gave when the same request came before.

        Raises:
            CommandRefused: the rules or the request's key forbid it; nothing has changed.
            StoreUnavailable: the database does not answer; nothing has changed, unless it went away
                during the commit, and then the request's key shows whether it succeeded.
        """
        for _ in range(5):
            try:
                return self._operate_once(work, actor, reason, request, intent)
            except UniqueViolation as error:
                if error.diag.table_name != "idempotency_keys":
                    raise
                # The same request was served by another thread: read its answer.
            except UnknownLanes as error:
                self.lanes.intern(error.lanes)
        raise StoreUnavailable(
            "the same request is being served many times at once; send it again later"
        )

    def _operate_once(
        self,
        work: Callable[[Operation], Answer],
        actor: str,
        reason: str | None,
        request: RequestKey | None,
        intent: Intent | None,
    ) -> Answer:
        with self.datastore.writing() as db:
            if request is not None:
                kept = idempotency.find(db, request)
                if kept is not None:
                    return cast("Answer", kept.answer)
            operation = Operation(self, db, actor, reason, intent)
            answer = work(operation)
            if intent is not None and intent.dry_run:
                operation.roll_back()
            if request is not None:
                idempotency.keep(db, request, answer)
            operation.write()
        return answer


@dataclass(frozen=True, slots=True)
class Intent:
    """What people or policies want done to records.

    Attributes:
        action: its name; on every event. None for what is no action on records.
        operation_id: of an operation that is done in several transactions; None for a new one.
        undoes: the operation that is to be reversed.
        dry_run: only say what would happen.
    """

    action: Action | None
    operation_id: UUID | None = None
    undoes: UUID | None = None
    dry_run: bool = False


class Operation:
    """What one request changes: collected while it is decided, written once at the end."""

    def __init__(
        self,
        ledger: Ledger,
        db: Db,
        actor: str,
        reason: str | None,
        intent: Intent | None = None,
    ) -> None:
        """Begin an operation in the transaction that `db` is in."""
        self.ledger = ledger
        self.db = db
        self.id = (intent and intent.operation_id) or uuid4()
        self._intent = intent
        self._actor = actor
        self._reason = reason
        self._stamp: Stamp | None = None
        self._changes = Changes(ledger.lanes)
        self._shared = SharedChanges(ledger.lanes)
        self._shared_come_last = False

    @property
    def continues(self) -> bool:
        """Whether an earlier transaction has done a part of this operation."""
        return self._intent is not None and self._intent.operation_id is not None

    @property
    def stamp(self) -> Stamp:
        """What the events of this operation share.

        Read it when the locks are held: the time is the database's at the first reading, and
        nobody can have changed the locked records after it.
        """
        if self._stamp is None:
            self._stamp = Stamp(
                timestamp=one(self.db, _SQL["now"], prepare=True)[0],
                actor=self._actor,
                operation_id=self.id,
                reason=self._reason,
                action=None if self._intent is None else self._intent.action,
                undoes=None if self._intent is None else self._intent.undoes,
            )
        return self._stamp

    @property
    def has_changed(self) -> bool:
        """Whether anything has happened in this operation so far."""
        return bool(self._changes.happened or self._shared.classes)

    def lock(self, record_ids: Iterable[int]) -> dict[int, RecordAggregate]:
        """Lock records in the order of ids; return those that exist."""
        found = records.lock(self.db, sorted(set(record_ids)), self.ledger.lanes)
        return {record.id: record for record in found}

    def lock_classes(self, record_ids: Iterable[int]) -> list[RecordClass]:
        """Lock records in the order of ids; return those that exist, by classes of like ones."""
        return records.lock_classes(self.db, sorted(set(record_ids)), self.ledger.lanes)

    def happen_to_classes(
        self,
        event: Event,
        classes: Sequence[RecordClass],
        outcomes: Sequence[Outcome] | None = None,
    ) -> None:
        """Let one event happen to all records of these classes, which are locked and plain.

        With `outcomes`, of the records of the only class, each has its own instead of the event's.
        """
        if not self._shared.classes:
            self._shared_come_last = bool(self._changes.happened)
        self._shared.happen(event, classes, outcomes)

    def append_in_order(self, record_ids: Sequence[int]) -> None:
        """Let the log have what has happened to classes in this order of records."""
        self._shared.order = record_ids

    def happen(self, state: S, events: Iterable[Event]) -> S:
        """Apply events to a locked or new aggregate; return its new state."""
        return self._changes.happen(state, events)

    def happened_to(self, record_id: int) -> list[Event]:
        """Return the events of a record in this operation so far."""
        return [
            recorded.event
            for recorded in self._changes.happened
            if recorded.stream is Stream.record and recorded.number == record_id
        ]

    @contextmanager
    def savepoint(self) -> Generator[Transaction]:
        """Give a part of the transaction that `raise Rollback(...)` undoes, its locks included."""
        with self.db.connection.transaction() as part:
            yield part

    def roll_back(self) -> NoReturn:
        """Leave the transaction, and undo what was written in it: a dry run."""
        raise Rollback

    def write(self) -> None:
        """Write the projections, and then the events, whose lock must be held for a moment only.

        So what can be prepared is prepared first.
        """
        happened = self._changes.happened
        stored = self._stored()
        shared = self._shared.rows(self.ledger.event_mapper)
        # Shared events last: they count records, and others wait for these rows until the commit.
        if happened:
            inline.write(self.db, self._changes)
        if shared is not None:
            inline.write_shared(self.db, self._shared)
        if shared is not None and not self._shared_come_last:
            append_shared(self.db, *shared)
        if happened:
            append(self.db, stored, runs_of(recorded.event for recorded in happened))
        if shared is not None and self._shared_come_last:
            append_shared(self.db, *shared)

    def _stored(self) -> list[StoredEvent]:
        """Return the rows of the log; the bytes of an event that many records share, once."""
        mapper = self.ledger.event_mapper
        states: dict[int, bytes] = {}
        stored: list[StoredEvent] = []
        for recorded in self._changes.happened:
            key = id(recorded.event)
            if key not in states:
                states[key] = mapper.state_of(recorded.event)
            stored.append(
                StoredEvent(
                    recorded.originator_id, recorded.version, recorded.event.topic, states[key]
                )
            )
        return stored
