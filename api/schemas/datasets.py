"""Reading datasets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime

from recordledger.domain.records.status import Status

from .base import Answer
from .events import LogEventOut
from .fields import PriorityName


class DatasetOut(Answer):
    """A dataset. `counts` are its cells by their records' statuses, `n_records` all of them."""

    id: int
    version: int
    name: str
    description: str
    owner: str
    cloned_from: int | None
    created_at: AwareDatetime
    modified_at: AwareDatetime
    n_entries: int
    n_records: int
    counts: dict[Status, int]


class SpecificationOut(Answer):
    """How the entries of a dataset are computed; `kwargs` only if they were asked for."""

    name: str
    kind: Literal["task", "service"]
    function: str
    required_programs: list[str]
    tag: str
    priority: PriorityName
    retries: int
    retry_delay_s: float
    retry_on: list[str]
    kwargs: dict[str, Any] | None = None


class LockedVersionOut(Answer):
    """A version that stays readable; `version` is what the dataset's own version was."""

    number: int
    version: int
    label: str
    doi: str | None
    n_entries: int
    locked_at: AwareDatetime
    locked_by: str


class DatasetAnswer(DatasetOut):
    """A dataset with its specifications, in the order in which they came, and locked versions."""

    specifications: list[SpecificationOut]
    locked_versions: list[LockedVersionOut]


class DatasetsAnswer(Answer):
    """One page of datasets, newest first; `next_cursor` is None on the last."""

    datasets: list[DatasetOut]
    next_cursor: str | None


class EntryOut(Answer):
    """An entry; what it says only if that was asked for."""

    name: str
    input: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None


class EntriesAnswer(Answer):
    """One page of entries, in the order in which they came; `next_cursor` is None on the last."""

    entries: list[EntryOut]
    next_cursor: str | None


class DatasetHistoryAnswer(Answer):
    """One page of a dataset's events, oldest first; `next_cursor` is None on the last.

    Of lists longer than ten only the beginning is shown, and `n_...` says how long they are. If
    those of its records are wanted too, they follow record by record.
    """

    dataset_id: int
    events: list[LogEventOut]
    next_cursor: str | None


class SpecificationStatus(Answer):
    """The cells of one specification: by their records' statuses, and how many have none."""

    name: str
    counts: dict[Status, int]
    n_missing: int


class DatasetStatusAnswer(Answer):
    """The cells of a dataset, by specification and in all. Counts are kept: this is cheap."""

    dataset_id: int
    name: str
    version: int
    n_entries: int
    specifications: list[SpecificationStatus]
    counts: dict[Status, int]
    n_missing: int


class CellOut(Answer):
    """A cell that has a record. `status` is None if the record was erased since."""

    record_id: int
    status: Status | None


class TableRow(Answer):
    """An entry, and its records in the order of the specifications; None where there is none."""

    entry: str
    cells: list[CellOut | None]


class TableAnswer(Answer):
    """One page of entries x specifications; `next_cursor` is None on the last."""

    specifications: list[str]
    rows: list[TableRow]
    next_cursor: str | None
