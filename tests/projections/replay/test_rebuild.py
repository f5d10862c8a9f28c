"""Rebuilding: new tables take the places of the live ones, and nobody is refused meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event as Signal
from typing import Final, LiteralString

import pytest

from recordledger.domain.errors import (
    ImpossibleHistory,
    InvalidInput,
    RebuildRunning,
    SchemaMismatch,
    StoreUnavailable,
)
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.projections.actions.submission import create_records
from recordledger.projections.reading.queries import counts
from recordledger.projections.replay import replay
from recordledger.projections.replay.rebuild import rebuild
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.replay.shadow import Shadow
from recordledger.projections.store.database import DEFAULT_SCHEMA
from recordledger.projections.tables.inline import PROJECTIONS

from ..stage import ALICE, Stage, bad, entry, good, staged, together
from ..tables.test_schema import catalogue
from .test_replay import CORRUPTIONS, collected, damage, furnish, schemas

# Another process that rebuilds, and says so when it is about to put the tables in place.
REBUILDER: Final = """
import sys
from recordledger.projections.replay import rebuild
from recordledger.projections.ledger import Ledger

def stop(*args, **options):
    print("ready", flush=True)
    sys.stdin.readline()

where = sys.argv[2]
if where == "folding":
    rebuild.fill = stop
else:
    rebuild._Switch.put_in_place = stop
rebuild.rebuild(Ledger(sys.argv[1]))
"""


@pytest.fixture
def furnished(stage: Stage) -> Stage:
    """A stage on which a little of everything has happened."""
    furnish(stage)
    children = stage.submit(2)
    stage.service(*children)
    stage.done(Action.comment, children[0], text="a remark")
    collected(stage)
    return stage


def oids(stage: Stage) -> dict[str, int]:
    """Return which table each name stands for."""
    rows = stage.ask(
        "SELECT relname, oid FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    return dict(rows)


# What is put in place


def test_every_projection_is_another_table_with_the_same_rows(furnished: Stage) -> None:
    before = oids(furnished)
    progress: list[tuple[int, int]] = []
    done = rebuild(furnished.ledger, progress=lambda n, of: progress.append((n, of)))
    assert done.tables == tuple(PROJECTIONS)
    assert done.n_events == furnished.head()
    assert done.position == furnished.newest()
    assert progress[-1] == (done.n_events, done.n_events)
    after = oids(furnished)
    assert {table for table in after if after[table] != before[table]} == set(PROJECTIONS)
    assert set(after) == set(before)
    furnished.require_equal()


def test_the_new_tables_are_as_the_schema_has_them(database_url: str) -> None:
    before = catalogue(database_url)
    with staged(database_url) as stage:
        furnish(stage)
        rebuild(stage.ledger)
    assert catalogue(database_url) == before


def test_settings_and_privileges_that_were_given_by_hand_are_kept(database_url: str) -> None:
    changes: tuple[LiteralString, ...] = (
        "ALTER TABLE records ALTER COLUMN owner SET STATISTICS 500",
        "ALTER TABLE records ALTER COLUMN tag SET (n_distinct = 7)",
        "ALTER TABLE records SET (toast.autovacuum_enabled = false)",
        "CREATE INDEX records_by_hand ON records (function) WHERE status = 'error'",
        "ALTER TABLE comments ADD CONSTRAINT once UNIQUE (record_id, commented_at, text)",
        "ALTER TABLE jobs ADD CONSTRAINT enough CHECK (n_total >= 0)",
        "GRANT SELECT, INSERT ON records TO PUBLIC",
        "GRANT SELECT (text) ON comments TO PUBLIC",
        "REVOKE TRUNCATE ON tokens FROM CURRENT_USER",
    )
    with staged(database_url) as stage:
        for change in changes:
            stage.do(change)
        before = catalogue(database_url)
        rebuild(stage.ledger)
        assert catalogue(database_url) == before


def test_only_the_tables_that_were_asked_for_are_replaced(furnished: Stage) -> None:
    before = oids(furnished)
    done = rebuild(furnished.ledger, only=["status_counts", "claim_queue"])
    assert set(done.tables) == {"claim_queue", "status_counts"}
    after = oids(furnished)
    assert {table for table in after if after[table] != before[table]} == set(done.tables)
    furnished.require_equal()


def test_a_table_that_is_no_projection_is_refused_by_name(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="ledger_events, nothing: no such projection"):
        rebuild(stage.ledger, only=["records", "nothing", "ledger_events"])


def test_signals_payloads_and_counters_stay(furnished: Stage) -> None:
    kept = (
        "SELECT * FROM manager_heartbeats ORDER BY 1",
        "SELECT * FROM service_leases ORDER BY 1",
        "SELECT * FROM idempotency_keys ORDER BY 1, 2",
        "SELECT digest, data FROM payloads ORDER BY 1",
        "SELECT * FROM lanes ORDER BY 1",
        "SELECT sequencename, last_value FROM pg_sequences"
        " WHERE schemaname = current_schema() ORDER BY 1",
    )
    before = [furnished.ask(question) for question in kept]
    rebuild(furnished.ledger)
    assert [furnished.ask(question) for question in kept] == before
    assert before[0]
    (newest,) = furnished.submit()
    assert newest == max(id_ for (id_,) in furnished.ask("SELECT id FROM records"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_corrupted_tables_are_mended(furnished: Stage, jobs: int) -> None:
    for statement, _, _ in CORRUPTIONS.values():
        furnished.do(statement)
    assert not check_replay(furnished.ledger).equal
    rebuild(furnished.ledger, jobs=jobs)
    furnished.require_equal()


# While others are at work


def test_four_writers_go_on_while_corrupted_tables_are_mended(stage: Stage) -> None:
    spoilt = stage.submit(40, tag="spoilt")
    stop, managers = Signal(), [stage.manager("a", "b") for _ in range(4)]
    for statement in (
        "UPDATE records SET owner = 'eve' WHERE tag = 'spoilt'",
        "UPDATE status_counts SET n_records = n_records + 5",
        "DELETE FROM claim_queue WHERE record_id < 20",
        "INSERT INTO comments VALUES (1, 99, now(), 'eve', 'never said')",
        "DELETE FROM payload_references WHERE number < 10",
    ):
        assert stage.do(statement) > 0

    def write(manager_id: int) -> set[int]:
        """Return what was acknowledged to be complete."""
        chance, done = random.Random(manager_id), set[int]()  # noqa: S311
        while not stop.is_set():
            stage.submit(chance.randint(1, 5), tag=chance.choice(["a", "b"]))
            held = stage.claim(manager_id, 4)
            stage.hand_in(manager_id, held, chance.choice([good(), bad()]))
            done.update(id_ for id_ in held)
            if done:
                stage.order(Action.comment, chance.choice(sorted(done)), text="a remark")
        return done

    def read() -> int:
        n = 0
        while not stop.is_set():
            assert sum(counts(stage.ledger).values()) >= len(spoilt)
            n += len(stage.record(spoilt[0]).tag)
        return n

    def mend() -> list[int]:
        try:
            return [rebuild(stage.ledger).position for _ in range(2)]
        finally:
            stop.set()

    *done, n_reads, positions = together(
        *(partial(write, manager_id) for manager_id in managers), read, mend
    )
    assert n_reads > 0
    assert positions == sorted(set(positions)), "nobody wrote meanwhile"
    for acknowledged in done:
        statuses = stage.statuses(*acknowledged)
        assert set(statuses) == acknowledged
        assert set(statuses.values()) <= {"complete", "error"}
    assert stage.n_deadlocks() == 0
    stage.require_equal()
    stage.require_sound()


def test_a_payload_that_was_given_up_and_then_named_again_is_not_destroyed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_SLICE", 1)

    def submit() -> int:
        return create_records(stage.ledger, [entry("the same")], actor=ALICE)["ids"][0]

    first, more = submit(), list[int]()

    def happen(_done: int, _of: int) -> None:
        if not more:
            stage.happen(first, e.Erased)
            more.append(submit())

    rebuild(stage.ledger, progress=happen)
    assert more
    stage.require_equal()


def test_prepared_statements_of_others_go_on_with_the_new_tables(stage: Stage) -> None:
    (record_id,) = stage.submit()
    question = "SELECT owner FROM records WHERE id = %s"
    with stage.connected() as other:
        for _ in range(3):
            other.execute(question, [record_id], prepare=True)
        stage.do("UPDATE records SET owner = 'eve'")
        assert other.execute(question, [record_id], prepare=True).fetchone() == ("eve",)
        rebuild(stage.ledger)
        assert other.execute(question, [record_id], prepare=True).fetchone() == ("user:alice",)


def test_it_gives_way_to_those_that_keep_a_table_locked(stage: Stage) -> None:
    stage.submit(3)
    before = oids(stage)
    with stage.connected() as other, other.transaction():
        other.execute("SELECT count(*) FROM comments")
        with pytest.raises(
            StoreUnavailable, match=r"the tables were locked .* Nothing was changed"
        ):
            rebuild(stage.ledger, patience_s=1.2)
        # Others were served meanwhile.
        stage.submit(2)
    assert oids(stage) == before
    stage.require_equal()


def test_a_second_rebuild_is_refused(stage: Stage) -> None:
    refused: list[BaseException] = []

    def again(_done: int, _of: int) -> None:
        if not refused:
            with pytest.raises(RebuildRunning, match="another rebuild of recordledger") as error:
                rebuild(stage.ledger)
            refused.append(error.value)

    stage.submit()
    rebuild(stage.ledger, progress=again)
    assert len(refused) == 1
    rebuild(stage.ledger)


def test_a_check_beside_a_rebuild_compares_tables_of_one_state(furnished: Stage) -> None:
    stop = Signal()

    def check() -> int:
        n = 0
        while not stop.is_set():
            assert [str(each) for each in check_replay(furnished.ledger).differences] == []
            n += 1
        return n

    def replace() -> None:
        try:
            for _ in range(3):
                rebuild(furnished.ledger)
        finally:
            stop.set()

    n_checks, _ = together(check, replace)
    assert n_checks > 0


# When it is interrupted


@pytest.fixture
def rebuilder(stage: Stage) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that rebuilds, and wait until it has come to a place."""
    started: list[subprocess.Popen[str]] = []

    def start(where: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", REBUILDER, stage.url, where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


@pytest.mark.parametrize("where", ["folding", "switching"])
def test_what_is_killed_leaves_the_live_tables_alone_and_the_next_one_cleans_up(
    stage: Stage, rebuilder: Callable[[str], subprocess.Popen[str]], where: str
) -> None:
    stage.submit(3)
    before, names = oids(stage), schemas(stage)
    process = rebuilder(where)
    assert len(schemas(stage)) == len(names) + 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage.wait(lambda: not stage.ask("SELECT FROM pg_locks WHERE locktype = 'advisory'"))
    assert oids(stage) == before
    stage.submit(1)
    stage.require_equal()
    assert len(schemas(stage)) == len(names) + 1
    rebuild(stage.ledger)
    assert schemas(stage) == names
    stage.require_equal()


def test_the_shadow_of_somebody_who_works_on_it_is_not_removed(stage: Stage) -> None:
    shadow = Shadow(DEFAULT_SCHEMA, PROJECTIONS)
    with stage.connected() as other, shadow.kept(other, logged=False):
        rebuild(stage.ledger)
        assert shadow.name in schemas(stage)
    assert shadow.name not in schemas(stage)


def test_a_log_that_cannot_be_folded_changes_no_table(stage: Stage) -> None:
    (record_id,) = stage.submit()
    stage.happen(record_id, e.Held)
    damage(stage, "UPDATE ledger_events SET topic = 'released' WHERE topic = 'held'")
    before, names = oids(stage), schemas(stage)
    with pytest.raises(ImpossibleHistory, match="released cannot happen"):
        rebuild(stage.ledger)
    assert oids(stage) == before
    assert schemas(stage) == names


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("CREATE VIEW seen AS SELECT id FROM records", "view seen of records"),
        (
            "CREATE TRIGGER mine AFTER UPDATE ON comments"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_history()",
            "trigger mine of comments",
        ),
        ("CREATE TABLE mine (id bigint REFERENCES records)", "foreign key mine_id_fkey of records"),
        ("CREATE STATISTICS mine ON tag, owner FROM records", "statistics mine of records"),
        ("ALTER TABLE jobs REPLICA IDENTITY FULL", "replica identity of its own of jobs"),
    ],
)
def test_what_new_tables_would_lack_is_named_and_nothing_is_done(
    database_url: str, made: str, named: str
) -> None:
    with staged(database_url) as stage:
        stage.submit()
        stage.do(made)
        before = oids(stage)
        with pytest.raises(SchemaMismatch, match=named):
            rebuild(stage.ledger)
        assert oids(stage) == before
