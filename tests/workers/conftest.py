"""A real server for the managers of a test, and managers in threads and in processes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from recordledger.api.client import Client
from recordledger.api.server import LedgerServer
from recordledger.api.settings import Settings
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.ledger import Ledger
from recordledger.workers.cli import main
from recordledger.workers.manager.main import ManagerAgent, ManagerConfig
from tests.api.service import Service, Visit, serving
from tests.postgres import new_database

from .conditions import eventually

TASKS = "tests.workers.misbehaving"
PROGRAM = """
import json, logging, sys
from pathlib import Path

logging.basicConfig(level=logging.INFO)
from recordledger.workers.cli import main
from recordledger.workers.manager.main import ManagerConfig, run_manager

config = json.loads(sys.argv[1])
config |= {name: tuple(config[name]) for name in ("tags", "allow")}
folders = {name: Path(config[name]) for name in ("state_dir", "engine_folder") if name in config}
if __name__ == "__main__":  # workers that are spawned import this
    sys.exit(run_manager(ManagerConfig(**config | folders)))
"""


class Site:
    """A ledger's server that can be stopped and started again, and what talks to it."""

    def __init__(self, database_url: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._database_url = database_url
        self._stack = stack
        self._port = 0
        self._server: LedgerServer | None = None
        ledger = Ledger(database_url, pool_size=2)
        stack.callback(ledger.close)
        self.token = issue_token(ledger, "ann", Role.admin).secret
        stack.callback(self.stop_server)
        self.start_server()
        self.client = stack.enter_context(Client(self.url, self.token, progress=False))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start_server(self) -> None:
        settings = Settings(
            database_url=self._database_url,
            port=self._port,
            pool_size=4,
            payload_bytes_max=64 * 1024,
            shutdown_timeout_s=1,
        )
        server = self._server = LedgerServer(settings)
        self._thread = threading.Thread(target=server.run, name="api")
        self._thread.start()
        eventually(lambda: server.started)
        self._port = int(server.url.rpartition(":")[2])

    def stop_server(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join()
            self._server = None

    def config(self, **more: Any) -> dict[str, Any]:
        """Return a manager's configuration, in JSON values."""
        return {
            "url": self.url,
            "token": self.token,
            "n_workers": 2,
            "allow": [f"{TASKS}:*"],
            "tags": ["*"],
            "state_dir": str(self.folder / "state"),
            "distributions": (),
            "executables": {},
            "poll_max_s": 0.2,
            "heartbeat_s": 0.2,
            "lease_s": 60.0,
            "deliver_s": 5.0,
            **more,
        }

    def manager(self, **more: Any) -> Runner:
        """Run a manager in a thread; it is stopped at the end of the test."""
        found = self.config(**more)
        for name in ("tags", "allow"):
            found[name] = tuple(found[name])
        found["state_dir"] = Path(found["state_dir"])
        running = Runner(ManagerConfig(**found))
        self._stack.callback(running.stop)
        return running

    def manager_process(self, **more: Any) -> subprocess.Popen[str]:
        """Run a manager as a program; it is killed at the end of the test."""
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROGRAM, json.dumps(self.config(**more))],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.__exit__, None, None, None)
        self._stack.callback(process.send_signal, signal.SIGKILL)
        return process

    def add(self, function: str, /, **kwargs: Any) -> int:
        """Add a record of one of the tests' functions; return its id."""
        added = self.client.add_records(f"{TASKS}:{function}", kwargs, find_existing=False)
        (id_,) = added.ids
        assert id_ is not None, added
        return id_

    def meeting(self, name: str) -> int:
        """Add a record that runs until `may_end` is called with its name."""
        return self.add("meet", folder=str(self.folder), name=name)

    def has_begun(self, name: str) -> bool:
        return (self.folder / f"begun-{name}").exists()

    def pid_of(self, name: str) -> int:
        """Return the process of a meeting, once it has begun."""
        path = self.folder / f"begun-{name}"
        eventually(path.exists)
        return int(path.read_text())

    def may_end(self, name: str) -> None:
        (self.folder / f"end-{name}").touch()

    def spooled(self) -> list[Path]:
        """Return the files of results that are not acknowledged."""
        return sorted((self.folder / "state").rglob("*.results"))

    def events(self, record_id: int) -> list[str]:
        """Return what has happened to a record, in words."""
        return [event.kind for event in self.client.history(record_id)]

    def becomes(self, record_id: int, status: str) -> None:
        """Wait until a record has a status."""
        eventually(lambda: self.client.get_records(record_id).status == status)


class Runner:
    """A manager in a thread of this process; its workers are processes all the same."""

    def __init__(self, config: ManagerConfig) -> None:
        self.manager = ManagerAgent(config)
        self.exit_status: int | None = None
        self._thread = threading.Thread(target=self._run, name="manager")
        self._thread.start()

    def _run(self) -> None:
        self.exit_status = self.manager.run()

    @property
    def id(self) -> int:
        """The manager's id, once it has one."""
        eventually(lambda: self.manager.manager_id is not None)
        assert self.manager.manager_id is not None
        return self.manager.manager_id

    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> int | None:
        """Stop it at once if it still runs; return its exit status."""
        if self._thread.is_alive():
            self.manager.stop()
            self.manager.stop()
            self._thread.join()
        return self.exit_status


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A ledger of this test's own, with a server and no manager."""
    with contextlib.ExitStack() as stack:
        yield Site(database_url, tmp_path, stack)


Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A served ledger that the tests of a module share."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def ann(service: Service) -> Visit:
    """An administrator over HTTP."""
    return service.visit(Role.admin)


@pytest.fixture
def cli(service: Service, ann: Visit) -> Cli:
    """Run a command as this administrator; `answer` is what is typed when it asks."""

    def run(*arguments: object, answer: str = "") -> Result:
        environment = {
            "RECORDLEDGER_URL": service.url,
            "RECORDLEDGER_TOKEN": ann.secret,
            "COLUMNS": "200",
        }
        return CliRunner().invoke(main, [str(each) for each in arguments], answer, environment)

    return run


def printed(result: Result) -> Any:
    """Return what a command has printed as JSON."""
    return json.loads(result.stdout)
