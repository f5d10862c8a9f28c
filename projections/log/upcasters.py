"""Upcasters: pure functions from an event's stored shape in version n to version n + 1.

Old events are never rewritten: they are read through these. Each is registered under the topic and
the version that it takes; a stored example of every old shape stands in tests/projections/shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from recordledger.domain.errors import UnknownEvent

Shape = dict[str, Any]
Upcaster = Callable[[Shape], Shape]

UPCASTERS: Final[Mapping[tuple[str, int], Upcaster]] = {}


def upcast(
    topic: str,
    shape: Shape,
    version: int,
    newest: int,
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> Shape:
    """Return a stored shape in the newest version of its event.

    Raises:
        UnknownEvent: the shape is newer than this code, or a step on the way is missing.
    """
    if version > newest:
        raise UnknownEvent(topic, version)
    while version < newest:
        step = upcasters.get((topic, version))
        if step is None:
            raise UnknownEvent(topic, version)
        shape = step(shape)
        version += 1
    return shape
