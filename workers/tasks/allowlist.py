"""Which functions a manager may run, and how a name becomes a function without importing others.

A task names a function either by an entry point of the group `recordledger.functions` of an
installed package, or as `module:function`. The second form has to be the target of such an entry
point, or match a pattern that the manager was given (`--allow "mypkg.chem:*"`). Nothing is imported
before that is certain: a name that came over the network cannot import a module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from typing import Any, Final, cast

from packaging.utils import canonicalize_name

GROUP: Final = "recordledger.functions"
_WILDCARDS: Final = frozenset("*?[")


class FunctionNotAllowed(Exception):
    """This manager does not run that function; the message says how to allow it."""


class FunctionNotFound(Exception):
    """The function may be run, but it is not there; the message says where it was looked for."""


@dataclass(frozen=True, slots=True)
class AllowedFunction:
    """A function that may be run. `distribution`: the installed package that provides it."""

    function: Callable[..., Any]
    distribution: str | None


class AllowList:
    """The functions that a manager may run.

    Args:
        patterns: `module:function`, where each part may have the wildcards of a shell. With a
            wildcard for the function, only public functions *defined* in that module or below it
            are meant: `mypkg.chem:*` does not open up `mypkg.chem:subprocess.run`.

    Raises:
        ValueError: a pattern has no colon, or nothing before or after it.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        for pattern in self.patterns:
            module, _, function = pattern.partition(":")
            if not module or not function:
                raise ValueError(
                    f"{pattern!r} allows nothing: write MODULE:FUNCTION, as in 'mypkg.chem:*'; "
                    f"entry points of the group {GROUP} are allowed without being named"
                )
        self._found: dict[str, AllowedFunction] = {}

    @cached_property
    def entry_points(self) -> dict[str, EntryPoint]:
        """The functions that installed packages provide, by name; the first on the path counts."""
        # Not `metadata.entry_points`: of a package found twice it reads one only, and that is the
        # stale metadata which old builds leave in a source folder, if one stands in that folder.
        found: dict[str, EntryPoint] = {}
        for distribution in distributions():
            for point in distribution.entry_points.select(group=GROUP):
                found.setdefault(point.name, point)
        return found

    @cached_property
    def _targets(self) -> dict[str, EntryPoint]:
        return {_target(point): point for point in self.entry_points.values()}

    @property
    def programs(self) -> dict[str, str]:
        """The installed packages that provide functions, and their versions."""
        found = (point.dist for point in self.entry_points.values())
        return {canonicalize_name(dist.name): dist.version for dist in found if dist is not None}

    def resolve(self, name: str) -> AllowedFunction:
        """Return the function of this name, imported if need be.

        Raises:
            FunctionNotAllowed: nothing allows it. Nothing was imported.
            FunctionNotFound: it is allowed, and is not there or cannot be imported.
        """
        if name not in self._found:
            self._found[name] = self._resolve(name)
        return self._found[name]

    def _resolve(self, name: str) -> AllowedFunction:
        module, _, qualified = name.partition(":")
        if not qualified:
            point = self.entry_points.get(name)
            if point is None:
                raise FunctionNotFound(
                    f"no package installed here has an entry point {name!r} in the group {GROUP} "
                    f"(there are: {', '.join(sorted(self.entry_points)) or 'none'}); install the "
                    "package on the manager's host, or name the function as 'module:function'"
                )
            return AllowedFunction(_load(_target(point)), _provider(point))
        if point := self._targets.get(name):
            return AllowedFunction(_load(name), _provider(point))
        matching = [pattern for pattern in self.patterns if _matches(pattern, name)]
        if not matching:
            raise FunctionNotAllowed(
                f"this manager does not run {name!r}; start it with --allow '{module}:*' or "
                f"--allow '{name}', or make it an entry point of the group {GROUP}"
            )
        function = _load(name)
        if not any(_names_exactly(pattern) for pattern in matching):
            _require_own(function, module, name)
        return AllowedFunction(function, _distribution_of(module))


def _target(point: EntryPoint) -> str:
    return f"{point.module}:{point.attr}"


def _provider(point: EntryPoint) -> str | None:
    return point.dist.name if point.dist is not None else None


def _matches(pattern: str, name: str) -> bool:
    module, _, qualified = name.partition(":")
    module_pattern, _, function_pattern = pattern.partition(":")
    if not (fnmatchcase(module, module_pattern) and fnmatchcase(qualified, function_pattern)):
        return False
    private = any(part.startswith("_") for part in qualified.split("."))
    return _names_exactly(pattern) or not private


def _names_exactly(pattern: str) -> bool:
    """Return whether the pattern spells the function out, whatever it says about the module."""
    return _WILDCARDS.isdisjoint(pattern.partition(":")[2])


def _load(name: str) -> Callable[..., Any]:
    module, _, qualified = name.partition(":")
    try:
        found: Any = import_module(module)
    except Exception as error:
        raise FunctionNotFound(
            f"{name!r} is allowed, but its module cannot be imported on this host: "
            f"{type(error).__name__}: {error}"
        ) from error
    for part in qualified.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise FunctionNotFound(
                f"{name!r} is allowed, but {module} has no {qualified!r}; check the version "
                "installed on this host"
            ) from None
        if inspect.ismodule(found):
            raise FunctionNotAllowed(
                f"{name!r} refers through {module} to the module {found.__name__}; name the "
                "function by its own module"
            )
    if not callable(found):
        raise FunctionNotFound(f"{name!r} is a {type(found).__name__}, not a function")
    return cast("Callable[..., Any]", found)


def _require_own(function: Callable[..., Any], module: str, name: str) -> None:
    home = str(getattr(function, "__module__", None))
    if home != module and not home.startswith(f"{module}."):
        raise FunctionNotAllowed(
            f"{name!r} is defined in {home} and not matched by the wildcard of --allow; allow it "
            f"by its full name, with --allow '{name}'"
        )


def _distribution_of(module: str) -> str | None:
    """Return the installed package that a module belongs to. Slow: it reads all that there are."""
    from importlib.metadata import packages_distributions

    providers = packages_distributions().get(module.partition(".")[0], [])
    return providers[0] if providers else None
