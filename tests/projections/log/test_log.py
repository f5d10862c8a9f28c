"""The log: nobody rewrites it, any number of events fit in, and readers see them in order."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal
from typing import Final, LiteralString
from uuid import UUID

import pytest
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from psycopg import Rollback
from psycopg.errors import InsufficientPrivilege

from recordledger.domain.records.events import Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.streams import Stream, stream_number, stream_uuid
from recordledger.projections.actions.submission import create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.log.mapper import Recorded
from recordledger.projections.log.recorder import append
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import migrate
from tests.examples import commented, created
from tests.postgres import new_database, with_database

from ..stage import ALICE, Stage, entry, staged

REWRITES: Final[dict[str, LiteralString]] = {
    "update": "UPDATE ledger_events SET topic = 'erased'",
    "update of nothing": "UPDATE ledger_events SET topic = 'erased' WHERE false",
    "delete": "DELETE FROM ledger_events",
    "truncate": "TRUNCATE ledger_events",
    "truncate cascade": "TRUNCATE ledger_events RESTART IDENTITY CASCADE",
    "upsert": """INSERT INTO ledger_events SELECT * FROM ledger_events
                 ON CONFLICT (originator_id, originator_version) DO UPDATE SET topic = 'erased'""",
    "merge": """MERGE INTO ledger_events e USING (SELECT 1) AS one ON true
                WHEN MATCHED THEN UPDATE SET topic = 'erased'""",
    "through a query": """WITH gone AS (DELETE FROM ledger_events RETURNING *)
                          SELECT count(*) FROM gone""",
}

# Batches of writers, and how often one gives up at the very end.
N_WRITERS: Final = 4
N_BATCHES: Final = 60
BATCH_MAX: Final = 30


def stored(stage: Stage, record_id: int, n: int = 1, start: int = 1) -> list[StoredEvent]:
    """Return events of one stream as the log stores them."""
    mapper = stage.ledger.event_mapper
    return [
        mapper.to_stored_event(Recorded(Stream.record, record_id, version, commented(f"{version}")))
        for version in range(start, start + n)
    ]


# Nobody rewrites it


@pytest.fixture(scope="module")
def untouched(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A stage on a database that nobody but the migrations has prepared."""
    with new_database(postgres_server_url, template=migrated_template) as url, staged(url) as stage:
        stage.submit(2)
        yield stage


@pytest.fixture(scope="module")
def granted(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """The same, but the ledger's role has given itself every privilege."""
    with new_database(postgres_server_url, template=migrated_template) as url, staged(url) as stage:
        stage.submit(2)
        stage.do("GRANT ALL ON ledger_events TO CURRENT_USER")
        yield stage


@pytest.mark.parametrize("rewrite", REWRITES)
def test_the_ledgers_own_role_may_not_rewrite_history(untouched: Stage, rewrite: str) -> None:
    before = untouched.ask("SELECT * FROM ledger_events")
    with pytest.raises(InsufficientPrivilege, match="permission denied"):
        untouched.do(REWRITES[rewrite])
    assert untouched.ask("SELECT * FROM ledger_events") == before


@pytest.mark.parametrize("rewrite", REWRITES)
def test_taking_the_privileges_back_does_not_help(granted: Stage, rewrite: str) -> None:
    before = granted.ask("SELECT * FROM ledger_events")
    with pytest.raises(InsufficientPrivilege, match="append-only") as refused:
        granted.do(REWRITES[rewrite])
    assert "by a new event" in (refused.value.diag.message_hint or "")
    assert granted.ask("SELECT * FROM ledger_events") == before


@pytest.fixture(scope="module")
def superusers_stage(own_server: EmbeddedPostgres) -> Iterator[Stage]:
    """A stage whose ledger is that of the superuser."""
    with new_database(own_server.url) as url:
        migrate(url)
        name = url.partition("?")[0].rpartition("/")[2]
        with staged(with_database(own_server.admin_url, name)) as stage:
            stage.submit(2)
            yield stage


@pytest.mark.parametrize("role", ["origin", "local", "replica"])
@pytest.mark.parametrize("rewrite", REWRITES)
def test_even_the_superuser_may_not_rewrite_history(
    superusers_stage: Stage, rewrite: str, role: str
) -> None:
    stage = superusers_stage
    before = stage.ask("SELECT * FROM ledger_events")
    with stage.connected() as connection:
        who = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user")
        assert who.fetchone() == (True,)
        connection.execute("SELECT set_config('session_replication_role', %s, false)", [role])
        with pytest.raises(InsufficientPrivilege, match="append-only"):
            connection.execute(REWRITES[rewrite])
    assert stage.ask("SELECT * FROM ledger_events") == before


# The recorder


@pytest.mark.parametrize("n", [1, 5_000, 50_000])
def test_any_number_of_events_is_recorded_in_one_batch(stage: Stage, n: int) -> None:
    events = stored(stage, 1, n)
    positions = stage.ledger.recorder.insert_events(events)
    assert positions is not None
    assert len(positions) == n
    assert list(positions) == sorted(set(positions))
    rows = stage.ask("SELECT * FROM ledger_events ORDER BY notification_id")
    kept = [StoredEvent(row[0], row[1], row[2], row[3]) for row in rows]
    assert kept == events
    assert [row[4] for row in rows] == list(positions)


@pytest.mark.parametrize("n", [1, 5_000, 50_000])
def test_any_number_of_records_is_created_in_one_operation(stage: Stage, n: int) -> None:
    same = entry(priority=Priority.high)
    submitted = create_records(stage.ledger, [same] * n, actor=ALICE, find_existing=False)
    assert stage.head() == n
    assert stage.ask("SELECT count(*), count(DISTINCT id) FROM records") == [(n, n)]
    assert stage.queue() == submitted["ids"]
    assert stage.ask("SELECT status, n_records FROM status_counts") == [("waiting", n)]


def test_no_events_are_recorded_as_none(stage: Stage) -> None:
    assert stage.ledger.recorder.insert_events([]) == []
    assert stage.head() == 0


def test_of_two_with_the_same_version_the_second_is_refused_with_all_it_brings(
    stage: Stage,
) -> None:
    recorder = stage.ledger.recorder
    recorder.insert_events(stored(stage, 1, 3))
    with pytest.raises(IntegrityError):
        recorder.insert_events([*stored(stage, 2, 2), *stored(stage, 1, 1, start=3)])
    assert stage.head() == 3
    recorder.insert_events(stored(stage, 1, 1, start=4))
    assert stage.head() == 4


def test_an_operation_on_a_version_that_is_taken_changes_nothing(stage: Stage) -> None:
    stage.ledger.recorder.insert_events(stored(stage, 7, 1))
    stage.intern("gpu", ("psi4",))
    event = created()

    def work(operation: Operation) -> None:
        operation.happen(RecordAggregate(7), [event])

    with pytest.raises(IntegrityError):
        stage.ledger.operate(work, actor=ALICE)
    assert stage.head() == 1
    assert stage.ask("SELECT count(*) FROM records") == [(0,)]


# The library's own interface


def test_the_librarys_event_store_reads_the_log(stage: Stage) -> None:
    (record_id,) = stage.submit()
    manager_id = stage.manager()
    stage.claim(manager_id)
    stream = stream_uuid(Stream.record, record_id)
    found = list(stage.ledger.events.get(stream))
    assert [event.originator_version for event in found] == [1, 2]
    assert [event.originator_id for event in found] == [stream, stream]
    (last,) = stage.ledger.events.get(stream, desc=True, limit=1)
    assert isinstance(last, Recorded)
    assert (last.number, last.version, last.event.topic) == (record_id, 2, "claimed")
    assert list(stage.ledger.events.get(stream, gt=2)) == []


def test_the_librarys_event_store_writes_the_log(stage: Stage) -> None:
    (record_id,) = stage.submit()
    event = Recorded(Stream.record, record_id, 2, commented("by the library"))
    (recording,) = stage.ledger.events.put([event])
    assert recording.notification.id == stage.ledger.recorder.max_notification_id()
    assert list(stage.ledger.events.get(event.originator_id))[1] == event


def test_the_librarys_notification_log_reads_in_sections(stage: Stage) -> None:
    ids = stage.submit(25)
    log = stage.ledger.notification_log
    section = log["1,10"]
    seen: list[Notification] = [*section.items]
    while section.next_id is not None:
        section = log[section.next_id]
        seen += section.items
    assert [stream_number(UUID(str(each.originator_id)))[1] for each in seen] == ids
    assert [each.id for each in log.select(start=3, limit=4)] == [3, 4, 5, 6]


def test_the_librarys_recorder_selects_by_position_and_topic(stage: Stage) -> None:
    stage.submit(5)
    stage.claim(stage.manager(), 2)
    select = stage.ledger.recorder.select_notifications
    everything = select(start=None, limit=100)
    assert [each.topic for each in everything] == [
        *["created"] * 5,
        "manager_registered",
        *["claimed"] * 2,
    ]
    positions = [each.id for each in everything]
    assert positions == sorted(positions)
    claims = select(start=1, limit=100, topics=["claimed", "completed"])
    assert list(claims) == list(everything[6:])
    after = select(start=positions[2], limit=2, inclusive_of_start=False)
    assert list(after) == list(everything[3:5])
    assert list(select(start=1, limit=100, stop=positions[1])) == list(everything[:2])
    assert stage.ledger.recorder.max_notification_id() == positions[-1]


def test_a_subscription_receives_what_others_append(stage: Stage) -> None:
    first = stage.submit(3)
    received: list[int] = []
    all_there = Signal()

    def receive(subscription: Iterator[Notification]) -> None:
        for notification in subscription:
            received.append(stream_number(UUID(str(notification.originator_id)))[1])
            if len(received) == 700 + len(first):
                all_there.set()

    # Nothing polls here: without the NOTIFY of each commit, nothing after `first` would arrive.
    with (
        staged(stage.url) as other,
        stage.ledger.recorder.subscribe(gt=0, topics=["created"]) as subscription,
        ThreadPoolExecutor(1) as pool,
    ):
        listening = pool.submit(receive, subscription)
        try:
            later = [id_ for _ in range(7) for id_ in other.submit(100)]
            assert all_there.wait(timeout=20)
        finally:
            subscription.stop()
        listening.result(timeout=20)
    assert received == [*first, *later]


# Order


class _Reader:
    """One who asks again and again for what came after the last that it saw."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[int, str]] = []
        self.n_polls = 0
        self._url = url

    def poll_until(self, done: Signal) -> None:
        with staged(self._url) as stage, stage.connected() as connection:
            last_time = False
            while not last_time:
                last_time = done.is_set()
                self.n_polls += 1
                last = self.seen[-1][0] if self.seen else 0
                self.seen += connection.execute(
                    "SELECT notification_id, originator_id::text FROM ledger_events"
                    " WHERE notification_id > %s ORDER BY notification_id",
                    [last],
                ).fetchall()


def _write(url: str, writer: int, *, rolling_back: bool) -> int:
    """Append batches of random sizes; return how many events were committed."""
    chance = random.Random(writer)  # noqa: S311
    n = 0
    with staged(url) as stage, stage.ledger.datastore.reading():
        for batch in range(N_BATCHES):
            events = stored(stage, 1 + writer * N_BATCHES + batch, chance.randint(1, BATCH_MAX))
            with contextlib.suppress(Rollback), stage.ledger.datastore.writing() as db:
                append(db, events)
                # The commit comes later, and sooner or later than that of others.
                db.execute("SELECT pg_sleep(%s)", [chance.choice([0, 0, 0.001, 0.003])])
                if rolling_back and chance.random() < 0.4:
                    raise Rollback
                n += len(events)
    return n


@pytest.mark.parametrize("rolling_back", [False, True])
def test_a_reader_never_misses_what_comes_later_to_an_earlier_position(
    stage: Stage, *, rolling_back: bool
) -> None:
    reader, done = _Reader(stage.url), Signal()
    with ThreadPoolExecutor(N_WRITERS + 1) as pool:
        reading = pool.submit(reader.poll_until, done)
        writing = [
            pool.submit(_write, stage.url, writer, rolling_back=rolling_back)
            for writer in range(N_WRITERS)
        ]
        try:
            n = sum(each.result(timeout=60) for each in writing)
        finally:
            done.set()
        reading.result(timeout=60)
    there = stage.ask(
        "SELECT notification_id, originator_id::text FROM ledger_events ORDER BY notification_id"
    )
    assert len(there) == n > 0
    assert reader.seen == there
    assert reader.n_polls > N_WRITERS
    # Each batch stands together: nobody wrote between the beginning and the end of another.
    streams = [stream for _, stream in there]
    assert len(dict.fromkeys(streams)) == sum(
        1 for one, next_ in zip(["", *streams], streams, strict=False) if one != next_
    )


def test_every_event_says_who_when_why_and_in_which_operation(stage: Stage) -> None:
    before = stage.ask("SELECT clock_timestamp()")[0][0]
    submitted = create_records(stage.ledger, [entry(1), entry(2)], actor=ALICE, reason="a test")
    after = stage.ask("SELECT clock_timestamp()")[0][0]
    for record_id in submitted["ids"]:
        (event,) = stage.events(record_id)
        assert before < event.timestamp < after
        assert (event.actor, event.reason) == (ALICE, "a test")
        assert str(event.operation_id) == submitted["operation_id"]
