"""Datasets with both clients, as users type it; results as tables of other libraries."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    AsyncDataset,
    Dataset,
    InvalidArgument,
    NotFound,
    Refused,
    Results,
    WaitTimeout,
)
from recordledger.api.client.errors import ClientError
from recordledger.api.client.results.datasets import DatasetStatus
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.admin.access import Role
from recordledger.domain.records.status import Status
from recordledger.projections.actions import dataset_filling
from recordledger.workers.jobs.schedule import advance_bulk_operations
from tests.postgres import new_database

from ..service import Service, serving

FUNCTION = "package.module:energy"


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, records_per_request=40) as made,
    ):
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, service.visit(Role.admin, "ann").secret, progress=False) as made:
        yield made


def made(client: Client, n_entries: int = 3, *specifications: str) -> tuple[Dataset, str]:
    """Make a dataset with entries m0, m1 and so on; return it and the tag of its records."""
    tag = f"own{uuid4().hex[:12]}"
    dataset = client.add_dataset(f"water {tag}")
    for name in specifications:
        assert dataset.add_specification(name, FUNCTION, {"method": name, "tag": tag}, tag=tag)
    dataset.add_entries({f"m{n}": {"n": n} for n in range(n_entries)})
    return dataset, tag


def compute(client: Client, tag: str, results: list[Any], limit: int = 100) -> None:
    """Return these results, in the order of claiming, for the waiting records of a tag."""
    manager_id = client.register_manager("m", [tag]).manager_id
    tasks = client.claim(manager_id, limit).tasks
    client.return_results(
        manager_id,
        [
            ResultIn(record_id=task.record_id, attempt=task.attempt, result=result)
            for task, result in zip(tasks, results, strict=True)
        ],
    )


@contextlib.contextmanager
def working(service: Service) -> Generator[None]:
    """Let the server's job do operations on many records meanwhile."""
    stop = Event()

    def work() -> None:
        while not stop.wait(0.02):
            advance_bulk_operations(stop)(service.ledger)

    worker = Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def test_a_dataset_goes_from_entries_to_results(client: Client) -> None:
    dataset, tag = made(client, 3, "hf", "mp2")
    submitted = dataset.submit(specifications="hf", reason="first")
    assert (submitted.n_selected, submitted.n_linked, submitted.is_done) == (3, 3, True)
    assert not dataset.status().is_finished
    with pytest.raises(WaitTimeout, match="3 records of dataset"):
        dataset.wait(timeout_s=0)
    compute(client, tag, [{"energy": -1.5 * n, "steps": n} for n in range(3)])
    assert dataset.wait(timeout_s=10).counts == {"complete": 3}
    results = dataset.results()
    assert [(row["entry"], row["specification"], row["result"]) for row in results] == [
        (f"m{n}", "hf", {"energy": -1.5 * n, "steps": n}) for n in range(3)
    ]
    assert results[0]["status"] is Status.complete
    record_id: int = results[0]["record_id"]
    assert client.get_records(record_id).status is Status.complete
    dataset.submit()
    assert dataset.results(specifications="mp2") == []
    waiting = dataset.results(specifications=["mp2"], status=None, include=["kwargs"])
    assert [row["kwargs"]["n"] for row in waiting] == [0, 1, 2]
    assert len(dataset.results(status=["complete", "waiting"], include=())) == 6


def test_the_status_shows_itself_as_a_table(client: Client) -> None:
    dataset, tag = made(client, 3, "hf", "mp2")
    dataset.submit(entries=["m0", "m1"])
    dataset.hold_records(specification="mp2", entry="m1")
    status = dataset.status()
    assert status.counts == {"waiting": 3, "held": 1}
    assert repr(status).splitlines() == [
        f"dataset {dataset.id} 'water {tag}': 3 entries",
        "specification  waiting  held  no record",
        "hf             2        0     1",
        "mp2            1        1     1",
        "all            3        1     2",
    ]
    assert "<td>mp2</td>" in status._repr_html_()  # pyright: ignore[reportPrivateUsage]
    finished = status.model_copy(update={"n_missing": 0, "counts": {Status.complete: 6}})
    assert isinstance(finished, DatasetStatus)
    assert finished.is_finished


def test_the_table_has_every_entry_with_its_records(client: Client) -> None:
    dataset, _ = made(client, 3, "hf", "mp2")
    dataset.submit(specifications="mp2", entries="m1")
    table = dataset.table()
    assert [row.entry for row in table] == ["m0", "m1", "m2"]
    cell = table[1].cells["mp2"]
    assert cell is not None
    assert cell.status is Status.waiting
    assert table[1].cells["hf"] is None
    assert f"{cell.record_id} waiting" in repr(table)
    assert "mp2" in table._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert len(dataset.table(limit=2)) == 2
    assert list(dataset.table(specifications="hf")[0].cells) == ["hf"]


def test_a_dataset_is_found_by_name_or_id_and_listed(client: Client) -> None:
    dataset, tag = made(client)
    assert client.dataset(f"WATER {tag}").id == client.dataset(dataset.id).id == dataset.id
    for unknown in ("no such dataset", 2**40):
        with pytest.raises(NotFound) as refused:
            client.dataset(unknown)
        assert refused.value.code == "dataset_not_found"
    with pytest.raises(InvalidArgument):
        client.dataset(0)
    assert client.datasets(limit=1)[0].id == dataset.id
    assert f"water {tag}" in repr(client.datasets())
    assert repr(dataset) == f"Dataset({dataset.id})"
    info = dataset.info()
    assert (info.n_entries, info.owner) == (3, "user:ann")


def test_entries_are_added_in_parts_and_read_in_order(client: Client) -> None:
    dataset, _ = made(client, 0)
    given = [
        {"name": f"e{n}", "input": {"x": n}, "attributes": {"even": n % 2 == 0}} for n in range(90)
    ]
    added = dataset.add_entries(given)
    assert len(added.operation_ids) == 3
    assert added.inserted_idx == list(range(90))
    again = dataset.add_entries([*given[:50], {"name": "e60", "input": {}}, {"name": ""}])
    assert again.existing_idx == list(range(50))
    assert [(each.idx, each.code) for each in again.errors] == [
        (50, "entry_exists"),
        (51, "invalid_input"),
    ]
    assert "inserted=0, existing=50, errors=2" in repr(again)
    entries = dataset.entries()
    assert [entry.model_dump() for entry in entries] == given
    assert [entry.name for entry in dataset.entries(limit=2, content=False)] == ["e0", "e1"]
    assert dataset.add_entries([]).version == 0
    for wrong in ([7], [{"nam": "x"}], [{"name": "x", "input": {"x": object()}}]):
        with pytest.raises(InvalidArgument):
            dataset.add_entries(wrong)  # type: ignore[arg-type]


def test_people_who_edit_at_once_are_told(client: Client) -> None:
    dataset, _ = made(client, 0)
    version = dataset.info().version
    parts = [{"name": f"e{n}"} for n in range(90)]
    added = dataset.add_entries(parts, expected_version=version)
    assert added.version == version + 3
    edits: list[Callable[[], object]] = [
        lambda: dataset.add_entries({"late": {}}, expected_version=version),
        lambda: dataset.rename_entries({"e1": "e100"}, expected_version=version),
        lambda: dataset.remove_entries("e1", expected_version=version),
        lambda: dataset.rename("other", expected_version=version),
    ]
    for edit in edits:
        with pytest.raises(Refused) as refused:
            edit()
        assert refused.value.code == "dataset_changed"


def test_entries_and_specifications_are_renamed_and_removed(client: Client) -> None:
    dataset, _ = made(client, 3, "hf")
    [there] = dataset.info().specifications
    assert not dataset.add_specification("hf", FUNCTION, there.kwargs, tag=there.tag)
    dataset.submit()
    assert dataset.rename_entries({"m0": "m1", "m1": "m0"}) == 2
    assert [entry.name for entry in dataset.entries()] == ["m1", "m0", "m2"]
    assert dataset.remove_entries(["m0", "m2"]) == 2
    assert dataset.unlink_records(entries="m1") == 1
    assert dataset.remove_specifications("hf") == 1
    assert dataset.status().counts == {}
    name = f"ice {uuid4().hex}"
    dataset.rename(name)
    dataset.describe("frozen")
    assert (dataset.info().name, dataset.info().description) == (name, "frozen")
    kinds = [event.kind for event in dataset.history()]
    assert kinds[-1] == "dataset_described"
    assert len(dataset.history(limit=2)) == 2
    dataset.delete(reason="superseded")
    with pytest.raises(NotFound):
        dataset.info()


def test_every_verb_is_there_and_means_the_records_of_the_dataset(client: Client) -> None:
    dataset, tag = made(client, 2, "hf")
    other, _ = made(client, 2, "hf")
    dataset.submit()
    other.submit()
    assert dataset.hold_records().n_updated == 2
    assert dataset.release_records().n_updated == 2
    assert dataset.cancel_records(entry="m0", reason="why").n_updated == 1
    assert dataset.uncancel_records(status="cancelled").n_updated == 1
    assert dataset.modify_records(new_priority="high").n_updated == 2
    compute(client, tag, [1.0, 2.0])
    assert dataset.invalidate_records(dry_run=True).n_updated == 2
    assert dataset.invalidate_records(entry="m1").n_updated == 1
    assert dataset.uninvalidate_records(status="invalid").n_updated == 1
    assert dataset.add_comment(text="good").n_updated == 2
    refused = dataset.delete_records(soft_delete=False)
    assert {error.code for error in refused.errors} == {"still_referenced"}
    assert dataset.delete_records().n_updated == 2
    assert dataset.undelete_records().n_updated == 2
    assert other.status().counts == {"waiting": 2}
    found = dataset.records(status="complete", limit=10).all()
    assert [record.status for record in found] == ["complete", "complete"]
    assert client.cancel_records(dataset=other.id, specification="hf").n_updated == 2
    query = client.query_records(dataset=other.id, entry=["m0"], status="cancelled")
    assert len(query.all()) == 1
    with pytest.raises(NotFound, match="no entry 'x'"):
        dataset.records(entry="x").all()
    with pytest.raises(InvalidArgument):
        dataset.records(limit=-1)


def test_clones_and_locked_versions(client: Client) -> None:
    dataset, tag = made(client, 3, "hf")
    dataset.submit()
    assert dataset.lock("as published", "10.1000/182") == 1
    dataset.remove_entries("m0")
    assert [row.entry for row in dataset.table(version=1)] == ["m0", "m1", "m2"]
    assert len(dataset.entries(version=1)) == 3
    assert len(dataset.results(version=1, status=None)) == 3
    twin = dataset.clone(f"twin {tag}", version=1, link_records=True)
    assert twin.status().counts == {"waiting": 3}
    assert twin.info().cloned_from == dataset.id
    [locked] = dataset.info(version=1).locked_versions
    assert (locked.number, locked.doi) == (1, "10.1000/182")
    with pytest.raises(Refused) as refused:
        dataset.delete()
    assert refused.value.code == "dataset_locked"


def test_a_large_submission_is_waited_for(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_filling, "AT_ONCE_MAX", 3)
    monkeypatch.setattr(dataset_filling, "SLICE", 2)
    dataset, tag = made(client, 5, "hf")
    begun = dataset.submit(wait=False)
    assert (begun.n_selected, begun.n_linked, begun.is_done) == (5, 0, False)
    assert begun.job_id is not None
    with working(service):
        job = client.wait_for_job(begun.job_id)
        assert (job.action, job.n_updated) == ("submit", 5)
        dataset.add_specification("mp2", FUNCTION, {"method": "mp2", "tag": tag})
        submitted = dataset.submit()
        assert (submitted.n_linked, submitted.n_existing, submitted.is_done) == (5, None, True)
        assert dataset.clone(f"twin {tag}", link_records=True).status().n_missing == 0


def test_both_handles_have_the_same_calls_with_their_docstrings() -> None:
    def calls(kind: type[Any]) -> dict[str, tuple[list[str], str | None]]:
        return {
            name: (list(inspect.signature(member).parameters), inspect.getdoc(member))
            for name in vars(kind)
            if inspect.isfunction(member := getattr(kind, name)) and not name.startswith("_")
        }

    blocking, awaited = calls(Dataset), calls(AsyncDataset)
    assert {name: docs for name, (_, docs) in blocking.items()} == {
        name: docs for name, (_, docs) in awaited.items()
    }
    for name, (_, docstring) in blocking.items():
        assert docstring, name
        assert "within:" not in docstring, name


def test_it_all_can_be_awaited(service: Service) -> None:
    secret = service.visit(Role.admin, "ann").secret

    async def main() -> None:
        async with AsyncClient(service.url, secret, progress=False) as client:
            name = f"water {uuid4().hex}"
            dataset = await client.add_dataset(name)
            assert repr(dataset) == f"AsyncDataset({dataset.id})"
            await dataset.add_entries({"m0": {"nonce": name}})
            await dataset.add_specification("hf", FUNCTION)
            assert (await dataset.submit()).n_linked == 1
            assert (await dataset.hold_records()).n_updated == 1
            assert (await (await client.dataset(name)).status()).counts == {"held": 1}
            assert [record.status async for record in dataset.records()] == ["held"]
            twin = await dataset.clone(f"twin of {name}", link_records=True)
            assert (await twin.info()).n_records == 1
            assert (await client.datasets(limit=1))[0].id == twin.id

    asyncio.run(main())


# Tables

ROWS: list[dict[str, Any]] = [
    {
        "entry": f"m{n}",
        "specification": "hf",
        "record_id": 400 + n,
        "status": Status.complete,
        "result": {"energy": -1.5 * n, "path": [1, n], "odd": [1, "x", None][n]},
    }
    for n in range(3)
]


def test_results_are_columns_with_the_keys_of_mappings() -> None:
    columns = Results([*ROWS, {**ROWS[0], "result": 7.5}]).as_columns()
    assert columns["entry"] == ["m0", "m1", "m2", "m0"]
    assert columns["status"] == ["complete"] * 4
    assert columns["result.energy"] == [0.0, -1.5, -3.0, None]
    assert columns["result"] == [None, None, None, 7.5]
    assert list(Results().as_columns()) == ["entry", "specification", "record_id", "status"]
    assert repr(Results()) == "no results"
    assert "result.energy" in repr(Results(ROWS))
    assert "3 results" in Results(ROWS)._repr_html_()  # pyright: ignore[reportPrivateUsage]


def test_results_become_a_pandas_frame() -> None:
    pytest.importorskip("pandas")
    frame = Results(ROWS).to_pandas()
    assert list(frame["result.energy"]) == [0.0, -1.5, -3.0]
    assert str(frame["result.energy"].dtype) == "float64"
    assert list(frame["result.odd"])[:2] == [1, "x"]
    assert list(Results().to_pandas().columns) == ["entry", "specification", "record_id", "status"]


def test_results_become_a_polars_frame() -> None:
    polars = pytest.importorskip("polars")
    frame = Results(ROWS).to_polars()
    assert frame["result.energy"].to_list() == [0.0, -1.5, -3.0]
    assert frame["result.path"].dtype == polars.List(polars.Int64)
    assert frame["result.odd"].to_list() == ["1", '"x"', None]
    assert frame["status"].to_list() == ["complete"] * 3


def test_results_become_an_arrow_table() -> None:
    pytest.importorskip("pyarrow")
    table = Results(ROWS).to_arrow()
    assert table.column("result.energy").to_pylist() == [0.0, -1.5, -3.0]
    assert str(table.schema.field("result.path").type) == "list<item: int64>"
    assert table.column("result.odd").to_pylist() == ["1", '"x"', None]
    large = Results([{**ROWS[0], "result": 2**70}]).to_arrow()
    assert large.column("result").to_pylist() == [str(2**70)]


@pytest.mark.parametrize("method", ["to_pandas", "to_polars", "to_arrow"])
def test_a_library_that_is_not_there_is_named_with_what_brings_it(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ClientError, match=r"recordledger\[tables\]"):
        getattr(Results(ROWS), method)()
