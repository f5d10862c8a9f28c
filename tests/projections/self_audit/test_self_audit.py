"""The self-audit: what was changed behind the ledger's back is found, told once, and put right."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Event as Signal
from typing import Final, LiteralString, NamedTuple

import pytest
from psycopg.sql import SQL, Identifier

from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream
from recordledger.projections.actions.bulk import AT_ONCE_MAX
from recordledger.projections.actions.bulk import order as bulk_order
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.log import user_blocks
from recordledger.projections.reading import event_log
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.self_audit import self_audit
from recordledger.projections.self_audit import user_blocks as block_audit
from recordledger.projections.self_audit.aggregates import OWNED
from recordledger.projections.self_audit.counts import COUNTED
from recordledger.projections.self_audit.repair import repair
from recordledger.projections.self_audit.self_audit import Lap, SelfAuditor, fault_of, state
from recordledger.projections.store.database import Db
from recordledger.projections.tables import divergences
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.payloads import payload_of, store
from tests.postgres import new_database

from ..replay.test_replay import CORRUPTIONS, arrived, collected, damage, furnish
from ..replay.test_replay import told as tell_webhooks
from ..stage import ALICE, Stage, bad, good, staged, together

ROOT: Final = "user:root"

EMPTIED: Final = [table for table in PROJECTIONS if table != "divergences"]

Named = tuple[str, tuple[str, ...], str, tuple[str, ...]]
"""A row that differs: its table, its key, what is wrong with it, and in which columns."""


class Watched(NamedTuple):
    """A ledger in which a little of everything has happened, and who audits it."""

    stage: Stage
    audit: SelfAuditor


@pytest.fixture(scope="module")
def watched(postgres_server_url: str, migrated_template: str) -> Iterator[Watched]:
    """Each test leaves it as it was, with the means of the self-audit."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as stage,
    ):
        furnish(stage)
        children = stage.submit(2)
        inner = stage.service(*stage.submit(1))
        stage.service(*children, inner)
        stage.order(Action.comment, children[0], text="a remark")
        nobody = range(10**9, 10**9 + AT_ONCE_MAX + 1)
        bulk_order(stage.ledger, OperationRequest(Action.cancel), nobody, actor=ALICE)
        collected(stage)
        tell_webhooks(stage)
        arrived(stage)
        with stage.ledger.datastore.writing() as db:
            store(db, {payload_of(b"unnamed").digest: b"unnamed"})
        audit = SelfAuditor(stage.ledger, share=1)
        assert found_in(audit.lap()) == set()
        yield Watched(stage, audit)
        audit.close()


@pytest.fixture
def audit(stage: Stage) -> Iterator[SelfAuditor]:
    """The self-audit of an empty ledger; it never rests."""
    made = SelfAuditor(stage.ledger, share=1)
    yield made
    made.close()


@pytest.fixture
def another(stage: Stage) -> Iterator[Callable[[], SelfAuditor]]:
    """Makes the self-audits of other processes."""
    with contextlib.ExitStack() as stack:

        def make() -> SelfAuditor:
            return stack.enter_context(contextlib.closing(SelfAuditor(stage.ledger, share=1)))

        yield make


def found_in(lap: Lap) -> set[Named]:
    """Return what a lap has found, which must have come to its end."""
    assert lap.is_whole
    assert lap.unreadable == {}
    return {(each.table, each.key, each.fault, each.columns) for each in lap.found}


def by_replay(stage: Stage) -> set[Named]:
    """Return what a whole replay finds. What PostgreSQL computes by itself is left out."""
    return {
        (
            each.table,
            tuple(map(str, each.key)),
            fault_of(each),
            tuple(name for name in each.columns if name != "due")
            if fault_of(each) == "changed"
            else (),
        )
        for each in check_replay(stage.ledger, differences_max=10_000).differences
    }


def told(stage: Stage) -> list[str]:
    """Return what the log says of divergences, as those read it who follow it."""
    kinds = frozenset({"divergence_found", "divergence_repaired", "divergence_gone"})
    which = event_log.EventFilter(kinds=kinds)
    events = event_log.page(stage.ledger, 0, 10_000, which).events
    return [placed.recorded.event.topic for placed in events]


def repaired(stage: Stage) -> None:
    """Put everything right that was found; nothing may refuse."""
    done = repair(stage.ledger, actor=ROOT, reason="a test")
    assert {each.refusal for each in done} == {None}
    # That ROOT did something in a block, the first repair there has noted already.
    assert {
        each.divergence.key[:1]
        for each in done
        if each.divergence.state != "repaired" and each.divergence.table == "user_blocks"
    } <= {(ROOT,)}
    assert {each.divergence.state for each in done if each.divergence.table != "user_blocks"} <= {
        "repaired"
    }


def require_round_trip(watched: Watched, *statements: str) -> set[Named]:
    """Change the tables: it must be found as replay finds it, told once, and put right."""
    stage, audit = watched
    n_told = len(told(stage))
    assert [statement for statement in statements if stage.do(statement) < 1] == []
    differences = by_replay(stage)
    assert differences
    assert found_in(audit.lap()) == differences
    assert found_in(audit.lap()) == set()
    assert told(stage)[n_told:] == ["divergence_found"] * len(differences)
    open_now = state(stage.ledger).divergences
    assert sum(open_now.values()) == len(differences)
    repaired(stage)
    stage.require_equal()
    lap = audit.lap()
    assert (lap.found, lap.gone) == ([], [])
    assert told(stage)[n_told + len(differences) :] == ["divergence_repaired"] * len(differences)
    assert state(stage.ledger).n_unproved == 0
    return differences


def test_every_table_is_looked_at() -> None:
    owned = {each.table for tables in OWNED.values() for each in tables}
    assert owned | set(COUNTED) == set(PROJECTIONS)


MORE: Final[dict[str, LiteralString]] = {
    "another child": "UPDATE dependencies SET child_id = child_id + 1000",
    "a comment's text": "UPDATE comments SET text = 'fine'",
    "an operation's actor": "UPDATE operations SET actor = 'user:eve', reason = 'none'",
    "an operation that changed more": "UPDATE operations SET n_changes = n_changes + 1",
    "a change of an operation": "UPDATE operation_changes SET version = version + 7",
    "an extra operation": (
        "INSERT INTO operations VALUES (gen_random_uuid(), 'cancel', 'eve', NULL, now(), NULL, 0)"
    ),
    "how far a job is": "UPDATE jobs SET n_done = 17",
    "what was rescued": "UPDATE rescue_counts SET core_ms = core_ms + 1",
    "an extra rescue": "INSERT INTO rescue_counts VALUES ('adopted', 1, 1, 1)",
    "a service's status": "UPDATE services SET status = 'complete', n_children = 9",
    "who waits for a service": "UPDATE services SET wanted = NOT wanted",
    "a child's place": "UPDATE service_children SET iteration = 7",
    "a reference of nobody": "UPDATE payload_references SET number = number + 5000",
    "a row far away": (
        "INSERT INTO records SELECT (jsonb_populate_record(r, '{\"id\": 1152921504606846976}')).*"
        " FROM records r WHERE status = 'held'"
    ),
    "a row before all": (
        "INSERT INTO managers SELECT (jsonb_populate_record(m, '{\"id\": -3}')).*"
        " FROM managers m WHERE id = 1"
    ),
    "blocks in which nobody did anything": (
        "INSERT INTO user_blocks VALUES ('user:eve', 0), ('user:eve', -1), ('user:eve', 1 << 50)"
    ),
    "who came from elsewhere": "UPDATE origins SET number = number + 5000",
    "a row and what is counted of it": (
        "WITH one AS (UPDATE records SET status = 'held' WHERE status = 'running')"
        " UPDATE status_counts SET n_records = n_records + 3 WHERE status = 'running'"
    ),
    "a queue that follows from a wrong row": (
        "WITH one AS (UPDATE records SET not_before = now() WHERE status = 'waiting'"
        "             RETURNING id)"
        " DELETE FROM claim_queue WHERE record_id IN (SELECT id FROM one)"
    ),
}


WATCHED: Final = [statement for statement, _, _ in CORRUPTIONS.values()]

# Each is found whatever else is wrong: so they are done in a few heaps.
HEAPS: Final[Mapping[str, Sequence[str]]] = {
    "half of them": WATCHED[::2],
    "the other half": WATCHED[1::2],
    "others": [*MORE.values()][::2],
    "still others": [*MORE.values()][1::2],
}


@pytest.mark.parametrize("heap", HEAPS)
def test_what_differs_is_found_named_once_and_put_right(watched: Watched, heap: str) -> None:
    found = require_round_trip(watched, *HEAPS[heap])
    assert len(found) >= len(HEAPS[heap])


def test_a_table_that_was_emptied_is_filled_again(watched: Watched) -> None:
    stage, audit = watched
    for tables in (EMPTIED[::2], EMPTIED[1::2]):
        with stage.connected() as connection:
            for table in map(Identifier, tables):
                assert connection.execute(SQL("DELETE FROM {}").format(table)).rowcount > 0
        found = found_in(audit.lap())
        assert found == by_replay(stage)
        assert {(table, "missing") for table in tables} <= {(each[0], each[2]) for each in found}
        repaired(stage)
        stage.require_equal()
        assert found_in(audit.lap()) == set()


def test_what_is_told_of_divergences_is_held_against_the_log_too(watched: Watched) -> None:
    stage, audit = watched
    stage.do("UPDATE records SET owner = 'eve' WHERE status = 'held'")
    assert len(audit.lap().found) == 1
    repaired(stage)
    assert stage.do("UPDATE divergences SET ended_by = 'eve', fault = 'extra'") > 0
    found = found_in(audit.lap())
    assert {(each[0], each[3]) for each in found} == {
        ("divergences", ("fault", "ended_by")),
        ("divergences", ("ended_by",)),
    } - ({("divergences", ("ended_by",))} if len({each[3] for each in found}) == 1 else set())
    repaired(stage)
    stage.require_equal()
    assert found_in(audit.lap()) == set()


# What was proved stays proved, and nothing else is


def test_nothing_is_folded_again_that_was_proved_and_not_touched(
    stage: Stage, audit: SelfAuditor, another: Callable[[], SelfAuditor]
) -> None:
    stage.submit(20)
    assert audit.lap().n_folded > 20
    assert audit.lap().n_folded == 0
    (one,) = stage.submit()
    assert audit.lap().n_folded == 1
    # Another process goes on where this one has ended.
    other = another()
    assert other.lap().n_folded <= 1
    stage.do("UPDATE records SET owner = 'eve' WHERE id = %s", [one])
    lap = other.lap()
    # The record, and the divergence itself.
    assert (lap.n_folded, [each.key for each in lap.found]) == (2, [(str(one),)])


def test_what_is_wrong_does_not_become_right_by_an_event(
    stage: Stage, audit: SelfAuditor, another: Callable[[], SelfAuditor]
) -> None:
    one, neighbour, other = stage.submit(3)
    audit.lap()
    stage.do("UPDATE records SET owner = 'eve' WHERE id = ANY(%s)", [[one, other]])
    # Both in the same range: one has an event of its own, the other's neighbour has.
    stage.happen(one, e.Held)
    stage.happen(neighbour, e.Held)
    expected = {("records", (str(id_),), "changed", ("owner",)) for id_ in (one, other)}
    assert found_in(audit.lap()) == expected
    assert found_in(audit.lap()) == set()
    # Nor by another process, or a later event.
    stage.happen(one, e.Released)
    assert another().lap().n_folded >= 2
    assert sum(state(stage.ledger).divergences.values()) == 2
    repaired(stage)
    stage.require_equal()


def test_a_row_that_was_put_back_to_what_it_was_before_an_event_is_found(
    stage: Stage, audit: SelfAuditor
) -> None:
    (one,) = stage.submit()
    audit.lap()
    stage.do("CREATE TEMPORARY TABLE before AS SELECT * FROM records")
    stage.happen(one, e.Held)
    stage.do("DELETE FROM records")
    stage.do("INSERT INTO records SELECT * FROM before")
    (found,) = found_in(audit.lap())
    assert found == ("records", (str(one),), "changed", ("status", "version", "modified_at"))


def test_what_an_event_puts_right_is_gone(stage: Stage, audit: SelfAuditor) -> None:
    one, other = stage.submit(2)
    stage.do("UPDATE records SET error_type = 'odd'")
    assert len(found_in(audit.lap())) == 2
    stage.happen(one, e.Held)
    stage.do("UPDATE records SET error_type = NULL WHERE id = %s", [other])
    lap = audit.lap()
    assert [each.state for each in lap.gone] == ["gone", "gone"]
    assert told(stage) == ["divergence_found"] * 2 + ["divergence_gone"] * 2
    assert state(stage.ledger).divergences == {}
    stage.require_equal()


def test_a_checksum_that_was_lost_or_changed_is_no_divergence(
    stage: Stage, audit: SelfAuditor
) -> None:
    stage.submit(5)
    audit.lap()
    stage.do("UPDATE self_audit_ranges SET checksums[3] = 17 WHERE stream = 1")
    lap = audit.lap()
    assert (lap.n_folded, lap.found) == (1, [])
    stage.do("DELETE FROM self_audit_ranges")
    assert found_in(audit.lap()) == set()
    assert audit.lap().n_folded == 0


def test_one_that_is_late_changes_nothing_of_what_another_has_proved(
    stage: Stage, another: Callable[[], SelfAuditor]
) -> None:
    first, second = another(), another()
    for audit in (first, second, first, second):
        stage.submit(2)
        assert found_in(audit.lap()) == set()
    stage.do("UPDATE records SET owner = 'eve' WHERE id = 1")
    assert [len(audit.lap().found) for audit in (second, first, second)] == [1, 0, 0]


def test_a_table_that_is_wrong_as_a_whole_does_not_fill_the_log(
    stage: Stage, audit: SelfAuditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergences, "OPEN_MAX", 10)
    stage.submit(25)
    audit.lap()
    stage.do("UPDATE records SET owner = 'eve'")
    for left in (25, 15, 5):
        audit.lap()
        assert sum(state(stage.ledger).divergences.values()) == min(10, left)
        assert state(stage.ledger).n_unproved == left
        repaired(stage)
    assert found_in(audit.lap()) == set()
    stage.require_equal()


def test_what_is_counted_is_repaired_after_what_it_is_counted_from(
    stage: Stage, audit: SelfAuditor
) -> None:
    stage.submit(3)
    stage.do("UPDATE records SET status = 'held' WHERE id = 1")
    stage.do("UPDATE status_counts SET n_records = 7")
    assert {each.table for each in audit.lap().found} == {"records", "status_counts"}
    (refused,) = repair(stage.ledger, actor=ROOT, table="status_counts")
    assert refused.refusal == "first repair what it is counted from, such as records 1"
    assert refused.divergence.state == "open"
    assert [each.divergence.state for each in repair(stage.ledger, actor=ROOT)] == ["repaired"] * 2
    stage.require_equal()


def test_one_row_can_be_repaired_and_others_left(stage: Stage, audit: SelfAuditor) -> None:
    stage.submit(3)
    stage.do("UPDATE records SET owner = 'eve'")
    audit.lap()
    (done,) = repair(stage.ledger, actor=ROOT, reason="mine", table="records", key=("2",))
    assert (done.divergence.state, done.divergence.ended_by) == ("repaired", ROOT)
    assert state(stage.ledger).divergences == {"records": 2}
    owners = stage.ask("SELECT id, owner FROM records ORDER BY id")
    assert owners == [(1, "eve"), (2, ALICE), (3, "eve")]
    assert repair(stage.ledger, actor=ROOT, table="records", key=("2",)) == []


def test_a_history_that_cannot_be_folded_is_said_and_hides_nothing(
    stage: Stage, audit: SelfAuditor
) -> None:
    one, other = stage.submit(2)
    damage(stage, "UPDATE ledger_events SET state = '' WHERE notification_id = 1")
    stage.do("UPDATE records SET owner = 'eve' WHERE id = %s", [other])
    lap = audit.lap()
    assert [number for _, number in lap.unreadable] == [one]
    assert [each.key for each in lap.found] == [(str(other),)]


# Where users have done something


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks of the log that are read, of which each is a stretch of its own here."""
    blocks: list[int] = []
    between = user_blocks.between

    def noting(db: Db, first: int, last: int) -> set[user_blocks.Noted]:
        blocks.append(first // user_blocks.BLOCK_SIZE)
        return between(db, first, last)

    monkeypatch.setattr(user_blocks, "between", noting)
    monkeypatch.setattr(block_audit, "_BLOCKS", 1)
    monkeypatch.setattr(block_audit, "_STRETCH", user_blocks.BLOCK_SIZE)
    monkeypatch.setattr(self_audit, "_STRETCHES_A_LAP", 100)
    return blocks


def test_the_log_is_read_once_for_what_users_did(
    stage: Stage, audit: SelfAuditor, read: list[int]
) -> None:
    stage.submit(5 * user_blocks.BLOCK_SIZE)
    assert found_in(audit.lap()) == set()
    assert read == [0, 1, 2, 3, 4, 5]
    stage.submit(1)
    audit.lap()
    assert read[6:] == [5]
    audit.lap()
    assert read[7:] == []


def test_a_long_log_is_read_in_many_laps_and_nothing_is_said_of_the_rest(
    stage: Stage, audit: SelfAuditor, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_audit, "_STRETCHES_A_LAP", 1)
    stage.submit(5 * user_blocks.BLOCK_SIZE)
    stage.do("DELETE FROM user_blocks WHERE block = 4")
    stage.do("INSERT INTO user_blocks VALUES ('user:eve', 5), ('user:eve', 6)")
    # Beyond the head of the log nobody can have done anything; to be sure, it goes round twice.
    assert {key for _, (_, key), _, _ in found_in(audit.lap())} == {"6"}
    assert read == [0, 1, 2, 3]
    assert {key for _, (_, key), _, _ in found_in(audit.lap())} == {"4", "5"}
    assert read[4:6] == [4, 5]
    assert found_in(audit.lap()) == set()


def test_a_block_that_is_wrong_is_read_until_it_is_right(
    stage: Stage, audit: SelfAuditor, read: list[int]
) -> None:
    stage.submit(3 * user_blocks.BLOCK_SIZE)
    audit.lap()
    read.clear()
    stage.do("DELETE FROM user_blocks WHERE block = 1")
    stage.do("INSERT INTO user_blocks VALUES ('user:eve', 3), ('user:eve', -7)")
    assert found_in(audit.lap()) == {
        ("user_blocks", (ALICE, "1"), "missing", ()),
        ("user_blocks", ("user:eve", "3"), "extra", ()),
        ("user_blocks", ("user:eve", "-7"), "extra", ()),
    }
    assert set(read) == {1}
    audit.lap()
    repaired(stage)
    audit.lap()
    read.clear()
    assert found_in(audit.lap()) == set()
    assert 1 not in read
    stage.require_equal()


def test_nobody_knows_who_did_what_cannot_be_read(
    stage: Stage, audit: SelfAuditor, read: list[int]
) -> None:
    stage.submit(3 * user_blocks.BLOCK_SIZE)
    damage(stage, "UPDATE ledger_events SET state = '' WHERE notification_id = 70")
    stage.do("DELETE FROM user_blocks")
    lap = audit.lap()
    assert {each.key[1] for each in lap.found if each.table == "user_blocks"} == {"0", "2", "3"}
    assert list(lap.unreadable) == [(Stream.record, 70)]


def test_what_could_be_read_once_and_cannot_any_more_is_neither_gone_nor_repaired(
    stage: Stage, audit: SelfAuditor, read: list[int]
) -> None:
    stage.submit(3 * user_blocks.BLOCK_SIZE)
    audit.lap()
    stage.do("DELETE FROM user_blocks WHERE block = 1")
    stage.do("UPDATE records SET owner = 'eve' WHERE id = 70")
    wrong = {("user_blocks", (ALICE, "1")), ("records", ("70",))}
    assert {each[:2] for each in found_in(audit.lap())} == wrong
    damage(stage, "UPDATE ledger_events SET state = '' WHERE notification_id = 70")
    stage.do("UPDATE self_audit_ranges SET checksums = '{}' WHERE stream = 1")
    lap = audit.lap()
    assert (lap.found, lap.gone, list(lap.unreadable)) == ([], [], [(Stream.record, 70)])
    done = repair(stage.ledger, actor=ROOT)
    assert {(each.divergence.table, each.divergence.key) for each in done} == wrong
    assert {each.divergence.state for each in done} == {"open"}
    assert all(
        "the right row cannot be computed from the log" in (each.refusal or "") for each in done
    )
    assert len(audit.lap().gone) == 0


# While others write


def write_until(stage: Stage, stop: Signal, seed: int) -> None:
    """Do what users and managers do, until it is enough."""
    chance, manager_id = random.Random(seed), stage.manager()  # noqa: S311
    while not stop.is_set():
        ids = stage.submit(chance.randint(1, 4), tag=chance.choice(["a", "b"]))
        if chance.random() < 0.3:
            stage.order(chance.choice([Action.hold, Action.cancel]), *ids)
        if chance.random() < 0.2:
            stage.service(*stage.submit(2))
        held = stage.claim(manager_id, 4)
        stage.hand_in(manager_id, held, chance.choice([good(), bad()]))


def test_there_is_no_false_alarm_while_others_write(stage: Stage, audit: SelfAuditor) -> None:
    stop = Signal()

    def look() -> int:
        try:
            laps = [audit.lap() for _ in range(6)]
            assert [found_in(lap) for lap in laps] == [set()] * len(laps)
            assert not any(lap.certain for lap in laps)
            stage.do("UPDATE records SET owner = 'eve' WHERE id IN (1, 2)")
            found = [each.key for each in audit.lap().found]
            assert sorted(found) == [("1",), ("2",)]
            stage.do("UPDATE status_counts SET n_records = n_records + 5 WHERE status = 'complete'")
            counted = audit.lap()
            assert {each.table for each in counted.found} == {"status_counts"}
            assert counted.certain
            repaired(stage)
            assert found_in(audit.lap()) == set()
            return sum(lap.n_folded for lap in laps)
        finally:
            stop.set()

    writers = [partial(write_until, stage, stop, seed) for seed in range(4)]
    *_, n_folded = together(*writers, look)
    assert n_folded > 0
    stage.require_equal()
    assert stage.n_deadlocks() == 0


def test_repairs_and_commands_lose_nothing_of_each_other(stage: Stage, audit: SelfAuditor) -> None:
    ids = stage.submit(6)
    stop = Signal()

    def command(record_id: int) -> int:
        n = 0
        while not stop.is_set():
            stage.happen(record_id, e.Held if n % 2 == 0 else e.Released)
            n += 1
        return n

    def mend() -> None:
        try:
            for _ in range(2):
                stage.do("UPDATE records SET owner = 'eve', retries = 9 WHERE id = ANY(%s)", [ids])
                stage.do("UPDATE status_counts SET n_records = n_records + 1")
                audit.lap()
                repaired(stage)
        finally:
            stop.set()

    *counts, _ = together(*(partial(command, id_) for id_ in ids[:3]), mend)
    for record_id, n in zip(ids, counts, strict=False):
        assert stage.record(record_id).version == 1 + n
    stage.require_equal()
    assert found_in(audit.lap()) == set()
    assert stage.n_deadlocks() == 0


def test_a_row_that_is_missing_can_be_used_again_when_it_is_back(
    stage: Stage, audit: SelfAuditor
) -> None:
    (one,) = stage.submit()
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    stage.do("DELETE FROM records")
    audit.lap()
    repaired(stage)
    assert stage.record(one).status is Status.running
    stage.hand_in(manager_id, held)
    assert stage.status(one) is Status.complete
    stage.require_equal()


# What is said of it


def test_the_state_says_how_far_it_is_and_how_old(stage: Stage, audit: SelfAuditor) -> None:
    before = state(stage.ledger)
    assert (before.age_s, before.n_ranges, before.divergences) == (None, 0, {})
    assert before.n_unproved > 0
    stage.submit(3)
    audit.lap()
    after = state(stage.ledger)
    assert after.age_s is not None
    assert 0 <= after.age_s < 60
    assert (after.n_unproved, after.position) == (0, stage.newest())
    stage.do(
        "UPDATE self_audit_ranges SET looked_at = looked_at - interval '90 s' WHERE stream = 2"
    )
    assert (state(stage.ledger).age_s or 0) > 90


def test_a_stopped_lap_begins_anew(stage: Stage, audit: SelfAuditor) -> None:
    stage.submit(3)
    stop = Signal()
    stop.set()
    assert not audit.lap(stop).is_whole
    assert state(stage.ledger).n_ranges == 0
    assert audit.lap().is_whole


def test_what_is_new_has_its_turn_however_long_the_rest_takes(
    stage: Stage, audit: SelfAuditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_audit, "_KNOWN_BEFORE_NEW", 2)
    monkeypatch.setitem(self_audit.SIZES, Stream.record, 4)
    stage.submit(7)
    audit.lap()
    stage.submit(40)
    hurried = SelfAuditor(stage.ledger, every_s=0, share=1)
    n_new = [hurried.lap().n_new for _ in range(4)]
    hurried.close()
    assert n_new == sorted(n_new, reverse=True)
    assert n_new[0] > n_new[-1]
