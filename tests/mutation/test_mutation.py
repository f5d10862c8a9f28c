"""What `make mutate` decides by, without making a mutant: that takes minutes."""

from __future__ import annotations

import ast
import doctest
from importlib import import_module

import pytest

from recordledger.domain.records.actions import Action

from . import survivors
from .__main__ import ROOT, TARGETS, THEMES, chosen, faults_of, report
from .mutants import Mutant
from .survivors import Survivor
from .tables import FIRST, TABLES, THEN, changes, makes

RECORD = "domain/records/record.py"
MUTANTS = [
    *(Mutant(RECORD, "decide", f"`{n}` -> `{n + 1}`", is_killed=True) for n in range(9)),
    Mutant(RECORD, "decide", "`a` -> `b`", is_killed=False),
]
LISTED = Survivor(RECORD, "decide", "`a` -> `b`", "it is the same")


@pytest.mark.parametrize("name", ["mutants", "survivors", "tree"])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(import_module(f"tests.mutation.{name}"))
    assert (found.failed, found.attempted > 0) == (0, True)


def test_what_is_mutated_and_what_tests_it_is_there() -> None:
    assert FIRST.keys() == TABLES.keys()
    assert [name for name in (*FIRST.values(), *THEN) if not (ROOT / name).exists()] == []
    for target in TARGETS.values():
        tests = [name.rpartition("=")[2] for name in target.tests]
        assert [name for name in (*target.modules, *tests) if not (ROOT / name).exists()] == []
    mutated = {name for target in TARGETS.values() for name in target.modules}
    assert {*TABLES, *(name for some in THEMES.values() for name in some)} <= mutated


def test_each_table_is_made_by_a_statement_of_its_module() -> None:
    for module, tables in TABLES.items():
        made = ast.parse((ROOT / module).read_text("utf-8")).body
        assert [table for table in tables if not any(makes(each, table) for each in made)] == []


def test_every_listed_survivor_says_why() -> None:
    listed = survivors.parse(survivors.PAGE.read_text("utf-8"))
    assert [each for each in listed if not each.why or not (ROOT / each.module).is_file()] == []
    assert len({each.key for each in listed}) == len(listed)
    assert {each.module for each in listed} <= {name for some in THEMES.values() for name in some}


def test_a_target_is_chosen_by_its_name_or_by_its_modules() -> None:
    assert chosen(["rules"]) == TARGETS["rules"]
    some = chosen([RECORD, "domain/routing/lanes.py"])
    assert some is not None
    assert some.modules == (RECORD, "domain/routing/lanes.py")
    assert chosen([RECORD, "projections/ledger.py"]) is None


def test_a_survivor_of_a_theme_has_to_be_listed() -> None:
    assert list(faults_of(MUTANTS, [LISTED])) == []
    (fault,) = faults_of(MUTANTS, [])
    assert fault.endswith("## domain/records/record.py\n\n- `decide`: `a` -> `b`")


def test_what_is_listed_has_to_live() -> None:
    killed = LISTED._replace(change="`0` -> `1`")
    (fault,) = faults_of(MUTANTS, [LISTED, killed])
    assert fault.endswith("- `decide`: `0` -> `1`")
    elsewhere = LISTED._replace(module="domain/records/transitions.py")
    assert list(faults_of(MUTANTS, [LISTED, elsewhere])) == []


def test_nine_of_ten_have_to_be_killed_of_each_theme_and_module() -> None:
    faults = list(faults_of(MUTANTS[1:], [LISTED]))
    assert [fault.partition(": 88.9%")[0] for fault in faults] == ["theme record", RECORD]
    assert "90.0%" in report(MUTANTS)


def test_each_row_of_a_table_is_left_out_and_leads_elsewhere() -> None:
    found = [(each.words, each.apply({1: "a", 2: "b"})) for each in changes("T", {1: "a", 2: "b"})]
    assert found == [
        ("without `1`", {2: "b"}),
        ("`1` -> `b`", {1: "b", 2: "b"}),
        ("without `2`", {1: "a"}),
        ("`2` -> `a`", {1: "a", 2: "a"}),
    ]
    assert [each.apply(("x", "y")) for each in changes("T", ("x", "y"))] == [("y",), ("x",)]


def test_actions_lose_and_change_what_they_do_to_records_and_relatives() -> None:
    words = [each.words for each in changes("Action", Action) if "`invalidate." in each.words]
    assert words == [
        "`invalidate.undoable` -> `False`",
        "`invalidate.restores` -> `True`",
        "`invalidate.event` -> `uninvalidated`",
        "`invalidate.opposite` -> `None`",
        "without `invalidate.parents`",
        "`invalidate.parents.event` -> `uninvalidated`",
        "`invalidate.parents.group` -> `error`",
        "`invalidate.parents.otherwise` -> `None`",
        "`invalidate.parents.option` -> `None`",
        "without `invalidate.children`",
        "`invalidate.children.event` -> `uncancelled`",
        "`invalidate.children.group` -> `complete`",
        "`invalidate.children.shared` -> `True`",
        "`invalidate.children.below` -> `None`",
        "`invalidate.children.option` -> `None`",
    ]
