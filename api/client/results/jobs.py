"""Jobs."""

from __future__ import annotations

from recordledger.domain.admin.job import JobState

from ...schemas.jobs import JobOut
from .table import Table


class Job(JobOut):
    """An operation on many records, and how far it had come when it was read."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen: it is finished or cancelled."""
        return self.state in (JobState.finished, JobState.cancelled)


class Jobs(Table[Job]):
    """Jobs, newest first."""

    noun = "jobs"
    columns = ("id", "state", "action", "n_total", "n_done", "n_refused", "actor", "created_at")
