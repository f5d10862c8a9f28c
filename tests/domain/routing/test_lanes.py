"""Routing: tags, required programs, and which lanes a manager can take from."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.errors import InvalidInput
from recordledger.domain.routing.lanes import (
    REQUIREMENT_CHARACTERS_MAX,
    REQUIREMENTS_CHARACTERS_MAX,
    Lane,
    lanes_by_tag,
    parse_programs,
    parse_requirement,
    parse_requirements,
    parse_tag,
    satisfies,
)

# Tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("gpu", "gpu"),
        ("GPU", "gpu"),
        ("_private", "_private"),
        ("a.b:c/d@e+f=g-h", "a.b:c/d@e+f=g-h"),
        ("7", "7"),
        ("x" * 100, "x" * 100),
        ("*", "*"),
    ],
)
def test_a_tag_is_lower_case(text: str, tag: str) -> None:
    assert parse_tag(text) == tag
    assert parse_tag(tag) == tag


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "-a", ".a", "**", "a*", "*a", "x" * 101, "gpu\n", "größe", "a\0", "\ud800"],
)
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a tag"):
        parse_tag(text)


def test_the_message_about_a_long_tag_is_short() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_tag("x" * 10**6)
    assert len(str(caught.value)) < 300
    assert str(caught.value).startswith(repr("x" * 120) + " ")


# Required programs


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("psi4", "psi4"),
        ("  Psi4\t\n", "psi4"),
        ("psi4>=1.9", "psi4>=1.9"),
        ("psi4 >= 1.9", "psi4>=1.9"),
        ("psi4<2,>=1.9", "psi4<2,>=1.9"),
        ("psi4 >=1.9 , <2", "psi4<2,>=1.9"),
        ("psi4>=1.9,>=1.9", "psi4>=1.9"),
        ("psi4!=1.9.1", "psi4!=1.9.1"),
        ("psi4~=1.9", "psi4~=1.9"),
        ("psi4==1.9.*", "psi4==1.9.*"),
        ("psi4===1.9", "psi4===1.9"),
        ("dftd3-lib.x_y+z", "dftd3-lib.x_y+z"),
        ("x" * 100, "x" * 100),
    ],
)
def test_a_requirement_has_one_canonical_form(text: str, canonical: str) -> None:
    assert parse_requirement(text) == canonical
    assert parse_requirement(canonical) == canonical


def test_a_requirement_may_be_as_long_as_the_limit() -> None:
    longest = "psi4>=" + "9" * (REQUIREMENT_CHARACTERS_MAX - len("psi4>="))
    assert parse_requirement(longest) == longest
    with pytest.raises(InvalidInput, match="in at most 200 characters"):
        parse_requirement(longest + "9")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ">=1.9",
        "-psi4",
        "psi4 1.9",
        "psi 4",
        "psi4;python",
        "psi4[all]",
        "psi4@1.9",
        "größe",
        "psi4>=1.9\n<2",
        "psi4\0",
        "psi4===\0",
        "psi4===\ud800",
        "psi4===größe",
        "x" * 101,
        "psi4>=" + "9" * REQUIREMENT_CHARACTERS_MAX,
        "psi4" + ",".join(f">={n}" for n in range(10_000)),
    ],
)
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a required program") as caught:
        parse_requirement(text)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).startswith(repr(text[:120]) + " ")


@pytest.mark.parametrize(
    "text",
    ["psi4>", "psi4>=", "psi4=1.9", "psi4>=x", "psi4~=1", "psi4>=1.9;x", "psi4<>1", "psi4>=1,x"],
)
def test_a_bad_version_specifier_is_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"is not a version specifier \(PEP 440\)"):
        parse_requirement(text)


def test_a_long_version_specifier_is_named_in_part() -> None:
    specifier = ">=" + "x" * 150
    with pytest.raises(InvalidInput) as caught:
        parse_requirement(f"psi4{specifier}")
    named = f"{specifier[:120]!r} in {'psi4' + specifier[:116]!r} "
    assert str(caught.value).startswith(named)


def test_requirements_are_sorted_and_each_is_there_once() -> None:
    texts = ["xtb", "Psi4 >=1.9", "psi4>=1.9", "XTB", "dftd4"]
    assert parse_requirements(texts) == ("dftd4", "psi4>=1.9", "xtb")
    assert parse_requirements([]) == ()


# Satisfying them


@pytest.mark.parametrize(
    ("requirement", "version", "met"),
    [
        ("psi4", "1.9", True),
        ("psi4", None, True),
        ("psi4", "git-abc", True),
        ("psi4>=1.9", "1.9", True),
        ("psi4>=1.9", "1.10", True),
        ("psi4>=1.9", "1.8.2", False),
        ("psi4<2", "1.9", True),
        ("psi4<2", "2.0", False),
        ("psi4<2,>=1.9", "1.9.1", True),
        ("psi4<2,>=1.9", "1.8", False),
        ("psi4<2,>=1.9", "2.1", False),
        ("psi4!=1.9.1", "1.9.1", False),
        ("psi4!=1.9.1", "1.9.2", True),
        ("psi4~=1.9", "1.12", True),
        ("psi4~=1.9", "2.0", False),
        ("psi4~=1.9.1", "1.9.7", True),
        ("psi4~=1.9.1", "1.10", False),
        ("psi4==1.9.*", "1.9.5", True),
        ("psi4==1.9", "1.9.0", True),
        ("psi4==1.9", "1.9+cuda", True),
        ("psi4>=1.9", "1.10rc1", True),
        ("psi4>=1.9", "1.9rc1", False),
        ("psi4<2", "2.0rc1", False),
        ("psi4>=1.9rc1", "1.9rc2", True),
        ("psi4>=1.9", "1.10.dev3", True),
        ("psi4>=1.9", None, False),
        ("psi4>=1.9", "git-abc", False),
        ("psi4>=1.9", "", False),
        ("psi4>=1.9", "9" * 5000, False),
        ("psi4!=1.9", None, False),
        ("psi4===abc", "abc", False),
    ],
)
def test_a_program_meets_a_requirement_by_pep_440(
    requirement: str, version: str | None, met: bool
) -> None:
    assert satisfies({"psi4": version}, (parse_requirement(requirement),)) is met


def test_all_requirements_have_to_be_met() -> None:
    programs = {"psi4": "1.9", "xtb": None}
    assert satisfies(programs, ())
    assert satisfies(programs, ("psi4", "xtb"))
    assert not satisfies(programs, ("psi4", "xtb>=6"))
    assert not satisfies(programs, ("psi4", "dftd4"))
    assert not satisfies({}, ("psi4",))
    assert satisfies({}, ())


def test_a_stored_requirement_that_nobody_can_read_is_met_by_its_very_name_only() -> None:
    assert not satisfies({"psi4": "1"}, ("what is this",))
    assert satisfies({"what is this": "1"}, ("what is this",))


# Lanes


def lane(tag: str, *required_programs: str) -> Lane:
    return Lane(tag, required_programs)


LANES = {1: lane("gpu"), 2: lane("cpu"), 3: lane("gpu", "psi4"), 4: lane("*"), 5: lane("big")}


ORDERS: list[tuple[list[str], list[list[int]]]] = [
    ([], []),
    (["gpu"], [[1, 3]]),
    (["cpu", "gpu"], [[2], [1, 3]]),
    (["gpu", "cpu"], [[1, 3], [2]]),
    (["nobody"], [[]]),
    (["*"], [[1, 2, 3, 4, 5]]),
    (["cpu", "*"], [[2], [1, 3, 4, 5]]),
    (["*", "cpu"], [[1, 2, 3, 4, 5], []]),
    (["gpu", "gpu"], [[1, 3], []]),
    (["cpu", "*", "gpu", "*"], [[2], [1, 3, 4, 5], [], []]),
]


@pytest.mark.parametrize(("tags", "expected"), ORDERS, ids=str)
def test_the_order_of_a_managers_tags_is_the_order_of_its_lanes(
    tags: list[str], expected: list[list[int]]
) -> None:
    assert lanes_by_tag(tags, {"psi4": None}, LANES) == expected


def test_a_task_with_the_wildcard_is_for_managers_with_the_wildcard_only() -> None:
    every_tag = [lane.tag for lane in LANES.values() if lane.tag != "*"]
    assert 4 not in chain.from_iterable(lanes_by_tag(every_tag, {"psi4": None}, LANES))
    assert lanes_by_tag([*every_tag, "*"], {"psi4": None}, LANES)[-1] == [4]


def test_a_lane_whose_programs_the_manager_lacks_is_not_taken() -> None:
    assert lanes_by_tag(["*"], {}, LANES) == [[1, 2, 4, 5]]
    versions = {1: lane("gpu", "psi4>=1.9"), 2: lane("gpu", "psi4<1.9"), 3: lane("gpu")}
    assert lanes_by_tag(["gpu"], {"psi4": "1.9"}, versions) == [[1, 3]]
    assert lanes_by_tag(["gpu"], {"psi4": "1.8"}, versions) == [[2, 3]]
    assert lanes_by_tag(["gpu"], {"psi4": None}, versions) == [[3]]


TAGS = st.sampled_from(["*", "gpu", "cpu", "big"])


@for_all(
    st.lists(TAGS, max_size=6),
    st.dictionaries(
        st.integers(1, 20), st.builds(Lane, TAGS, st.sampled_from([(), ("psi4",), ("xtb",)]))
    ),
)
def test_each_lane_is_taken_once_by_the_first_tag_that_opens_it(
    tags: list[str], lanes: dict[int, Lane]
) -> None:
    ordered = lanes_by_tag(tags, {"psi4": "1.9"}, lanes)
    assert len(ordered) == len(tags)
    for id_, of_lane in lanes.items():
        opening = [index for index, tag in enumerate(tags) if tag in ("*", of_lane.tag)]
        able = of_lane.required_programs != ("xtb",)
        expected = opening[:1] if able else []
        assert [
            index for index, ids in enumerate(ordered) for id__ in ids if id__ == id_
        ] == expected


def test_a_managers_programs_are_known_by_lower_case_names() -> None:
    assert parse_programs({"Psi4": "1.9", "dftd3": None}) == {"psi4": "1.9", "dftd3": None}


@pytest.mark.parametrize("name", ["", "psi4>=1.9", "two words", "-x", "psi4\0"])
def test_what_is_no_programs_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a program's name"):
        parse_programs({name: "1.0"})


def test_a_wrong_name_of_a_program_is_named_in_part_and_where_its_version_goes() -> None:
    with pytest.raises(InvalidInput, match=r"give its version beside it$") as caught:
        parse_programs({"x" * 200: None})
    assert str(caught.value).startswith(repr("x" * 120) + " ")


def test_required_programs_may_be_as_long_together_as_the_limit() -> None:
    longest = [f"{number:0100}" for number in range(REQUIREMENTS_CHARACTERS_MAX // 100)]
    assert len(parse_requirements(longest)) == len(longest)
    with pytest.raises(InvalidInput, match="characters together"):
        parse_requirements([*longest, "x"])


def test_required_programs_that_are_too_long_together_are_refused() -> None:
    many = [f"program-{number:04}-{'x' * 80}" for number in range(30)]
    with pytest.raises(InvalidInput, match="characters together"):
        parse_requirements(many)
