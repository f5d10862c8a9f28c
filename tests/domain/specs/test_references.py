"""References in specifications: what they look like, and what they stand for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recordledger.domain.records.events import Payload
from recordledger.domain.specs.fingerprint import specify
from recordledger.domain.specs.references import (
    ReferenceBroken,
    as_json,
    payloads_referred_to,
    references_in,
    resolve,
)
from recordledger.domain.specs.service import Reference

ONE = Payload(digest=b"\1" * 32, size_bytes=11)
TWO = Payload(digest=b"\2" * 32, size_bytes=22)
FIRST = {"$payload": {"digest": "01" * 32, "size_bytes": 11, "path": ["energy", 0]}}
RESULTS: dict[bytes, Any] = {ONE.digest: {"energy": [-76.4]}, TWO.digest: [1, 2]}


def test_references_become_json_and_come_back() -> None:
    kwargs = {"x": Reference(ONE, ("energy", 0)), "y": (1, [Reference(TWO)]), "z": "text"}
    written = as_json(kwargs)
    assert written["x"] == FIRST
    assert json.loads(json.dumps(written)) == written
    assert set(references_in(written)) == {Reference(ONE, ("energy", 0)), Reference(TWO)}
    assert resolve(written, RESULTS) == {"x": -76.4, "y": [1, [[1, 2]]], "z": "text"}


@pytest.mark.parametrize(
    "value",
    [
        {"$payload": "mine"},
        {"$payload": {**FIRST["$payload"], "more": 1}},
        {**FIRST, "more": 1},
        {"$payload": {**FIRST["$payload"], "digest": "XY" * 32}},
        {"$payload": {**FIRST["$payload"], "size_bytes": -1}},
        {"$payload": {**FIRST["$payload"], "path": [None]}},
        {"$payload": {**FIRST["$payload"], "path": "energy"}},
        ["$payload"],
    ],
)
def test_what_only_resembles_a_reference_is_a_value_like_any_other(value: Any) -> None:
    assert list(references_in(value)) == []
    assert resolve(value, {}) == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("energy", 1), "has nothing at ['energy'][1]: it is a list there"),
        (("gradient",), "has nothing at ['gradient']: it is a dict there"),
        (("energy", 0, "x"), "has nothing at ['energy'][0]['x']: it is a float there"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(path: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(ReferenceBroken) as caught:
        resolve(as_json([Reference(ONE, path)]), RESULTS)
    assert message in str(caught.value)


def test_a_payload_that_is_gone_is_named() -> None:
    with pytest.raises(ReferenceBroken, match=r"the payload 010101010101\.\.\. was destroyed"):
        resolve(FIRST, {})


def test_a_specification_knows_what_it_refers_to() -> None:
    def refers_to(kwargs: dict[str, Any]) -> tuple[Payload, ...]:
        return specify("psi4", kwargs, (), size_bytes_max=1_000).refers_to

    assert refers_to({"x": 1}) == ()
    assert refers_to({"x": {"$payload": "mine"}}) == ()
    twice = as_json({"b": Reference(TWO), "a": [Reference(ONE), Reference(ONE, ("energy",))]})
    assert refers_to(twice) == (ONE, TWO)
    assert payloads_referred_to(b"no mark", twice) == ()
