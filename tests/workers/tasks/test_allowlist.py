"""A manager runs what it allows, and imports nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recordledger.workers.demo.functions import quadratic
from recordledger.workers.tasks.allowlist import AllowList, FunctionNotAllowed, FunctionNotFound

TASKS = "tests.workers.misbehaving"


@pytest.fixture
def unimported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported and is not, yet."""
    (tmp_path / "treacherous.py").write_text("def run(): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "treacherous", raising=False)
    return "treacherous"


def test_entry_points_are_allowed_by_their_name() -> None:
    found = AllowList().resolve("quadratic")
    assert found.function is quadratic
    assert found.distribution == "recordledger"


def test_the_target_of_an_entry_point_is_allowed_by_its_whole_name() -> None:
    found = AllowList().resolve("recordledger.workers.demo.functions:quadratic")
    assert found.function is quadratic


def test_what_provides_entry_points_is_among_the_programs() -> None:
    assert "recordledger" in AllowList().programs


def test_an_unknown_entry_point_is_not_found_and_the_others_are_named() -> None:
    with pytest.raises(FunctionNotFound, match=r"'cubic'.*quadratic.*install the package"):
        AllowList().resolve("cubic")


def test_what_is_not_allowed_is_not_imported(unimported: str) -> None:
    with pytest.raises(FunctionNotAllowed, match=rf"--allow '{unimported}:\*'"):
        AllowList([f"{TASKS}:*"]).resolve(f"{unimported}:run")
    assert unimported not in sys.modules


def test_what_a_pattern_allows_is_imported(unimported: str) -> None:
    AllowList(["treach*:r?n"]).resolve(f"{unimported}:run")
    assert unimported in sys.modules


@pytest.mark.parametrize("name", ["echo", "Molecule.mass"])
def test_a_wildcard_allows_what_the_module_defines(name: str) -> None:
    assert callable(AllowList([f"{TASKS}:*"]).resolve(f"{TASKS}:{name}").function)


@pytest.mark.parametrize(
    "name", ["imported_function", "subprocess.run", "_private", "echo.__globals__", "Path"]
)
def test_a_wildcard_does_not_allow_what_the_module_has_from_elsewhere_or_hides(name: str) -> None:
    with pytest.raises(FunctionNotAllowed):
        AllowList([f"{TASKS}:*"]).resolve(f"{TASKS}:{name}")


@pytest.mark.parametrize("name", ["imported_function", "_private"])
def test_a_whole_name_allows_what_it_spells_out(name: str) -> None:
    assert callable(AllowList([f"{TASKS}:{name}"]).resolve(f"{TASKS}:{name}").function)


def test_no_name_leads_through_one_module_into_another() -> None:
    with pytest.raises(FunctionNotAllowed, match="name the function by its own module"):
        AllowList([f"{TASKS}:subprocess.run"]).resolve(f"{TASKS}:subprocess.run")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (f"{TASKS}:missing", "has no 'missing'"),
        (f"{TASKS}:not_callable", "not a function"),
        ("tests.workers.nowhere:run", "cannot be imported on this host"),
    ],
)
def test_what_is_allowed_and_not_there_is_not_found(name: str, says: str) -> None:
    with pytest.raises(FunctionNotFound, match=says):
        AllowList(["tests.workers.*:*"]).resolve(name)


@pytest.mark.parametrize("pattern", ["mypkg.chem", "mypkg.chem:", ":run", ""])
def test_a_pattern_that_can_allow_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="MODULE:FUNCTION"):
        AllowList([pattern])
