"""Coordinates, flat or in rows, and the little algebra of vectors that the services need.

Lists of floats, so that running services needs no NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

Coordinates: TypeAlias = list[float] | list[list[float]]
Vector: TypeAlias = list[float]


def flatten(value: Any) -> Vector | None:
    """Return numbers, or rows of numbers, as one list of floats; None if they are neither.

    >>> flatten([[0, 1.5], [2, 3]])
    [0.0, 1.5, 2.0, 3.0]
    """
    if not isinstance(value, list):
        return None
    flat: Vector = []
    for item in cast("list[object]", value):
        for number in cast("list[object]", item) if isinstance(item, list) else (item,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                return None
            flat.append(float(number))
    return flat


def like(flat: Sequence[float], template: Coordinates) -> Coordinates:
    """Return the numbers in the shape of the template.

    >>> like([1.0, 2.0, 3.0, 4.0], [[0.0, 0.0], [0.0, 0.0]])
    [[1.0, 2.0], [3.0, 4.0]]
    """
    numbers = iter(flat)
    return cast(
        "Coordinates",
        [
            [next(numbers) for _ in item] if isinstance(item, list) else next(numbers)
            for item in template
        ],
    )


def shape(value: Coordinates) -> tuple[int, ...]:
    """Return the lengths of the rows, or the number of coordinates if there are no rows."""
    return tuple(len(item) if isinstance(item, list) else -1 for item in value)


def plus(left: Vector, right: Vector, scale: float = 1.0) -> Vector:
    """Return `left + scale * right`."""
    return [a + scale * b for a, b in zip(left, right, strict=True)]


def minus(left: Vector, right: Vector) -> Vector:
    """Return `left - right`."""
    return [a - b for a, b in zip(left, right, strict=True)]


def times(scale: float, vector: Vector) -> Vector:
    """Return `scale * vector`."""
    return [scale * a for a in vector]


def dot(left: Vector, right: Vector) -> float:
    """Return the inner product."""
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def norm(vector: Vector) -> float:
    """Return the length."""
    return math.sqrt(dot(vector, vector))


def largest(vector: Vector) -> float:
    """Return the largest absolute component."""
    return max((abs(a) for a in vector), default=0.0)
