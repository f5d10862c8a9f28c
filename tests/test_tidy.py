"""The habits of the house that no linter knows: layers, packaging, names, and what stays out."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
THIS: Final = PurePosixPath("tests/test_tidy.py")
PACKAGE: Final = "recordledger"
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
LAYERS: Final = ("domain", "projections", "api", "workers")

NAMES_THAT_SAY_NOTHING: Final = frozenset({"utils", "helpers", "common", "misc"})
UNFINISHED: Final = re.compile(r"\b(?:TODO|FIXME)\b")
MACHINE_PATH: Final = re.compile(r"(?<![\w.])/(?:work|root|home)/")
REGISTRY: Final = re.compile(
    r"pypi\.org|files\.pythonhosted|registry\.npmjs|debian\.org", re.IGNORECASE
)
LOCK_FILES: Final = frozenset({"uv.lock", "package-lock.json", "poetry.lock", "pdm.lock"})
# What .gitignore leaves out, for a tree that came without git.
NOT_OURS: Final = re.compile(
    r"\.git|\.venv|build|dist|__pycache__|htmlcov|demo-output|\.hypothesis|\..*_cache|.*\.egg-info"
)


# What there is


@cache
def tracked() -> tuple[PurePosixPath, ...]:
    """Every file that is in the repository, or would be after `git add --all`."""
    listed = _listed_by_git()
    names = _found_by_walking() if listed is None else listed
    paths = (PurePosixPath(name) for name in names)
    return tuple(sorted(path for path in paths if os.path.lexists(ROOT / path)))


def _listed_by_git() -> list[str] | None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)  # noqa: S603
    return None if found.returncode else found.stdout.decode().rstrip("\0").split("\0")


def _found_by_walking() -> Iterator[str]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not NOT_OURS.fullmatch(name)]
        for name in files:
            yield (Path(folder) / name).relative_to(ROOT).as_posix()


@cache
def modules() -> dict[PurePosixPath, ast.Module]:
    """Every Python file, parsed. Links into the layers are not followed: each file counts once."""
    return {
        path: ast.parse((ROOT / path).read_bytes(), filename=str(path))
        for path in tracked()
        if path.suffix == ".py" and not (ROOT / path).is_symlink()
    }


@cache
def texts() -> dict[PurePosixPath, str]:
    """Every file that is text, but for this one: it has to name what it forbids."""
    found: dict[PurePosixPath, str] = {}
    for path in tracked():
        if path != THIS and not (ROOT / path).is_symlink():
            try:
                found[path] = (ROOT / path).read_bytes().decode()
            except UnicodeDecodeError:
                continue
    return found


@cache
def setuptools_table() -> dict[str, Any]:
    """What pyproject.toml tells setuptools."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return dict(table["tool"]["setuptools"])


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


# Layers


def layer_of(path: PurePosixPath) -> str | None:
    """Return the layer that a file belongs to; None for what is outside the four folders."""
    return path.parts[0] if path.parts[0] in LAYERS else None


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the full names that an absolute import may mean."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.level == 0 and node.module == PACKAGE:
        yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
    elif node.level == 0:
        yield node.module or ""


def fault_of_import(path: PurePosixPath, node: ast.Import | ast.ImportFrom) -> str | None:
    """Return what is wrong with one import, if anything is.

    A dot means "here": it stays inside the layer. A full name means "a boundary is crossed". The
    folders themselves are no packages: their import name begins with the project's.
    """
    layer = layer_of(path)
    if isinstance(node, ast.ImportFrom) and node.level > 0:
        if path.parts[0] == "tests":
            return None
        # Two parts are `domain/streams.py`: one dot is `domain`, two dots would leave it.
        leaves = layer is None or node.level >= len(path.parts)
        return "a dot leaves the layer; write the full name" if leaves else None
    for name in imported(node):
        first, _, rest = name.partition(".")
        if first in LAYERS:
            return f"`{first}` is a folder; import {PACKAGE}.{name}"
        if first == PACKAGE and layer is not None and rest.partition(".")[0] == layer:
            return f"{name} is in the same layer; import it with a dot"
    return None


def imports_of(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def test_a_dot_stays_inside_a_layer_and_a_full_name_leaves_it() -> None:
    faults = [
        f"{path}:{node.lineno}: {fault}"
        for path, tree in modules().items()
        for node in imports_of(tree)
        if (fault := fault_of_import(path, node)) is not None
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("path", "statement", "right"),
    [
        ("domain/streams.py", "from .errors import X", True),
        ("domain/streams.py", "from . import events as e", True),
        ("domain/streams.py", "from recordledger.domain.errors import X", False),
        ("domain/streams.py", "from recordledger.domain import errors", False),
        ("domain/streams.py", "from recordledger import domain", False),
        ("domain/streams.py", "import recordledger.domain.errors", False),
        ("domain/streams.py", "from ..projections import ledger", False),
        ("domain/streams.py", "from domain.errors import X", False),
        ("domain/streams.py", "import domain", False),
        ("domain/streams.py", "import domainlike", True),
        ("projections/ledger.py", "from recordledger.domain.errors import X", True),
        ("projections/ledger.py", "from recordledger import __version__", True),
        ("api/client/__init__.py", "from .http import X", True),
        ("api/client/__init__.py", "from ..schemas import X", True),
        ("api/client/__init__.py", "from ...domain import X", False),
        ("api/routes/records.py", "from ..schemas import X", True),
        ("workers/demo/run.py", "from recordledger.workers.manager.main import X", False),
        ("recordledger/__init__.py", "from recordledger.api.client import Client", True),
        ("recordledger/__init__.py", "from .api.client import Client", False),
        ("tests/api/test_routes.py", "from api.schemas import X", False),
        ("tests/api/test_routes.py", "from recordledger.api.schemas import X", True),
        ("tests/api/test_routes.py", "from .conftest import X", True),
    ],
)
def test_the_import_rule_itself(path: str, statement: str, right: bool) -> None:
    (node,) = imports_of(ast.parse(statement))
    assert (fault_of_import(PurePosixPath(path), node) is None) is right


def is_hidden_import(path: PurePosixPath, node: ast.AST) -> bool:
    """Whether a call imports a module of ours by its name, where no import contract sees it.

    A package may import its own modules so, when they are needed.
    """
    if not isinstance(node, ast.Call) or not node.args:
        return False
    called = (
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    )
    if called not in {"import_module", "find_spec", "__import__"}:
        return False
    # What is given is a text, or begins with one, or is a variable.
    text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
    name = str(text.value) if isinstance(text, ast.Constant) else ""
    if not (name.startswith((".", PACKAGE)) or len(node.args) > 1):
        return False
    return path.name != "__init__.py" or ast.unparse(node.args[-1]) != "__name__"


def test_no_module_is_imported_by_its_name_past_the_contracts() -> None:
    assert [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        if layer_of(path)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and is_hidden_import(path, node)
    ] == []


@pytest.mark.parametrize(
    ("path", "call", "hidden"),
    [
        ("api/client/x.py", 'import_module(".calls", __package__)', True),
        ("api/client/x.py", 'import_module(f".calls.{name}", __package__)', True),
        ("api/client/x.py", "import_module(module, __package__)", True),
        ("workers/x.py", 'importlib.import_module("recordledger.workers.cli")', True),
        ("projections/x.py", 'importlib.util.find_spec("recordledger.projections.seals")', True),
        ("api/client/__init__.py", 'import_module(f".{name}", __name__)', False),
        ("api/client/__init__.py", 'import_module("recordledger.api.app")', True),
        ("workers/x.py", 'import_module("pyarrow.parquet")', False),
        ("workers/x.py", "import_module(module)", False),
    ],
)
def test_the_rule_of_imports_by_name_itself(path: str, call: str, hidden: bool) -> None:
    (node,) = (each for each in ast.walk(ast.parse(call)) if isinstance(each, ast.Call))
    assert is_hidden_import(PurePosixPath(path), node) is hidden


@pytest.mark.parametrize("layer", LAYERS)
def test_the_package_links_to_its_layers(layer: str) -> None:
    link = ROOT / PACKAGE / layer
    # A checkout without symbolic links has a small file with the target instead.
    target = link.readlink().as_posix() if link.is_symlink() else link.read_text("utf-8")
    assert target == f"../{layer}"


# Packaging


def package_folders() -> dict[PurePosixPath, str]:
    """Every folder with Python in it that has to be in the wheel, and its import name."""
    folders = {path.parent for path in modules() if path.parts[0] in (PACKAGE, *LAYERS)}
    return {
        folder: PACKAGE if folder.parts == (PACKAGE,) else f"{PACKAGE}." + ".".join(folder.parts)
        for folder in sorted(folders)
    }


def test_every_package_is_listed_for_the_wheel() -> None:
    packages = package_folders()
    assert set(setuptools_table()["packages"]) == set(packages.values())
    assert setuptools_table()["package-dir"] == {
        package: folder.as_posix() for folder, package in packages.items()
    }


def test_every_package_has_an_init_module() -> None:
    missing = [folder for folder in package_folders() if folder / "__init__.py" not in modules()]
    assert missing == []


def test_every_data_file_is_listed_for_the_wheel() -> None:
    packages = package_folders()
    listed: set[PurePosixPath] = set()
    for folder, package in packages.items():
        for pattern in setuptools_table()["package-data"].get(package, ()):
            matches = (ROOT / folder).glob(pattern)
            listed.update(PurePosixPath(path.relative_to(ROOT).as_posix()) for path in matches)
    links = {PurePosixPath(PACKAGE, layer) for layer in LAYERS}
    data = {
        path
        for path in tracked()
        if path.parts[0] in (PACKAGE, *LAYERS) and path.suffix != ".py" and path not in links
    }
    assert sorted(data - listed) == []


# Names and sentences


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    silent: list[str] = []
    for path, tree in modules().items():
        first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
        if not re.match(r"\S.*[.!?]$", first_line):
            silent.append(f"{path}: {first_line or 'no docstring'}")
    assert silent == []


def test_the_arguments_of_an_operation_are_described_but_for_the_first() -> None:
    # The first one becomes `self`; `describes_conditions` adds `**conditions`.
    faults: list[str] = []
    for path, tree in modules().items():
        if path.parent != PurePosixPath("api/client/calls"):
            continue
        for function in tree.body:
            if not isinstance(function, FUNCTIONS):
                continue
            _, there, arguments = (ast.get_docstring(function) or "").partition("\nArgs:\n")
            if not there:
                continue
            described = re.findall(r"^ {4}(\w+): ", arguments.partition("\n\n")[0], re.MULTILINE)
            taken = function.args
            names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
            if described != names[1:]:
                faults.append(f"{path}:{function.lineno}: {function.name}: {described}")
    assert faults == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in modules() if path.stem in NAMES_THAT_SAY_NOTHING] == []


def test_a_manager_is_an_agent_and_no_other_class_is_called_one() -> None:
    # Commands and refusals are phrases that may end in the agent: LoseManager, NotYourManager.
    phrases = {PurePosixPath("domain", name) for name in ("records/commands.py", "errors.py")}
    named = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if path not in phrases
        and isinstance(node, ast.ClassDef)
        and node.name.endswith("Manager")
        and node.name != "Manager"
    ]
    assert named == []


def test_a_class_name_stands_for_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for path, tree in modules().items():
        if layer_of(path):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


# What stays out


def test_nothing_is_left_to_do_in_a_comment() -> None:
    assert lines_that_match(UNFINISHED) == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert lines_that_match(MACHINE_PATH) == []


def test_no_file_names_a_registry() -> None:
    assert lines_that_match(REGISTRY) == []


def test_subjects_of_commits_fit_a_line() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this tree came without its history")
    # A release before this rule has longer ones.
    command = [git, "log", "--format=%s", "--since=2026-11-29T03:00:00Z"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    assert [subject for subject in found.stdout.splitlines() if len(subject) > 72] == []


def test_there_is_no_lock_file() -> None:
    assert [path for path in tracked() if path.name in LOCK_FILES] == []
