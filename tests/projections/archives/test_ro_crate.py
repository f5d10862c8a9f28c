"""RO-Crates: a dataset as others find, read and cite it."""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from recordledger.domain.errors import DatasetNotFound, InvalidInput, VersionNotFound
from recordledger.projections.archives import ro_crate
from recordledger.projections.archives.archive import facts_of
from recordledger.projections.archives.ro_crate import export_ro_crate

from ..collection import Collection
from ..stage import Stage, bad, good

polars: Any = pytest.importorskip("polars")

LICENCE: Final = "https://creativecommons.org/licenses/by/4.0/"

Entities = dict[str, dict[str, Any]]


def computed(stage: Stage) -> Collection:
    """Make a dataset of which one record went wrong, and lock it."""
    made = Collection.made(stage, 2, ["hf", "mp2"])
    made.submit()
    manager_id = stage.manager()
    held = stage.claim(manager_id)
    wrong, *right = held
    stage.hand_in(manager_id, {wrong: held[wrong]}, bad())
    stage.hand_in(manager_id, {id_: held[id_] for id_ in right}, good())
    made.lock("as published", doi="10.1000/182")
    return made


def entities_of(folder: Path) -> Entities:
    """Return the entities of a crate by id, which must be unique."""
    document = json.loads((folder / "ro-crate-metadata.json").read_text("utf-8"))
    assert document["@context"] == "https://w3id.org/ro/crate/1.2/context"
    ids = [each["@id"] for each in document["@graph"]]
    assert len(set(ids)) == len(ids)
    return {each["@id"]: each for each in document["@graph"]}


def references_in(value: Any) -> list[str]:
    """Return the ids that a value refers to: of objects that have nothing but an id."""
    return re.findall(r'\{"@id": "([^"]*)"\}', json.dumps(value))


def require_valid(folder: Path) -> Entities:
    """Require what RO-Crate 1.2 does: of the description, the root, files and references."""
    found = entities_of(folder)
    descriptor = found["ro-crate-metadata.json"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    root = found["./"]
    assert root["@type"] == "Dataset"
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    assert datetime.fromisoformat(root["datePublished"]).tzinfo is not None
    parts = set(references_in(root["hasPart"]))
    assert parts == {path.name for path in folder.iterdir()} - {"ro-crate-metadata.json"}
    for part in parts:
        assert found[part]["@type"] == "File"
        facts = facts_of(folder / part)
        assert found[part]["contentSize"] == str(facts.size_bytes)
        assert found[part]["sha256"] == facts.sha256
    for entity in found.values():
        # Flattened: what an entity refers to is another one, or lies outside of the crate.
        for name, value in entity.items():
            for reference in references_in(value):
                assert reference in found or reference.startswith("https://"), (name, reference)
    return found


def test_a_published_dataset_says_who_computed_what_when_and_with_what(
    stage: Stage, tmp_path: Path
) -> None:
    made = computed(stage)
    made.add({"m3": {"x": 3}})
    made.submit()
    n_records = export_ro_crate(
        stage.ledger,
        tmp_path / "crate",
        "water",
        version=1,
        license_url=LICENCE,
        authors=["Ann Example", "Bob Example"],
    )
    found = require_valid(tmp_path / "crate")
    assert n_records == 4
    root = found["./"]
    assert root["license"] == {"@id": LICENCE}
    assert root["identifier"] == "https://doi.org/10.1000/182"
    assert root["version"] == "1"
    assert [found[each["@id"]]["name"] for each in root["author"]] == ["Ann Example", "Bob Example"]
    actions = [each for each in found.values() if each["@type"] == "CreateAction"]
    assert {each["@id"] for each in actions} == {f"#record-{id_}" for id_ in made.ids(version=1)}
    assert {each["@id"] for each in root["mentions"]} == {each["@id"] for each in actions}
    for action in actions:
        record = stage.record(int(action["@id"].removeprefix("#record-")))
        assert datetime.fromisoformat(action["startTime"]) <= datetime.fromisoformat(
            action["endTime"]
        )
        assert found[action["agent"]["@id"]] == {
            "@id": "#user:alice",
            "@type": "Person",
            "name": "alice",
        }
        assert found[action["instrument"]["@id"]]["name"] == "psi4"
        outcome = "Completed" if record.status == "complete" else "Failed"
        assert action["actionStatus"] == f"http://schema.org/{outcome}ActionStatus"


def test_the_tables_have_every_cell_with_input_and_result(stage: Stage, tmp_path: Path) -> None:
    made = computed(stage)
    export_ro_crate(stage.ledger, tmp_path / "crate", "water")
    frame = polars.read_parquet(tmp_path / "crate" / "results.parquet")
    rows = {(row["entry"], row["specification"]): row for row in frame.iter_rows(named=True)}
    assert {key: row["record_id"] for key, row in rows.items()} == {
        key: cell.record_id for key, cell in made.cells().items()
    }
    for (entry, _), row in rows.items():
        assert json.loads(row["input"]) == {"x": int(entry[1:])}
        if row["status"] == "complete":
            assert json.loads(row["result"]) == {"energy": -76.4}
        else:
            assert (row["error_type"], row["error_message"]) == ("ValueError", "no convergence")
    with (tmp_path / "crate" / "results.csv").open(newline="") as file:
        assert [row["entry"] for row in csv.DictReader(file)] == [key[0] for key in rows]
    specifications = json.loads((tmp_path / "crate" / "specifications.json").read_text())
    assert [each["kwargs"]["basis"] for each in specifications] == ["hf", "mp2"]


def test_a_dataset_without_licence_and_results_is_a_valid_crate_too(
    stage: Stage, tmp_path: Path
) -> None:
    Collection.made(stage, 1).submit()
    assert export_ro_crate(stage.ledger, tmp_path / "crate", "water") == 1
    found = require_valid(tmp_path / "crate")
    assert "licence" in found["./"]["license"]
    [action] = [each for each in found.values() if each["@type"] == "CreateAction"]
    assert "startTime" not in action


def test_very_many_records_are_summed_up_by_specification(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ro_crate, "ACTIONS_MAX", 3)
    computed(stage)
    export_ro_crate(stage.ledger, tmp_path / "crate", "water")
    found = require_valid(tmp_path / "crate")
    actions = [each for each in found.values() if each["@type"] == "CreateAction"]
    assert [each["@id"] for each in actions] == ["#specification-1", "#specification-2"]


def test_a_crate_overwrites_nothing_and_is_of_something_that_is_there(
    stage: Stage, tmp_path: Path
) -> None:
    Collection.made(stage, 1)
    with pytest.raises(DatasetNotFound):
        export_ro_crate(stage.ledger, tmp_path / "crate", "ice")
    with pytest.raises(VersionNotFound):
        export_ro_crate(stage.ledger, tmp_path / "crate", "water", version=2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "crate").mkdir()
    with pytest.raises(InvalidInput, match="already exists"):
        export_ro_crate(stage.ledger, tmp_path / "crate", "water")
