"""Backups: made while the ledger is in use, restored elsewhere, and proved to be the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from recordledger.domain.errors import (
    BackupFailed,
    BackupInvalid,
    DatabaseNotEmpty,
    InvalidInput,
    ToolUnusable,
)
from recordledger.projections.archives import backup as module
from recordledger.projections.archives.backup import (
    backup,
    check_backup,
    find_tool,
    restore,
    verify,
)
from recordledger.projections.tables.inline import PROJECTIONS

from ..proof.test_audit import lived
from ..stage import Stage, empty, good, staged

DEADLINE_S = 60.0


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A ledger of its own, in which a little of everything has happened."""
    with staged(database_url) as made:
        lived(made)
        yield made


def everything(stage: Stage) -> dict[str, list[Any]]:
    """Return all rows of a ledger."""
    tables = (*PROJECTIONS, "ledger_events", "payloads", "lanes", "ledger_identity")
    return {
        table: sorted(map(repr, stage.ask(f"SELECT * FROM {table}")))  # noqa: S608
        for table in tables
    }


def test_what_is_restored_is_the_same_ledger_and_can_be_used(
    stage: Stage, empty_database_url: str, tmp_path: Path
) -> None:
    made = backup(stage.url, stage.schema, tmp_path / "b")
    assert (made.head, made.n_events) == (stage.newest(), stage.head())
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    said: list[str] = []
    verified = restore(empty_database_url, tmp_path / "b", progress=said.append)
    assert verified.replay.equal
    assert verified.audit.holds
    assert len(said) == 4
    with staged(empty_database_url) as restored:
        assert everything(restored) == everything(stage)
        new = restored.submit(1)
        assert new[0] > max(row[0] for row in stage.ask("SELECT id FROM records"))
        restored.require_equal()
        with pytest.raises(Exception, match=r"permission denied|append-only"):
            restored.do("DELETE FROM ledger_events")
        granted = "SELECT has_table_privilege('ledger_events', 'DELETE')"
        assert restored.ask(granted) == [(False,)]


def test_a_backup_is_of_one_moment_whoever_writes_meanwhile(
    stage: Stage, empty_database_url: str, tmp_path: Path
) -> None:
    stop, n_rounds = Event(), 0

    def write() -> None:
        nonlocal n_rounds
        with staged(stage.url) as writer:
            manager_id = writer.manager()
            while not stop.is_set():
                writer.submit(5)
                writer.hand_in(manager_id, writer.claim(manager_id), good())
                n_rounds += 1

    writing = Thread(target=write)
    writing.start()
    try:
        stage.wait(lambda: n_rounds > 1, DEADLINE_S)
        before = stage.newest()
        made = backup(stage.url, stage.schema, tmp_path / "b")
        so_far = n_rounds
        stage.wait(lambda: n_rounds > so_far, DEADLINE_S)
    finally:
        stop.set()
        writing.join()
    assert before <= made.head < stage.newest()
    restore(empty_database_url, tmp_path / "b")
    with staged(empty_database_url) as restored:
        log = "SELECT * FROM ledger_events WHERE notification_id <= %s ORDER BY notification_id"
        assert restored.newest() == made.head
        assert restored.ask(log, [made.head]) == stage.ask(log, [made.head])


def test_a_ledger_with_events_is_never_overwritten(
    stage: Stage, postgres_server_url: str, tmp_path: Path
) -> None:
    backup(stage.url, stage.schema, tmp_path / "b")
    before = everything(stage)
    with pytest.raises(DatabaseNotEmpty, match="with events"):
        restore(stage.url, tmp_path / "b")
    assert everything(stage) == before


def test_a_ledger_in_which_nothing_has_happened_is_replaced(
    stage: Stage, reused_database_url: str, tmp_path: Path
) -> None:
    empty(reused_database_url)
    backup(stage.url, stage.schema, tmp_path / "b")
    restore(reused_database_url, tmp_path / "b")
    with staged(reused_database_url) as restored:
        assert everything(restored) == everything(stage)


def test_what_is_no_ledger_is_left_alone(
    stage: Stage, empty_database_url: str, tmp_path: Path
) -> None:
    backup(stage.url, stage.schema, tmp_path / "b")
    with staged(empty_database_url) as other:
        other.do('CREATE SCHEMA "recordledger"')
        other.do("CREATE TABLE recordledger.mine (n integer)")
        with pytest.raises(DatabaseNotEmpty, match="other than a ledger"):
            restore(empty_database_url, tmp_path / "b")
        assert other.ask("SELECT n FROM recordledger.mine") == []


@pytest.fixture(scope="module")
def saved(reused_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that is not to be touched."""
    empty(reused_database_url)
    with staged(reused_database_url) as made:
        made.submit(1)
        folder = tmp_path_factory.mktemp("backups") / "b"
        backup(made.url, made.schema, folder)
    return folder


@pytest.mark.parametrize("name", ["ledger.dump", "manifest.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "more"])
def test_a_damaged_backup_is_refused_before_anything_is_done(
    saved: Path, tmp_path: Path, name: str, damage: str
) -> None:
    path = shutil.copytree(saved, tmp_path / "b") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    elif damage == "more":
        path.with_name("more").write_text("more")
    else:
        path.write_bytes(bytes(data) if damage == "flipped" else path.read_bytes()[:-1])
    with pytest.raises(BackupInvalid):
        restore("postgresql://nobody@/nowhere", tmp_path / "b")


def test_another_ledger_than_the_one_of_the_backup_is_noticed(
    stage: Stage, empty_database_url: str, tmp_path: Path
) -> None:
    made = backup(stage.url, stage.schema, tmp_path / "b")
    verify(stage.url, made)
    stage.do("UPDATE records SET status = 'failed' WHERE id = 6")
    with pytest.raises(BackupInvalid, match="the tables differ from the log"):
        verify(stage.url, made)
    stage.submit()
    with pytest.raises(BackupInvalid, match="the backup has"):
        verify(stage.url, made)


def test_the_folder_must_be_new(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty"):
        backup(stage.url, stage.schema, tmp_path / "full")
    (tmp_path / "new").mkdir()
    backup(stage.url, stage.schema, tmp_path / "new")
    check_backup(tmp_path / "new")


def test_a_backup_that_fails_leaves_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = fake_tool(tmp_path / "bin", "pg_dump", "99.1", 3)

    def found(name: str, major_min: int) -> tuple[str, str]:
        return tool, "99.1"

    monkeypatch.setattr(module, "find_tool", found)
    with pytest.raises(BackupFailed, match="pg_dump ended with 3: no luck"):
        backup(stage.url, stage.schema, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def fake_tool(folder: Path, name: str, version: str, status: int = 0) -> str:
    """Make a tool that says its version, and fails at anything else."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && echo "{name} (PostgreSQL) {version}" && exit 0\n'
        f"echo no luck >&2; exit {status}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_of_several_tools_the_oldest_that_will_do_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake_tool(tmp_path / "old", "pg_dump", "16.2")
    monkeypatch.setenv("PATH", str(tmp_path / "old"), prepend=os.pathsep)
    assert find_tool("pg_dump", 16) == (old, "16.2")
    program, version = find_tool("pg_dump", 17)
    assert program != old
    assert int(version.partition(".")[0]) >= 17
    with pytest.raises(ToolUnusable, match="PostgreSQL 99 or newer, and there is only version"):
        find_tool("pg_dump", 99)


def test_a_server_without_tools_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:

    def nowhere(name: str, path: str | None = None) -> None:
        return None

    monkeypatch.setattr(shutil, "which", nowhere)
    with pytest.raises(ToolUnusable, match="it was not found"):
        find_tool("pg_restore", 15)


def test_no_password_is_among_the_arguments(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    run: Any = subprocess.run

    def watched(command: list[str], **how: Any) -> Any:
        seen.append(command)
        return run(command, **how)

    monkeypatch.setattr(subprocess, "run", watched)
    backup(stage.url, stage.schema, tmp_path / "b")
    with contextlib.suppress(IndexError):
        password = stage.url.split("://")[1].split("@")[0].split(":")[1]
        assert all(password not in word for command in seen for word in command)
    assert any("--snapshot=" in word for command in seen for word in command)
