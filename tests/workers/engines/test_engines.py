"""Engines run functions in real processes, and survive what the functions do."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from recordledger import __version__
from recordledger.workers.engines import (
    Engine,
    EngineFailed,
    EngineUnavailable,
    ExecutorEngine,
    GivenExecutor,
    ProcessEngine,
    Task,
    engine_starter,
)
from recordledger.workers.engines.cluster import Errand
from recordledger.workers.engines.sweeper import marked
from recordledger.workers.tasks.engine_names import ENGINES, POOL, PROCESSES
from recordledger.workers.tasks.running import Report, WorkerSettings

from ..conditions import eventually

TASKS = "tests.workers.misbehaving"
TIMEOUT_S = 30.0
SETTINGS = WorkerSettings(
    patterns=(f"{TASKS}:*",),
    programs={"psi4": "1.9"},
    output_bytes_max=1000,
    result_bytes_max=100_000,
)


def given_executor() -> Engine:
    """An executor of which the engine knows nothing: its workers may be anywhere."""
    spawn = multiprocessing.get_context("spawn")
    cluster = GivenExecutor(ProcessPoolExecutor(2, mp_context=spawn), 2)
    return ExecutorEngine(cluster, SETTINGS)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each kind of engine, on this machine: what it must do is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recordledger.workers.engines.executor.LOOK_S", 0.05)
        patch.setattr("recordledger.workers.engines.executor.DEAD_S_MIN", 0.2)
        made = engine_starter(request.param, n_workers=2)(SETTINGS)
        yield made
        made.shutdown()
    if isinstance(made, ExecutorEngine):
        assert marked(made.premises.mark) == [], "it left processes behind"
        assert not made.premises.folder.exists()


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessEngine]:
    """The engine with processes of its own."""
    made = ProcessEngine(2, SETTINGS)
    yield made
    made.shutdown()


def run(engine: Engine, function: str, /, **kwargs: Any) -> dict[str, Any]:
    name = function if ":" in function else f"{TASKS}:{function}"
    return report_of(engine.submit(Task(name, kwargs)))


def report_of(future: Future[Report]) -> dict[str, Any]:
    return dict(future.result(TIMEOUT_S))


def result_of(report: dict[str, Any]) -> Any:
    assert "error_type" not in report, report
    return json.loads(report["result"])


# What every engine does


def test_several_managers_of_a_machine_have_each_a_dask() -> None:
    with socket.socket() as other:
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", 8787))  # where Dask's first one would have its web server
            other.listen()
        made = engine_starter("dask", n_workers=1)(SETTINGS)
        try:
            assert result_of(run(made, "echo", x=1)) == {"x": 1}
        finally:
            made.shutdown()


def test_a_result_comes_back_as_json_with_its_time_and_where_it_was_computed(
    engine: Engine,
) -> None:
    report = run(engine, "echo", x=[1, None, 2.5], name="Ångström")
    assert report["result"] == '{"name":"Ångström","x":[1,null,2.5]}'.encode()
    assert 0 <= report["compute_s"] < TIMEOUT_S
    provenance = report["provenance"]
    assert provenance["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance["versions"] == {"recordledger": __version__, "psi4": "1.9"}
    assert "stdout" not in report


def test_an_integer_of_any_size_arrives(engine: Engine) -> None:
    assert result_of(run(engine, "echo", n=10**100)) == {"n": 10**100}


@pytest.mark.parametrize(
    ("function", "kwargs", "error_type", "message"),
    [
        ("fail", {}, "ValueError", "wrong basis"),
        ("fail", {"message": "a\0b\ud800"}, "ValueError", "a\ufffdb\\ud800"),
        ("fail", {"message": "x" * 20_000}, "ValueError", "left out"),
        ("leave", {}, "SystemExit", "called sys.exit(3)"),
        ("interrupt", {}, "KeyboardInterrupt", ""),
        ("fail_unspeakably", {}, "Unspeakable", "cannot be shown: RuntimeError"),
        ("echo", {"function": 1, "x": {"y": [1]}}, None, None),
        ("missing", {}, "FunctionNotFound", "has no 'missing'"),
        ("os:getcwd", {}, "FunctionNotAllowed", "--allow 'os:getcwd'"),
        ("fail", {"basis": "sto-3g"}, "TypeError", "unexpected keyword argument"),
        ("bad_result", {"kind": "nan"}, "ResultNotSerializable", "energies[1] is nan"),
        ("bad_result", {"kind": "bytes"}, "ResultNotSerializable", "raw is a bytes"),
        ("bad_result", {"kind": "set"}, "ResultNotSerializable", "is a set"),
        ("bad_result", {"kind": "key"}, "ResultNotSerializable", "the key 1"),
        ("bad_result", {"kind": "surrogate"}, "ResultNotSerializable", "surrogate"),
        ("bad_result", {"kind": "numpy_nan"}, "ResultNotSerializable", "gradient[0][1] is nan"),
        ("bad_result", {"kind": "complex"}, "ResultNotSerializable", "[0] is a complex"),
        ("large_result", {"n_bytes": 100_000}, "ResultTooLarge", "more than the limit of 100,000"),
    ],
)
def test_what_goes_wrong_in_a_task_is_the_error_of_that_task(
    engine: Engine, function: str, kwargs: dict[str, Any], error_type: str | None, message: str
) -> None:
    report = run(engine, function, **kwargs)
    assert report.get("error_type") == error_type
    if error_type is not None:
        assert "result" not in report
        assert message in report["error_message"]
        assert len(report["error_message"]) <= 10_000
        assert "running.py" not in report["traceback"]


def test_the_traceback_shows_the_tasks_own_frames(engine: Engine) -> None:
    traceback = run(engine, "fail")["traceback"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "misbehaving.py" in traceback
    assert traceback.endswith("ValueError: wrong basis\n")


def test_numpy_numbers_and_arrays_become_numbers_and_lists(engine: Engine) -> None:
    assert result_of(run(engine, "numpy_result")) == {
        "array": [[0, 1], [2, 3]],
        "scalars": [0.5, 7, True],
    }


@pytest.mark.parametrize("function", ["say_in_c", "say_in_child"])
def test_output_is_caught_also_from_c_and_from_children(engine: Engine, function: str) -> None:
    report = run(engine, function, text="from below")
    assert report["stdout"] == "from below\n"
    assert "stderr" not in report


def test_each_task_has_its_own_output(engine: Engine) -> None:
    reports = [engine.submit(Task(f"{TASKS}:say", {"stdout": f"{n}\n"})) for n in range(20)]
    assert [report_of(future)["stdout"] for future in reports] == [f"{n}\n" for n in range(20)]
    report = run(engine, "say", stderr="é\0")
    assert report["stderr"] == "é\N{REPLACEMENT CHARACTER}"


def test_long_output_is_abridged(engine: Engine) -> None:
    stdout = run(engine, "chatter", n_bytes=50_000)["stdout"]
    assert stdout.startswith("BEGIN")
    assert stdout.endswith("END")
    assert "bytes left out" in stdout
    assert len(stdout) < 1100


def test_a_task_that_closes_its_output_spoils_no_other(engine: Engine) -> None:
    for _ in range(2 * engine.n_slots):
        run(engine, "close_stdout")
    assert run(engine, "say", stdout="still here")["stdout"] == "still here"


def test_what_has_not_begun_can_be_cancelled(engine: Engine, tmp_path: Path) -> None:
    # An executor may keep one or two more tasks ready for its workers than run.
    names = [str(number) for number in range(8)]
    futures = [
        engine.submit(Task(f"{TASKS}:meet", {"folder": str(tmp_path), "name": name}))
        for name in names
    ]
    eventually(lambda: len(list(tmp_path.glob("begun-?"))) == 2)
    assert engine.cancel(futures[-1])
    assert not engine.cancel(futures[0])
    for name in names:
        (tmp_path / f"end-{name}").touch()
    assert [result_of(report_of(future)) for future in futures[:-1]] == ["met"] * 7
    with pytest.raises(CancelledError):
        futures[-1].result(TIMEOUT_S)
    assert not (tmp_path / "begun-7").exists()


def test_fifty_tasks_at_once_all_come_back_with_their_own_results_output_and_errors(
    engine: Engine,
) -> None:
    tasks: dict[str, Callable[[int], dict[str, Any]]] = {
        "echo": lambda n: {"n": n},
        "say": lambda n: {"stdout": f"{n}\n"},
        "fail": lambda n: {"message": f"wrong {n}"},
    }
    asked = [(name, n) for n in range(17) for name in tasks][:50]
    futures = [engine.submit(Task(f"{TASKS}:{name}", tasks[name](n))) for name, n in asked]
    for (name, n), report in zip(asked, map(report_of, futures), strict=True):
        match name:
            case "echo":
                assert result_of(report) == {"n": n}
            case "say":
                assert report["stdout"] == f"{n}\n"
            case _:
                assert report["error_message"] == f"wrong {n}"


def test_a_worker_that_is_killed_costs_its_own_task_only(engine: Engine, tmp_path: Path) -> None:
    victim, other = meetings(engine, tmp_path, "victim", "other")
    behind = [engine.submit(Task(f"{TASKS}:echo", {"n": n})) for n in range(10)]
    pid = int(text_of(tmp_path / "begun-victim"))
    eventually((tmp_path / "begun-other").exists)
    os.kill(pid, signal.SIGKILL)
    report = report_of(victim)
    assert report["error_type"] == "WorkerDied"
    assert "result" not in report
    (tmp_path / "end-other").touch()
    assert result_of(report_of(other)) == "met"
    assert [result_of(report_of(future)) for future in behind] == [{"n": n} for n in range(10)]


def test_a_task_that_kills_its_worker_is_run_once_and_its_output_is_kept(
    engine: Engine, tmp_path: Path
) -> None:
    # One after the other: a task that runs beside a deadly one may be begun again, in a pool.
    for name in "ab":
        report = report_of(
            engine.submit(Task(f"{TASKS}:count_and_die", {"path": str(tmp_path / name)}))
        )
        assert report["error_type"] == "WorkerDied"
        assert report["stdout"] == "last words\n"
        assert (tmp_path / name).read_text() == "run\n"
    assert result_of(run(engine, "echo", x=1)) == {"x": 1}


def test_cancelling_a_running_task_kills_its_worker_or_lets_it_go_on(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (running,) = meetings(engine, tmp_path, "running")
    pid = int(text_of(tmp_path / "begun-running"))
    assert not engine.cancel(running)
    if POOL in request.node.name:
        # Killing one of its workers would end the tasks of all the others.
        assert not engine.kill(running)
        (tmp_path / "end-running").touch()
        assert result_of(report_of(running)) == "met"
    else:
        assert engine.kill(running)
        with pytest.raises(CancelledError):
            running.result(TIMEOUT_S)
        assert is_gone(pid)
    assert not engine.kill(running)
    assert result_of(run(engine, "echo", x=1)) == {"x": 1}


def test_workers_have_no_token(engine: Engine) -> None:
    os.environ["RECORDLEDGER_TOKEN"] = "secret"  # noqa: S105
    try:
        assert result_of(run(engine, "process"))["token"] is None
    finally:
        del os.environ["RECORDLEDGER_TOKEN"]


# Executors that nothing is known of


def test_what_an_unknown_executor_loses_counts_as_begun() -> None:
    engine = given_executor()
    try:
        assert result_of(run(engine, "echo", x=1)) == {"x": 1}
        report = run(engine, "die")
        assert report["error_type"] == "WorkerDied"
        assert "BrokenProcessPool" in report["error_message"]
        with pytest.raises(EngineFailed, match="loses tasks"):
            run(engine, "echo")
    finally:
        engine.shutdown()


def test_a_task_is_run_once_even_if_its_executor_runs_it_twice(tmp_path: Path) -> None:
    class Twice(GivenExecutor):
        is_ours = True

        def submit(self, function: Errand, request: bytes) -> Future[bytes]:
            super().submit(function, request).result()
            return super().submit(function, request)

    cluster = Twice(ThreadPoolExecutor(1), 1)
    engine = ExecutorEngine(cluster, SETTINGS)
    try:
        report = run(engine, "append", path=str(tmp_path / "runs"))
        assert report["error_type"] == "WorkerDied"
        assert "a second time" in report["error_message"]
        assert (tmp_path / "runs").read_text() == "run\n"
    finally:
        engine.shutdown()


def test_tasks_that_an_executor_loses_before_they_begin_are_handed_to_it_again() -> None:
    class Careless(GivenExecutor):
        is_ours = True
        n_lost = 0

        def submit(self, function: Errand, request: bytes) -> Future[bytes]:
            if b"echo" in request and self.n_lost < 3:
                self.n_lost += 1
                raise RuntimeError("mislaid")
            return super().submit(function, request)

    cluster = Careless(ThreadPoolExecutor(1), 1)
    engine = ExecutorEngine(cluster, SETTINGS)
    try:
        assert result_of(run(engine, "echo", x=1)) == {"x": 1}
        assert cluster.n_lost == 3
        cluster.n_lost = -100
        with pytest.raises(EngineFailed, match=r"loses tasks before they start: .*mislaid"):
            run(engine, "echo", x=1)
    finally:
        engine.shutdown()


@pytest.mark.parametrize("part", ["check", "submit"])
def test_an_executor_that_hangs_fails_the_engine_in_time(part: str) -> None:
    class Hanging(GivenExecutor):
        hangs = threading.Event()

        def check(self) -> str | None:
            if part == "check" and self.hangs.is_set():
                threading.Event().wait()
            return None

        def submit(self, function: Errand, request: bytes) -> Future[bytes]:
            if part == "submit" and self.hangs.is_set():
                threading.Event().wait()
            return super().submit(function, request)

    cluster = Hanging(ThreadPoolExecutor(1), 1)
    engine = ExecutorEngine(cluster, SETTINGS, silence_s_max=3.0)
    try:
        assert result_of(run(engine, "echo", x=1)) == {"x": 1}
        cluster.hangs.set()
        if part == "submit":
            with pytest.raises(EngineFailed, match="no heartbeat from the executor"):
                run(engine, "echo", x=1)
        eventually(lambda: engine.failure is not None)
        with pytest.raises(EngineFailed):
            run(engine, "echo", x=1)
    finally:
        engine.shutdown()


def test_workers_that_do_not_see_the_shared_folder_fail_the_engine(tmp_path: Path) -> None:
    engine = ExecutorEngine(
        GivenExecutor(ThreadPoolExecutor(1), 1), SETTINGS, shared_folder=tmp_path
    )
    try:
        assert result_of(run(engine, "echo", x=1)) == {"x": 1}
        (folder,) = tmp_path.iterdir()
        folder.rename(tmp_path / "gone")
        with pytest.raises(EngineFailed, match=r"cannot go on|does not see"):
            run(engine, "echo", x=1)
    finally:
        engine.shutdown()


# Which engine


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        (
            "slurm",
            {},
            "no engine 'slurm'; the engines are processes, pool, dask, parsl, ipyparallel",
        ),
        (PROCESSES, {"address": "tcp://head:1"}, "runs on this machine"),
        (POOL, {"shared_folder": Path("shared")}, "runs on this machine"),
    ],
)
def test_an_engine_that_does_not_exist_is_refused(
    engine: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineUnavailable, match=message):
        engine_starter(engine, **options)


@pytest.mark.parametrize(
    ("engine", "module"),
    [("dask", "distributed"), ("parsl", "parsl"), ("ipyparallel", "ipyparallel")],
)
def test_a_library_that_is_missing_is_named_with_what_to_install(
    engine: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"recordledger.workers.engines.{engine}_cluster", False)
    with pytest.raises(EngineUnavailable, match=rf"pip install 'recordledger\[{engine}\]'"):
        engine_starter(engine)


def test_engines_are_imported_only_when_they_are_wanted() -> None:
    program = "import sys, recordledger.workers.manager.main; print(*sys.modules)"
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"dask", "distributed", "parsl", "ipyparallel"} & set(found.stdout.split())


# What only processes of one's own can do


@pytest.mark.parametrize(
    ("function", "kwargs", "cause"),
    [
        ("die", {"code": 17}, "exit code 17"),
        ("die", {"code": 0}, "exit code 0"),
        (
            "kill_self",
            {"number": signal.SIGKILL},
            "signal 9 (SIGKILL); the kernel may have killed it",
        ),
        ("kill_self", {"number": signal.SIGTERM}, "signal 15 (SIGTERM)"),
        ("segfault", {}, "signal 11 (SIGSEGV)"),
    ],
)
def test_a_dead_worker_is_the_error_of_exactly_the_task_it_ran(
    processes: ProcessEngine, function: str, kwargs: dict[str, Any], cause: str
) -> None:
    before = [processes.submit(Task(f"{TASKS}:echo", {"n": n})) for n in range(5)]
    deadly = processes.submit(Task(f"{TASKS}:{function}", kwargs))
    after = [processes.submit(Task(f"{TASKS}:echo", {"n": n})) for n in range(20)]
    report = report_of(deadly)
    assert report["error_type"] == "WorkerDied"
    assert cause in report["error_message"]
    assert [result_of(report_of(future)) for future in before + after] == [
        {"n": n} for n in [*range(5), *range(20)]
    ]


def test_what_a_dead_task_had_printed_is_kept(processes: ProcessEngine) -> None:
    assert run(processes, "die")["stdout"] == "last words\n"
    assert run(processes, "kill_self", number=signal.SIGKILL)["stderr"] == "on stderr\n"


def test_a_worker_that_dies_between_two_tasks_is_no_fault_of_the_next() -> None:
    engine = ProcessEngine(1, SETTINGS)
    try:
        pid = result_of(run(engine, "die_later"))
        eventually(lambda: not psutil.pid_exists(pid))
        assert result_of(run(engine, "process"))["pid"] != pid
    finally:
        engine.shutdown()


def test_a_task_that_closes_the_channel_is_found_out(
    processes: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recordledger.workers.engines.process.DEATH_S_MAX", 0.2)
    report = run(processes, "close_channel")
    assert report["error_type"] == "WorkerDied"
    assert result_of(run(processes, "echo", x=1)) == {"x": 1}


def test_children_that_outlive_their_worker_do_not_hold_up_its_slot(
    processes: ProcessEngine, tmp_path: Path
) -> None:
    report = run(processes, "leave_child_behind", folder=str(tmp_path))
    assert "exit code 1" in report["error_message"]
    child = int((tmp_path / "child").read_text())
    eventually(lambda: is_gone(child))


def test_a_running_task_can_be_killed(processes: ProcessEngine, tmp_path: Path) -> None:
    future = processes.submit(Task(f"{TASKS}:meet", {"folder": str(tmp_path)}))
    pid = int(text_of(tmp_path / "begun-1"))
    assert not processes.kill(Future())
    assert processes.kill(future)
    with pytest.raises(CancelledError):
        future.result(TIMEOUT_S)
    assert is_gone(pid)
    assert result_of(run(processes, "echo", x=1)) == {"x": 1}


def test_a_task_that_prints_without_end_does_not_fill_the_disk(
    processes: ProcessEngine,
) -> None:
    report = run(processes, "chatter_slowly", n_mebibytes=40)
    assert result_of(report) < 30 * 1024 * 1024
    stdout = report["stdout"]
    assert stdout.startswith("BEGIN\ny")
    assert stdout.endswith("yEND\n")


def test_tasks_have_their_share_of_threads_no_input_and_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECORDLEDGER_TOKEN", "secret")
    engine = ProcessEngine(1, SETTINGS, threads_per_worker=3, tasks_per_worker_max=2)
    try:
        found = [result_of(run(engine, "process")) for _ in range(4)]
    finally:
        engine.shutdown()
    assert {(f["threads"], f["token"], f["stdin"]) for f in found} == {("3", None, "")}
    pids = [f["pid"] for f in found]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_there_are_as_many_processes_as_there_is_to_do_between_bounds(tmp_path: Path) -> None:
    engine = ProcessEngine(3, SETTINGS, n_slots_min=1, idle_s=0.2)
    try:
        assert (engine.n_processes, engine.n_slots) == (1, 3)
        names = [str(number) for number in range(4)]
        running = meetings(engine, tmp_path, *names)
        pids = {int(text_of(tmp_path / f"begun-{name}")) for name in names[:3]}
        assert len(pids) == engine.n_processes == 3
        for name in names:
            (tmp_path / f"end-{name}").touch()
        for future in running:
            future.result(TIMEOUT_S)
        eventually(lambda: engine.n_processes == 1)
        eventually(lambda: sum(map(is_gone, pids)) == 2)
        # It grows again.
        meetings(engine, tmp_path, "again", "and again")
        text_of(tmp_path / "begun-again")
        text_of(tmp_path / "begun-and again")
    finally:
        engine.shutdown()


def test_an_engine_may_have_no_process_while_there_is_nothing_to_do() -> None:
    engine = ProcessEngine(2, SETTINGS, n_slots_min=0, idle_s=0.1)
    try:
        for x in range(3):
            assert result_of(run(engine, "echo", x=x)) == {"x": x}
            eventually(lambda: engine.n_processes == 0)
    finally:
        engine.shutdown()


def test_shutting_down_ends_what_runs_and_leaves_nothing(tmp_path: Path) -> None:
    engine = ProcessEngine(1, SETTINGS)
    running = engine.submit(Task(f"{TASKS}:meet", {"folder": str(tmp_path)}))
    waiting = engine.submit(Task(f"{TASKS}:echo", {}))
    pid = int(text_of(tmp_path / "begun-1"))
    engine.shutdown()
    assert is_gone(pid)
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result(0)


def test_somebody_may_clear_up_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = ProcessEngine(1, SETTINGS)
    try:
        assert result_of(run(engine, "echo", x=1)) == {"x": 1}
        (folder,) = tmp_path.iterdir()
        shutil.rmtree(folder)
        assert run(engine, "die")["error_type"] == "WorkerDied"
        assert run(engine, "say", stdout="as before")["stdout"] == "as before"
    finally:
        engine.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_an_engine_whose_workers_do_not_start_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("recordledger.workers.engines.process.PROGRAM", "recordledger.nowhere")
    engine = ProcessEngine(1, SETTINGS)
    try:
        with pytest.raises(EngineFailed, match=r"do not start: exit code 1; to see the error, run"):
            run(engine, "echo")
        with pytest.raises(EngineFailed):
            run(engine, "echo")
    finally:
        engine.shutdown()


def meetings(engine: Engine, folder: Path, *names: str) -> list[Future[Report]]:
    return [
        engine.submit(Task(f"{TASKS}:meet", {"folder": str(folder), "name": name}))
        for name in names
    ]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def text_of(path: Path) -> str:
    eventually(path.exists)
    return path.read_text()
