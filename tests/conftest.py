"""Fixtures for tests that need PostgreSQL: a real one, started at the first use."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from . import domain_coverage
from .sizes import PROFILE

DURATIONS: Final = ".test-durations.json"
# The rules first, since all else breaks with them. Then what waits for other processes, and last
# what is quick, so that all processes of the tests end at about the same time.
ORDER: Final = ("domain", "acceptance", "workers", "projections", "api", "mutation")

settings.load_profile(PROFILE)
# Each process of the tests has a processor: threads that wait for one another in libraries of
# linear algebra would take most of the others' time. Before anything imports one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the rules from their first import on; so nothing above may import them."""
    # A shell that starts tests in the background lets them ignore interrupts, and all that they
    # start would ignore them too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    domain_coverage.pytest_configure(config)
    if not hasattr(config, "workerinput") and not config.getoption("collectonly"):
        config.pluginmanager.register(Durations(config.rootpath / DURATIONS), "durations")


class Durations:
    """How long each test took, in seconds, kept as JSON: by test, then by phase."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of_tests: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._ends: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of a test."""
        self._of_tests[report.nodeid][report.when] = round(report.duration, 3)
        self._ends[getattr(report, "worker_id", "alone")] = report.stop

    def pytest_sessionfinish(self) -> None:
        """Write what was noted, the slowest test first."""
        slowest = sorted(self._of_tests.items(), key=lambda item: -sum(item[1].values()))
        self._path.write_text(json.dumps(dict(slowest), indent=1) + "\n", "utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show how long the processes had nothing to do in the end."""
        if len(self._ends) > 1:
            last = max(self._ends.values())
            idle = (f"{name} {last - end:.0f} s" for name, end in sorted(self._ends.items()))
            terminalreporter.write_line(f"idle before the end: {', '.join(idle)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put folders in the order that keeps all processes busy."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0] if tests in item.path.parents else ""
        return ORDER.index(folder) if folder in ORDER else ORDER.index("projections")

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Look no more for garbage among thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """The URL of a server on which databases may be created."""
    from .postgres import running_server

    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server_url: str) -> Iterator[str]:
    """The name of a database with the ledger's schema and no rows, to copy from."""
    from recordledger.projections.tables.schema import migrate

    from .postgres import new_template

    with new_template(postgres_server_url, migrate) as name:
        yield name


@pytest.fixture
def database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a database of this test's own, with the ledger's schema and no rows."""
    from .postgres import new_database

    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of a database of this test's own, without the ledger's schema."""
    from .postgres import new_database

    with new_database(postgres_server_url) as url:
        yield url
