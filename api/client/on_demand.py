"""The modules of `calls`, each imported when one of its operations is first used.

A client has some ninety methods, and most programs use a few of them: the modules of the others,
and the schemas that these build, are not imported. Import from here what methods are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .calls import operation_of

if TYPE_CHECKING:
    from .calls import (
        claims,
        counts,
        datasets,
        diff,
        events,
        histories,
        management,
        managers,
        operations,
        origins,
        presence,
        records,
        routing,
        seals,
        self_audit,
        server,
        services,
        tokens,
        webhooks,
    )

__all__ = [
    "CallOnDemand",
    "claims",
    "counts",
    "datasets",
    "diff",
    "events",
    "histories",
    "management",
    "managers",
    "operations",
    "origins",
    "presence",
    "records",
    "routing",
    "seals",
    "self_audit",
    "server",
    "services",
    "tokens",
    "webhooks",
]


class CallOnDemand:
    """An operation that is imported, or made, when it is called or looked at."""

    def __init__(self, load: Callable[[], Any]) -> None:
        """Take what returns the operation."""
        self._load = load

    @cached_property
    def operation(self) -> Any:
        """The operation itself."""
        return self._load()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the operation."""
        return self.operation(*args, **kwargs)


class _Module:
    """A module of `calls`: what is asked of it is a `CallOnDemand`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> CallOnDemand:
        return CallOnDemand(lambda: operation_of(self._name, name))


def __getattr__(name: str) -> _Module:
    """Return what stands for a module of `calls` until it is imported."""
    if name in __all__:
        return _Module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
