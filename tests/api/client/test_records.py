"""Both clients against a real server over a real socket: adding, reading, computing, waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import httpx2
import pytest

from recordledger import Client
from recordledger.api.client import (
    Counts,
    InvalidArgument,
    NotFound,
    Record,
    Records,
    RecordsNotFound,
    RecordSpec,
    Refused,
    WaitTimeout,
)
from recordledger.api.schemas.claims import AttemptRef
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.admin.access import Role
from recordledger.domain.records.status import Status

from .both import (
    BODY_BYTES,
    FUNCTION,
    RECORDS_PER_REQUEST,
    Connect,
    Proxy,
    Running,
    added_ids,
    claimed,
    fresh,
)
from .both import client as client  # fixtures, for pytest to find
from .both import connect as connect
from .both import own as own
from .both import proxy as proxy
from .both import server as server

# Adding


def test_one_function_with_many_arguments(client: Client) -> None:
    kwargs = fresh(2)
    metadata = client.add_records(FUNCTION, kwargs, tag="GPU", priority="high", retries=3)
    records = client.get_records(metadata.ids, "kwargs")
    assert metadata.inserted_idx == [0, 1]
    assert metadata.operation_ids == [metadata.operation_id]
    assert [record.kwargs for record in records] == kwargs
    assert {(record.tag, record.priority, record.retries) for record in records} == {
        ("gpu", "high", 3)
    }


def test_one_record_by_one_mapping(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)[0], reason="a look"))
    assert client.get_records(record_id).status is Status.waiting
    assert client.history(record_id)[0].reason == "a look"


def test_specifications_of_any_mixture(client: Client) -> None:
    [a, b] = fresh(2)
    metadata = client.add_records(
        [
            RecordSpec(function="a:f", kwargs=a, required_programs=["Psi4 >= 1.9"]),
            RecordSpec(function="b:f", kwargs=b, tag="cpu", priority="low"),
        ]
    )
    first, second = client.get_records(added_ids(metadata))
    assert (first.function, first.required_programs) == ("a:f", ["psi4>=1.9"])
    assert (second.function, second.tag, second.priority) == ("b:f", "cpu", "low")


def test_what_is_there_already_is_found_unless_it_shall_not_be(client: Client) -> None:
    kwargs = fresh(3)
    before = client.add_records(FUNCTION, kwargs[:2])
    after = client.add_records(FUNCTION, kwargs)
    assert after.ids[:2] == before.ids
    assert (after.existing_idx, after.inserted_idx) == ([0, 1], [2])
    assert client.add_records(FUNCTION, kwargs, find_existing=False).inserted_idx == [0, 1, 2]


def test_a_refused_entry_spoils_no_other_and_has_no_id(client: Client) -> None:
    [a, b] = fresh(2)
    metadata = client.add_records(
        [RecordSpec(function="no function!", kwargs=a), RecordSpec(function=FUNCTION, kwargs=b)]
    )
    [error] = metadata.errors
    assert (error.idx, error.code) == (0, "invalid_input")
    assert metadata.ids[0] is None
    assert metadata.ids[1] is not None
    with pytest.raises(InvalidArgument, match=r"ids\[0\] is None: that entry was refused"):
        client.wait(metadata.ids)


def test_a_long_list_is_cut_and_answered_as_one(client: Client) -> None:
    kwargs = fresh(100)
    existing = client.add_records(FUNCTION, [kwargs[3], kwargs[77]]).ids
    specs = [RecordSpec(function=FUNCTION, kwargs=each) for each in kwargs]
    for bad in (5, 45, 99):
        specs[bad] = RecordSpec(function="?", kwargs=kwargs[bad])
    metadata = client.add_records(specs)
    assert len(set(metadata.operation_ids)) == 3
    assert metadata.operation_id is None
    assert [error.idx for error in metadata.errors] == [5, 45, 99]
    assert [idx for idx, id_ in enumerate(metadata.ids) if id_ is None] == [5, 45, 99]
    assert metadata.existing_idx == [3, 77]
    assert [metadata.ids[3], metadata.ids[77]] == existing
    assert sorted([*metadata.inserted_idx, *metadata.existing_idx, 5, 45, 99]) == list(range(100))
    good = [(idx, id_) for idx, id_ in enumerate(metadata.ids) if id_ is not None]
    found = client.get_records([id_ for _, id_ in good], "kwargs")
    assert [record.kwargs for record in found] == [kwargs[idx] for idx, _ in good]


def test_a_body_that_would_be_too_large_is_cut(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, progress=False)
    kwargs = [{"text": str(number) * 100_000, **each} for number, each in enumerate(fresh(6))]
    metadata = client.add_records(FUNCTION, kwargs)
    assert len(added_ids(metadata)) == len(metadata.operation_ids) * 2 == 6
    sent = proxy.to("/v1/records")
    assert {request.headers.get("content-encoding") for request in sent} == {"zstd"}
    assert all(len(request.body) < BODY_BYTES / 10 for request in sent)
    # Six payloads of 100,000 bytes are more than one answer has room for.
    found = client.get_records(metadata.ids, "kwargs")
    assert [record.kwargs for record in found] == kwargs
    assert len(proxy.to("/v1/records/get")) > 2


def test_one_entry_that_is_too_large_alone_is_said_before_anything_is_sent(client: Client) -> None:
    before = client.counts().total
    kwargs: list[dict[str, Any]] = [*fresh(2), {"text": "x" * BODY_BYTES}]
    with pytest.raises(InvalidArgument, match=r"records\[2\] has 262,\d+ bytes") as caught:
        client.add_records(FUNCTION, kwargs)
    assert caught.value.idx == 2
    assert client.counts().total == before


# fmt: off
UNSENDABLE: list[tuple[Any, str]] = [
    (float("nan"),         r"records\[1\]: kwargs\.x\.y is nan: JSON has no such number"),
    (float("-inf"),        r"kwargs\.x\.y is -inf"),
    ("a\0b",               r"kwargs\.x\.y has a NUL character"),
    ("\ud800",             r"kwargs\.x\.y has a lone surrogate"),
    (b"bytes",             r"kwargs\.x\.y is a bytes.*base64"),
    ({1, 2},               r"kwargs\.x\.y is a set.*sorted"),
    ([0, {1: 2}],          r"kwargs\.x\.y\[1\] has the key 1"),
    (datetime.now(UTC),    r"kwargs\.x\.y is a datetime.*isoformat"),
    (2**64,                r"integer of more than 64 bits; use a string"),
    (object(),             r"kwargs\.x\.y is a object"),
]
# fmt: on


@pytest.mark.parametrize(("value", "complaint"), UNSENDABLE)
def test_what_cannot_be_sent_is_said_before_anything_is_sent(
    client: Client, value: Any, complaint: str
) -> None:
    before = client.counts().total
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        client.add_records(FUNCTION, [*fresh(1), {"x": {"y": value}}])
    assert (caught.value.idx, caught.value.code, caught.value.status) == (1, "invalid_input", None)
    assert client.counts().total == before


def test_numpy_is_said_how_to_convert(client: Client) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(InvalidArgument, match=r"kwargs\.a is a ndarray.*array\.tolist\(\)"):
        client.add_records(FUNCTION, {"a": numpy.zeros(3)})
    with pytest.raises(InvalidArgument, match=r"kwargs\.a is a int64.*\.item\(\)"):
        client.add_records(FUNCTION, {"a": numpy.int64(3)})
    [record_id] = added_ids(client.add_records(FUNCTION, {"a": numpy.float64(0.1), **fresh(1)[0]}))
    same_id: int = numpy.int64(record_id)
    assert client.get_records(same_id).id == record_id


@pytest.mark.parametrize(
    ("function", "kwargs", "options", "complaint"),
    [
        (len, None, {}, "pass its name, like 'package.module:function'"),
        (FUNCTION, [1], {}, r"records\[0\]\.kwargs is a int; pass a dict"),
        (FUNCTION, {}, {"required_programs": "psi4"}, "required_programs is a str"),
        (FUNCTION, {}, {"reason": "a\0"}, "reason"),
        ([{"function": FUNCTION}], None, {}, r"records\[0\] is a dict, not a RecordSpec"),
        ([RecordSpec(function=FUNCTION)], None, {"tag": "gpu"}, "put kwargs, tag and so on"),
    ],
)
def test_wrong_arguments_are_said(
    client: Client, function: Any, kwargs: Any, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        client.add_records(function, kwargs, **options)


# Reading


def test_records_come_in_the_order_of_the_ids(client: Client) -> None:
    a, b, c = added_ids(client.add_records(FUNCTION, fresh(3)))
    assert [record.id for record in client.get_records([c, a, c, b])] == [c, a, c, b]
    assert client.get_records([]) == []


def test_what_is_returned_has_its_type(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    assert_type(client.get_records(record_id), Record)
    assert_type(client.get_records(record_id, missing_ok=True), Record | None)
    assert_type(client.get_records([record_id]), Records[Record])
    assert_type(client.get_records([record_id], missing_ok=True), Records[Record | None])
    assert_type(client.counts(), Counts)
    assert_type(client.query_records(ids=[record_id]).all(), Records[Record])


def test_missing_records_are_none_or_an_error_with_all_their_ids(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    missing = [2**40, 2**40 + 1]
    found = client.get_records([missing[0], record_id, missing[1]], missing_ok=True)
    assert [record and record.id for record in found] == [None, record_id, None]
    assert client.get_records(missing[0], missing_ok=True) is None
    with pytest.raises(RecordsNotFound, match="there are no records 10995") as caught:
        client.get_records([missing[0], record_id, missing[1], missing[0]])
    assert caught.value.ids == tuple(missing)
    with pytest.raises(RecordsNotFound, match=f"there is no record {missing[0]}"):
        client.get_records(missing[0])


def test_more_ids_than_fit_into_one_request(client: Client) -> None:
    [record_id] = added_ids(client.add_records(FUNCTION, fresh(1)))
    ids = [*range(2**40, 2**40 + client.server().limits.ids_per_request), record_id]
    found = client.get_records(ids, missing_ok=True)
    assert len(found) == len(ids)
    assert [record.id for record in found if record] == [record_id]
    assert found[-1]


@pytest.mark.parametrize("wrong", [0, -1, 2**63, True, 1.5, "411", None])
def test_what_is_no_id_is_said(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.get_records(wrong)
    with pytest.raises(InvalidArgument, match=r"ids\[1\] is") as caught:
        client.get_records([1, wrong])
    assert caught.value.idx == 1


def test_integers_that_msgpack_cannot_carry_are_read_all_the_same(
    client: Client, server: Running
) -> None:
    [kwargs] = fresh(1)
    kwargs["large"] = 2**70
    answer = httpx2.post(
        f"{server.url}/v1/records",
        json={"records": [{"function": FUNCTION, "kwargs": kwargs}]},
        headers={"Authorization": f"Bearer {server.token}"},
    )
    record_id: int = answer.json()["ids"][0]
    record = client.get_records(record_id, "kwargs")
    assert record.kwargs == kwargs
    assert record.created_at.utcoffset() == timedelta(0)


def test_a_query_finds_what_meets_all_conditions_newest_first(client: Client, own: str) -> None:
    started_at = datetime.now(UTC) - timedelta(minutes=5)
    ids = added_ids(client.add_records(f"{own}:f", fresh(5), tag=own))
    client.add_records(f"{own}:g", fresh(2), tag=own)
    found = client.query_records(
        status="waiting",
        tag=[own.upper(), "other"],
        owner="user:alice",
        function=f"{own}:f",
        created_after=started_at,
        ids=[*ids, 2**40],
        include=["kwargs"],
    )
    assert [record.id for record in found] == sorted(ids, reverse=True)[: len(ids)]
    assert all(record.kwargs for record in found)
    assert [len(page) for page in found.pages()] == [5]
    assert client.query_records(tag=own, limit=3).all().counts == {Status.waiting: 3}
    assert client.query_records(tag=own, limit=0).all() == []
    assert client.query_records(tag="no such tag").all() == []


def test_a_query_goes_on_from_page_to_page(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(own, fresh(300)))
    found = client.query_records(function=own)
    assert [len(page) for page in found.pages()] == [250, 50]
    assert [record.id for record in found] == sorted(ids, reverse=True)
    assert len(client.query_records(function=own, limit=260).all()) == 260


@pytest.mark.parametrize(
    "conditions",
    [{"status": "done"}, {"created_after": datetime(2026, 1, 1)}, {"limit": -1}],  # noqa: DTZ001
)
def test_a_wrong_condition_is_said_by_the_call(client: Client, conditions: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.query_records(**conditions)


def test_counts_by_status(client: Client) -> None:
    before = client.counts()
    client.add_records(FUNCTION, fresh(3))
    after = client.counts()
    assert after[Status.waiting] - before["waiting"] == after.total - before.total == 3
    assert set(after) == set(Status)
    with pytest.raises(KeyError, match="'done' is not a status"):
        after["done"]


def test_the_server_says_who_one_is(client: Client) -> None:
    server = client.server()
    assert (server.user, server.role) == ("alice", Role.admin)
    assert server.limits.records_per_request == RECORDS_PER_REQUEST


# Computing


def test_the_whole_way_of_a_record(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(2), tag=own))
    manager_id, answer = claimed(client, own)
    assert [task.record_id for task in answer.tasks] == ids
    held = [AttemptRef(record_id=task.record_id, attempt=task.attempt) for task in answer.tasks]
    gone = AttemptRef(record_id=ids[0], attempt=7)
    assert client.heartbeat(manager_id, held).stale == []
    assert client.heartbeat(manager_id, [*held[1:], gone]).stale == [gone]
    metadata = client.return_results(
        manager_id,
        [
            ResultIn(record_id=ids[0], attempt=1, result={"y": [1.5, None]}, compute_s=0.25),
            ResultIn(
                record_id=ids[1],
                attempt=1,
                error_type="ValueError",
                error_message="no <b>convergence</b>",
                stdout="half a pair: \ud800, a NUL: \0",
            ),
        ],
    )
    assert (metadata.accepted_idx, metadata.errors) == ([0, 1], [])
    good, bad = client.wait(ids, include=["result", "stdout"], timeout_s=10)
    assert (good.status, good.result, good.compute_s) == (Status.complete, {"y": [1.5, None]}, 0.25)
    assert (bad.status, bad.error) == (Status.error, "ValueError: no <b>convergence</b>")
    assert bad.stdout is not None
    assert bad.stdout.startswith("half a pair: ")
    timeline = client.history(ids[1])
    assert [event.kind for event in timeline] == ["created", "claimed", "errored"]
    assert "attempt 1, ValueError: no <b>convergence</b>" in repr(timeline)


def test_results_are_returned_in_parts_and_answered_as_one(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(25), tag=own))
    manager_id, answer = claimed(client, own)
    results = [
        ResultIn(record_id=task.record_id, attempt=1, result=task.record_id)
        for task in answer.tasks
    ]
    results[3] = ResultIn(record_id=ids[3], attempt=9)
    results[17] = ResultIn(record_id=2**40, attempt=1)
    metadata = client.return_results(manager_id, results)
    assert len(metadata.operation_ids) == 3
    assert [(error.idx, error.code) for error in metadata.errors] == [
        (3, "not_your_attempt"),
        (17, "not_found"),
    ]
    assert sorted([*metadata.accepted_idx, 3, 17]) == list(range(25))
    again = client.return_results(manager_id, results[:2])
    assert (again.accepted_idx, again.duplicate_idx) == ([], [0, 1])


def test_a_result_may_be_nothing_and_a_bad_one_is_said_by_its_index(
    client: Client, own: str
) -> None:
    [a, b] = added_ids(client.add_records(FUNCTION, fresh(2), tag=own))
    manager_id, _ = claimed(client, own)
    results = [
        ResultIn(record_id=a, attempt=1),
        ResultIn(record_id=b, attempt=1, result={"energy": float("nan")}),
    ]
    with pytest.raises(InvalidArgument, match=r"results\[1\]\.result: energy is nan") as caught:
        client.return_results(manager_id, results)
    assert caught.value.idx == 1
    assert client.get_records(a).status is Status.running
    client.return_results(manager_id, results[:1])
    record = client.get_records(a, "result")
    assert (record.status, record.result) == (Status.complete, None)


def test_what_a_manager_gives_back_waits_again(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(3), tag=own))
    manager_id, _ = claimed(client, own)
    held = [AttemptRef(record_id=id_, attempt=1) for id_ in ids]
    assert client.relinquish(manager_id, held[:1], "too hot") == ids[:1]
    assert sorted(client.deactivate_manager(manager_id)) == ids[1:]
    assert client.get_records(ids).counts == {Status.waiting: 3}
    assert client.manager(manager_id).state == "inactive"
    assert manager_id in [manager.id for manager in client.managers()]
    with pytest.raises(Refused) as caught:
        client.claim(manager_id)
    assert (caught.value.code, caught.value.status) == ("manager_not_active", 409)


def test_there_is_no_such_manager_or_record(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no manager"):
        client.manager(2**40)
    with pytest.raises(NotFound, match="there is no record") as caught:
        client.history(2**40)
    assert caught.value.code == "not_found"


# Waiting


def test_waiting_ends_when_all_are_finished(client: Client, server: Running, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(12), tag=own))

    def compute() -> None:
        with Client(server.url, server.token) as worker:
            manager_id = worker.register_manager("m", [own]).manager_id
            while tasks := worker.claim(manager_id, 5).tasks:
                results = [ResultIn(record_id=task.record_id, attempt=1) for task in tasks]
                worker.return_results(manager_id, results)

    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(compute)
        records = client.wait([*ids, ids[0]], timeout_s=20)
        computed.result()
    assert [record.id for record in records] == [*ids, ids[0]]
    assert records.counts == {Status.complete: 13}
    assert client.wait(ids[0])[0].is_finished


def test_waiting_is_given_up_and_says_what_is_still_open(client: Client, own: str) -> None:
    ids = added_ids(client.add_records(FUNCTION, fresh(3), tag=own))
    manager_id, _ = claimed(client, own)
    client.return_results(manager_id, [ResultIn(record_id=ids[1], attempt=1)])
    with pytest.raises(WaitTimeout, match="2 of 3 records still wait or run") as caught:
        client.wait(ids, timeout_s=0.05)
    assert caught.value.open_ids == (ids[0], ids[2])
    assert caught.value.finished is not None
    assert [record.id for record in caught.value.finished] == [ids[1]]
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(RecordsNotFound):
        client.wait([ids[1], 2**40], timeout_s=0.05)
