"""Tables for analysis: what Polars and DuckDB read is what the ledger says."""

from __future__ import annotations

from datetime import UTC
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from recordledger.domain.errors import InvalidInput, LibraryMissing
from recordledger.domain.records.events import Commented
from recordledger.projections.archives import analysis, parquet
from recordledger.projections.archives.analysis import TABLES, export_tables
from recordledger.projections.archives.parquet import TableWriter, schema_of
from recordledger.projections.tables.payloads import keep

from ..collection import Collection
from ..proof.test_audit import lived
from ..stage import Stage, bad, good

polars: Any = pytest.importorskip("polars")
pytest.importorskip("pyarrow")

WORKED: Final = 3


def read(folder: Path, table: str) -> Any:
    return polars.read_parquet(folder / f"{table}.parquet")


def test_every_table_is_there_with_its_columns_and_types(stage: Stage, tmp_path: Path) -> None:
    written = export_tables(stage.ledger, tmp_path / "empty")
    assert [each.table for each in written] == list(TABLES)
    for name, table in TABLES.items():
        frame = read(tmp_path / "empty", name)
        assert frame.columns == list(table.columns)
        assert len(frame) == 0
    events = read(tmp_path / "empty", "events").schema
    assert events["position"] == polars.Int64
    assert events["timestamp"] == polars.Datetime("us", "UTC")


def test_polars_reads_what_the_ledger_says(stage: Stage, tmp_path: Path) -> None:
    lived(stage)
    [written] = [w for w in export_tables(stage.ledger, tmp_path) if w.table == "records"]
    records = read(tmp_path, "records")
    assert written.n_rows == len(records)
    found = {row["id"]: row for row in records.iter_rows(named=True)}
    assert {id_: row["status"] for id_, row in found.items()} == stage.statuses(*range(1, 20))
    third = stage.record(3)
    assert found[3]["created_at"] == third.created_at
    assert found[3]["created_at"].utcoffset().total_seconds() == 0
    assert (found[3]["owner"], found[3]["tag"], found[3]["priority"]) == (
        "user:alice",
        "gpu",
        "normal",
    )
    assert found[3]["compute_s"] == 1.5
    assert found[2]["retries"] == 1
    assert records["status"].dtype == polars.Categorical

    events = read(tmp_path, "events")
    assert events["position"].to_list() == sorted(events["position"])
    assert len(events) == stage.head()
    first = events.row(0, named=True)
    assert (first["stream"], first["id"], first["version"], first["kind"]) == (
        "record",
        1,
        1,
        "created",
    )
    assert first["timestamp"].astimezone(UTC) == stage.events(1)[0].timestamp
    assert '"function": "psi4"' in first["data"]


def test_attempts_and_comments_say_what_was_said(stage: Stage, tmp_path: Path) -> None:
    stage.submit(WORKED)
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    stage.hand_in(manager_id, {1: held[1]}, good())
    stage.hand_in(manager_id, {2: held[2]}, bad())
    with stage.ledger.datastore.writing() as db:
        text = keep(db, "a remark: \N{GREEK SMALL LETTER ALPHA}".encode())
    stage.happen(1, Commented, text=text)
    export_tables(stage.ledger, tmp_path, ["attempts", "comments", "managers"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attempts.parquet",
        "comments.parquet",
        "managers.parquet",
    ]
    attempts = read(tmp_path, "attempts")
    assert attempts.select("record_id", "succeeded", "error_type", "error_message").rows() == [
        (1, True, None, None),
        (2, False, "ValueError", "no convergence"),
        (3, None, None, None),
    ]
    assert read(tmp_path, "comments")["text"].to_list() == [
        "a remark: \N{GREEK SMALL LETTER ALPHA}"
    ]
    assert read(tmp_path, "managers")["tags"].to_list() == [["*"]]


def test_datasets_are_tables_of_their_own(stage: Stage, tmp_path: Path) -> None:
    made = Collection.made(stage, 2, ["hf", "mp2"])
    made.submit()
    made.rename({"m1": "first"})
    export_tables(stage.ledger, tmp_path, ["datasets", "dataset_entries", "dataset_cells"])
    assert read(tmp_path, "datasets")["name"].to_list() == ["water"]
    cells = read(tmp_path, "dataset_cells")
    assert cells.select("specification", "entry").rows() == [
        ("hf", "first"),
        ("hf", "m2"),
        ("mp2", "first"),
        ("mp2", "m2"),
    ]
    assert sorted(cells["record_id"]) == made.ids()


def test_duckdb_reads_them_too(stage: Stage, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    lived(stage)
    export_tables(stage.ledger, tmp_path)
    counted = duckdb.sql(
        "SELECT e.kind, count(*) FROM read_parquet(?) e JOIN read_parquet(?) r USING (id)"
        " WHERE e.stream = 'record' AND e.kind = 'created' AND r.created_at = e.timestamp"
        " GROUP BY ALL",
        params=[str(tmp_path / "events.parquet"), str(tmp_path / "records.parquet")],
    ).fetchall()
    assert counted == [("created", len(read(tmp_path, "records")))]


def test_one_table_may_be_one_file(stage: Stage, tmp_path: Path) -> None:
    stage.submit(2)
    export_tables(stage.ledger, tmp_path / "mine.parquet", ["records"])
    assert read(tmp_path, "mine")["id"].to_list() == [1, 2]
    with pytest.raises(InvalidInput, match="one table"):
        export_tables(stage.ledger, tmp_path / "all.parquet")
    with pytest.raises(InvalidInput, match="no table 'tokens'"):
        export_tables(stage.ledger, tmp_path, ["tokens"])


def test_all_tables_are_of_one_moment(stage: Stage, tmp_path: Path) -> None:
    stage.submit(1_100)

    def more(table: str, n_rows: int) -> None:
        if table == "records":
            stage.submit(3)

    export_tables(stage.ledger, tmp_path, ["records", "events"], progress=more)
    assert len(read(tmp_path, "records")) == len(read(tmp_path, "events")) == 1_100


def test_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BYTES_MAX", 1_000)
    with TableWriter(tmp_path / "t.parquet", {"n": "int64", "text": "string"}, rows_max=7) as t:
        for n in range(20):
            t.add((n, "x" * (500 if n > 15 else 1)))
    file = import_module("pyarrow.parquet").ParquetFile(tmp_path / "t.parquet")
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [7, 7, 4, 2]
    assert file.read().column("n").to_pylist() == list(range(20))
    assert file.metadata.row_group(0).column(1).compression == "ZSTD"


def test_who_lacks_the_library_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(parquet, "import_module", missing)
    with pytest.raises(LibraryMissing, match=r"pip install 'recordledger\[tables\]'"):
        schema_of({"n": "int64"})
    assert analysis.TABLES
