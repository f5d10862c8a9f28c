"""Runs the web application under uvicorn, in this process."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from recordledger.domain.errors import StoreUnavailable
from recordledger.projections.tables import schema

from .app import create_app
from .http.request_context import RequestContext
from .settings import Settings

# Longer than clients keep idle connections, so that it is not the server that closes them.
_KEEP_ALIVE_S: Final = 75


def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, let running requests end, and return.

    Call it in the main thread.

    Args:
        settings: what to serve, and where.
        on_ready: called with the URL when connections are accepted.

    Raises:
        SchemaMismatch: the database is not one that this code works with.
        OSError: the address cannot be listened on.
    """
    # If the database does not answer, the application says so in its log and waits for it.
    with contextlib.suppress(StoreUnavailable):
        schema.check(settings.database_url, settings.database_schema)
    server = LedgerServer(settings, on_ready)
    # What is there now stays until the end. Each full collection would walk over all of it, which
    # took a sixth of the time of large submissions.
    gc.collect()
    gc.freeze()

    def end(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has handlers of its own while it runs, and at the end sends itself what they caught:
    # with these it returns then, instead of being killed.
    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class LedgerServer(uvicorn.Server):
    """A uvicorn server for the application, which has its address from the beginning."""

    def __init__(self, settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
        """Listen; call `on_ready` with the URL when connections are served.

        Raises:
            OSError: the address is taken, or is not this machine's.
        """
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.create_server((settings.host, settings.port), family=family)
        self._on_ready = on_ready
        app = create_app(settings)
        self._desk: RequestContext = app.state.desk
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_level="warning",
                server_header=False,
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.shutdown_timeout_s,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `stop` is called or a signal arrives."""
        super().run(sockets or [self._socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Disconnect followers, which would stay for ever, and let all other requests end."""
        self._desk.followers.close()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then report that connections are accepted."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self.url)
