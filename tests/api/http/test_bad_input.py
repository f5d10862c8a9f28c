"""A client's mistakes: each gets a typed error that says what to do, and nothing is half-done."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from secrets import token_hex
from typing import Any, Final

import msgpack
import pytest
import zstandard

from recordledger.domain.streams import ID_MAX

from ..service import JSON, MSGPACK, Service, Visit, is_problem, latin_1, task

MIB: Final = 1024 * 1024
WITH_X: Final = '{"records": [{"function": "f",\n "kwargs": {"x": ?}}]}'


@pytest.fixture(autouse=True)
def nothing_changes(ann: Visit) -> Iterator[None]:
    """No test of this module leaves a record behind, except where it says so."""
    before = ann.n_records()
    yield
    assert ann.n_records() == before


# Numbers, strings and ids


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_not_json(ann: Visit, constant: str) -> None:
    body = WITH_X.replace("?", constant)
    detail = is_problem(ann.send("/v1/records", body.encode()), 400, "malformed_body")
    assert constant.strip("-") in detail
    assert "line 2" in detail


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"x": {"y": [1.0, float("nan")]}}, "x.y[1] is nan"),
        ({"x": float("-inf")}, "x is -inf"),
        ({"x": "a\0b"}, "kwargs.x has a NUL"),
        ({"x\0": 1}, "NUL"),
        ({"x": "\ud800"}, "surrogate"),
        ({"x": ["\udfff"]}, "surrogate"),
        ({"\udc00": 1}, "surrogate"),
        ({"x": b"bytes"}, "is a bytes"),
        ({"x": msgpack.ExtType(5, b"?")}, "is a bytes"),
        ({"x": msgpack.Timestamp(0)}, "is a datetime"),
        ({"x": {b"k": 1}}, "keys are strings"),
        ({"pad": "x" * 300_000}, "payload_bytes_max"),
    ],
)
def test_arguments_that_are_no_json_are_refused_by_their_place(
    ann: Visit, kwargs: dict[str, Any], says: str
) -> None:
    answer = ann.pack("/v1/records", {"records": [task(kwargs=kwargs)]})
    assert answer.status_code == 200, answer.text
    (error,) = msgpack.unpackb(answer.content)["errors"]
    assert says in error["message"]


@pytest.mark.parametrize("text", [r"\u0000", r"\ud800", r"\udfff\ud800", "1e999"])
def test_what_only_escapes_can_say_is_refused_by_its_index(ann: Visit, text: str) -> None:
    value = text if text[0] == "1" else f'"{text}"'
    body = WITH_X.replace("?", value)
    answer = ann.send("/v1/records", body.encode())
    assert answer.status_code == 200, answer.text
    assert answer.json()["errors"][0]["code"] == "invalid_input"


BIG_IDS: Final = (ID_MAX + 1, 2**64, 10**30, 0, -1)


@pytest.mark.parametrize("id_", [*BIG_IDS, "abc", "1.5", "9" * 5000])
def test_ids_beyond_what_can_be_are_refused_in_addresses(ann: Visit, id_: object) -> None:
    is_problem(ann.get(f"/v1/records/{id_}"), 422, "invalid_input")
    is_problem(ann.get(f"/v1/records/{id_}/events"), 422, "invalid_input")
    is_problem(ann.post(f"/v1/managers/{id_}/claim"), 422, "invalid_input")
    is_problem(ann.post(f"/v1/tokens/{id_}/revoke"), 422, "invalid_input")


@pytest.mark.parametrize("id_", [*BIG_IDS, "abc", 1.5, None])
def test_ids_beyond_what_can_be_are_refused_in_bodies(ann: Visit, id_: object) -> None:
    is_problem(ann.post("/v1/records/get", {"ids": [id_]}), 422, "invalid_input")
    is_problem(ann.post("/v1/records/query", {"query": {"ids": [id_]}}), 422, "invalid_input")
    manager_id = ann.register()
    attempt = {"record_id": id_, "attempt": 1}
    for action, name in (("heartbeat", "held"), ("relinquish", "attempts")):
        answer = ann.post(f"/v1/managers/{manager_id}/{action}", {name: [attempt]})
        is_problem(answer, 422, "invalid_input")
    answer = ann.post(f"/v1/managers/{manager_id}/results", {"results": [attempt]})
    assert answer.json()["errors"][0]["code"] == "invalid_input"


@pytest.mark.parametrize("text", ["nul \0", "half \ud800", "x" * 20_000])
def test_text_that_cannot_be_stored_is_refused_wherever_it_stands(ann: Visit, text: str) -> None:
    manager = {"name": "m", "hostname": "h", "tags": ["*"]}
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/v1/records", {"records": [], "reason": text}),
        ("/v1/records/query", {"query": {"tag": [text]}}),
        ("/v1/records/query", {"query": {"owner": [text]}}),
        ("/v1/records/query", {"query": {"function": [text]}}),
        ("/v1/records/query", {"cursor": text}),
        ("/v1/records/query", {text: 1}),
        ("/v1/managers", {**manager, "name": text}),
        ("/v1/managers", {**manager, "hostname": text}),
        ("/v1/managers", {**manager, "tags": [text]}),
        ("/v1/managers", {**manager, "programs": {text: "1"}}),
        ("/v1/managers", {**manager, "programs": {"psi4": text}}),
        ("/v1/managers/1/deactivate", {"reason": text}),
        ("/v1/tokens", {"user": text, "role": "user"}),
    ]
    for path, body in wrong:
        is_problem(ann.post(path, body), 422, "invalid_input")
        is_problem(ann.pack(path, body), 422, "invalid_input")
    for name in ("function", "tag", "priority", text):
        answer = ann.post("/v1/records", {"records": [task(**{name: text})]})
        assert answer.json()["errors"][0]["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/records", {"records": {}}, "records"),
        ("/v1/records", {}, "records"),
        ("/v1/records", [], "the body"),
        ("/v1/records", None, "records"),
        ("/v1/records/get", {"ids": [1], "include": ["all"]}, "include[0]"),
        ("/v1/records/query", {"query": {"status": ["lost"]}}, "query.status[0]"),
        ("/v1/records/query", {"limit": 1001}, "limit"),
        ("/v1/records/query", {"query": {"created_after": "yesterday"}}, "query.created_after"),
        ("/v1/records/query", {"query": {"created_after": "2026-01-01T00:00:00"}}, "timezone"),
        ("/v1/records/query", {"query": {"colour": "red"}}, "query.colour"),
        ("/v1/managers", {"name": "", "hostname": "h", "tags": []}, "name"),
        ("/v1/tokens", {"user": "u", "role": "king"}, "role"),
    ],
)
def test_a_wrong_field_is_named(ann: Visit, path: str, body: Any, where: str) -> None:
    answer = ann.post(path, body)
    assert where in is_problem(answer, 422, "invalid_input")
    assert answer.json()["errors"]


def test_times_beyond_the_calendar_are_refused(ann: Visit) -> None:
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = ann.post("/v1/records/query", {"query": {"modified_before": moment}})
        assert "query.modified_before" in is_problem(answer, 422, "invalid_input")
    for moment in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        answer = ann.post("/v1/records/query", {"query": {"modified_before": moment}})
        assert answer.status_code == 200


# Bodies that cannot be read


WHOLE: Final = json.dumps({"records": [{"function": "f", "kwargs": {"x": "é"}}]}).encode()
PACKED: Final[bytes] = msgpack.packb(json.loads(WHOLE))


@pytest.mark.parametrize("n_missing", [1, 2, 8, 20])
def test_a_truncated_body_is_refused(ann: Visit, n_missing: int) -> None:
    is_problem(ann.send("/v1/records", WHOLE[:-n_missing]), 400, "malformed_body")
    is_problem(ann.send("/v1/records", PACKED[:-n_missing], MSGPACK), 400, "malformed_body")
    stream = zstandard.ZstdCompressor().compressobj()
    for coding, data in (
        ("gzip", gzip.compress(WHOLE)),
        ("zstd", zstandard.ZstdCompressor().compress(WHOLE)),
        ("zstd", stream.compress(WHOLE) + stream.flush()),
    ):
        headers = {"Content-Encoding": coding}
        answer = ann.send("/v1/records", data[:-n_missing], headers=headers)
        is_problem(answer, 400, "malformed_body")


def test_a_client_that_goes_away_in_the_middle_of_a_body_leaves_nothing(
    service: Service, ann: Visit
) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /v1/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ann.secret}\r\n"
            f"Content-Type: {JSON}\r\nContent-Length: {len(WHOLE)}\r\n\r\n"
        )
        connection.sendall(head.encode() + WHOLE[:-1])
    assert ann.get("/health").status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"{'a': 1}",
        b'{"a": "\x01"}',
        b'{"a": "\xed\xa0\x80"}',
        b"1" * 5000,
        b"null null",
        b'{"a": "\\ud800", "b": NaN}',
        b'{"a": "\\ud800", "b": }',
        b'{"a": "\\ud800", "b": "\xff"}',
    ],
)
def test_what_is_no_json_is_refused(ann: Visit, data: bytes) -> None:
    is_problem(ann.send("/v1/records", data), 400, "malformed_body")


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\xc0\xc0",
        b"\x81\x90\x01",
        b"\x81\x01\x02",
        b"\xa2\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc7\x03\xffabc",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc7\x0c\xff" + struct.pack(">IQ", 0, 2**62),
        b"\xdd\x00\x3f\xff\xff" * 1000,
    ],
)
def test_what_is_no_msgpack_is_refused(ann: Visit, data: bytes) -> None:
    is_problem(ann.send("/v1/records", data, MSGPACK), 400, "malformed_body")


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_bodies_that_are_nested_too_deeply_are_refused(ann: Visit, depth: int) -> None:
    whole = b"[" * depth + b"]" * depth
    for data in (whole, b"[" * depth, b'{"a":' * depth):
        is_problem(ann.send("/v1/records", data), 400, "malformed_body")
    # How deep the decoder goes that reads half surrogate pairs depends on the version of Python.
    mended = ann.send("/v1/records", b'["\\ud800",' + whole + b"]")
    assert mended.status_code in ((400,) if depth > 1_000 else (400, 422))
    packed = b"\x91" * depth + b"\xc0"
    code = 400 if depth > 1_000 else 422
    assert ann.send("/v1/records", packed, MSGPACK).status_code == code
    assert ann.send("/v1/records", b"\x81\xa1a" * depth + b"\xc0", MSGPACK).status_code == code


@pytest.mark.parametrize("depth", [101, 150, 900])
def test_arguments_that_are_nested_too_deeply_are_refused_by_their_index(
    ann: Visit, depth: int
) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    answer = ann.pack("/v1/records", {"records": [task(kwargs={"x": nested})]})
    (error,) = msgpack.unpackb(answer.content)["errors"]
    assert "nested" in error["message"]


# Sizes


def test_a_body_over_the_limit_is_refused_before_it_is_read(ann: Visit) -> None:
    answer = ann.send("/v1/records", b" " * (4 * MIB + 1))
    assert "body_bytes_max" in is_problem(answer, 413, "too_large")


def test_a_body_over_the_limit_that_does_not_say_so_is_refused_too(ann: Visit) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(9):
            yield b" " * (MIB // 2)

    answer = ann.http.post("/v1/records", content=pieces(), headers={"Content-Type": JSON})
    assert "body_bytes_max" in is_problem(answer, 413, "too_large")


def bombs() -> Iterator[Any]:
    """Yield small bodies that would become far more than the limit."""
    zeros = b" " * (64 * MIB)
    whole = zstandard.ZstdCompressor(level=19).compress(zeros)
    yield pytest.param("zstd", whole, id="zstd that says how large it is")
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    yield pytest.param("zstd", stream.compress(zeros) + stream.flush(), id="zstd that does not say")
    lies = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(b" " * 100_000))
    yield pytest.param("zstd", bytes(lies[:5]) + b"\xff" * 8 + bytes(lies[9:]), id="zstd that lies")
    once = gzip.compress(zeros)
    yield pytest.param("gzip", once, id="gzip")
    yield pytest.param("gzip", gzip.compress(b" " * MIB) * 64, id="gzip of many members")


@pytest.mark.parametrize(("coding", "data"), list(bombs()))
def test_a_bomb_does_not_go_off(ann: Visit, coding: str, data: bytes) -> None:
    assert len(data) < MIB
    answer = ann.send("/v1/records", data, headers={"Content-Encoding": coding})
    assert answer.status_code in (400, 413)
    assert answer.json()["code"] in ("malformed_body", "too_large")


@pytest.mark.parametrize("coding", ["zstd", "gzip"])
@pytest.mark.parametrize("data", [b"", b"{}", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"\x00" * 100])
def test_what_is_not_compressed_as_it_says_is_refused(ann: Visit, coding: str, data: bytes) -> None:
    answer = ann.send("/v1/records", data, headers={"Content-Encoding": coding})
    if data:
        is_problem(answer, 400, "malformed_body")
    else:
        assert answer.status_code < 500


def test_gzip_with_something_behind_it_is_refused(ann: Visit) -> None:
    data = gzip.compress(WHOLE) + b"more"
    answer = ann.send("/v1/records", data, headers={"Content-Encoding": "gzip"})
    is_problem(answer, 400, "malformed_body")


def test_requirements_that_no_index_could_hold_are_refused(ann: Visit) -> None:
    programs = [token_hex(40) for _ in range(50)]
    answer = ann.post("/v1/records", {"records": [task(required_programs=programs)]})
    (error,) = answer.json()["errors"]
    assert "require fewer programs" in error["message"]


# Types and addresses


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/xml", "json", "é"])
def test_a_body_of_another_type_is_refused(ann: Visit, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = ann.http.post("/v1/records", content=WHOLE, headers=latin_1(headers))
    assert "application/msgpack" in is_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, zstd", "zstd;q=1"])
def test_a_body_compressed_in_another_way_is_refused(ann: Visit, coding: str) -> None:
    answer = ann.send("/v1/records", zlib.compress(WHOLE), headers={"Content-Encoding": coding})
    assert "zstd" in is_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept-encoding"]


def test_a_request_without_a_body_may_say_anything_about_it(ann: Visit) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "br"}
    assert ann.get("/v1/server", headers=headers).status_code == 200


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*, text/*", "?"])
def test_an_answer_in_another_form_is_not_to_be_had(ann: Visit, accept: str) -> None:
    answer = ann.get("/v1/server", headers={"Accept": accept})
    is_problem(answer, 406, "not_acceptable")


@pytest.mark.parametrize(
    ("accept", "gets"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/x-msgpack", MSGPACK),
        ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0.5, application/msgpack", MSGPACK),
        ("application/msgpack;q=0.5, application/json;q=0.9", JSON),
        ("application/json;q=0, */*", MSGPACK),
        ("application/json;q=high", JSON),
        ("application/json; charset=utf-8", JSON),
    ],
)
def test_the_answer_comes_in_the_form_that_is_liked_best(
    ann: Visit, accept: str, gets: str
) -> None:
    answer = ann.get("/v1/server", headers={"Accept": accept})
    assert answer.headers["content-type"] == gets


def test_where_both_forms_are_liked_the_answer_comes_in_that_of_the_body(ann: Visit) -> None:
    both = {"Accept": f"{JSON}, {MSGPACK}"}
    data: bytes = msgpack.packb({"ids": []})
    assert ann.send("/v1/records/get", data, MSGPACK, headers=both).headers["content-type"] == (
        MSGPACK
    )


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/records/", "/v2/records", "/docs", "/%00", "/v1/records/1/x", "/%ff"]
)
def test_an_address_with_nothing_behind_it_is_a_problem_like_any_other(
    ann: Visit, path: str
) -> None:
    is_problem(ann.get(path), 404, "no_such_route")


def test_a_method_that_is_not_possible_is_a_problem_like_any_other(ann: Visit) -> None:
    answer = ann.http.request("DELETE", "/v1/records")
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    is_problem(ann.http.request("OPTIONS", "/health"), 405, "method_not_allowed")
