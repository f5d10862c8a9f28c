"""The command line as a whole: which commands there are, and what it costs to begin."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

from click import Context

from recordledger.workers import commands
from recordledger.workers.cli import main
from recordledger.workers.commands import ACTIONS, MODULES

from .conftest import Site

# What takes long to import, or builds many models; the modules below count too.
HEAVY = {
    "cryptography",
    "eventsourcing",
    "fastapi",
    "psycopg",
    "pydantic_settings",
    "recordledger.domain.records.events",
    "recordledger.projections",
    "tqdm",
    "uvicorn",
    "zstandard",
}
# How many modules of ours `status` may import; all together there are some four hundred.
MODULES_MAX = 50


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


PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from recordledger.workers.cli import main
main()
"""


def loaded(*arguments: str, **environment: str) -> set[str]:
    """Return the modules that a command imports, and the packages that they are in."""
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stderr.split())


def test_the_help_needs_no_model_no_client_and_no_server() -> None:
    light = {"httpx2", "importlib.metadata", "pydantic", "recordledger.api", "rich"}
    assert loaded("--help") & (HEAVY | light) == set()


def test_a_command_builds_the_models_that_it_needs(site: Site) -> None:
    found = loaded("status", RECORDLEDGER_URL=site.url, RECORDLEDGER_TOKEN=site.token)
    assert found & HEAVY == set()
    assert len([name for name in found if name.startswith("recordledger.")]) <= MODULES_MAX
    assert {name for name in found if name.startswith("recordledger.api.schemas.")} == {
        f"recordledger.api.schemas.{noun}" for noun in ("base", "counts", "managers", "moments")
    }
    assert {name for name in found if name.startswith("recordledger.api.client.calls.")} == {
        f"recordledger.api.client.calls.{noun}" for noun in ("counts", "managers")
    }
