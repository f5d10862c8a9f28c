"""Write the reference pages that are made from the code, or check that they are fresh.

    python docs/generate.py            write every page
    python docs/generate.py --check    change nothing; exit 1 with a diff if a page is stale

A page is a function that takes nothing, returns Markdown, and is registered under its file's name
with `@page`. Import what it describes inside the function: a page must not need the others'.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import BaseModel

    from recordledger.domain.records.events import Event
    from recordledger.domain.records.status import Status
    from recordledger.domain.records.transitions import Destination

DOCS: Final = Path(__file__).resolve().parent
NOTICE: Final = "<!-- Made from the code by docs/generate.py (`make docs`). Do not edit. -->"

Page = Callable[[], str]
PAGES: Final[dict[str, Page]] = {}


def page(name: str) -> Callable[[Page], Page]:
    """Register a function as the page of this name, relative to `docs/`."""

    def register(text_of: Page) -> Page:
        PAGES[name] = text_of
        return text_of

    return register


# What pages are made of


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def described(thing: object) -> str:
    """Return the docstring of a thing, as paragraphs."""
    return inspect.cleandoc(thing.__doc__ or "")


def one_line(text: str) -> str:
    """Return a text without its line breaks, for a cell of a table."""
    return " ".join(text.split())


def modules_of(package: ModuleType) -> list[ModuleType]:
    """Return the modules of a package and of those in it, in the order of their own names."""
    found = walk_packages(package.__path__, f"{package.__name__}.")
    return sorted((import_module(module.name) for module in found), key=_last_name)


# Statuses


@page("reference/statuses.md")
def statuses() -> str:
    """Return the transition table, a diagram, and what can happen in each status."""
    from recordledger.domain.records.status import Status
    from recordledger.domain.records.transitions import Destination

    rules = _rules()
    parts = [
        "# Statuses and transitions",
        "A record is in exactly one status at every moment of its life. The table is the whole "
        "state machine: what it does not list cannot happen, and a request for it is refused with "
        "`transition_forbidden`.",
        _diagram(rules),
        "A line from a group stands for a line from each of its members. Events that leave the "
        "status as it is are not drawn.",
        "## Transitions",
        table(
            ("from", "event", "to"),
            (
                (_named(sources), f"[`{event.__name__}`](events.md#{event.__name__.lower()})", to)
                for sources, event, target in rules
                for to in [_target(target)]
            ),
        ),
        '"What it was" is a stack: a record that was cancelled, then deleted, then undeleted, then '
        "uncancelled is what it was in the beginning. A running record comes back waiting.",
    ]
    for status in Status:
        possible = [rule for rule in rules if status in rule[0]]
        staying = [rule for rule in possible if rule[2] in (Destination.unchanged, status)]
        leaving = [rule for rule in possible if rule not in staying]
        entering = [rule for rule in rules if rule[2] is status and rule not in possible]
        parts += [
            f"## {status}",
            f"- reached by: {_events(entering)}\n- left by: {_events(leaving)}\n"
            f"- can also happen: {_events(staying)}",
        ]
    return "\n\n".join(parts)


Rule = tuple[tuple["Status | None", ...], type["Event"], "Status | Destination"]


def _rules() -> list[Rule]:
    """Return the table with the sources of each event together, in the order of the table."""
    from recordledger.domain.records.transitions import TRANSITIONS

    grouped: dict[tuple[type[Event], Status | Destination], list[Status | None]] = {}
    for (source, event_type), target in TRANSITIONS.items():
        grouped.setdefault((event_type, target), []).append(source)
    return [(tuple(found), event, target) for (event, target), found in grouped.items()]


def _named(sources: tuple[Status | None, ...]) -> str:
    from recordledger.domain.records.status import Status

    missing = [status for status in Status if status not in sources]
    if not missing:
        return "any"
    if len(missing) == 1:
        return f"any but {missing[0]}"
    return ", ".join(str(source or "(none)") for source in sources)


def _target(target: Status | Destination) -> str:
    from recordledger.domain.records.transitions import Destination

    return target.value if isinstance(target, Destination) else str(target)


def _events(rules: Iterable[Rule]) -> str:
    names = list(dict.fromkeys(event.__name__ for _, event, _ in rules))
    return ", ".join(f"[`{name}`](events.md#{name.lower()})" for name in names) or "nothing"


def _diagram(rules: list[Rule]) -> str:
    """Return the state diagram. Three sources or more are drawn as one node: a group."""
    from recordledger.domain.records.transitions import Destination

    groups: dict[tuple[Status | None, ...], str] = {}
    labels: dict[tuple[str, str], list[str]] = {}
    prior, stated = "what_it_was", "what_the_event_says"
    for sources, event, target in rules:
        if target is Destination.unchanged or sources == (target,):
            continue
        ends = {Destination.gone: "[*]", Destination.prior: prior, Destination.stated: stated}
        to = ends[target] if isinstance(target, Destination) else str(target)
        nodes = [str(source) if source else "[*]" for source in sources]
        if len(sources) > 2:
            nodes = [groups.setdefault(sources, f"group_{len(groups) + 1}")]
        for node in nodes:
            labels.setdefault((node, to), []).append(event.__name__)
    lines = [
        *(f'state "{_named(sources)}" as {name}' for sources, name in groups.items()),
        f'state "{Destination.prior.value}" as {prior}',
        f'state "{Destination.stated.value}" as {stated}',
        *(f"{node} --> {to} : {', '.join(names)}" for (node, to), names in labels.items()),
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


# Events


@page("reference/events.md")
def events() -> str:
    """Return the catalogue of everything that the log can hold."""
    from recordledger import domain
    from recordledger.domain.admin.access import Role
    from recordledger.domain.records.events import Event, Kind, Outcome, Payload, Priority

    parts = [
        "# Events",
        "Everything that the log can hold. An event is immutable; it is stored under its topic "
        "and version, and older versions are upcast when they are read.",
        "## What every event says",
        described(Event),
        _fields(Event),
    ]
    for module in sorted(
        modules_of(domain), key=lambda module: module.__name__ != Event.__module__
    ):
        found = [event for event in _classes(module, Event) if event is not Event]
        if found:
            parts.append(f"## Events of a {SUBJECTS.get(module.__name__, _last_name(module))}")
        for event in found:
            parts += [
                f"### {event.__name__}",
                described(event),
                f"Topic `{event.topic}`, version {event.class_version}.",
                _fields(event),
            ]
    parts += [
        "## Values in events",
        "A `Digest` is a SHA-256, 32 bytes. An `AwareDatetime` is a moment in UTC.",
    ]
    for value in (Payload, Outcome):
        parts += [f"### {value.__name__}", described(value), _fields(value)]
    for choice in (Kind, Priority, Role):
        values = ", ".join(f"`{member.value}` ({member.name})" for member in choice)
        parts += [f"### {choice.__name__}", described(choice), f"One of {values}."]
    return "\n\n".join(parts)


SUBJECTS: Final = {
    "recordledger.domain.admin.access": "token",
    "recordledger.domain.records.events": "record",
}


def _last_name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _classes(module: ModuleType, base: type[Any]) -> list[type[Any]]:
    """Return the kinds of a class that a module defines, in its order."""
    return [
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing)
        and issubclass(thing, base)
        and thing.__module__ == module.__name__
    ]


def _fields(model: type[BaseModel]) -> str:
    """Return a table of the fields that a model declares itself, with the types as written."""
    written = inspect.get_annotations(model)
    rows = [
        (f"`{name}`", f"`{written[name]}`", _default(field))
        for name, field in model.model_fields.items()
        if name in written
    ]
    return table(("field", "type", "default"), rows) if rows else "It has no fields of its own."


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return f"`{default!r}`"


# Errors


@page("reference/errors.md")
def errors() -> str:
    """Return every refusal and fault, with its code and its meaning."""
    from recordledger.domain import errors as module
    from recordledger.domain.errors import LedgerError

    found = list(_family(LedgerError, module.__name__))
    parts = [
        "# Errors",
        "Every refusal and fault that the ledger raises on purpose. The code is stable: programs "
        "may depend on it, and people may search for it. A bulk request answers with the code and "
        "the message for each record that was refused.",
        table(
            ("code", "error", "meaning"),
            (
                (
                    f"`{error.code}`",
                    f"[{error.__name__}](#{error.__name__.lower()})",
                    one_line(described(error)),
                )
                for error in found
            ),
        ),
    ]
    for error in found:
        facts = _facts(error)
        parts += [
            f"## {error.__name__}",
            described(error),
            f"Code `{error.code}`. A kind of `{error.mro()[1].__name__}`."
            + (f" Attributes: {', '.join(f'`{fact}`' for fact in facts)}." if facts else ""),
        ]
    return "\n\n".join(parts)


def _family(error: type[Any], module: str) -> Iterator[type[Any]]:
    """Yield an error and all its kinds in one module, parents first."""
    yield error
    for kind in error.__subclasses__():
        if kind.__module__ == module:
            yield from _family(kind, module)


def _facts(error: type[Any]) -> list[str]:
    """Return the attributes that an error has besides its message."""
    written = vars(error).get("__init__")
    if written is None:
        return []
    kept = written.__code__.co_names
    return [name for name in inspect.signature(written).parameters if name in kept]


# Settings


@page("reference/settings.md")
def settings() -> str:
    """Return every setting, by themes, with its variable, option, default and bounds."""
    from recordledger.api.settings import Settings, groups_of
    from recordledger.workers.manager.config import ManagerConfig

    parts = [
        "# Settings",
        "The API and `recordledger work` read the same settings. Each comes from the environment, "
        "or from an option of the commands that are named; an option comes first.",
    ]
    for group, names in groups_of(Settings):
        parts += [f"## {described(group).rstrip('.')}", _settings_table(Settings, names)]
    parts += [
        "## Manager",
        "A manager has the options of `recordledger manager`, or `ManagerConfig` in Python; those "
        "without an option are for Python.",
    ]
    parts += [_settings_table(ManagerConfig, names) for _, names in groups_of(ManagerConfig)]
    return "\n\n".join(parts)


def _settings_table(model: type[BaseModel], names: Iterable[str]) -> str:
    from recordledger.api.settings import option_name, option_of, variable_of

    rows: list[tuple[str, ...]] = []
    for name in names:
        field = model.model_fields[name]
        on, variable = option_of(field), variable_of(model, name)
        option = (
            f"`{option_name(name, field)}` of `{'`, `'.join(on.commands.split())}`" if on else ""
        )
        default = f"[{on.unset}]" if on and on.unset else _shown_default(field)
        shown = f"`{variable}`" if variable else f"`{name}`"
        rows.append((shown, option, default, _bounds(field), field.description or ""))
    return table(("setting", "option", "default", "bounds", "meaning"), rows)


def _shown_default(field: Any) -> str:
    if field.default is None:
        return ""
    if field.default_factory and not isinstance(field.get_default(call_default_factory=True), str):
        return "see its meaning"
    return _default(field)


def _bounds(field: Any) -> str:
    names = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{words} {getattr(rule, name):,}"
        for rule in field.metadata
        for name, words in names.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(found)


# HTTP


@page("reference/http.md")
def http() -> str:
    """Return every route, who may use it, and what it takes and gives."""
    from fastapi.routing import APIRoute

    from recordledger.api.app import create_app
    from recordledger.api.http.auth import permissions_of
    from recordledger.api.http.errors import MEANINGS
    from recordledger.api.settings import Settings

    app = create_app(Settings(database_url="postgresql:///nowhere"))
    parts = [
        "# HTTP API",
        "JSON and msgpack, by `Content-Type` and `Accept`; bodies may be compressed by zstd or "
        "gzip. `GET /openapi.json` describes every field. A token goes into the header "
        "`Authorization: Bearer <token>`. Errors are problem+json (RFC 9457) with a stable `code`. "
        "A POST that changes something takes the header `Idempotency-Key`: the same request under "
        "the same key has one effect and one answer; another request under it is refused.",
    ]
    for route in app.routes:
        if not isinstance(route, APIRoute):
            continue
        methods = ", ".join(sorted(route.methods))
        who = ", ".join(permission.value for permission in permissions_of(route)) or "nobody: open"
        parts += [
            f"## {methods} {route.path}",
            described(route.endpoint),
            f"Permission: {who}.",
        ]
    parts += [
        "## Codes of errors",
        "Besides those that [the ledger itself raises](errors.md).",
        table(
            ("code", "status", "meaning"),
            ((f"`{code}`", str(found.status), found[1]) for code, found in MEANINGS.items()),
        ),
    ]
    return "\n\n".join(parts)


# Command line


@page("reference/cli.md")
def command_line() -> str:
    """Return the help of every command."""
    import click

    from recordledger.workers.cli import main as cli

    def helps(command: click.Command, path: str) -> Iterator[str]:
        context = click.Context(command, info_name=path, terminal_width=96, max_content_width=96)
        yield f"## {path}\n\n```text\n{command.get_help(context)}\n```"
        if isinstance(command, click.Group):
            for name in sorted(command.list_commands(context)):
                if (found := command.get_command(context, name)) is not None:
                    yield from helps(found, f"{path} {name}")

    return "\n\n".join(["# Command line", *helps(cli, "recordledger")])


# Writing and checking


def rendered(name: str) -> str:
    """Return the whole text of a page's file."""
    return f"{NOTICE}\n\n{PAGES[name]().strip()}\n"


def stale(name: str) -> str:
    """Return the difference between the file of a page and what it should be; empty if none."""
    path = DOCS / name
    there = path.read_text("utf-8") if path.exists() else ""
    return "".join(
        difflib.unified_diff(
            there.splitlines(keepends=True),
            rendered(name).splitlines(keepends=True),
            f"docs/{name} (as it is)",
            f"docs/{name} (as the code says)",
        )
    )


def orphans() -> list[str]:
    """Return the files that say they are made here and are the page of no function."""
    made = (path for path in sorted(DOCS.rglob("*.md")) if NOTICE in path.read_text("utf-8"))
    return [name for path in made if (name := path.relative_to(DOCS).as_posix()) not in PAGES]


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the reference pages made from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    check: bool = parser.parse_args(arguments).check
    differences = {name: difference for name in PAGES if (difference := stale(name))}
    lost = orphans()
    if check:
        sys.stdout.write("".join(differences.values()))
        sys.stdout.writelines(f"docs/{name} is made by no function: delete it\n" for name in lost)
        return 1 if differences or lost else 0
    for name in differences:
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered(name), "utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")
    for name in lost:
        (DOCS / name).unlink()
        sys.stdout.write(f"deleted docs/{name}: no function makes it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
