"""Output is caught whole if it is short, and from both ends if it is long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recordledger.workers.tasks.capture import CaughtOutput, read_remains, readable


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file as tasks write to it."""
    found = os.open(tmp_path / "stdout", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield found
    os.close(found)


def test_nothing_is_none(fd: int) -> None:
    assert CaughtOutput(fd, 100).take() is None


def test_short_output_is_whole_and_then_the_next_begins(fd: int) -> None:
    caught = CaughtOutput(fd, 100)
    os.write(fd, b"x" * 100)
    assert caught.take() == "x" * 100
    os.write(fd, b"next")
    assert caught.take() == "next"
    assert caught.take() is None


def test_long_output_keeps_both_ends_and_says_what_is_missing(fd: int) -> None:
    os.write(fd, b"B" * 10 + b"m" * 1000 + b"E" * 10)
    text = CaughtOutput(fd, 20).take()
    assert text == f"{'B' * 10}\n[... 1,000 bytes left out ...]\n{'E' * 10}"


@pytest.mark.parametrize("n_writes", [1, 2, 7, 60])
def test_emptying_the_file_meanwhile_makes_no_difference(
    fd: int, n_writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recordledger.workers.tasks.capture.FILE_BYTES_MAX", 0)
    written = bytes(range(48, 108)) * 2
    caught = CaughtOutput(fd, 10)
    size = len(written) // n_writes
    for start in range(0, len(written), size):
        os.write(fd, written[start : start + size])
        caught.shrink()
    left_out = f"\n[... {len(written) - 10} bytes left out ...]\n"
    assert caught.take() == written[:5].decode() + left_out + written[-5:].decode()


def test_what_a_dead_process_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"last words")
    assert read_remains(tmp_path, 100) == {"stdout": "last words", "stderr": None}


def test_text_that_cannot_be_stored_is_made_readable() -> None:
    assert readable(b"\xffa\0") == "\N{REPLACEMENT CHARACTER}a\N{REPLACEMENT CHARACTER}"
    assert readable("\ud800") == "\\ud800"
