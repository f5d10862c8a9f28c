"""Hard deletion: what a record contained is destroyed, and that it was there stays known."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.events import Outcome
from recordledger.domain.records.record import fold
from recordledger.projections.actions.managing import claim, relinquish, return_results
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.actions.services import iterate_service
from recordledger.projections.actions.submission import NewRecord, create_records
from recordledger.projections.reading.queries import get_records
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.payloads import decompress
from recordledger.projections.tables.schema import migrate
from tests.postgres import new_database

from ..stage import ALICE, BOB, RUNNER, Stage, bad, entry, good, key, result, spec, staged, together


def stored(stage: Stage) -> set[bytes]:
    """Return the digests of all payloads."""
    return {row[0] for row in stage.ask("SELECT digest FROM payloads")}


def create(stage: Stage, *entries: NewRecord, find_existing: bool = False) -> list[int]:
    submitted = create_records(stage.ledger, entries, actor=ALICE, find_existing=find_existing)
    return submitted["ids"]


def test_its_payloads_are_destroyed_but_for_those_that_others_name(stage: Stage) -> None:
    shared, alone = entry("shared"), entry("alone")
    first, second, third = create(stage, shared, shared, alone)
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    stage.hand_in(manager_id, {first: held[first]}, good(b"only the first's"))
    stage.hand_in(manager_id, {second: held[second]}, good(b"both others'"))
    stage.hand_in(manager_id, {third: held[third]}, good(b"both others'"))
    everything = stored(stage)
    gone = {good(b"only the first's")[1].popitem()[0]}
    stage.done(Action.erase, first)
    assert stored(stage) == everything - gone
    stage.done(Action.erase, third)
    gone.add(spec("alone").payload.digest)
    assert stored(stage) == everything - gone
    stage.done(Action.erase, second)
    assert stored(stage) == set()
    stage.require_equal()


def test_all_that_was_ever_said_of_it_is_destroyed(stage: Stage) -> None:
    [child] = stage.submit(1)
    parent = stage.service(child)
    iterate_service(stage.ledger, parent, b'{"state":1}', [], runner=RUNNER, output=b"said")
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    relinquish(stage.ledger, manager_id, held, user=BOB)
    stage.hand_in(manager_id, held, good(b"late"))
    held = stage.claim(manager_id)
    stage.hand_in(manager_id, held, bad("OSError"))
    stage.done(Action.reset, child)
    stage.done(Action.adopt, child)
    assert len(stored(stage)) == 8
    stage.done(Action.erase, parent)
    assert stored(stage) == set()
    assert stage.ask("SELECT count(*) FROM payload_references") == [(0,)]
    stage.require_equal()


@pytest.mark.parametrize("n_times", [1, 100])  # As it is, and compressed.
def test_a_secret_is_nowhere_when_the_record_that_told_it_is_erased(
    stage: Stage, n_times: int
) -> None:
    secret = f"hunter2-{secrets.token_hex(8)}"
    said = f"{secret} " * n_times
    record_id, other = told(stage, said), stage.submit(1)[0]
    for id_ in (record_id, other):
        stage.done(Action.comment, id_, text="what both are told")
    assert {"payloads", "records", "comments"} == tables_with(stage, secret)
    stage.require_equal()
    stage.done(Action.erase, record_id, actor=BOB)
    assert tables_with(stage, secret) == set()
    assert stage.ask("SELECT record_id, text FROM comments") == [(other, "what both are told")]
    assert stage.events(record_id)[-1].actor == BOB
    stage.require_equal()


def told(stage: Stage, said: str) -> int:
    """Return a record that says this in every place where it can be said."""
    [record_id] = create_records(
        stage.ledger, [entry(said)], actor=ALICE, find_existing=True, request=key("submit")
    )["ids"]
    outcome, contents = bad("OSError", said.encode())
    output = good(f"{{{said}}}".encode())[1]
    [digest] = output
    outcome = outcome.model_copy(
        update={"stdout": e.Payload(digest=digest, size_bytes=len(output[digest]))}
    )
    manager_id = stage.manager()
    late = stage.claim(manager_id)[record_id]
    relinquish(stage.ledger, manager_id, {record_id: late}, user=BOB)
    [task] = claim(stage.ledger, manager_id, 1, user=BOB, request=key("claim"))["tasks"]
    for attempt in (task["attempt"], late):
        results = [result(record_id, attempt, (outcome, {**contents, **output}))]
        return_results(stage.ledger, manager_id, results, user=BOB, request=key(f"{attempt}"))
    stage.undo(stage.done(Action.reset, record_id))
    order = OperationRequest(Action.comment, text=said)
    manage(stage.ledger, order, [record_id], actor=ALICE, request=key("comment"))
    topics = stage.topics(record_id)
    assert topics[-5:] == ["errored", "late_result", "reset", "reverted", "commented"]
    assert stage.ask("SELECT count(*) FROM idempotency_keys") == [(5,)]
    return record_id


def tables_with(stage: Stage, secret: str) -> set[str]:
    """Return the tables that hold a text, compressed or not."""
    named = stage.ask("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    tables = [row[0] for row in named]
    assert {"ledger_events", "payloads", "idempotency_keys", *PROJECTIONS} <= set(tables)
    found: set[str] = set()
    with stage.connected() as connection:
        for table in tables:
            rows = connection.execute(SQL("SELECT * FROM {}").format(Identifier(table)))
            if any(secret.encode() in held for row in rows for held in held_in(row)):
                found.add(table)
    return found


def held_in(row: tuple[Any, ...]) -> Iterator[bytes]:
    """Give the values of a row as bytes; compressed ones, with or without a letter before, too."""
    for value in row:
        data = value if isinstance(value, bytes) else str(value).encode()
        yield data
        for start in (0, 1):
            if data[start : start + 4] == b"\x28\xb5\x2f\xfd":
                yield decompress(data[start:], 1 << 20)


def test_what_stood_in_events_before_is_still_read(stage: Stage) -> None:
    _, held = stage.running(1)
    [record_id] = held
    outcome = Outcome(error_type="OSError", error_message="the disk is full")
    stage.happen(record_id, e.Errored, attempt=1, outcome=outcome)
    stage.happen(record_id, e.Commented, text="no wonder")
    assert stage.ask("SELECT error_message FROM records") == [("the disk is full",)]
    assert stage.ask("SELECT text FROM comments") == [("no wonder",)]
    stage.undo(stage.done(Action.reset, record_id))
    assert stage.ask("SELECT error_message FROM records") == [("the disk is full",)]
    stage.require_equal()


def test_it_leaves_every_projection_and_its_bare_events_stay(stage: Stage) -> None:
    manager_id, held = stage.running(1)
    [record_id] = held
    stage.done(Action.comment, record_id, text="wrong minimum")
    operation = stage.done(Action.erase, record_id)
    assert get_records(stage.ledger, [record_id]) == {}
    kept = {"managers", "operations", "operation_changes", "status_counts", "tokens", "jobs"}
    kept |= {"user_blocks"}
    for table in set(PROJECTIONS) - kept:
        assert stage.ask(f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608
    assert stage.ask("SELECT sum(n_records) FROM status_counts") == [(0,)]
    history = stage.events(record_id)
    assert stage.topics(record_id) == ["created", "claimed", "commented", "erased"]
    assert (history[-1].actor, history[-1].operation_id) == (ALICE, operation)
    assert not fold(record_id, history).exists
    assert attempts(history)[1].ended_by == "erased"
    assert stage.hand_in(manager_id, held)["errors"][0][1] == "not_found"
    for action in set(Action) - {Action.undo}:
        managed = stage.order(action, record_id, text="hm", tag="cpu")
        assert [code for _, code, _ in managed["errors"]] == ["not_found"]
    stage.require_equal()


def test_its_id_is_not_given_to_another(stage: Stage) -> None:
    ids = stage.submit(3)
    stage.done(Action.erase, *ids)
    assert min(stage.submit(3)) > max(ids)


def test_the_same_specification_may_come_again(stage: Stage) -> None:
    [first] = create(stage, entry("again"), find_existing=True)
    stage.done(Action.erase, first)
    [second] = create(stage, entry("again"), find_existing=True)
    assert second > first
    assert spec("again").payload.digest in stored(stage)
    stage.require_equal()


def test_a_resubmission_outlives_the_record_that_it_was_made_from(stage: Stage) -> None:
    manager_id, held = stage.running(1)
    [old] = held
    stage.hand_in(manager_id, held, bad())
    new = stage.order(Action.resubmit, old)["new_ids"][0]
    stage.done(Action.erase, old)
    assert list(stage.claim(manager_id)) == [new]
    assert len(stored(stage)) == 1
    stage.require_equal()


def test_what_is_found_while_it_is_being_destroyed_never_dangles(stage: Stage) -> None:
    entries = [entry(f"contended {x}") for x in range(4)]

    def submit() -> list[int]:
        found: list[int] = []
        for round_ in range(25):
            found += create(stage, entries[round_ % 4], find_existing=True)
        return found

    def erase() -> None:
        for _ in range(40):
            ids = [row[0] for row in stage.ask("SELECT id FROM records ORDER BY id")]
            stage.order(Action.erase, *ids)

    works: list[Callable[[], object]] = [submit, submit, submit, erase]
    *found, _ = together(*works)
    there = stage.ask("SELECT id, spec FROM records")
    assert {row[1] for row in there} <= stored(stage)
    ever = {row[0] for row in stage.ask("SELECT record_id FROM operation_changes")}
    assert {id_ for ids in found for id_ in ids} <= ever | {row[0] for row in there}
    stage.require_equal()


@pytest.mark.parametrize("size_bytes", [60, 100_000])
def test_after_a_full_vacuum_the_bytes_are_not_in_the_tables_files_either(
    own_server: EmbeddedPostgres, size_bytes: int
) -> None:
    # A plain VACUUM frees the place, but leaves small values there until they are overwritten.
    marker = secrets.token_hex(16).encode()
    # Random, or it would be compressed and the marker could not be found.
    result = marker + secrets.token_bytes(size_bytes)
    with new_database(own_server.url) as url:
        migrate(url)
        with staged(url) as stage:
            manager_id, held = stage.running(2)
            first, second = held
            stage.hand_in(manager_id, {first: held[first]}, good(result))
            stage.hand_in(manager_id, {second: held[second]}, good(b"another"))
            assert marker in files_of(own_server, url, "payloads")
            stage.done(Action.erase, first)
            stage.do("VACUUM (FULL) payloads")
            assert marker not in files_of(own_server, url, "payloads")
            assert good(b"another")[1].popitem()[0] in stored(stage)


def test_after_a_full_vacuum_what_was_said_is_in_no_file_of_its_tables_and_in_no_statistics(
    own_server: EmbeddedPostgres,
) -> None:
    marker = secrets.token_hex(16)
    tables = ("payloads", "records", "comments")
    with new_database(own_server.url) as url:
        migrate(url)
        with staged(url) as stage:
            manager_id, held = stage.running(2)
            first, second = held
            stage.hand_in(manager_id, {first: held[first]}, bad("OSError", marker.encode()))
            stage.hand_in(manager_id, {second: held[second]}, bad("OSError"))
            stage.done(Action.comment, first, text=marker)
            stage.done(Action.comment, second, text="another")
            for table in tables:
                stage.do(f"ANALYZE {table}")
                assert marker.encode() in files_of(own_server, url, table)
            assert sampled(stage, marker)
            stage.done(Action.erase, first)
            for table in tables:
                stage.do(f"VACUUM (FULL, ANALYZE) {table}")
                assert marker.encode() not in files_of(own_server, url, table)
            assert not sampled(stage, marker)


def sampled(stage: Stage, text: str) -> set[str]:
    """Return of which tables the planner's statistics hold this text as an example."""
    rows = stage.ask(
        "SELECT tablename, most_common_vals::text, histogram_bounds::text FROM pg_stats"
        " WHERE schemaname = current_schema()"
    )
    wanted = (text, text.encode().hex())
    return {row[0] for row in rows if any(each in str(row) for each in wanted)}


def files_of(server: EmbeddedPostgres, url: str, table: str) -> bytes:
    """Return what the files of a table and its long values hold, after a checkpoint."""
    with psycopg.connect(server.admin_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    with staged(url) as stage:
        rows = stage.ask(
            "SELECT pg_relation_filepath(c.oid), pg_relation_filepath(c.reltoastrelid)"
            " FROM pg_class c WHERE c.oid = %s::regclass",
            [table],
        )
    return b"".join((server.data / path).read_bytes() for row in rows for path in row)
