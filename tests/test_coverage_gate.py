"""The rules are tested whole: every line and every branch of `domain` runs in `tests/domain`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

# A process of its own: coverage has to begin before the first import of what it watches. It sees
# no fixture from above its folder, so it also proves that the rules are tested without a database.
COMMAND: Final = (
    *(sys.executable, "-m", "pytest", "tests/domain", "-q", "-p", "no:cacheprovider"),
    *("--confcutdir=tests/domain", "--hypothesis-profile=quick"),
    # It shows nothing here that others do not, and takes as long as all of them.
    "--deselect=tests/domain/records/test_propagation.py::test_a_hundred_thousand_children_take_a_moment",
    *("--cov=recordledger.domain", "--cov-branch", "--cov-fail-under=100"),
    "--cov-report=term-missing",
)


def test_every_branch_of_the_domain_is_tested_by_its_own_tests(tmp_path: Path) -> None:
    # Neither a coverage run around this one nor xdist may reach into it.
    ours = ("COV_", "COVERAGE_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["COVERAGE_FILE"] = str(tmp_path / "coverage")
    ran = subprocess.run(  # noqa: S603
        COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert "Total coverage: 100.00%" in ran.stdout
    measured = set(re.findall(r"^(\S+\.py) .* 100%$", ran.stdout, flags=re.MULTILINE))
    assert measured == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "domain").rglob("*.py")
    }
