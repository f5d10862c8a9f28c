"""The mutants that no test kills and that are allowed to live, each with why: survivors.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .mutants import Mutant

PAGE: Final = Path(__file__).with_name("survivors.md")


class Survivor(NamedTuple):
    """A mutant that is allowed to live, by what it changes and not by its line."""

    module: str
    function: str
    change: str
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other mutants."""
        return self.module, self.function, self.change


def of(mutant: Mutant) -> Survivor:
    """Return a mutant that was not killed as one of the list, without why."""
    return Survivor(mutant.module, mutant.function, mutant.change)


def parse(text: str) -> list[Survivor]:
    """Return the survivors that a page lists.

    >>> parse("## domain/a.py\\n\\n- `f`: `x` -> `y`\\n  It is the\\n  same.")
    [Survivor(module='domain/a.py', function='f', change='`x` -> `y`', why='It is the same.')]
    """
    return list(_parsed(text))


def _parsed(text: str) -> Iterator[Survivor]:
    module, found = "", None
    for line in [*text.splitlines(), ""]:
        if found and not line.startswith("  "):
            yield found
            found = None
        if line.startswith("## "):
            module = line.removeprefix("## ")
        elif line.startswith("- "):
            function, _, change = line.removeprefix("- ").partition(": ")
            found = Survivor(module, function.strip("`"), change)
        elif found:
            found = found._replace(why=f"{found.why} {line.strip()}".strip())


def text_of(survivors: Iterable[Survivor]) -> str:
    """Return survivors as they stand in the page, but for why."""
    lines: list[str] = []
    module = ""
    for each in sorted(survivors):
        if each.module != module:
            module = each.module
            lines += ["", f"## {module}", ""]
        lines.append(f"- `{each.function}`: {each.change}")
    return "\n".join(lines)
