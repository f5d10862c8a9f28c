"""Methods made from operations: what `help()` and notebooks show of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

_HIDDEN: Final = ("    session: the client's.\n", "    within: the dataset's.\n")


def documented(call: Callable[..., Any]) -> str:
    """Return an operation's docstring as a method has it: `self` is not described."""
    # Python 3.13 takes the indentation out of docstrings, and older ones leave it in.
    text = inspect.cleandoc(call.__doc__ or "")
    for hidden in _HIDDEN:
        text = text.replace(hidden, "")
    return text


def present(method: Callable[..., Any], call: Callable[..., Any], wrapped: str) -> None:
    """Give a method the name, the docstring and the signature that a user shall see.

    Args:
        method: the method that a client has.
        call: the operation; its first parameter is the client's `self`.
        wrapped: how the method wraps the operation's result, with `{}` for that.
    """
    signature = inspect.signature(call)
    _, *parameters = signature.parameters.values()
    result = str(signature.return_annotation)
    result = result.removeprefix("Operation[").removesuffix("]")
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *parameters,
        ],
        return_annotation=wrapped.format(result),
    )
    method.__name__ = call.__name__
    method.__doc__ = documented(call)
    method.__wrapped__ = call  # type: ignore[attr-defined]
