"""Hard deletion: what a record contained is destroyed, and that it was there stays known."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import psycopg
import pytest

from recordledger.domain.attempts import attempts
from recordledger.domain.propagation import Action
from recordledger.domain.record import fold
from recordledger.projections.dispatch import relinquish
from recordledger.projections.embedded import EmbeddedPostgres
from recordledger.projections.queries import get_records
from recordledger.projections.replay import PROJECTIONS
from recordledger.projections.schema import migrate
from recordledger.projections.services import iterate_service
from recordledger.projections.submission import NewRecord, create_records
from tests.postgres import new_database

from .stage import ALICE, BOB, RUNNER, Stage, bad, entry, good, spec, staged, together


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
    assert len(stored(stage)) == 7
    stage.done(Action.erase, parent)
    assert stored(stage) == set()
    assert stage.ask("SELECT count(*) FROM payload_references") == [(0,)]
    stage.require_equal()


def test_it_leaves_every_projection_and_its_bare_events_stay(stage: Stage) -> None:
    manager_id, held = stage.running(1)
    [record_id] = held
    stage.done(Action.comment, record_id, text="wrong minimum")
    operation = stage.done(Action.erase, record_id)
    assert get_records(stage.ledger, [record_id]) == {}
    kept = {"managers", "operations", "operation_changes", "status_counts", "tokens", "jobs"}
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
