"""The operations of both clients, without input or output, by noun.

The first parameter of each is what it is a method of: the `session` of a client, or `within`, the
dataset of a client. It is the method's `self`, and no docstring describes it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def operation_of(module: str, name: str) -> Any:
    """Import a module of this package, and return one of its operations."""
    return getattr(import_module(f".{module}", __name__), name)
