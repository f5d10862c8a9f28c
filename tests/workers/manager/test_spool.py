"""Results stay on disk until they are acknowledged, whole or not at all."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recordledger.workers.manager.spool import Spool

from ..conditions import eventually

LEDGER = "ledger-a"


def results(*record_ids: int, size_bytes: int = 10) -> list[dict[str, Any]]:
    return [{"record_id": id_, "attempt": 1, "result": b"x" * size_bytes} for id_ in record_ids]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def left_behind(spool: Spool) -> list[tuple[int, list[int]]]:
    return [
        (batch.manager_id, [result["record_id"] for result in batch.results()])
        for batch in spool.left_behind()
    ]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """The spool of manager 7."""
    made = Spool(tmp_path, LEDGER)
    made.own(7)
    yield made
    made.close()


def test_a_batch_is_on_disk_until_it_is_done(spool: Spool, tmp_path: Path) -> None:
    batch = spool.keep(7, results(1, 2))
    batch.forget()
    assert batch.results() == results(1, 2)
    assert files(tmp_path) == ["000000000001.results", "lock"]
    spool.done(batch)
    assert files(tmp_path) == ["lock"]
    assert batch.results() == []


def test_a_later_manager_finds_what_an_earlier_one_left_in_its_order(tmp_path: Path) -> None:
    for manager_id in (10, 9):
        earlier = Spool(tmp_path, LEDGER)
        earlier.own(manager_id)
        earlier.keep(manager_id, results(manager_id * 10 + 1))
        earlier.keep(manager_id, results(manager_id * 10 + 2))
        earlier.close()
    later = Spool(tmp_path, LEDGER)
    later.own(11)
    assert left_behind(later) == [(9, [91]), (9, [92]), (10, [101]), (10, [102])]
    for batch in list(later.left_behind()):
        later.done(batch)
    later.close()
    assert list(tmp_path.iterdir()) == []


def test_the_results_of_a_living_manager_are_left_alone(spool: Spool, tmp_path: Path) -> None:
    spool.keep(7, results(1))
    other = Spool(tmp_path, LEDGER)
    other.own(8)
    assert left_behind(other) == []
    other.close()
    assert len(files(tmp_path)) == 2
    spool.close()
    assert left_behind(Spool(tmp_path, LEDGER)) == [(7, [1])]


def test_a_folder_that_another_looks_into_is_owned_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Spool(tmp_path, LEDGER)
    other.own(7)
    threading.Timer(0.1, other.close).start()
    spool = Spool(tmp_path, LEDGER)
    spool.own(7)
    spool.keep(7, results(1))
    assert left_behind(Spool(tmp_path, LEDGER)) == []
    assert not caplog.records
    spool.close()


def test_results_of_one_ledger_are_not_offered_to_another(spool: Spool, tmp_path: Path) -> None:
    spool.keep(7, results(1))
    spool.close()
    assert left_behind(Spool(tmp_path, "ledger-b")) == []
    with pytest.raises(ValueError, match="cannot be the id of a ledger"):
        Spool(tmp_path, "../elsewhere")


def test_what_was_half_written_is_not_read(spool: Spool, tmp_path: Path) -> None:
    spool.close()
    folder = tmp_path / LEDGER / "3"
    folder.mkdir(parents=True)
    (folder / "000000000001.draft").write_bytes(b"\x82\xa6form")
    assert left_behind(Spool(tmp_path, LEDGER)) == []
    assert "000000000001.draft" not in files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x82\xa6form", b"\x01", b"\x80"])
def test_a_damaged_file_is_refused_and_set_aside(
    spool: Spool, tmp_path: Path, content: bytes
) -> None:
    batch = spool.keep(7, results(1))
    assert batch.path is not None
    batch.path.write_bytes(content)
    batch.forget()
    with pytest.raises(ValueError, match="is damaged"):
        batch.results()
    aside = spool.set_aside(batch, damaged=True)
    assert aside is not None
    assert aside.read_bytes() == content
    assert left_behind(Spool(tmp_path, LEDGER)) == []


WRITER = """
import sys
from pathlib import Path
from recordledger.workers.manager.spool import Spool

spool = Spool(Path(sys.argv[1]), "ledger-a")
spool.own(5)
print("begun", flush=True)
record_id = 0
while True:
    record_id += 1
    spool.keep(5, [{"record_id": record_id, "attempt": 1, "result": b"x" * 200_000}])
"""


def test_a_writer_that_is_killed_leaves_whole_files_only(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])  # noqa: S603
    try:
        eventually(lambda: len(files(tmp_path)) > 20)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    found = left_behind(Spool(tmp_path, LEDGER))
    assert [ids for _, ids in found] == [[n] for n in range(1, len(found) + 1)]
    assert len(found) >= 18


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False)  # noqa: S603
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def test_on_a_full_disk_results_stay_in_memory_and_it_is_said(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(small_disk, LEDGER)
    spool.own(7)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * 1024 * 1024)
    batches = [spool.keep(7, results(n, size_bytes=5000)) for n in range(3)]
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert "make room there" in said[0].getMessage()
    for number, batch in enumerate(batches):
        batch.forget()
        assert batch.results() == results(number, size_bytes=5000)
    filler.unlink()
    for batch in batches:
        spool.retry(batch)
        batch.forget()
    assert left_behind(Spool(small_disk, LEDGER)) == []  # its manager lives
    spool.close()
    assert left_behind(Spool(small_disk, LEDGER)) == [(7, [0]), (7, [1]), (7, [2])]


def test_a_folder_that_cannot_be_made_is_like_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in its place")
    spool = Spool(tmp_path / "state", LEDGER)
    spool.own(7)
    assert spool.keep(7, results(1)).results() == results(1)
    assert left_behind(spool) == []
    (tmp_path / "state").unlink()
    spool.keep(7, results(2))
    other = Spool(tmp_path / "state", LEDGER)
    assert left_behind(other) == []  # its manager lives
    spool.close()
    assert left_behind(other) == [(7, [2])]
