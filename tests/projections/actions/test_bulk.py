"""Jobs: operations on many records, in slices that are whole, resumable and undoable."""

from __future__ import annotations

import contextlib
from typing import Any, Final
from uuid import UUID

import msgpack
import pytest

from recordledger.domain.admin.job import JobAggregate, JobState, JobSubmitted
from recordledger.domain.errors import JobNotEnded, JobNotFound
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.specs.fingerprint import digest_of
from recordledger.projections.actions import bulk
from recordledger.projections.actions.bulk import (
    OperationOutcome,
    advance_jobs,
    cancel_job,
    order,
    refusals_of,
)
from recordledger.projections.actions.operations import OperationRequest
from recordledger.projections.ledger import Intent, Ledger, Operation
from recordledger.projections.reading.queries import payload_contents
from recordledger.projections.tables import jobs, payloads

from ..stage import ALICE, BOB, Stage, key, together

N_SMALL: Final = 25


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make jobs of what is more than ten records, four at a time."""
    monkeypatch.setattr(bulk, "AT_ONCE_MAX", 10)
    monkeypatch.setattr(bulk, "SLICE", 4)


def begin(stage: Stage, action: Action, ids: list[int], **options: Any) -> tuple[int, UUID]:
    """Order what becomes a job; return it and its operation."""
    ordered = order(
        stage.ledger, OperationRequest(action, **options), ids, actor=BOB, reason="wrong basis"
    )
    return of_job(ordered)


def of_job(ordered: OperationOutcome) -> tuple[int, UUID]:
    assert ordered["managed"] is None
    assert ordered["job_id"] is not None
    return ordered["job_id"], UUID(ordered["operation_id"])


def job(stage: Stage, job_id: int) -> JobAggregate:
    """Return a job as it is."""
    with stage.ledger.datastore.reading() as db:
        return jobs.get(db, job_id)


def run(stage: Stage) -> int:
    """Do all that there is to do; return in how many steps."""
    n_steps = 0
    while advance_jobs(stage.ledger):
        n_steps += 1
        assert n_steps < 1000
    return n_steps


@pytest.mark.usefixtures("small")
def test_a_job_does_one_operation_in_slices_and_says_how_far_it_is(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)
    job_id, operation = begin(stage, Action.cancel, ids)
    assert (job(stage, job_id).n_done, job(stage, job_id).n_total) == (0, N_SMALL)
    assert stage.queue() == ids
    assert advance_jobs(stage.ledger) == 1
    assert (job(stage, job_id).n_done, stage.queue()) == (4, ids[4:])
    run(stage)
    found = job(stage, job_id)
    assert (found.state, found.n_done, found.n_updated) == (JobState.finished, N_SMALL, N_SMALL)
    assert (found.action, found.actor, found.reason) == ("cancel", BOB, "wrong basis")
    for record_id in ids:
        event = stage.events(record_id)[-1]
        assert (event.operation_id, event.actor, event.reason) == (operation, BOB, "wrong basis")
    assert stage.ask("SELECT n_changes FROM operations") == [(N_SMALL,)]
    assert advance_jobs(stage.ledger) == 0
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_what_a_job_was_refused_for_is_told_by_place(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)
    stage.done(Action.cancel, ids[1], ids[9], ids[24])
    meant = [*ids[:5], 999_999, *ids[5:], ids[2], ids[20]]
    job_id, _ = begin(stage, Action.cancel, meant)
    run(stage)
    assert [tuple(each)[:3] for each in refusals_of(stage.ledger, job_id, 100)] == [
        (1, ids[1], "transition_forbidden"),
        (5, 999_999, "not_found"),
        (10, ids[9], "transition_forbidden"),
        (25, ids[24], "transition_forbidden"),
    ]
    assert [each.idx for each in refusals_of(stage.ledger, job_id, 2)] == [1, 5]
    assert [each.idx for each in refusals_of(stage.ledger, job_id, 2, after=5)] == [10, 25]
    found = job(stage, job_id)
    assert (found.n_refused, found.n_updated) == (4, N_SMALL - 3)
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_a_crash_between_or_in_slices_costs_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = stage.submit(N_SMALL)
    job_id, _ = begin(stage, Action.cancel, ids)
    advance_jobs(stage.ledger)
    head = stage.head()

    def die(_: Operation) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Operation, "write", die)
        with pytest.raises(KeyboardInterrupt):
            advance_jobs(stage.ledger)
    assert (stage.head(), job(stage, job_id).n_done) == (head, 4)
    with contextlib.closing(Ledger(stage.url, stage.schema)) as another:
        assert advance_jobs(another) == 1
    assert (job(stage, job_id).n_done, stage.queue()) == (8, ids[8:])
    run(stage)
    assert job(stage, job_id).state is JobState.finished
    assert stage.head() == N_SMALL * 2 + 1 + 7 + 1
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_two_servers_do_not_do_a_slice_twice(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)
    job_id, _ = begin(stage, Action.hold, ids)
    with contextlib.closing(Ledger(stage.url, stage.schema)) as another:
        together(
            lambda: [advance_jobs(stage.ledger) for _ in range(8)],
            lambda: [advance_jobs(another) for _ in range(8)],
        )
    run(stage)
    found = job(stage, job_id)
    assert (found.state, found.n_updated, found.n_refused) == (JobState.finished, N_SMALL, 0)
    stage.require_equal()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("n_slices", [0, 1, 3])
def test_a_cancelled_job_is_undone(stage: Stage, n_slices: int) -> None:
    ids = stage.submit(N_SMALL)
    before = stage.image()
    job_id, operation = begin(stage, Action.modify, ids, tag="cpu", priority=Priority.high)
    for _ in range(n_slices):
        advance_jobs(stage.ledger)
    with pytest.raises(JobNotEnded):
        stage.undo(operation)
    assert cancel_job(stage.ledger, job_id, actor=ALICE)
    assert not cancel_job(stage.ledger, job_id, actor=ALICE)
    assert job(stage, job_id).state is JobState.cancelling
    run(stage)
    assert job(stage, job_id).state is JobState.cancelled
    assert stage.image() == before
    assert not cancel_job(stage.ledger, job_id, actor=ALICE)
    stage.require_equal()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ends", [JobState.finished, JobState.cancelled])
def test_what_a_job_has_to_say_is_kept_until_it_ends_and_goes_with_the_last_record(
    stage: Stage, ends: JobState
) -> None:
    ids = stage.submit(N_SMALL)
    job_id, _ = begin(stage, Action.comment, ids, text="hunter2")
    advance_jobs(stage.ledger)
    said = digest_of(b"hunter2")
    stage.done(Action.erase, *ids[:4])
    stage.require_equal()
    assert stage.ask("SELECT DISTINCT text FROM comments") == []
    if ends is JobState.cancelled:
        cancel_job(stage.ledger, job_id, actor=ALICE)
        run(stage)
        assert payload_contents(stage.ledger, [said]) == {}
    else:
        run(stage)
        assert stage.ask("SELECT text, count(*) FROM comments GROUP BY text") == [("hunter2", 21)]
        assert payload_contents(stage.ledger, [said]) == {said: b"hunter2"}
        begin(stage, Action.erase, ids[4:])
        run(stage)
        assert payload_contents(stage.ledger, [said]) == {}
    assert job(stage, job_id).state is ends
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_an_order_that_was_stored_with_its_text_is_carried_out(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)

    def begin_as_before(operation: Operation) -> None:
        new = jobs.next_id(operation.db)
        ids_of = payloads.keep(operation.db, msgpack.packb(ids))
        options = OperationRequest(Action.comment).options() | {"text": "wrong minimum"}
        submitted = JobSubmitted(
            **operation.stamp.model_dump(), ids=ids_of, n_total=N_SMALL, options=options
        )
        operation.happen(JobAggregate(new), [submitted])

    stage.ledger.operate(begin_as_before, actor=ALICE, intent=Intent(Action.comment))
    run(stage)
    assert stage.ask("SELECT text, count(*) FROM comments GROUP BY text") == [("wrong minimum", 25)]
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_the_undo_of_a_cancelled_job_goes_on_after_a_crash_and_spares_what_changed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = stage.submit(N_SMALL)
    job_id, _ = begin(stage, Action.cancel, ids)
    for _ in range(4):
        advance_jobs(stage.ledger)
    stage.done(Action.delete, ids[2])
    cancel_job(stage.ledger, job_id, actor=ALICE)
    n_writes = 0
    write = Operation.write

    def write_twice(operation: Operation) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes > 2:
            raise KeyboardInterrupt
        write(operation)

    with monkeypatch.context() as patched:
        patched.setattr(Operation, "write", write_twice)
        with pytest.raises(KeyboardInterrupt):
            advance_jobs(stage.ledger)
    assert job(stage, job_id).state is JobState.cancelling
    run(stage)
    assert job(stage, job_id).state is JobState.cancelled
    assert stage.queue() == [id_ for id_ in ids if id_ != ids[2]]
    assert stage.statuses(ids[2]) == {ids[2]: "deleted"}
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_the_undo_of_a_large_operation_is_a_job_and_is_undone_by_one(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)
    before = stage.image()
    _, operation = begin(stage, Action.cancel, ids)
    run(stage)
    done = stage.image()
    stage.done(Action.comment, ids[3], text="hm")
    dry = stage.undo(operation, dry_run=True)
    assert (dry["n_undone"], dry["job_id"], stage.image()) == (N_SMALL, None, done)
    undone = stage.undo(operation)
    assert undone["job_id"] is not None
    run(stage)
    assert stage.image() == before
    assert job(stage, undone["job_id"]).n_updated == N_SMALL
    stage.undo(UUID(undone["operation_id"]))
    run(stage)
    assert stage.image() == done
    stage.require_equal()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("action", [Action.cancel, Action.delete, Action.erase])
def test_families_across_slices_are_as_in_one_piece(
    stage: Stage, action: Action, backwards: bool
) -> None:
    children = stage.submit(14)
    services = [stage.service(*children[start : start + 5]) for start in (0, 3, 9)]
    top = stage.service(*services[:2])
    spared = stage.service(children[13])
    meant = [top, *services, *children[:13]]
    # The last child is needed by somebody who was not meant; all the others go.
    job_id, operation = begin(stage, action, meant[::-1] if backwards else meant)
    run(stage)
    found = job(stage, job_id)
    statuses = stage.statuses(*meant, spared, children[13])
    gone = {Action.cancel: "cancelled", Action.delete: "deleted"}.get(action)
    assert (found.n_updated, found.n_refused, found.n_relatives) == (len(meant), 0, 0)
    assert {id_: statuses.get(id_) for id_ in meant} == dict.fromkeys(meant, gone)
    assert (statuses[spared], statuses[children[13]]) == ("running", "waiting")
    if action is not Action.erase:
        stage.undo(operation)
        run(stage)
        assert set(stage.statuses(*meant).values()) == {"waiting"}
    stage.require_equal()


@pytest.mark.usefixtures("small")
def test_a_repeated_order_is_one_job(stage: Stage) -> None:
    ids = stage.submit(N_SMALL)
    orders = [
        order(stage.ledger, OperationRequest(Action.cancel), ids, actor=ALICE, request=key("once"))
        for _ in range(2)
    ]
    assert orders[0]["job_id"] == orders[1]["job_id"] is not None
    assert run(stage) == 7
    with stage.ledger.datastore.reading() as db:
        assert len(jobs.page(db, 10)) == 1
        assert jobs.of_operation(db, UUID(orders[0]["operation_id"])) == orders[0]["job_id"]
        assert jobs.page(db, 10, before=orders[0]["job_id"] or 0) == []


@pytest.mark.usefixtures("small")
def test_what_fits_is_done_at_once(stage: Stage) -> None:
    ids = stage.submit(10)
    ordered = order(stage.ledger, OperationRequest(Action.cancel), [*ids, *ids], actor=ALICE)
    assert ordered["job_id"] is None
    assert ordered["managed"] is not None
    assert ordered["managed"]["updated_idx"] == list(range(10))
    assert stage.queue() == []


def test_there_is_no_such_job(stage: Stage) -> None:
    for question in (
        lambda: cancel_job(stage.ledger, 7, actor=ALICE),
        lambda: job(stage, 7),
        lambda: refusals_of(stage.ledger, 7, 10),
    ):
        with pytest.raises(JobNotFound):
            question()


def test_thirty_thousand_records(stage: Stage) -> None:
    ids = [id_ for _ in range(6) for id_ in stage.submit(5_000)]
    job_id, operation = begin(stage, Action.cancel, ids)
    assert run(stage) == 15
    assert job(stage, job_id).n_updated == 30_000
    assert stage.queue() == []
    stage.undo(operation)
    advance_jobs(stage.ledger)
    assert stage.queue() == ids[:2_000]
