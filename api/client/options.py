"""What both clients are made from: where the server is, and the settings of HTTP."""

from __future__ import annotations

import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypedDict

import httpx2

from . import wire
from .connection import Connection, find_connection
from .errors import NotConnected
from .exchange import ExchangeFault, Session

_CONNECT_S = 10.0
# Shorter than the server keeps an idle connection, and than most proxies do.
_KEEP_ALIVE_S = 30.0
# Longer than the server is silent to those who follow the log.
STREAM_TIMEOUT: Final = httpx2.Timeout(90.0, connect=_CONNECT_S)


class HttpOptions(TypedDict):
    """Arguments that `httpx2.Client` and `httpx2.AsyncClient` share."""

    base_url: str
    headers: dict[str, str]
    timeout: httpx2.Timeout
    limits: httpx2.Limits
    trust_env: bool
    verify: bool


def open_session(
    url: str | None,
    token: str | None,
    token_file: str | Path | None,
    timeout_s: float,
    retries_s: float | None,
    progress: bool | None,
) -> tuple[Session, HttpOptions]:
    """Return what the operations share, and how to send their requests."""
    connection = find_connection(url, token, token_file)
    session = Session(connection.url, retries_s, progress, connection.token, connection.read_token)
    return session, _http_options(connection, timeout_s)


def fault_of(error: httpx2.TransportError) -> ExchangeFault:
    """Return what kept a request from being answered, and whether trying again is in vain."""
    detail = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    is_lasting = isinstance(cause, ssl.SSLCertVerificationError) or isinstance(
        error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError
    )
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
    return ExchangeFault(detail, was_sent=not isinstance(error, unsent), is_lasting=is_lasting)


def closed(session: Session) -> NotConnected:
    """Return the error of a call to a client that was closed."""
    return NotConnected("this client is closed; create a new one", url=session.url)


def _http_options(connection: Connection, timeout_s: float) -> HttpOptions:
    headers = {
        "Accept": wire.MEDIA_TYPE,
        # On one machine, compressing an answer takes longer than sending it.
        "Accept-Encoding": "identity" if connection.is_local else "zstd, gzip",
        "User-Agent": f"recordledger/{version('recordledger')}",
    }
    return {
        "base_url": connection.url,
        "headers": headers,
        "timeout": httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
        "limits": httpx2.Limits(keepalive_expiry=_KEEP_ALIVE_S),
        # No proxy of the environment is asked for a server on this machine.
        "trust_env": not connection.is_local,
        # Loading the certificates takes longer than many a call, and plain HTTP has none.
        "verify": connection.url.startswith("https:") or not connection.is_local,
    }
