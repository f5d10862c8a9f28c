"""What must hold of a ledger's tables at every moment, asked in ways that nothing else uses.

The audit judges the log, and compares the tables with what live operations' statements make of it.
Here they are counted by other SQL, and compared with histories as they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from psycopg.rows import TupleRow

from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.events import Event, Kind
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.records.status import Status
from recordledger.projections.reading.queries import get_records

from .stage import Stage

# Each finds the rows that ought not to be.
_QUESTIONS: Final = {
    "counters": """
        SELECT lane_id, status, kept.n_records AS kept, counted.n_records AS counted
          FROM (SELECT * FROM status_counts WHERE n_records <> 0) AS kept
          FULL JOIN (SELECT lane_id, status, count(*) AS n_records
                       FROM records GROUP BY lane_id, status) AS counted
               USING (lane_id, status)
         WHERE kept.n_records IS DISTINCT FROM counted.n_records
         UNION ALL
        SELECT specification, status, kept.n_records, counted.n_records
          FROM (SELECT * FROM dataset_counts WHERE n_records <> 0) AS kept
          FULL JOIN (SELECT dataset_id, specification, status, count(*) AS n_records
                       FROM dataset_records d
                       LEFT JOIN records r ON r.id = d.record_id
                      WHERE removed_in IS NULL
                      GROUP BY dataset_id, specification, status) AS counted
               USING (dataset_id, specification, status)
         WHERE kept.n_records IS DISTINCT FROM counted.n_records""",
    "queue": """
        SELECT queued.record_id AS queued, claimable.record_id AS claimable
          FROM claim_queue AS queued
          FULL JOIN (SELECT lane_id, -priority AS rank, id AS record_id
                       FROM records WHERE status = 'waiting' AND kind = 'task') AS claimable
               USING (lane_id, rank, record_id)
         WHERE queued.record_id IS NULL OR claimable.record_id IS NULL""",
    # A service's row says what its record and those of its children say.
    "services": """
        SELECT r.id, s.*, counted.*
          FROM (SELECT * FROM records WHERE kind = 'service') AS r
          FULL JOIN services s ON s.record_id = r.id
          LEFT JOIN LATERAL (
               SELECT count(*) AS n_awaited,
                      count(*) FILTER (WHERE child.status IN ('waiting', 'running', 'held'))
                               AS n_open,
                      count(*) FILTER (WHERE child.status IN (
                               'error', 'failed', 'cancelled', 'deleted', 'invalid'))
                               AS n_troubled
                 FROM service_children c
                 JOIN records child ON child.id = c.child_id
                WHERE c.service_id = r.id AND c.awaited) AS counted ON true
         WHERE (r.status, -r.priority, counted.n_awaited, counted.n_open, counted.n_troubled)
               IS DISTINCT FROM (s.status, s.rank, s.n_awaited, s.n_open, s.n_troubled)
            OR s.wanted IS DISTINCT FROM EXISTS (
               SELECT FROM service_children c WHERE c.child_id = r.id AND c.awaited)
            OR s.n_children < (SELECT count(*) FROM service_children c WHERE c.service_id = r.id)
            OR NOT s.due AND (
               s.status = 'waiting' AND s.wanted
               OR s.status = 'running' AND s.wake_at IS NULL AND s.n_open = 0
               OR s.status = 'running' AND s.n_troubled > 0 AND NOT s.takes_errors)""",
    # What a service has asked for by name is its child, and the other way round.
    "children": """
        SELECT d.parent_id, d.child_id, c.key
          FROM dependencies d
          FULL JOIN service_children c ON c.service_id = d.parent_id AND c.child_id = d.child_id
         WHERE d.parent_id IS NULL OR c.service_id IS NULL""",
}
NAMES: Final = (*_QUESTIONS, "live-row", "open-attempt")


def violations(stage: Stage, record_ids: Collection[int]) -> dict[str, list[str]]:
    """Return what is wrong, by invariant: of the tables as a whole, and of these records."""
    found = {name: _readable(stage.ask(question)) for name, question in _QUESTIONS.items()}
    with stage.ledger.datastore.reading() as db:
        histories = stage.ledger.histories(db, list(record_ids))
    rows = get_records(stage.ledger, record_ids)
    by_record: Mapping[
        str, Callable[[int, Sequence[Event], RecordAggregate | None], str | None]
    ] = {
        "live-row": _live_row,
        "open-attempt": _open_attempt,
    }
    for name, wrong_with in by_record.items():
        told = (wrong_with(id_, histories.get(id_, []), rows.get(id_)) for id_ in record_ids)
        found[name] = [each for each in told if each is not None]
    return {name: wrong for name, wrong in found.items() if wrong}


def _readable(rows: Iterable[TupleRow]) -> list[str]:
    return [str(row) for row in rows]


def _live_row(record_id: int, history: Sequence[Event], row: RecordAggregate | None) -> str | None:
    """A row is the fold of its record's events, and an erased record has none."""
    folded = fold(record_id, history)
    expected = folded if folded.exists else None
    return None if row == expected else f"{record_id} is {row}, and the log says {expected}"


def _open_attempt(
    record_id: int, history: Sequence[Event], row: RecordAggregate | None
) -> str | None:
    """A running record has one attempt that has not ended, which is its row's; others none."""
    open_ = [each for each in attempts(history).values() if each.ended_at is None]
    held = [(each.number, each.manager_id) for each in open_]
    running = row is not None and row.status is Status.running
    expected = [(row.attempt, row.manager_id)] if row is not None and running else []
    if held != expected:
        return f"{record_id} has the open attempts {held}, and its row says {expected}"
    leaseless = row is not None and running and row.kind is Kind.task and row.manager_id is None
    return f"{record_id} runs and nobody has it" if leaseless else None
