"""`recordledger up`: database, API, the server's jobs and a manager under one supervisor.

    <home>/postgres/          the embedded PostgreSQL
    <home>/connection.json    where the API is, and the local administrator's token
    <home>/manager/           the local manager's token, and results that it has not returned yet
    <home>/logs/              what each process says

Whatever dies is started again. Any of it may be killed at any time, the supervisor too: its
children see that it is gone and end, and the next start adopts a database that still runs.
"""

from __future__ import annotations

import getpass
import logging
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import IO, Final, Self

import httpx2

from recordledger.api.client import NotConnected
from recordledger.api.client.connection import read_connection, write_connection
from recordledger.api.settings import ApiGroup
from recordledger.domain.admin.access import Role
from recordledger.domain.errors import LedgerError
from recordledger.projections.actions import tokens
from recordledger.projections.ledger import Ledger
from recordledger.projections.store.database import DEFAULT_SCHEMA
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import migrate

log = logging.getLogger(__name__)

# Set for children; they end when their standard input does.
SUPERVISED: Final = "RECORDLEDGER_SUPERVISED"

_TICK_S: Final = 0.2
_BACKOFF_S: Final = (0.2, 10.0)
_STEADY_S: Final = 5.0
_READY_TIMEOUT_S: Final = 60.0
_LOG_BYTES_MAX: Final = 16 * 1024 * 1024


class SupervisorError(LedgerError):
    """Something that `up` needs could not be started; the message says what and why."""

    code = "supervisor"


@dataclass(slots=True)
class ChildProcess:
    """A process that is kept alive: how to start it, and how it has fared.

    If it may end, it is not started again after an exit status of 0: it was asked to end.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    stop_timeout_s: float
    log_path: Path
    may_end: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    n_starts: int = 0
    backoff_s: float = _BACKOFF_S[0]
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        home: where everything is kept.
        database_url: a PostgreSQL to use instead of the embedded one.
        database_schema: where in it the ledger is.
        host, port: where the API listens; port 0 takes a free one.
        workers: processes of the local manager; 0 for no manager.
        tags: the local manager's tags.
        allow: patterns of functions that the local manager may run, besides entry points.
        lease_s, heartbeat_s: of the local manager, seconds; None takes the server's defaults.
    """

    home: Path
    database_url: str | None = None
    database_schema: str = DEFAULT_SCHEMA
    host: str = ApiGroup.model_fields["host"].default
    port: int = ApiGroup.model_fields["port"].default
    workers: int = 2
    tags: tuple[str, ...] = ("*",)
    allow: tuple[str, ...] = ()
    lease_s: float | None = None
    heartbeat_s: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


class Supervisor:
    """Starts what the plan says, keeps it alive, and stops it in the right order."""

    def __init__(self, plan: Plan) -> None:
        """Take a plan; nothing is started yet."""
        self.plan = plan
        self.postgres: EmbeddedPostgres | None = None
        self.children: list[ChildProcess] = []
        self.url = ""
        self.database_url = ""
        self.token = ""
        self._stopping = Event()
        self._watcher: Thread | None = None

    def __enter__(self) -> Self:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self.stop()

    def start(self) -> None:
        """Start everything, and return when the API answers.

        Raises:
            SupervisorError: something did not come up; what did is stopped again.
            LedgerError: the database cannot be used.
        """
        home = self.plan.home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logs").mkdir(mode=0o700, exist_ok=True)
        try:
            self._start_database()
            migrate(self.database_url, self.plan.database_schema)
            port = self.plan.port or _free_port(self.plan.host)
            _require_free(self.plan.host, port)
            self.url = f"http://{self.plan.host}:{port}"
            manager_token = self._issue_tokens()
            self.children = self._children(port, manager_token)
            for child in self.children:
                self._spawn(child)
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        self._watcher = Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def wait(self, stop: Event) -> None:
        """Return when `stop` is set."""
        while not stop.wait(_TICK_S):
            pass

    def stop(self) -> None:
        """Stop the manager first, so that it can hand in, then the server, then the database."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        for child in reversed(self.children):
            _stop(child)
        if self.postgres is not None:
            self.postgres.stop()
            self.postgres = None

    def child(self, name: str) -> ChildProcess:
        """Return the process of this name: serve, work or manager."""
        return next(child for child in self.children if child.name == name)

    def _start_database(self) -> None:
        if self.plan.database_url is not None:
            self.database_url = self.plan.database_url
            return
        self.postgres = EmbeddedPostgres(self.plan.home)
        self.postgres.start()
        self.database_url = self.postgres.url

    def _issue_tokens(self) -> str:
        """See to it that the local user and the local manager have tokens; return the latter."""
        ledger = Ledger(self.database_url, self.plan.database_schema, pool_size=2)
        try:
            self.token = self._token(ledger, self.plan.home, getpass.getuser(), Role.admin)
            return self._token(ledger, self.plan.home / "manager", "local-manager", Role.compute)
        finally:
            ledger.close()

    def _token(self, ledger: Ledger, folder: Path, user: str, role: Role) -> str:
        """Return the token that is kept in a folder, or a new one that is kept there now."""
        try:
            kept = read_connection(folder)
        except NotConnected as error:
            log.warning("%s", error)
            kept = None
        token = kept.token if kept else None
        if token is None or tokens.authenticate(ledger, token) is None:
            token = tokens.issue_token(ledger, user, role).secret
        write_connection(folder, self.url, token)
        return token

    def _children(self, port: int, manager_token: str) -> list[ChildProcess]:
        plan = self.plan
        database = {
            **plan.settings,
            "RECORDLEDGER_DATABASE_URL": self.database_url,
            "RECORDLEDGER_DATABASE_SCHEMA": plan.database_schema,
        }
        serve = ["serve", f"--host={plan.host}", f"--port={port}"]
        children = [
            self._child("serve", serve, database, stop_timeout_s=15),
            self._child("work", ["work", f"--home={plan.home}"], database, stop_timeout_s=15),
        ]
        if plan.workers:
            manager = [
                "manager",
                f"--workers={plan.workers}",
                f"--state-dir={plan.home / 'manager'}",
                "--name=local",
                *(f"--tag={tag}" for tag in plan.tags),
                *(f"--allow={pattern}" for pattern in plan.allow),
            ]
            if plan.lease_s is not None:
                manager.append(f"--lease-s={plan.lease_s}")
            if plan.heartbeat_s is not None:
                manager.append(f"--heartbeat-s={plan.heartbeat_s}")
            environment = {"RECORDLEDGER_URL": self.url, "RECORDLEDGER_TOKEN": manager_token}
            child = self._child("manager", manager, environment, stop_timeout_s=45)
            child.may_end = True
            children.append(child)
        return children

    def _child(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout_s: float,
    ) -> ChildProcess:
        log_path = self.plan.home / "logs" / f"{name}.log"
        return ChildProcess(name, arguments, environment, stop_timeout_s, log_path)

    def _spawn(self, child: ChildProcess) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("RECORDLEDGER_DATABASE") or name in child.environment
        }
        with _open_log(child.log_path) as output:
            child.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "recordledger.workers.cli", *child.arguments],
                # The pipe is never written to: it ends when this process does.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**inherited, **child.environment, SUPERVISED: "1"},
                # Ctrl-C is for the supervisor, which stops its children in the right order.
                start_new_session=True,
            )
        child.started_at = monotonic()
        child.n_starts += 1
        log.info("%s: started (pid %d)", child.name, child.process.pid)

    def _await_ready(self) -> None:
        serve = self.child("serve")
        deadline = monotonic() + _READY_TIMEOUT_S
        while monotonic() < deadline:
            if not serve.alive:
                raise SupervisorError(f"the API did not start; {_last_lines(serve.log_path)}")
            try:
                if httpx2.get(f"{self.url}/ready", timeout=5).status_code == HTTPStatus.OK:
                    return
            except httpx2.TransportError:
                pass
            self._stopping.wait(_TICK_S / 2)
        raise SupervisorError(
            f"the API was not ready after {_READY_TIMEOUT_S:.0f} s; {_last_lines(serve.log_path)}"
        )

    def _watch(self) -> None:
        while not self._stopping.wait(_TICK_S):
            if self.postgres is not None and self.postgres.poll() is not None:
                log.warning("postgres: ended; starting it again")
                try:
                    self.postgres.start()
                except LedgerError:
                    log.exception("postgres: did not start; trying again")
            for child in self.children:
                self._keep_alive(child)

    def _keep_alive(self, child: ChildProcess) -> None:
        if child.alive:
            if monotonic() - child.started_at > _STEADY_S:
                child.backoff_s = _BACKOFF_S[0]
            return
        if child.process is not None and child.may_end and child.process.returncode == 0:
            log.info("%s: exited with status 0; not restarting it", child.name)
            _release(child)
            child.not_before = math.inf
        elif child.process is not None:
            log.warning(
                "%s: ended with exit code %s; starting it again in %.1f s (%s)",
                child.name,
                child.process.returncode,
                child.backoff_s,
                child.log_path,
            )
            _release(child)
            child.not_before = monotonic() + child.backoff_s
            child.backoff_s = min(2 * child.backoff_s, _BACKOFF_S[1])
        elif monotonic() >= child.not_before:
            self._spawn(child)


def end_with_supervisor() -> None:
    """End this process, as by SIGTERM, when the supervisor that started it is gone."""
    if os.environ.get(SUPERVISED) != "1":
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="supervisor-watch", daemon=True).start()


def _stop(child: ChildProcess) -> None:
    process = child.process
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(child.stop_timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("%s: did not end in %.0f s; killing it", child.name, child.stop_timeout_s)
            process.kill()
            process.wait()
    _release(child)


def _release(child: ChildProcess) -> None:
    if child.process is not None and child.process.stdin is not None:
        child.process.stdin.close()
    child.process = None


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SupervisorError(
                f"{host}:{port} cannot be used ({error.strerror}); another ledger may be running "
                "there. Choose another port with --port, or --port 0 for any free port"
            ) from error


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _last_lines(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return f"{path} ends with:\n" + "\n".join(lines[-15:])
