"""Bodies as they travel: JSON or msgpack, compressed or not, and never more than a limit."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, NoReturn

import msgpack
import zstandard
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from starlette.datastructures import Headers
from starlette.requests import Request

from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.projections.tables.payloads import decompress

from .errors import MalformedBody, NotAcceptable, UnsupportedMediaType

# Answers above this are compressed, for clients that take zstd. Level 1: the network is near.
COMPRESS_BYTES_MIN: Final = 1 << 20
_LEVEL: Final = 1
_CHUNK_BYTES: Final = 1 << 16
# Containers inside containers that a body may claim to hold; each costs memory before it is read.
_ITEMS_MAX: Final = 4_000_000

_PLACE: Final = re.compile(r"line (\d+) column (\d+)$")
_CONSTANT: Final = re.compile(rb"-?Infinity|NaN")


class Format(Enum):
    """How values are written; the value is the media type that answers carry."""

    json = "application/json"
    msgpack = "application/msgpack"


_FORMATS: Final[Mapping[str, Format]] = {
    "application/json": Format.json,
    "application/msgpack": Format.msgpack,
    "application/x-msgpack": Format.msgpack,
    "application/vnd.msgpack": Format.msgpack,
}
_CODINGS: Final[Mapping[str, str]] = {
    "": "identity",
    "identity": "identity",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
}


class BodyHeaders(NamedTuple):
    """What a request's headers say about its body and about the answer.

    Attributes:
        given: how the body is written; None if the headers do not say, which is right for none.
        coding: how the body is compressed.
        wanted: how the answer shall be written.
        zstd: whether the answer may be compressed.
    """

    given: Format | None
    coding: str
    wanted: Format
    zstd: bool


class Prepared(NamedTuple):
    """An answer that was written as JSON already."""

    json: bytes


class Accepted(NamedTuple):
    """An answer that says that the work has only begun."""

    answer: Mapping[str, Any]


Reply = BaseModel | Mapping[str, Any] | Prepared | Accepted


class Encoded(NamedTuple):
    """An answer's bytes, the headers that say what they are, and its status."""

    data: bytes
    headers: dict[str, str]
    status: int = 200


def negotiate(headers: Headers, *, with_body: bool) -> BodyHeaders:
    """Return what the headers say; about the body only if there may be one.

    Raises:
        UnsupportedMediaType: the body is neither JSON nor msgpack, or compressed in another way.
        NotAcceptable: the answer may be neither.
    """
    given, coding = _body_format(headers) if with_body else (None, "identity")
    wanted = _wanted(headers.get("accept"), given)
    return BodyHeaders(given, coding, wanted, "zstd" in headers.get("accept-encoding", ""))


def _body_format(headers: Headers) -> tuple[Format | None, str]:
    """Return how a body is written and compressed."""
    given = None
    if (content_type := headers.get("content-type")) is not None:
        given = _FORMATS.get(content_type.partition(";")[0].strip().lower())
        if given is None:
            raise UnsupportedMediaType(
                f"the body is {content_type[:100]!r}; "
                "send application/json or application/msgpack and name it in Content-Type"
            )
    coding = _CODINGS.get(headers.get("content-encoding", "").strip().lower())
    if coding is None:
        raise UnsupportedMediaType(
            f"the body is compressed as {headers['content-encoding'][:100]!r}; "
            "use zstd, gzip or nothing"
        )
    return given, coding


def _wanted(accept: str | None, given: Format | None) -> Format:
    """Return the form of the answer: the one liked best, then that of the body, then JSON."""
    if accept is None or accept == "*/*":
        return Format.json
    exact = _FORMATS.get(accept)
    if exact is not None:
        return exact
    liked: dict[Format, float] = {}
    for entry in accept.split(","):
        kind, _, parameters = entry.partition(";")
        kind = kind.strip().lower()
        found = [_FORMATS[kind]] if kind in _FORMATS else []
        if kind in ("*/*", "application/*"):
            found = [format_ for format_ in Format if format_ not in liked]
        for format_ in found:
            liked[format_] = _quality(parameters)
    best = max(liked.values(), default=0.0)
    if best <= 0:
        raise NotAcceptable(
            f"Accept is {accept[:100]!r}; it must include application/json or application/msgpack"
        )
    choices = [format_ for format_, quality in liked.items() if quality == best]
    return given if given in choices else choices[0]


def _quality(parameters: str) -> float:
    found = re.search(r"(?:^|;)\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
    return float(found[1]) if found else 1.0


async def read(request: Request, size_bytes_max: int) -> bytes:
    """Return the body as it came.

    Raises:
        TooLarge: it is, or says it is, over the limit.
        ClientDisconnect: the client went away before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > size_bytes_max:
        raise TooLarge("the body", int(declared), size_bytes_max, "body_bytes_max")
    chunks: list[bytes] = []
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > size_bytes_max:
            raise TooLarge("the body", n_bytes, size_bytes_max, "body_bytes_max")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def inflate(data: bytes, coding: str, size_bytes_max: int) -> bytes:
    """Return the body uncompressed, and never more than the limit.

    Raises:
        TooLarge: it would be over the limit.
        MalformedBody: it is not compressed in this way, or is truncated.
    """
    match coding:
        case "zstd":
            try:
                return decompress(data, size_bytes_max)
            except TooLarge:
                raise
            except InvalidInput as error:
                raise MalformedBody(str(error)) from error
        case "gzip":
            return _gunzip(data, size_bytes_max)
        case _:
            return data


def _gunzip(data: bytes, size_bytes_max: int) -> bytes:
    """Return what the members of a gzip stream hold, one after the other."""
    out = bytearray()
    try:
        while data:
            member = zlib.decompressobj(wbits=31)
            while True:
                piece = member.decompress(data, _CHUNK_BYTES)
                out += piece
                if len(out) > size_bytes_max:
                    raise TooLarge("the body", len(out), size_bytes_max, "body_bytes_max")
                if member.eof:
                    data = member.unused_data
                    break
                data = member.unconsumed_tail
                if not piece and not data:
                    raise MalformedBody("the gzip stream is truncated; send the body again")
    except zlib.error as error:
        raise MalformedBody(f"the body is not a gzip stream: {error}") from error
    return bytes(out)


def decode(data: bytes, given: Format | None) -> Any:
    """Return the value that a body holds; an empty object for an empty body.

    Raises:
        MalformedBody: it cannot be read; the message says where.
        UnsupportedMediaType: there is a body, and no Content-Type.
    """
    if not data:
        return {}
    match given:
        case Format.json:
            return _decode_json(data)
        case Format.msgpack:
            return _decode_msgpack(data)
        case None:
            raise UnsupportedMediaType(
                "the body has no Content-Type; use application/json or application/msgpack"
            )


def _decode_json(data: bytes) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        if is_about_surrogates(error):
            # One bad string shall not spoil its neighbours: it is refused or repaired in its place.
            return _decode_json_with_surrogates(data)
        complaint = str(error)
    place = _PLACE.search(complaint)
    if place is not None and (constant := _constant_at(data, int(place[1]), int(place[2]))):
        raise MalformedBody(
            f"the body has {constant} at {place[0]}: JSON has no such number; use null"
        )
    raise MalformedBody(f"the body is not JSON: {complaint}")


def is_about_surrogates(error: ValueError) -> bool:
    """Return whether the decoder of JSON has stopped at a lone surrogate."""
    return "surrogate" in str(error) or "hex escape" in str(error)


def _constant_at(data: bytes, line: int, column: int) -> str | None:
    """Return NaN or Infinity if that is what the decoder has stopped at."""
    start = 0
    for _ in range(line - 1):
        start = data.index(b"\n", start) + 1
    stopped = start + column - 1
    found = _CONSTANT.search(data, max(stopped - 2, 0), stopped + 10)
    return found[0].decode() if found else None


def _decode_json_with_surrogates(data: bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise MalformedBody(f"the body has {constant}: JSON has no such number; use null")

    try:
        return json.loads(data.decode(), parse_constant=refuse)
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error


def _decode_msgpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            timestamp=3,
            strict_map_key=True,
            unicode_errors="surrogatepass",
            max_array_len=min(len(data), _ITEMS_MAX),
            max_map_len=min(len(data), _ITEMS_MAX),
        )
    except msgpack.StackError:
        raise MalformedBody("the body is nested too deeply") from None
    except (ValueError, OverflowError, TypeError, MemoryError, RecursionError) as error:
        reason = str(error)[:200] or type(error).__name__
        raise MalformedBody(f"the body is not msgpack: {reason}") from error


def encode(reply: Reply, terms: BodyHeaders) -> Encoded:
    """Return an answer's bytes.

    An answer with an integer beyond 64 bits has no form in msgpack and is sent as JSON, whatever
    was wanted: Content-Type says so.
    """
    status = 202 if isinstance(reply, Accepted) else 200
    plain = reply.answer if isinstance(reply, Accepted) else reply
    data, format_ = _encode(plain, terms.wanted)
    headers = {
        "Content-Type": format_.value,
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if terms.zstd and len(data) > COMPRESS_BYTES_MIN:
        data = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
        headers["Content-Encoding"] = "zstd"
    return Encoded(data, headers, status)


def _encode(
    reply: BaseModel | Mapping[str, Any] | Prepared, wanted: Format
) -> tuple[bytes, Format]:
    if isinstance(reply, Prepared):
        return reply.json, Format.json
    if wanted is Format.msgpack:
        plain = reply.model_dump() if isinstance(reply, BaseModel) else reply
        try:
            return msgpack.packb(plain, datetime=True), Format.msgpack
        except OverflowError:
            pass
    return to_json(reply), Format.json
