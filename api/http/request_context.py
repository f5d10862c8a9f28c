"""Where every request goes: its body is read, its work is done off the event loop, it is answered.

Decoding, work and encoding run in one hop to a worker thread, because each of them can take many
milliseconds for a bulk request, and the event loop must go on serving heartbeats meanwhile.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.errors import InvalidInput, SchemaMismatch, StoreUnavailable
from recordledger.domain.streams import Stream
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import queries
from recordledger.projections.tables import schema
from recordledger.projections.tables.idempotency import RequestKey

from ..settings import Settings
from .auth import Doorkeeper, Visitor
from .cursors import Listing, ListPages
from .errors import refusal_of
from .followers import Followers
from .metrics import Metrics
from .wire import Encoded, Format, Reply, decode, encode, inflate, negotiate, read

KEY_HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as the work of a route sees it.

    Attributes:
        desk: what the work may use.
        visitor: whose request it is.
        body: the decoded body.
        key: identifies the request if it may be sent again.
        wanted: how the answer will be written.
    """

    desk: RequestContext
    visitor: Visitor
    body: Any
    key: RequestKey | None
    wanted: Format

    def pages(self, listed: Stream | Listing, *positions: int) -> ListPages:
        """Return the pages of a list; of one that there was at these positions of the log."""
        return ListPages(self.desk.ledger_id, listed, positions)

    def parse(self, model: type[Model]) -> Model:
        """Return the body as the request that it must be.

        Raises:
            ValidationFailed: it is not.
        """
        try:
            return model.model_validate(self.body)
        except ValidationError as error:
            raise refusal_of(error) from error


class RequestContext:
    """What the routes of one app share."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        """Serve this ledger with these limits."""
        self.ledger = ledger
        self.settings = settings
        self.metrics = Metrics(ledger)
        self.followers = Followers(
            ledger,
            limit=settings.followers_max,
            buffer=settings.follow_buffer,
            heartbeat_s=settings.follow_heartbeat_s,
            gauge=self.metrics.followers,
        )
        self.doorkeeper = Doorkeeper(ledger, settings.token_cache_s)
        # One connection stays free: a transaction that meets an unknown lane reads through another.
        self._limiter = anyio.CapacityLimiter(settings.pool_size - 1)
        self._schema_fits = False
        self._ledger_id: UUID | None = None

    @property
    def ledger_id(self) -> UUID:
        """Which ledger this is.

        Raises:
            StoreUnavailable: the database does not answer, and was not asked before.
        """
        if self._ledger_id is None:
            self._ledger_id = queries.ledger_id(self.ledger)
        return self._ledger_id

    def check_schema(self) -> None:
        """Return if the database can be used; asked until it was seen once.

        Raises:
            SchemaMismatch: its schema is not the one that this code works with.
            StoreUnavailable: it does not answer.
        """
        if not self._schema_fits:
            schema.check(self.settings.database_url, self.settings.database_schema)
            self._schema_fits = True

    def usable(self) -> bool:
        """Return whether the database answers and can be used."""
        try:
            self.check_schema()
            queries.head(self.ledger)
        except (StoreUnavailable, SchemaMismatch):
            return False
        return True

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns; it may block."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def visitor(self, secret: str) -> Visitor:
        """Return whose token this is.

        Raises:
            Unauthenticated: nobody's.
            StoreUnavailable: the database does not answer.
        """
        known = self.doorkeeper.remembered(secret)
        if known is not None:
            return known

        def look_up() -> Visitor:
            self.check_schema()
            return self.doorkeeper.look_up(secret)

        return await self.in_thread(look_up)

    async def answer(
        self, request: Request, visitor: Visitor, work: Callable[[Call], Reply]
    ) -> Response:
        """Return the answer to a request: what `work` makes of it, in the form that is wanted."""
        with_body = request.method in ("POST", "PATCH")
        terms = negotiate(request.headers, with_body=with_body)
        key = _key_of(request)
        size_bytes_max = self.settings.body_bytes_max
        data = await read(request, size_bytes_max) if with_body else b""

        def serve() -> Encoded:
            self.check_schema()
            body = inflate(data, terms.coding, size_bytes_max)
            call = Call(
                self,
                visitor,
                decode(body, terms.given),
                None if key is None else _request_key(request, visitor, key, body),
                terms.wanted,
            )
            return encode(work(call), terms)

        encoded = await self.in_thread(serve)
        return Response(encoded.data, encoded.status, headers=encoded.headers)


def desk_of(request: Request) -> RequestContext:
    """Return the desk of the app that serves a request."""
    desk: RequestContext = request.app.state.desk
    return desk


def endpoint(
    who: Any,
) -> Callable[[Callable[Concatenate[Call, P], Reply]], Callable[..., Awaitable[Response]]]:
    """Make the endpoint of a route out of a function that turns a call into a reply.

    The function's further parameters are those of path and query, as FastAPI reads them. It is run
    in a thread of its own and may block.

    Args:
        who: who may call the route, like `Annotated[Visitor, allowed(Permission.read)]`.
    """

    def decorate(work: Callable[Concatenate[Call, P], Reply]) -> Callable[..., Awaitable[Response]]:
        async def answer(request: Request, visitor: Visitor, **given: Any) -> Response:
            return await desk_of(request).answer(
                request,
                visitor,
                lambda call: work(call, **given),  # type: ignore[call-arg]
            )

        # What FastAPI reads: its annotations are those of the module that `work` is in.
        signature = inspect.signature(work, eval_str=True)
        _, *given = signature.parameters.values()
        own = [
            Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=Request),
            Parameter("visitor", Parameter.POSITIONAL_OR_KEYWORD, annotation=who),
        ]
        answer.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *given], return_annotation=Response
        )
        answer.__name__, answer.__qualname__ = work.__name__, work.__qualname__
        answer.__doc__, answer.__module__ = work.__doc__, work.__module__
        return answer

    return decorate


def answer_openly(reply: Reply, request: Request, *, status: int = 200) -> Response:
    """Return an answer that needs neither token nor body."""
    encoded = encode(reply, negotiate(request.headers, with_body=False))
    return Response(encoded.data, status, headers=encoded.headers)


def _key_of(request: Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{KEY_HEADER} must have 1 to 200 printable ASCII characters without spaces"
        )
    return key


def _request_key(request: Request, visitor: Visitor, key: str, body: bytes) -> RequestKey:
    asked = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    asked.update(body)
    return RequestKey(visitor.actor, key, asked.digest())
