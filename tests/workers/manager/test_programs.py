"""Which programs a manager finds: distributions, executables, and what it is told."""

from __future__ import annotations

import queue
from importlib.metadata import version
from pathlib import Path

import pytest

from recordledger.workers.manager import programs
from recordledger.workers.manager.programs import (
    Programs,
    ProgramSearch,
    Surveyor,
    parse_executable,
    survey,
    version_of,
)


def script(folder: Path, name: str, body: str) -> Path:
    """Write an executable program; return where it is."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_installed_distributions_are_found_with_their_versions() -> None:
    found = survey(
        ProgramSearch(distributions=("msgpack", "pydantic*", "no-such-thing"), executables={})
    )
    assert found["msgpack"] == version("msgpack")
    assert found["pydantic-core"] == version("pydantic-core")
    assert "no-such-thing" not in found


def test_names_of_distributions_may_be_written_as_they_are_imported() -> None:
    found = survey(ProgramSearch(distributions=("Pydantic_Core",), executables={}))
    assert found == {"pydantic-core": version("pydantic-core")}


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("xtb version 6.6.1 (8d0f1dd) compiled by 'x@y' on 2023-08-01", "6.6.1"),
        ("1.9.1", "1.9.1"),
        ("Psi4 v1.10rc2", "1.10rc2"),
        ("GROMACS version:    2024.3-Debian", "2024.3"),
        ("built in 2024, no version", None),
        ("", None),
    ],
)
def test_the_version_is_the_first_thing_printed_that_looks_like_one(
    tmp_path: Path, printed: str, expected: str | None
) -> None:
    path = script(tmp_path, "tool", f'echo "{printed}"')
    assert version_of(f"{path} --version") == expected


def test_a_version_on_standard_error_and_a_bad_exit_status_will_do(tmp_path: Path) -> None:
    assert version_of(str(script(tmp_path, "tool", "echo 3.1.4 >&2; exit 2"))) == "3.1.4"


def test_an_executable_that_is_not_there_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "present", "echo 2.5.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    wanted = ProgramSearch(
        distributions=(), executables={"present": "present --version", "absent": "absent -v"}
    )
    assert survey(wanted) == {"present": "2.5.0"}


def test_a_command_that_hangs_leaves_the_version_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "COMMAND_S_MAX", 0.2)
    hanging = script(tmp_path, "tool", "sleep 60 & wait")
    wanted = ProgramSearch(distributions=(), executables={"tool": str(hanging)})
    assert survey(wanted) == {"tool": None}


def test_what_is_stated_wins_over_what_is_found() -> None:
    wanted = ProgramSearch({"MsgPack": "9.9", "orca": None}, ("msgpack",), {})
    assert survey(wanted) == {"msgpack": "9.9", "orca": None}


@pytest.mark.parametrize("text", ["", "xtb", "xtb=", "=xtb --version", "x y=xtb", 'a="'])
def test_what_names_no_program_or_no_command_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_executable(text)


def test_a_program_that_was_upgraded_is_told_once(tmp_path: Path) -> None:
    path = script(tmp_path, "tool", "echo 1.0.0")
    wanted = ProgramSearch(distributions=(), executables={"tool": str(path)})
    told: queue.SimpleQueue[Programs] = queue.SimpleQueue()
    looks: queue.SimpleQueue[None] = queue.SimpleQueue()

    def look() -> Programs:
        found = survey(wanted)
        looks.put(None)
        return found

    surveyor = Surveyor(look, told.put, 0.01, survey(wanted))
    surveyor.start()
    try:
        looks.get(timeout=30)
        assert told.empty()
        newer = script(tmp_path, "newer", "echo 2.0.0")
        newer.rename(path)
        assert told.get(timeout=30) == {"tool": "2.0.0"}
        looks.get(timeout=30)
        looks.get(timeout=30)
        assert told.empty()
    finally:
        surveyor.end()
