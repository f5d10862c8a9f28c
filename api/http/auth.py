"""Who comes in and what they may do: bearer tokens, and the permission that each route names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from recordledger.domain.admin.access import PERMISSIONS, Permission, Role
from recordledger.projections.actions.tokens import authenticate, token_hash
from recordledger.projections.ledger import Ledger

from .errors import RoleForbidden, Unauthenticated

_CACHED_MAX: Final = 10_000
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose request it is."""

    user: str
    role: Role

    @property
    def actor(self) -> str:
        """The visitor as the events name them."""
        return f"user:{self.user}"

    def may(self, permission: Permission) -> bool:
        """Return whether the visitor's role includes this."""
        return permission in PERMISSIONS[self.role]


class Doorkeeper:
    """Looks tokens up, and remembers the valid ones for a moment."""

    def __init__(self, ledger: Ledger, cache_s: float) -> None:
        """Remember nothing yet."""
        self._ledger = ledger
        self._cache_s = cache_s
        self._known: dict[bytes, tuple[Visitor, float]] = {}

    def remembered(self, secret: str) -> Visitor | None:
        """Return whose token it is if it was looked up a moment ago."""
        visitor, until = self._known.get(token_hash(secret), (None, 0.0))
        return visitor if time.monotonic() < until else None

    def look_up(self, secret: str) -> Visitor:
        """Return whose token it is.

        Raises:
            Unauthenticated: nobody's, or it has expired, or it was revoked.
            StoreUnavailable: the database does not answer.
        """
        token = authenticate(self._ledger, secret)
        if token is None:
            raise Unauthenticated(
                "the token is wrong, has expired or was revoked; ask an administrator for a new one"
            )
        visitor = Visitor(token.user, token.role)
        if len(self._known) >= _CACHED_MAX:
            self._known.clear()
        self._known[token.token_hash] = visitor, time.monotonic() + self._cache_s
        return visitor

    def forget(self) -> None:
        """Look every token up again when it comes next."""
        self._known.clear()


def secret_of(request: Request) -> str:
    """Return the token that a request shows.

    Raises:
        Unauthenticated: it shows none.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated("send a token, in the header 'Authorization: Bearer <token>'")
    return secret


class _Allowed:
    """A dependency that lets visitors in who have one of the permissions."""

    def __init__(self, permissions: tuple[Permission, ...]) -> None:
        self.permissions = permissions

    async def __call__(self, request: Request) -> Visitor:
        visitor: Visitor = await request.app.state.desk.visitor(secret_of(request))
        if not any(visitor.may(permission) for permission in self.permissions):
            raise RoleForbidden(visitor.role, self.permissions)
        return visitor


def allowed(*permissions: Permission) -> Any:
    """Return the dependency of a route that needs one of these permissions."""
    return Depends(_Allowed(permissions))


def open_to_all(endpoint: Endpoint) -> Endpoint:
    """Declare that a route needs no token."""
    endpoint.open_to_all = True  # type: ignore[attr-defined]
    return endpoint


def permissions_of(route: APIRoute) -> tuple[Permission, ...]:
    """Return the permissions of which a route needs one; none if it is open to all.

    Raises:
        RuntimeError: it does not say.
    """
    found = [
        dependant.call.permissions
        for dependant in _dependants(route.dependant)
        if isinstance(dependant.call, _Allowed)
    ]
    is_open = getattr(route.endpoint, "open_to_all", False)
    if len(found) + is_open != 1:
        raise RuntimeError(
            f"{route.path} must declare its permission exactly once, by `allowed` or by "
            "`open_to_all`"
        )
    return () if is_open else found[0]


def require_permissions(app: FastAPI) -> None:
    """Refuse an app with a route that does not say who may use it.

    Raises:
        RuntimeError: there is such a route.
    """
    for route in app.routes:
        if not isinstance(route, APIRoute):
            raise RuntimeError(f"{route!r} is not a route that can declare a permission")  # noqa: TRY004
        permissions_of(route)


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _dependants(inner)
