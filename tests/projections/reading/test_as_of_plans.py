"""Query plans of questions about the past: they go through the indexes, however long the log is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import pytest

from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.status import Status
from recordledger.projections.reading import as_of, diff, timeline
from recordledger.projections.reading.as_of import Moment
from recordledger.projections.reading.diff import Between, ChangeFilter
from recordledger.projections.store.statements import statements
from tests.postgres import new_database

from ..stage import Stage, staged
from ..test_plans import Explained, Work, explain

N_RECORDS: Final = 20_000
N_EVENTS: Final = 120_000
LARGE: Final = frozenset({"ledger_events", "record_states", "record_changes", "dataset_records"})
MIDDLE: Final = Moment(70_000, datetime(2026, 1, 1, tzinfo=UTC))
NEAR: Final = Moment(70_500, datetime(2026, 1, 1, tzinfo=UTC))

# Records have events one after twenty thousand others: created, claimed, an error; and every other
# one is reset, claimed again and complete. One tag in fifty is rare, and so is a manager.
FILL: Final[tuple[LiteralString, ...]] = (
    """INSERT INTO record_changes (position, record_id, since, old_manager_id, old_modified_at,
                                   old_status, old_tag, new_status, new_tag)
       SELECT p, r, CASE WHEN k > 0 THEN p - 20000 END,
              CASE WHEN k IN (2, 3, 5) THEN 1 + r / 100 END,
              CASE WHEN k > 0 THEN now() END,
              ('{NULL,waiting,running,error,waiting,running}'::text[])[1 + k],
              CASE WHEN k > 0 THEN 'tag' || r % 50 END,
              ('{waiting,running,error,waiting,running,complete}'::text[])[1 + k],
              'tag' || r % 50
         FROM (SELECT p, 1 + (p - 1) % 20000 AS r, (p - 1) / 20000 AS k
                 FROM generate_series(1, 120000) AS p) AS happened
        WHERE k <= 2 OR r % 2 = 0""",
    """INSERT INTO record_states (record_id, since, version, status, prior, kind, tag, manager_id,
                                  owner, function, created_at, modified_at)
       SELECT n, CASE WHEN n % 2 = 0 THEN 100000 ELSE 40000 END + n,
              CASE WHEN n % 2 = 0 THEN 6 ELSE 3 END,
              CASE WHEN n % 2 = 0 THEN 'complete' ELSE 'error' END,
              '{}', 'task', 'tag' || n % 50, 1 + n / 100, 'user:' || n % 200, 'psi4', now(), now()
         FROM generate_series(1, 20000) AS n""",
    """INSERT INTO timeline_counts
       SELECT p * 1000, 'tag' || n, 'waiting', 1
         FROM generate_series(1, 120) p, generate_series(1, 50) n""",
    """INSERT INTO timeline_marks
       SELECT p * 256, 20000, now() - interval '1 s' * (500 - p) FROM generate_series(1, 468) p""",
    "UPDATE timeline SET position = 120000, latest_at = now()",
    """INSERT INTO ledger_events (originator_id, originator_version, topic, state, notification_id)
       SELECT (lpad('1', 16, '0') || lpad(to_hex(1 + (p - 1) % 20000), 16, '0'))::uuid,
              1 + (p - 1) / 20000, 'held', 'x', p
         FROM generate_series(1, 120000) AS p""",
    """INSERT INTO dataset_records (dataset_id, specification, entry, added_in, record_id)
       SELECT 1 + n % 3, 1, n, 7, n FROM generate_series(1, 20000) AS n""",
    "VACUUM ANALYZE record_changes",
    "VACUUM ANALYZE record_states",
    "ANALYZE",
)


@pytest.fixture(scope="module")
def long_past(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A stage with a hundred thousand events in the tables of the past."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as stage,
    ):
        for statement in FILL:
            stage.do(statement)
        yield stage


def page_of(before_id: int | None = None, **which: Any) -> Work:
    def work(_: Stage, db: Any) -> object:
        asked = RecordFilter(**which)
        text, parameters = as_of.page_sql(asked, 250, MIDDLE, before_id, 7)
        found = db.execute(text, parameters, prepare=False).fetchall()
        assert found
        return found

    return work


def changes_between(a: Moment, b: Moment, **which: Any) -> Work:
    def work(_: Stage, db: Any) -> object:
        text, parameters = diff.ids_sql(Between(a, b), 250, 0, ChangeFilter(**which))
        return db.execute(text, parameters, prepare=False).fetchall()

    return work


def read_rows(_: Stage, db: Any) -> object:
    parameters = {
        "ids": list(range(100, 350)),
        "a": MIDDLE.position,
        "b": N_EVENTS,
        "newest": diff.NEWEST_MAX,
    }
    return db.execute(statements("reading.diff")["rows"], parameters).fetchall()


def count(_: Stage, db: Any) -> object:
    return timeline.counts_at(db, NEAR.position)


def find_mark(_: Stage, db: Any) -> object:
    moment = datetime.now(UTC)
    return db.execute(statements("reading.as_of")["mark_before"], {"moment": moment}).fetchone()


def event_at(_: Stage, db: Any) -> object:
    return db.execute(statements("reading.as_of")["event_at"], {"position": 60_000}).fetchone()


def next_events(_: Stage, db: Any) -> object:
    after = {"after": 60_000, "upto": 10**9, "limit": 500}
    parameters = after | timeline.RECORD_STREAMS
    return db.execute(statements("reading.timeline")["events"], parameters).fetchall()


# What is done, the indexes that it must use, and how many pages it may read.
HOT: Final[dict[str, tuple[Work, set[str], int]]] = {
    "page": (page_of(), {"record_states_pkey"}, 4_000),
    "next page": (page_of(9_000), set(), 4_000),
    "page of a status": (page_of(status=(Status.error,)), {"record_changes_status"}, 1_500),
    "next page of a status": (
        page_of(9_000, status=(Status.error,)),
        {"record_changes_status"},
        1_500,
    ),
    "page of ids": (page_of(ids=tuple(range(50, 150))), {"record_changes_record"}, 1_500),
    "page of a tag": (page_of(tag=("tag7",)), {"record_changes_tag"}, 5_000),
    "page of an owner": (page_of(owner=("user:7",)), {"record_states_owner"}, 2_000),
    "page of a manager": (page_of(manager_id=(7,), status=(Status.error,)), set(), 5_000),
    "page of a dataset": (page_of(dataset=2), {"record_changes_record"}, 4_000),
    "changes between two moments": (
        changes_between(MIDDLE, NEAR),
        {"record_changes_pkey"},
        200,
    ),
    "what 250 changes were": (
        read_rows,
        {"record_changes_record"},
        16_000,
    ),
    "counts": (count, {"timeline_counts_pkey", "record_changes_pkey"}, 1_000),
    "the mark before a time": (find_mark, {"timeline_marks_time"}, 20),
    "the event at a position": (event_at, {"ledger_events_notification_id_idx"}, 20),
    "the next events": (next_events, {"ledger_events_notification_id_idx"}, 200),
}


@pytest.mark.parametrize("name", HOT)
def test_a_question_about_the_past_goes_through_its_index(long_past: Stage, name: str) -> None:
    work, indexes, n_pages_max = HOT[name]
    explained, _ = explain(long_past, work)
    assert explained.indexes >= indexes
    assert explained.n_pages <= n_pages_max
    assert read_whole(explained) == set()


def read_whole(explained: Explained) -> set[str]:
    scanned = {node["Relation Name"] for node in explained.nodes if node["Node Type"] == "Seq Scan"}
    return scanned & LARGE
