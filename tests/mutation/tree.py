"""The copy of the sources that mutmut works in: it follows no links and mutates plain functions."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PACKAGE: Final = "recordledger"
LAYERS: Final = ("domain", "projections", "api", "workers")
PYTEST: Final = (
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"),
    *("-p", "tests.mutation.profile", "--hypothesis-profile=mutation"),
)
# Without these nothing changes: a `case` that does nothing, and what type checkers prove dead.
EQUIVALENT: Final = (r"^\s*pass$", r"\bassert_never\(")
# How many times as long as without a mutant the tests may take: an endless loop ends by this.
SLOWER_MAX: Final = 5.0


def make(root: Path, tree: Path, mutated: Sequence[str], tests: Sequence[str]) -> None:
    """Make the tree anew, with the settings for mutmut in its pyproject.toml.

    Args:
        root: the repository.
        tree: where to; what is there is deleted.
        mutated: the modules to mutate, as paths from the root (`domain/records/record.py`).
        tests: the tests that may kill mutants, and the other arguments of pytest.
    """
    shutil.rmtree(tree, ignore_errors=True)
    package = tree / PACKAGE
    package.mkdir(parents=True)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copy(root / PACKAGE / "__init__.py", package)
    for layer in LAYERS:
        shutil.copytree(root / layer, package / layer, ignore=without)
    shutil.copytree(root / "tests", tree / "tests", ignore=without)
    for name in mutated:
        path = package / name
        path.write_text(plain(path.read_text("utf-8")), "utf-8")
    selected = [name for name in tests if not name.startswith("-")]
    options = [name for name in tests if name.startswith("-")]
    settings = {
        "source_paths": [PACKAGE],
        "only_mutate": [f"{PACKAGE}/{name}" for name in mutated],
        "do_not_mutate_patterns": EQUIVALENT,
        "pytest_add_cli_args": [*PYTEST, *options],
        "pytest_add_cli_args_test_selection": selected,
        "use_git_change_detection": False,
        "track_dependencies": False,
        "timeout_multiplier": SLOWER_MAX,
    }
    # JSON's strings, lists, numbers and booleans are also TOML's.
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    project = (root / "pyproject.toml").read_text("utf-8")
    table = "\n".join(["", "[tool.mutmut]", *lines, ""])
    (tree / "pyproject.toml").write_text(project + table, "utf-8")


def plain(source: str) -> str:
    """Return the source with its properties as plain functions, and without caches and casts.

    mutmut leaves decorated functions alone. A property is made of its function one line later; a
    cache could only hide that a mutant answers otherwise, and a cast does nothing at all.

    >>> print(plain("class A:\\n    @property\\n    def b(self):\\n        return cast('int', 1)"))
    class A:
    <BLANKLINE>
        def b(self):
            return 1
        b = property(b)
    """
    return ast.unparse(_Plain().visit(ast.parse(source)))


class _Plain(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        names = [_called(decorator) for decorator in node.decorator_list]
        if names in (["property"], ["lru_cache"], ["cache"]):
            node.decorator_list = []
        if names == ["property"]:
            return [node, *ast.parse(f"{node.name} = property({node.name})").body]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return node.args[1] if _called(node) == "cast" else node


def _called(expression: ast.expr) -> str:
    return ast.unparse(expression.func if isinstance(expression, ast.Call) else expression)
