"""Which services this installation has: entry points of the group `recordledger.services`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, distributions
from typing import Any, Final

from pydantic import BaseModel

from recordledger.domain.specs.service import Service
from recordledger.domain.specs.service_rules import NOT_INSTALLED, ServiceFault

GROUP: Final = "recordledger.services"

AnyService = Service[Any, Any]


class ServiceRegistry:
    """Finds the class of a service by its name, and loads it when it is first wanted.

    Args:
        given: classes to use besides those that are installed, or instead of them.
    """

    def __init__(self, given: Mapping[str, type[AnyService]] | None = None) -> None:
        self._points: dict[str, EntryPoint] = {}
        for distribution in distributions():
            for point in distribution.entry_points.select(group=GROUP):
                self._points.setdefault(point.name, point)
        self._loaded: dict[str, type[AnyService]] = dict(given or {})

    @property
    def names(self) -> list[str]:
        """The names of all services that there are, loaded or not."""
        return sorted({*self._points, *self._loaded})

    def find(self, name: str) -> type[AnyService]:
        """Return the class of a service.

        Raises:
            Fault: there is none of this name, or it cannot be used; the message says why.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> type[AnyService]:
        point = self._points.get(name)
        if point is None:
            there = ", ".join(self.names) or "none"
            raise ServiceFault(
                NOT_INSTALLED,
                f"no service {name!r} is installed where `recordledger work` runs (installed: "
                f"{there}). Install the package that has it as an entry point of {GROUP}, restart "
                "`recordledger work`, and reset the record",
            )
        try:
            found: object = point.load()
        except Exception as error:
            raise ServiceFault(
                NOT_INSTALLED,
                f"the service {name!r} ({point.value}) cannot be imported: "
                f"{type(error).__name__}: {error}",
            ) from error
        if (complaint := why_not_a_service(name, found)) is not None:
            raise ServiceFault(NOT_INSTALLED, f"the service {name!r} ({point.value}) {complaint}")
        return found  # type: ignore[return-value]  # why_not_a_service has looked


def why_not_a_service(name: str, found: object) -> str | None:
    """Return what is wrong with something that should be the class of a service; None if nothing.

    >>> why_not_a_service("scan", dict)
    'is not a subclass of Service'
    """
    if not (isinstance(found, type) and issubclass(found, Service)):
        return "is not a subclass of Service"
    service: type[AnyService] = found  # pyright: ignore[reportUnknownVariableType]
    if inspect.isabstract(service):
        return f"does not define {' and '.join(sorted(service.__abstractmethods__))}"
    for attribute, wanted in (("name", str), ("version", str), ("continues", frozenset)):
        if not isinstance(getattr(service, attribute, None), wanted):
            return f"has no {attribute} that is a {wanted.__name__}"
    if service.name != name:
        return f"has the name {service.name!r}"
    for attribute in ("Spec", "State"):
        model = getattr(service, attribute, None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return f"has no {attribute} that is a pydantic model"
    return None
