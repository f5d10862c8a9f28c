"""Archives: what comes out of one ledger goes into another, whole, once, and with its origin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.api.http.rendering import events_out
from recordledger.domain.admin.access import Role, TokenAggregate, TokenIssued
from recordledger.domain.audit.origins import Ids, is_foreign, translated
from recordledger.domain.dataset import DatasetCreated
from recordledger.domain.errors import (
    ArchiveFromFuture,
    ArchiveInvalid,
    ArchiveUnknown,
    DatasetExists,
    InvalidInput,
    RecordNotFound,
    TooLarge,
)
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Created, Event, Held, Imported, Priority
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream
from recordledger.projections.archives import archive, check, export, import_
from recordledger.projections.archives.archive import Container, Facts, sums_of
from recordledger.projections.archives.check import Contents, check_archive, contents_of_payload
from recordledger.projections.archives.export import ArchiveSelection, export_archive
from recordledger.projections.archives.import_ import ImportReport, import_archive
from recordledger.projections.archives.parquet import TableWriter
from recordledger.projections.ledger import Ledger, Operation
from recordledger.projections.log.mapper import EventMapper, MsgpackTranscoder
from recordledger.projections.reading.queries import ledger_id, payload_contents
from recordledger.projections.tables import origins
from recordledger.projections.tables.payloads import compress, payload_of
from tests.postgres import new_database
from tests.sizes import N_BUSY_DAYS

from ..collection import Collection
from ..model import Want
from ..proof.test_audit import lived
from ..stage import Stage, empty, good, staged
from ..test_machine import LedgerMachine

pytest.importorskip("pyarrow")

ROOT: Final = "user:root"
N_FLIPS: Final = 25


@pytest.fixture(scope="session")
def second_database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of another ledger, which one test after the other has for itself."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@contextmanager
def elsewhere_at(url: str) -> Generator[Stage]:
    """Give a stage with another, empty ledger, which has an id of its own."""
    empty(url)
    with staged(url) as made:
        made.do("UPDATE ledger_identity SET ledger_id = gen_random_uuid()")
        made.n_deadlocks_before = made.n_deadlocks()
        yield made


@pytest.fixture
def elsewhere(second_database_url: str) -> Iterator[Stage]:
    """A stage with another ledger, to import into."""
    with elsewhere_at(second_database_url) as made:
        yield made


def archived(stage: Stage, folder: Path, selection: ArchiveSelection | None = None) -> Path:
    """Write an archive; return where it is."""
    path = folder / f"archive{len(list(folder.iterdir()))}.zip"
    export_archive(stage.ledger, path, selection or ArchiveSelection())
    return path


def brought(stage: Stage, path: Path, **how: Any) -> ImportReport:
    """Import an archive, and require that the ledger is sound afterwards."""
    report = import_archive(stage.ledger, path, actor=ROOT, **how)
    # The audit compares the tables with the log, too.
    stage.require_sound()
    return report


def history(stage: Stage, stream: Stream, number: int) -> list[Event]:
    with stage.ledger.datastore.reading() as db:
        return [placed.recorded.event for placed in stage.ledger.history(db, stream, number)]


def require_same(here: Stage, there: Stage, report: ImportReport) -> None:
    """Require that what was imported has the histories that it had, in its new numbers."""
    ids = Ids(report.ledger_id, report.records, report.managers, report.datasets)
    for stream, numbers in (
        (Stream.record, report.records),
        (Stream.manager, report.managers),
        (Stream.dataset, report.datasets),
    ):
        for original, number in numbers.items():
            expected = [translated(event, ids) for event in history(there, stream, original)]
            found = history(here, stream, number)
            assert found[: len(expected)] == expected
            arrived = found[len(expected)]
            assert isinstance(arrived, Imported)
            assert (arrived.origin_ledger, arrived.origin_id) == (report.ledger_id, original)
            assert arrived.archive_digest.hex() == report.archive_hash


def payloads_of(stage: Stage) -> dict[bytes, bytes]:
    named = {bytes(row[0]) for row in stage.ask("SELECT digest FROM payload_references")}
    return payload_contents(stage.ledger, named)


# There and back


def test_a_whole_ledger_goes_into_an_empty_one(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    lived(stage)
    made = Collection.made(stage, 2)
    made.submit()
    made.lock("as published", doi="10.1000/182")
    report = brought(elsewhere, archived(stage, tmp_path))
    require_same(elsewhere, stage, report)
    assert report.n_erased == 1
    assert len(report.records) == len(stage.ask("SELECT id FROM records"))
    assert (len(report.managers), len(report.datasets)) == (2, 1)
    assert payloads_of(elsewhere) == payloads_of(stage)
    there = Collection(elsewhere, report.datasets[made.id])
    assert there.inputs() == made.inputs()
    assert there.ids(version=1) == [report.records[id_] for id_ in made.ids(version=1)]
    # In the log they stand in the order in which they happened.
    both = [
        [row[0] for row in each.ask("SELECT topic FROM ledger_events ORDER BY notification_id")]
        for each in (stage, elsewhere)
    ]
    erased = stage.topics(1)
    assert len(both[1]) == len(both[0]) - len(erased) + len(report.records) + 3


def test_nothing_runs_by_itself_because_it_was_imported(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    manager_id, held = stage.running(2)
    [waiting] = stage.submit()
    [stopped] = stage.submit()
    stage.order(Action.hold, stopped)
    service = stage.service(waiting)
    [beginning] = stage.services(1)
    report = brought(elsewhere, archived(stage, tmp_path))
    here = {old: elsewhere.status(new) for old, new in report.records.items()}
    unfinished = (*held, waiting, stopped, service, beginning)
    assert here == dict.fromkeys(unfinished, Status.held)
    assert elsewhere.queue() == []
    assert elsewhere.ask("SELECT FROM services WHERE due") == []
    assert elsewhere.state_of(report.managers[manager_id]).state == "inactive"
    assert elsewhere.claim(elsewhere.manager()) == {}
    # A person lets it go on, and it goes on as a record of this ledger.
    first = report.records[next(iter(held))]
    elsewhere.done(Action.release, first)
    claimed = elsewhere.claim(manager := elsewhere.manager())
    assert claimed == {first: 2}
    elsewhere.hand_in(manager, claimed)
    assert elsewhere.status(first) is Status.complete
    elsewhere.require_sound()


def test_what_waited_may_be_released_at_once(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    stage.submit(2)
    [stopped] = stage.submit()
    stage.order(Action.hold, stopped)
    report = brought(elsewhere, archived(stage, tmp_path), release=True, reason="ours now")
    assert elsewhere.status(report.records[stopped]) is Status.held
    assert list(elsewhere.claim(elsewhere.manager())) == [report.records[1], report.records[2]]
    *_, arrived, released, _ = elsewhere.events(report.records[1])
    assert (arrived.topic, released.topic) == ("imported", "released")
    assert (released.actor, released.reason, released.action) == (ROOT, "ours now", "import")


def test_nobody_here_is_named_for_what_was_done_there(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    manager_id = stage.manager()
    elsewhere.manager()
    elsewhere.submit(5)
    lived(stage)
    report = brought(elsewhere, archived(stage, tmp_path))
    short = ledger_id(stage.ledger).hex[:8]
    for number in report.records.values():
        *there, arrived = elsewhere.events(number)
        assert all(is_foreign(event.operation_id) for event in there)
        managers = {f"manager:{new}" for new in report.managers.values()}
        assert {event.actor for event in there} <= {
            f"user:alice@{short}",
            f"user:bob@{short}",
            f"server:service-runner@{short}",
            f"policy:retry@{short}",
            *managers,
        }
        assert (arrived.actor, is_foreign(arrived.operation_id)) == (ROOT, False)
    assert report.managers[manager_id] != manager_id


def test_numbers_are_new_and_their_order_is_kept(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    local = elsewhere.submit(3)
    stage.submit(10)
    report = brought(elsewhere, archived(stage, tmp_path))
    assert sorted(report.records) == list(range(1, 11))
    assert [report.records[old] for old in sorted(report.records)] == sorted(
        report.records.values()
    )
    assert min(report.records.values()) > max(local)


def test_where_a_record_came_from_can_be_asked(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    stage.submit(2)
    [own] = elsewhere.submit()
    report = brought(elsewhere, archived(stage, tmp_path))
    there = ledger_id(stage.ledger)
    with elsewhere.ledger.datastore.reading() as db:
        assert origins.page(db, Stream.record, 10, number=own) == []
        [origin] = origins.page(db, Stream.record, 10, number=report.records[2])
        [same] = origins.page(db, Stream.record, 10, ledger_id=there, origin_id=2)
        assert origins.page(db, Stream.record, 10, ledger_id=UUID(int=0)) == []
    assert origin == same
    assert (origin.ledger_id, origin.origin_id, origin.imported_by) == (there, 2, ROOT)
    assert origin.archive_hash == report.archive_hash
    with elsewhere.ledger.datastore.reading() as db:
        placed = elsewhere.ledger.history(db, Stream.record, report.records[2])
    assert events_out(elsewhere.ledger, placed)[-1]["data"] == {
        "origin_ledger": str(there),
        "origin_id": 2,
        "archive_digest": report.archive_hash,
    }


@for_all(seed=st.integers(0, 2**32))
@settings(
    max_examples=N_BUSY_DAYS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happened_to_a_ledger_it_can_be_imported(
    reused_database_url: str, second_database_url: str, tmp_path: Path, seed: int
) -> None:
    chance = Random(seed)  # noqa: S311
    machine = type("Busy", (LedgerMachine,), {"url": reused_database_url})()
    try:
        machine.furnish([Want(name, frozenset(), "gpu", Priority.normal, 2) for name in "abcdef"])
        machine.a_busy_day(seed)
        there: Stage = machine.stage
        ids = [row[0] for row in there.ask("SELECT id FROM records")]
        some = tuple(sorted(chance.sample(ids, min(len(ids), 5))))
        chosen = ArchiveSelection(record_ids=some) if chance.random() < 0.5 else ArchiveSelection()
        path = archived(there, tmp_path, chosen)
        with elsewhere_at(second_database_url) as here:
            here.submit(chance.randrange(3))
            report = brought(here, path, release=chance.random() < 0.5)
            require_same(here, there, report)
            again = brought(here, path)
            assert (again.records, again.managers, again.n_events) == ({}, {}, 0)
    finally:
        machine.stack.close()


# Again, and in parts


def test_an_archive_may_be_imported_twice_and_comes_once(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    lived(stage)
    path = archived(stage, tmp_path)
    first = brought(elsewhere, path)
    head = elsewhere.head()
    again = brought(elsewhere, path)
    assert again.n_known == len(first.records) + len(first.managers)
    assert (again.records, again.n_events, elsewhere.head()) == ({}, 0, head)


def test_a_later_archive_brings_what_is_new_and_leaves_what_is_here(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    manager_id, held = stage.running(2)
    made = Collection.made(stage, 1)
    first = brought(elsewhere, archived(stage, tmp_path))
    stage.hand_in(manager_id, held, good())
    service = stage.service(*held)
    stage.finish(service, good())
    made.submit()
    [late] = stage.submit()
    second = brought(elsewhere, archived(stage, tmp_path))
    assert set(second.records) == {service, late, *made.ids()}
    assert second.n_known == len(first.records) + 2
    known = first.records[next(iter(held))]
    assert elsewhere.status(known) is Status.held
    children = elsewhere.ask(
        "SELECT child_id FROM dependencies WHERE parent_id = %s ORDER BY 1",
        [second.records[service]],
    )
    assert [row[0] for row in children] == sorted(first.records[id_] for id_ in held)


def test_a_record_is_known_by_where_it_came_from_first(
    stage: Stage, elsewhere: Stage, tmp_path: Path, database_url: str
) -> None:
    [mine] = stage.submit()
    direct = archived(stage, tmp_path)
    with elsewhere_at(database_url) as third:
        brought(elsewhere, direct)
        further = brought(third, archived(elsewhere, tmp_path))
        assert len(further.records) == 1
        # From the first ledger itself it does not come a second time.
        assert brought(third, direct).n_known == 1
        with third.ledger.datastore.reading() as db:
            [number] = further.records.values()
            found = origins.page(db, Stream.record, 10, number=number)
            assert found[1:] == origins.page(db, Stream.record, 10, since=number, skip=1)
        assert {each.ledger_id for each in found} == {
            ledger_id(stage.ledger),
            ledger_id(elsewhere.ledger),
        }
        # And where it was made, it is still what it was.
        assert brought(stage, archived(third, tmp_path)).n_known == 1
    assert stage.topics(mine) == ["created"]


def test_into_the_same_ledger_comes_only_what_was_hard_deleted_there(
    stage: Stage, tmp_path: Path
) -> None:
    lost, kept = stage.submit(2)
    path = archived(stage, tmp_path)
    stage.done(Action.erase, lost)
    report = brought(stage, path)
    assert list(report.records) == [lost]
    assert report.n_known == 1
    [created, _] = stage.events(lost)
    assert isinstance(created, Created)
    assert stage.record(report.records[lost]).spec == created.spec
    assert stage.topics(kept) == ["created"]


# Selections


def test_a_selection_is_closed(stage: Stage, elsewhere: Stage, tmp_path: Path) -> None:
    manager_id, held = stage.running(2)
    stage.manager()
    [unrelated] = stage.submit()
    stage.hand_in(manager_id, held, good())
    inner = stage.service(*held)
    outer = stage.service(inner)
    path = archived(stage, tmp_path, ArchiveSelection(record_ids=(outer,)))
    report = brought(elsewhere, path)
    assert set(report.records) == {*held, inner, outer}
    assert set(report.managers) == {manager_id}
    assert unrelated not in report.records
    with pytest.raises(RecordNotFound):
        archived(stage, tmp_path, ArchiveSelection(record_ids=(outer, 4_711)))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_dataset_comes_with_all_its_records_and_nothing_else(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    made = Collection.made(stage, 3, ["hf", "mp2"])
    made.submit()
    made.lock()
    made.remove("m1")
    other, _ = made.clone("another", link_records=True)
    stage.submit()
    path = archived(stage, tmp_path, ArchiveSelection(dataset="water"))
    report = brought(elsewhere, path)
    assert set(report.records) == set(made.ids(version=1))
    here = Collection(elsewhere, report.datasets[made.id])
    assert list(report.datasets) == [made.id]
    assert other.id not in report.datasets
    assert here.counts() == {"hf": {"held": 2}, "mp2": {"held": 2}}
    assert here.inputs(version=1) == made.inputs(version=1)


def test_a_dataset_whose_name_is_taken_gets_another(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    Collection.made(elsewhere, 1, name="Water")
    made = Collection.made(stage, 1)
    path = archived(stage, tmp_path)
    report = brought(elsewhere, path)
    name = f"water @{ledger_id(stage.ledger).hex[:8]}"
    assert report.renamed == {"water": name}
    assert Collection(elsewhere, report.datasets[made.id]).dataset.name == name
    [created, *_] = history(elsewhere, Stream.dataset, report.datasets[made.id])
    assert isinstance(created, DatasetCreated)
    assert created.name == "water"


def test_if_that_name_is_taken_too_nothing_is_imported(
    stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    Collection.made(stage, 1).submit()
    for name in ("water", f"water @{ledger_id(stage.ledger).hex[:8]}"):
        Collection.made(elsewhere, 0, name=name)
    path = archived(stage, tmp_path)
    before = elsewhere.head()
    with pytest.raises(DatasetExists):
        import_archive(elsewhere.ledger, path, actor=ROOT)
    assert elsewhere.head() == before
    assert elsewhere.ask("SELECT FROM records") == []


# What an archive is


def test_an_archive_explains_itself_and_other_tools_can_check_and_read_it(
    stage: Stage, tmp_path: Path
) -> None:
    lived(stage)
    folder = tmp_path / "archive"
    manifest = export_archive(stage.ledger, folder)
    assert {path.name for path in folder.iterdir()} == archive.REQUIRED
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert sha256((folder / name).read_bytes()).hexdigest() == digest
    readme = (folder / "README.txt").read_text()
    for column in (*archive.EVENT_COLUMNS, *archive.PAYLOAD_COLUMNS):
        assert column in readme
    told = json.loads((folder / "manifest.json").read_text())
    assert told["ledger_id"] == str(ledger_id(stage.ledger))
    assert told["head"] == stage.newest()
    assert manifest.counts.erased_records == 1
    polars: Any = pytest.importorskip("polars")
    payloads = polars.read_parquet(folder / "payloads.parquet")
    raw = payloads.filter(polars.col("codec").cast(str) == "raw")
    assert all(sha256(row[3]).digest() == row[0] for row in raw.iter_rows())
    assert len(check_archive(folder).named) == len(payloads)


def test_secrets_are_never_in_an_archive(stage: Stage, tmp_path: Path) -> None:
    secret = sha256(b"secret").digest()

    def issue(operation: Operation) -> None:
        fields = operation.stamp.model_dump()
        issued = TokenIssued(user="ann", role=Role.admin, token_hash=secret, **fields)
        operation.happen(TokenAggregate(1), [issued])

    stage.ledger.operate(issue, actor=ROOT)
    stage.submit()
    folder = tmp_path / "a"
    manifest = export_archive(stage.ledger, folder)
    assert (manifest.counts.events, stage.head()) == (1, 2)
    assert {stream for stream, _ in check_archive(folder).versions} == {Stream.record}
    assert not any(secret in path.read_bytes() for path in folder.iterdir())


def test_the_newest_checkpoint_of_the_log_is_in_the_archive(
    stage: Stage, elsewhere: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest(ledger: Ledger) -> str:
        return "signed: nothing was rewritten\n"

    monkeypatch.setattr(export, "newest_checkpoint", newest)
    stage.submit()
    folder = tmp_path / "a"
    export_archive(stage.ledger, folder)
    assert (folder / "checkpoint.txt").read_text() == newest(stage.ledger)
    assert brought(elsewhere, folder).n_known == 0
    flip(folder / "checkpoint.txt", 3)
    with pytest.raises(ArchiveInvalid, match=r"checkpoint\.txt"):
        check_archive(folder)


def test_an_archive_appears_whole_and_overwrites_nothing(stage: Stage, tmp_path: Path) -> None:
    stage.submit()
    path = archived(stage, tmp_path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="already exists"):
        export_archive(stage.ledger, path)
    assert path.read_bytes() == before
    stage.do("DELETE FROM payloads")
    with pytest.raises(Exception, match="referred to, but missing"):
        export_archive(stage.ledger, tmp_path / "second.zip")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_empty_ledger_has_an_archive_too(stage: Stage, elsewhere: Stage, tmp_path: Path) -> None:
    assert brought(elsewhere, archived(stage, tmp_path)).n_events == 0


def test_what_is_written_meanwhile_is_not_in_it(stage: Stage, tmp_path: Path) -> None:
    stage.submit(1_200)

    def more(what: str, n_done: int) -> None:
        stage.submit(1)

    manifest = export_archive(stage.ledger, tmp_path / "a.zip", progress=more)
    assert manifest.counts.records == 1_200
    assert len(check_archive(tmp_path / "a.zip").versions) == 1_200


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


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << (place % 8)
    path.write_bytes(bytes(data))


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
