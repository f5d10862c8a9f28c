"""The table `records`: the current state of every record, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final, LiteralString, NamedTuple, TypeAlias

from recordledger.domain.records.events import Kind, Payload, Priority
from recordledger.domain.records.record import RecordAggregate, changed_fields
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream

from ..log.mapper import pack_outcome, pack_payload, unpack_outcome, unpack_payload
from ..store.database import Db
from ..store.statements import shipped, statements
from .changes import Changes, RecordClass, SharedChanges
from .lanes import LaneRegistry
from .payloads import text_of, texts
from .table import Owner, ProjectionTable

# The columns of `records` and their types when sent in arrays, in the order of `to_row`.
COLUMNS: Final[dict[LiteralString, LiteralString]] = {
    "id": "bigint",
    "version": "integer",
    "status": "text",
    "prior": "text",
    "lane_id": "integer",
    "tag": "text",
    "priority": "smallint",
    "modified_at": "timestamptz",
    "attempt": "integer",
    "manager_id": "bigint",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "outcome": "bytea",
    "error_type": "text",
    "error_message": "text",
    "retries_used": "integer",
    "iteration": "integer",
    "service_state": "bytea",
    "not_before": "timestamptz",
    # From here on, what never changes.
    "kind": "text",
    "spec": "bytea",
    "spec_size_bytes": "bigint",
    "function": "text",
    "owner": "text",
    "created_at": "timestamptz",
    "retries": "integer",
    "retry_delay_s": "double precision",
    "retry_on": "text",
}
_N_MUTABLE: Final = list(COLUMNS).index("kind")
_LANE_ID: Final = list(COLUMNS).index("lane_id")
_PRIOR: Final = list(COLUMNS).index("prior")
# The columns of a field that has another name there, or more of them.
_COLUMNS_OF: Final[Mapping[str, tuple[LiteralString, ...]]] = {
    "outcome": ("outcome", "error_type", "error_message"),
    "tag": ("tag", "lane_id"),
    "version": (),
}
_PRIOR_OF_TEXT: Final = "prior = string_to_array(%(prior)b::text, ',')"
# Columns and what all records get there.
_Assigned: TypeAlias = tuple[tuple[LiteralString, Any], ...]
# Stands for the end of any pause before a retry.
_SOME_TIME: Final = datetime.max.replace(tzinfo=UTC)


def to_row(record: RecordAggregate, lane_id: int, texts: Mapping[bytes, str]) -> tuple[Any, ...]:
    """Return a record as its row, in the order of `COLUMNS`; what is a list is joined by commas."""
    spec, outcome, retry = record.spec, record.outcome, record.retry
    return (
        record.id,
        record.version,
        record.status,
        ",".join(record.prior),
        lane_id,
        record.tag,
        int(record.priority),
        record.modified_at,
        record.attempt,
        record.manager_id,
        record.started_at,
        record.finished_at,
        None if outcome is None else pack_outcome(outcome),
        None if outcome is None else outcome.error_type,
        None if outcome is None else text_of(outcome.error_message, texts),
        record.retries_used,
        record.iteration,
        None if record.service_state is None else pack_payload(record.service_state),
        record.not_before,
        record.kind,
        spec and spec.digest,
        spec and spec.size_bytes,
        record.function,
        record.owner,
        record.created_at,
        retry.retries,
        retry.delay_s,
        ",".join(retry.on),
    )


def _sql(name: str, text: LiteralString) -> LiteralString:
    names = list(COLUMNS)[: _N_MUTABLE if name == "update" else None]
    arrays: list[LiteralString] = ["%(" + each + ")b::" + COLUMNS[each] + "[]" for each in names]
    selected: list[LiteralString] = ["r." + each for each in COLUMNS]
    return shipped(
        text.format(columns=", ".join(selected), arrays=", ".join(arrays), names=", ".join(names))
    )


_TEXTS: Final = statements("tables.records")
_SQL: Final[dict[str, LiteralString]] = {
    name: _sql(name, text) for name, text in _TEXTS.items() if not name.startswith("update_alike")
}


def next_ids(db: Db, n: int) -> list[int]:
    """Return `n` new record ids, ascending."""
    return [row[0] for row in db.execute(_SQL["next_ids"], {"n": n}, prepare=True)]


def get(db: Db, ids: Sequence[int], lanes: LaneRegistry) -> list[RecordAggregate]:
    """Return the records with these ids that exist, in the order of ids."""
    return _select(db, "get", {"ids": ids}, lanes)


def lock(db: Db, ids: Sequence[int], lanes: LaneRegistry) -> list[RecordAggregate]:
    """Lock and return the records with these ids that exist, in the order of ids."""
    return _select(db, "lock", {"ids": ids}, lanes)


def lock_attempts(
    db: Db, manager_id: int, ids: Sequence[int], lanes: LaneRegistry
) -> list[RecordClass]:
    """Lock records in the order of ids; return those that this manager runs, by classes.

    The number of the attempt is the same in a class.
    """
    parameters = {"manager_id": manager_id, "ids": ids}
    rows = db.execute(_SQL["lock_attempts"], parameters, prepare=True).fetchall()
    lanes.learn(db, (row[0] for row in rows))
    return [
        RecordClass(
            ids=ids,
            versions=versions,
            like=RecordAggregate(
                id=0,
                version=1,
                status=Status.running,
                attempt=attempt,
                manager_id=manager_id,
                required_programs=lanes.lane(lane_id).required_programs,
                tag=lanes.lane(lane_id).tag,
                priority=Priority(priority),
            ),
        )
        for lane_id, priority, attempt, ids, versions in rows
    ]


class ClaimableTask(NamedTuple):
    """What a claim asks of a locked task that waits; its specification is the payload `spec`."""

    id: int
    version: int
    attempt: int
    lane_id: int
    priority: int
    spec: bytes
    spec_size_bytes: int


def lock_claimable(
    db: Db, ids: Sequence[int], lane_ids: Sequence[int], limit: int
) -> list[ClaimableTask]:
    """Lock and return the first `limit` of these candidates that still wait in their lanes."""
    parameters = {"ids": ids, "lane_ids": lane_ids, "limit": limit}
    rows = db.execute(_SQL["lock_claimable"], parameters, prepare=True).fetchall()
    return [ClaimableTask(*row) for row in rows]


def classes_of(tasks: Iterable[ClaimableTask], lanes: LaneRegistry) -> list[RecordClass]:
    """Return the classes of tasks that wait: by lane, priority and number of attempts."""
    found: dict[tuple[int, int, int], list[ClaimableTask]] = {}
    for task in tasks:
        found.setdefault((task.lane_id, task.priority, task.attempt), []).append(task)
    return [
        RecordClass(
            ids=[task.id for task in alike],
            versions=[task.version for task in alike],
            like=RecordAggregate(
                id=0,
                version=1,
                status=Status.waiting,
                attempt=attempt,
                required_programs=lanes.lane(lane_id).required_programs,
                tag=lanes.lane(lane_id).tag,
                priority=Priority(priority),
            ),
        )
        for (lane_id, priority, attempt), alike in found.items()
    ]


def lock_of_manager(db: Db, manager_id: int, lanes: LaneRegistry) -> list[RecordAggregate]:
    """Lock and return the records that a manager is running."""
    return _select(db, "lock_of_manager", {"manager_id": manager_id}, lanes)


def lock_classes(db: Db, ids: Sequence[int], lanes: LaneRegistry) -> list[RecordClass]:
    """Lock the records with these ids that exist, in the order of ids; return them by classes."""
    rows = db.execute(_SQL["lock_classes"], {"ids": ids}, prepare=True).fetchall()
    lanes.learn(db, (row[3] for row in rows))
    return [
        RecordClass(
            ids=ids,
            versions=versions,
            like=RecordAggregate(
                id=0,
                version=1,
                status=Status(status),
                prior=tuple(map(Status, prior)),
                kind=Kind(kind),
                required_programs=lanes.lane(lane_id).required_programs,
                tag=lanes.lane(lane_id).tag,
                priority=Priority(priority),
                not_before=_SOME_TIME if is_paused else None,
            ),
        )
        for status, prior, kind, lane_id, priority, is_paused, ids, versions in rows
    ]


class Running(NamedTuple):
    """An attempt that a manager has now."""

    record_id: int
    attempt: int
    started_at: datetime


def running_of_manager(db: Db, manager_id: int) -> list[Running]:
    """Return the attempts that a manager has."""
    rows = db.execute(_SQL["running_of_manager"], {"manager_id": manager_id}, prepare=True)
    return [Running(*row) for row in rows]


def existing(db: Db, digests: Sequence[bytes]) -> dict[tuple[bytes, Kind], int]:
    """Return, by fingerprint and kind, the oldest record that may be given back for a new one."""
    rows = db.execute(_SQL["existing"], {"digests": digests}, prepare=True)
    return {(digest, Kind(kind)): id_ for digest, kind, id_ in rows}


def write(db: Db, changes: Changes) -> None:
    """Bring the rows of changed records to what they are now."""
    new = [after for before, after in changes.records if not before.exists and after.exists]
    changed = [after for before, after in changes.records if before.exists and after.exists]
    gone = [after.id for before, after in changes.records if before.exists and not after.exists]
    if new:
        db.execute(_SQL["insert"], _parameters(db, new, changes.lanes), prepare=True)
    if changed:
        db.execute(_SQL["update"], _parameters(db, changed, changes.lanes), prepare=True)
    if gone:
        db.execute(_SQL["delete"], {"ids": gone}, prepare=True)


def write_shared(db: Db, changes: SharedChanges) -> None:
    """Bring the rows of records that share an event to what they are now."""
    changed: dict[_Assigned, tuple[list[int], list[bytes]]] = {}
    for each in changes.classes:
        row = to_row(each.after, changes.lanes.id_of(each.after), {})
        names = set(_columns_of(changed_fields(each.before, each.event)))
        if each.outcomes is not None:
            names.remove("outcome")
        key = tuple(pair for pair in zip(COLUMNS, row, strict=True) if pair[0] in names)
        ids, outcomes = changed.setdefault(key, ([], []))
        ids.extend(each.ids)
        outcomes.extend(map(pack_outcome, each.outcomes or ()))
    for assigned, (ids, outcomes) in changed.items():
        statement = "update_alike_with_outcomes" if outcomes else "update_alike"
        sql = _update_alike(statement, tuple(name for name, _ in assigned))
        values: dict[str, Any] = {**dict(assigned), "ids": ids}
        if outcomes:
            values["outcomes"] = outcomes
        db.execute(sql, values, prepare=True)


def _columns_of(fields: Iterable[str]) -> Iterator[str]:
    return (column for field in fields for column in _COLUMNS_OF.get(field, (field,)))


@cache
def _update_alike(statement: str, names: tuple[LiteralString, ...]) -> LiteralString:
    assignments: list[LiteralString] = [
        name + " = %(" + name + ")b::" + COLUMNS[name] if name != "prior" else _PRIOR_OF_TEXT
        for name in names
    ]
    return shipped(_TEXTS[statement].format(assignments=",\n       ".join(assignments)))


def rows(db: Db, changes: Changes) -> list[tuple[Any, ...]]:
    """Return the rows of the changed records that exist, as they are copied."""
    changed = [after for _, after in changes.records if after.exists]
    return [
        (*row[:_PRIOR], _listed(row[_PRIOR]), *row[_PRIOR + 1 :])
        for row in _rows(db, changed, changes.lanes)
    ]


TABLE: Final = ProjectionTable(
    name="records",
    key=("id",),
    owner=Owner("id", Stream.record),
    write=write,
    write_shared=write_shared,
    columns=COLUMNS | {"prior": "text[]"},
    rows=rows,
)


def _rows(
    db: Db, changed: Sequence[RecordAggregate], lanes: LaneRegistry
) -> Iterator[tuple[Any, ...]]:
    messages = [
        each.outcome.error_message
        for each in changed
        if each.outcome is not None and each.outcome.error_message is not None
    ]
    said_in = texts(db, messages) if messages else dict[bytes, str]()
    return (to_row(record, lanes.id_of(record), said_in) for record in changed)


def _listed(joined: str) -> list[str]:
    return joined.split(",") if joined else []


def _parameters(
    db: Db, changed: Sequence[RecordAggregate], lanes: LaneRegistry
) -> dict[str, list[Any]]:
    """Return the rows as one array a column: what PostgreSQL takes fastest."""
    columns = zip(*_rows(db, changed, lanes), strict=True)
    return dict(zip(COLUMNS, map(list[Any], columns), strict=True))


def _select(
    db: Db, statement: str, parameters: dict[str, Any], lanes: LaneRegistry
) -> list[RecordAggregate]:
    rows = db.execute(_SQL[statement], parameters, prepare=True).fetchall()
    return from_rows(db, rows, lanes)


def from_rows(db: Db, rows: Sequence[Sequence[Any]], lanes: LaneRegistry) -> list[RecordAggregate]:
    """Return the records that rows of `records` hold, their columns in the order of `COLUMNS`."""
    lanes.learn(db, (row[_LANE_ID] for row in rows))
    return [from_row(row, lanes) for row in rows]


@lru_cache(maxsize=256)
def _retry(retries: int, delay_s: float, on: str) -> Retry:
    return Retry(retries, delay_s, tuple(on.split(",")) if on else ())


def from_row(row: Sequence[Any], lanes: LaneRegistry) -> RecordAggregate:
    """Return the record that a row of `records` holds; its lane must have been learnt."""
    (id_, version, status, prior, lane_id, tag, priority, modified_at, attempt, manager_id,
     started_at, finished_at, outcome, _, _, retries_used, iteration, service_state, not_before,
     kind, spec, spec_size_bytes, function, owner, created_at, retries, retry_delay_s,
     retry_on) = row  # fmt: skip
    return RecordAggregate(
        id=id_,
        version=version,
        status=Status(status),
        prior=tuple(map(Status, prior)) if prior else (),
        kind=Kind(kind),
        spec=Payload(digest=spec, size_bytes=spec_size_bytes),
        function=function,
        required_programs=lanes.lane(lane_id).required_programs,
        tag=tag,
        priority=Priority(priority),
        owner=owner,
        created_at=created_at,
        modified_at=modified_at,
        attempt=attempt,
        manager_id=manager_id,
        started_at=started_at,
        finished_at=finished_at,
        outcome=unpack_outcome(outcome) if outcome is not None else None,
        retry=_retry(retries, retry_delay_s, retry_on),
        retries_used=retries_used,
        not_before=not_before,
        iteration=iteration,
        service_state=None if service_state is None else unpack_payload(service_state),
    )
