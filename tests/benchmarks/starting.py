"""What it costs to start the command line: `recordledger --help` and `recordledger status`.

`status` asks a server that is started for it. What is measured is the time of all imports, by
`-X importtime`, which is right on an idle machine only, and the processor time of the whole
process. To compare two versions, give the interpreter of another one:

    python -m tests.benchmarks.starting --against ../before/.venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import issue_token
from recordledger.projections.tables.schema import migrate
from tests.api.service import serving
from tests.postgres import new_database, running_server

COMMANDS: Final = ("--help", "status")


class Start(NamedTuple):
    """One start: milliseconds of its imports, and of all of it; the modules that it imported."""

    imports_ms: float
    process_ms: float
    n_modules: int


def start(python: str, command: str, environment: Mapping[str, str], folder: str) -> Start:
    """Start a command twice: as it is, and with its imports timed."""
    before = _children_ms()
    _run([python], command, environment, folder)
    took_ms = _children_ms() - before
    report = _run([python, "-X", "importtime"], command, environment, folder)
    found = [int(us) for us in re.findall(r"^import time: +(\d+) \|", report, re.MULTILINE)]
    return Start(sum(found) / 1000, took_ms, len(found))


def _run(python: Sequence[str], command: str, environment: Mapping[str, str], folder: str) -> str:
    """Run a command; return what it writes to stderr."""
    return subprocess.run(  # noqa: S603
        [*python, "-m", "recordledger.workers.cli", command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def _children_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (used.ru_utime + used.ru_stime)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", metavar="PYTHON", help="interpreter of another version")
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    pythons = {"this": sys.executable} | ({"other": given.against} if given.against else {})
    with (
        running_server() as server,
        new_database(server) as url,
        tempfile.TemporaryDirectory(prefix="recordledger-bench-") as folder,
    ):
        migrate(url)
        with serving(url) as service:
            token = issue_token(service.ledger, "ann", Role.admin).secret
            environment = os.environ | {
                "RECORDLEDGER_URL": service.url,
                "RECORDLEDGER_TOKEN": token,
            }
            for command in COMMANDS:
                found: dict[str, list[Start]] = {name: [] for name in pythons}
                for _ in range(given.runs):
                    for name, python in pythons.items():
                        found[name].append(start(python, command, environment, folder))
                for name, starts in found.items():
                    _report(f"{command} ({name})", starts)


def _report(what: str, starts: list[Start]) -> None:
    imports = [each.imports_ms for each in starts]
    process = [each.process_ms for each in starts]
    print(
        f"{what:>16}: imports {min(imports):.0f} ms at the least, {median(imports):.0f} median; "
        f"process {min(process):.0f}, {median(process):.0f}; {starts[0].n_modules} modules"
    )


if __name__ == "__main__":
    main()
