"""The command line as a whole: which commands there are, and what it costs to begin."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from recordledger.workers import commands
from recordledger.workers.cli import MODULES


def test_the_table_has_every_command_of_every_module() -> None:
    prefix = f"{commands.__name__}."
    modules = [import_module(module.name) for module in iter_modules(commands.__path__, prefix)]
    assert {name: tuple(sorted(names)) for name, names in MODULES.items()} == {
        module.__name__.removeprefix(prefix): tuple(sorted(each.name for each in module.COMMANDS))
        for module in modules
        if hasattr(module, "COMMANDS")
    }
