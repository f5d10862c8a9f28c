"""The table `jobs`: operations on many records, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

from recordledger.domain.admin.job import JobAggregate, JobState
from recordledger.domain.errors import JobNotFound
from recordledger.domain.streams import ID_MAX, Stream

from ..store.database import Db, one
from ..store.statements import statements
from .changes import Changes
from .table import Owner, ProjectionTable

_SQL = statements("tables.jobs")
_COLUMNS: Final = (
    "id", "version", "operation_id", "action", "state", "actor", "reason", "n_total", "n_done",
    "n_updated", "n_relatives", "n_refused", "created_at", "modified_at",
)  # fmt: skip


def next_id(db: Db) -> int:
    """Return a new job id."""
    return int(one(db, _SQL["next_id"])[0])


def write(db: Db, changes: Changes) -> None:
    """Bring the rows of jobs to what they are now."""
    for job in changes.after(JobAggregate):
        db.execute(_SQL["write"], {name: getattr(job, name) for name in _COLUMNS})


TABLE: Final = ProjectionTable(name="jobs", key=("id",), owner=Owner("id", Stream.job), write=write)


def get(db: Db, job_id: int, how: Literal["get", "lock"] = "get") -> JobAggregate:
    """Return a job, and keep it from being changed if `how` is lock.

    Raises:
        JobNotFound: there is none with this id.
    """
    row = db.execute(_SQL[how], {"id": job_id}).fetchone()
    if row is None:
        raise JobNotFound(job_id)
    return _from_row(row)


def page(db: Db, limit: int, before: int = ID_MAX) -> list[JobAggregate]:
    """Return jobs, newest first, at most `limit`, with ids below `before`."""
    return [_from_row(row) for row in db.execute(_SQL["page"], {"limit": limit, "before": before})]


def unfinished(db: Db, limit: int) -> list[int]:
    """Return jobs that have something left to do, oldest first."""
    return [row[0] for row in db.execute(_SQL["unfinished"], {"limit": limit})]


def of_operation(db: Db, operation_id: UUID) -> int | None:
    """Return the job that does an operation; None if it was done at once."""
    row = db.execute(_SQL["of_operation"], {"operation_id": operation_id}).fetchone()
    return None if row is None else int(row[0])


def _from_row(row: Sequence[Any]) -> JobAggregate:
    id_, version, operation_id, action, state, *rest = row
    return JobAggregate(id_, version, operation_id, action, JobState(state), *rest)
