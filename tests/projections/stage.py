"""A stage: a ledger on a real database, and short ways to make things happen there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import count, islice
from threading import Barrier
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import TupleRow

from recordledger.domain.audit.invariants import TOO_SOON
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event, Kind, Outcome, Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.retries import NO_RETRY, Retry
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import Lane, parse_requirements
from recordledger.domain.routing.manager import ManagerAggregate
from recordledger.domain.specs.fingerprint import Specification, specify
from recordledger.projections.actions.bulk import Undone, undo
from recordledger.projections.actions.managing import (
    Registration,
    ReturnedResult,
    ReturnedResults,
    claim,
    lose_silent_managers,
    register_manager,
    return_results,
)
from recordledger.projections.actions.operations import Managed, OperationRequest, manage
from recordledger.projections.actions.services import finish_service, iterate_service, start_service
from recordledger.projections.actions.submission import NewRecord, create_records
from recordledger.projections.ledger import Ledger, Operation
from recordledger.projections.proof.audit import audit
from recordledger.projections.reading.queries import get_records, history
from recordledger.projections.replay.replay import ReplayReport, check_replay
from recordledger.projections.replay.shadow import Shadow
from recordledger.projections.store.database import DEFAULT_SCHEMA, connect
from recordledger.projections.tables import managers
from recordledger.projections.tables.idempotency import RequestKey
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.payloads import payload_of
from recordledger.projections.tables.records import COLUMNS

ALICE: Final = "user:alice"
BOB: Final = "user:bob"
"""Alice submits; Bob's token is the one of the managers."""

HOUR_S: Final = 3600.0
AT_ONCE_S: Final = 1e-6
"""Leases that never end during a test, and that have ended when one looks."""

GROWING: Final = ("version", "modified_at")
_FRESH: Final = count()
RUNNER: Final = "server:service-runner"

_LASTING: Final = ", ".join(name for name in COLUMNS if name not in GROWING)

# What an undo restores. Versions, times of change, comments and the lists of operations only grow.
IMAGE: Final = {
    "records": f"SELECT {_LASTING} FROM records ORDER BY id",  # noqa: S608
    "claim_queue": "SELECT * FROM claim_queue ORDER BY lane_id, rank, record_id",
    "status_counts": "SELECT * FROM status_counts WHERE n_records <> 0 ORDER BY lane_id, status",
    "dependencies": "SELECT * FROM dependencies ORDER BY parent_id, child_id",
    "payload_references": (
        "SELECT * FROM payload_references WHERE stream = 1"
        " AND digest <> ALL (SELECT sha256(convert_to(text, 'UTF8')) FROM comments)"
        " ORDER BY 1, 2, 3"
    ),
}

Held = dict[int, int]
"""Attempt numbers by record id."""

OK: Final = b'{"energy":-76.4}'
MESSAGE: Final = b"no convergence"
TRACEBACK: Final = b"Traceback (most recent call last): ..."


def spec(x: object = 0, *, function: str = "psi4", programs: Iterable[str] = ()) -> Specification:
    """Return a specification that differs from others by `x`."""
    return specify(function, {"x": x}, parse_requirements(programs), size_bytes_max=1 << 20)


def entry(
    x: object = 0,
    *,
    programs: Iterable[str] = (),
    tag: str = "gpu",
    priority: Priority = Priority.normal,
    retries: int = 0,
    retry: Retry = NO_RETRY,
) -> NewRecord:
    """Return an entry of a submission."""
    retry = Retry(retries) if retries else retry
    return NewRecord(spec(x, programs=programs), tag, priority, retry)


def good(result: bytes = OK) -> tuple[Outcome, dict[bytes, bytes]]:
    """Return the result or the error of an attempt that went well, and its contents by digest."""
    ref = payload_of(result)
    return Outcome(result=ref, compute_s=1.5), {ref.digest: result}


def bad(
    error_type: str = "ValueError", message: bytes = MESSAGE
) -> tuple[Outcome, dict[bytes, bytes]]:
    """Return the result or the error of an attempt that went wrong, and its contents by digest."""
    said, ref = payload_of(message), payload_of(TRACEBACK)
    outcome = Outcome(error_type=error_type, error_message=said, traceback=ref)
    return outcome, {said.digest: message, ref.digest: TRACEBACK}


def result(
    record_id: int, attempt: int, what: tuple[Outcome, Mapping[bytes, bytes]] | None = None
) -> ReturnedResult:
    """Return what a manager sends for one attempt; a good result if not said otherwise."""
    outcome, contents = what or good()
    return ReturnedResult(record_id, attempt, outcome, contents)


def key(name: str = "key", body: bytes = b"body", actor: str = ALICE) -> RequestKey:
    """Return what identifies a request."""
    return RequestKey(actor, name, body)


@dataclass
class Stage:
    """A ledger, and what a test does with it. Each method is one operation of somebody."""

    ledger: Ledger
    url: str
    schema: str = DEFAULT_SCHEMA
    n_deadlocks_before: int = 0
    _connection: Connection[TupleRow] | None = None

    # Users

    def submit(
        self,
        n: int = 1,
        *,
        programs: Iterable[str] = (),
        tag: str = "gpu",
        priority: Priority = Priority.normal,
        retries: int = 0,
        retry: Retry = NO_RETRY,
    ) -> list[int]:
        """Create records of new specifications; return their ids."""
        programs = tuple(programs)
        entries = [
            entry(
                f"new {x}",
                programs=programs,
                tag=tag,
                priority=priority,
                retries=retries,
                retry=retry,
            )
            for x in islice(_FRESH, n)
        ]
        return create_records(self.ledger, entries, actor=ALICE)["ids"]

    def happen(self, record_id: int, *event_types: type[Event], **fields: Any) -> RecordAggregate:
        """Let events happen to a record, as the commands of people will."""

        def work(operation: Operation) -> RecordAggregate:
            found = operation.lock([record_id])
            common = operation.stamp.model_dump() | fields
            events = [event_type(**common) for event_type in event_types]
            return operation.happen(found.get(record_id, RecordAggregate(record_id)), events)

        return self.ledger.operate(work, actor=ALICE)

    def intern(self, tag: str, programs: tuple[str, ...] = ()) -> None:
        """Give a routing key its number, as whoever reroutes a record must."""
        self.ledger.lanes.intern([Lane(tag, programs)])

    def service(self, *children: int, tag: str = "gpu") -> int:
        """Create a service that runs and waits for these children; return its id."""
        [service_id] = self.services(1, tag=tag)
        self.adopt_children(service_id, children)
        return service_id

    def services(self, n: int, *, tag: str = "gpu") -> list[int]:
        """Create services that wait to be started; return their ids."""
        entries = [
            NewRecord(spec(f"service {x}"), tag, Priority.normal, kind=Kind.service)
            for x in islice(_FRESH, n)
        ]
        return create_records(self.ledger, entries, actor=ALICE)["ids"]

    def adopt_children(self, service_id: int, children: Sequence[int]) -> None:
        """Let a service wait for children, and start it first if it does not run."""
        if self.status(service_id) is Status.waiting:
            start_service(self.ledger, service_id, runner=RUNNER)
        iterate_service(self.ledger, service_id, b"{}", children, runner=RUNNER)

    def finish(self, service_id: int, what: tuple[Outcome, Mapping[bytes, bytes]]) -> None:
        """Let a service end."""
        finish_service(self.ledger, service_id, *what, runner=RUNNER)

    def order(self, action: Action, *ids: int, actor: str = ALICE, **options: Any) -> Managed:
        """Do something to records, at once."""
        return manage(self.ledger, OperationRequest(action, **options), ids, actor=actor)

    def done(self, action: Action, *ids: int, **options: Any) -> UUID:
        """Do something to records, none of which may refuse; return the operation."""
        managed = self.order(action, *ids, **options)
        assert managed["errors"] == []
        return UUID(managed["operation_id"])

    def undo(self, operation: UUID, **how: Any) -> Undone:
        """Take an operation back."""
        return undo(self.ledger, operation, actor=ALICE, **how)

    # Managers

    def manager(
        self,
        *tags: str,
        programs: Mapping[str, str | None] | None = None,
        lease_s: float = HOUR_S,
        user: str = BOB,
    ) -> int:
        """Register a manager of these tags, or of any; return its id."""
        new = Registration(
            "cluster", "node7", tags or ("*",), dict(programs or {}), lease_s, lease_s / 4
        )
        return register_manager(self.ledger, new, actor=user)

    def claim(self, manager_id: int, limit: int = 100, user: str = BOB) -> Held:
        """Claim; return the attempts by record, in the order of the answer."""
        tasks = claim(self.ledger, manager_id, limit, user=user)["tasks"]
        return {task["record_id"]: task["attempt"] for task in tasks}

    def hand_in(
        self,
        manager_id: int,
        held: Mapping[int, int],
        what: tuple[Outcome, Mapping[bytes, bytes]] | None = None,
        user: str = BOB,
    ) -> ReturnedResults:
        """Return the same outcome for these attempts; a good one if not said otherwise."""
        results = [result(id_, attempt, what) for id_, attempt in held.items()]
        return return_results(self.ledger, manager_id, results, user=user)

    def lose_silent(self) -> None:
        """Declare lost the managers whose lease is over."""
        lose_silent_managers(self.ledger)

    def running(self, n: int = 1, **how: Any) -> tuple[int, Held]:
        """Submit records and let a new manager claim them; return it and what it has."""
        self.submit(n, **how)
        manager_id = self.manager()
        return manager_id, self.claim(manager_id)

    def wait(self, question: Callable[[], object], deadline_s: float = 20.0) -> None:
        """Return when the answer is true; fail if it does not become so in time."""
        until(question, self._beside(), deadline_s)

    def wait_until(self, moment: datetime | None) -> None:
        """Return when this time has come, by the database's clock."""
        assert moment is not None
        self.wait(lambda: self.ask("SELECT clock_timestamp() > %s", [moment])[0][0])

    # What there is

    def record(self, record_id: int) -> RecordAggregate:
        """Return a record as it is."""
        return get_records(self.ledger, [record_id])[record_id]

    def status(self, record_id: int) -> Status | None:
        """Return the status of a record."""
        return self.record(record_id).status

    def topics(self, record_id: int) -> list[str]:
        """Return what has happened to a record, by topic."""
        return [event.topic for event in self.events(record_id)]

    def events(self, record_id: int) -> list[Event]:
        """Return what has happened to a record."""
        return [placed.recorded.event for placed in history(self.ledger, record_id)]

    def state_of(self, manager_id: int) -> ManagerAggregate:
        """Return a manager as it is."""
        with self.ledger.datastore.reading() as db:
            return managers.get(db, manager_id)

    def statuses(self, *ids: int) -> dict[int, str]:
        """Return the statuses of the records that there are, by id."""
        return {id_: str(each.status) for id_, each in get_records(self.ledger, ids).items()}

    def image(self) -> dict[str, list[TupleRow]]:
        """Return the projections of records, but for what only counts or dates what was done."""
        return {table: self.ask(question) for table, question in IMAGE.items()}

    def queue(self) -> list[int]:
        """Return the ids in the claim queue, lane by lane, in the order of claiming."""
        rows = self.ask("SELECT record_id FROM claim_queue ORDER BY lane_id, rank, record_id")
        return [row[0] for row in rows]

    def head(self) -> int:
        """Return how many events the log has."""
        return int(self.ask("SELECT count(*) FROM ledger_events")[0][0])

    def newest(self) -> int:
        """Return the newest position of the log."""
        return int(self.ask("SELECT coalesce(max(notification_id), 0) FROM ledger_events")[0][0])

    def n_deadlocks(self) -> int:
        """Return how many deadlocks this database has had since the test began.

        Earlier tests have used the database too, and some of them want a deadlock.
        """
        question = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(self.ask(question)[0][0]) - self.n_deadlocks_before

    def replay(self, **how: Any) -> ReplayReport:
        """Compare the tables with what the log says, in a shadow that is made once."""
        return check_replay(self.ledger, shadow=shadow_of(self.url, self.schema), **how)

    def require_equal(self) -> None:
        """Fail, with the differences, unless the tables are what the log says."""
        report = self.replay()
        assert list(map(str, report.differences)) == []
        assert report.missing_payloads == []

    def require_sound(self, *, but: Sequence[str] = ()) -> None:
        """Fail, with what breaks them, unless all invariants hold; `but` are not asked for.

        Leases that were over too soon are let pass: `silence` lets them be over at will.
        """
        shadow = shadow_of(self.url, self.schema)
        report = audit(self.ledger, breaches_max=1_000, shadow=shadow)
        wrong = [
            f"{finding.name}: {breach}"
            for finding in report.findings
            for breach in finding.breaches
            if finding.name not in but and TOO_SOON not in breach.what
        ]
        assert wrong == []

    # The database itself

    def connected(self) -> contextlib.closing[Connection[TupleRow]]:
        """Return a new connection beside the ledger's, in autocommit mode."""
        return contextlib.closing(connect(self.url, self.schema))

    def ask(self, question: str, parameters: Sequence[Any] = ()) -> list[TupleRow]:
        """Return all rows of a query."""
        return self._beside().execute(question.encode(), parameters or None).fetchall()

    def do(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement behind the ledger's back; return how many rows it changed."""
        return self._beside().execute(statement.encode(), parameters or None).rowcount

    def _beside(self) -> Connection[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.url, self.schema)
        return self._connection

    def close(self) -> None:
        """Close the connection beside the ledger's, and the ledger."""
        if self._connection is not None:
            self._connection.close()
        self.ledger.close()

    def silence(self, manager_id: int) -> None:
        """Let a manager's lease be over, without waiting for it."""
        n = self.do(
            "UPDATE manager_heartbeats SET lease_expires_at = clock_timestamp() - interval '1 s'"
            " WHERE manager_id = %s",
            [manager_id],
        )
        assert n == 1


# A new schema takes thirty times as long, most of it for files. How the log refuses to be emptied
# is tested on databases that were never emptied like this.
_EMPTY: Final = """
    -- First what locks the table: VACUUM gives way to it now, and might wait for what follows.
    ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_are_immutable;
    GRANT ALL ON ledger_events TO CURRENT_USER;
    DELETE FROM ledger_events;
    DELETE FROM payloads;
    DELETE FROM lanes;
    DELETE FROM manager_heartbeats;
    DELETE FROM manager_failures;
    DELETE FROM service_leases;
    DELETE FROM self_audit_ranges;
    DELETE FROM idempotency_keys;
    DELETE FROM webhook_secrets;
    DELETE FROM webhook_deliveries;
    DELETE FROM webhook_attempts;
    DELETE FROM seals;
    DELETE FROM seal_tiles;
    DELETE FROM seal_keys;
    DELETE FROM timeline_marks;
    DELETE FROM timeline_counts;
    DELETE FROM record_states;
    DELETE FROM record_changes;
    UPDATE timeline SET position = 0, newest_id = 0, latest_at = NULL WHERE position > 0;
    {projections}
    ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_are_immutable;
    REVOKE UPDATE, DELETE, TRUNCATE ON ledger_events FROM CURRENT_USER;
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
      FROM pg_sequences
     WHERE schemaname = current_schema();
"""


# Shadows by the URL and the schema of the ledger; None where a replay has made one of its own.
_SHADOWS: Final[dict[tuple[str, str], Shadow | None]] = {}


def shadow_of(url: str, schema: str) -> Shadow | None:
    """Return the shadow that all replays of a ledger share, from the second one on.

    A replay that makes its own takes ten times as long, most of it for files of tables. Many
    ledgers are replayed only once.
    """
    place = url, schema
    if place not in _SHADOWS:
        _SHADOWS[place] = None
        return None
    # Not by a name of those that are removed when they are left over.
    name = f"{schema}_replayed"
    made = _SHADOWS[place] or Shadow(schema, PROJECTIONS, name)
    with contextlib.closing(connect(url, schema)) as connection, connection.transaction():
        # Whoever replaces the schema of the ledger takes the views of it away.
        there = connection.execute("SELECT to_regclass(%s)", [f'"{name}".ledger_events']).fetchone()
        if there == (None,):
            made.drop(connection)
            made.create(connection, logged=False)
            made.add_keys(connection)
    _SHADOWS[place] = made
    return made


def drop_shadow(url: str, schema: str) -> None:
    """Drop the shadow that all replays share: its views keep the live tables as they are."""
    with contextlib.closing(connect(url, schema)) as connection:
        Shadow(schema, PROJECTIONS, f"{schema}_replayed").drop(connection)


def empty(url: str) -> None:
    """Empty the ledger of a database, so that the next test may begin."""
    deletions = "".join(f"DELETE FROM {table};" for table in PROJECTIONS)  # noqa: S608
    with contextlib.closing(connect(url)) as connection:
        connection.execute(_EMPTY.format(projections=deletions).encode())


@contextlib.contextmanager
def staged(url: str, schema: str = DEFAULT_SCHEMA, **options: Any) -> Generator[Stage]:
    """Give a stage on a migrated database, and close its ledger at the end."""
    with contextlib.closing(Stage(Ledger(url, schema, **options), url, schema)) as stage:
        yield stage


def together(*works: Callable[[], object]) -> list[Any]:
    """Do several things at the same time, one in each thread; return their answers in order."""
    barrier = Barrier(len(works))

    def start(work: Callable[[], object]) -> object:
        barrier.wait(timeout=30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(start, w) for w in works]]


def until(question: Callable[[], object], connection: Connection[Any], deadline_s: float) -> None:
    """Ask again and again until the answer is true, for so long by the database's clock."""
    begin = _now_s(connection)
    while not question():
        assert _now_s(connection) < begin + deadline_s, "it did not happen in time"
        # Others need the processor more, if it is to happen.
        time.sleep(0.01)


def _now_s(connection: Connection[Any]) -> float:
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])
