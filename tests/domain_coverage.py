"""The rules are tested whole: every line and every branch of `domain` runs in `tests/domain`.

A plugin that `tests/conftest.py` registers. In a run of all tests of that folder, each process
watches what these tests, and nothing else, execute of `domain`; at the end the run fails, with the
lines that are missing, unless that was everything.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, Final

import pytest
from coverage import Coverage

ROOT: Final = Path(__file__).resolve().parent.parent
DOMAIN: Final = ROOT / "domain"
TESTS: Final = ROOT / "tests" / "domain"
PACKAGE: Final = "recordledger.domain"

# What pytest-xdist is given for its workers.
INPUT: Final = "domain_coverage"
# These choose tests, so that not all of the folder run; or watch by themselves.
_CHOOSING: Final = (
    *("keyword", "markexpr", "deselect", "collectonly", "lf", "failedfirst", "stepwise"),
    *("cov_source", "ignore", "ignore_glob", "maxfail"),
)


def wanted(config: pytest.Config) -> bool:
    """Return whether a run has all tests of the folder."""
    if any(config.getoption(name, None) for name in _CHOOSING):
        return False
    folders = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    return not folders.isdisjoint((ROOT, TESTS.parent, TESTS))


class Watch:
    """What one process executes of the domain while it collects and runs tests of the folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._coverage = Coverage(
            data_file=str(folder / name), branch=True, source_pkgs=[PACKAGE], config_file=False
        )
        with self.watching():
            package = import_module(PACKAGE)
            for module in walk_packages(package.__path__, f"{PACKAGE}."):
                import_module(module.name)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Watch until the end of the block."""
        self._coverage.start()
        try:
            yield
        finally:
            self._coverage.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Watch what modules of the folder do when they are imported."""
        if collector.path.is_relative_to(TESTS) and isinstance(collector, pytest.Module):
            with self.watching():
                return (yield)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Watch the tests of the folder, but for those that measure how long it takes."""
        if item.path.is_relative_to(TESTS) and item.get_closest_marker("timed") is None:
            with self.watching():
                return (yield)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Keep what was seen, for the judge."""
        self._coverage.save()


class Judge:
    """Adds up what all processes have seen."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="recordledger-coverage-"))
        self._lines: list[str] = []

    def pytest_configure_node(self, node: Any) -> None:
        """Let a worker of pytest-xdist watch."""
        node.workerinput[INPUT] = str(self.folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Fail the run if something of the domain was not executed."""
        result = yield
        try:
            if session.exitstatus == pytest.ExitCode.OK:
                self._lines = missing(self.folder)
                if self._lines:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED
        finally:
            shutil.rmtree(self.folder)
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was not executed."""
        if self._lines:
            terminalreporter.section("not executed by tests/domain", red=True)
            for line in self._lines:
                terminalreporter.write_line(line)


def missing(folder: Path) -> list[str]:
    """Return, file by file, the lines and branches of the domain that nobody has executed."""
    found = Coverage(
        data_file=str(folder / "all"), branch=True, source_pkgs=[PACKAGE], config_file=False
    )
    found.combine([str(path) for path in folder.iterdir()])
    report = folder / "report.json"
    found.json_report(outfile=str(report))
    files = {
        (ROOT / name).resolve(): measured
        for name, measured in json.loads(report.read_text("utf-8"))["files"].items()
    }
    lines: list[str] = []
    for path in sorted(DOMAIN.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if path not in files:
            lines.append(f"{name}: not imported")
            continue
        if of_lines := files[path]["missing_lines"]:
            lines.append(f"{name}: lines {', '.join(map(str, of_lines))}")
        if of_branches := files[path]["missing_branches"]:
            arcs = (f"{begin} to {end}" for begin, end in of_branches)
            lines.append(f"{name}: branches {', '.join(arcs)}")
    return lines


def pytest_configure(config: pytest.Config) -> None:
    """Watch, or judge, or both, as this process shall."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        if folder := worker.get(INPUT):
            watch = Watch(Path(folder), worker["workerid"])
            config.pluginmanager.register(watch, "domain-coverage-watch")
        return
    if not wanted(config):
        return
    judge = Judge()
    config.pluginmanager.register(judge, "domain-coverage-judge")
    if not config.getoption("numprocesses", None):
        config.pluginmanager.register(Watch(judge.folder, "alone"), "domain-coverage-watch")
