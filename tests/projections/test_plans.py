"""Query plans: the hot statements go through their indexes, however large the tables are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, LiteralString
from uuid import UUID

import pytest
from psycopg import Rollback
from psycopg.sql import SQL, Identifier, Literal

from recordledger.domain.records.events import (
    Completed,
    Held,
    Kind,
    Outcome,
    Payload,
    Priority,
    ServiceIterated,
)
from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status
from recordledger.domain.routing.why import BEFORE_MAX
from recordledger.domain.streams import Stream, stream_uuid
from recordledger.projections.log import user_blocks
from recordledger.projections.log.mapper import Recorded
from recordledger.projections.reading import event_log, histories, waiting
from recordledger.projections.reading.event_log import EventFilter
from recordledger.projections.reading.queries import page_sql
from recordledger.projections.store.database import Db
from recordledger.projections.store.statements import statements
from recordledger.projections.tables import (
    claim_queue,
    datasets,
    families,
    managers,
    payloads,
    records,
    service_queue,
)
from recordledger.projections.tables.changes import Changes, SharedChanges
from tests.postgres import new_database

from .stage import ALICE, Stage, staged

N_DONE: Final = 30_000
N_ALL: Final = 130_000
"""The rest waits."""
N_LANES: Final = 8
N_SMALL_LANES: Final = 1_000
"""Lanes of a few tasks each, beside those that are deep."""
N_PLANS: Final = 2
"""For the values that are given, and for any."""
BUSY: Final = 1
"""The manager that has done everything that is done, and runs 50 tasks."""
LARGE: Final = frozenset(
    {
        "records",
        "claim_queue",
        "ledger_events",
        "payloads",
        "payload_references",
        "dependencies",
        "services",
        "service_children",
        "managers",
        "status_counts",
        "dataset_records",
        "dataset_entries",
        "user_blocks",
        "operation_changes",
    }
)
N_ALIVE: Final = 20
BUSY_SERVICE: Final = 15_001
"""A service that waits for five children."""
OPERATION: Final = UUID(int=1)
"""One that changed every record."""
PARENT: Final = 29_960
"""A service, so to say: 130 records are its children."""

# What a ledger of this size has in its tables, as far as plans depend on it.
FILL: Final[tuple[LiteralString, ...]] = (
    """INSERT INTO lanes (tag, required_programs)
       SELECT 'tag' || n, CASE WHEN n % 2 = 0 THEN '{}' ELSE '{psi4>=1.9}' END::text[]
         FROM generate_series(1, 8) AS n""",
    """INSERT INTO records (id, version, status, prior, kind, spec, spec_size_bytes, function,
                            lane_id, tag, priority, owner, created_at, modified_at, attempt,
                            manager_id, started_at, retries, retries_used, not_before)
       SELECT n, 1,
              CASE WHEN n <= 29000 THEN 'complete' WHEN n <= 29500 THEN 'error'
                   WHEN n <= 29950 THEN 'held' WHEN n <= 30000 THEN 'running'
                   ELSE 'waiting' END,
              '{}', 'task', sha256(n::text::bytea), 100, 'psi4', 1 + n % 8, 'tag' || 1 + n % 8,
              n % 3, 'user:' || n % 20, now() - n * interval '1 s', now(), 1,
              CASE WHEN n <= 29500 OR n BETWEEN 29951 AND 30000 THEN 1 END, now(), 0, 0,
              CASE WHEN n > 129950 THEN now() + n * interval '1 h' - interval '129960 h' END
         FROM generate_series(1, 130000) AS n""",
    """INSERT INTO lanes (tag, required_programs)
       SELECT 'small' || n, '{}' FROM generate_series(1, 1000) AS n""",
    """INSERT INTO records (id, version, status, prior, kind, spec, spec_size_bytes, function,
                            lane_id, tag, priority, owner, created_at, modified_at, attempt,
                            retries, retries_used)
       SELECT 200000 + n, 1, 'waiting', '{}', 'task', sha256((200000 + n)::text::bytea), 100, 'f',
              9 + n % 1000, 'small' || 1 + n % 1000, n % 3, 'user:20', now(), now(), 0, 0, 0
         FROM generate_series(1, 30000) AS n""",
    "INSERT INTO claim_queue SELECT lane_id, -priority, id FROM records WHERE status = 'waiting'"
    " AND not_before IS NULL",
    "INSERT INTO payload_references SELECT spec, id, 1 FROM records",
    "INSERT INTO payloads SELECT spec, 100, 'raw', 'x' FROM records",
    """INSERT INTO ledger_events (originator_id, originator_version, topic, state)
       SELECT (lpad('1', 16, '0') || lpad(to_hex(id), 16, '0'))::uuid, 1, 'created', 'x'
         FROM records""",
    """INSERT INTO user_blocks
       SELECT CASE WHEN n % 100 = 0 THEN 'user:rare' ELSE 'user:busy' END, n
         FROM generate_series(0, 2000) AS n""",
    """INSERT INTO operation_changes
       SELECT lpad('1', 32, '0')::uuid, id, 1 FROM records WHERE id <= 130000""",
    "INSERT INTO status_counts SELECT lane_id, status, count(*) FROM records GROUP BY 1, 2",
    # What lanes leave behind that are empty now, and managers that have ended.
    """INSERT INTO status_counts
       SELECT 2000 + n, status, 0
         FROM generate_series(1, 10000) AS n, unnest('{waiting,running}'::text[]) AS status""",
    "INSERT INTO dependencies SELECT 29960, n * 1000 FROM generate_series(1, 130) AS n",
    "INSERT INTO dependencies SELECT n, n + 1 FROM generate_series(100001, 120000) AS n",
    # Ten thousand services have ended; as many wait for five children each, and twenty are due;
    # five thousand have not been started.
    """INSERT INTO services (record_id, status, rank, wanted, n_children, n_awaited, n_open)
       SELECT n, CASE WHEN n <= 10000 THEN 'complete' WHEN n <= 20000 THEN 'running'
                      ELSE 'waiting' END, -(n % 3), false, 5, 5,
              CASE WHEN n % 500 = 0 THEN 0 ELSE 5 END
         FROM generate_series(1, 25000) AS n""",
    """INSERT INTO service_children (service_id, key, child_id, iteration, awaited)
       SELECT n, 'x=' || k, 1 + (5 * n + k) % 130000, 1, n > 10000
         FROM generate_series(1, 20000) AS n, generate_series(1, 5) AS k""",
    """INSERT INTO managers (id, version, state, name, hostname, tags, programs, lease_s,
                             heartbeat_s, owner, registered_at, modified_at)
       SELECT n, 1, CASE WHEN n % 1000 = 0 THEN 'active' ELSE 'inactive' END, 'node', 'node',
              '{*}', '{}', 120, 30, 'user:bob', now(), now()
         FROM generate_series(1, 20000) AS n""",
    """INSERT INTO manager_heartbeats
       SELECT id, now(), now() + interval '120 s' FROM managers WHERE state = 'active'""",
    """INSERT INTO datasets (id, version, name, description, owner, created_at, modified_at,
                             n_entries, entries_added, specifications_added, versions_locked)
       SELECT n, 1000, 'dataset ' || n, '', 'user:ann', now(), now(), 20000, 20000, 3, 0
         FROM generate_series(1, 3) AS n""",
    """INSERT INTO dataset_records (dataset_id, specification, entry, added_in, removed_in,
                                    record_id)
       SELECT 1 + n % 3, 1 + n % 2, n, 7, CASE WHEN n % 100 = 0 THEN 8 END, n
         FROM generate_series(1, 120000) AS n""",
    """INSERT INTO dataset_entries (dataset_id, number, added_in, name, content, inputs, place,
                                    size_bytes, attributes)
       SELECT 1 + n % 3, n, 7, 'entry ' || n, '', '', 0, 2, '{}'
         FROM generate_series(1, 120000) AS n""",
    "ANALYZE",
)


@pytest.fixture(scope="module")
def large(postgres_server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A stage with a hundred thousand waiting tasks and some that are done."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        staged(url) as stage,
    ):
        for statement in FILL:
            stage.do(statement)
        yield stage


class Explained:
    """A cursor that notes the plans of each statement, and what they read.

    Most statements are prepared, and after a few times PostgreSQL may take a plan that does not
    look at the parameters. So both are asked for: the plan for these values, and the one for any.
    """

    def __init__(self, db: Db) -> None:
        self._db = db
        self.nodes: list[dict[str, Any]] = []
        self.n_pages = 0

    def execute(
        self,
        query: LiteralString,
        parameters: Mapping[str, Any] | None = None,
        *,
        prepare: bool | None = None,
    ) -> Any:
        """Explain the statement, and execute it."""
        parameters = parameters or {}
        used = [name for name in parameters if f"%({name})" in query]
        numbers = {name: number for number, name in enumerate(used, start=1)}
        text = re.sub(r"%\((\w+)\)[bs]", lambda found: f"${numbers[found[1]]}", query)
        self._db.execute(f"PREPARE explained AS {text}".encode())
        given = SQL(", ").join(Literal(parameters[name]) for name in used)
        values = SQL("({})").format(given) if used else SQL("")
        # What writes is not executed more often than it should be.
        analyze: LiteralString = "ANALYZE, BUFFERS, " if is_select(query) else ""
        execute = SQL(analyze).join(
            [SQL("EXPLAIN ("), SQL("FORMAT JSON) EXECUTE explained{}").format(values)]
        )
        for mode in ("force_custom_plan", "force_generic_plan")[: 1 if prepare is False else 2]:
            self._db.execute(SQL("SET LOCAL plan_cache_mode = {}").format(Identifier(mode)))
            row = self._db.execute(execute, binary=False).fetchone()
            assert row is not None
            plan = row[0][0]["Plan"]
            self.nodes += nodes_of(plan)
            self.n_pages += plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
        self._db.execute("SET LOCAL plan_cache_mode = auto")
        self._db.execute("DEALLOCATE explained")
        return self._db.execute(query, parameters, prepare=prepare)

    @property
    def indexes(self) -> set[str]:
        """The indexes that the plans go through."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def read_whole(self) -> set[str]:
        """The large tables that a plan reads from beginning to end."""
        scanned = {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}
        return scanned & LARGE


def is_select(query: str) -> bool:
    code = re.sub(r"--.*", "", query).split()
    return code[0] in ("SELECT", "WITH") and not {"INSERT", "DELETE"} & set(code)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan, from the top."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes_of(inner)


Work = Callable[[Stage, Any], object]
"""What is done, with a cursor that explains what it is given."""


def due_retries(stage: Stage, db: Any) -> object:
    del stage
    return db.execute(statements("actions.policies")["retries_due"], {"limit": 100}).fetchall()


def claim_of(*lane_ids: int, limit: int = 20) -> Work:
    def work(stage: Stage, db: Any) -> object:
        taken = claim_queue.lock_next(db, [list(lane_ids)], limit)
        assert len(taken) == limit
        return taken

    return work


def claim_by_tags(*lane_ids: int, limit: int = 20) -> Work:
    def work(stage: Stage, db: Any) -> object:
        taken = claim_queue.lock_next(db, [[id_] for id_ in lane_ids], limit)
        assert len(taken) == limit
        return taken

    return work


def page_of(before_id: int | None = None, **which: Any) -> Work:
    def work(_: Stage, db: Any) -> object:
        text, parameters = page_sql(RecordFilter(**which), 250, before_id)
        return db.execute(text, parameters, prepare=False).fetchall()

    return work


def of_ids(read: Callable[..., object], n: int) -> Work:
    ids = list(range(7, N_ALL, N_ALL // n))[:n]
    return lambda stage, db: read(db, ids, stage.ledger.lanes)


def find_existing(_: Stage, db: Any) -> object:
    digests = [
        row[0]
        for row in db._db.execute("SELECT spec FROM records WHERE id % 1300 = 0 AND id <= 130000")
    ]
    payloads.lock(db, digests)
    payloads.load(db, digests)
    found = records.existing(db, digests)
    assert len(found) == len(digests) == 100
    return found


def write_back(stage: Stage, db: Any) -> object:
    found = records.get(db, list(range(N_DONE + 1, N_DONE + 201)), stage.ledger.lanes)
    changes = Changes(stage.ledger.lanes)
    for record in found:
        changes.add(record, replace(record, status=Status.running), [])
    records.write(db, changes)
    claim_queue.write(db, changes)
    return found


def shared_event(stage: Stage, db: Any) -> object:
    """Let one event happen to 200 waiting tasks, half of which are cells of datasets."""
    ids = list(range(119_901, 120_101))
    found = records.lock_classes(db, ids, stage.ledger.lanes)
    families.has_relatives(db, ids)
    held = Held(timestamp=datetime.now(UTC), actor=ALICE, operation_id=OPERATION)
    changes = SharedChanges(stage.ledger.lanes)
    changes.happen(held, found)
    for table in (records, claim_queue, datasets):
        table.write_shared(db, changes)
    return found


def results_of_many(stage: Stage, db: Any) -> object:
    """Let 50 running tasks be complete, each with an outcome of its own."""
    ids = [row[0] for row in db._db.execute("SELECT id FROM records WHERE status = 'running'")]
    classes = records.lock_attempts(db, BUSY, ids, stage.ledger.lanes)
    assert sum(len(alike.ids) for alike in classes) == 50
    outcome = Outcome(result=Payload(digest=bytes(32), size_bytes=100))
    completed = Completed(
        timestamp=datetime.now(UTC),
        actor=f"manager:{BUSY}",
        operation_id=OPERATION,
        attempt=1,
        outcome=outcome,
    )
    changes = SharedChanges(stage.ledger.lanes)
    for alike in classes:
        changes.happen(completed, [alike], [outcome] * len(alike.ids))
    records.write_shared(db, changes)
    return classes


def read_log(_: Stage, db: Any) -> object:
    sql = statements("log.ledger_events")["read_log"]
    return db.execute(sql, {"after": 100_000, "upto": 100_500}).fetchall()


def unread(_topic: str, _state: bytes) -> None:
    """Stand for the mapper: the events of this log have no content."""


def follow_log(**conditions: Any) -> Work:
    """Read a page from the middle of the log; it must not look at more than a page may."""

    def work(stage: Stage, db: Any) -> object:
        which = EventFilter(**conditions)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_log, "SCAN_MAX", 1_000)
            patch.setattr(stage.ledger.event_mapper, "event_of", unread)
            return event_log.read_page(stage.ledger, db, 50_000, 100, which)

    return work


def user_page(actor: str, newest_first: bool) -> Work:
    def work(_: Stage, db: Any) -> object:
        how: dict[str, Any] = {"edge": None, "newest_first": newest_first}
        return user_blocks.page(db, actor, 250, **how)

    return work


def operation_history(stage: Stage, db: Any) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.ledger.event_mapper, "event_of", unread)
        found = histories.operation_page(stage.ledger, db, OPERATION, (50_000, 0), 250)
    assert len(found) == 250
    return found


def dataset_history(stage: Stage, db: Any) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.ledger.event_mapper, "event_of", unread)
        found = histories.dataset_page(stage.ledger, db, 1, (50_000, 0), 250)
    assert len(found) == 250
    return found


def read_history(_: Stage, db: Any) -> object:
    sql = statements("log.ledger_events")["history"]
    return db.execute(sql, {"id": stream_uuid(Stream.record, 411)}).fetchall()


def waiting_lanes(_: Stage, db: Any) -> object:
    found = waiting.waiting_lanes(db)
    deep = [(lane_id, 7 if lane_id in (1, 8) else 6) for lane_id in range(1, N_LANES + 1)]
    small = [(N_LANES + n, None) for n in range(1, N_SMALL_LANES + 1)]
    assert [(lane_id, n_running) for lane_id, _, n_running in found] == deep + small
    return found


def oldest_tasks(_: Stage, db: Any) -> object:
    found = waiting.oldest(db, list(range(1, N_LANES + 1)))
    assert [len(each) for each in found.values()] == [3] * N_LANES
    return found


def paused_tasks(_: Stage, db: Any) -> object:
    found = waiting.paused_by_lane(db)
    assert sum(found.values()) == 50
    return found


def tasks_before(_: Stage, db: Any) -> object:
    last = RecordAggregate(N_ALL, priority=Priority.low)
    found = waiting.tasks_before(db, 1, last)
    assert found == BEFORE_MAX + 1
    return found


def children_by_status(_: Stage, db: Any) -> object:
    found = waiting.children_by_status(db, PARENT)
    assert sum(found.values()) == 130
    return found


def alive_managers(_: Stage, db: Any) -> object:
    found = managers.alive(db)
    assert len(found) == N_ALIVE
    return found


def count_in_datasets(_: Stage, db: Any) -> object:
    ids = list(range(7, N_ALL, N_ALL // 200))[:200]
    sql = statements("tables.datasets")["counted_in"]
    found = db.execute(sql, {"record_ids": ids}, prepare=True).fetchall()
    assert len(found) > 150
    return found


def referring_datasets(_: Stage, db: Any) -> object:
    return datasets.referring(db, range(1_000, 1_200))


def cells_of_entries(_: Stage, db: Any) -> object:
    numbers = [entry.number for entry in datasets.entries(db, 1, datasets.NEWEST, 60_000, 200)]
    found = datasets.cells(db, 1, datasets.NEWEST, numbers, [1, 2])
    assert len(found) > 150
    return found


def pick_services(_: Stage, db: Any) -> object:
    found = service_queue.pick(db, "runner", 40, active_max=1_000, lease_s=60)
    assert found is not None
    assert len(found) == 20, "those that are due, and no new ones"
    return found


def tell_services(stage: Stage, db: Any) -> object:
    found = records.get(db, list(range(60_001, 60_201)), stage.ledger.lanes)
    changes = [(record, replace(record, status=Status.complete)) for record in found]
    service_queue.follow(db, changes, [])
    [(n_open,)] = db._db.execute("SELECT sum(n_open) FROM services WHERE status = 'running'")
    assert n_open == 5 * (10_000 - 20) - 200
    return found


def decide_service(_: Stage, db: Any) -> object:
    service = RecordAggregate(BUSY_SERVICE, 3, Status.running, kind=Kind.service)
    event = ServiceIterated(
        iteration=2,
        state=Payload(digest=b"s" * 32, size_bytes=2),
        children=(111_111, 111_112),
        keys=("new 1", "new 2"),
        awaits=("x=1",),
        timestamp=datetime(2026, 3, 1, tzinfo=UTC),
        actor="runner",
        operation_id=UUID(int=1),
    )
    recorded = Recorded(Stream.record, service.id, 4, event)
    service_queue.follow(db, [(service, replace(service, iteration=2))], [recorded])
    rows = db._db.execute("SELECT n_awaited FROM services WHERE record_id = %s", [BUSY_SERVICE])
    assert rows.fetchall() == [(3,)]
    return recorded


def look_at_service(_: Stage, db: Any) -> object:
    found = service_queue.awaited_by(db, BUSY_SERVICE)
    assert len(found) == 5
    assert service_queue.waits_of(db, BUSY_SERVICE) is not None
    assert len(service_queue.keys_of(db, BUSY_SERVICE, ["x=1", "x=2"])) == 2
    assert len(service_queue.children_of(db, [BUSY_SERVICE, 12], 3)) == 6
    assert len(waiting.blocking_of(db, BUSY_SERVICE)) == 3
    return found


# What is done, the indexes that it goes through, and how many pages at the most: a few for each
# row, and not one for each row that is passed over.
HOT: Final[dict[str, tuple[Work, set[str], int]]] = {
    "claim from one lane": (claim_of(1), {"claim_queue_pkey"}, 400),
    "claim from all lanes": (
        claim_of(*range(1, N_LANES + 1)),
        {"claim_queue_pkey"},
        500,
    ),
    "claim anything from a thousand lanes": (
        claim_of(*range(1, N_LANES + N_SMALL_LANES + 1)),
        {"claim_queue_pkey"},
        5 * (N_LANES + N_SMALL_LANES) * N_PLANS,
    ),
    "claim many of anything from a thousand lanes": (
        claim_of(*range(1, N_LANES + N_SMALL_LANES + 1), limit=200),
        {"claim_queue_pkey"},
        40_000,
    ),
    "claim by a hundred tags": (
        claim_by_tags(*range(N_LANES + 1, N_LANES + 101)),
        {"claim_queue_pkey"},
        1_500,
    ),
    "lock one": (of_ids(records.lock, 1), {"records_pkey"}, 20),
    "lock many": (of_ids(records.lock, 200), {"records_pkey"}, 3_000),
    "get many": (of_ids(records.get, 100), {"records_pkey"}, 1_000),
    "find existing": (
        find_existing,
        {"payload_references_pkey", "records_pkey", "payloads_pkey"},
        8_000,
    ),
    "write back": (write_back, {"records_pkey", "claim_queue_pkey"}, 2_000),
    "results of many records": (results_of_many, {"records_pkey"}, 1_500),
    "event of many records": (
        shared_event,
        {"records_pkey", "claim_queue_pkey", "dependencies_pkey", "dataset_records_record"},
        6_000,
    ),
    "read the log": (read_log, {"ledger_events_notification_id_idx"}, 100),
    "follow the log": (follow_log(), {"ledger_events_notification_id_idx"}, 100),
    "follow a kind that there is not": (
        follow_log(kinds=frozenset({"held"})),
        {"ledger_events_notification_id_idx"},
        150,
    ),
    "follow a tag": (
        follow_log(tags=frozenset({"nobody's"})),
        {"ledger_events_notification_id_idx", "records_pkey"},
        9_000,
    ),
    "follow a dataset": (
        follow_log(dataset_id=99),
        {"ledger_events_notification_id_idx"},
        9_000,
    ),
    "follow some records": (
        follow_log(record_ids=frozenset({7, 120_000})),
        {"ledger_events_pkey"},
        60,
    ),
    "what a busy user did": (
        user_page("user:busy", newest_first=True),
        {"user_blocks_pkey", "ledger_events_notification_id_idx"},
        1_500,
    ),
    "what a user did, from the beginning": (
        user_page("user:rare", newest_first=False),
        {"user_blocks_pkey", "ledger_events_notification_id_idx"},
        300,
    ),
    "what an operation did": (
        operation_history,
        {"operation_changes_pkey", "ledger_events_pkey"},
        2_500,
    ),
    "what happened to a dataset's records": (
        dataset_history,
        {"dataset_records_page", "ledger_events_pkey"},
        2_500,
    ),
    "history": (read_history, {"ledger_events_pkey"}, 20),
    "page": (page_of(), {"records_pkey"}, 100),
    "page of a status": (page_of(status=(Status.error,)), {"records_status"}, 200),
    "page of a status that only old records are in": (
        page_of(status=(Status.complete,)),
        {"records_status"},
        400,
    ),
    "next page of a status": (
        page_of(29_300, status=(Status.error,)),
        {"records_status"},
        200,
    ),
    "page of a status that nothing is in": (
        page_of(status=(Status.failed,)),
        {"records_status"},
        20,
    ),
    "page of several statuses": (
        page_of(status=(Status.error, Status.held, Status.failed, Status.complete)),
        {"records_status"},
        500,
    ),
    "next page of several statuses": (
        page_of(29_400, status=(Status.error, Status.held)),
        {"records_status"},
        1_200,
    ),
    "retries that are due": (due_retries, {"records_not_before"}, 60),
    "page of a tag": (page_of(tag=("tag3",)), {"records_tag"}, 1_200),
    "page of an owner": (page_of(owner=("user:7",)), {"records_owner"}, 1_200),
    "page of a manager": (page_of(manager_id=(BUSY,)), {"records_manager"}, 200),
    "lanes that wait": (
        waiting_lanes,
        {"claim_queue_pkey", "status_counts_pkey"},
        12 * (N_LANES + N_SMALL_LANES) * N_PLANS,
    ),
    "oldest tasks of the lanes": (oldest_tasks, {"claim_queue_pkey", "records_pkey"}, 500),
    "tasks that pause, by lane": (paused_tasks, {"records_not_before"}, 120),
    "tasks before one": (tasks_before, {"claim_queue_pkey"}, 400),
    "children by status": (children_by_status, {"dependencies_pkey", "records_pkey"}, 1_200),
    "pick services": (
        pick_services,
        {"services_due", "services_unstarted", "services_running", "services_alarm"},
        0,
    ),
    "tell services of 200 children": (
        tell_services,
        {"service_children_awaited", "services_pkey"},
        4_000,
    ),
    "store what a service waits for": (
        decide_service,
        {"service_children_pkey", "services_pkey", "records_pkey"},
        1_000,
    ),
    "look at a service": (
        look_at_service,
        {"service_children_pkey", "services_pkey", "records_pkey"},
        400,
    ),
    "managers that are alive": (alive_managers, {"managers_state"}, 300),
    "what datasets count of 200 records": (count_in_datasets, {"dataset_records_record"}, 1_500),
    "which datasets refer to 200 records": (
        referring_datasets,
        {"dataset_records_record"},
        2_500,
    ),
    "page of a dataset": (
        page_of(dataset=1),
        {"dataset_records_page", "records_pkey"},
        1_200,
    ),
    "next page of a dataset": (
        page_of(70_000, dataset=2),
        {"dataset_records_page", "records_pkey"},
        1_200,
    ),
    "records of some entries of a dataset": (
        page_of(dataset=1, entry=tuple(range(3, 3_000, 30))),
        {"dataset_records_cell", "records_pkey"},
        1_500,
    ),
    "page of a dataset's table": (
        cells_of_entries,
        {"dataset_entries_pkey", "dataset_records_pkey"},
        6_000,
    ),
    "page of ids": (page_of(ids=tuple(range(1, 100))), {"records_pkey"}, 900),
}


def explain(stage: Stage, work: Work) -> tuple[Explained, object]:
    """Do the work and take it back; return what its plans were, and its answer."""
    answer: object = None
    explained: Explained | None = None
    with stage.ledger.datastore.writing() as db:
        stage.ledger.lanes.refresh(db)
        explained = Explained(db)
        answer = work(stage, explained)
        raise Rollback
    assert explained is not None
    return explained, answer


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_goes_through_its_index(large: Stage, name: str) -> None:
    work, indexes, n_pages_max = HOT[name]
    explained, _ = explain(large, work)
    assert explained.read_whole == set()
    assert explained.indexes >= indexes
    assert explained.n_pages <= n_pages_max


def read_running(_: Stage, db: Any) -> object:
    return records.running_of_manager(db, BUSY)


def lock_running(stage: Stage, db: Any) -> object:
    return records.lock_of_manager(db, BUSY, stage.ledger.lanes)


@pytest.mark.parametrize("work", [read_running, lock_running])
def test_what_a_manager_runs_is_found_without_reading_what_it_has_done(
    large: Stage, work: Work
) -> None:
    explained, found = explain(large, work)
    assert isinstance(found, list)
    assert len(found) == 50  # pyright: ignore[reportUnknownArgumentType]
    assert explained.read_whole == set()
    assert explained.n_pages <= 500


def test_the_plans_would_show_a_table_that_is_read_whole(large: Stage) -> None:
    with large.ledger.datastore.writing() as db:
        explained = Explained(db)
        explained.execute("SELECT count(*) FROM records WHERE function = %(f)s", {"f": "psi4"})
    assert explained.read_whole == {"records"}
    assert explained.n_pages > 1_000


def test_the_priorities_of_the_queue_are_those_of_the_domain(large: Stage) -> None:
    ranks = large.ask("SELECT DISTINCT -rank FROM claim_queue ORDER BY 1")
    assert [Priority(rank) for (rank,) in ranks] == list(Priority)
