"""Sending to webhooks: signed by the scheme of Standard Webhooks, and to public addresses only.

The host is looked up once for each message, every address that it has is judged, and the
connection is made to the very address that was judged: a name that leads elsewhere a moment later
changes nothing. No redirect is followed and no proxy is asked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from ipaddress import ip_address
from threading import Timer
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from pydantic_core import to_json

from recordledger.domain.admin.addresses import NOWHERE_ELSE, Address, Allowed, plain
from recordledger.domain.admin.webhook import URL_CHARACTERS_MAX
from recordledger.domain.errors import AddressRefused

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how secrets begin
EVENTS_TYPE: Final = "ledger.events"
TEST_TYPE: Final = "ledger.test"

_SCHEMES: Final[Mapping[str, int]] = {"https": 443, "http": 80}
_ANSWER_BYTES_MAX: Final = 1_024
_ERROR_CHARACTERS_MAX: Final = 300


class ConnectionTarget(NamedTuple):
    """Where to connect to: the addresses that were judged, and what was asked for by name."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[Address, ...]

    @property
    def name(self) -> str:
        """The host as it is asked for, with its port if that is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEMES[self.scheme] else f"{host}:{self.port}"


class Result(NamedTuple):
    """The outcome of a message: the status of the answer, or why there was none.

    `retry_after_s` is what the receiver asked for.
    """

    status_code: int | None
    error: str | None
    duration_s: float
    retry_after_s: float = 0.0

    @property
    def has_arrived(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more of them."""
        return self.status_code == http.client.GONE


Lookup = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return all addresses of a host.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends messages to webhooks.

    Attributes:
        allowed: where they may be besides the public Internet, and be reached without TLS.
        timeout_s: for how long a message may take in all.
        lookup: finds the addresses of a host.
        tls: how the receiver's certificate is judged; None as this machine does it.
    """

    allowed: Allowed = NOWHERE_ELSE
    timeout_s: float = 15.0
    lookup: Lookup = resolve
    tls: ssl.SSLContext | None = None

    def target(self, url: str) -> ConnectionTarget:
        """Return where a webhook is; it is looked up now, and every address is judged.

        Raises:
            AddressRefused: no webhook may be there; the message says why.
        """
        parts, port = _parsed(url)
        host = parts.hostname or ""
        try:
            texts = self.lookup(host, port)
        except (OSError, UnicodeError) as error:
            raise AddressRefused(f"{host} cannot be looked up: {error}") from error
        addresses: list[Address] = []
        for text in texts:
            try:
                address = ip_address(text)
            except ValueError:
                raise AddressRefused(
                    f"{host} has the address {text[:60]!r}, which is not an IP address"
                ) from None
            if not self.allowed.admits(address):
                raise AddressRefused(
                    f"{host} has the address {address}, which is not on the public Internet "
                    "(setting webhook_allow_private)"
                )
            if parts.scheme == "http" and not self.allowed.is_private(address):
                raise AddressRefused(
                    f"{host} is only reached over https (setting webhook_allow_private)"
                )
            addresses.append(plain(address))
        if not addresses:
            raise AddressRefused(f"{host} has no address")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return ConnectionTarget(parts.scheme, host, port, path, tuple(addresses))

    def send(self, url: str, secret: bytes, message_id: str, body: bytes) -> Result:
        """Send a message; return its outcome. It does not raise what the receiver may cause."""
        started = time.monotonic()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"recordledger/{version('recordledger')}",
            "Connection": "close",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secret, message_id, now, body),
        }
        error: str | None = None
        status, retry_after_s = None, 0.0
        try:
            status, retry_after_s = self._post(self.target(url), headers, body, started)
            if not 200 <= status < 300:
                error = _refusal(status)
        except AddressRefused as refused:
            error = str(refused)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
            if time.monotonic() - started >= self.timeout_s:
                error = f"no answer within {self.timeout_s:g} s"
        shown = None if error is None else error[:_ERROR_CHARACTERS_MAX]
        return Result(status, shown, time.monotonic() - started, retry_after_s)

    def _post(
        self, target: ConnectionTarget, headers: Mapping[str, str], body: bytes, started: float
    ) -> tuple[int, float]:
        left_s = self.timeout_s - (time.monotonic() - started)
        if left_s <= 0:
            raise TimeoutError("the host took too long to look up")
        with _Connection(target, left_s, self.tls) as connection:
            connection.request(
                "POST", target.path, body=body, headers={"Host": target.name, **headers}
            )
            response = connection.getresponse()
            # What it says is of no interest; reading some lets it end in peace.
            with suppress(OSError, http.client.HTTPException):
                response.read(_ANSWER_BYTES_MAX)
            return response.status, _retry_after_s(response.getheader("retry-after"))


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was judged, which ends in time however slow the other is."""

    def __init__(
        self, target: ConnectionTarget, timeout_s: float, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self._target = target
        self._tls = tls
        self._ends_at = time.monotonic() + timeout_s
        self._timer = Timer(timeout_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Connection:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.close()

    def connect(self) -> None:
        """Connect to the first of the addresses that takes the connection."""
        failure: OSError | None = None
        for address in self._target.addresses:
            left_s = max(0.001, self._ends_at - time.monotonic())
            try:
                found = socket.create_connection((str(address), self._target.port), left_s)
            except OSError as error:
                failure = error
                continue
            self.sock = found
            if self._target.scheme == "https":
                context = self._tls or ssl.create_default_context()
                # The certificate is judged by the name, although the name was not connected to.
                self.sock = context.wrap_socket(found, server_hostname=self._target.host)
            return
        raise failure or TimeoutError("the time limit was used up before connecting")

    def _cut(self) -> None:
        """End the connection: each of its operations has a time limit, and this is one for all."""
        found = self.sock
        if found is not None:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


def new_message_id() -> str:
    """Return an id for a message."""
    return f"msg_{uuid4().hex}"


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, as its header has it."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(secret, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def shown_secret(secret: bytes) -> str:
    """Return a secret as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def message(message_type: str, timestamp: object, data: Mapping[str, object]) -> bytes:
    """Return the body of a message."""
    return to_json({"type": message_type, "timestamp": timestamp, "data": data})


def _parsed(url: str) -> tuple[SplitResult, int]:
    """Return the parts of a webhook's address, and its port.

    Raises:
        AddressRefused: the address is not allowed for a webhook.
    """
    if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressRefused(
            f"the address has more than {URL_CHARACTERS_MAX} characters, or some that are not of "
            "ASCII, or spaces"
        )
    try:
        parts = urlsplit(url)
        port = parts.port or _SCHEMES.get(parts.scheme, 0)
    except ValueError as error:
        raise AddressRefused(f"the address cannot be read: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise AddressRefused("the address must begin with https://")
    if not parts.hostname or "%" in parts.hostname or "\\" in url:
        raise AddressRefused("the address names no host")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("the address must not have a user or password: messages are signed")
    return parts, port


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}"


def _retry_after_s(asked: str | None) -> float:
    """Return how long the receiver wants to be left alone, in seconds."""
    if asked is None:
        return 0.0
    with suppress(ValueError):
        return max(0.0, min(float(asked), 86_400.0))
    with suppress(ValueError, TypeError):
        return max(0.0, min(parsedate_to_datetime(asked).timestamp() - time.time(), 86_400.0))
    return 0.0
