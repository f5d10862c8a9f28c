"""What calls about datasets return, and results as tables of other libraries."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

from recordledger.domain.records.status import Status

from ...schemas.dataset_edits import CellRefusal
from ...schemas.datasets import CellOut, DatasetAnswer, DatasetOut, DatasetStatusAnswer, EntryOut
from ..errors import ClientError
from ..tables import html_table, shown, text_table
from .bulk import BulkMetadata
from .table import Table

# What a row of results begins with.
_FIXED: Final = ("entry", "specification", "record_id", "status")


class DatasetSummary(DatasetOut):
    """A dataset as a list of them has it."""


class DatasetDetails(DatasetAnswer):
    """A dataset with its specifications and locked versions, as it was when it was read."""


class Datasets(Table[DatasetSummary]):
    """Datasets, newest first."""

    noun = "datasets"
    columns = ("id", "name", "n_entries", "n_records", "counts", "owner", "modified_at")


class DatasetEntry(EntryOut):
    """An entry of a dataset."""


class Entries(Table[DatasetEntry]):
    """Entries of a dataset, in the order in which they came."""

    noun = "entries"
    columns = ("name", "input", "attributes")

    def _title(self) -> str:
        return f"{len(self):,} {'entry' if len(self) == 1 else 'entries'}"


@dataclass(frozen=True, slots=True, repr=False)
class EntriesMetadata(BulkMetadata):
    """The outcome of the entries to add.

    Attributes:
        inserted_idx: those that are new.
        existing_idx: those that were there, and say the same.
        version: what the dataset's version is now.
    """

    inserted_idx: list[int]
    existing_idx: list[int]
    version: int

    def _figures(self) -> dict[str, str]:
        return {
            "inserted": f"{len(self.inserted_idx):,}",
            "existing": f"{len(self.existing_idx):,}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitMetadata:
    """The outcome of the cells that had no record.

    Attributes:
        n_selected: how many there were.
        n_linked: how many have a record now.
        n_existing: how many of these got one that was there already; unknown for a job.
        errors: why others have none: `code` and `message`.
        operation_id: of what was done; None if there was nothing to do.
        job_id: the job that did it, if there were many.
        is_done: False as long as the job goes on.
    """

    n_selected: int
    n_linked: int
    n_existing: int | None
    errors: list[CellRefusal]
    operation_id: str | None
    job_id: int | None = None
    is_done: bool = True


class DatasetStatus(DatasetStatusAnswer):
    """How far a dataset was when it was asked for."""

    @property
    def n_open(self) -> int:
        """How many cells have a record that waits or runs."""
        return self.counts.get(Status.waiting, 0) + self.counts.get(Status.running, 0)

    @property
    def is_finished(self) -> bool:
        """Whether every cell has a record, and none of these waits or runs."""
        return not self.n_missing and not self.n_open

    def __repr__(self) -> str:
        """Return a line for each specification, and one for all."""
        return text_table(*self._table(), title=self._title())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(*self._table(), title=self._title())

    def _title(self) -> str:
        return f"dataset {self.dataset_id} {self.name!r}: {self.n_entries:,} entries"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        statuses = [status for status in Status if self.counts.get(status)]
        rows = [
            (each.name, [each.counts.get(status, 0) for status in statuses], each.n_missing)
            for each in self.specifications
        ]
        if len(rows) > 1:
            totals = [self.counts.get(status, 0) for status in statuses]
            rows.append(("all", totals, self.n_missing))
        return (
            ["specification", *map(str, statuses), "no record"],
            [
                [shown(name), *(f"{n:,}" for n in numbers), f"{n_missing:,}"]
                for name, numbers, n_missing in rows
            ],
        )


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """An entry, and its records by specification; None where there is none."""

    entry: str
    cells: dict[str, CellOut | None]


class DatasetTable(Table[DatasetRow]):
    """Entries x specifications, with what the records are now."""

    noun = "entries"

    def __init__(self, rows: Sequence[DatasetRow], specifications: Sequence[str]) -> None:
        """Keep the rows, and which specifications they have."""
        super().__init__(rows)
        self.specifications = list(specifications)

    def __repr__(self) -> str:
        """Return a table in text."""
        return text_table(self._columns(), self._rows(), title=self._title())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(self._columns(), self._rows(), title=self._title())

    def _columns(self) -> list[str]:
        return ["entry", *map(shown, self.specifications)]

    def _rows(self) -> list[list[str]]:
        return [[shown(row.entry), *map(_cell, row.cells.values())] for row in self]

    def _title(self) -> str:
        return f"{len(self):,} {'entry' if len(self) == 1 else 'entries'}"


def _cell(cell: CellOut | None) -> str:
    return "" if cell is None else f"{cell.record_id} {cell.status or 'erased'}"


class Results(list[dict[str, Any]]):
    """Results of a dataset: a dict for each record, with entry, specification and result.

    `to_pandas`, `to_polars` and `to_arrow` make tables of them: a result that is a mapping becomes
    a column for each of its keys, `result.energy`. A column without a common type becomes JSON.
    """

    columns: ClassVar[tuple[str, ...]] = _FIXED

    def __repr__(self) -> str:
        """Return a table in text."""
        if not self:
            return "no results"
        return text_table(*self._table(), title=self._title())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(*self._table(), title=self._title())

    def _table(self) -> tuple[list[str], list[list[str]]]:
        columns = self.as_columns()
        rows = zip(*columns.values(), strict=True)
        return list(columns), [[shown(value) for value in row] for row in rows]

    def _title(self) -> str:
        return f"{len(self):,} {'result' if len(self) == 1 else 'results'}"

    def as_columns(self) -> dict[str, list[Any]]:
        """Return the same as lists by column; None where a row has nothing."""
        rows = [_flat(row) for row in self]
        names = dict.fromkeys(_FIXED)
        for row in rows:
            names |= dict.fromkeys(row)
        return {name: [row.get(name) for row in rows] for name in names}

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`.

        Raises:
            ClientError: pandas is not installed.
        """
        pandas = _library("pandas")
        return pandas.DataFrame(self.as_columns(), columns=list(self.as_columns()))

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame`.

        Raises:
            ClientError: Polars is not installed.
        """
        polars = _library("polars")
        refused = (TypeError, OverflowError, polars.exceptions.PolarsError)

        def series(name: str, values: list[Any]) -> Any:
            return polars.Series(name, values, strict=True)

        return polars.DataFrame(
            [_typed(name, values, series, refused) for name, values in self.as_columns().items()]
        )

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table`.

        Raises:
            ClientError: PyArrow is not installed.
        """
        pyarrow = _library("pyarrow")
        refused = (pyarrow.ArrowException, OverflowError)

        def array(_: str, values: list[Any]) -> Any:
            return pyarrow.array(values)

        columns = self.as_columns()
        return pyarrow.table(
            {name: _typed(name, values, array, refused) for name, values in columns.items()}
        )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose mappings are columns of their own; statuses are plain text."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Status):
            flat[name] = str(value)
        elif isinstance(value, Mapping) and value:
            inner = cast("Mapping[str, Any]", value)
            flat |= {f"{name}.{key}": item for key, item in inner.items()}
        else:
            flat[name] = value
    return flat


def _typed(
    name: str,
    values: list[Any],
    make: Callable[[str, list[Any]], Any],
    refused: tuple[type[Exception], ...],
) -> Any:
    """Return a column of one type; of JSON where the values have none in common."""
    try:
        return make(name, values)
    except refused:
        return make(name, [None if value is None else json.dumps(value) for value in values])


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ClientError(
            f"{name} is not installed: `pip install 'recordledger[tables]'` brings pandas, Polars "
            "and PyArrow; the results are a list of dicts without it"
        ) from error
