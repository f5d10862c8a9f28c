"""The watch over the rules notices what is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from .domain_coverage import DOMAIN, ROOT, wanted

# A process of its own: coverage has to begin before the first import of what it watches.
PROGRAM: Final = """
import json, sys
from pathlib import Path
from tests.domain_coverage import Watch, missing

watch = Watch(Path(sys.argv[1]), "alone")
with watch.watching():
    from recordledger.domain.streams import Stream
watch.pytest_sessionfinish()
print(json.dumps(missing(Path(sys.argv[1]))))
"""


def test_what_no_test_executes_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    lines = json.loads(ran.stdout)
    named = {line.partition(":")[0] for line in lines}
    assert not [line for line in lines if line.endswith("not imported")]
    assert {"domain/records/record.py", "domain/records/propagation.py"} <= named
    assert named <= {path.relative_to(ROOT).as_posix() for path in DOMAIN.rglob("*.py")}


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        ("tests", True),
        ("tests/domain", True),
        ("tests/domain/records", False),
        ("tests/projections", False),
        ("tests -k claim", False),
        ("tests --deselect=tests/domain/test_errors.py", False),
        ("tests --maxfail=1", False),
    ],
)
def test_only_a_run_of_the_whole_folder_is_judged(
    arguments: str, whole: bool, pytestconfig: pytest.Config
) -> None:
    config = type(pytestconfig).fromdictargs({}, arguments.split())
    assert wanted(config) is whole
