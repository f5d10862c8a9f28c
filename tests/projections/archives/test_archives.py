"""Archives: what comes out of one ledger goes into another, whole, once, and with its origin."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.api.http.rendering import events_out
from recordledger.domain.admin.access import Role, TokenAggregate, TokenIssued
from recordledger.domain.audit.origins import is_foreign
from recordledger.domain.dataset import DatasetCreated
from recordledger.domain.errors import (
    ArchiveInvalid,
    DatasetExists,
    InvalidInput,
    RecordNotFound,
)
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Created, Priority
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream
from recordledger.projections.archives import archive, export
from recordledger.projections.archives.check import check_archive
from recordledger.projections.archives.export import ArchiveSelection, export_archive
from recordledger.projections.archives.import_ import import_archive
from recordledger.projections.ledger import Ledger, Operation
from recordledger.projections.reading.queries import ledger_id
from recordledger.projections.tables import origins
from tests.sizes import N_BUSY_DAYS

from ..collection import Collection
from ..model import Want
from ..proof.test_audit import lived
from ..stage import Stage, good
from ..test_machine import LedgerMachine
from .transfer import (
    ROOT,
    archived,
    brought,
    elsewhere_at,
    flip,
    history,
    payloads_of,
    require_same,
)
from .transfer import elsewhere as elsewhere  # fixtures, for pytest to find
from .transfer import second_database_url as second_database_url

pytest.importorskip("pyarrow")

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
