"""Faults of the database: a clear refusal in time, nothing half-done, and then it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal
from typing import Final

import psycopg
import pytest

from recordledger.domain.errors import StorageFull, StoreUnavailable
from recordledger.projections.actions.managing import claim
from recordledger.projections.actions.submission import create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.reading.queries import counts, get_records, head
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.store.database import as_ledger_errors
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import check, migrate
from tests.postgres import new_database

from .stage import ALICE, BOB, Stage, entry, key, staged

TIMEOUT_S: Final = 0.5
# What is allowed on top of the timeout, on a machine that does other things too.
SLACK_S: Final = 3.0
RESUMES_WITHIN_S: Final = 10.0


def end_connections(stage: Stage) -> int:
    """End every other connection to the stage's database, as an administrator might."""
    return len(
        stage.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )


def end_during(stage: Stage, statement: str) -> Callable[[Operation], None]:
    """Return work that submits, and whose connection is ended while this statement runs."""

    def work(operation: Operation) -> None:
        pid = operation.db.connection.info.backend_pid
        operation.db.execute("SELECT nextval('record_ids')")
        under_way.set()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(stage.do, "SELECT pg_terminate_backend(%s)", [pid])
            operation.db.execute(statement.encode())

    under_way = Signal()
    return work


# One connection


def test_a_statement_whose_connection_is_ended_is_unavailable_and_the_next_call_works(
    stage: Stage,
) -> None:
    ids = stage.submit(3)
    work = end_during(stage, "SELECT pg_sleep(30)")
    with pytest.raises(StoreUnavailable, match="nothing was half-done") as unavailable:
        stage.ledger.operate(work, actor=ALICE, request=key())
    assert isinstance(unavailable.value.__cause__, psycopg.OperationalError)
    assert set(get_records(stage.ledger, ids)) == set(ids)
    assert stage.ask("SELECT count(*) FROM idempotency_keys") == [(0,)]
    stage.require_equal()


def test_a_statement_that_is_cancelled_is_unavailable_and_leaves_nothing(stage: Stage) -> None:
    def work(operation: Operation) -> None:
        operation.db.execute("SET LOCAL statement_timeout = '50ms'")
        operation.db.execute("INSERT INTO payloads SELECT sha256('x'), 1, 'raw', 'x'")
        operation.db.execute("SELECT pg_sleep(30)")

    with pytest.raises(StoreUnavailable, match="statement timeout"):
        stage.ledger.operate(work, actor=ALICE)
    assert stage.ask("SELECT count(*) FROM payloads") == [(0,)]


def test_a_deadlock_is_unavailable_to_one_and_the_other_goes_on(stage: Stage) -> None:
    one, two = stage.submit(2)
    first_has_one, second_has_two = Signal(), Signal()

    def hold(mine: int, then: int, said: Signal, heard: Signal) -> Callable[[Operation], str]:
        def work(operation: Operation) -> str:
            operation.lock([mine])
            said.set()
            assert heard.wait(timeout=20)
            operation.lock([then])
            return "done"

        return work

    def outcome(work: Callable[[Operation], str]) -> str:
        try:
            return stage.ledger.operate(work, actor=ALICE)
        except StoreUnavailable as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        works = (
            hold(one, two, first_has_one, second_has_two),
            hold(two, one, second_has_two, first_has_one),
        )
        answers = [future.result(timeout=30) for future in [pool.submit(outcome, w) for w in works]]
    assert sorted(answer == "done" for answer in answers) == [False, True]
    assert any("deadlock detected" in answer for answer in answers)


def test_connections_that_were_ended_while_idle_cost_one_refusal_each_at_most(
    stage: Stage,
) -> None:
    ids = stage.submit(3)
    n = end_connections(stage)
    refusals = 0
    for _ in range(n + 1):
        try:
            found = get_records(stage.ledger, ids)
        except StoreUnavailable:
            refusals += 1
            continue
        assert set(found) == set(ids)
    assert refusals <= n
    assert set(get_records(stage.ledger, ids)) == set(ids)


def test_a_mistake_in_our_own_sql_is_not_called_a_fault_of_the_database(stage: Stage) -> None:
    def work(operation: Operation) -> None:
        operation.db.execute("SELECT no_such_column")

    with pytest.raises(psycopg.errors.UndefinedColumn):
        stage.ledger.operate(work, actor=ALICE)
    assert stage.submit(1)


def test_an_exception_of_the_caller_goes_through_and_leaves_nothing(stage: Stage) -> None:
    def work(operation: Operation) -> None:
        operation.db.execute("INSERT INTO payloads SELECT sha256('x'), 1, 'raw', 'x'")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.ledger.operate(work, actor=ALICE, request=key())
    assert stage.ask("SELECT count(*) FROM payloads") == [(0,)]
    assert stage.ask("SELECT count(*) FROM idempotency_keys") == [(0,)]


def test_a_full_disk_is_said_to_be_one() -> None:
    with pytest.raises(StorageFull, match="Free some space"), as_ledger_errors():
        raise psycopg.errors.DiskFull("could not extend file: No space left on device")


def test_a_full_pool_is_unavailable_in_time(stage: Stage) -> None:
    with staged(stage.url, pool_size=1, timeout_s=0.2) as small:
        small.submit()
        with small.ledger.datastore.reading(), pytest.raises(StoreUnavailable):
            head(small.ledger)
        assert head(small.ledger) == 1


def test_a_ledger_with_one_connection_learns_the_lanes_of_others(stage: Stage) -> None:
    ids = stage.submit(2, tag="a", programs=["x"]) + stage.submit(tag="b")
    with staged(stage.url, pool_size=1, timeout_s=0.5) as small:
        assert set(get_records(small.ledger, ids)) == set(ids)
    with staged(stage.url, pool_size=1, timeout_s=0.5) as small:
        assert list(small.claim(small.manager("a", "b", programs={"x": None}))) == ids


# The whole server


@pytest.fixture
def hurt(own_server: EmbeddedPostgres) -> Iterator[Stage]:
    """A stage on a server that the test may stop; it runs again afterwards."""
    with new_database(own_server.url) as url:
        migrate(url)
        with staged(url, timeout_s=TIMEOUT_S) as stage:
            yield stage
        own_server.start()


def test_a_server_that_is_away_is_unavailable_in_time_and_then_all_goes_on(
    hurt: Stage, own_server: EmbeddedPostgres
) -> None:
    ids = hurt.submit(3)
    manager_id = hurt.manager()
    calls: list[Callable[[], object]] = [
        lambda: get_records(hurt.ledger, ids),
        lambda: create_records(hurt.ledger, [entry("new")], actor=ALICE, request=key()),
        lambda: claim(hurt.ledger, manager_id, 5, user=BOB),
        lambda: counts(hurt.ledger),
        lambda: check_replay(hurt.ledger),
        lambda: check(hurt.url),
        lambda: migrate(hurt.url),
    ]
    own_server.stop()
    for call in calls * 2:
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - begin < TIMEOUT_S + SLACK_S
    own_server.start()
    begin = time.monotonic()
    while True:
        try:
            found = get_records(hurt.ledger, ids)
            break
        except StoreUnavailable:
            assert time.monotonic() - begin < RESUMES_WITHIN_S
    assert set(found) == set(ids)
    submitted = create_records(hurt.ledger, [entry("new")], actor=ALICE, request=key())
    assert list(hurt.claim(manager_id)) == [*ids, *submitted["ids"]]
    hurt.require_equal()


def test_a_ledger_that_was_opened_while_the_server_was_away_finds_it_later(
    hurt: Stage, own_server: EmbeddedPostgres
) -> None:
    own_server.stop()
    with staged(hurt.url, timeout_s=TIMEOUT_S) as early:
        with pytest.raises(StoreUnavailable):
            head(early.ledger)
        own_server.start()
        begin = time.monotonic()
        while True:
            try:
                assert head(early.ledger) == 0
                break
            except StoreUnavailable:
                assert time.monotonic() - begin < RESUMES_WITHIN_S


def test_what_was_answered_is_there_after_a_restart(
    hurt: Stage, own_server: EmbeddedPostgres
) -> None:
    ids = hurt.submit(5)
    own_server.stop()
    own_server.start()
    with staged(hurt.url) as later:
        assert set(get_records(later.ledger, ids)) == set(ids)
        later.require_equal()
