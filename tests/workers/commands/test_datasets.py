"""The commands over datasets: what they read and write, what they ask, and how they exit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.api.service import Visit

from ..conftest import Cli, printed

FUNCTION = "package.module:energy"


def made(cli: Cli, *specifications: str) -> str:
    """Make a dataset with three entries; return its name."""
    name = f"water {uuid4().hex[:12]}"
    assert cli("dataset", "create", name, "--description", "clusters").exit_code == 0
    for each in specifications:
        kwargs = json.dumps({"nonce": name})
        options = ("--function", FUNCTION, "--kwargs", kwargs, "--tag", tag_of(name))
        assert cli("dataset", "add", name, "--specification", each, *options).exit_code == 0
    return name


def tag_of(name: str) -> str:
    return f"own{name.rpartition(' ')[2]}"


def filled(cli: Cli, folder: Path, *specifications: str) -> str:
    """Make a dataset with entries m0, m1 and m2; return its name."""
    name = made(cli, *specifications)
    given = folder / "entries.json"
    given.write_text(json.dumps({f"m{n}": {"x": n} for n in range(3)}))
    assert cli("dataset", "add", name, "--entries", given).exit_code == 0
    return name


def entries_of(cli: Cli, name: str) -> list[str]:
    return [row["entry"] for row in printed(cli("dataset", "status", name, "--entries", "--json"))]


@pytest.mark.parametrize(
    ("file", "text", "inputs"),
    [
        ("a.json", '{"m0": {"x": 1}, "m1": {}}', {"m0": {"x": 1}, "m1": {}}),
        ("b.json", '[{"name": "m0", "input": {"x": 1}}]', {"m0": {"x": 1}}),
        ("c.json", '{"name": "m0", "input": {"x": 1}}', {"m0": {"x": 1}}),
        ("d.jsonl", '{"name": "m0"}\n\n{"name": "m1", "input": {"x": 2}}\n',
         {"m0": {}, "m1": {"x": 2}}),
        ("e.csv", "\ufeffname,x,y,z,smiles\nm0,1,2.5,,CCO\nm1,nan,-3e2,7,inf\n",
         {"m0": {"x": 1, "y": 2.5, "z": None, "smiles": "CCO"},
          "m1": {"x": "nan", "y": -300.0, "z": 7, "smiles": "inf"}}),
    ],
)  # fmt: skip
def test_entries_are_read_from_json_lines_and_csv(
    cli: Cli, ann: Visit, tmp_path: Path, file: str, text: str, inputs: dict[str, Any]
) -> None:
    name = made(cli)
    given = tmp_path / file
    given.write_text(text, "utf-8")
    result = cli("dataset", "add", name, "--entries", given)
    assert result.exit_code == 0, result.output
    assert f"{len(inputs)} entries were added" in result.stdout
    [dataset] = ann.get("/v1/datasets", params={"name": name}).json()["datasets"]
    found = ann.get(f"/v1/datasets/{dataset['id']}/entries").json()["entries"]
    assert {each["name"]: each["input"] for each in found} == inputs


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.jsonl", '{"name": "m0"}\nnonsense\n', "line 2"),
        ("b.csv", "x,y\n1,2\n", "no column `name`"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place(
    cli: Cli, tmp_path: Path, file: str, text: str, said: str
) -> None:
    name = made(cli)
    given = tmp_path / file
    given.write_text(text)
    result = cli("dataset", "add", name, "--entries", given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert entries_of(cli, name) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "x"),
        ("add", "x", "--specification", "hf"),
        ("add", "x", "--specification", "hf", "--function", "f", "--kwargs", "{"),
        ("add", "x", "--specification", "hf", "--function", "f", "--kwargs", "[]"),
        ("status", "x", "--version", "1"),
        ("results", "x", "--output", "energies.xls"),
        ("remove", "x"),
    ],
)
def test_a_wrong_command_exits_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli("dataset", *arguments)
    assert result.exit_code == 2, result.output
    assert "Usage" in result.stderr


def test_a_dataset_goes_from_entries_to_a_file_of_results(
    cli: Cli, ann: Visit, tmp_path: Path
) -> None:
    name = filled(cli, tmp_path, "hf")
    submitted = cli("dataset", "submit", name, "--pattern", "m?")
    assert (submitted.exit_code, submitted.stdout) == (0, "3 of 3 cells have a record now\n")
    assert "hf             3" in cli("dataset", "status", name).stdout
    manager_id = ann.register(tag_of(name))
    results = [
        {"record_id": task["record_id"], "attempt": task["attempt"],
         "result": {"energy": -1.5, "path": [1, 2]}}
        for task in ann.claim(manager_id)
    ]  # fmt: skip
    assert ann.post(f"/v1/managers/{manager_id}/results", {"results": results}).status_code == 200
    assert "result.energy" in cli("dataset", "results", name).stdout
    assert [row["result"]["energy"] for row in printed(cli("dataset", "results", name, "--json"))]
    for suffix in ("csv", "json"):
        output = tmp_path / f"energies.{suffix}"
        assert cli("dataset", "results", name, "--output", output).exit_code == 0
    assert [row["entry"] for row in json.loads((tmp_path / "energies.json").read_text())] == [
        "m0",
        "m1",
        "m2",
    ]
    with (tmp_path / "energies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["entry"], row["result.energy"], row["result.path"]) for row in rows] == [
        (f"m{n}", "-1.5", "[1, 2]") for n in range(3)
    ]


def test_results_are_written_as_parquet_where_that_can_be(cli: Cli, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    name = filled(cli, tmp_path, "hf")
    cli("dataset", "submit", name)
    output = tmp_path / "energies.parquet"
    result = cli("dataset", "results", name, "--status", "waiting", "--output", output)
    assert result.exit_code == 0, result.output
    assert parquet.read_table(output).column("entry").to_pylist() == ["m0", "m1", "m2"]


def test_what_is_refused_is_listed_and_told_by_the_exit_status(cli: Cli, tmp_path: Path) -> None:
    name = filled(cli, tmp_path)
    given = tmp_path / "more.jsonl"
    given.write_text('{"name": "m0", "input": {"x": 7}}\n{"name": "m4"}\n')
    result = cli("dataset", "add", name, "--entries", given)
    assert result.exit_code == 1
    assert "1 entries were added" in result.stdout
    assert "entry_exists" in result.stdout
    assert cli("dataset", "create", name).exit_code == 1
    assert "no dataset 'no such'" in cli("dataset", "status", "no such").stderr


def test_what_takes_away_asks_first(cli: Cli, tmp_path: Path) -> None:
    name = filled(cli, tmp_path, "hf")
    cli("dataset", "submit", name)
    for arguments in (("remove", name, "--entry", "m0"), ("delete", name)):
        result = cli("dataset", *arguments, answer="n\n")
        assert result.exit_code == 1
        assert "Continue?" in result.stderr
    assert entries_of(cli, name) == ["m0", "m1", "m2"]
    removed = cli(
        "dataset", "remove", name, "--entry", "m0", "--specification", "hf", "--yes", "--json"
    )
    assert printed(removed) == {"n_entries": 1, "n_specifications": 1}
    assert entries_of(cli, name) == ["m1", "m2"]
    assert cli("dataset", "delete", name, answer="y\n").exit_code == 0
    assert cli("dataset", "status", name).exit_code == 1


def test_versions_are_locked_and_clones_made(cli: Cli, tmp_path: Path) -> None:
    name = filled(cli, tmp_path, "hf")
    cli("dataset", "submit", name)
    assert printed(cli("dataset", "lock", name, "--label", "v1", "--json")) == {"version": 1}
    cli("dataset", "remove", name, "--entry", "m0", "--yes")
    shown = cli("dataset", "status", name, "--entries", "--version", "1")
    assert "m0" in shown.stdout
    twin = f"twin of {name}"
    cloned = cli("dataset", "clone", name, twin, "--version", "1", "--link-records")
    assert "has 3 entries, 1 specifications and 3 records" in cloned.stdout
    refused = cli("dataset", "delete", name, "--yes")
    assert refused.exit_code == 1
    assert "locked versions" in refused.stderr
    assert twin in cli("dataset", "list").stdout
    assert printed(cli("dataset", "list", "--limit", "1", "--json"))[0]["name"] == twin


def test_verbs_over_records_take_a_dataset(cli: Cli, tmp_path: Path) -> None:
    name = filled(cli, tmp_path, "hf")
    cli("dataset", "submit", name)
    held = cli("hold", "--dataset", name, "--entry", "m0", "--entry", "m1")
    assert "2 of 2 records held" in held.stdout
    found = printed(cli("list", "--dataset", name, "--status", "held", "--json"))
    assert len(found) == 2
    assert cli("hold", "--entry", "m0").exit_code == 1
