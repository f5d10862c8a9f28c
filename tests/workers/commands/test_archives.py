"""The commands that export, import, back up and restore: what they print, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from recordledger.domain.records.actions import Action
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.workers.cli import main
from tests.postgres import temporary_home
from tests.projections.collection import Collection
from tests.projections.stage import Stage, good, staged

pytest.importorskip("pyarrow")


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A ledger in which two tasks were done, one waits, and one was hard-deleted."""
    with staged(database_url) as made:
        made.submit(4)
        manager_id = made.manager()
        made.hand_in(manager_id, made.claim(manager_id, 2), good())
        made.done(Action.erase, 4)
        yield made


def run(*arguments: object, url: str | None = None) -> Result:
    database = ("--database-url", url) if url else ()
    words = [*map(str, arguments), *database]
    return CliRunner().invoke(main, words, env={"COLUMNS": "200"})


def test_tables_are_written_where_one_says(stage: Stage, tmp_path: Path) -> None:
    done = run("export", "--parquet", tmp_path, "--table", "records", url=stage.url)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'records.parquet'}: 3 rows\n"
    wrong = run("export", "--parquet", tmp_path, "--table", "tokens", url=stage.url)
    assert (wrong.exit_code, "there is no table 'tokens'" in wrong.output) == (1, True)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--parquet", "a", "--archive", "b"),
        ("--parquet", "a", "--tag", "gpu"),
        ("--ro-crate", "a"),
        ("--archive", "a", "--record", "1", "--tag", "gpu"),
    ],
)
def test_what_contradicts_itself_is_a_mistake_in_typing(
    stage: Stage, options: tuple[str, ...]
) -> None:
    assert run("export", *options, url=stage.url).exit_code == 2


def test_an_archive_goes_from_one_ledger_into_another(
    stage: Stage, tmp_path: Path, empty_database_url: str
) -> None:
    path = tmp_path / "a.zip"
    made = run("export", "--archive", path, url=stage.url)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == [
        f"{path}: 4 records, 1 managers, 0 datasets; 10 events, 4 payloads",
        "1 hard-deleted records are included as events without content.",
    ]
    checked = run("import", path, "--check")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.splitlines()[-1].startswith("It is whole and unaltered")
    assert run("migrate", url=empty_database_url).exit_code == 0
    with staged(empty_database_url) as there:
        there.submit(1)
        tried = run("import", path, "--dry-run", url=there.url)
        assert "3 records, 1 managers, 0 datasets would be imported" in tried.stdout
        assert there.head() == 1
        done = run("import", path, "--user", "root", "--json", url=there.url)
        assert done.exit_code == 0, done.output
        ids = {int(old): new for old, new in json.loads(done.stdout)["records"].items()}
        assert there.statuses(*ids.values()) == {
            ids[1]: "complete",
            ids[2]: "complete",
            ids[3]: "held",
        }
        again = run("import", path, url=there.url)
        assert "4 were already here" in again.stdout
        origin = run("origins", "--id", ids[3], "--json", url=there.url)
        [found] = json.loads(origin.stdout)
        assert (found["origin_id"], found["imported_by"], found["stream"]) == (
            3,
            "user:root",
            "record",
        )
        table = run("origins", "--origin-id", 3, url=there.url)
        assert f" {ids[3]} " in table.stdout
        there.require_sound()


def test_conditions_select_what_goes_into_an_archive(stage: Stage, tmp_path: Path) -> None:
    some = run("export", "--archive", tmp_path / "a", "--status", "complete", url=stage.url)
    assert "2 records, 1 managers" in some.stdout
    one = run("export", "--archive", tmp_path / "b", "--record", "3", url=stage.url)
    assert "1 records, 0 managers" in one.stdout
    Collection.made(stage, 2).submit()
    whole = run("export", "--archive", tmp_path / "c", "--dataset", "water", url=stage.url)
    assert "2 records, 0 managers, 1 datasets" in whole.stdout


def test_a_damaged_archive_is_one_sentence_and_status_1(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    run("export", "--archive", path, url=stage.url)
    path.write_bytes(path.read_bytes()[:-100])
    for options in (("--check",), ()):
        refused = run("import", path, *options, url=None if options else stage.url)
        assert refused.exit_code == 1
        assert "\nError: a.zip: it is not an archive" in refused.output


def test_a_dataset_is_published(stage: Stage, tmp_path: Path) -> None:
    Collection.made(stage, 2).submit()
    options = ("--dataset", "water", "--author", "Ann", "--license", "https://x.example/licence")
    done = run("export", "--ro-crate", tmp_path / "crate", *options, url=stage.url)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'crate'}: 2 records\n"


def test_a_backup_is_restored_into_a_new_home_and_verified(stage: Stage, tmp_path: Path) -> None:
    saved = run("backup", tmp_path / "b", url=stage.url)
    assert saved.exit_code == 0, saved.output
    assert "10 events up to position 10" in saved.stdout
    looked = run("restore", tmp_path / "b", "--verify-only")
    assert looked.stdout.startswith("The backup is complete")
    with temporary_home() as home:
        done = run("restore", tmp_path / "b", "--home", home)
        assert done.exit_code == 0, done.output
        assert "Restored and verified" in done.stdout
        with EmbeddedPostgres(home) as postgres:
            again = run("restore", tmp_path / "b", "--home", home)
            assert (again.exit_code, "with events" in again.output) == (1, True)
            with staged(postgres.url) as restored:
                assert restored.head() == stage.head()
