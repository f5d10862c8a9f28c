"""Results on disk until the server has acknowledged them, so that no crash loses computed work.

One file per batch, in `<folder>/<ledger id>/<manager id>/`: the ledger is in the path because ids
are small integers, and another ledger has the same ones. A manager's id is new at every boot, so
what is left in the folders of other ids is from earlier boots of managers on this machine.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import msgpack

log = logging.getLogger(__name__)

FORMAT: Final = 1
_SUFFIX: Final = ".results"
_DRAFT: Final = ".draft"
_DAMAGED: Final = ".damaged"
_REFUSED: Final = ".refused"
_LOCK: Final = "lock"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)
_FULL_LOG_S: Final = 30.0
_OWN_S_MAX: Final = 5.0


class ResultBatch:
    """Results that go to the server together, in the name of the manager that computed them.

    Each has the fields of `schemas.returns.ResultIn`. They are in memory, on disk, or both. What is
    safe on disk can be dropped from memory, and is read again when it is needed. `refs` are their
    records and attempts; none if this process has only found them.
    """

    def __init__(
        self, manager_id: int, results: Sequence[dict[str, Any]] | None, path: Path | None = None
    ) -> None:
        self.manager_id = manager_id
        self.path = path
        self.refs = frozenset((found["record_id"], found["attempt"]) for found in results or ())
        self._results = None if results is None else list(results)

    def results(self) -> list[dict[str, Any]]:
        """Return the results; none if the file is gone, because another process delivered it.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read now.
        """
        if self._results is not None:
            return self._results
        return _read(self.path) if self.path is not None else []

    def forget(self) -> None:
        """Drop the results from memory if they are on disk."""
        if self.path is not None:
            self._results = None


class Spool:
    """The batches of the managers of one state folder, for one ledger.

    Args:
        folder: shared by the managers of this machine that have the same state folder.
        ledger_id: which ledger the results are for.
    """

    def __init__(self, folder: Path, ledger_id: str) -> None:
        if not _NAME.fullmatch(ledger_id):
            raise ValueError(f"{ledger_id!r} cannot be the id of a ledger")
        self._folder = folder / ledger_id
        self._numbers = itertools.count(1)
        self._full_logged_at = -_FULL_LOG_S
        self._locks: dict[int, IO[bytes] | None] = {}

    def own(self, manager_id: int) -> None:
        """Make a manager's folder, and lock it while this process lives."""
        folder = self._folder / str(manager_id)
        deadline = time.monotonic() + _OWN_S_MAX
        while True:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._locks[manager_id] = _locked(folder)
            except (BlockingIOError, FileNotFoundError) as error:
                # Another manager looks whether the folder is in use, and may have removed it.
                if time.monotonic() >= deadline:
                    self._log_full(error)
                    return
                time.sleep(0.01)
            except OSError as error:
                self._log_full(error)
                return
            else:
                return

    def keep(self, manager_id: int, results: Sequence[dict[str, Any]]) -> ResultBatch:
        """Write a batch to disk; if that fails, say so, and keep it in memory only."""
        batch = ResultBatch(manager_id, results)
        if manager_id not in self._locks:
            self.own(manager_id)  # the disk was full when it began
        path = self._folder / str(manager_id) / f"{next(self._numbers):012d}{_SUFFIX}"
        try:
            _write(path, results)
        except OSError as error:
            self._log_full(error)
        else:
            batch.path = path
        return batch

    def retry(self, batch: ResultBatch) -> bool:
        """Write a batch that is in memory only; return whether there was room on the disk."""
        if batch.path is None:
            batch.path = self.keep(batch.manager_id, batch.results()).path
        return batch.path is not None

    def done(self, batch: ResultBatch) -> None:
        """Forget a batch that the server has acknowledged."""
        if batch.path is not None:
            with contextlib.suppress(OSError):
                batch.path.unlink()

    def set_aside(self, batch: ResultBatch, *, damaged: bool = False) -> Path | None:
        """Keep a batch that can never be delivered where people can look at it; return where."""
        if batch.path is None:
            return None
        aside = batch.path.with_suffix(_DAMAGED if damaged else _REFUSED)
        with contextlib.suppress(OSError):
            batch.path.replace(aside)
        return aside

    def left_behind(self) -> Iterator[ResultBatch]:
        """Yield the batches that earlier managers left, oldest first; not those of living ones."""
        for folder in _numbered(self._folder):
            with _unused(folder) as is_unused:
                if is_unused:
                    for draft in folder.glob(f"*{_DRAFT}"):
                        with contextlib.suppress(OSError):
                            draft.unlink()
                    for path in sorted(folder.glob(f"*{_SUFFIX}")):
                        yield ResultBatch(int(folder.name), None, path)

    def close(self) -> None:
        """Unlock the folders; remove those that are empty and that nobody uses."""
        for lock in self._locks.values():
            if lock is not None:
                lock.close()
        self._locks.clear()
        for folder in _numbered(self._folder):
            with _unused(folder) as is_unused:
                if is_unused:
                    _remove_if_empty(folder)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _log_full(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._full_logged_at >= _FULL_LOG_S:
            self._full_logged_at = now
            log.error(
                "cannot keep results in %s: %s. They are in memory until the server takes them, "
                "and are lost if this manager is killed before: make room there",
                self._folder,
                error,
            )


def _numbered(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name))


@contextlib.contextmanager
def _unused(folder: Path) -> Generator[bool]:
    """Lock a manager's folder, and yield whether that worked: if not, its manager lives."""
    try:
        lock = _locked(folder)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        if lock is not None:
            lock.close()


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not [path for path in folder.iterdir() if path.name != _LOCK]:
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _locked(folder: Path) -> IO[bytes] | None:
    """Return a lock that holds until this process ends, or the file is closed.

    Raises:
        BlockingIOError: another process has it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    path = folder / _LOCK
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_replaced = not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except BaseException:
        file.close()
        raise
    if is_replaced:  # somebody has just removed the folder
        file.close()
        raise BlockingIOError(f"{path} was replaced")
    return file


def _write(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write a file whole or not at all, whenever this process or the machine ends."""
    draft = path.with_suffix(_DRAFT)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            file.write(msgpack.packb({"format": FORMAT, "results": list(results)}))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        found: Any = msgpack.unpackb(data)
        written_as, results = found["format"], found["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if written_as != FORMAT:
        raise ValueError(f"{path} was written by another version of recordledger")
    return cast("list[dict[str, Any]]", results)
