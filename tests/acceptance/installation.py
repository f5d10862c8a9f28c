"""A ledger's programs as processes of their own, with short leases, for tests that trouble them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Thread
from typing import Final

import psutil

from recordledger import Client
from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.audit import audit
from tests.waiting import happens

from .proxy import LOOPBACK

ROOT: Final = Path(__file__).parents[2]
CLI: Final = (sys.executable, "-m", "recordledger.workers.cli")
TASKS: Final = "tests.workers.misbehaving"
SWEEP_S: Final = 0.5
HEARTBEAT_S: Final = 0.3
TIMEOUT_S: Final = 30.0


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started, as far as they are there."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_family(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, those that stand still too; some may have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Program:
    """A command that runs, and what it says."""

    def __init__(self, name: str, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.lines: list[str] = []
        self._suspended: list[psutil.Process] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RECORDLEDGER_")}
        paths = [environment["PYTHONPATH"]] if "PYTHONPATH" in environment else []
        self._process = subprocess.Popen(  # noqa: S603
            [*CLI, *arguments],
            stdin=subprocess.DEVNULL,
            # A pipe, for there are tests in which no file can be written.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**inherited, **environment, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)])},
        )
        self._reader = Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def has_said(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in list(self.lines))

    def suspend(self) -> None:
        """Stop it and its workers, as SIGSTOP does: nothing in them notices."""
        self._suspended = family(self.pid)
        for process in self._suspended:
            process.send_signal(signal.SIGSTOP)
        for process in self._suspended:
            happens(lambda process=process: process.status() == psutil.STATUS_STOPPED, TIMEOUT_S)  # type: ignore[misc]

    def resume(self) -> None:
        for process in self._suspended:
            process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.end(signal.SIGKILL)

    def discard(self) -> None:
        """Kill it with all that it has started: what stands still would not end by itself."""
        kill_family(self._suspended)
        if self.exit_status is None:
            kill_family(family(self.pid))
        self.kill()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal that ends it; return its exit status."""
        with self._process:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            try:
                return self._process.wait(TIMEOUT_S)
            finally:
                self._process.kill()
                self._reader.join()


def _free_port() -> int:
    """Return a port that stays free while nobody listens there.

    Not one of those that the system gives to connections: it would give it away as soon as the
    server is killed.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - not for secrets
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class Installation:
    """A server and its jobs over a database, which tests share, kill and start again."""

    def __init__(self, database_url: str, stack: contextlib.ExitStack) -> None:
        self.programs: list[Program] = []
        self._database_url = database_url
        stack.callback(self._end)
        self.port = _free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.ledger = Ledger(database_url, pool_size=2)
        stack.callback(self.ledger.close)
        token = issue_token(self.ledger, "ann", Role.admin).secret
        self.client = Client(self.url, token, retries_s=TIMEOUT_S, progress=False)
        stack.callback(self.client.close)
        self.start_server()
        self.start_jobs()

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Program:
        """Start one of the commands."""
        program = Program(arguments[0], arguments, environment or {})
        self.programs.append(program)
        return program

    def start_server(self) -> None:
        """Start the server, at the address where it always is, and wait until it answers."""
        arguments = ("serve", f"--database-url={self._database_url}", f"--port={self.port}")
        self.server = self.start(*arguments)
        self.client.counts()

    def start_jobs(self) -> None:
        """Start the server's jobs."""
        url = f"--database-url={self._database_url}"
        self.jobs = self.start("work", url, f"--sweep-s={SWEEP_S}", "--no-seal")

    def restore(self) -> None:
        """End all but the server and its jobs, and start of these what has ended."""
        keep = (self.server, self.jobs)
        self._discard([each for each in self.programs if each not in keep])
        if self.server.exit_status is not None:
            self._discard([self.server])
            self.start_server()
        if self.jobs.exit_status is not None:
            self._discard([self.jobs])
            self.start_jobs()

    def eventually(self, is_so: Callable[[], object], what: str) -> None:
        """Wait until it is so; fail if it does not become so in time, and show what was said."""
        assert happens(is_so, TIMEOUT_S), f"not in {TIMEOUT_S} s: {what}\n\n{self.said()}"

    def said(self) -> str:
        """Return the last lines of every process."""
        parts = [
            f"--- {program.name}, pid {program.pid}, exit status {program.exit_status}\n"
            + "".join(program.lines[-25:])
            for program in self.programs
        ]
        return "\n".join(parts)

    def _discard(self, programs: Iterable[Program]) -> None:
        """End these programs with all that they have started, and speak of them no more."""
        with contextlib.ExitStack() as stack:
            for program in programs:
                self.programs.remove(program)
                stack.callback(program.discard)

    def _end(self) -> None:
        self._discard(list(self.programs))


class Site:
    """What one test has at an installation: a tag, a folder, records, and managers."""

    def __init__(self, installation: Installation, tag: str, folder: Path) -> None:
        self.installation = installation
        self.client = installation.client
        self.folder = folder
        self.tag = tag
        self.ids: list[int] = []
        self._stack = contextlib.ExitStack()
        self._stack.callback(installation.restore)

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call this at the end of the test, however it ends."""
        self._stack.callback(callback)

    def add(self, function: str, /, **kwargs: object) -> int:
        """Add a record of one of the tests' functions, for this test's managers."""
        (id_,) = self.client.add_records(
            f"{TASKS}:{function}", kwargs, tag=self.tag, find_existing=False
        ).ids
        assert id_ is not None
        self.ids.append(id_)
        return id_

    def meetings(self, names: str) -> list[int]:
        """Add records, one for each letter, that run until `may_end` is called with it."""
        return [self.add("meet", folder=str(self.folder), name=name) for name in names]

    def manager(
        self,
        *options: str,
        url: str | None = None,
        token: str | None = None,
        workers: int = 2,
        lease_s: float = 60.0,
        command: tuple[str, ...] = ("manager",),
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a manager, and wait until it is registered."""
        if token is None and not any(option.startswith("--token") for option in options):
            token = issue_token(self.installation.ledger, "site", Role.compute).secret
        arguments = [
            *command,
            f"--url={url or self.installation.url}",
            "--name=site",
            f"--tag={self.tag}",
            f"--allow={TASKS}:*",
            f"--workers={workers}",
            f"--state-dir={self.folder / 'state'}",
            f"--lease-s={lease_s}",
            f"--heartbeat-s={HEARTBEAT_S}",
            *options,
        ]
        secret = {} if token is None else {"RECORDLEDGER_TOKEN": token}
        manager = self.installation.start(*arguments, environment={**(environment or {}), **secret})
        self.eventually(lambda: ids_of(manager), "the manager is registered")
        return manager

    def eventually(self, is_so: Callable[[], object], what: str) -> None:
        """As the installation does."""
        self.installation.eventually(is_so, what)

    def says(self, program: Program, pattern: str) -> None:
        """Wait until a program says something."""
        self.eventually(lambda: program.has_said(pattern), f"{program.name} says {pattern!r}")

    def begin(self, names: str) -> None:
        """Wait until these meetings run."""
        for name in names:
            path = self.folder / f"begun-{name}"
            self.eventually(path.exists, f"meeting {name} runs")

    def may_end(self, names: str) -> None:
        for name in names:
            (self.folder / f"end-{name}").touch()

    def spooled(self) -> list[Path]:
        """Return the files of results that are not acknowledged."""
        return sorted((self.folder / "state").rglob("*.results"))

    def are_kept(self, n_results: int) -> None:
        """Wait until so many results are on disk."""
        self.eventually(lambda: n_results == self._n_kept(), f"{n_results} results are on disk")

    def _n_kept(self) -> int:
        import msgpack

        return sum(len(msgpack.unpackb(path.read_bytes())["results"]) for path in self.spooled())

    def is_lost(self, manager_id: int) -> None:
        """Wait until the server's job has declared a manager lost."""
        self.says(self.installation.jobs, rf"lost managers [\d, ]*\b{manager_id}\b")

    def events(self, record_id: int) -> list[str]:
        """Return what has happened to a record, in words."""
        return [event.kind for event in self.client.history(record_id)]

    def becomes(self, record_id: int, status: str) -> None:
        """Wait until a record has a status."""
        self.eventually(
            lambda: self.client.get_records(record_id).status == status,
            f"record {record_id} is {status}",
        )

    def settle(self) -> None:
        """Wait until all is done, and prove that nothing was lost, or done twice.

        Every record is complete by exactly one event, no result is left to be delivered, and all
        named invariants hold.
        """
        for id_ in self.ids:
            self.becomes(id_, "complete")
            kinds = self.events(id_)
            assert sum(kind in ("completed", "result_adopted") for kind in kinds) == 1, kinds
        self.eventually(lambda: not self.spooled(), "all results are acknowledged")
        report = audit(self.installation.ledger)
        assert report.holds, str(report)
        assert report.n_events > len(self.ids)

    def end(self) -> None:
        """Kill what this test has started, and see to it that the next test finds a server."""
        self._stack.close()


def ids_of(manager: Program) -> list[int]:
    """Return the ids that a manager has had, oldest first."""
    found = (re.search(r"manager (\d+) \(site\):", line) for line in list(manager.lines))
    return [int(match[1]) for match in found if match]
