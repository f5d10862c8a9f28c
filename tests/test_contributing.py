"""Each diff in CONTRIBUTING.md is small, and its proof passes on a copy to which it is applied."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.postgres import URL_VARIABLE
from tests.test_tidy import tracked

ROOT: Final = Path(__file__).resolve().parent.parent
PROOFS: Final = Path("tests/contributing")
COMPILED: Final = f"*.{sys.implementation.cache_tag}*.pyc"

# The word after "A" or "An" in the heading is the name of the proof.
SECTION: Final = re.compile(r"^### An? (\w+)[^#]*?^```diff\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """What a diff may take, and what its proof lacks without it.

    Attributes:
        files_max: in how many files it may change something.
        places_max: at how many places of them.
        missing: what the proof's failure says without the diff.
    """

    files_max: int
    places_max: int
    missing: str


EXAMPLES: Final = {
    "event": Example(4, 5, "cannot import name 'PutAside'"),
    "action": Example(4, 6, "cannot import name 'Approved'"),
    "filter": Example(2, 3, "KeyError: 'kind'"),
    "table": Example(3, 4, 'relation "lost_attempts" does not exist'),
}


def diffs() -> dict[str, str]:
    """Return the diffs of CONTRIBUTING.md by the names of their proofs."""
    return dict(SECTION.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")))


def copy_tree(target: Path) -> Path:
    """Copy what is tracked, with its links into the layers, and what Python compiled of it."""
    folders: set[Path] = set()
    for path in tracked():
        to = target / path
        if to.parent not in folders:
            folders.add(to.parent)
            to.parent.mkdir(parents=True, exist_ok=True)
            # Valid in the copy too, since times are kept; compiling all anew takes seconds.
            for compiled in (ROOT / path.parent / "__pycache__").glob(COMPILED):
                (to.parent / "__pycache__").mkdir(exist_ok=True)
                shutil.copy2(compiled, to.parent / "__pycache__")
        shutil.copy2(ROOT / path, to, follow_symlinks=False)
    return target


def apply(diff: str, tree: Path) -> None:
    """Apply a diff as a reader would."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git, which applies the diffs, is not installed")
    # Not in a repository around it, whose paths would be others.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    applied = subprocess.run(  # noqa: S603
        [git, "apply", "-"],
        cwd=tree,
        env=environment,
        input=diff,
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr


def prove(names: list[str], tree: Path, server_url: str) -> subprocess.CompletedProcess[str]:
    """Run proofs with the code of a tree, on the server that is running already."""
    # Neither a coverage run around this one nor xdist may reach into it.
    ours = ("COV_", "COVERAGE_", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PYTHONPATH": str(tree), URL_VARIABLE: server_url}
    options = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options, *(f"{PROOFS}/{name}.py" for name in names)],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_diff_has_a_proof_and_every_proof_a_diff() -> None:
    proofs = {path.stem for path in (ROOT / PROOFS).glob("*.py")} - {"__init__", "conftest"}
    assert set(diffs()) == proofs == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_new_thing_is_declared_in_few_places(name: str) -> None:
    diff = diffs()[name]
    files = re.findall(r"^diff --git ", diff, flags=re.MULTILINE)
    places = re.findall(r"^@@ ", diff, flags=re.MULTILINE)
    assert len(files) <= EXAMPLES[name].files_max
    assert len(places) <= EXAMPLES[name].places_max


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_new_thing_works_where_its_diff_is_applied(
    name: str, tmp_path: Path, postgres_server_url: str
) -> None:
    tree = copy_tree(tmp_path / "copy")
    apply(diffs()[name], tree)
    proved = prove([name], tree, postgres_server_url)
    assert proved.returncode == 0, proved.stdout[-5000:] + proved.stderr[-2000:]
    assert "1 passed" in proved.stdout


def test_no_proof_passes_without_its_diff(postgres_server_url: str) -> None:
    ran = prove(list(EXAMPLES), ROOT, postgres_server_url)
    assert "passed" not in ran.stdout
    for name, example in EXAMPLES.items():
        assert re.search(rf"^(FAILED|ERROR) {PROOFS}/{name}\.py", ran.stdout, re.MULTILINE)
        assert example.missing in ran.stdout, ran.stdout[-5000:] + ran.stderr[-2000:]
