"""The table `records`: the current state of every record, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple

from recordledger.domain.events import Kind, Payload, Priority
from recordledger.domain.record import Record
from recordledger.domain.status import Status

from .database import Db
from .lanes import LaneRegistry
from .mapper import pack_outcome, unpack_outcome
from .statements import statements

ERROR_MESSAGE_CHARACTERS: Final = 1000


class Column(NamedTuple):
    """A column of `records`: its type when sent in an array, and its value for a record."""

    name: LiteralString
    type: LiteralString
    value: Callable[[Record, int], Any]
    mutable: bool = False


def _digest(record: Record) -> bytes:
    assert record.spec is not None  # noqa: S101 - Created always sets it
    return record.spec.digest


def _size(record: Record) -> int:
    assert record.spec is not None  # noqa: S101 - Created always sets it
    return record.spec.size_bytes


COLUMNS: Final = (
    Column("id", "bigint", lambda r, _: r.id, mutable=True),
    Column("version", "integer", lambda r, _: r.version, mutable=True),
    Column("status", "text", lambda r, _: r.status and r.status.value, mutable=True),
    Column("prior", "text", lambda r, _: ",".join(r.prior), mutable=True),
    Column("kind", "text", lambda r, _: r.kind.value),
    Column("spec", "bytea", lambda r, _: _digest(r)),
    Column("spec_size_bytes", "bigint", lambda r, _: _size(r)),
    Column("function", "text", lambda r, _: r.function),
    Column("lane_id", "integer", lambda _, lane_id: lane_id, mutable=True),
    Column("tag", "text", lambda r, _: r.tag, mutable=True),
    Column("priority", "smallint", lambda r, _: int(r.priority), mutable=True),
    Column("owner", "text", lambda r, _: r.owner),
    Column("created_at", "timestamptz", lambda r, _: r.created_at),
    Column("modified_at", "timestamptz", lambda r, _: r.modified_at, mutable=True),
    Column("attempt", "integer", lambda r, _: r.attempt, mutable=True),
    Column("manager_id", "bigint", lambda r, _: r.manager_id, mutable=True),
    Column("started_at", "timestamptz", lambda r, _: r.started_at, mutable=True),
    Column("finished_at", "timestamptz", lambda r, _: r.finished_at, mutable=True),
    Column("outcome", "bytea", lambda r, _: r.outcome and pack_outcome(r.outcome), mutable=True),
    Column("error_type", "text", lambda r, _: r.outcome and r.outcome.error_type, mutable=True),
    Column(
        "error_message", "text", lambda r, _: r.outcome and r.outcome.error_message, mutable=True
    ),
    Column("retries", "integer", lambda r, _: r.retries),
    Column("retries_used", "integer", lambda r, _: r.retries_used, mutable=True),
)
_MUTABLE: Final = tuple(column for column in COLUMNS if column.mutable)


def _arrays(columns: Iterable[Column]) -> LiteralString:
    parts: list[LiteralString] = [
        "%(" + column.name + ")b::" + column.type + "[]" for column in columns
    ]
    return ", ".join(parts)


def _names(columns: Iterable[Column], prefix: LiteralString = "") -> LiteralString:
    parts: list[LiteralString] = [prefix + column.name for column in columns]
    return ", ".join(parts)


_SQL: Final[dict[str, LiteralString]] = {
    name: text.format(
        columns=_names(COLUMNS, "r."),
        arrays=_arrays(_MUTABLE if name == "update" else COLUMNS),
        names=_names(_MUTABLE if name == "update" else COLUMNS),
    )
    for name, text in statements("records").items()
}


def next_ids(db: Db, n: int) -> list[int]:
    """Return `n` new record ids, ascending."""
    return [row[0] for row in db.execute(_SQL["next_ids"], {"n": n}, prepare=True)]


def get(db: Db, ids: Sequence[int], lanes: LaneRegistry) -> list[Record]:
    """Return the records with these ids that exist, in the order of ids."""
    return _select(db, "get", {"ids": ids}, lanes)


def lock(db: Db, ids: Sequence[int], lanes: LaneRegistry) -> list[Record]:
    """Lock and return the records with these ids that exist, in the order of ids."""
    return _select(db, "lock", {"ids": ids}, lanes)


def lock_claimable(db: Db, ids: Sequence[int], limit: int, lanes: LaneRegistry) -> list[Record]:
    """Lock and return the first `limit` of these candidates that are still free."""
    return _select(db, "lock_claimable", {"ids": ids, "limit": limit}, lanes)


def lock_of_manager(db: Db, manager_id: int, lanes: LaneRegistry) -> list[Record]:
    """Lock and return the records that a manager is running."""
    return _select(db, "lock_of_manager", {"manager_id": manager_id}, lanes)


class Running(NamedTuple):
    """An attempt that a manager has now."""

    record_id: int
    attempt: int
    started_at: datetime


def running_of_manager(db: Db, manager_id: int) -> list[Running]:
    """Return the attempts that a manager has."""
    rows = db.execute(_SQL["running_of_manager"], {"manager_id": manager_id}, prepare=True)
    return [Running(*row) for row in rows]


def existing(db: Db, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Return, by fingerprint, the oldest record that may be given back instead of a new one."""
    return dict(db.execute(_SQL["existing"], {"digests": digests}, prepare=True))


def write(
    db: Db, changes: Sequence[tuple[Record, Record]], lane_id_of: Callable[[Record], int]
) -> None:
    """Bring the rows of changed records, each given as (before, after), to what they are now."""
    new = [after for before, after in changes if not before.exists and after.exists]
    changed = [after for before, after in changes if before.exists and after.exists]
    gone = [after.id for before, after in changes if before.exists and not after.exists]
    if new:
        db.execute(_SQL["insert"], _parameters(COLUMNS, new, lane_id_of), prepare=True)
    if changed:
        db.execute(_SQL["update"], _parameters(_MUTABLE, changed, lane_id_of), prepare=True)
    if gone:
        db.execute(_SQL["delete"], {"ids": gone}, prepare=True)


def _parameters(
    columns: Sequence[Column], rows: Sequence[Record], lane_id_of: Callable[[Record], int]
) -> dict[str, list[Any]]:
    lane_ids = [lane_id_of(record) for record in rows]
    return {
        column.name: [
            column.value(record, lane_id) for record, lane_id in zip(rows, lane_ids, strict=True)
        ]
        for column in columns
    }


def _select(
    db: Db, statement: str, parameters: dict[str, Any], lanes: LaneRegistry
) -> list[Record]:
    rows = db.execute(_SQL[statement], parameters, prepare=True).fetchall()
    return [from_row(row, lanes) for row in rows]


def from_row(row: Sequence[Any], lanes: LaneRegistry) -> Record:
    """Return the record that a row of `records` holds, its columns in the order of `COLUMNS`."""
    (id_, version, status, prior, kind, spec, spec_size_bytes, function, lane_id, tag, priority,
     owner, created_at, modified_at, attempt, manager_id, started_at, finished_at, outcome, _, _,
     retries, retries_used) = row  # fmt: skip
    return Record(
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
        retries=retries,
        retries_used=retries_used,
    )
