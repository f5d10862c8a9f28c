"""`recordledger up` as a person uses it: start it, work with it, stop it, start it again."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from recordledger import Client
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.workers.supervisor import Plan, Supervisor

from .installation import family, kill_family

README = Path(__file__).parents[2] / "README.md"
CLI = [sys.executable, "-m", "recordledger.workers.cli"]
TIMEOUT_S = 60


@contextmanager
def up(home: Path, *options: str) -> Generator[subprocess.Popen[str]]:
    """Run `recordledger up` until it says that it is up; stop it as Ctrl-C does."""
    process = subprocess.Popen(  # noqa: S603
        [*CLI, "up", f"--home={home}", "--port=0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Ctrl-C stops it."):
                break
        yield process
    finally:
        started = family(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=TIMEOUT_S)
        finally:
            kill_family(started)
    assert process.returncode == 0


def run(home: Path, *command: str) -> str:
    """Run a command that looks for the ledger in this home; return what it prints."""
    done = subprocess.run(  # noqa: S603
        command,
        env={**os.environ, "RECORDLEDGER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def readme_code() -> str:
    """Return the Python of the README."""
    found = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


def test_the_lines_of_the_readme_run_and_the_commands_tell_what_they_did(home: Path) -> None:
    with up(home, "--workers=1"):
        printed = run(home, sys.executable, "-c", readme_code()).splitlines()
        assert len([line for line in printed if " complete " in line]) == 10
        assert any("created" in line for line in printed)
        history = run(home, *CLI, "history", "1")
        assert re.search(r"created.*claimed.*completed", history, re.DOTALL)
        assert re.search(r"complete\D+10", run(home, *CLI, "status"))
        assert "agree with the log" in run(home, *CLI, "replay", "--check")


def test_what_was_computed_is_there_after_the_next_start(home: Path) -> None:
    with up(home, "--workers=0"):
        code = "from recordledger import Client; print(Client().counts()['complete'])"
        assert run(home, sys.executable, "-c", code).strip() == "10"


def test_a_manager_that_is_drained_is_not_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = Plan(home=tmp_path, port=0, workers=1, lease_s=4.0, heartbeat_s=0.5)
    with (
        caplog.at_level(logging.INFO, "recordledger"),
        Supervisor(plan) as up_,
        Client(up_.url, up_.token) as client,
    ):
        deadline = time.monotonic() + TIMEOUT_S
        while not (alive := client.managers()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.drain_manager(alive[0].id)
        while "manager: exited with status 0" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert up_.child("manager").n_starts == 1
        assert not client.managers(["active", "draining"])


def test_a_token_opens_the_ledger_until_it_is_revoked(home: Path) -> None:
    with up(home, "--workers=0"):
        secret = run(home, *CLI, "token", "issue", "ada", "--role=reader").strip()
        code = f"from recordledger import Client; print(Client(token={secret!r}).server().user)"
        assert run(home, sys.executable, "-c", code).strip() == "ada"
        listed = run(home, *CLI, "token", "list")
        number = next(line for line in listed.splitlines() if "ada" in line).split()[1]
        assert "is revoked" in run(home, *CLI, "token", "revoke", number)


def test_a_changed_table_is_found_by_replay(home: Path) -> None:
    with up(home, "--workers=0"):
        with psycopg.connect(EmbeddedPostgres(home).attach(), autocommit=True) as connection:
            connection.execute("UPDATE recordledger.records SET status = 'error' WHERE id = 3")
        done = subprocess.run(  # noqa: S603
            [*CLI, "replay", "--check", f"--home={home}"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 1
        assert "records 3: status is 'error', but the log has 'complete'" in done.stdout
