"""The mutants of functions: made and tested by mutmut, read back as what each of them changes."""

from __future__ import annotations

import ast
import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

KILLED: Final = frozenset({"killed", "timeout", "segfault"})
_RESULT: Final = re.compile(
    r"^\s*recordledger\.(\S+)\.(x[_\u01c1]\S+)__mutmut_(\d+): (.+?)\s*$", re.MULTILINE
)


class Mutant(NamedTuple):
    """A small change of one function or table, and whether a test noticed it.

    Attributes:
        module: path from the root, as `domain/records/record.py`.
        function: name, with its class's (`Retry.pause`).
        change: what is otherwise, as text that does not depend on lines or formatting.
        is_killed: whether a test failed.
    """

    module: str
    function: str
    change: str
    is_killed: bool


def run(tree: Path, jobs: int) -> list[Mutant]:
    """Let mutmut make all mutants and test them, and return them.

    Raises:
        subprocess.CalledProcessError: a test fails without any mutant, or mutmut did.
    """
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(jobs)]
    # A terminal shows the progress; a log need not hold it, only what went wrong.
    if sys.stdout.isatty():
        subprocess.run(command, cwd=tree, check=True)  # noqa: S603
    else:
        ran = subprocess.run(  # noqa: S603
            command, cwd=tree, check=False, capture_output=True, text=True
        )
        if ran.returncode:
            print(ran.stdout[-5000:].replace("\r", "\n"), ran.stderr[-5000:])
            ran.check_returncode()
    listed = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=tree,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    return list(_read(tree, listed.stdout))


def _read(tree: Path, results: str) -> Iterator[Mutant]:
    for name, mangled, number, verdict in _RESULT.findall(results):
        module = name.replace(".", "/") + ".py"
        functions = _functions(tree / "mutants" / "recordledger" / module)
        change = _change(
            functions[f"{mangled}__mutmut_orig"], functions[f"{mangled}__mutmut_{number}"]
        )
        function = mangled.removeprefix("x_").removeprefix("x\u01c1").replace("\u01c1", ".")
        yield Mutant(module, function, change, verdict in KILLED)


@cache
def _functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _change(original: ast.FunctionDef, mutated: ast.FunctionDef) -> str:
    """Return what is otherwise in a mutant, whatever the two functions are called."""
    old, new = (
        ast.unparse(node).replace(node.name, "", 1).splitlines() for node in (original, mutated)
    )
    return changed(old, new)


def changed(old: list[str], new: list[str]) -> str:
    """Return how texts differ, by line.

    >>> changed(["a = 1", "return a"], ["a = 2", "return a"])
    '`a = 1` -> `a = 2`'
    """
    differing = list(difflib.ndiff(old, new))
    removed = " ".join(line[2:].strip() for line in differing if line.startswith("- "))
    added = " ".join(line[2:].strip() for line in differing if line.startswith("+ "))
    return f"`{removed}` -> `{added}`" if added else f"without `{removed}`"
