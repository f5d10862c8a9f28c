"""Managers on each engine: deadly tasks, engines that die, and what is left when all is over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recordledger.workers.manager.main import ManagerConfig, run_manager
from recordledger.workers.tasks.engine_names import DASK, ENGINES, IPYPARALLEL, PARSL

from ..conditions import eventually
from ..conftest import Site
from .test_engines import is_gone


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the manager's processes keep what they keep for a while; with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="rl-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return all(is_gone(process.pid) or not process.is_running() for process in processes)


@pytest.mark.parametrize("engine", ENGINES)
def test_deadly_tasks_are_errors_and_a_killed_manager_leaves_nothing_behind(
    site: Site, temporary: Path, engine: str
) -> None:
    good = [site.add("echo", n=n) for n in range(20)]
    deadly = site.client.add_records(
        "tests.workers.misbehaving:kill_self", {"number": 9}, retries=1, find_existing=False
    ).ids
    good += [site.add("echo", n=n) for n in range(20, 40)]
    process = site.manager_process(engine=engine)
    assert {r.status for r in site.client.wait(good, timeout_s=60)} == {"complete"}
    (record,) = site.client.wait(deadly, timeout_s=60)
    assert (record.status, record.error_type, record.attempt) == ("error", "WorkerDied", 2)
    # And it goes on.
    running = site.meeting("a")
    pid = site.pid_of("a")
    started = descendants(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: is_gone(pid) and all_gone(started))
    eventually(lambda: not list(temporary.iterdir()))
    assert site.client.get_records(running).status == "running"  # until its lease is over


@pytest.fixture
def dask_scheduler(tmp_path: Path) -> Iterator[list[str]]:
    """A cluster of Dask that is not ours: the id of the scheduler, and its address."""
    file = tmp_path / "scheduler.json"
    options = ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = [*options, "--host", "127.0.0.1", "--port", "0"]
    worker = [*options, "--nthreads", "1", "--nworkers", "2", "--host", "127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    processes = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for name, arguments in (("scheduler", scheduler), ("worker", worker))
    ]
    eventually(file.exists)
    yield [str(processes[0].pid), str(file)]
    for process in processes:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def head_of(started: list[psutil.Process], word: str) -> psutil.Process:
    """Return the first process of an engine with this word in its command."""
    return next(p for p in started if any(word in part for part in p.cmdline()))


@pytest.mark.parametrize(
    ("engine", "word"),
    [(DASK, ""), (PARSL, "interchange"), (IPYPARALLEL, "ipyparallel.controller")],
)
def test_a_manager_whose_engine_dies_gives_everything_back_and_ends(
    site: Site, temporary: Path, request: pytest.FixtureRequest, engine: str, word: str
) -> None:
    more = {"engine": engine, "engine_silence_s": 3.0}
    head = None
    if engine == DASK:
        pid, file = request.getfixturevalue("dask_scheduler")
        more |= {"engine_address": file, "engine_folder": str(temporary)}
        head = psutil.Process(int(pid))
    ids = [site.meeting(name) for name in "abcd"]
    process = site.manager_process(**more)
    site.pid_of("a")
    started = descendants(process)
    (head or head_of(started, word)).kill()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1, said
    assert {r.status for r in site.client.get_records(ids)} == {"waiting"}
    (manager,) = site.client.managers()
    assert manager.state == "inactive"
    assert "the manager ends: " in said
    eventually(lambda: all_gone(started))
    assert list(temporary.iterdir()) == []


def test_a_manager_whose_engine_does_not_start_says_so_and_ends(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ManagerConfig(
        url=site.url,
        token=site.token,
        state_dir=tmp_path,
        engine=PARSL,
        engine_address="tests.workers.misbehaving:not_callable",
    )
    assert run_manager(config) == 1
    assert "tests.workers.misbehaving:not_callable is a int, not a parsl.Config" in caplog.text


def test_a_manager_with_an_engine_that_does_not_exist_does_not_begin(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_manager(ManagerConfig(url=site.url, token=site.token, engine="slurm")) == 1
    assert "no engine 'slurm'" in caplog.text
    assert site.client.managers() == []
