"""Parquet files: written a group of rows at a time, in bounded memory, and read the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

from recordledger.domain.errors import LibraryMissing

ROWS_MAX: Final = 20_000
"""Rows of a group at most."""

BYTES_MAX: Final = 32 * 1024 * 1024
"""Of values whose size varies, in a group: so much at most, and one row more."""

Type: TypeAlias = Literal[
    "int64", "int32", "float64", "bool", "string", "label", "time", "bytes", "strings"
]
"""`label` is a string of which there are few; `time` has microseconds, in UTC."""


class Arrow(NamedTuple):
    """The library: its two modules, and what its faults are."""

    core: Any
    parquet: Any

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """What reading a broken file can raise."""
        return (self.core.ArrowException, OSError, ValueError, OverflowError)


def arrow() -> Arrow:
    """Return the library that reads and writes Parquet.

    Raises:
        LibraryMissing: it is not installed.
    """
    try:
        return Arrow(import_module("pyarrow"), import_module("pyarrow.parquet"))
    except ImportError as error:
        raise LibraryMissing("PyArrow", "tables") from error


def schema_of(columns: Mapping[str, Type], about: Mapping[str, str] | None = None) -> Any:
    """Return columns as Arrow has them, with a few words about the table."""
    core = arrow().core
    types = {
        "int64": core.int64(),
        "int32": core.int32(),
        "float64": core.float64(),
        "bool": core.bool_(),
        "string": core.string(),
        "label": core.dictionary(core.int32(), core.string()),
        "time": core.timestamp("us", tz="UTC"),
        "bytes": core.binary(),
        "strings": core.list_(core.string()),
    }
    fields = [core.field(name, types[each]) for name, each in columns.items()]
    return core.schema(fields, metadata=dict(about or {}))


class TableWriter:
    """Writes rows to a Parquet file. What is written is there, whole, after `with`."""

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Type],
        *,
        about: Mapping[str, str] | None = None,
        rows_max: int = ROWS_MAX,
    ) -> None:
        """Begin a file.

        Args:
            path: where.
            columns: their names and types, in order.
            about: words about the table, kept in the file.
            rows_max: rows of a group.
        """
        self.path = path
        self.n_rows = 0
        self._arrow = arrow()
        self._schema = schema_of(columns, about)
        self._rows_max = rows_max
        self._rows: list[Sequence[Any]] = []
        self._n_bytes = 0
        labels = [name for name, each in columns.items() if each == "label"]
        # Bytes are payloads and events: compressed already, or short and each of its own kind.
        compression = {
            name: "NONE" if each == "bytes" else "ZSTD" for name, each in columns.items()
        }
        nested = {f"{name}.list.element": "ZSTD" for name, t in columns.items() if t == "strings"}
        self._writer = self._arrow.parquet.ParquetWriter(
            path,
            self._schema,
            compression={**compression, **nested},
            use_dictionary=labels,
            write_page_checksum=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def add(self, row: Sequence[Any]) -> None:
        """Add a row: a value for each column."""
        self._rows.append(row)
        self._n_bytes += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(self._rows) >= self._rows_max or self._n_bytes >= BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        core = self._arrow.core
        arrays = [
            core.array(list(values), type=field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_batch(core.record_batch(arrays, schema=self._schema))
        self.n_rows += len(self._rows)
        self._rows, self._n_bytes = [], 0


class TableReader:
    """Reads rows from the bytes of a Parquet file, a group at a time."""

    def __init__(self, buffer: Any, columns: Mapping[str, Type]) -> None:
        """Look at the file's description.

        Args:
            buffer: the file, as Arrow has it.
            columns: what must be in it.

        Raises:
            ValueError: it is not such a table, or a group has more rows than are written.
        """
        self._arrow = arrow()
        self._file = self._arrow.parquet.ParquetFile(
            self._arrow.core.BufferReader(buffer), page_checksum_verification=True
        )
        if not self._file.schema_arrow.equals(schema_of(columns)):
            raise ValueError(f"its columns must be {', '.join(columns)}")
        meta = self._file.metadata
        self.n_rows: int = meta.num_rows
        for index in range(meta.num_row_groups):
            group = meta.row_group(index)
            if group.num_rows > ROWS_MAX:
                raise ValueError(f"its group {index} has {group.num_rows} rows")
            _refuse_bombs(group, [name for name, each in columns.items() if each == "bytes"])

    def rows(self, names: Sequence[str] | None = None) -> Iterator[tuple[Any, ...]]:
        """Give the rows in order, with all columns or those that are named."""
        for index in range(self._file.num_row_groups):
            table = self._file.read_row_group(index, columns=names)
            yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _refuse_bombs(group: Any, plain: Sequence[str]) -> None:
    """Refuse a group of which few bytes would become many.

    Bytes must be as they are, neither compressed nor named once and repeated; of all else there
    cannot be more than is written into one group.
    """
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema in plain:
            repeated = any("DICTIONARY" in each for each in column.encodings)
            if column.compression != "UNCOMPRESSED" or repeated:
                raise ValueError(f"its column {column.path_in_schema} is compressed")
        elif column.total_uncompressed_size > 4 * BYTES_MAX:
            raise ValueError(f"its column {column.path_in_schema} is too large")
