"""Managing records with both clients, as users type it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event, Thread
from uuid import uuid4

import pytest

from recordledger import Client
from recordledger.api.client import InvalidArgument, NotFound, Refused, UpdateMetadata
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.admin.access import Role
from recordledger.domain.records.status import Status
from recordledger.projections.actions import bulk
from recordledger.workers.jobs.schedule import advance_bulk_operations
from tests.postgres import new_database

from ..service import Service, serving
from .both import Connect
from .both import connect as connect  # a fixture, for pytest to find

UNKNOWN = 9_000_000_000


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4) as made,
    ):
        yield made


@pytest.fixture
def client(connect: Connect, service: Service) -> Client:
    return connect(service.url, service.visit(Role.admin, "ann").secret, progress=False)


def added(client: Client, n: int = 1, tag: str = "default") -> list[int]:
    kwargs = [{"nonce": uuid4().hex} for _ in range(n)]
    ids = client.add_records("package.module:function", kwargs, tag=tag).ids
    return [id_ for id_ in ids if id_ is not None]


def own_tag() -> str:
    return f"own{uuid4().hex[:12]}"


def in_error(client: Client, n: int = 1) -> tuple[str, list[int]]:
    """Return a tag, and records of it that are in error."""
    tag = own_tag()
    ids = added(client, n, tag)
    manager_id = client.register_manager("m", [tag]).manager_id
    results = [
        ResultIn(record_id=task.record_id, attempt=task.attempt, error_type="OSError")
        for task in client.claim(manager_id, n).tasks
    ]
    client.return_results(manager_id, results)
    return tag, ids


def test_what_a_call_returns_reads_as_in_the_book(client: Client) -> None:
    _, [record_id] = in_error(client)
    metadata = client.reset_records(record_id)
    assert repr(metadata) == (
        "UpdateMetadata(updated_idx=[0], errors=[], n_children_updated=0, "
        f"operation_id={metadata.operation_id!r})"
    )
    assert client.get_records(record_id).status is Status.waiting
    refused = client.reset_records([record_id, UNKNOWN], dry_run=True)
    assert "(1, 'not_found', 'there is no record 9000000000')" in repr(refused)
    assert "dry_run=True" in repr(refused)
    assert "not_found" in refused._repr_html_()  # pyright: ignore[reportPrivateUsage]


def test_every_operation_is_a_method(client: Client) -> None:
    [record_id] = added(client)
    tag = own_tag()
    path: list[tuple[UpdateMetadata, str]] = []

    def noted(metadata: UpdateMetadata) -> None:
        assert (metadata.updated_idx, metadata.errors) == ([0], []), metadata
        path.append((metadata, str(client.get_records(record_id).status)))

    noted(client.hold_records(record_id))
    noted(client.release_records([record_id]))
    noted(client.modify_records(record_id, new_tag=tag, new_priority="low"))
    noted(client.cancel_records(record_id, reason="wrong basis set"))
    noted(client.uncancel_records(record_id))
    noted(client.delete_records(record_id, soft_delete=True))
    noted(client.undelete_records(record_id))
    noted(client.add_comment(record_id, "Invalid due to convergence to wrong minimum"))
    manager_id = client.register_manager("m", [tag]).manager_id
    for error_type in ("OSError", None):
        [task] = client.claim(manager_id, 1).tasks
        result = ResultIn(record_id=record_id, attempt=task.attempt, error_type=error_type)
        client.return_results(manager_id, [result])
        if error_type is not None:
            noted(client.fail_records(record_id))
            noted(client.revive_records(record_id))
    noted(client.invalidate_records(record_id))
    noted(client.uninvalidate_records(record_id))
    resubmitted = client.resubmit_records(record_id)
    noted(resubmitted)
    assert [status for _, status in path] == [
        "held", "waiting", "waiting", "cancelled", "waiting", "deleted", "waiting", "waiting",
        "failed", "waiting", "invalid", "complete", "complete",
    ]  # fmt: skip
    [new_id] = resubmitted.new_ids
    assert client.get_records(new_id or 0).status is Status.waiting
    [comment] = client.comments(record_id)
    assert (comment.author, comment.text[:7]) == ("user:ann", "Invalid")
    assert client.delete_records(record_id, soft_delete=False).updated_idx == [0]
    with pytest.raises(NotFound):
        client.get_records(record_id)


def test_a_late_result_is_adopted(client: Client) -> None:
    tag = own_tag()
    [record_id] = added(client, tag=tag)
    manager_id = client.register_manager("m", [tag]).manager_id
    client.claim(manager_id, 1)
    client.cancel_records(record_id)
    client.return_results(manager_id, [ResultIn(record_id=record_id, attempt=1, result=7)])
    client.uncancel_records(record_id)
    assert client.adopt_results(record_id, attempt=1).updated_idx == [0]
    assert client.get_records(record_id, "result").result == 7


def test_records_are_named_by_conditions_too(client: Client) -> None:
    tag, ids = in_error(client, 3)
    tried = client.reset_records(status="error", tag=tag, dry_run=True)
    assert (tried.ids, tried.n_updated, tried.operation_id) == (ids, 3, None)
    metadata = client.reset_records(query={"status": ["error"], "tag": tag})
    assert (metadata.ids, metadata.updated_idx) == (ids, [0, 1, 2])
    assert client.modify_records(tag=tag, new_priority="high").n_updated == 3
    assert client.cancel_records(tag=own_tag()).ids == []


def test_everything_must_be_said(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="select records by"):
        client.cancel_records()
    with pytest.raises(InvalidArgument, match="not both"):
        client.cancel_records([1], tag="x")
    with pytest.raises(Refused, match="all=true"):
        client.cancel_records(query={})
    tried = client.hold_records(all=True, dry_run=True)
    assert tried.n_selected == client.counts().total


def test_wrong_arguments_are_refused_before_anything_is_sent(client: Client) -> None:
    for wrong in ([None], "12", [0], [True]):
        with pytest.raises(InvalidArgument):
            client.cancel_records(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="text"):
        client.add_comment([1], "x" * 10_000_000)
    with pytest.raises(InvalidArgument, match="status"):
        client.cancel_records(status="done")
    with pytest.raises(InvalidArgument, match="not an operation's id"):
        client.undo("yesterday")
    with pytest.raises(Refused, match="new_tag"):
        client.modify_records([1])


def test_an_empty_list_changes_nothing(client: Client) -> None:
    metadata = client.cancel_records([])
    assert (metadata.updated_idx, metadata.errors, metadata.operation_id) == ([], [], None)


def test_an_operation_is_found_and_undone(client: Client) -> None:
    first, second = added(client, 2)
    operation_id = client.cancel_records([first, second], reason="no").operation_id
    assert operation_id is not None
    client.uncancel_records(second)
    tried = client.undo(operation_id, dry_run=True)
    assert (tried.n_undone, tried.operation_id) == (1, None)
    undone = client.undo(operation_id)
    assert [conflict.record_id for conflict in undone.conflicts] == [second]
    assert "changed_since" in repr(undone)
    details = client.operation(operation_id)
    assert (details.reason, details.undone_by) == ("no", [undone.operation_id])
    newest = client.operations(limit=1)
    assert [each.id for each in newest] == [undone.operation_id]
    assert len(client.operations(actor="user:ann", action="cancel", limit=1)) == 1
    assert "undo" in repr(newest)


def test_families_and_errors_and_policies_are_read(client: Client, service: Service) -> None:
    children = added(client, 3)
    ann = service.visit()
    (parent,) = ann.create({"function": "a:b", "kwargs": {"nonce": uuid4().hex}, "kind": "service"})
    ann.post(f"/v1/services/{parent}/start")
    ann.post(f"/v1/services/{parent}/iterate", {"state": {}, "children": children})
    assert client.children(parent) == children
    assert client.parents(children[0]) == [parent]
    assert client.cancel_records(parent).n_children_updated == 3
    in_error(client, 2)
    groups = client.error_groups()
    assert groups[0].error_type == "OSError"
    assert "OSError" in repr(groups)
    assert client.policies().auto_reset == {}


def test_a_job_is_waited_for_and_answers_in_the_callers_order(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE_MAX", 4)
    monkeypatch.setattr(bulk, "SLICE", 2)
    ids = added(client, 6)
    begun = client.hold_records(ids, wait=False)
    assert (begun.is_done, begun.updated_idx) == (False, [])
    assert begun.job_id is not None
    stop = Event()

    def work() -> None:
        while not stop.wait(0.02):
            advance_bulk_operations(stop)(service.ledger)

    worker = Thread(target=work)
    worker.start()
    try:
        assert client.wait_for_job(begun.job_id).n_updated == 6
        wanted = [ids[0], ids[0], UNKNOWN, *ids[1:], ids[2]]
        metadata = client.release_records(wanted)
        assert metadata.is_done
        assert metadata.updated_idx == [0, 3, 4, 5, 6, 7]
        assert [(error.idx, error.code) for error in metadata.errors] == [(2, "not_found")]
        assert client.jobs(limit=1)[0].id == metadata.job_id
        assert client.job(metadata.job_id or 0).is_ended
        undone = client.undo(metadata.operation_id or "")
        assert (undone.n_undone, undone.conflicts) == (6, [])
    finally:
        stop.set()
        worker.join()
    begun = client.cancel_records(ids, wait=False)
    assert client.cancel_job(begun.job_id or 0).state == "cancelling"
    assert json.loads(client.jobs()[0].model_dump_json())["action"] == "cancel"
