"""Where an engine lives on this machine: a folder, an environment, and who clears up after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Final

from . import sweeper
from .process import THREAD_VARIABLES, processor_count

MARK: Final = "RECORDLEDGER_ENGINE_"
FOLDER_CHARACTERS_MAX: Final = 60


class Premises:
    """A folder for what an engine writes, and an environment that what it starts inherits.

    The environment is that of this process, for as long as the premises are open: libraries start
    workers when they like. It marks them, lets them import what this process can, and says how many
    threads to use.

    Args:
        n_workers: between how many the processors are divided.
        threads_per_worker: for numerical libraries; None divides the processors, unless the
            environment has a number already.
    """

    def __init__(self, n_workers: int, threads_per_worker: int | None) -> None:
        # One for the whole process, which may outlive this engine: it must not have the mark.
        resource_tracker.ensure_running()
        self.folder = Path(tempfile.mkdtemp(prefix="recordledger-engine-"))
        self.mark = MARK + uuid.uuid4().hex
        changed = self._environment(max(1, n_workers), threads_per_worker)
        self._before = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        self._sweeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", sweeper.__file__, self.mark, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Not the mark itself, or it would be one of those that it looks for.
            env={k: v for k, v in os.environ.items() if not k.startswith(MARK)},
            start_new_session=True,
        )

    def _environment(self, n_workers: int, threads_per_worker: int | None) -> dict[str, str]:
        changed = {
            self.mark: "1",
            # Titles of processes are written over their environment, and so over the mark.
            "SPT_NOENV": "1",
            # Libraries look for programs of their own on the path.
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(_own_paths()),
            "IPYTHONDIR": str(self.folder / "ipython"),
        }
        # So that what killed processes leave there is removed with the rest; but sockets are made
        # in it too, whose paths must be short.
        if len(str(self.folder)) <= FOLDER_CHARACTERS_MAX:
            changed["TMPDIR"] = str(self.folder)
        n_threads = str(threads_per_worker or max(1, processor_count() // n_workers))
        for name in THREAD_VARIABLES:
            if threads_per_worker is not None or name not in os.environ:
                changed[name] = n_threads
        return changed

    def close(self, *, may_come_more: bool = False) -> None:
        """Kill what is left, remove the folder, and restore the environment.

        Args:
            may_come_more: something still runs here that may start processes; so the sweeper goes
                on, and comes when this process has gone.
        """
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        sweeper.sweep(self.mark)
        shutil.rmtree(self.folder, ignore_errors=True)
        if may_come_more:
            return
        if self._sweeper.stdin is not None:
            self._sweeper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._sweeper.wait(sweeper.SWEEP_S_MAX)


def _own_paths() -> list[str]:
    """Return where this process imports from, but for what each Python of its kind has anyway."""
    usual = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return [
        str(Path(path).absolute())
        for path in sys.path
        if path not in usual and Path(path).name != "lib-dynload" and not path.endswith(".zip")
    ]
