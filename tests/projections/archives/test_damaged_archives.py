"""Archives that are damaged or forged are refused, and an import that fails leaves no trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from recordledger.domain.errors import (
    ArchiveFromFuture,
    ArchiveInvalid,
    ArchiveUnknown,
    TooLarge,
)
from recordledger.domain.records.events import Event, Held
from recordledger.projections.archives import archive, check, import_
from recordledger.projections.archives.archive import Container, Facts, sums_of
from recordledger.projections.archives.check import Contents, check_archive, contents_of_payload
from recordledger.projections.archives.export import export_archive
from recordledger.projections.archives.import_ import import_archive
from recordledger.projections.archives.parquet import TableWriter
from recordledger.projections.log.mapper import EventMapper, MsgpackTranscoder
from recordledger.projections.tables.payloads import compress, payload_of

from ..collection import Collection
from ..proof.test_audit import lived
from ..stage import Stage, empty, staged
from .transfer import ROOT, brought, flip
from .transfer import elsewhere as elsewhere  # fixtures, for pytest to find
from .transfer import second_database_url as second_database_url

pytest.importorskip("pyarrow")

N_FLIPS: Final = 25


# Damage


@pytest.fixture(scope="module")
def untouched(reused_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive in a folder, of a ledger in which a little of everything has happened."""
    empty(reused_database_url)
    with staged(reused_database_url) as made:
        lived(made)
        Collection.made(made, 1).submit()
        path = tmp_path_factory.mktemp("archives") / "whole"
        export_archive(made.ledger, path)
    return path


@pytest.fixture
def whole(untouched: Path, tmp_path: Path) -> Path:
    """An archive in a folder, to be damaged."""
    return shutil.copytree(untouched, tmp_path / "whole")


@pytest.mark.parametrize("name", sorted(archive.REQUIRED))
def test_a_flipped_bit_anywhere_in_a_file_is_found(whole: Path, name: str) -> None:
    size = (whole / name).stat().st_size
    for place in (0, size // 3, size // 2, size - 1):
        flip(whole / name, place)
        with pytest.raises(ArchiveInvalid):
            check_archive(whole)
        flip(whole / name, place)
    check_archive(whole)


@pytest.mark.parametrize("name", sorted(archive.REQUIRED))
@pytest.mark.parametrize("damage", ["missing", "short", "long", "empty"])
def test_a_file_that_is_missing_or_of_another_length_is_found(
    whole: Path, name: str, damage: str
) -> None:
    data = (whole / name).read_bytes()
    (whole / name).unlink()
    if damage != "missing":
        changed = {"short": data[:-1], "long": data + b"\n", "empty": b""}[damage]
        (whole / name).write_bytes(changed)
    with pytest.raises(ArchiveInvalid):
        check_archive(whole)


def test_a_file_too_many_and_two_that_changed_places_are_found(whole: Path) -> None:
    (whole / "more.txt").write_text("more")
    with pytest.raises(ArchiveInvalid, match=r"more\.txt does not belong"):
        check_archive(whole)
    (whole / "more.txt").rename(whole / "checkpoint.txt")
    with pytest.raises(ArchiveInvalid):
        check_archive(whole)
    (whole / "checkpoint.txt").unlink()
    (whole / "events.parquet").rename(whole / "x")
    (whole / "payloads.parquet").rename(whole / "events.parquet")
    (whole / "x").rename(whole / "payloads.parquet")
    with pytest.raises(ArchiveInvalid, match="changed"):
        check_archive(whole)


def test_a_zip_file_is_read_as_it_was_written_or_refused(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    archive.pack(whole, path)
    contents = check_archive(path)
    data = path.read_bytes()
    chance = Random(1)  # noqa: S311
    n_found = 0
    for _ in range(N_FLIPS):
        place = chance.randrange(len(data))
        flip(path, place)
        try:
            # A bit that says when or by whom something was packed changes nothing that is read.
            found = check_archive(path)
        except ArchiveInvalid:
            n_found += 1
        else:
            assert found == contents
        flip(path, place)
    assert n_found > 0.8 * N_FLIPS
    for end in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ArchiveUnknown):
            check_archive(path)
    for wrong in (b"x" + data, data + b"x" * 30):
        path.write_bytes(wrong)
        with pytest.raises(ArchiveInvalid):
            check_archive(path)


@pytest.mark.parametrize("text", ["", "no zip", "PK"])
def test_what_is_no_archive_is_called_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.zip").write_text(text)
    with pytest.raises(ArchiveUnknown):
        check_archive(tmp_path / "a.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArchiveUnknown):
        check_archive(tmp_path / "folder")


# Forgery: everything fits together, and yet it cannot have happened


def forge(folder: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a table, and put everything right that names it."""
    files: Any = pytest.importorskip("pyarrow.parquet")
    columns = archive.EVENT_COLUMNS if table == archive.EVENTS else archive.PAYLOAD_COLUMNS
    found = files.read_table(folder / table)
    rows = found.to_pylist()
    change(rows)
    with TableWriter(folder / table, columns) as writer:
        for row in rows:
            writer.add(tuple(row.values()))
    reseal(folder, {})


def reseal(folder: Path, changes: dict[str, Any]) -> None:
    """Write a manifest that fits the files, with changes."""
    told = json.loads((folder / archive.MANIFEST).read_text()) | changes
    names = sorted({path.name for path in folder.iterdir()} - {archive.MANIFEST, archive.SUMS})
    facts = {name: archive.facts_of(folder / name) for name in names}
    told["files"] = {name: each.model_dump() for name, each in facts.items()}
    (folder / archive.MANIFEST).write_text(json.dumps(told))
    every: dict[str, Facts] = facts | {
        archive.MANIFEST: archive.facts_of(folder / archive.MANIFEST)
    }
    (folder / archive.SUMS).write_text(sums_of(every))


def swapped(rows: list[dict[str, Any]]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def without_first(rows: list[dict[str, Any]]) -> None:
    del rows[0]


def without_last(rows: list[dict[str, Any]]) -> None:
    del rows[-1]


def lying(rows: list[dict[str, Any]]) -> None:
    rows[0]["actor"] = "user:mallory"


def unknown(rows: list[dict[str, Any]]) -> None:
    rows[0]["kind"] = "invented"


def unreadable(rows: list[dict[str, Any]]) -> None:
    rows[0]["state"] = rows[0]["state"][:-1]


def displaced(rows: list[dict[str, Any]]) -> None:
    rows[0]["position"] = 10**9


def rewritten(rows: list[dict[str, Any]], change: Callable[[Event], Event]) -> None:
    """Let a manager's first result be another event, written as the ledger would have."""
    mapper = EventMapper(MsgpackTranscoder())
    row = next(row for row in rows if row["kind"] == "completed" and "manager" in row["actor"])
    event = change(mapper.event_of(row["kind"], row["state"]))
    row["kind"], row["state"] = event.topic, mapper.state_of(event)
    row["actor"] = event.actor


def illegal(rows: list[dict[str, Any]]) -> None:
    """Let a record be held while it runs."""

    def held(event: Event) -> Event:
        return Held(**{name: getattr(event, name) for name in Event.model_fields})

    rewritten(rows, held)


def of_nobody(rows: list[dict[str, Any]]) -> None:
    """Let somebody else return a result: every event is legal, and yet it is a breach."""
    rewritten(rows, lambda event: event.model_copy(update={"actor": "manager:99"}))


@pytest.mark.parametrize(
    "change",
    [swapped, without_first, without_last, lying, unknown, unreadable, displaced, illegal,
     of_nobody],
)  # fmt: skip
def test_forged_events_are_found(
    whole: Path, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    forge(whole, archive.EVENTS, change)
    with pytest.raises(ArchiveInvalid):
        check_archive(whole)


def bytes_of_another(rows: list[dict[str, Any]]) -> None:
    rows[0]["data"], rows[0]["codec"] = b"other", "raw"
    rows[0]["size_bytes"] = 5


def of_same_length(rows: list[dict[str, Any]]) -> None:
    rows[0]["data"], rows[0]["codec"] = b"x" * rows[0]["size_bytes"], "raw"


def doubled(rows: list[dict[str, Any]]) -> None:
    rows.insert(0, rows[0])


def one_more(rows: list[dict[str, Any]]) -> None:
    data = b"more"
    rows.append({"digest": payload_of(data).digest, "size_bytes": 4, "codec": "raw", "data": data})
    rows.sort(key=lambda row: row["digest"])


def bomb(rows: list[dict[str, Any]]) -> None:
    rows[0]["codec"], rows[0]["data"] = compress(b"\0" * 50_000_000)


@pytest.mark.parametrize(
    "change",
    [swapped, without_first, without_last, bytes_of_another, of_same_length, doubled, one_more,
     bomb],
)  # fmt: skip
def test_forged_payloads_are_found(
    whole: Path, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    forge(whole, archive.PAYLOADS, change)
    with pytest.raises(ArchiveInvalid):
        check_archive(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "another"},
        {"format_version": 2},
        {"ledger_id": "nobody"},
        {"surprise": 1},
        {"first_position": 3},
        {"counts": dict.fromkeys(archive.ArchiveCounts.model_fields, 1)},
    ],
)
def test_a_manifest_that_says_something_else_is_found(whole: Path, changes: dict[str, Any]) -> None:
    reseal(whole, {})
    check_archive(whole)
    reseal(whole, changes)
    with pytest.raises(ArchiveInvalid):
        check_archive(whole)


def test_a_payload_is_never_unpacked_to_more_than_it_says() -> None:
    codec, data = compress(b"\0" * 1_000_000)
    assert contents_of_payload(codec, data, 1_000_000) == b"\0" * 1_000_000
    for size in (999_999, 1_000_001, -1, check.PAYLOAD_BYTES_MAX + 1):
        with pytest.raises(ValueError, match=r"bytes|has"):
            contents_of_payload(codec, data, size)


# All or nothing


def test_a_damaged_archive_changes_nothing(elsewhere: Stage, whole: Path) -> None:
    size = (whole / archive.PAYLOADS).stat().st_size
    flip(whole / archive.PAYLOADS, size // 2)
    with pytest.raises(ArchiveInvalid):
        import_archive(elsewhere.ledger, whole, actor=ROOT)
    assert elsewhere.head() == 0
    assert elsewhere.ask("SELECT FROM payloads") == []


def test_a_dry_run_leaves_no_trace(elsewhere: Stage, whole: Path) -> None:
    report = brought(elsewhere, whole, dry_run=True)
    assert report.dry_run
    assert report.n_events > 0
    assert elsewhere.head() == 0
    assert elsewhere.ask("SELECT FROM payloads") == []
    assert elsewhere.ask("SELECT FROM origins") == []


def test_an_import_that_fails_in_the_middle_leaves_no_trace(
    elsewhere: Stage, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_, "_BATCH_EVENTS", 3)
    n_written = 0

    def fail(what: str, n_done: int, n_all: int) -> None:
        nonlocal n_written
        if what == "importing":
            n_written += 1
            if n_written == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_archive(elsewhere.ledger, whole, actor=ROOT, progress=fail)
    assert elsewhere.head() == 0
    assert elsewhere.ask("SELECT FROM records") == []
    assert brought(elsewhere, whole).n_known == 0


def test_larger_archives_are_refused(elsewhere: Stage, whole: Path) -> None:
    n_events = check_archive(whole).manifest.counts.events
    with pytest.raises(TooLarge, match="--events-max"):
        import_archive(elsewhere.ledger, whole, actor=ROOT, events_max=n_events - 1)
    brought(elsewhere, whole, events_max=n_events)


def test_what_has_not_happened_yet_is_refused(
    elsewhere: Stage, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = check_archive(whole)
    contents.newest += timedelta(days=1)

    def checked(path: Path, *, progress: object) -> Contents:
        return contents

    monkeypatch.setattr(import_, "check_archive", checked)
    with pytest.raises(ArchiveFromFuture, match="correct the clocks"):
        import_archive(elsewhere.ledger, whole, actor=ROOT)
    assert elsewhere.head() == 0


def test_an_import_may_be_done_while_others_work(
    elsewhere: Stage, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_, "_BATCH_EVENTS", 5)
    n_submitted = 0

    def work(what: str, n_done: int, n_all: int) -> None:
        nonlocal n_submitted
        if what == "importing":
            elsewhere.submit(1, tag="of another lane")
            n_submitted += 1

    report = brought(elsewhere, whole, progress=work)
    assert n_submitted > 1
    assert len(elsewhere.ask("SELECT FROM records")) == n_submitted + len(report.records)
    assert elsewhere.n_deadlocks() == 0


def test_a_container_names_what_is_wrong_with_it(whole: Path) -> None:
    (whole / "folder").mkdir()
    with pytest.raises(ArchiveUnknown, match="folder is not a file"):
        Container(whole)
    shutil.rmtree(whole / "folder")
    Container(whole)
