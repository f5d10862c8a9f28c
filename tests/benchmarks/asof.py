"""Earlier moments of a large ledger: the status table, pages, single records, and what they cost.

    python -m tests.benchmarks.asof --records 1000000 --events 10000000

The figures are in docs/adr/0014-as-of.md. The log is written by SQL, with events as the ledger
stores them, and the tables of the past are filled from it by the code that the server's job runs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final
from uuid import UUID

from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Kind, Outcome, Payload, Priority
from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.records.status import Status
from recordledger.projections.ledger import Ledger
from recordledger.projections.log.mapper import EventMapper, MsgpackTranscoder
from recordledger.projections.reading import as_of, diff, timeline
from recordledger.projections.reading.as_of import Moment, moment_of
from recordledger.projections.reading.diff import Between
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.store.database import Db
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.store.statements import statements
from recordledger.projections.tables.schema import migrate

from .measuring import Measurement, end_in_order

N_TAGS: Final = 20
N_MANAGERS: Final = 100
N_EVENTS: Final = 10
"""Of each record."""
TABLE_BUDGET_MS: Final = 2_000.0
RECORD_BUDGET_MS: Final = 20.0
# What the benchmark compares with: a copy of the status table at so many moments of ten million.
N_COPIES: Final = 500

_AT: Final = datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)
_REF: Final = Payload(digest=bytes(range(32)), size_bytes=1_000)

# Lives of records, of ten events each. A third has ended well, the others are all over the place.
LIVES: Final[tuple[tuple[type[Event], ...], ...]] = (
    (e.Created, e.Claimed, e.LeaseExpired, e.Claimed, e.Errored, e.Reset, e.Claimed, e.Completed,
     e.Invalidated, e.Uninvalidated),
    (e.Created, e.Held, e.Released, e.Claimed, e.Errored, e.Reset, e.Claimed, e.Errored, e.Reset,
     e.Claimed),
    (e.Created, e.Rerouted, e.Claimed, e.Completed, e.SoftDeleted, e.Undeleted, e.Invalidated,
     e.Uninvalidated, e.Commented, e.SoftDeleted),
    (e.Created, e.Cancelled, e.Uncancelled, e.Claimed, e.ManagerLost, e.Claimed, e.Errored,
     e.Failed, e.Revived, e.Cancelled),
)  # fmt: skip

_TEMPLATES: Final = """
CREATE UNLOGGED TABLE templates (
    life integer, step integer, variant integer, topic text, before bytea, after bytea,
    old_status text, old_tag text, old_manager_id bigint,
    new_status text, new_tag text, new_manager_id bigint, prior text,
    PRIMARY KEY (life, step, variant))
"""
_HAPPENED: Final = """
CREATE UNLOGGED TABLE happened AS
SELECT r, step, position,
       lag(position) OVER (PARTITION BY r ORDER BY step) AS since,
       to_timestamp(%(start)s + position / 1000.0) AS happened_at,
       to_timestamp(%(start)s + lag(position) OVER (PARTITION BY r ORDER BY step) / 1000.0)
       AS happened_before
  FROM (SELECT r, step,
               row_number() OVER (ORDER BY 10 * r + step * (300 + (r %% 17) * 900)
                                         + CASE WHEN step > 6 THEN (r %% 101) * %(late)s
                                                ELSE 0 END, r, step) AS position
          FROM generate_series(1::bigint, %(records)s) AS r,
               generate_series(0, 9) AS step) AS placed
"""
# Event by event, the lives of records overlap: the first seven follow each other closely, the last
# three come long after.
_WRITE_LOG: Final = """
INSERT INTO ledger_events (originator_id, originator_version, topic, state, notification_id)
SELECT (lpad('1', 16, '0') || lpad(to_hex(h.r), 16, '0'))::uuid, h.step + 1, t.topic,
       t.before || int8send((((position %% 1000) * 1000000) << 34) | (%(start)s + position / 1000))
                || t.after,
       h.position
  FROM happened AS h
  JOIN templates t ON t.life = h.r %% 4 AND t.step = h.step AND t.variant = h.r %% 100
 ORDER BY h.position
"""
# What the code would write, for sizes at which that takes long; `compare` says whether it does.
_FILL: Final = (
    """
INSERT INTO record_changes (position, record_id, since, old_manager_id, old_modified_at, old_status,
                            old_tag, new_status, new_tag)
SELECT h.position, h.r, h.since, t.old_manager_id, h.happened_before, t.old_status, t.old_tag,
       t.new_status, t.new_tag
  FROM happened AS h
  JOIN templates t ON t.life = h.r % 4 AND t.step = h.step AND t.variant = h.r % 100
 ORDER BY h.position
""",
    """
INSERT INTO record_states (record_id, since, version, status, prior, kind, tag, manager_id, owner,
                           function, created_at, modified_at)
SELECT h.r, h.position, 10, t.new_status, string_to_array(t.prior, ','), 'task', t.new_tag,
       t.new_manager_id, 'user:user' || h.r % 10, 'package.module:energy', c.happened_at,
       h.happened_at
  FROM happened AS h
  JOIN happened AS c ON c.r = h.r AND c.step = 0
  JOIN templates t ON t.life = h.r % 4 AND t.step = 9 AND t.variant = h.r % 100
 WHERE h.step = 9
 ORDER BY h.r
""",
    """
INSERT INTO timeline_marks (position, newest_id, latest_at)
SELECT position, newest_id, happened_at
  FROM (SELECT position, happened_at, max(r) OVER (ORDER BY position) AS newest_id
          FROM happened) AS every
 WHERE position % 256 = 255
""",
    """
UPDATE timeline
   SET (position, newest_id, latest_at) = (
       SELECT max(position), max(r), max(happened_at) FROM happened)
""",
)


def template(life: int, step: int, variant: int) -> Event:
    """Return an event as it is stored, but for when it happened."""
    event_type = LIVES[life][step]
    attempt = sum(each is e.Claimed for each in LIVES[life][: step + 1])
    fields: dict[str, Any] = {
        "timestamp": _AT,
        "actor": f"user:user{variant % 10}",
        "operation_id": UUID(int=variant),
    }
    tag, manager_id = f"tag{variant % N_TAGS}", 1 + variant % N_MANAGERS
    more: dict[type[Event], dict[str, Any]] = {
        e.Created: {
            "kind": Kind.task,
            "spec": _REF,
            "function": "package.module:energy",
            "required_programs": ("psi4>=1.9",),
            "tag": tag,
            "priority": Priority.normal,
        },
        e.Claimed: {"attempt": attempt, "manager_id": manager_id, "lease_expires_at": _AT},
        e.LeaseExpired: {"attempt": attempt},
        e.ManagerLost: {"attempt": attempt, "manager_id": manager_id},
        e.Errored: {
            "attempt": attempt,
            "outcome": Outcome(error_type="ValueError", error_message=_REF, traceback=_REF),
        },
        e.Completed: {
            "attempt": attempt,
            "outcome": Outcome(result=_REF, provenance=_REF, compute_s=12.5, cores=4),
        },
        e.Rerouted: {"tag": f"tag{(variant + 1) % N_TAGS}"},
        e.Commented: {"text": _REF},
    }
    return event_type(**fields | more.get(event_type, {}))


def templates() -> Iterator[tuple[Any, ...]]:
    """Give the bytes of each kind of event before and after the time, and what it changes."""
    mapper = EventMapper(MsgpackTranscoder())
    for life, steps in enumerate(LIVES):
        for variant in range(N_MANAGERS):
            old = RecordAggregate(1)
            for step in range(len(steps)):
                event = template(life, step, variant)
                new = evolve(old, event)
                state = mapper.state_of(event)
                cut = state.index(b"\xd7\xff") + 2
                was, became = (
                    (each.status, each.tag if each.exists else None, each.manager_id)
                    for each in (old, new)
                )
                place = life, step, variant, event.topic
                yield *place, state[:cut], state[cut + 8 :], *was, *became, ",".join(new.prior)
                old = new


def write_log(db: Db, n_records: int) -> None:
    """Write the log of so many records, ten events each, which ended an hour ago."""
    db.execute(_TEMPLATES)
    places = ", ".join(["%s"] * 13)
    insert = f"INSERT INTO templates VALUES ({places})"  # noqa: S608
    db.executemany(insert.encode(), list(templates()))
    start = int(datetime.now(UTC).timestamp()) - 3_600 - n_records * N_EVENTS // 1_000
    parameters = {"records": n_records, "start": start, "late": n_records // 20}
    db.execute("SET work_mem = '256MB'")
    db.execute(_HAPPENED, parameters, prepare=False)
    db.execute(_WRITE_LOG, {"start": start}, prepare=False)
    db.execute("ANALYZE ledger_events")
    db.execute("ANALYZE happened")


def fill_by_sql(db: Db, n_events: int) -> None:
    """Fill the tables of the past as the code would."""
    for statement in _FILL:
        db.execute(statement.encode())
    db.execute("ANALYZE record_changes")
    for position in range(timeline.COUNT_EVERY - 1, n_events, timeline.COUNT_EVERY):
        timeline.keep_counts(db, position)


def fill(ledger: Ledger, say: Callable[[str], object]) -> Measurement:
    """Fill the tables of the past."""
    measured = Measurement()
    with measured.call(0):
        began = perf_counter()
        while n_events := timeline.advance(ledger):
            measured.n_items += n_events
            if measured.n_items % 1_000_000 == 0:
                rate = measured.n_items / (perf_counter() - began)
                say(f"  {measured.n_items:,} events, {rate:,.0f}/s")
    return measured


def reads(moment: Moment, n_records: int, pick: random.Random) -> dict[str, Any]:
    """Return what is asked of one moment, each as a function of the ledger."""
    newest = max(1, moment.position * n_records // (n_records * N_EVENTS))
    states, then = statements("reading.as_of")["states"], statements("reading.as_of")["then"]

    def one(ledger: Ledger) -> object:
        return as_of.get_records(ledger, [pick.randint(1, newest)], moment)

    def page(**which: Any) -> Callable[[Ledger], object]:
        before_id = pick.choice([None, newest // 2 + 1])
        asked = RecordFilter(**which)
        return lambda ledger: as_of.query_records(ledger, asked, 250, moment, before_id)

    def every_row(ledger: Ledger) -> object:
        with ledger.datastore.reading() as db:
            sql = f"SELECT id, status, tag FROM {states} AS s WHERE {then}"  # noqa: S608
            return db.execute(sql, {"position": moment.position}, prepare=False).fetchall()

    found: dict[str, Callable[[Ledger], object]] = {
        "status table (by status and tag)": lambda ledger: as_of.counts_by_tag(ledger, moment),
        "one record": one,
        "page of 250": page(),
        "page of 250 of a tag": page(tag=("tag7",)),
        "page of 250 of an owner": page(owner=("user:user3",)),
        "page of 250 of a manager": page(manager_id=(7,)),
        "page of 250 of a tag and a status": page(tag=("tag7",), status=(Status.error,)),
        "position of a time": lambda ledger: moment_of(ledger, moment.happened_at),
        "status and tag of every record, as rows": every_row,
    }
    for status in Status:
        found[f"page of 250, {status}"] = page(status=(status,))
    return found


def read_all(ledger: Ledger, n_records: int, n_moments: int) -> dict[str, Measurement]:
    """Ask everything of moments at random."""
    pick = random.Random(1)  # noqa: S311
    found: dict[str, Measurement] = {}
    last = n_records * N_EVENTS
    positions = [pick.randint(1, last) for _ in range(n_moments)]
    for position in [*positions, last // 20, last]:
        moment = moment_of(ledger, position)
        for what, ask in reads(moment, n_records, pick).items():
            for _ in range(10 if what == "one record" else 1):
                with found.setdefault(what, Measurement()).call(1):
                    ask(ledger)
        for n_between in (1_000, 100_000):
            between = Between(moment_of(ledger, max(1, position - n_between)), moment)
            with found.setdefault(f"diff of {n_between:,} events: page", Measurement()).call(1):
                diff.changes(ledger, between, 250)
            with found.setdefault(f"diff of {n_between:,} events: counts", Measurement()).call(1):
                diff.counts(ledger, between)
    whole = Between(moment_of(ledger, 1), moment_of(ledger, last))
    with found.setdefault("diff of everything: page", Measurement()).call(1):
        diff.changes(ledger, whole, 250)
    with found.setdefault("diff of everything: counts", Measurement()).call(1):
        diff.counts(ledger, whole)
    return found


def copy_cost(db: Db, position: int) -> tuple[float, float]:
    """Return what a copy of the status table would take: seconds, and megabytes with its key."""
    states, then = statements("reading.as_of")["states"], statements("reading.as_of")["then"]
    began = perf_counter()
    db.execute(
        f"CREATE TEMPORARY TABLE copied AS"  # noqa: S608
        f" SELECT id, status, tag FROM {states} AS s WHERE {then}",
        {"position": position},
        prepare=False,
    )
    db.execute("CREATE UNIQUE INDEX ON copied (id)")
    took = perf_counter() - began
    row = db.execute("SELECT pg_total_relation_size('copied')").fetchone()
    db.execute("DROP TABLE copied")
    return took, row[0] / 1e6 if row else 0.0


def sizes(db: Db) -> list[tuple[str, float, float]]:
    """Return megabytes of rows and of indexes, by table."""
    return [
        (table, rows / 1e6, indexes / 1e6)
        for table in ("ledger_events", *timeline.TABLES)
        for rows, indexes in db.execute(
            "SELECT pg_table_size(%(table)s::regclass), pg_indexes_size(%(table)s::regclass)",
            {"table": table},
        ).fetchall()
    ]


def report(lines: Sequence[str]) -> None:
    """Print lines."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def measure(
    ledger: Ledger, n_records: int, n_moments: int, *, by_sql: bool
) -> dict[str, Measurement]:
    """Write the log, fill the tables, ask, and print what each took."""
    began = perf_counter()
    with ledger.datastore.reading() as db:
        write_log(db, n_records)
    report([f"{n_records * N_EVENTS:,} events written in {perf_counter() - began:.0f} s"])
    if by_sql:
        began = perf_counter()
        with ledger.datastore.reading() as db:
            fill_by_sql(db, n_records * N_EVENTS)
        report([f"filled by SQL in {perf_counter() - began:.0f} s"])
    else:
        cpu_s = process_time()
        filled = fill(ledger, lambda line: report([line]))
        cpu_s = process_time() - cpu_s
        report(
            [
                f"filled in {filled.seconds:.0f} s: {filled.rate:,.0f} events/s; "
                f"{1e6 * cpu_s / filled.n_items:.0f} us of CPU for each, without the database's"
            ]
        )
    with ledger.datastore.reading() as db:
        for table in timeline.TABLES:
            # What autovacuum does by itself, after a while.
            db.execute(f"VACUUM ANALYZE {table}".encode())
        report([f"{name:>20}: {rows:8.1f} + {idx:8.1f} MB" for name, rows, idx in sizes(db)])
    found = read_all(ledger, n_records, n_moments)
    report(
        [
            f"{what:>40}: p50 {each.percentile_ms(50):9.1f} ms, p99 {each.percentile_ms(99):9.1f} "
            f"ms ({len(each.latencies_s)})"
            for what, each in found.items()
        ]
    )
    with ledger.datastore.reading() as db:
        took_s, size_mb = copy_cost(db, n_records * N_EVENTS)
    report(
        [
            f"a copy of the status table instead: {took_s:.1f} s, {size_mb:.0f} MB each; "
            f"{N_COPIES} of them: {N_COPIES * size_mb / 1e3:.0f} GB"
        ]
    )
    return found


def compare(ledger: Ledger) -> None:
    """Fail unless the tables are what the code makes of the log."""
    differences = [
        each for each in check_replay(ledger).differences if each.table in timeline.TABLES
    ]
    if differences:
        raise RuntimeError(f"the tables are not what they should be: {differences[0]}")


def main() -> int:
    """Run from the command line; the exit status is 1 if something took too long."""
    end_in_order()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100_000, help="ten for each record")
    parser.add_argument("--moments", type=int, default=20, help="at random")
    parser.add_argument(
        "--by-sql",
        action="store_true",
        help="fill the tables of the past by SQL, which is faster; --compare proves it right",
    )
    parser.add_argument("--compare", action="store_true", help="with replay; for small sizes")
    given = parser.parse_args()
    if given.events != given.records * N_EVENTS:
        parser.error(f"each record has {N_EVENTS} events")
    with tempfile.TemporaryDirectory(prefix="recordledger-bench-") as home:
        Path(home).chmod(0o755)
        settings = {"shared_buffers": "1GB", "max_wal_size": "4GB"}
        with EmbeddedPostgres(home, settings=settings) as postgres:
            migrate(postgres.url)
            ledger = Ledger(postgres.url, pool_size=2)
            try:
                found = measure(ledger, given.records, given.moments, by_sql=given.by_sql)
                if given.compare:
                    compare(ledger)
            finally:
                ledger.close()
    table, one = found["status table (by status and tag)"], found["one record"]
    too_slow = table.percentile_ms(99) > TABLE_BUDGET_MS or one.percentile_ms(99) > RECORD_BUDGET_MS
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
