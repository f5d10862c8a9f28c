"""The command line as a whole: which commands there are, and what it costs to begin."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from click import Context

from recordledger.workers import commands
from recordledger.workers.cli import ACTIONS, MODULES, main


def test_the_table_has_every_command_of_every_module() -> None:
    prefix = f"{commands.__name__}."
    modules = [import_module(module.name) for module in iter_modules(commands.__path__, prefix)]
    assert {name: tuple(sorted(names)) for name, names in MODULES.items()} == {
        module.__name__.removeprefix(prefix): tuple(sorted(each.name for each in module.COMMANDS))
        for module in modules
        if hasattr(module, "COMMANDS") and module.__name__ != f"{prefix}{ACTIONS}"
    }


def test_there_is_a_command_for_each_action_on_records() -> None:
    found = {str(each.name) for each in import_module(f"{commands.__name__}.{ACTIONS}").COMMANDS}
    assert found < set(main.list_commands(Context(main)))
    assert not found & {name for names in MODULES.values() for name in names}
    assert main.get_command(Context(main), "cancel") is not None
    assert main.get_command(Context(main), "nonsense") is None


def test_no_help_prints_what_is_meant_for_click() -> None:
    context = Context(main)
    helps = [
        each.get_help(context)
        for name in main.list_commands(context)
        if (each := main.get_command(context, name))
    ]
    assert [text for text in helps if "\\b" in text] == []
