"""Whatever is sent, the server answers, and never with a fault of its own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final, cast

import httpx2
import msgpack
import pytest
import zstandard
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.sizes import N_NESTED_REQUESTS, N_SPOILT_REQUESTS

from ..service import JSON, MSGPACK, Visit, latin_1, task

# Hypothesis may use a fixture again and again: the server is meant to bear that.
FUZZ: Final = settings(
    max_examples=N_NESTED_REQUESTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)

POSTS: Final = (
    "/v1/records",
    "/v1/records/get",
    "/v1/records/query",
    "/v1/managers",
    "/v1/managers/1/heartbeat",
    "/v1/managers/1/claim",
    "/v1/managers/1/results",
    "/v1/managers/1/relinquish",
    "/v1/managers/2/deactivate",
    "/v1/managers/1/drain",
    "/v1/managers/1/programs",
    "/v1/tokens",
    "/v1/tokens/9/revoke",
    "/v1/records/modify",
    "/v1/records/comment",
    "/v1/records/adopt",
    "/v1/operations/5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70/undo",
    "/v1/jobs/1/cancel",
    "/v1/services/3/start",
    "/v1/services/3/iterate",
    "/v1/services/3/finish",
)

# Names that mean something somewhere, so that what is generated gets beyond the first check.
NAMES: Final = [
    "function",
    "kwargs",
    "tag",
    "priority",
    "status",
    "owner",
    "manager_id",
    "limit",
    "cursor",
    "name",
    "hostname",
    "record_id",
    "attempt",
    "result",
    "results",
    "error_type",
    "stdout",
    "provenance",
    "user",
    "role",
    "new_tag",
    "new_priority",
    "text",
    "delete_children",
    "propagate",
    "dry_run",
    "all",
    "query",
    "ids",
    "state",
    "children",
    "output",
    "kind",
]

# Any text, half surrogate pairs and NUL too.
texts = st.one_of(
    st.text(st.characters(), max_size=20),
    st.text(st.sampled_from("\0\ud800\udfffaé*:.>=1"), max_size=6),
    st.sampled_from(["*", "demo:f", "waiting", "normal", "kwargs", "user", "2026-01-01T00:00Z"]),
)
integers = st.one_of(
    st.integers(-1, 3),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63]),
)
moments = st.datetimes(timezones=st.just(UTC))
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(), texts)
packable = st.one_of(scalars, st.binary(max_size=20), moments)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.one_of(st.sampled_from(NAMES), texts)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)
        ),
        max_leaves=25,
    )


# Bodies that are right, to be spoilt in one place.
RIGHT: Final[dict[str, Any]] = {
    "/v1/records": {
        "records": [
            {
                "function": "demo:f",
                "kwargs": {"x": 1},
                "required_programs": ["psi4>=1"],
                "tag": "fuzz",
                "priority": "high",
                "retries": 1,
            }
        ],
        "find_existing": True,
        "reason": "fuzz",
    },
    "/v1/records/get": {"ids": [1], "include": ["kwargs"], "missing_ok": True},
    "/v1/records/query": {
        "query": {
            "ids": [1],
            "status": ["waiting"],
            "tag": ["fuzz"],
            "owner": ["user:ann"],
            "manager_id": [1],
            "function": ["demo:f"],
            "created_after": "2026-01-01T00:00:00Z",
            "modified_before": "2026-01-01T00:00:00Z",
        },
        "include": ["result"],
        "limit": 2,
        "cursor": None,
    },
    "/v1/managers": {
        "name": "m",
        "hostname": "h",
        "tags": ["fuzz"],
        "programs": {"psi4": "1.9"},
        "lease_s": 60.0,
        "heartbeat_s": 9.0,
    },
    "/v1/managers/1/heartbeat": {"held": [{"record_id": 1, "attempt": 1}]},
    "/v1/managers/1/claim": {"limit": 3},
    "/v1/managers/1/results": {
        "results": [
            {
                "record_id": 1,
                "attempt": 1,
                "result": {"x": [1]},
                "error_type": "E",
                "error_message": "m",
                "traceback": "t",
                "stdout": "o",
                "stderr": "e",
                "provenance": {"host": "h"},
                "compute_s": 1.0,
            }
        ]
    },
    "/v1/managers/1/relinquish": {"attempts": [{"record_id": 1, "attempt": 1}], "reason": "r"},
    "/v1/managers/2/deactivate": {"reason": "r"},
    "/v1/managers/1/drain": {"reason": "r"},
    "/v1/managers/1/programs": {"programs": {"psi4": "1.9", "xtb": None}},
    "/v1/records/modify": {
        "query": {"tag": ["fuzz"], "status": ["held"]},
        "all": True,
        "new_tag": "fuzz",
        "new_priority": "low",
        "reason": "r",
        "dry_run": True,
    },
    "/v1/records/comment": {"ids": [1, 2], "text": "t", "dry_run": False},
    "/v1/records/adopt": {"ids": [1], "attempt": 1},
    "/v1/services/3/iterate": {"state": {"step": 1}, "children": [1], "output": "o"},
    "/v1/services/3/finish": {"result": {"x": 1}, "error_type": "E", "error_message": "m"},
    "/v1/tokens": {"user": "u", "role": "reader", "expires_at": "2030-01-01T00:00:00Z"},
}


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything inside a value."""
    found = [path] if path else []
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value).items()
    elif isinstance(value, list):
        inner = enumerate(cast("list[object]", value))
    for step, item in inner:
        found += places(item, (*path, step))
    return found


@st.composite
def spoilt(draw: st.DrawFn, leaves: st.SearchStrategy[Any]) -> tuple[str, Any]:
    """Draw a request that is right but for one value, or one key too many."""
    path = draw(st.sampled_from(sorted(RIGHT)))
    body = json.loads(json.dumps(RIGHT[path]))
    *way, last = draw(st.sampled_from(places(body)))
    place = body
    for step in way:
        place = place[step]
    if isinstance(place, dict) and draw(st.integers(0, 9)) == 0:
        place[draw(texts)] = draw(leaves)
    else:
        place[last] = draw(nested(leaves))
    return path, body


def fine(answer: httpx2.Response) -> None:
    """Assert that the server has made nothing of a client's mistake but an answer."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


@pytest.fixture(autouse=True, scope="module")
def something_to_find(ann: Visit) -> None:
    """Managers 1 and 2, and a record that manager 1 is running."""
    ann.create(task(tag="fuzz", kwargs={"x": 1}))
    ann.claim(ann.register("fuzz"))
    ann.register("fuzz")


@FUZZ
@given(path=st.sampled_from(POSTS), data=st.binary(max_size=200), packed=st.booleans())
@example(path="/v1/records", data=b"\x80", packed=True)
def test_any_bytes_get_an_answer(ann: Visit, path: str, data: bytes, *, packed: bool) -> None:
    fine(ann.send(path, data, MSGPACK if packed else JSON))


@FUZZ
@given(path=st.sampled_from(POSTS), body=nested(scalars))
def test_any_json_gets_an_answer(ann: Visit, path: str, body: Any) -> None:
    fine(ann.post(path, body))


@FUZZ
@given(path=st.sampled_from(POSTS), body=nested(packable))
def test_any_msgpack_gets_an_answer(ann: Visit, path: str, body: Any) -> None:
    fine(ann.pack(path, body))


@settings(FUZZ, max_examples=N_SPOILT_REQUESTS)
@given(request=spoilt(scalars))
def test_what_is_almost_right_in_json_gets_an_answer(ann: Visit, request: tuple[str, Any]) -> None:
    path, body = request
    fine(ann.post(path, body))


@settings(FUZZ, max_examples=N_SPOILT_REQUESTS)
@given(request=spoilt(packable))
def test_what_is_almost_right_in_msgpack_gets_an_answer(
    ann: Visit, request: tuple[str, Any]
) -> None:
    path, body = request
    fine(ann.pack(path, body))


@FUZZ
@given(data=st.data(), coding=st.sampled_from(["gzip", "zstd"]))
def test_damaged_compression_gets_an_answer(ann: Visit, data: st.DataObject, coding: str) -> None:
    whole: bytes = msgpack.packb({"ids": list(range(1, 60)), "missing_ok": True})
    compress = gzip.compress if coding == "gzip" else zstandard.ZstdCompressor().compress
    damaged = bytearray(compress(whole))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    headers = {"Content-Encoding": coding}
    fine(ann.send("/v1/records/get", bytes(damaged), MSGPACK, headers=headers))


header_values = st.one_of(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=20
    ),
    st.sampled_from(["application/json", "*/*;q=", "a/b, */*;q=0.5;;", "zstd", "gzip,zstd", "k"]),
)


@FUZZ
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["Accept", "Content-Type", "Content-Encoding", "Accept-Encoding", "Idempotency-Key"]
        ),
        header_values,
    )
)
def test_any_headers_get_an_answer(ann: Visit, headers: dict[str, str]) -> None:
    fine(ann.http.post("/v1/records/get", content=b'{"ids": []}', headers=latin_1(headers)))


@FUZZ
@given(
    path=st.sampled_from(
        ["/v1/records/%s", "/v1/records/%s/events", "/v1/managers/%s", "/%s", "/v1/%s"]
    ),
    part=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    query=st.dictionaries(
        st.sampled_from(["include", "limit", "cursor", "state", "x"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
)
def test_any_address_gets_an_answer(
    ann: Visit, path: str, part: str, query: dict[str, str]
) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in part.encode())
    fine(ann.get(path % quoted, params=query))
    fine(ann.get("/v1/managers", params=query))
    fine(ann.get("/v1/tokens", params=query))
