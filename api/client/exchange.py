"""Requests and answers without I/O: what to send, when to try again, what an answer means.

An operation is a generator. It yields a `Send` and is given the `Reply` or the `ExchangeFault`; it
yields a `Sleep` and is resumed when the time has passed; it returns its result. `Client` and
`AsyncClient` do the sending and the sleeping, each in its way, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from ..schemas.base import Problem
from . import wire
from .errors import ClientError, NotConnected, ServerFault, error_of

if TYPE_CHECKING:
    from .results.server import Server

TIMEOUT_S: Final = 30.0
RETRIES_S: Final = 60.0
# For a server that has never answered: rather a wrong address than a short absence.
FIRST_RETRIES_S: Final = 5.0

_DELAY_MIN_S: Final = 0.1
_DELAY_MAX_S: Final = 5.0
_WARN_AFTER_S: Final = 3.0
_UNAUTHORIZED: Final = 401
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this request. Sending it twice is harmless (it is a read, or has a key), or else not.

    The body of a stream is not read, but given back as it comes.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    is_repeatable: bool = True
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Come back when this time has passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered. Headers are found by names in lower case.

    `source` is what the sender of the request reads the body of a stream from.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    source: Any = None


@dataclass(frozen=True, slots=True)
class ExchangeFault:
    """There was no whole answer.

    Attributes:
        detail: what happened.
        was_sent: whether the server may have done its work.
        is_lasting: whether trying again is in vain.
    """

    detail: str
    was_sent: bool = True
    is_lasting: bool = False


Step: TypeAlias = Send | Sleep
Outcome: TypeAlias = Reply | ExchangeFault | None

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=BaseModel)
Operation: TypeAlias = Generator[Step, Outcome, T]


@dataclass(slots=True)
class Session:
    """What the operations of one client share. Threads may write the same thing twice, no more.

    Attributes:
        url: the server's address.
        retries_s: for how long to try again, in seconds; None for the default.
        progress: whether to show bars; None where a person may see them.
        token: with which requests are sent; it changes when the server refuses it.
        read_token: returns the token as it is now; None where it cannot change.
        has_answered: whether the server ever did.
        server: what it said of itself.
    """

    url: str
    retries_s: float | None = None
    progress: bool | None = None
    token: str | None = field(default=None, repr=False)
    read_token: Callable[[], str | None] | None = field(default=None, repr=False)
    has_answered: bool = field(default=False, init=False)
    server: Server | None = field(default=None, init=False)

    @property
    def patience_s(self) -> float:
        """For how long to try again, in seconds."""
        if self.retries_s is not None:
            return self.retries_s
        return RETRIES_S if self.has_answered else FIRST_RETRIES_S

    def renew_token(self, refused: str | None) -> bool:
        """Return whether there is another token than the one that was refused, and use it."""
        if self.read_token is not None and self.token == refused:
            # The file may just be being replaced.
            with contextlib.suppress(ClientError):
                self.token = self.read_token() or refused
        return self.token != refused


def get(
    session: Session, path: str, shape: type[AnswerT], *, give_up_at: float | None = None
) -> Operation[AnswerT]:
    """Read something."""
    reply = yield from _exchange(session, Send("GET", path, {}), give_up_at)
    return _shaped(session, shape, reply)


def text(session: Session, path: str) -> Operation[str]:
    """Read text that has to stay as it is, byte for byte."""
    reply = yield from _exchange(session, Send("GET", path, {}), None)
    try:
        return reply.body.decode()
    except UnicodeDecodeError as error:
        raise ServerFault(f"{session.url} sent bytes where text was expected") from error


def stream(session: Session, path: str, *, patience_s: float | None = None) -> Operation[Any]:
    """Begin to read something that does not end; return where it is read from.

    Args:
        session: the client's.
        path: below the server's address.
        patience_s: for how long to try, in seconds; None leaves it to the session.
    """
    send = Send("GET", path, {"Accept": "text/event-stream"}, is_stream=True)
    reply = yield from _exchange(session, send, None, patience_s)
    return reply.source


def post(
    session: Session,
    path: str,
    shape: type[AnswerT],
    body: bytes,
    *,
    method: str = "POST",
    is_repeatable: bool = True,
    give_up_at: float | None = None,
) -> Operation[AnswerT]:
    """Ask for something, under a key of its own, so that it happens once however often it is sent.

    Args:
        session: the client's.
        path: below the server's address.
        shape: of the answer.
        body: msgpack.
        method: of HTTP.
        is_repeatable: False where the server cannot honour the key.
        give_up_at: try no longer than until then, by the monotonic clock; None leaves it to the
            session.
    """
    compressed, encoding = wire.compress(body)
    headers = {"Content-Type": wire.MEDIA_TYPE, "Idempotency-Key": uuid4().hex} | encoding
    reply = yield from _exchange(
        session, Send(method, path, headers, compressed, is_repeatable), give_up_at
    )
    return _shaped(session, shape, reply)


def server(session: Session) -> Operation[Server]:
    """Return what the server says of itself; asked for once."""
    found = session.server
    if found is None:
        from .results.server import Server

        found = session.server = yield from get(session, "/v1/server", Server)
    return found


def _exchange(
    session: Session, send: Send, give_up_at: float | None, patience_s: float | None = None
) -> Operation[Reply]:
    """Send until there is an answer that counts; return it.

    The pauses are random between nothing and a bound that doubles ("full jitter"), so that
    clients which lost their server together do not come back together.
    """
    started_at = time.monotonic()
    bound_s, warned, renewed = _DELAY_MIN_S, False, False
    while True:
        token = session.token
        outcome = yield _signed(send, token)
        session.has_answered |= isinstance(outcome, Reply)
        if isinstance(outcome, Reply) and outcome.status not in _TRY_AGAIN:
            if outcome.status == _UNAUTHORIZED and not renewed and session.renew_token(token):
                renewed = True
                continue
            return _good(session, outcome)
        now = time.monotonic()
        end = started_at + (session.patience_s if patience_s is None else patience_s)
        left_s = (end if give_up_at is None else min(end, give_up_at)) - now
        pause_s = _pause_s(outcome, bound_s)
        bound_s = min(2 * bound_s, _DELAY_MAX_S)
        if left_s <= 0 or _is_final(send, outcome) or _asked_pause_s(outcome) > left_s:
            raise _final_error(session, outcome, now - started_at)
        if not warned and now - started_at > _WARN_AFTER_S:
            warned = True
            _log.warning("%s (trying for another %.0f s)", _error_text(session, outcome), left_s)
        yield Sleep(min(pause_s, left_s))


def _signed(send: Send, token: str | None) -> Send:
    """Return the request as this token's bearer sends it."""
    if token is None:
        return send
    return replace(send, headers={**send.headers, "Authorization": f"Bearer {token}"})


def _is_final(send: Send, outcome: Outcome) -> bool:
    """Return whether the request must not be sent again, or would be in vain."""
    match outcome:
        case ExchangeFault(was_sent=was_sent, is_lasting=is_lasting):
            return is_lasting or (was_sent and not send.is_repeatable)
        case Reply(status=status):
            # A proxy's answers leave open what the server behind it has done.
            return status in (502, 504) and not send.is_repeatable
        case None:  # pragma: no cover
            return True


def _pause_s(outcome: Outcome, bound_s: float) -> float:
    jitter_s = random.uniform(0, bound_s)  # noqa: S311  # nobody gains by guessing it
    return _asked_pause_s(outcome) + jitter_s


def _asked_pause_s(outcome: Outcome) -> float:
    """Return the pause that the server asks for, in seconds; a date counts by our clock."""
    if not isinstance(outcome, Reply) or (asked := outcome.headers.get("retry-after")) is None:
        return 0.0
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


def _error_text(session: Session, outcome: Outcome) -> str:
    match outcome:
        case Reply(status=status):
            return f"{session.url} answers {status}"
        case ExchangeFault(detail=detail):
            return f"no answer from {session.url}: {detail}"
        case None:  # pragma: no cover
            return "nothing was sent"


def _final_error(session: Session, outcome: Outcome, tried_s: float) -> ClientError:
    if isinstance(outcome, Reply):
        return _error(session, outcome)
    return NotConnected(
        f"{_error_text(session, outcome)} (tried for {tried_s:.0f} s). Check the address and that "
        "the server runs; `recordledger up` starts one on this machine",
        url=session.url,
    )


def _good(session: Session, reply: Reply) -> Reply:
    if 200 <= reply.status < 300:
        return reply
    if 300 <= reply.status < 400:
        target = reply.headers.get("location", "somewhere else")
        raise NotConnected(
            f"{session.url} redirects to {target}; if you trust that address, use it instead",
            url=session.url,
        )
    raise _error(session, reply)


def _error(session: Session, reply: Reply) -> ClientError:
    """Return the error that an answer stands for, from this server or a proxy."""
    try:
        return error_of(Problem.model_validate(_unpacked(reply)), url=session.url)
    except ValueError:
        return ServerFault(
            f"{session.url} answered {reply.status} without a reason; check that it is a Record "
            "Ledger, and any proxy in between",
            status=reply.status,
        )


def _unpacked(reply: Reply) -> Any:
    return wire.unpack(reply.body, reply.headers.get("content-type", ""))


def _shaped(session: Session, shape: type[AnswerT], reply: Reply) -> AnswerT:
    try:
        return shape.model_validate(_unpacked(reply))
    except (ValueError, ValidationError) as error:
        raise ServerFault(
            f"{session.url} sent an answer that this version of recordledger cannot read; use the "
            f"same version on both sides ({type(error).__name__} in {shape.__name__})"
        ) from error
