"""The web application: routes, errors and metrics around one ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recordledger import __version__
from recordledger.domain.errors import StoreUnavailable
from recordledger.projections.ledger import Ledger

from .http import auth, errors, openapi
from .http.followers import STREAM_HEADER
from .http.request_context import RequestContext
from .routes import (
    dataset_edits,
    datasets,
    diff,
    events,
    management,
    managers,
    operations,
    origins,
    proofs,
    records,
    routing,
    self_audit,
    server,
    services,
    tokens,
    webhooks,
)
from .settings import Settings

log = logging.getLogger(__name__)

# What a client that went away is counted as, since it got no status (nginx's number).
_CLIENT_GONE: Final = 499
# In this order: `/v1/records/errors` is looked at before `/v1/records/{record_id}`.
_ROUTERS: Final = (
    management.router,
    records.router,
    routing.router,
    operations.router,
    datasets.router,
    dataset_edits.router,
    events.router,
    proofs.router,
    diff.router,
    origins.router,
    services.router,
    services.views,
    managers.router,
    tokens.router,
    webhooks.router,
    self_audit.router,
    server.router,
)


def create_app(settings: Settings, ledger: Ledger | None = None) -> FastAPI:
    """Return the application.

    It starts also while the database does not answer; requests get 503 until it does.

    Args:
        settings: where the database is, and the limits.
        ledger: used instead of one that is made from the settings, and left open at the end.

    Raises:
        RuntimeError: a route does not say who may use it.
    """
    desk_ledger = ledger or Ledger(
        settings.database_url,
        settings.database_schema,
        pool_size=settings.pool_size,
        timeout_s=settings.database_timeout_s,
    )
    desk = RequestContext(desk_ledger, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        try:
            await desk.in_thread(desk.check_schema)
        except StoreUnavailable as error:
            log.warning("started without the database: %s", error)
        try:
            yield
        finally:
            desk.followers.close()
            await desk.in_thread(desk.followers.join)
            if ledger is None:
                await desk.in_thread(desk_ledger.close)

    app = FastAPI(
        title="Record Ledger",
        version=__version__,
        description="The event-sourced system of record for large numbers of computations.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # The routes find the ledger here, and each must have declared its permission by now.
    app.state.desk = desk
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)
    auth.require_permissions(app)
    errors.install(app)
    app.add_middleware(_Watch, desk=desk)
    # The description takes a while, so it is made at the first request for it.
    described: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not described:
            described.update(openapi.describe(app))
        return described

    app.openapi = describe  # type: ignore[method-assign]
    return app


class _Watch:
    """Counts and times requests, and answers those that run into a bug."""

    def __init__(self, app: ASGIApp, desk: RequestContext) -> None:
        self._app = app
        self._metrics = desk.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, is_stream, answered_at = 0, False, 0.0

        async def note_status(message: Message) -> None:
            nonlocal status, is_stream, answered_at
            if message["type"] == "http.response.start":
                status, answered_at = message["status"], time.perf_counter()
                is_stream = STREAM_HEADER in message["headers"]
                if is_stream:
                    # It is answered, and goes on; followers are counted by themselves.
                    self._metrics.in_flight.dec()
            await send(message)

        started = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, note_status)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception as error:
            if status:
                raise
            response = errors.unknown_fault(scope["method"], scope["path"], error)
            await response(scope, receive, note_status)
        finally:
            ended_at = answered_at if is_stream else time.perf_counter()
            if not is_stream:
                self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.note_request(
                route, scope["method"], status or _CLIENT_GONE, ended_at - started
            )
