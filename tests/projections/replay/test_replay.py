"""Replay: what the log says is what the tables have, and what differs is found and named."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Iterator
from functools import partial
from itertools import count
from threading import Event as Signal
from typing import Any, Final, LiteralString
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from recordledger.domain.admin.access import Role
from recordledger.domain.admin.webhook import WebhookFilter
from recordledger.domain.errors import ImpossibleHistory, UnknownEvent, UnreadableEvent
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Event
from recordledger.domain.records.policies import PolicySettings
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream, stream_uuid
from recordledger.projections.actions import webhooks
from recordledger.projections.actions.bulk import AT_ONCE_MAX
from recordledger.projections.actions.bulk import order as bulk_order
from recordledger.projections.actions.managing import (
    deactivate_manager,
    lose_silent_managers,
    return_results,
)
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.actions.submission import create_records
from recordledger.projections.actions.tokens import issue_token, revoke_token
from recordledger.projections.ledger import Operation
from recordledger.projections.reading.queries import counts
from recordledger.projections.replay.replay import Difference, check_replay
from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import SelfAuditor
from recordledger.projections.tables import records
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.payloads import payload_of, store
from tests.domain.specification import live
from tests.postgres import new_database
from tests.sizes import N_HISTORIES_REPLAYED

from ..collection import Collection
from ..stage import ALICE, BOB, OK, Stage, bad, empty, entry, good, result, staged, together

# What the builders of `tests.examples` name.
CONTENTS: Final = (
    b"{}",
    b"-76.4",
    b"Traceback",
    b"state",
    b"no convergence",
    b"wrong minimum",
)


def furnish(stage: Stage) -> dict[Status, int]:
    """Let a little of everything happen; return a record in each status."""
    ids = dict(zip(Status, stage.submit(len(Status)), strict=True))
    manager_id = stage.manager("gpu", programs={"psi4": "1.9"})
    stage.happen(ids[Status.cancelled], e.Cancelled)
    stage.happen(ids[Status.held], e.Held)
    stage.happen(ids[Status.waiting], e.Held)
    held = stage.claim(manager_id)
    wrong = {id_: held[id_] for id_ in (ids[Status.error], ids[Status.failed])}
    right = {id_: held[id_] for id_ in (ids[Status.complete], ids[Status.invalid])}
    stage.hand_in(manager_id, wrong, bad())
    stage.hand_in(manager_id, right, good())
    stage.happen(ids[Status.deleted], e.SoftDeleted)
    stage.hand_in(manager_id, {ids[Status.deleted]: 1}, good(b"late"))
    stage.happen(ids[Status.failed], e.Failed)
    stage.happen(ids[Status.invalid], e.Invalidated)
    stage.happen(ids[Status.waiting], e.Released)
    stage.happen(ids[Status.waiting], e.Commented, text="a remark")
    stage.submit(3, tag="cpu", programs=["psi4>=1.9"], retries=2)
    (erased,) = stage.submit()
    stage.happen(erased, e.Erased)
    silent, gone = stage.manager(), stage.manager()
    stage.silence(silent)
    lose_silent_managers(stage.ledger)
    deactivate_manager(stage.ledger, gone, actor=BOB, owner=BOB)
    issue_token(stage.ledger, "alice", Role.user)
    revoked = issue_token(stage.ledger, "bob", Role.compute)
    revoke_token(stage.ledger, revoked.token.id, actor=ALICE)
    for status, record_id in ids.items():
        assert stage.status(record_id) is status
    return ids


def collected(stage: Stage) -> None:
    """Let all that can happen to datasets happen."""
    water = Collection.made(stage, 4, ("hf", "mp2"))
    water.submit()
    water.lock("v1")
    water.rename({"m1": "m2", "m2": "m1"})
    water.remove("m3")
    water.unlink(entries=("m4",))
    water.unspecify("mp2")
    twin, _ = water.clone("twin", link_records=True)
    twin.delete()


def arrived(stage: Stage) -> None:
    """Let a record come from another ledger."""
    (record_id,) = stage.submit()
    origin = {"origin_ledger": UUID(int=7), "origin_id": 1, "archive_digest": b"\7" * 32}
    stage.happen(record_id, e.Cancelled)
    stage.happen(record_id, e.Imported, **origin)


def told(stage: Stage) -> None:
    """Let all that can happen to webhooks happen."""
    for url in ("https://x.org/a", "https://x.org/b"):
        new = webhooks.add(
            stage.ledger, url, WebhookFilter(tags=("gpu",)), after=None, limit=9, actor=ALICE
        )
    changes: tuple[dict[str, Any], ...] = (
        {"enabled": False},
        {"enabled": True, "url": "https://x.org/c"},
    )
    for change in changes:
        webhooks.modify(stage.ledger, new.webhook.id, actor=ALICE, **change)
    webhooks.remove(stage.ledger, new.webhook.id, actor=ALICE)


@pytest.fixture(scope="module")
def furnished_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a ledger in which a little of everything has happened."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        with staged(url) as stage:
            furnish(stage)
            children = stage.submit(2)
            stage.service(*children)
            stage.order(Action.comment, children[0], text="a remark")
            # Too many for one transaction, so that there is a job.
            nobody = range(10**9, 10**9 + AT_ONCE_MAX + 1)
            bulk_order(stage.ledger, OperationRequest(Action.cancel), nobody, actor=ALICE)
            collected(stage)
            told(stage)
            arrived(stage)
            # A row was wrong for a while.
            stage.do("UPDATE records SET owner = 'eve' WHERE status = 'held'")
            with contextlib.closing(SelfAuditor(stage.ledger, share=1)) as self_audit:
                self_audit.lap()
            repair(stage.ledger, actor=ALICE)
            # A payload that nobody names is nobody's business.
            with stage.ledger.datastore.writing() as db:
                store(db, {payload_of(b"unnamed").digest: b"unnamed"})
            save(stage)
        yield url


@pytest.fixture
def furnished(furnished_url: str) -> Iterator[Stage]:
    """A stage on which a little of everything has happened; tests put back what they change."""
    with staged(furnished_url) as stage:
        yield stage


def schemas(stage: Stage) -> list[str]:
    return [row[0] for row in stage.ask("SELECT nspname FROM pg_namespace ORDER BY nspname")]


# Equal


def test_an_empty_ledger_is_equal(stage: Stage) -> None:
    report = check_replay(stage.ledger)
    assert report.equal
    assert (report.position, report.n_events) == (0, 0)


def test_a_ledger_in_which_everything_has_happened_is_equal(furnished: Stage) -> None:
    progress: list[tuple[int, int]] = []
    report = check_replay(furnished.ledger, progress=lambda done, of: progress.append((done, of)))
    assert report.equal
    assert report.n_events == furnished.head() > 40
    assert (report.position,) == furnished.ask("SELECT max(notification_id) FROM ledger_events")[0]
    assert progress[-1] == (report.n_events, report.n_events)
    for table in PROJECTIONS:
        with furnished.connected() as connection:
            assert connection.execute(SQL("SELECT FROM {}").format(Identifier(table))).rowcount > 0


def test_the_counts_are_what_a_recount_gives(furnished: Stage) -> None:
    recounted = furnished.ask("SELECT status, count(*) FROM records GROUP BY status")
    assert counts(furnished.ledger) == {Status(status): n for status, n in recounted}


# Nothing comes from the same place twice.
N_IMPORTS: Final = count(1)


@settings(
    deadline=None,
    max_examples=N_HISTORIES_REPLAYED,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@for_all(
    st.lists(st.lists(st.integers(0, 2**16), max_size=30), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_any_histories_leave_the_tables_as_the_log_says(
    reused_database_url: str, lives: list[list[int]], chance: random.Random
) -> None:
    # What was erased in the example before must not come back when this one stores it again.
    empty(reused_database_url)
    with staged(reused_database_url) as stage:
        write_in_any_order(stage, lives, chance)
        stage.require_equal()


def write_in_any_order(stage: Stage, lives: list[list[int]], chance: random.Random) -> None:
    """Write the histories of records in operations of some events of some records each."""
    stage.intern("cpu", ("psi4",))
    stage.intern("gpu", ("psi4",))
    with stage.ledger.datastore.writing() as db:
        ids = records.next_ids(db, len(lives))
    left = {
        id_: [
            event.model_copy(update={"origin_id": next(N_IMPORTS)})
            if isinstance(event, e.Imported)
            else event
            for event in live(choices)[0]
        ]
        for id_, choices in zip(ids, lives, strict=True)
    }
    while left := {id_: history for id_, history in left.items() if history}:
        chosen = chance.sample(sorted(left), chance.randint(1, len(left)))
        step: dict[int, list[Event]] = {}
        for id_ in chosen:
            n = chance.randint(1, 4)
            step[id_], left[id_] = left[id_][:n], left[id_][n:]
        # An erased record destroys contents that other records name later.
        with stage.ledger.datastore.writing() as db:
            store(db, {payload_of(content).digest: content for content in CONTENTS})
        stage.ledger.operate(partial(_happen, step), actor=ALICE)


def _happen(step: dict[int, list[Event]], operation: Operation) -> None:
    found = operation.lock(step)
    for id_, events in step.items():
        operation.happen(found.get(id_, RecordAggregate(id_)), events)


def test_it_stays_equal_while_writers_write(stage: Stage) -> None:
    stop = Signal()

    def write(seed: int) -> None:
        chance, manager_id = random.Random(seed), stage.manager()  # noqa: S311
        while not stop.is_set():
            stage.submit(chance.randint(1, 5), tag=chance.choice(["a", "b"]))
            held = stage.claim(manager_id, 4)
            kept = {id_: a for id_, a in held.items() if chance.random() < 0.8}
            stage.hand_in(manager_id, kept, chance.choice([good(), bad()]))

    def check() -> list[int]:
        try:
            return [_position_of_an_equal_replay(stage) for _ in range(6)]
        finally:
            stop.set()

    _, _, positions = together(partial(write, 1), partial(write, 2), check)
    assert positions == sorted(positions)
    assert positions[-1] > positions[0]
    stage.require_equal()


def _position_of_an_equal_replay(stage: Stage) -> int:
    report = check_replay(stage.ledger)
    assert [str(difference) for difference in report.differences] == []
    assert report.missing_payloads == []
    return report.position


def test_nothing_stays_behind(furnished: Stage) -> None:
    before = schemas(furnished)
    n = furnished.ask("SELECT count(*) FROM pg_class")
    check_replay(furnished.ledger)
    assert schemas(furnished) == before
    assert furnished.ask("SELECT count(*) FROM pg_class") == n


# In several processes


def test_several_processes_find_the_same(furnished: Stage) -> None:
    n = furnished.ask("SELECT count(*) FROM pg_class")
    report = check_replay(furnished.ledger, jobs=2)
    assert report.equal
    assert report.n_events == furnished.head()
    assert furnished.ask("SELECT count(*) FROM pg_class") == n
    statement, table, columns = CORRUPTIONS["a status"]
    with corrupted(furnished, statement):
        [difference] = check_replay(furnished.ledger, jobs=2).differences
        assert (difference.table, difference.columns) == (table, columns)


def test_what_comes_while_several_processes_fold_is_folded_too(stage: Stage) -> None:
    furnish(stage)
    n_before = stage.head()
    more: list[int] = []

    def happen(_done: int, _of: int) -> None:
        if not more:
            more.extend(stage.submit(3))
            stage.service(*more)
            stage.done(Action.comment, more[0], text="a remark")
            stage.happen(stage.submit()[0], e.Erased)
            collected(stage)
            furnish(stage)

    report = check_replay(stage.ledger, jobs=2, progress=happen)
    assert [str(each) for each in report.differences] == []
    assert report.equal
    assert report.n_events == stage.head() > 2 * n_before
    assert report.position == stage.newest()


def test_what_a_process_cannot_fold_is_named_as_if_it_were_here(stage: Stage) -> None:
    stage.submit()
    damage(stage, "UPDATE ledger_events SET topic = 'invented_later'")
    before = schemas(stage)
    with pytest.raises(UnknownEvent, match="unknown event invented_later") as unknown:
        check_replay(stage.ledger, jobs=2)
    assert (unknown.value.topic, unknown.value.version) == ("invented_later", None)
    assert schemas(stage) == before


def test_a_service_waits_for_services_and_all_are_counted_once(stage: Stage) -> None:
    """Parents come before their children here, and after them: ids say nothing about it."""
    below = stage.service(*stage.submit(2))
    above = stage.service(below, *stage.submit(1))
    (later,) = stage.services(1)
    stage.adopt_children(above, [later])
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id), good())
    stage.happen(below, e.Cancelled)
    stage.require_equal()


@pytest.mark.parametrize("is_first_late", [True, False])
@pytest.mark.parametrize("step", [1, -1])
def test_an_operation_that_did_several_things_has_the_same_name_in_any_order(
    stage: Stage, is_first_late: bool, step: int
) -> None:
    """One return adopts what came late, by a policy, and resets what went wrong, by another."""
    ids = stage.submit(2)
    manager_id = stage.manager()
    stage.claim(manager_id)
    late, wrong = ids if is_first_late else reversed(ids)
    stage.happen(late, e.LeaseExpired, attempt=1)
    results = [result(late, 1, good()), result(wrong, 1, bad())]
    policies = PolicySettings({"*": 1}, adopt_late_results=True)
    return_results(stage.ledger, manager_id, results[::step], user=BOB, policies=policies)
    assert stage.topics(late)[-1] == "result_adopted"
    assert stage.topics(wrong)[-1] == "reset"
    stage.require_equal()


# Different


CORRUPTIONS: Final[dict[str, tuple[LiteralString, str, tuple[str, ...]]]] = {
    "a status": (
        "UPDATE records SET status = 'complete' WHERE status = 'error'",
        "records",
        ("status",),
    ),
    "a version": (
        "UPDATE records SET version = version + 1 WHERE status = 'held'",
        "records",
        ("version",),
    ),
    "what it was": (
        "UPDATE records SET prior = '{complete}' WHERE status = 'cancelled'",
        "records",
        ("prior",),
    ),
    "a result": (
        "UPDATE records SET outcome = '\\x80' WHERE status = 'complete'",
        "records",
        ("outcome",),
    ),
    "an error's message": (
        "UPDATE records SET error_message = 'fine' WHERE status = 'failed'",
        "records",
        ("error_message",),
    ),
    "the holder": (
        "UPDATE records SET manager_id = 99, attempt = 7 WHERE status = 'running'",
        "records",
        ("attempt", "manager_id"),
    ),
    "a microsecond": (
        "UPDATE records SET created_at = created_at + interval '1 us' WHERE status = 'running'",
        "records",
        ("created_at",),
    ),
    "a value that became null": (
        "UPDATE records SET started_at = NULL WHERE status = 'complete'",
        "records",
        ("started_at",),
    ),
    "a missing record": ("DELETE FROM records WHERE status = 'invalid'", "records", ()),
    "an extra record": (
        "INSERT INTO records SELECT (jsonb_populate_record(r, '{\"id\": 999999}')).*"
        " FROM records r WHERE status = 'held'",
        "records",
        (),
    ),
    "a place in the queue": (
        "UPDATE claim_queue SET rank = -2"
        " WHERE record_id = (SELECT min(record_id) FROM claim_queue)",
        "claim_queue",
        (),
    ),
    "a missing place in the queue": (
        "DELETE FROM claim_queue WHERE record_id = (SELECT min(record_id) FROM claim_queue)",
        "claim_queue",
        (),
    ),
    "an extra place in the queue": (
        "INSERT INTO claim_queue SELECT lane_id, -priority, id FROM records WHERE status = 'held'",
        "claim_queue",
        (),
    ),
    "a count": (
        "UPDATE status_counts SET n_records = n_records + 1 WHERE status = 'running'",
        "status_counts",
        ("n_records",),
    ),
    "a missing count": ("DELETE FROM status_counts WHERE status = 'held'", "status_counts", ()),
    "an extra count": ("INSERT INTO status_counts VALUES (77, 'held', 1)", "status_counts", ()),
    "a missing reference": (
        "DELETE FROM payload_references WHERE number = (SELECT min(id) FROM records)",
        "payload_references",
        (),
    ),
    "an extra reference": (
        "INSERT INTO payload_references SELECT digest, 1, 1 FROM payloads"
        " WHERE digest NOT IN (SELECT digest FROM payload_references)",
        "payload_references",
        (),
    ),
    "a manager's state": (
        "UPDATE managers SET state = 'active' WHERE state = 'lost'",
        "managers",
        ("state",),
    ),
    "a manager's programs": (
        'UPDATE managers SET programs = programs || \'{"psi4": "2.0"}\' WHERE id = 1',
        "managers",
        ("programs",),
    ),
    "a missing manager": ("DELETE FROM managers WHERE state = 'inactive'", "managers", ()),
    "a token's role": (
        "UPDATE tokens SET role = 'admin' WHERE role = 'user'",
        "tokens",
        ("role",),
    ),
    "a service that waits for fewer children": (
        "UPDATE services SET n_open = 0 WHERE n_open > 0 AND status = 'running'",
        "services",
        ("due", "n_open"),
    ),
    "a child that is waited for no more": (
        "UPDATE service_children SET awaited = false WHERE awaited",
        "service_children",
        ("awaited",),
    ),
    "a token that is not revoked any more": (
        "UPDATE tokens SET revoked_at = NULL WHERE revoked_at IS NOT NULL",
        "tokens",
        ("revoked_at",),
    ),
    "a dataset's name": ("UPDATE datasets SET name = 'ice' WHERE id = 1", "datasets", ("name",)),
    "an entry that is back": (
        "UPDATE dataset_entries SET removed_in = NULL WHERE number = 3 AND dataset_id = 1",
        "dataset_entries",
        ("removed_in",),
    ),
    "a specification's function": (
        "UPDATE dataset_specifications SET function = 'f' WHERE dataset_id = 1 AND number = 1",
        "dataset_specifications",
        ("function",),
    ),
    "another record in a cell": (
        "UPDATE dataset_records SET record_id = 1 WHERE dataset_id = 1 AND removed_in IS NULL"
        " AND entry = 1",
        "dataset_records",
        ("record_id",),
    ),
    "a count of a dataset": (
        "UPDATE dataset_counts SET n_records = n_records + 1 WHERE n_records = 2",
        "dataset_counts",
        ("n_records",),
    ),
    "a missing version": ("DELETE FROM dataset_versions", "dataset_versions", ()),
    "an extra token": (
        "INSERT INTO tokens VALUES (99, 1, 'eve', 'admin', '\\x00', now())",
        "tokens",
        (),
    ),
    "a webhook that is elsewhere": (
        "UPDATE webhooks SET url = 'https://eve.org' WHERE state = 'enabled'",
        "webhooks",
        ("url",),
    ),
    "a user who did nothing": ("INSERT INTO user_blocks VALUES ('user:eve', 0)", "user_blocks", ()),
}


TABLES: Final = (*PROJECTIONS, "payloads")
# The columns of a table, but for those that PostgreSQL computes from the others.
_GIVEN: Final[LiteralString] = (
    "SELECT attname FROM pg_attribute"
    " WHERE attrelid = %s::regclass AND attnum > 0 AND attgenerated = ''"
)


def save(stage: Stage) -> None:
    """Keep a copy of every table, to put back from."""
    stage.do("CREATE SCHEMA saved")
    for table in map(Identifier, TABLES):
        with stage.connected() as connection:
            connection.execute(SQL("CREATE TABLE saved.{0} AS SELECT * FROM {0}").format(table))


@contextlib.contextmanager
def corrupted(stage: Stage, statement: LiteralString) -> Generator[None]:
    """Change the tables behind the ledger's back, and put them back afterwards."""
    assert stage.do(statement) > 0
    try:
        yield
    finally:
        with stage.connected() as connection, connection.transaction():
            for name in TABLES:
                table = Identifier(name)
                connection.execute(SQL("DELETE FROM {}").format(table))
                columns = connection.execute(_GIVEN, [name]).fetchall()
                connection.execute(
                    SQL("INSERT INTO {0} ({1}) SELECT {1} FROM saved.{0}").format(
                        table, SQL(", ").join(Identifier(name) for (name,) in columns)
                    )
                )


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_what_differs_is_found_and_named(furnished: Stage, what: str) -> None:
    statement, table, columns = CORRUPTIONS[what]
    with corrupted(furnished, statement):
        report = check_replay(furnished.ledger)
        assert not report.equal
        assert {difference.table for difference in report.differences} == {table}
        for difference in report.differences:
            line = str(difference)
            assert line.startswith(f"{table} ")
            assert "\n" not in line
            if columns:
                assert difference.columns == columns
                assert all(f"{column} is " in line for column in columns)
            else:
                assert (difference.live is None) or (difference.replayed is None)
                assert "the row is in" in line
    furnished.require_equal()


def test_a_payload_that_is_not_there_is_found(furnished: Stage) -> None:
    digest = payload_of(OK).digest
    named_by = furnished.ask(
        "SELECT number FROM payload_references WHERE digest = %s ORDER BY 1", [digest]
    )
    with corrupted(furnished, "DELETE FROM payloads WHERE size_bytes = 16"):
        report = check_replay(furnished.ledger)
        assert not report.equal
        assert report.differences == []
        assert report.missing_payloads == [(digest.hex(), record_id) for (record_id,) in named_by]


def test_a_count_of_zero_is_the_same_as_none(furnished: Stage) -> None:
    with corrupted(furnished, "INSERT INTO status_counts VALUES (77, 'held', 0)"):
        assert check_replay(furnished.ledger).equal


def test_only_the_first_differences_of_each_table_are_reported(furnished: Stage) -> None:
    n = furnished.do("SELECT FROM records")
    with corrupted(furnished, "UPDATE records SET owner = 'eve'"):
        report = check_replay(furnished.ledger, differences_max=3)
        assert [difference.table for difference in report.differences] == ["records"] * 3
        assert n > 3
        keys = [difference.key for difference in report.differences]
        assert keys == sorted(keys)


def test_a_difference_reads_as_a_sentence() -> None:
    live: dict[str, Any] = {"id": 411, "status": "complete", "version": 3}
    replayed = {**live, "status": "error", "version": 4}
    said = "status is 'complete', but the log has 'error'; version is 3, but the log has 4"
    assert str(Difference("records", (411,), live, replayed)) == f"records 411: {said}"
    assert "missing from the table" in str(Difference("records", (411,), None, replayed))
    assert "the row is in the table, but not in the log" in str(
        Difference("records", (411,), live, None)
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lanes SET tag = 'other' WHERE tag = 'cpu'",
        "UPDATE lanes SET required_programs = '{psi4}' WHERE tag = 'cpu'",
        "DELETE FROM lanes WHERE tag = 'cpu'",
    ],
)
def test_a_routing_key_that_was_changed_is_found(stage: Stage, statement: LiteralString) -> None:
    stage.submit(2, tag="gpu")
    ids = stage.submit(2, tag="cpu")
    assert stage.do(statement) == 1
    report = check_replay(stage.ledger)
    wrong = [each for each in report.differences if each.table == "records"]
    assert [(each.key, each.columns) for each in wrong] == [((id_,), ("lane_id",)) for id_ in ids]


# A log that is damaged


def damage(stage: Stage, *statements: str) -> None:
    """Do to the log what only an owner who is bent on it can do."""
    stage.do("GRANT ALL ON ledger_events TO CURRENT_USER")
    stage.do("ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_are_immutable")
    for statement in statements:
        assert stage.do(statement) > 0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM ledger_events WHERE originator_version = 2", "version 2 is missing"),
        ("DELETE FROM ledger_events WHERE originator_version = 1", "version 1 is missing"),
        (
            "UPDATE ledger_events SET topic = 'released' WHERE topic = 'held'",
            "released cannot happen to a record that is waiting",
        ),
        (
            "INSERT INTO ledger_events SELECT originator_id, originator_version + 1, topic, state"
            " FROM ledger_events WHERE topic = 'held'",
            "held cannot happen to a record that is held",
        ),
    ],
)
def test_a_log_that_cannot_have_come_to_be_is_refused(
    stage: Stage, statement: LiteralString, message: str
) -> None:
    (record_id,) = stage.submit()
    stage.happen(record_id, e.Held)
    if "released" not in statement and "INSERT" not in statement:
        stage.happen(record_id, e.Released)
    damage(stage, statement)
    before = schemas(stage)
    with pytest.raises(ImpossibleHistory, match=f"record {record_id}, .*{message}"):
        check_replay(stage.ledger)
    assert schemas(stage) == before


def test_an_event_of_a_later_version_of_the_code_is_not_passed_over(stage: Stage) -> None:
    stage.submit()
    damage(stage, "UPDATE ledger_events SET topic = 'invented_later'")
    with pytest.raises(UnknownEvent, match="invented_later"):
        check_replay(stage.ledger)


def test_bytes_that_are_no_event_are_not_passed_over(stage: Stage) -> None:
    stage.submit()
    damage(stage, "UPDATE ledger_events SET state = ''")
    with pytest.raises(UnreadableEvent, match="not a valid event created"):
        check_replay(stage.ledger)


@pytest.mark.parametrize(
    "stream",
    [
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0001-8000-000000000001",
        "00000000-0000-0003-ffff-ffffffffffff",
        "00000000-0001-0001-0000-000000000001",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ],
)
def test_a_stream_of_no_kind_is_not_passed_over(stage: Stage, stream: str) -> None:
    stage.submit()
    damage(stage, f"UPDATE ledger_events SET originator_id = '{stream}'")  # noqa: S608
    with pytest.raises(ImpossibleHistory, match="no such kind of stream"):
        check_replay(stage.ledger)


def test_the_end_of_a_history_that_was_cut_off_shows_in_the_tables(stage: Stage) -> None:
    one, two = stage.submit(2)
    stage.happen(two, e.Held)
    damage(stage, "DELETE FROM ledger_events WHERE topic = 'held'")
    report = check_replay(stage.ledger)
    found = {(difference.table, difference.key) for difference in report.differences}
    assert ("records", (two,)) in found
    assert ("records", (one,)) not in found


def test_events_of_a_stream_that_has_none_yet_are_refused(stage: Stage) -> None:
    create_records(stage.ledger, [entry(1)], actor=ALICE)
    with stage.connected() as connection:
        connection.execute(
            "INSERT INTO ledger_events SELECT %s, 1, topic, state FROM ledger_events",
            [stream_uuid(Stream.dataset, 1)],
        )
    with pytest.raises(ImpossibleHistory, match="dataset 1"):
        check_replay(stage.ledger)


# Size


def test_a_log_of_many_batches_is_replayed(stage: Stage) -> None:
    n = 12_000
    create_records(stage.ledger, [entry(1)] * n, actor=ALICE, find_existing=False)
    progress: list[int] = []
    report = check_replay(stage.ledger, progress=lambda done, _: progress.append(done))
    assert report.equal
    assert progress == sorted(progress)
    assert len(progress) > 2
    assert progress[-1] == n
