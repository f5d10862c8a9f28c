"""Specifications: equal ones have equal bytes, and nothing gets in that JSON cannot hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.specs.canonical import NESTING_MAX, canonical_json
from recordledger.domain.specs.fingerprint import Specification, digest_of, specify

LARGE = 10**6


def spec(kwargs: Mapping[str, Any] | None = None, function: str = "psi4") -> Specification:
    return specify(function, kwargs or {}, ("psi4",), size_bytes_max=LARGE)


def nested(levels: int) -> list[Any]:
    """Return a list in a list, and so on."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


# Equal and different


def test_a_specification_is_its_function_its_arguments_and_its_programs() -> None:
    found = specify("psi4", {"basis": "sto-3g"}, ("psi4>=1.9", "xtb"), size_bytes_max=LARGE)
    assert found.canonical == (
        b'{"function":"psi4","kwargs":{"basis":"sto-3g"},"required_programs":["psi4>=1.9","xtb"]}'
    )
    assert found.payload.digest == hashlib.sha256(found.canonical).digest()
    assert found.payload.size_bytes == len(found.canonical)
    assert (found.function, found.required_programs) == ("psi4", ("psi4>=1.9", "xtb"))


def test_the_order_of_keys_is_irrelevant_at_every_depth() -> None:
    first = spec({"a": 1, "b": {"c": [{"x": 1, "y": 2}], "d": None}})
    second = spec({"b": {"d": None, "c": [{"y": 2, "x": 1}]}, "a": 1})
    assert first == second


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (1, True),
        (0, False),
        (None, False),
        (None, "null"),
        ("1", 1),
        ("", None),
        ([], {}),
        ([1, 2], [2, 1]),
        ("é", "e\u0301"),
        ({"a": None}, {}),
    ],
    ids=repr,
)
def test_different_inputs_have_different_fingerprints(first: object, second: object) -> None:
    assert spec({"x": first}).payload.digest != spec({"x": second}).payload.digest


def test_functions_and_programs_are_part_of_the_fingerprint() -> None:
    assert spec(function="psi4").payload != spec(function="xtb").payload
    some, none = (specify("f", {}, programs, size_bytes_max=LARGE) for programs in (("x",), ()))
    assert some.payload != none.payload


def test_unicode_is_kept_as_it_is() -> None:
    text = "Größe 水 🧪 e\u0301 \u2028 \x7f"
    assert text.encode() in canonical_json({"name": text})


def test_control_characters_other_than_nul_are_kept() -> None:
    text = "".join(map(chr, range(1, 32)))
    assert json.loads(canonical_json(text)) == text


def test_tuples_are_lists() -> None:
    assert canonical_json((1, (2,))) == canonical_json([1, [2]])


def test_the_digest_is_the_sha_256() -> None:
    assert digest_of(b"") == hashlib.sha256(b"").digest()


# What JSON cannot hold


REFUSED: list[tuple[object, str]] = [
    ({"a": [1, float("nan")]}, r"^a\[1\] is nan: JSON has no such number"),
    ({"a": {"b": float("inf")}}, r"^a\.b is inf: JSON has no such number"),
    ([-float("inf")], r"^\[0\] is -inf"),
    (float("nan"), r"^the value is nan"),
    ({"a": ["x", "y\0"]}, r"^a\[1\] has a NUL character"),
    ({"a": {"b\0": 1}}, r"^a\.'b\\x00' \(the key\) has a NUL character"),
    ({"a": "\ud800"}, r"^a has a lone surrogate"),
    ({"a": "\udfff!"}, r"^a has a lone surrogate"),
    ({"a": [{"\udc00": 1}]}, r"^a\[0\]\.'\\udc00' \(the key\) has a lone surrogate"),
    ({"a": b"raw"}, r"^a is a bytes: JSON has no form for it"),
    ({"a": [{1, 2}]}, r"^a\[0\] is a set"),
    ({"a": 1j}, r"^a is a complex"),
    ({"a": object()}, r"^a is a object"),
    ({"a": MappingProxyType({})}, r"^a is a mappingproxy"),
    ({1: "x"}, r"^the value has the key 1: JSON's keys are strings"),
    ({"a": {2: "x"}}, r"^a has the key 2"),
    ({"a": [{"b": {None: 1}}]}, r"^a\[0\]\.b has the key None"),
    ({"a": ({True: 1},)}, r"^a\[0\] has the key True"),
    ({"a": {1: 1, "1": 2}}, r"^a has the key 1"),
    ({"a": {b"k": 1}}, r"^a has the key b'k'"),
    ({"a": {"b": 1, "c": {1.5: 1}}}, r"^a\.c has the key 1\.5"),
    ({"a": [10**5000]}, r"^a\[0\] is an integer of too many digits"),
    ({"a": [0, -(10**5000)]}, r"^a\[1\] is an integer of too many digits"),
    ({"fine": 1, "also": [10**4000], "a": b""}, r"^a is a bytes"),
]


@pytest.mark.parametrize(("value", "complaint"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_json_cannot_hold_is_refused_with_where_it_is(value: object, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        canonical_json(value)


def test_the_path_begins_at_the_arguments_of_a_specification() -> None:
    with pytest.raises(InvalidInput, match=r"^kwargs\.geometry\[2\] is nan"):
        spec({"geometry": [0.0, 1.0, float("nan")]})


def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_a_character() -> None:
    assert canonical_json(json.loads('"\\ud83e\\uddea"')) == '"🧪"'.encode()


@pytest.mark.parametrize("text", ["\\u0000", "a\\u0000b", "\\\\u0000", "u0000", "\\x00"])
def test_text_that_only_spells_a_nul_is_accepted(text: str) -> None:
    assert json.loads(canonical_json({text: [text]})) == {text: [text]}


def test_a_real_nul_beside_a_spelled_one_is_found() -> None:
    with pytest.raises(InvalidInput, match=r"^b has a NUL"):
        canonical_json({"a": "\\u0000", "b": "\0"})


@pytest.mark.parametrize("levels", [1, NESTING_MAX - 1, NESTING_MAX])
def test_nesting_is_accepted_up_to_the_limit(levels: int) -> None:
    value = nested(levels)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("levels", [NESTING_MAX + 1, 300, 900, 5_000, 100_000])
def test_deeper_nesting_is_refused(levels: int) -> None:
    with pytest.raises(
        InvalidInput, match=r"^\[0\]\[0\].* is nested deeper than 100 levels$"
    ) as it:
        canonical_json(nested(levels))
    assert len(str(it.value)) < 200


@pytest.mark.parametrize("levels", [NESTING_MAX, 900])
def test_objects_count_as_levels_too(levels: int) -> None:
    value: dict[str, Any] = {"end": 1}
    for _ in range(levels):
        value = {"k": value}
    with pytest.raises(InvalidInput, match=r"^k\.k\.k.* is nested deeper than 100 levels$"):
        canonical_json(value)


def test_what_is_wrong_at_the_deepest_level_allowed_is_named() -> None:
    for bad, complaint in ((float("nan"), "is nan"), ("\0", "has a NUL"), (b"", "is a bytes")):
        in_lists: object = bad
        in_objects: object = bad
        for _ in range(NESTING_MAX):
            in_lists, in_objects = [in_lists], {"k": in_objects}
        for value in (in_lists, in_objects):
            with pytest.raises(InvalidInput, match=complaint):
                canonical_json(value)


def test_an_integer_has_as_many_digits_as_python_reads() -> None:
    largest = 10**4300 - 1
    assert canonical_json([largest]) == b"[" + b"9" * 4300 + b"]"
    with pytest.raises(InvalidInput, match=r"^\[1\] is an integer of too many digits"):
        canonical_json([largest, largest + 1])


def test_a_list_that_contains_itself_is_nested_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInput, match="nested deeper"):
        canonical_json(value)


def test_a_specification_over_the_limit_is_refused() -> None:
    fits = spec({"text": "é" * 100})
    size = fits.payload.size_bytes
    assert specify("psi4", {"text": "é" * 100}, ("psi4",), size_bytes_max=size) == fits
    with pytest.raises(TooLarge, match="payload_bytes_max") as caught:
        specify("psi4", {"text": "é" * 100}, ("psi4",), size_bytes_max=size - 1)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)


# Functions


@pytest.mark.parametrize(
    "function",
    ["psi4", "_f", "my-engine.v2", "package.module:function", "m:Class.method", "f" * 200],
)
def test_a_function_is_an_entry_point_or_a_path(function: str) -> None:
    assert spec(function=function).function == function


@pytest.mark.parametrize(
    "function",
    [
        "",
        "1f",
        "a b",
        "m:",
        ":f",
        "m:f:g",
        "m:f-g",
        "f\n",
        "f\0",
        "größe",
        "../x",
        "f(1)",
        "f" * 201,
    ],
)
def test_what_is_no_function_is_refused(function: str) -> None:
    with pytest.raises(InvalidInput, match="is not a function"):
        spec(function=function)


# All JSON values

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5)
)
SMALL = st.sampled_from([None, False, True, 0, 1, 0.0, -0.0, 1.0, "", "0", "a"])
SIMILAR = st.recursive(
    SMALL,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def same(first: Any, second: Any) -> bool:
    """Return whether two JSON values are the same input: of one type all the way down."""
    kind = type(first).__name__
    if kind != type(second).__name__:
        return False
    if kind == "dict":
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if kind == "list":
        return len(first) == len(second) and all(map(same, first, second))
    return repr(first) == repr(second)


def turned_round(value: Any) -> Any:
    """Return the value with the keys of all its objects in the opposite order."""
    kind = type(value).__name__
    if kind == "dict":
        return {key: turned_round(value[key]) for key in reversed(list(value))}
    if kind == "list":
        return [turned_round(item) for item in value]
    return value


@for_all(VALUES)
def test_canonical_bytes_parse_back_to_the_same_value(value: object) -> None:
    assert same(json.loads(canonical_json(value)), value)


@for_all(VALUES)
def test_equal_values_have_equal_bytes(value: object) -> None:
    assert canonical_json(turned_round(value)) == canonical_json(value)


@for_all(SIMILAR, SIMILAR)
@example({"a": 1, "b": 0}, {"b": 0, "a": 1})
@example([0.0], [-0.0])
def test_bytes_are_equal_exactly_when_the_values_are(first: object, second: object) -> None:
    assert (canonical_json(first) == canonical_json(second)) is same(first, second)


@for_all(VALUES)
def test_the_canonical_form_of_the_canonical_form_is_itself(value: object) -> None:
    canonical = canonical_json(value)
    assert canonical_json(json.loads(canonical)) == canonical


@for_all(
    VALUES, st.sampled_from([float("nan"), "\0", "\ud800", b"", {1: 1}, 10**5000, nested(200)])
)
def test_one_bad_part_spoils_any_value(value: object, bad: object) -> None:
    for spoilt in ([value, bad], {"value": value, "bad": {"bad": bad}}):
        with pytest.raises(InvalidInput, match=r"JSON|NUL|surrogate|nested|digits"):
            canonical_json(spoilt)
