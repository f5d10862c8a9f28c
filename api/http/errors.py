"""How errors look from outside: one table of codes, and every error as problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import uuid4

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.admin.access import Permission, Role
from recordledger.domain.errors import CommandRefused, InvalidInput, LedgerError

log = logging.getLogger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
_DETAILS_MAX: Final = 20
_CHARACTERS_MAX: Final = 500


class Meaning(NamedTuple):
    """What a code means over HTTP. `retry_after_s` is set where the same request may work later."""

    status: int
    title: str
    retry_after_s: int | None = None


# The same key with another body is 422, as in the IETF draft on the Idempotency-Key header.
# fmt: off
MEANINGS: Final[Mapping[str, Meaning]] = {
    "malformed_body":         Meaning(400, "The body cannot be read"),
    "unauthenticated":        Meaning(401, "A valid token is needed"),
    "forbidden":              Meaning(403, "The token does not allow this"),
    "not_your_manager":       Meaning(403, "The manager belongs to another user"),
    "not_found":              Meaning(404, "There is no such record"),
    "manager_not_found":      Meaning(404, "There is no such manager"),
    "operation_not_found":    Meaning(404, "There is no such operation on records"),
    "job_not_found":          Meaning(404, "There is no such job"),
    "dataset_not_found":      Meaning(404, "There is no such dataset"),
    "entry_not_found":        Meaning(404, "The dataset has no such entry"),
    "specification_not_found": Meaning(404, "The dataset has no such specification"),
    "version_not_found":      Meaning(404, "The dataset has no such locked version"),
    "token_not_found":        Meaning(404, "There is no such token"),
    "webhook_not_found":      Meaning(404, "There is no such webhook"),
    "no_such_route":          Meaning(404, "There is nothing at this address"),
    "method_not_allowed":     Meaning(405, "This address does not take this method"),
    "not_acceptable":         Meaning(406, "No accepted media type is available"),
    "refused":                Meaning(409, "The rules do not allow this"),
    "transition_forbidden":   Meaning(409, "The record's status does not allow this"),
    "wrong_kind":             Meaning(409, "The record's kind does not allow this"),
    "retry_not_due":          Meaning(409, "The pause before the next retry is not over"),
    "not_your_attempt":       Meaning(409, "The manager never had this attempt"),
    "manager_not_active":     Meaning(409, "The manager is not active any more"),
    "still_referenced":       Meaning(409, "Something refers to the record"),
    "nothing_to_adopt":       Meaning(409, "The record has no such late result"),
    "changed_since":          Meaning(409, "The record has changed since"),
    "not_undoable":           Meaning(409, "This cannot be undone"),
    "circular_family":        Meaning(409, "A record would become its own ancestor"),
    "superseded":             Meaning(409, "The service has changed since"),
    "job_not_ended":          Meaning(409, "The job is still running"),
    "rebuild_running":        Meaning(409, "Another rebuild is running"),
    "dataset_exists":         Meaning(409, "Another dataset has this name"),
    "dataset_changed":        Meaning(409, "The dataset has changed since"),
    "dataset_locked":         Meaning(409, "A version of the dataset is locked"),
    "entry_exists":           Meaning(409, "The dataset has another entry of this name"),
    "specification_exists":   Meaning(409, "The dataset has another specification of this name"),
    "too_many_webhooks":      Meaning(409, "The limit of webhooks is reached"),
    "too_large":              Meaning(413, "A limit of the server is exceeded"),
    "unsupported_media_type": Meaning(415, "The body's media type is not supported"),
    "invalid_input":          Meaning(422, "The request is wrong"),
    "address_refused":        Meaning(422, "The webhook's address is not allowed"),
    "idempotency_conflict":   Meaning(422, "The idempotency key was used for another request"),
    "beyond_head":            Meaning(422, "The position is beyond the log"),
    "as_of_in_future":        Meaning(422, "The moment is in the future"),
    "as_of_before_beginning": Meaning(422, "The moment is before the first event"),
    "ledger_error":           Meaning(500, "The server has an internal error"),
    "impossible_history":     Meaning(500, "The log is damaged"),
    "unknown_event":          Meaning(500, "The log is newer than the server"),
    "unreadable_event":       Meaning(500, "The log is damaged"),
    "seal_broken":            Meaning(500, "The log differs from the seals"),
    "note_broken":            Meaning(500, "The stored seals are damaged"),
    "proof_broken":           Meaning(500, "The stored seals are damaged"),
    "receipt_broken":         Meaning(500, "The stored seals are damaged"),
    "seal_key_refused":       Meaning(500, "The key for seals is not the ledger's"),
    "internal_error":         Meaning(500, "The server has an internal error"),
    "archive_invalid":        Meaning(422, "The archive is damaged"),
    "archive_unknown":        Meaning(422, "The archive's format is not supported"),
    "archive_from_future":    Meaning(422, "The archive is newer than the server's clock"),
    "database_not_empty":     Meaning(409, "The database already contains a ledger"),
    "backup_failed":          Meaning(500, "The backup failed"),
    "backup_invalid":         Meaning(500, "The backup is not valid"),
    "backup_tool_unusable":   Meaning(500, "A tool of PostgreSQL is missing or too old"),
    "library_missing":        Meaning(500, "The server lacks a library"),
    "schema_mismatch":        Meaning(503, "The database does not fit the server", 60),
    "store_unavailable":      Meaning(503, "The database does not answer now", 1),
    "not_sealed_yet":         Meaning(503, "The newest events wait for the next seal", 2),
    "nothing_sealed":         Meaning(503, "The log has no seal yet", 5),
    "timeline_behind":        Meaning(503, "The tables of the past are catching up", 5),
    "too_many_followers":     Meaning(503, "The limit of followers is reached", 5),
    "storage_full":           Meaning(503, "The database's disk is full", 30),
}
# fmt: on


class MalformedBody(InvalidInput):
    """The body does not match its headers, or is truncated."""

    code = "malformed_body"


class ValidationFailed(InvalidInput):
    """The body can be read, and something in it is not as it must be; `errors` say where."""

    def __init__(self, errors: Iterable[Any], whole: str = "the body") -> None:
        self.errors = [
            {
                "where": _where(error["loc"]) or whole,
                "message": plain(error["msg"], _CHARACTERS_MAX),
                "type": error["type"],
            }
            for error in list(errors)[:_DETAILS_MAX]
        ]
        super().__init__("; ".join(f"{each['where']}: {each['message']}" for each in self.errors))


class Unauthenticated(CommandRefused):
    """There is no token, or it opens nothing."""

    code = "unauthenticated"


class RoleForbidden(CommandRefused):
    """The token is valid, and its role does not include what was asked."""

    code = "forbidden"

    def __init__(self, role: Role, needed: Iterable[Permission]) -> None:
        super().__init__(
            f"this needs the permission {' or '.join(needed)}, which the role {role} does not "
            "have; use another token"
        )
        self.role = role


class TokenNotFound(CommandRefused):
    """There is no token with this id."""

    code = "token_not_found"

    def __init__(self, token_id: int) -> None:
        super().__init__(f"there is no token {token_id}")
        self.token_id = token_id


class BeyondHead(InvalidInput):
    """The log has no such position yet: it is one of another ledger, or none at all."""

    code = "beyond_head"

    def __init__(self, after: int, head: int) -> None:
        super().__init__(
            f"the log goes to position {head}, and {after} is beyond that; check that it belongs "
            "to this ledger"
        )
        self.after = after
        self.head = head


class TooManyFollowers(LedgerError):
    """As many follow the log as this server lets; read it in pages, or come again later."""

    code = "too_many_followers"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} followers are already connected, the maximum (setting followers_max); read "
            "the log in pages"
        )
        self.limit = limit


class NotAcceptable(CommandRefused):
    """The Accept header leaves out everything that the server can send."""

    code = "not_acceptable"


class UnsupportedMediaType(CommandRefused):
    """The server does not support the body's media type or encoding."""

    code = "unsupported_media_type"


def refusal_of(error: ValidationError, whole: str = "the body") -> ValidationFailed:
    """Return pydantic's complaints about `whole` as the ledger's own."""
    return ValidationFailed(
        error.errors(include_url=False, include_context=False, include_input=False), whole
    )


def plain(text: str, characters_max: int) -> str:
    """Return text that any encoder takes: no half surrogate pairs, no NUL, not too long."""
    cleaned = text[: characters_max + 1].replace("\0", "\\x00")
    cleaned = cleaned.encode("utf-8", "backslashreplace").decode()
    return cleaned if len(cleaned) <= characters_max else cleaned[: characters_max - 3] + "..."


def _where(loc: Iterable[Any]) -> str:
    """Return pydantic's location as one reads it: records[3].tag."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return plain(path.lstrip("."), 120)


def install(app: FastAPI) -> None:
    """Let every error of the app leave it as problem+json."""
    app.add_exception_handler(LedgerError, _ledger_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)


def unknown_fault(method: str, path: str, error: Exception) -> Response:
    """Return the answer to a request that ran into a bug; the log knows more, by incident id."""
    return _incident("internal_error", f"{method} {path}", error)


async def _ledger_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)  # noqa: S101 - it is registered for these
    meaning = MEANINGS.get(error.code)
    if meaning is None or meaning.status == 500:
        code = "ledger_error" if meaning is None else error.code
        return _incident(code, f"{request.method} {request.url.path}", error)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="recordledger"'
    if isinstance(error, UnsupportedMediaType):
        headers["Accept-Encoding"] = "zstd, gzip, identity"
    errors = error.errors if isinstance(error, ValidationFailed) else []
    return problem(error.code, str(error), headers=headers, errors=errors)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for these
    return await _ledger_error(request, ValidationFailed(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    where = f"{request.method} {request.url.path[:200]}"
    match error.status_code:
        case 404:
            detail = f"there is nothing at {where}; see /openapi.json for all addresses"
            return problem("no_such_route", detail)
        case 405:
            headers = dict(error.headers or {})
            detail = (
                f"{where} is not allowed; this address allows {headers.get('Allow', 'do others')}"
            )
            return problem("method_not_allowed", detail, headers=headers)
        case _:
            return problem("refused", str(error.detail), status=error.status_code)


def _incident(code: str, where: str, error: Exception) -> Response:
    incident = uuid4().hex
    log.error("incident %s in %s", incident, where, exc_info=error)
    return problem(
        code,
        f"internal error; the server's log describes it as incident {incident}. Changes were made "
        "completely or not at all",
    )


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    errors: Iterable[Mapping[str, Any]] = (),
) -> Response:
    """Return an error as it leaves the server."""
    meaning = MEANINGS[code]
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if meaning.retry_after_s is not None:
        sent["Retry-After"] = str(meaning.retry_after_s)
    content = {
        "type": f"urn:recordledger:error:{code}",
        "title": meaning.title,
        "status": status or meaning.status,
        "detail": detail,
        "code": code,
        "errors": list(errors),
    }
    data = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return Response(data, status or meaning.status, headers=sent, media_type=PROBLEM_TYPE)
