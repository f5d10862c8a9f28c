"""Commands of the command line, by what they are about. A module is imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from click import Command

# Which module has which commands.
MODULES: Final = {
    "archives": ("export", "import", "origins"),
    "audit": ("audit", "self-audit"),
    "backup": ("backup", "restore"),
    "datasets": ("dataset",),
    "demo": ("demo",),
    "history": ("attempts", "events", "history", "timeline"),
    "manager": ("manager",),
    "migrate": ("migrate",),
    "past": ("diff", "past"),
    "proof": ("receipt", "seal", "verify"),
    "records": (
        "comments",
        "errors",
        "job",
        "jobs",
        "list",
        "operations",
        "show",
        "status",
    ),
    "replay": ("replay",),
    "routing": ("managers", "queue", "why"),
    "serve": ("serve",),
    "services": ("add-service", "service", "tree"),
    "tokens": ("token",),
    "up": ("up",),
    "webhooks": ("webhook",),
    "work": ("work",),
}
# All others are here: one for each action on records.
ACTIONS: Final = "management"
_MODULE_OF: Final = {name: module for module, names in MODULES.items() for name in names}


def command_names() -> list[str]:
    """Return the names of all commands, in order."""
    return sorted({*_MODULE_OF, *_commands_of(ACTIONS)})


def find_command(name: str) -> Command | None:
    """Import a command; return None if there is none of this name."""
    return _commands_of(_MODULE_OF.get(name, ACTIONS)).get(name)


def _commands_of(module: str) -> dict[str, Command]:
    found: tuple[Command, ...] = import_module(f".{module}", __name__).COMMANDS
    return {str(command.name): command for command in found}
