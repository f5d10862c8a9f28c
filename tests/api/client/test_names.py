"""The names that the client's package gives, which are imported when they are asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import recordledger
from recordledger.api import client
from recordledger.api.client import calls, on_demand


def names_for_type_checkers() -> dict[str, str]:
    """Return the module of each name that the package imports for type checkers only."""
    tree = ast.parse(Path(client.__file__).read_text("utf-8"))
    return {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }


def test_every_public_name_can_be_imported() -> None:
    for package in (client, recordledger):
        for name in package.__all__:
            assert getattr(package, name) is not None
            assert name in dir(package)
        with pytest.raises(AttributeError, match="no attribute 'Klient'"):
            getattr(package, "Klient")  # noqa: B009


def test_type_checkers_and_programs_find_the_same_names_in_the_same_modules() -> None:
    modules = {name: module for module, names in client.MODULES.items() for name in names}
    assert modules == names_for_type_checkers()
    assert sorted(modules) == sorted(client.__all__)


def test_every_module_of_calls_can_be_used_on_demand() -> None:
    modules = {each.stem for each in Path(calls.__path__[0]).glob("[!_]*.py")}
    assert {name for name in on_demand.__all__ if name.islower()} == modules
