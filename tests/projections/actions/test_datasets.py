"""Datasets: entries x specifications -> records, counted as they change, readable as they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Final

import pytest

from recordledger.domain.admin.job import JobState
from recordledger.domain.errors import (
    DatasetChanged,
    DatasetExists,
    DatasetLocked,
    DatasetNotFound,
    EntryExists,
    EntryNotFound,
    SpecificationExists,
    SpecificationNotFound,
    VersionNotFound,
)
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.records.filters import RecordFilter
from recordledger.domain.records.status import Status
from recordledger.projections.actions import bulk, dataset_edits, dataset_filling
from recordledger.projections.actions.bulk import advance_jobs, cancel_job, refusals_of
from recordledger.projections.actions.dataset_edits import Who
from recordledger.projections.actions.dataset_filling import SubmissionTerms
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading.queries import (
    payload_contents,
    query_records,
    select_ids,
)
from recordledger.projections.tables import datasets, inline, jobs

from ..collection import RETRY, TERMS, WHO, Collection, entries, run_jobs
from ..invariants import violations
from ..stage import ALICE, BOB, Stage, key, together

N_SMALL: Final = 25


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make jobs of more than six cells, four at a time; and events of four names."""
    monkeypatch.setattr(dataset_filling, "AT_ONCE_MAX", 6)
    monkeypatch.setattr(dataset_filling, "SLICE", 4)


# Submission


def test_every_cell_gets_a_record_whose_arguments_are_the_entrys_over_the_specifications(
    stage: Stage,
) -> None:
    water = Collection.made(stage, 0, ())
    water.specify("hf", tag="cpu", priority=Priority.high, retry=RETRY)
    water.add({"dimer": {"x": 2, "n": 10**30}, "trimer": {}})
    filled = water.submit()
    assert (filled["n_selected"], filled["n_linked"], filled["n_existing"]) == (2, 2, 0)
    cells = water.cells()
    assert set(cells) == {("dimer", "hf"), ("trimer", "hf")}
    expected = {"dimer": {"basis": "hf", "x": 2, "n": 10**30}, "trimer": {"basis": "hf", "x": 0}}
    for (name, _), cell in cells.items():
        record = stage.record(cell.record_id)
        assert record.spec is not None
        [content] = payload_contents(stage.ledger, [record.spec.digest]).values()
        assert json.loads(content)["kwargs"] == expected[name]
        assert (record.function, record.tag, record.priority) == ("psi4", "cpu", Priority.high)
        assert (record.retry, record.owner) == (RETRY, ALICE)
        created = stage.events(record.id)[0]
        assert (created.reason, str(created.operation_id)) == ("because", filled["operation_id"])
    stage.require_equal()


def test_only_what_is_missing_is_submitted(stage: Stage) -> None:
    water = Collection.made(stage, 3, ("hf",))
    water.submit(entries=("m1",))
    before = water.cells()
    assert water.submit()["n_selected"] == 2
    water.specify("mp2")
    water.add({"m4": {"x": 4}})
    assert water.submit()["n_selected"] == 5
    assert water.submit()["n_selected"] == 0
    assert water.cells().items() >= before.items()
    assert len(water.cells()) == 8


def test_cells_are_selected_by_names_patterns_and_attributes(stage: Stage) -> None:
    water = Collection.made(stage, 0, ("hf", "mp2"))
    water.add({"H2O_1": {"x": 1}, "H2O_2": {"x": 2}}, cluster={"n": 1, "cold": True})
    water.add({"H2Ox1": {"x": 3}, "100%": {"x": 4}}, cluster={"n": 2})

    def newly(**selection: Any) -> set[tuple[str, str]]:
        before = water.cells().keys()
        water.submit(**selection)
        return water.cells().keys() - before

    assert newly(pattern="H2O_?", specifications=("mp2",)) == {("H2O_1", "mp2"), ("H2O_2", "mp2")}
    assert newly(pattern="*%", specifications=("mp2",)) == {("100%", "mp2")}
    assert newly(attributes='{"cluster":{"n":2}}', specifications=("hf",)) == {
        ("H2Ox1", "hf"),
        ("100%", "hf"),
    }
    assert newly(entries=("H2O_1", "H2O_2"), pattern="*2") == {("H2O_2", "hf")}
    assert newly(attributes='{"cluster":{"n":3}}') == set()
    with pytest.raises(EntryNotFound) as no_entry:
        water.submit(entries=("H2O_1", "H2O_9"))
    assert no_entry.value.names == ("H2O_9",)
    with pytest.raises(SpecificationNotFound):
        water.submit(specifications=("ccsd",))


def test_records_are_shared_within_and_between_datasets_and_with_others(stage: Stage) -> None:
    water = Collection.made(stage, 0, ("hf",))
    water.add({"m1": {"x": 1}, "also m1": {"x": 1}})
    assert water.submit()["n_existing"] == 1
    [record_id] = water.ids()
    ice = Collection.made(stage, 1, ("hf",), name="ice")
    assert ice.submit()["n_existing"] == 1
    assert ice.ids() == [record_id]
    assert water.counts() == {"hf": {"waiting": 2}}
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id))
    assert (water.counts(), ice.counts()) == ({"hf": {"complete": 2}}, {"hf": {"complete": 1}})
    own = Collection.made(stage, 1, ("hf",), name="own")
    new = own.submit(SubmissionTerms(1000, find_existing=False, tag="other", priority=Priority.low))
    assert new["n_existing"] == 0
    assert own.ids() != [record_id]
    record = stage.record(own.ids()[0])
    assert (record.tag, record.priority) == ("other", Priority.low)
    stage.require_equal()


def test_what_is_cancelled_or_deleted_is_not_taken_again(stage: Stage) -> None:
    water = Collection.made(stage, 2)
    water.submit()
    gone = water.ids()
    stage.done(Action.cancel, gone[0])
    stage.done(Action.delete, gone[1])
    ice = Collection.made(stage, 2, name="ice")
    assert ice.submit()["n_existing"] == 0
    assert set(ice.ids()).isdisjoint(gone)


def test_a_cell_whose_arguments_are_too_large_is_refused_and_spoils_no_other(stage: Stage) -> None:
    water = Collection.made(stage, 0)
    water.add({"large": {"x": "x" * 100}, "small": {"x": 1}})
    filled = water.submit(SubmissionTerms(payload_bytes_max=100))
    assert filled["n_linked"] == 1
    [(code, message)] = filled["refusals"]
    assert code == "invalid_input"
    assert message.startswith("entry 'large', specification 'hf': the specification has 1")
    assert set(water.cells()) == {("small", "hf")}


# Jobs


@pytest.mark.usefixtures("small")
def test_many_cells_are_filled_by_a_job_in_slices_that_say_how_far_it_is(stage: Stage) -> None:
    water = Collection.made(stage, N_SMALL, ("hf", "mp2"))
    filled = water.submit()
    job_id = filled["job_id"]
    assert job_id is not None
    assert (filled["n_selected"], filled["n_linked"], water.cells()) == (2 * N_SMALL, 0, {})
    assert advance_jobs(stage.ledger) == 1
    assert len(water.cells()) == 4
    run_jobs(stage)
    with stage.ledger.datastore.reading() as db:
        job = jobs.get(db, job_id)
    assert (job.state, job.action, job.actor) == (JobState.finished, "submit", ALICE)
    assert (job.n_done, job.n_updated, job.n_refused) == (2 * N_SMALL, 2 * N_SMALL, 0)
    assert water.counts() == {"hf": {"waiting": N_SMALL}, "mp2": {"waiting": N_SMALL}}
    operations = {
        str(event.operation_id) for record_id in water.ids() for event in stage.events(record_id)
    }
    assert operations == {filled["operation_id"]}
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_a_job_that_was_killed_goes_on_where_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    water = Collection.made(stage, N_SMALL)
    water.submit()
    advance_jobs(stage.ledger)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        tables = [
            replace(table, write=killed) if table.name == "datasets" else table
            for table in inline.INLINE
        ]
        patched.setattr(inline, "INLINE", tables)
        with pytest.raises(KeyboardInterrupt):
            advance_jobs(stage.ledger)
    assert len(water.cells()) == 4
    other = Ledger(stage.url, stage.schema)
    try:
        while advance_jobs(other):
            pass
    finally:
        other.close()
    assert len(water.ids()) == N_SMALL
    assert stage.ask("SELECT count(*) FROM records") == [(N_SMALL,)]
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_two_processes_that_do_the_same_job_fill_every_cell_once(stage: Stage) -> None:
    water = Collection.made(stage, N_SMALL)
    water.submit()
    together(*[lambda: run_jobs(stage)] * 3)
    assert len(water.ids()) == N_SMALL
    assert stage.ask("SELECT count(*) FROM records") == [(N_SMALL,)]
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_what_was_removed_while_a_job_runs_is_refused_and_the_rest_is_done(stage: Stage) -> None:
    water = Collection.made(stage, 8, ("hf", "mp2"))
    job_id = water.submit()["job_id"]
    assert job_id is not None
    advance_jobs(stage.ledger)
    water.remove("m1", "m7")
    water.unspecify("mp2")
    run_jobs(stage)
    assert {name for name, _ in water.cells()} == {"m2", "m3", "m4", "m5", "m6", "m8"}
    found = refusals_of(stage.ledger, job_id, 100)
    assert [(each.idx, each.record_id, each.code) for each in found] == [
        (6, 0, "entry_not_found"),
        *((idx, 0, "specification_not_found") for idx in range(8, 16)),
    ]
    other = Collection.made(stage, 8, name="ice")
    job_id = other.submit()["job_id"]
    assert job_id is not None
    other.delete()
    run_jobs(stage)
    codes = [each.code for each in refusals_of(stage.ledger, job_id, 100)]
    assert codes == ["dataset_not_found"] * 8
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_a_job_leaves_alone_what_got_a_record_since_it_was_ordered(stage: Stage) -> None:
    water = Collection.made(stage, 8)
    job_id = water.submit()["job_id"]
    assert job_id is not None
    assert water.submit(entries=("m2", "m7"))["n_linked"] == 2
    before = water.cells()
    run_jobs(stage)
    assert water.cells().items() >= before.items()
    with stage.ledger.datastore.reading() as db:
        job = jobs.get(db, job_id)
    assert (job.n_done, job.n_updated, job.n_refused) == (8, 6, 0)
    assert stage.ask("SELECT count(*) FROM records") == [(8,)]
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_a_cancelled_submission_stops_and_what_it_has_made_stays(stage: Stage) -> None:
    water = Collection.made(stage, N_SMALL)
    job_id = water.submit()["job_id"]
    assert job_id is not None
    advance_jobs(stage.ledger)
    cancel_job(stage.ledger, job_id, actor=BOB)
    run_jobs(stage)
    with stage.ledger.datastore.reading() as db:
        assert jobs.get(db, job_id).state is JobState.cancelled
    assert water.counts() == {"hf": {"waiting": 4}}
    stage.require_equal()


def test_a_transaction_makes_no_more_than_so_many_bytes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_filling, "SLICE_BYTES", 1_000)
    monkeypatch.setattr(dataset_edits, "INPUTS_BYTES", 1_000)
    water = Collection.made(stage, 0)
    water.add({f"m{n}": {"x": str(n) * 400} for n in range(5)})
    assert water.dataset.version == 2 + 2  # three entries in one event, two in the next
    assert water.submit()["job_id"] is not None
    steps = 0
    while advance_jobs(stage.ledger):
        steps += 1
    assert steps == 3
    assert len(water.cells()) == 5
    twin, _ = water.clone("twin")
    assert twin.inputs() == water.inputs()
    stage.require_equal()


# Counts


def test_counts_follow_every_change_of_the_records(stage: Stage) -> None:
    water = Collection.made(stage, 4, ("hf", "mp2"))
    water.submit()
    manager_id = stage.manager()
    held = stage.claim(manager_id, 3)
    assert water.counts() == {"hf": {"running": 3, "waiting": 1}, "mp2": {"waiting": 4}}
    stage.hand_in(manager_id, held)
    operation = stage.done(Action.cancel, *water.ids()[4:])
    assert water.counts() == {"hf": {"complete": 3, "waiting": 1}, "mp2": {"cancelled": 4}}
    stage.undo(operation)
    stage.done(Action.delete, *water.ids())
    assert water.counts() == {"hf": {"deleted": 4}, "mp2": {"deleted": 4}}
    assert violations(stage, water.ids()) == {}
    stage.require_equal()


def test_what_leaves_the_dataset_is_counted_no_more(stage: Stage) -> None:
    water = Collection.made(stage, 4, ("hf", "mp2"))
    water.submit()
    stage.done(Action.hold, *water.ids()[:2])
    assert water.remove("m1", "m4")["n_changed"] == 2
    assert water.counts() == {"hf": {"held": 1, "waiting": 1}, "mp2": {"waiting": 2}}
    assert water.unlink(specifications=("mp2",), entries=("m2",))["n_changed"] == 1
    assert water.counts() == {"hf": {"held": 1, "waiting": 1}, "mp2": {"waiting": 1}}
    assert water.unspecify("hf")["n_changed"] == 1
    assert water.counts() == {"mp2": {"waiting": 1}}
    free = stage.submit(1)
    stage.done(Action.cancel, *free)
    water.delete()
    assert stage.ask("SELECT * FROM dataset_counts WHERE n_records <> 0") == []
    assert stage.ask("SELECT count(*) FROM records") == [(9,)]
    with pytest.raises(DatasetNotFound):
        _ = water.dataset
    stage.require_equal()


def test_no_count_is_lost_when_all_change_records_and_the_dataset_at_once(stage: Stage) -> None:
    n = 24
    water = Collection.made(stage, n, ("hf", "mp2"))
    water.submit()
    ids = water.ids()
    manager_id = stage.manager()
    names = [f"m{number}" for number in range(1, n + 1)]

    def remove() -> None:
        for start in range(0, n // 2, 3):
            water.remove(*names[start : start + 3])

    def relink() -> None:
        for name in names[n // 2 :]:
            water.unlink(entries=(name,))
            water.submit(entries=(name,))

    def compute() -> None:
        for _ in range(12):
            stage.hand_in(manager_id, stage.claim(manager_id, 4))

    def hold() -> None:
        for start in range(0, len(ids), 5):
            stage.order(Action.hold, *reversed(ids[start : start + 7]))
            stage.order(Action.release, *ids[start : start + 7])

    def share() -> None:
        other = Collection.made(stage, n, ("hf",), name="ice")
        for name in names:
            other.submit(entries=(name,))

    together(remove, relink, compute, hold, share)
    assert violations(stage, ids) == {}
    assert stage.n_deadlocks() == 0
    stage.require_equal()


# Entries and specifications


def test_entries_that_are_there_are_left_and_contradictions_refused(stage: Stage) -> None:
    water = Collection.made(stage, 2)
    version = water.dataset.version
    again = water.add({"m1": {"x": 1}, "m2": {"x": 7}, "m3": {"x": 3}})
    assert (again["existing_idx"], again["inserted_idx"]) == ([0], [2])
    assert [(idx, code) for idx, code, _ in again["refusals"]] == [(1, "entry_exists")]
    assert again["version"] == version + 1
    assert water.add({"m1": {"x": 1}})["version"] == version + 1
    assert water.inputs() == {"m1": {"x": 1}, "m2": {"x": 2}, "m3": {"x": 3}}
    assert water.add({"m1": {"x": 1}}, colour="blue")["refusals"] != []


def test_entries_are_renamed_with_their_records_and_may_swap_names(stage: Stage) -> None:
    water = Collection.made(stage, 3)
    water.submit()
    of = {name: cell.record_id for (name, _), cell in water.cells().items()}
    assert water.rename({"m1": "m2", "m2": "m1", "m3": "m3"})["n_changed"] == 2
    assert {name: cell.record_id for (name, _), cell in water.cells().items()} == {
        "m1": of["m2"],
        "m2": of["m1"],
        "m3": of["m3"],
    }
    for names, refusal in (({"m1": "m3"}, EntryExists), ({"m9": "m8"}, EntryNotFound)):
        with pytest.raises(refusal):
            water.rename(names)
    stage.require_equal()


def test_a_removed_entry_leaves_its_name_to_another(stage: Stage) -> None:
    water = Collection.made(stage, 2)
    water.submit()
    water.remove("m1")
    water.add({"m1": {"x": 9}})
    assert water.inputs() == {"m2": {"x": 2}, "m1": {"x": 9}}
    assert water.submit()["n_selected"] == 1
    version = water.dataset.version
    with pytest.raises(EntryNotFound) as refused:
        water.remove("m1", "m7", "m8")
    assert refused.value.names == ("m7", "m8")
    assert water.dataset.version == version
    stage.require_equal()


def test_a_specification_is_added_once_and_may_come_again_under_its_name(stage: Stage) -> None:
    water = Collection.made(stage, 1)
    assert water.specify("hf")["n_changed"] == 0
    with pytest.raises(SpecificationExists):
        water.specify("hf", tag="cpu")
    water.submit()
    water.unspecify("hf")
    water.specify("hf", tag="cpu")
    assert water.cells() == {}
    water.submit()
    assert water.counts() == {"hf": {"waiting": 1}}
    with pytest.raises(SpecificationNotFound):
        water.unspecify("hf", "mp2")
    stage.require_equal()


# People at once


def test_names_are_unique_among_the_living(stage: Stage) -> None:
    water = Collection.made(stage, 0)
    with pytest.raises(DatasetExists) as refused:
        Collection.made(stage, 0, name="WATER")
    assert refused.value.dataset_id == water.id
    ice = Collection.made(stage, 0, name="ice")
    with pytest.raises(DatasetExists):
        dataset_edits.modify(stage.ledger, ice.id, WHO, name="Water")
    dataset_edits.modify(stage.ledger, water.id, WHO, name="Water", description="liquid")
    assert (water.dataset.name, water.dataset.description) == ("Water", "liquid")
    water.delete()
    dataset_edits.modify(stage.ledger, ice.id, WHO, name="water")
    with stage.ledger.datastore.reading() as db:
        assert datasets.get(db, "WATER").id == ice.id
        with pytest.raises(DatasetNotFound):
            datasets.get(db, "ice")
    stage.require_equal()


def test_of_those_who_take_a_name_at_once_one_gets_it(stage: Stage) -> None:
    def take(name: str) -> Callable[[], str]:
        def work() -> str:
            try:
                dataset_edits.create(stage.ledger, name, "", WHO)
            except DatasetExists as refusal:
                return refusal.code
            return "made"

        return work

    answers = together(*(take(name) for name in ("ice", "ICE", "Ice", "ice")))
    assert sorted(answers) == ["dataset_exists"] * 3 + ["made"]


def test_of_two_who_edit_the_same_version_one_is_told_of_the_other(stage: Stage) -> None:
    water = Collection.made(stage, 4)
    version = water.dataset.version

    def remove(name: str) -> Callable[[], str]:
        def work() -> str:
            try:
                water.remove(name, expected_version=version)
            except DatasetChanged as refusal:
                return f"{refusal.expected} is now {refusal.version}"
            return "removed"

        return work

    answers = together(remove("m1"), remove("m2"))
    assert sorted(answers) == [f"{version} is now {version + 1}", "removed"]
    assert len(water.inputs()) == 3


def test_without_an_expected_version_all_edits_are_done(stage: Stage) -> None:
    water = Collection.made(stage, 0)
    names = count()
    together(*[lambda: water.add({f"e{next(names)}": {}}) for _ in range(8)])
    assert len(water.inputs()) == water.dataset.n_entries == 8
    assert water.dataset.version == 2 + 8
    stage.require_equal()


def test_a_request_that_comes_again_has_one_effect(stage: Stage) -> None:
    water = Collection.made(stage, 1)
    who = Who(ALICE, request=key())
    first, again = (
        dataset_edits.add_entries(stage.ledger, water.id, entries({"m9": {"x": 9}}), who)
        for _ in range(2)
    )
    assert first == again
    assert water.dataset.n_entries == 2


# Erasure


def test_a_record_of_a_dataset_is_not_destroyed_until_it_is_removed(stage: Stage) -> None:
    water = Collection.made(stage, 2)
    water.submit()
    Collection.made(stage, 1, name="ice").submit()
    first, second = water.ids()
    managed = stage.order(Action.erase, first, second)
    assert managed["updated_idx"] == []
    assert managed["errors"] == [
        (
            0,
            "still_referenced",
            f"record {first} is in dataset 'ice', dataset 'water'; remove it from there first",
        ),
        (
            1,
            "still_referenced",
            f"record {second} is in dataset 'water'; remove it from there first",
        ),
    ]
    water.unlink(entries=("m1", "m2"))
    assert [idx for idx, _, _ in stage.order(Action.erase, first, second)["errors"]] == [0]
    assert stage.statuses(first, second) == {first: "waiting"}
    stage.require_equal()


def test_a_child_in_a_dataset_outlives_its_service(stage: Stage) -> None:
    water = Collection.made(stage, 1)
    water.submit()
    [child] = water.ids()
    [other] = stage.submit(1)
    service = stage.service(child, other)
    stage.done(Action.cancel, service)
    managed = stage.order(Action.erase, service)
    assert (managed["updated_idx"], managed["n_children_updated"]) == ([0], 1)
    assert stage.statuses(service, child, other) == {child: "cancelled"}
    stage.require_equal()


def test_a_record_is_either_linked_or_destroyed(stage: Stage) -> None:
    for attempt in range(10):
        water = Collection.made(stage, 1, name=f"water {attempt}")
        water.submit()
        ids = water.ids()
        water.delete()
        new = Collection.made(stage, 1, name=f"ice {attempt}")
        erased, _ = together(partial(stage.order, Action.erase, *ids), new.submit)
        [now] = new.ids()
        assert (now == ids[0]) is bool(erased["errors"])
        assert stage.status(now) is Status.waiting
    stage.require_equal()


# Versions and clones


def test_a_locked_version_stays_as_it_was(stage: Stage) -> None:
    water = Collection.made(stage, 3, ("hf",))
    water.submit()
    before, inputs = water.cells(), water.inputs()
    assert water.lock("as published", "10.1000/182") == 1
    water.rename({"m1": "one"})
    water.remove("m2")
    water.add({"m2": {"x": 22}})
    water.specify("mp2")
    water.unlink(entries=("m3",))
    water.submit(SubmissionTerms(1000, find_existing=False))
    water.unspecify("hf")
    assert water.lock() == 2
    assert water.cells(1) == before
    assert water.inputs(1) == inputs
    assert set(water.cells()) == {("one", "mp2"), ("m2", "mp2"), ("m3", "mp2")}
    with stage.ledger.datastore.reading() as db:
        first, second = datasets.versions(db, water.id)
    assert (first.number, first.label, first.doi) == (1, "as published", "10.1000/182")
    assert (first.n_entries, first.locked_by, second.label) == (3, ALICE, "")
    with pytest.raises(VersionNotFound):
        water.cells(3)
    with pytest.raises(DatasetLocked):
        water.delete()
    stage.require_equal()


def test_the_records_of_a_locked_version_are_not_destroyed(stage: Stage) -> None:
    water = Collection.made(stage, 1)
    water.submit()
    [locked] = water.ids()
    water.lock()
    water.unlink(entries=("m1",))
    water.submit(SubmissionTerms(1000, find_existing=False))
    [new] = water.ids()
    water.unlink(entries=("m1",))
    managed = stage.order(Action.erase, locked, new)
    assert managed["updated_idx"] == [1]
    [(_, _, message)] = managed["errors"]
    assert "a locked version of dataset 'water'" in message
    assert water.cells(1)["m1", "hf"].status is Status.waiting
    stage.require_equal()


def test_a_clone_has_the_same_entries_and_specifications_and_shares_records_if_wanted(
    stage: Stage,
) -> None:
    water = Collection.made(stage, 4, ("hf", "mp2"))
    water.submit(specifications=("mp2",))
    water.lock()
    water.remove("m2")
    water.unspecify("hf")
    bare, filled = water.clone("bare")
    assert (filled["n_selected"], filled["job_id"]) == (0, None)
    assert bare.inputs() == water.inputs()
    assert list(bare.dataset.specifications) == ["mp2"]
    assert bare.cells() == {}
    assert bare.dataset.cloned_from == water.id
    linked, _ = water.clone("linked", link_records=True)
    assert {place: cell.record_id for place, cell in linked.cells().items()} == {
        place: cell.record_id for place, cell in water.cells().items()
    }
    assert linked.counts() == water.counts() == {"mp2": {"waiting": 3}}
    old, _ = water.clone("old", version=1, link_records=True, description="as published")
    assert {place: cell.record_id for place, cell in old.cells().items()} == {
        place: cell.record_id for place, cell in water.cells(1).items()
    }
    assert set(old.dataset.specifications) == {"hf", "mp2"}
    assert old.dataset.description == "as published"
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_the_records_of_a_large_clone_are_linked_by_a_job(stage: Stage) -> None:
    water = Collection.made(stage, 10)
    water.submit()
    run_jobs(stage)
    ids = water.ids()
    twin, filled = water.clone("twin", link_records=True)
    assert (filled["n_selected"], filled["n_linked"]) == (10, 0)
    advance_jobs(stage.ledger)
    twin.remove("m9")
    water.delete()
    stage.done(Action.erase, ids[6])
    run_jobs(stage)
    assert twin.ids() == [id_ for id_ in ids if id_ not in (ids[6], ids[8])]
    job_id = filled["job_id"]
    assert job_id is not None
    codes = [each.code for each in refusals_of(stage.ledger, job_id, 10)]
    assert sorted(codes) == ["entry_not_found", "not_found"]
    stage.require_equal()


# Queries


def test_records_are_found_by_dataset_each_once_and_newest_first(stage: Stage) -> None:
    stage.submit(2)
    water = Collection.made(stage, 3, ("hf", "mp2"))
    water.add({"again": {"x": 1}})
    water.submit()
    stage.submit(2)
    ids = water.ids()
    stage.done(Action.hold, ids[0], ids[4])
    assert len(ids) == 6

    def found(before: int | None = None, limit: int = 100, **which: Any) -> list[int]:
        which_ones = RecordFilter(dataset=water.id, **which)
        page = [each.id for each in query_records(stage.ledger, which_ones, limit, before)]
        if before is None and limit == 100:
            assert select_ids(stage.ledger, which_ones, 100) == sorted(page)
        return page

    assert found() == ids[::-1]
    assert found(limit=2) == ids[:3:-1]
    assert found(before=ids[4], limit=3) == ids[3:0:-1]
    assert found(specification=(1,)) == ids[2::-1]
    assert found(entry=(1,)) == [ids[3], ids[0]]
    assert found(status=(Status.held,)) == [ids[4], ids[0]]
    assert found(status=(Status.held, Status.waiting), entry=(1, 2)) == [
        ids[n] for n in (4, 3, 1, 0)
    ]
    assert found(specification=(2,), entry=(3,), status=(Status.waiting,)) == [ids[5]]
    assert found(specification=()) == []


def test_a_dry_run_over_a_dataset_links_nothing(stage: Stage) -> None:
    water = Collection.made(stage, 2)
    water.submit()
    ids = select_ids(stage.ledger, RecordFilter(dataset=water.id), 10)
    ordered = bulk.order(
        stage.ledger, OperationRequest(Action.cancel), ids, actor=BOB, dry_run=True, tell_ids=True
    )
    assert ordered["n_selected"] == 2
    assert water.counts() == {"hf": {"waiting": 2}}


def test_terms_survive_as_plain_values() -> None:
    terms = SubmissionTerms(1000, find_existing=False, tag="x", priority=Priority.low)
    assert SubmissionTerms.of(terms.options()) == terms
    assert SubmissionTerms.of(TERMS.options()) == TERMS
