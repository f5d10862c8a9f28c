"""What can go wrong between a program and the server, as a tree; each says what to do.

ClientError
├── NotConnected            no answer: no server is known, or it cannot be reached, or closed here
├── ServerFault             the server failed, or its answer makes no sense
├── Refused                 the server understood, and the rules say no
│   ├── InvalidArgument     found wrong before anything was sent; also a ValueError
│   ├── Unauthorized        no token, or one that is unknown, expired or revoked
│   ├── Forbidden           the token's role does not allow it
│   └── NotFound
│       └── RecordsNotFound
└── WaitTimeout             records were not finished in time; also a TimeoutError

Every class can be made from its message alone, so that errors survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..schemas.base import Problem

if TYPE_CHECKING:
    from .results.records import Record, Records


class ClientError(Exception):
    """Base of everything that the client raises on purpose.

    Attributes:
        code: stable name of what went wrong.
        detail: what went wrong and what to do.
        status: HTTP status of the answer; None where there was none.
        partial: what a call that was cut into several requests had achieved before this; None
            if nothing.
    """

    default_code = "client_error"

    def __init__(self, detail: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.status = status
        self.partial: object | None = None


class NotConnected(ClientError):
    """There was no answer. Whether a change was made is unknown; repeat the call to find out."""

    default_code = "not_connected"

    def __init__(self, detail: str, *, url: str = "") -> None:
        super().__init__(detail)
        self.url = url


class ServerFault(ClientError):
    """The server failed, or answered what this version of the client cannot read."""

    default_code = "server_fault"


class Refused(ClientError):
    """The server understood the request, and the rules say no. Nothing has changed.

    Attributes:
        errors: particulars, where there are any, as the server gave them.
    """

    default_code = "refused"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail, code=code, status=status)
        self.errors = errors or []


class InvalidArgument(Refused, ValueError):
    """An argument is wrong; nothing was sent.

    Attributes:
        idx: which entry of a bulk call it is about; None where it is about the call.
    """

    default_code = "invalid_input"

    def __init__(self, detail: str, *, idx: int | None = None) -> None:
        super().__init__(detail)
        self.idx = idx


class Unauthorized(Refused):
    """There was no token, or the server does not accept it."""

    default_code = "unauthorized"


class Forbidden(Refused):
    """The token is good, and its role does not allow this."""

    default_code = "forbidden"


class NotFound(Refused):
    """What was asked for is not there."""

    default_code = "not_found"


class RecordsNotFound(NotFound):
    """Some of the records are not there, or were hard-deleted.

    Attributes:
        ids: which ones.
    """

    def __init__(self, detail: str, *, ids: tuple[int, ...] = ()) -> None:
        super().__init__(detail, status=404)
        self.ids = ids


class WaitTimeout(ClientError, TimeoutError):
    """Time was up before all records were finished. They go on; wait again to see them end.

    Attributes:
        open_ids: the records that still wait or run.
        finished: the records that are finished, in the order of the ids.
    """

    default_code = "wait_timeout"

    def __init__(
        self,
        detail: str,
        *,
        open_ids: tuple[int, ...] = (),
        finished: Records[Record] | None = None,
    ) -> None:
        super().__init__(detail)
        self.open_ids = open_ids
        self.finished = finished


def error_of(problem: Problem, *, url: str) -> ClientError:
    """Return the error that a problem document describes."""
    detail, code, status = problem.detail or problem.title, problem.code, problem.status
    match status:
        case 401:
            advice = f"pass a token for {url}: Client(url, token), or RECORDLEDGER_TOKEN"
            return Unauthorized(f"{detail} ({advice})", code=code, status=status)
        case 403:
            return Forbidden(detail, code=code, status=status, errors=problem.errors)
        case 404:
            return NotFound(detail, code=code, status=status, errors=problem.errors)
        case _ if status >= 500:
            return ServerFault(detail, code=code, status=status)
        case _:
            return Refused(detail, code=code, status=status, errors=problem.errors)
