"""Methods made from operations: what `help()` and notebooks show of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any, ParamSpec, TypeVar, cast

from .on_demand import CallOnDemand

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class _Method:
    """A method that gets its name, docstring and signature when it is first used or looked at.

    They are those of an operation, whose module need not be imported before. The class then has
    the function itself in place of this.
    """

    def __init__(self, function: Callable[..., Any], describe: Callable[[], None]) -> None:
        self._function = function
        self._describe = describe

    def __set_name__(self, owner: type, name: str) -> None:
        """Note where it is."""
        self._owner = owner
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the method, described."""
        self._describe()
        setattr(self._owner, self._name, self._function)
        return getattr(owner if instance is None else instance, self._name)


def presented(method: Callable[P, T], call: Callable[..., Any], wrapped: str) -> Callable[P, T]:
    """Return the method with the name, the docstring and the signature that a user shall see.

    Args:
        method: the method that a client has.
        call: the operation; its first parameter is the client's `self`.
        wrapped: how the method wraps the operation's result, with `{}` for that.
    """

    def describe() -> None:
        operation = _operation(call)
        method.__signature__ = _signature(operation, wrapped)  # type: ignore[attr-defined]
        method.__name__ = operation.__name__
        method.__doc__ = _documented(operation)
        method.__wrapped__ = operation  # type: ignore[attr-defined]

    return cast("Callable[P, T]", _Method(method, describe))


def documented_as(call: Callable[..., Any]) -> Callable[[F], F]:
    """Give a method that is written out the docstring of the operation that it calls."""

    def decorate(method: F) -> F:
        def describe() -> None:
            method.__doc__ = _documented(_operation(call))

        return cast("F", _Method(method, describe))

    return decorate


def put(owner: type, name: str, method: Any) -> None:
    """Give a class a method, as if it stood in its body."""
    setattr(owner, name, method)
    if isinstance(method, _Method):
        method.__set_name__(owner, name)


def _operation(call: Callable[..., Any]) -> Callable[..., Any]:
    return call.operation if isinstance(call, CallOnDemand) else call


def _signature(operation: Callable[..., Any], wrapped: str) -> inspect.Signature:
    """Return the signature of a method: `self` in the place of the operation's first parameter."""
    signature = inspect.signature(operation)
    _, *given = signature.parameters.values()
    result = str(signature.return_annotation).removeprefix("Operation[").removesuffix("]")
    parameters = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    for parameter in given:
        if parameter.kind is Parameter.VAR_KEYWORD:
            parameters += _unpacked(operation, str(parameter.annotation))
        else:
            parameters.append(parameter)
    return signature.replace(parameters=parameters, return_annotation=wrapped.format(result))


def _unpacked(operation: Callable[..., Any], annotation: str) -> Iterator[Parameter]:
    """Yield each keyword of an operation that has them as `**which: Unpack[...]`."""
    named = operation.__globals__[annotation.removeprefix("Unpack[").removesuffix("]")]
    for name, hint in named.__annotations__.items():
        text = getattr(hint, "__forward_arg__", hint)
        default = False if text == "bool" else None
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=text)


def _documented(operation: Callable[..., Any]) -> str:
    """Return an operation's docstring."""
    # Python 3.13 takes the indentation out of docstrings, and older ones leave it in.
    return inspect.cleandoc(operation.__doc__ or "")
