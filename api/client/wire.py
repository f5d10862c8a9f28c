"""Bytes on the wire: msgpack, compressed where that pays, in parts that the server takes."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import local
from typing import Any, Final, TypeVar
from uuid import UUID

import msgpack
from pydantic import BaseModel, ValidationError

from recordledger.domain.errors import InvalidInput
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.streams import ID_MAX

from ..schemas.moments import moment_in
from .errors import InvalidArgument

MEDIA_TYPE: Final = "application/msgpack"
COMPRESS_BYTES_MIN: Final = 64 * 1024
_LEVEL: Final = 1
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# What the list's own name and header take in a body, at most.
_LIST_BYTES: Final = 64

# What people have in their hands when JSON has no form for it, and what to do.
_ADVICE: Final[Mapping[str, str]] = {
    "ndarray": "use array.tolist()",
    "set": "use sorted(...)",
    "frozenset": "use sorted(...)",
    "bytes": "use base64.b64encode(...).decode()",
    "bytearray": "use base64.b64encode(...).decode()",
    "datetime": "use .isoformat()",
    "date": "use .isoformat()",
    "complex": "use [z.real, z.imag]",
    "Decimal": "use float(...) or str(...)",
    "Fraction": "use float(...) or str(...)",
    "PosixPath": "use str(path)",
    "WindowsPath": "use str(path)",
    "UUID": "use str(...)",
    "DataFrame": "use frame.to_dict('list')",
    "Series": "use series.tolist()",
}

_threads = local()
MessageT = TypeVar("MessageT", bound=BaseModel)


def json_bytes(value: Any, *, what: str = "result") -> bytes:
    """Return a JSON value as bytes, as `return_results` takes them, or raise InvalidArgument.

    Raises:
        InvalidArgument: NaN, infinity, a NUL, a lone surrogate, or something that JSON cannot
            represent; the message says where and what to do.
    """
    try:
        return canonical_json(value)
    except InvalidInput as refusal:
        raise InvalidArgument(f"{what}: {_advised(str(refusal))}") from None


def message(shape: type[MessageT], /, **fields: Any) -> MessageT:
    """Return a request in its shape, whose bounds are the server's too.

    Raises:
        InvalidArgument: a field is out of its bounds.
    """
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        complaints = (
            f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
            for found in error.errors(include_url=False, include_context=False)[:3]
        )
        raise InvalidArgument("; ".join(complaints)) from None


def body(request: BaseModel) -> bytes:
    """Return a request as msgpack, without what it does not say."""
    return pack(request.model_dump(exclude_none=True))


def as_of(given: int | str | datetime | None, what: str = "as_of") -> int | datetime | None:
    """Return a position of the log or a time as the server takes it; what says no zone is UTC.

    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(given, datetime) and given.tzinfo is None:
        raise InvalidArgument(f"{what} has no time zone; pass one with it, like datetime.now(UTC)")
    try:
        if isinstance(given, str) and not given.lstrip("@").isdigit():
            moment = datetime.fromisoformat(given)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        found: int | datetime | None = None if given is None else moment_in(given)
    except ValueError:
        raise InvalidArgument(
            f"{what} is {given!r}; pass a position of the log, or a time like 2026-11-21T16:30"
        ) from None
    return found


def pack(value: Any, *, what: str = "the request", idx: int | None = None) -> bytes:
    """Return the value as msgpack.

    Raises:
        InvalidArgument: msgpack cannot carry it.
    """
    return _packed(_packer(), value, what, idx)


def pack_text(value: Any, *, what: str, idx: int) -> bytes:
    """Return the value as msgpack, with broken Unicode as it is: the server repairs it."""
    return _packed(msgpack.Packer(unicode_errors="surrogatepass"), value, what, idx)


def _packed(packer: Any, value: Any, what: str, idx: int | None) -> bytes:
    try:
        return bytes(packer.pack(value))
    except OverflowError:
        reason = "has an integer of more than 64 bits; use a string"
    except UnicodeEncodeError:
        reason = "has a lone surrogate, which is not valid Unicode"
    except (TypeError, ValueError) as error:
        reason = f"cannot be sent: {error}"
    raise InvalidArgument(f"{what} {reason}", idx=idx)


def pack_json(value: Mapping[str, Any], *, what: str, idx: int) -> bytes:
    """Return JSON values as msgpack, after a look at whether they are some."""
    try:
        canonical_json(value)
    except InvalidInput as refusal:
        raise InvalidArgument(f"{what}: {_advised(str(refusal))}", idx=idx) from None
    return pack(value, what=what, idx=idx)


def pack_list(fields: Mapping[str, Any], name: str, entries: Sequence[bytes]) -> bytes:
    """Return a map of the fields, and of the entries, packed already, as a list under the name."""
    packer = msgpack.Packer()
    parts = [packer.pack_map_header(len(fields) + 1)]
    for key, value in fields.items():
        parts += [pack(key), pack(value, what=key)]
    parts += [pack(name), packer.pack_array_header(len(entries)), *entries]
    return b"".join(parts)


def unpack(data: bytes, media_type: str) -> Any:
    """Return the value that an answer holds; msgpack's timestamps become aware datetimes in UTC.

    The server answers in JSON what msgpack has no form for: integers of more than 64 bits.

    Raises:
        ValueError: it is not one whole value.
    """
    # No answer in msgpack or JSON begins so. Whether httpx2 has undone the compression depends
    # on what else is installed.
    if data.startswith(_ZSTD_MAGIC):
        import zstandard

        try:
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    if "msgpack" in media_type:
        return msgpack.unpackb(data, timestamp=3)
    return json.loads(data)


def compress(body: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body as it is to be sent, and the header that says how."""
    if len(body) < COMPRESS_BYTES_MIN:
        return body, {}
    import zstandard

    # A compressor serves one thread at a time.
    if not hasattr(_threads, "compressor"):
        _threads.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressor: zstandard.ZstdCompressor = _threads.compressor
    return compressor.compress(body), {"Content-Encoding": "zstd"}


def room_bytes(fields: Mapping[str, Any], body_bytes: int) -> int:
    """Return how many bytes of entries a body can take beside the fields."""
    return body_bytes - _LIST_BYTES - len(pack(fields))


def spans(entries: Sequence[bytes], count_max: int, bytes_max: int, what: str) -> list[range]:
    """Return the parts to send the entries in, by their indexes, in order.

    Args:
        entries: each packed.
        count_max: maximum number of entries in a part.
        bytes_max: maximum size of the entries of a part, in bytes.
        what: the entries' name in messages.

    Raises:
        InvalidArgument: one entry alone is too large.
    """
    cuts: list[range] = []
    start = size_bytes = 0
    for idx, entry in enumerate(entries):
        if len(entry) > bytes_max:
            raise InvalidArgument(
                f"{what}[{idx}] has {len(entry):,} bytes, more than the server's limit of "
                f"{bytes_max:,}",
                idx=idx,
            )
        if idx - start == count_max or size_bytes + len(entry) > bytes_max:
            cuts.append(range(start, idx))
            start, size_bytes = idx, 0
        size_bytes += len(entry)
    if start < len(entries):
        cuts.append(range(start, len(entries)))
    return cuts


def slices(items: Sequence[Any], size: int) -> Iterator[range]:
    """Yield the parts of at most `size` items, by their indexes, in order."""
    for start in range(0, len(items), size):
        yield range(start, min(start + size, len(items)))


def record_ids(ids: Iterable[int | None], *, what: str = "ids") -> list[int]:
    """Return ids as plain integers; numpy's are welcome.

    Raises:
        InvalidArgument: one is no id.
    """
    if isinstance(ids, str | bytes):
        raise InvalidArgument(f"{what} is a {type(ids).__name__}; pass one id or a list of ids")
    return [record_id(id_, what=f"{what}[{idx}]", idx=idx) for idx, id_ in enumerate(ids)]


def record_id(given: int | None, *, what: str = "id", idx: int | None = None) -> int:
    """Return one id as a plain integer.

    Raises:
        InvalidArgument: it is not an id.
    """
    if given is None:
        raise InvalidArgument(f"{what} is None: that entry was refused when it was added", idx=idx)
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None or not 1 <= number <= ID_MAX:
        raise InvalidArgument(f"{what} is {str(given)[:80]!r}, which is not an id", idx=idx)
    return number


def _packer() -> Any:
    if not hasattr(_threads, "packer"):
        _threads.packer = msgpack.Packer(datetime=True)
    return _threads.packer


def _advised(complaint: str) -> str:
    for type_name, advice in _ADVICE.items():
        if f" is a {type_name}: " in complaint:
            return f"{complaint}; {advice}"
    if any(f" is a {kind}" in complaint for kind in ("int", "uint", "float", "bool")):
        return f"{complaint}; of a numpy scalar, use .item()"
    return complaint


def uuid(given: str | UUID, what: str) -> UUID:
    """Return the id of something that has a UUID.

    Raises:
        InvalidArgument: it is not a valid id.
    """
    try:
        return UUID(str(given))
    except ValueError:
        raise InvalidArgument(
            f"{str(given)[:80]!r} is not {what}; that looks like "
            "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70"
        ) from None
