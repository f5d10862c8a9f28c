"""`make mutate`: change the code in every small way, and list the changes that no test noticed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tests.postgres import URL_VARIABLE, running_server

from . import mutants, survivors, tree
from .mutants import Mutant
from .survivors import Survivor
from .tables import TABLES

ROOT: Final = Path(__file__).resolve().parent.parent.parent
KILLED_MIN: Final = 0.9


class Target(NamedTuple):
    """Modules that are mutated together, and the tests that may kill their mutants."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    has_database: bool


_ACTIONS: Final = "tests/projections/actions"
_TABLES: Final = "tests/projections/tables"
TARGETS: Final[Mapping[str, Target]] = {
    "rules": Target(
        modules=(
            "domain/records/transitions.py",
            "domain/records/record.py",
            "domain/records/attempts.py",
            "domain/records/actions.py",
            "domain/records/propagation.py",
            "domain/records/retries.py",
            "domain/routing/lanes.py",
            "domain/routing/matching.py",
            "domain/routing/breaker.py",
            "domain/routing/manager.py",
            "domain/specs/fingerprint.py",
            "domain/specs/references.py",
            "domain/specs/service.py",
            "domain/specs/service_rules.py",
        ),
        # A mutant stands beside its function with the same docstring: no example could tell them.
        tests=("tests/domain", "--ignore=tests/domain/test_doctests.py"),
        has_database=False,
    ),
    "write-path": Target(
        modules=(
            "projections/ledger.py",
            "projections/actions/managing.py",
            "projections/actions/submission.py",
            "projections/actions/operations.py",
            "projections/actions/bulk.py",
            "projections/tables/records.py",
            "projections/tables/claim_queue.py",
            "projections/tables/status_counts.py",
        ),
        tests=(
            f"{_ACTIONS}/test_breaker.py",
            f"{_ACTIONS}/test_bulk.py",
            f"{_ACTIONS}/test_claims.py",
            f"{_ACTIONS}/test_leases.py",
            f"{_ACTIONS}/test_operations.py",
            f"{_ACTIONS}/test_retries.py",
            f"{_ACTIONS}/test_returns.py",
            f"{_ACTIONS}/test_submission.py",
            f"{_TABLES}/test_families.py",
            f"{_TABLES}/test_idempotency.py",
        ),
        has_database=True,
    ),
}

# What must not go wrong: here each survivor is listed with why. Elsewhere the rate is enough.
THEMES: Final[Mapping[str, Sequence[str]]] = {
    "status": ("domain/records/transitions.py",),
    "record": ("domain/records/record.py",),
    "leases": ("domain/records/attempts.py", "projections/actions/managing.py"),
    "lanes": ("domain/routing/lanes.py", "domain/routing/matching.py"),
    "propagation": ("domain/records/propagation.py", "domain/records/actions.py"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the mutants, print the figures and the faults, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        default=["rules"],
        help=f"{' or '.join(TARGETS)}, or modules of one of them (domain/records/record.py)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many mutants at a time")
    options = parser.parse_args(arguments)
    target = chosen(options.what)
    if target is None:
        parser.error(f"{' '.join(options.what)} is neither a target nor modules of one")
    found = tested(target, options.jobs)
    print(report(found))
    faults = list(faults_of(found, survivors.parse(survivors.PAGE.read_text("utf-8"))))
    print("\n\n".join(faults))
    return 1 if faults else 0


def chosen(what: Sequence[str]) -> Target | None:
    """Return the target of this name, or the one with these modules and no others."""
    for name, target in TARGETS.items():
        if list(what) == [name]:
            return target
        if set(what) <= set(target.modules):
            return target._replace(modules=tuple(what))
    return None


def tested(target: Target, jobs: int) -> list[Mutant]:
    """Return the mutants of a target's functions and tables, and whether they were killed."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recordledger-")))
        if target.has_database:
            # One server for all: each mutant has databases of its own there.
            os.environ[URL_VARIABLE] = stack.enter_context(running_server())
        tree.make(ROOT, home / "tree", target.modules, target.tests)
        return [*mutants.run(home / "tree", jobs), *_of_tables(target.modules, jobs)]


def _of_tables(modules: Sequence[str], jobs: int) -> Iterator[Mutant]:
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(_of_module, [name for name in TABLES if name in modules]):
            yield from found


def _of_module(module: str) -> list[Mutant]:
    command = [sys.executable, "-m", "tests.mutation.tables", module]
    ran = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return [Mutant(*json.loads(line)) for line in ran.stdout.splitlines()]


def report(found: Sequence[Mutant]) -> str:
    """Return how many mutants were killed, by module and by theme."""
    by_module = {name: [each for each in found if each.module == name] for name in _modules(found)}
    by_theme = {theme: _of_theme(found, theme) for theme in THEMES}
    lines = [f"{'':32} mutants  killed"]
    for name, some in [*by_module.items(), *by_theme.items()]:
        if some:
            lines.append(f"{name:32} {len(some):7,}  {_rate(some):5.1%}")
    return "\n".join(lines)


def faults_of(found: Sequence[Mutant], listed: Sequence[Survivor]) -> Iterator[str]:
    """Yield what is wrong: too few were killed, or one lives in a theme and is not listed."""
    themes = {f"theme {theme}": _of_theme(found, theme) for theme in THEMES}
    modules = {name: [each for each in found if each.module == name] for name in _modules(found)}
    for name, some in (themes | modules).items():
        if some and _rate(some) < KILLED_MIN:
            yield f"{name}: {_rate(some):.1%} of the mutants are killed; {KILLED_MIN:.0%} must be"
    known = {each.key for each in listed}
    alive = {survivors.of(each) for each in found if not each.is_killed}
    in_themes = {name for some in THEMES.values() for name in some}
    if new := [each for each in alive if each.module in in_themes and each.key not in known]:
        yield (
            "no test notices these changes; write one that does, or say in "
            f"tests/mutation/survivors.md why none can:\n{survivors.text_of(new)}"
        )
    living = {each.key for each in alive}
    gone = [each for each in listed if each.module in modules and each.key not in living]
    if gone:
        yield f"listed in survivors.md and killed, or not there:\n{survivors.text_of(gone)}"


def _modules(found: Iterable[Mutant]) -> list[str]:
    return list(dict.fromkeys(each.module for each in found))


def _of_theme(found: Iterable[Mutant], theme: str) -> list[Mutant]:
    return [each for each in found if each.module in THEMES[theme]]


def _rate(some: Sequence[Mutant]) -> float:
    return sum(each.is_killed for each in some) / len(some)


if __name__ == "__main__":
    sys.exit(main())
