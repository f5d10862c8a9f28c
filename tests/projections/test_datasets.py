"""Datasets: entries x specifications -> records, counted as they change, and readable as they were."""

from __future__ import annotations

from recordledger.projections import dataset_edits as edits

from .stage import ALICE, Stage


def test_smoke(stage: Stage) -> None:
    from recordledger.domain.dataset import DatasetSpecification
    from recordledger.domain.events import Kind, Priority
    from recordledger.domain.retries import NO_RETRY
    from recordledger.projections import dataset_jobs as dj
    from recordledger.projections import datasets
    from recordledger.projections.dataset_edits import NewEntry, Selection, Who
    from recordledger.projections.datasets import Content
    from recordledger.projections.payloads import payload_of

    who = Who(ALICE)
    made = edits.create(stage.ledger, "water", "", who)
    id_ = made["dataset_id"]
    print(
        edits.add_entries(
            stage.ledger,
            id_,
            [NewEntry(f"m{i}", Content(b'{"x":%d}' % i, b"{}")) for i in range(5)],
            who,
        )
    )
    s = DatasetSpecification(
        0,
        "hf",
        Kind.task,
        "psi4",
        payload_of(b'{"basis":"sto-3g"}'),
        (),
        "gpu",
        Priority.normal,
        NO_RETRY,
    )
    print(edits.add_specification(stage.ledger, id_, s, b'{"basis":"sto-3g"}', who))
    print(dj.submit(stage.ledger, id_, Selection(), dj.Terms(1000), who))
    with stage.ledger.datastore.reading() as db:
        print(datasets.counts(db, id_))
    stage.require_equal()
    print(dj.clone(stage.ledger, id_, "water2", who, link_records=True))
    stage.require_equal()
    print(edits.remove_entries(stage.ledger, id_, ["m1"], who))
    print(edits.rename_entries(stage.ledger, id_, {"m2": "m3", "m3": "m2"}, who))
    print(edits.lock_version(stage.ledger, id_, "v1", None, who))
    stage.require_equal()
    assert 0
