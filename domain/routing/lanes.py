"""Routing: which waiting tasks a manager can take, by tag and by required programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import Version

from ..errors import InvalidInput

WILDCARD: Final = "*"
TAG_PATTERN: Final = re.compile(r"\*|[A-Za-z0-9_][A-Za-z0-9_.:/@+=-]{0,99}")
PROGRAM_PATTERN: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]{0,99}?)\s*((?:[<>=!~][\t -~]*)?)")
REQUIREMENT_CHARACTERS_MAX: Final = 200
# All of a lane's requirements are one key of an index, whose entries are limited.
REQUIREMENTS_CHARACTERS_MAX: Final = 1800


class Lane(NamedTuple):
    """All tasks of one tag that need the same programs; a manager can take all or none."""

    tag: str
    required_programs: tuple[str, ...]


def parse_tag(text: str) -> str:
    """Return the tag, lower-case, or refuse it.

    >>> parse_tag("GPU")
    'gpu'

    Raises:
        InvalidInput: the tag is empty, too long, or has characters that tags cannot have.
    """
    if not TAG_PATTERN.fullmatch(text):
        raise InvalidInput(
            f"{text[:120]!r} is not a tag: use 1 to 100 letters, digits and _.:/@+=-, or '*' alone"
        )
    return text.lower()


@lru_cache(maxsize=4096)
def parse_requirement(text: str) -> str:
    """Return the requirement in its canonical form, or refuse it.

    >>> parse_requirement("Psi4 >= 1.9, <2")
    'psi4<2,>=1.9'

    Raises:
        InvalidInput: it is not a program's name, with or without a PEP 440 version specifier.
    """
    found = PROGRAM_PATTERN.fullmatch(text.strip())
    if found is None or len(text) > REQUIREMENT_CHARACTERS_MAX:
        raise InvalidInput(
            f"{text[:120]!r} is not a required program: write a name, or a name and a version "
            f"specifier like 'psi4>=1.9', in at most {REQUIREMENT_CHARACTERS_MAX} characters"
        )
    name, specifier = found.groups()
    try:
        versions = {str(Specifier(part)) for part in specifier.split(",") if part.strip()}
    except InvalidSpecifier:
        raise InvalidInput(
            f"{specifier[:120]!r} in {text[:120]!r} is not a version specifier (PEP 440)"
        ) from None
    return name.lower() + ",".join(sorted(versions))


def parse_requirements(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the requirements in canonical form, each once, sorted.

    Raises:
        InvalidInput: one of them is wrong, or they are too long together.
    """
    requirements = tuple(sorted({parse_requirement(text) for text in texts}))
    if (n_characters := sum(map(len, requirements))) > REQUIREMENTS_CHARACTERS_MAX:
        raise InvalidInput(
            f"the required programs have {n_characters} characters together; the limit is "
            f"{REQUIREMENTS_CHARACTERS_MAX}; require fewer programs"
        )
    return requirements


def parse_programs(programs: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what a manager offers, program names in lower case, or refuse it.

    Raises:
        InvalidInput: a name is not a program's name.
    """
    for name in programs:
        found = PROGRAM_PATTERN.fullmatch(name)
        if found is None or found[2]:
            raise InvalidInput(
                f"{name[:120]!r} is not a program's name: use letters, digits and ._+-, "
                "and give its version beside it"
            )
    return {name.lower(): version for name, version in programs.items()}


@lru_cache(maxsize=4096)
def program_name(requirement: str) -> str:
    """Return the name in a requirement in canonical form.

    >>> program_name("psi4>=1.9")
    'psi4'
    """
    found = PROGRAM_PATTERN.fullmatch(requirement)
    return found[1] if found else requirement


def program_names(requirements: Iterable[str]) -> set[str]:
    """Return the names in requirements in canonical form."""
    return {program_name(requirement) for requirement in requirements}


@lru_cache(maxsize=65536)
def _satisfied(requirement: str, version: str | None) -> bool:
    found = PROGRAM_PATTERN.fullmatch(requirement)
    specifier = found[2] if found else ""
    if not specifier:
        return True
    if version is None:
        return False
    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except ValueError:  # no PEP 440 version, or more digits than Python reads
        return False


def satisfies(programs: Mapping[str, str | None], requirements: Iterable[str]) -> bool:
    """Return whether these programs (lower-case name to version) meet all the requirements.

    A program whose version is unknown, or is no PEP 440 version, meets only a bare name.

    >>> satisfies({"psi4": "1.9.1"}, ("psi4>=1.9",))
    True
    """
    for requirement in requirements:
        name = program_name(requirement)
        if name not in programs or not _satisfied(requirement, programs[name]):
            return False
    return True


def lanes_by_tag(
    tags: Sequence[str], programs: Mapping[str, str | None], lanes: Mapping[int, Lane]
) -> list[list[int]]:
    """Return, for each tag of a manager in its order, the ids of the lanes it can take.

    `*` among the manager's tags takes what the tags before it have left, of any tag. A lane
    whose own tag is `*` is open to `*` only.
    """
    able = {id_: lane for id_, lane in lanes.items() if satisfies(programs, lane.required_programs)}
    taken: set[int] = set()
    ordered: list[list[int]] = []
    for tag in tags:
        matching = [
            id_ for id_, lane in able.items() if id_ not in taken and (tag in (WILDCARD, lane.tag))
        ]
        taken.update(matching)
        ordered.append(matching)
    return ordered
