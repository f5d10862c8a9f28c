"""The embedded PostgreSQL: real servers, which are started, killed and found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from recordledger.projections.store.embedded import (
    EXIT_CODE_UNKNOWN,
    AccountUnusable,
    AlreadySupervised,
    DataDirectoryUnusable,
    EmbeddedPostgres,
    NotRunning,
    StartFailed,
)
from tests.postgres import temporary_home

# A parent that starts the server, says so, and waits to be killed.
PARENT = """
import sys
from recordledger.projections.store.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(sys.argv[1]).start()
print(postgres.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def pristine_home() -> Iterator[Path]:
    """A home whose data directory was made, and whose server was stopped in order."""
    with temporary_home() as folder:
        with EmbeddedPostgres(folder):
            pass
        yield folder


@pytest.fixture
def home(pristine_home: Path) -> Iterator[Path]:
    """A copy of the pristine home, with a path that is short enough for a socket."""
    with temporary_home() as folder:
        shutil.copytree(pristine_home, folder, dirs_exist_ok=True)
        yield folder


def ask(url: str, question: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kill(postgres: EmbeddedPostgres) -> None:
    """Kill the postmaster, and return when it is gone."""
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    while postgres.poll() is None:
        pass


def kill_parent_of(home: Path) -> int:
    """Let another process start the server, kill that process, and return the server's pid."""
    command = [sys.executable, "-c", PARENT, str(home)]
    with subprocess.Popen(  # noqa: S603 - this Python
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server_pid = int(parent.stdout.readline())
        parent.kill()
    return server_pid


def test_a_server_is_made_started_and_stopped(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    with postgres:
        assert ask(postgres.url, "SHOW server_version").startswith("18")
        assert postgres.poll() is None
        assert not postgres.adopted
        assert mode_of(postgres.data) == 0o700
        assert mode_of(postgres.folder / "secrets.json") == 0o600
        url = postgres.url
    assert postgres.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_the_server_keeps_what_was_committed_safe_by_default(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        answers = [ask(postgres.url, f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
        assert answers == ["on", "on"]
        assert ask(postgres.url, "SHOW data_checksums") == "on"
        assert ask(postgres.url, "SHOW listen_addresses") == ""
        assert ask(postgres.url, "SHOW TimeZone") == "UTC"


def test_settings_can_be_overridden(home: Path) -> None:
    with EmbeddedPostgres(home, settings={"max_connections": "17"}) as postgres:
        assert ask(postgres.url, "SHOW max_connections") == "17"


def test_a_restart_keeps_the_data(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        write_row(postgres.url)
    with EmbeddedPostgres(home) as postgres:
        assert ask(postgres.url, "SELECT answer FROM kept") == "42"


def test_a_killed_server_starts_again_with_all_that_was_committed(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        write_row(postgres.url)
        first_pid = postgres.pid
        with contextlib.closing(psycopg.connect(postgres.url)) as busy:
            # A busy backend outlives the postmaster for a second and holds the shared memory.
            busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 6000000)")
            kill(postgres)
            postgres.start()
        assert postgres.pid != first_pid
        assert ask(postgres.url, "SELECT answer FROM kept") == "42"


def test_the_ledgers_role_is_no_superuser_and_owns_only_its_database(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        assert ask(postgres.url, "SELECT current_user") == "recordledger"
        rights = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
        question = f"SELECT {rights} FROM pg_roles WHERE rolname = current_user"  # noqa: S608
        assert ask(postgres.url, question) == "False"
        owned = (
            "SELECT string_agg(datname, ',') FROM pg_database WHERE datdba = current_user::regrole"
        )
        assert ask(postgres.url, owned) == "recordledger"
        assert ask(postgres.admin_url, "SELECT rolsuper FROM pg_roles WHERE oid = 10") == "True"


def test_a_wrong_password_is_refused(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        password = postgres.url.split("@")[0].rsplit(":", maxsplit=1)[1]
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(postgres.url.replace(password, "wrong"))


def test_a_broken_environment_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LANG", "LC_MESSAGES", "TZ"):
        monkeypatch.setenv(name, "bogus")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    with EmbeddedPostgres(tmp_path) as postgres:
        assert ask(postgres.url, "SELECT upper('ñ')") == "Ñ"
        assert ask(postgres.url, "SHOW server_encoding") == "UTF8"


@pytest.mark.parametrize("name", ["x" * 120, "with, comma", 'with "quotes" and späces %41'])
def test_a_home_may_have_any_name(home: Path, name: str) -> None:
    odd = home / name
    odd.mkdir()
    (home / "postgres").rename(odd / "postgres")
    with EmbeddedPostgres(odd) as postgres:
        assert ask(postgres.url, "SELECT 1") == "1"
        directory = Path(ask(postgres.admin_url, "SHOW unix_socket_directories").strip('"'))
    if directory.is_dir() and odd not in directory.parents:
        assert mode_of(directory) == 0o700
        directory.rmdir()


def test_a_socket_directory_that_others_can_enter_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    (home / "tmp").mkdir()
    long = home / ("x" * 120)
    long.mkdir()
    (home / "postgres").rename(long / "postgres")
    with EmbeddedPostgres(long):
        (directory,) = (home / "tmp").iterdir()
    directory.chmod(0o755)
    with pytest.raises(DataDirectoryUnusable, match="not a private directory"):
        EmbeddedPostgres(long).start()


def test_an_interrupted_initdb_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.initdb-left"
    (half / "data" / "base").mkdir(parents=True)
    (half / "data" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as postgres:
        assert ask(postgres.url, "SELECT 1") == "1"
    assert sorted(path.name for path in postgres.folder.glob("data*")) == ["data"]


def test_an_initdb_that_fails_leaves_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "secrets.json").write_text('{"postgres": "", "recordledger": "x"}')
    with pytest.raises(StartFailed, match="initdb"):
        EmbeddedPostgres(tmp_path).start()
    assert list((tmp_path / "postgres").glob("data*")) == []


def test_a_directory_with_other_files_is_not_touched(tmp_path: Path) -> None:
    precious = tmp_path / "postgres" / "data" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(DataDirectoryUnusable, match="Nothing was changed"):
        EmbeddedPostgres(tmp_path).start()
    assert precious.read_text() == "mine"


def test_data_of_another_version_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(DataDirectoryUnusable, match="created by PostgreSQL 15"):
        EmbeddedPostgres(tmp_path).start()


def test_lost_passwords_are_named(home: Path) -> None:
    (home / "postgres" / "secrets.json").unlink()
    with pytest.raises(DataDirectoryUnusable, match=r"secrets\.json"):
        EmbeddedPostgres(home).start()


def test_a_setting_that_the_server_refuses_is_named(home: Path) -> None:
    with pytest.raises(StartFailed, match="shared_buffers"):
        EmbeddedPostgres(home, settings={"shared_buffers": "many"}).start()
    with EmbeddedPostgres(home) as postgres:
        assert ask(postgres.url, "SELECT 1") == "1"


def test_a_second_supervisor_is_refused_and_can_attach(home: Path) -> None:
    other = EmbeddedPostgres(home)
    with pytest.raises(NotRunning):
        other.attach()
    with EmbeddedPostgres(home) as postgres:
        with pytest.raises(AlreadySupervised) as refusal:
            other.start()
        assert refusal.value.holder == str(os.getpid())
        assert other.attach() == postgres.url
        other.stop()
        assert ask(postgres.url, "SELECT 1") == "1"


def test_a_server_whose_parent_was_killed_is_adopted(home: Path) -> None:
    server_pid = kill_parent_of(home)
    postgres = EmbeddedPostgres(home)
    with postgres:
        assert postgres.adopted
        assert postgres.pid == server_pid
        assert postgres.poll() is None
        assert ask(postgres.url, "SELECT 1") == "1"
        assert postgres.start() is postgres
    with EmbeddedPostgres(home) as postgres:
        assert not postgres.adopted


def test_an_adopted_server_that_is_killed_starts_again(home: Path) -> None:
    server_pid = kill_parent_of(home)
    with EmbeddedPostgres(home) as postgres:
        assert postgres.pid == server_pid
        kill(postgres)
        assert postgres.poll() == EXIT_CODE_UNKNOWN
        postgres.start()
        assert not postgres.adopted
        assert ask(postgres.url, "SELECT 1") == "1"


def test_a_pid_file_that_names_another_process_does_not_stop_the_start(home: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        data = home / "postgres" / "data"
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n{data}\n1700000000\n5432\n")
        with EmbeddedPostgres(home) as postgres:
            assert not postgres.adopted
            assert ask(postgres.url, "SELECT 1") == "1"
        assert stranger.poll() is None
    finally:
        stranger.communicate()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root changes accounts")
class TestRootWithoutUserNamespaces:
    @pytest.fixture(autouse=True)
    def without_unshare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

    def test_the_server_runs_as_an_unprivileged_user(self) -> None:
        with temporary_home() as home:
            with EmbeddedPostgres(home) as postgres:
                write_row(postgres.url)
                assert postgres.data.stat().st_uid != 0
                assert (postgres.folder / "secrets.json").stat().st_uid == 0
            with EmbeddedPostgres(home) as postgres:
                assert ask(postgres.url, "SELECT answer FROM kept") == "42"

    def test_data_made_in_a_namespace_are_handed_over(self, home: Path) -> None:
        home.chmod(0o755)
        with EmbeddedPostgres(home) as postgres:
            assert ask(postgres.url, "SELECT 1") == "1"

    def test_a_home_that_the_user_cannot_enter_is_named(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        with pytest.raises(AccountUnusable, match=r"chmod o\+x"):
            EmbeddedPostgres(tmp_path).start()


def test_each_test_gets_a_database_of_its_own(empty_database_url: str) -> None:
    write_row(empty_database_url)
    assert ask(empty_database_url, "SELECT answer FROM kept") == "42"


def test_a_database_for_a_test_has_the_ledgers_schema_and_no_other_tests_rows(
    database_url: str,
) -> None:
    tables = "SELECT count(*) > 0 FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
    assert ask(database_url, tables) == "True"
    assert ask(database_url, "SELECT to_regclass('kept') IS NULL") == "True"
