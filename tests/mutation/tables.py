"""The mutants of tables: rules that are data and no function, which mutmut does not touch.

`python -m tests.mutation.tables` prints each with its verdict as a line of JSON. Each mutant is a
fork of a process that has imported pytest and nothing of the domain. The table is changed in the
statement after the one that makes it, before anything else has taken something from it.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum, EnumType
from functools import partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import hypothesis
import psycopg
import pydantic
import pytest

from .mutants import Mutant
from .tree import PYTEST

if TYPE_CHECKING:
    from recordledger.domain.records.actions import Action, Reach

# Imported before the first fork because every test needs them.
PRELOADED: Final = (hypothesis, psycopg, pydantic)

# The tables that hold rules, by module.
TABLES: Final[Mapping[str, Sequence[str]]] = {
    "domain/records/transitions.py": ("TRANSITIONS", "REVERTIBLE", "ENDS"),
    "domain/records/record.py": ("_OPPOSITES",),
    "domain/records/actions.py": ("Action",),
    "domain/records/propagation.py": ("RESTORES", "REMEDIES", "UNFINISHED", "_STATUSES"),
    "domain/routing/matching.py": ("_OBSTACLES",),
}
# The tests that know a module best are run first: collecting all of them takes longer.
FIRST: Final[Mapping[str, str]] = {
    "domain/records/transitions.py": "tests/domain/records/test_status.py",
    "domain/records/record.py": "tests/domain/records/test_inverse.py",
    "domain/records/actions.py": "tests/domain/records/test_propagation.py",
    "domain/records/propagation.py": "tests/domain/records/test_propagation.py",
    "domain/routing/matching.py": "tests/domain/routing/test_matching.py",
}
THEN: Final = ("tests/domain/records", "tests/domain/routing")
# Hypothesis has no assertions that pytest would have to rewrite.
PRELOADED_IS_RIGHT: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


class Change(NamedTuple):
    """One table with one row less, or with another value in a row."""

    table: str
    words: str
    apply: Callable[[Any], Any]


def changes(table: str, rows: Any) -> Iterator[Change]:
    """Yield the changes of a table: each row is left out, and leads where another row leads.

    Actions lose and change what they do to records and to their relatives.
    """
    if isinstance(rows, EnumType):
        actions = cast("type[Action]", rows)
        events = [action.row.event for action in actions if action.row.event is not None]
        for action in actions:
            yield from _of_action(table, action, events)
            yield from _of_reach(table, action, "parents", events)
            yield from _of_reach(table, action, "children", events)
    elif isinstance(rows, Mapping):
        rows = cast("Mapping[object, object]", rows)
        targets = list(dict.fromkeys(rows.values()))
        for key, target in rows.items():
            yield Change(table, f"without `{_name(key)}`", _without_key(key))
            if len(targets) > 1:
                other = _next(targets, target)
                yield Change(table, f"`{_name(key)}` -> `{_name(other)}`", _with_value(key, other))
    else:
        for row in sorted(cast("Iterable[object]", rows), key=_name):
            yield Change(table, f"without `{_name(row)}`", _without_row(row))


def _of_action(table: str, action: Action, events: Sequence[str]) -> Iterator[Change]:
    row = action.row
    others: dict[str, object] = {"undoable": not row.undoable}
    if row.opposite is not None:
        # What has no opposite restores nothing, whatever its row says.
        others["restores"] = not row.restores
    if row.event is not None:
        others["event"] = _next(events, row.event)
    others |= {name: None for name in ("opposite", "remedy_for") if getattr(row, name) is not None}
    for name, value in others.items():
        words = f"`{action.name}.{name}` -> `{_name(value)}`"
        yield Change(table, words, _with_field(action, name, value))


def _of_reach(table: str, action: Action, side: str, events: Sequence[str]) -> Iterator[Change]:
    reach: Reach | None = getattr(action.row, side)
    if reach is None:
        return
    where = f"{action.name}.{side}"
    yield Change(table, f"without `{where}`", _with_field(action, side, None))
    others: dict[str, Any] = {
        "event": _next(events, reach.event),
        "group": _next(list(type(reach.group)), reach.group),
        "shared": not reach.shared,
    }
    others |= {
        name: None for name in ("otherwise", "below", "option") if getattr(reach, name) is not None
    }
    if side == "parents":
        del others["shared"]
    for name, value in others.items():
        words = f"`{where}.{name}` -> `{_name(value)}`"
        yield Change(table, words, _with_field(action, side, replace(reach, **{name: value})))


def _next(values: Sequence[Any], value: object) -> Any:
    return values[(values.index(value) + 1) % len(values)]


def _with_field(action: Action, name: str, value: object) -> Callable[[Any], Any]:
    def changed(rows: Any) -> Any:
        row: Any = action.row
        action.row = replace(row, **{name: value})
        return rows

    return changed


def _without_key(key: object) -> Callable[[Any], Any]:
    return lambda rows: {each: value for each, value in rows.items() if each != key}


def _with_value(key: object, value: object) -> Callable[[Any], Any]:
    return lambda rows: {**rows, key: value}


def _without_row(row: object) -> Callable[[Any], Any]:
    return lambda rows: type(rows)(each for each in rows if each is not row)


def _name(value: object) -> str:
    match value:
        case tuple():
            return ", ".join(_name(each) for each in cast("tuple[object, ...]", value))
        case type():
            return value.__name__
        case Enum():
            return value.name
        case _:
            return str(value)


def run(module: str) -> Iterator[Mutant]:
    """Test every mutant of the tables of one module, in a process each, one after the other.

    Raises:
        RuntimeError: a test fails although nothing was changed.
    """
    for table in TABLES[module]:
        if _in_fork(partial(_passes, module, table)) is not True:
            raise RuntimeError(f"a test of {module} fails without any mutant of {table}")
        for number, words in enumerate(_in_fork(partial(_words, module, table))):
            passes = _in_fork(partial(_passes, module, table, number))
            yield Mutant(module, table, words, is_killed=passes is not True)


def _words(module: str, table: str) -> list[str]:
    rows = getattr(import_module(_name_of(module)), table)
    return [change.words for change in changes(table, rows)]


def _passes(module: str, table: str, number: int | None = None) -> bool:
    """Return whether all tests pass when this change of the table is made, or none."""
    _load_changed(_name_of(module), table, number)
    options = ("-x", "-q", "--no-header", *PYTEST, *PRELOADED_IS_RIGHT)
    return all(
        pytest.main([*tests, *options]) == pytest.ExitCode.OK for tests in ((FIRST[module],), THEN)
    )


def _load_changed(name: str, table: str, number: int | None) -> None:
    """Import a module that changes its table in the statement after the one that makes it.

    Without a number it is imported in the same way, and changes nothing.
    """

    def changed(rows: Any) -> Any:
        # From the rows that are there, for their classes are those of this very module.
        if number is None:
            return rows
        return next(islice(changes(table, rows), number, None)).apply(rows)

    package, _, last = name.rpartition(".")
    parent, spec = import_module(package), find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    made = next(index for index, node in enumerate(tree.body) if makes(node, table))
    tree.body[made + 1 : made + 1] = ast.parse(f"{table} = _changed({table})").body
    module = module_from_spec(spec)
    vars(module)["_changed"] = changed
    sys.modules[name] = module
    exec(compile(tree, spec.origin, "exec"), vars(module))  # noqa: S102
    setattr(parent, last, module)


def makes(node: ast.stmt, table: str) -> bool:
    """Return whether this statement makes the table."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.ClassDef(name=name):
            return name == table
        case _:
            return False


def _name_of(module: str) -> str:
    return "recordledger." + module.removesuffix(".py").replace("/", ".")


def _in_fork(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a process of its own, whose output goes nowhere."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            try:
                answer = json.dumps(work())
            except BaseException:  # a mutant may break anything, and is killed by that
                answer = "null"
            os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer or "null")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for mutant in run(name):
            print(json.dumps(mutant), flush=True)
