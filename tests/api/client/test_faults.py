"""Both clients where something fails, where many call at once, and what they show meanwhile."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import (
    Forbidden,
    InsertMetadata,
    InvalidArgument,
    NotConnected,
    ServerFault,
    Unauthorized,
)
from recordledger.api.schemas.returns import ResultIn
from tests.acceptance.proxy import Fault
from tests.acceptance.proxy import Proxy as TcpProxy

from ..service import eventually
from .both import (
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

# Access


def test_tokens_are_issued_and_revoked_and_do_what_their_role_allows(
    client: Client, connect: Connect, server: Running
) -> None:
    new = client.issue_token("bob", "reader", datetime.now(UTC) + timedelta(days=1))
    assert new.secret not in repr(new)
    reader = connect(server.url, new.secret)
    assert reader.counts().total >= 0
    with pytest.raises(Forbidden, match="needs the permission") as caught:
        reader.add_records(FUNCTION, fresh(1))
    assert (caught.value.code, caught.value.status) == ("forbidden", 403)
    assert new.token.id in [token.id for token in client.tokens()]
    assert client.revoke_token(new.token.id).revoked_at is not None
    with pytest.raises(Unauthorized, match="RECORDLEDGER_TOKEN"):
        reader.counts()
    with pytest.raises(InvalidArgument, match="role"):
        client.issue_token("bob", "emperor")


def test_without_a_token_one_is_told_how_to_give_one(connect: Connect, server: Running) -> None:
    with pytest.raises(Unauthorized, match=r"Client\(url, token\)") as caught:
        connect(server.url, None).counts()
    assert caught.value.status == 401


# Faults


@pytest.fixture
def patient(connect: Connect, proxy: Proxy) -> Client:
    """A client behind the proxy, which has the limits already."""
    client = connect(proxy.url, proxy.token, timeout_s=5, retries_s=20)
    client.server()
    return client


HARM = ("lost on the way", "answer lost", "answer cut", "busy", "bad gateway")


@pytest.mark.parametrize("harm", HARM)
def test_adding_goes_on_after_harm_and_happens_once(
    patient: Client, proxy: Proxy, harm: str
) -> None:
    before = patient.counts().total
    proxy.plan("/v1/records", harm, harm)
    metadata = patient.add_records(FUNCTION, fresh(50), find_existing=False)
    assert proxy.fired == [harm, harm]
    first, again, once_more, next_part = proxy.to("/v1/records")
    assert first.key == again.key == once_more.key != next_part.key
    assert first.body == again.body == once_more.body
    assert patient.counts().total - before == 50
    assert len(set(metadata.ids)) == 50
    assert metadata.inserted_idx == list(range(50))


@pytest.mark.parametrize("harm", ["answer lost", "answer cut"])
def test_tasks_whose_answer_was_lost_are_not(
    patient: Client, proxy: Proxy, harm: str, own: str
) -> None:
    ids = added_ids(patient.add_records(FUNCTION, fresh(4), tag=own))
    proxy.plan("/claim", harm)
    manager_id, answer = claimed(patient, own)
    proxy.plan("/results", harm)
    returned = patient.return_results(
        manager_id, [ResultIn(record_id=task.record_id, attempt=1) for task in answer.tasks]
    )
    assert proxy.fired == [harm, harm]
    assert [(task.record_id, task.attempt) for task in answer.tasks] == [(id_, 1) for id_ in ids]
    assert (returned.accepted_idx, returned.duplicate_idx) == ([0, 1, 2, 3], [])


def test_reading_goes_on_after_harm(patient: Client, proxy: Proxy) -> None:
    for harm in HARM:
        proxy.plan("/v1/records/counts", harm)
    assert patient.counts().total >= 0
    assert proxy.fired == list(HARM)


def test_an_answer_that_takes_too_long_is_asked_for_again(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, timeout_s=0.3, retries_s=20)
    client.server()
    proxy.plan("/v1/records", "answer late")
    metadata = client.add_records(FUNCTION, fresh(1), find_existing=False)
    assert proxy.fired == ["answer late"]
    assert metadata.inserted_idx == [0]


def test_what_was_done_before_a_failure_is_told(connect: Connect, proxy: Proxy) -> None:
    client = connect(proxy.url, proxy.token, retries_s=0)
    client.server()
    real = fresh(RECORDS_PER_REQUEST)
    proxy.plan("/v1/records", "none", "lost on the way")
    with pytest.raises(NotConnected) as caught:
        client.add_records(FUNCTION, [*real, *fresh(10)])
    assert proxy.fired == ["none", "lost on the way"]
    partial = caught.value.partial
    assert isinstance(partial, InsertMetadata)
    assert len(partial.ids) == RECORDS_PER_REQUEST
    assert "The first 40 were already done" in caught.value.__notes__[0]
    assert client.add_records(FUNCTION, real).ids == partial.ids


def test_a_token_is_not_asked_for_twice(patient: Client, proxy: Proxy) -> None:
    n_before = len(patient.tokens())
    proxy.plan("/v1/tokens", "answer lost")
    with pytest.raises(NotConnected):
        patient.issue_token("eve")
    assert proxy.fired == ["answer lost"]
    assert len(patient.tokens()) - n_before == 1


def test_a_server_that_is_busy_for_longer_than_one_waits_is_not_waited_for(
    patient: Client, proxy: Proxy
) -> None:
    proxy.plan("/v1/records/counts", "busy for long")
    with pytest.raises(ServerFault, match="answered 503") as caught:
        patient.counts()
    assert caught.value.status == 503
    assert len(proxy.to("/v1/records/counts")) == 1


def test_strangers_are_recognised(patient: Client, proxy: Proxy) -> None:
    proxy.plan("/v1/records/counts", "login page")
    with pytest.raises(ServerFault, match="cannot read"):
        patient.counts()
    proxy.plan("/v1/records/counts", "moved")
    with pytest.raises(NotConnected, match=r"https://elsewhere\.example"):
        patient.counts()
    assert proxy.fired == ["login page", "moved"]


def test_where_nobody_answers_one_is_told_what_to_do(connect: Connect) -> None:
    client = connect("http://127.0.0.1:9", "rl_x", retries_s=0.3)
    with pytest.raises(NotConnected, match="`recordledger up` starts one") as caught:
        client.counts()
    assert caught.value.url == "http://127.0.0.1:9"
    assert (caught.value.code, caught.value.status) == ("not_connected", None)


def test_no_request_goes_to_a_proxy_of_the_environment_for_this_machine(
    connect: Connect, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert connect(server.url, server.token, retries_s=0).counts().total >= 0


def test_a_closed_client_says_so(connect: Connect, server: Running) -> None:
    client = connect(server.url, server.token)
    client.close()
    with pytest.raises(NotConnected, match="is closed"):
        client.counts()


def test_closing_leaves_a_call_its_answer_and_no_connection_open(server: Running) -> None:
    port = int(server.url.rpartition(":")[2])
    with TcpProxy(port) as proxy, ThreadPoolExecutor(1) as pool:
        client = Client(proxy.url, server.token, retries_s=0, progress=False)
        with proxy.failing(Fault.delay, "/counts") as failing:
            call = pool.submit(client.counts)
            failing.wait_until_fired()
            client.close()
            assert call.result(timeout=20).total >= 0
        # The proxy serves a connection until it is closed.
        eventually(lambda: not proxy.n_open)


def test_closing_ends_a_call_that_waits_to_try_again(proxy: Proxy) -> None:
    client = Client(proxy.url, proxy.token, retries_s=600)
    proxy.plan("/v1/records/counts", *["bad gateway"] * 20)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.counts)
        while len(proxy.passed) < 5:
            proxy.goes_on.wait(0.01)
        client.close()
        with pytest.raises(NotConnected, match="is closed"):
            call.result(timeout=5)


# Many at once


def test_threads_share_a_client(server: Running) -> None:
    with Client(server.url, server.token) as client, ThreadPoolExecutor(8) as pool:
        parts = [fresh(60) for _ in range(16)]
        calls = [pool.submit(client.add_records, FUNCTION, part) for part in parts]
        answers = [call.result() for call in calls]
        for part, answer in zip(parts, answers, strict=True):
            found = client.get_records(added_ids(answer), "kwargs")
            assert [record.kwargs for record in found] == part


def test_tasks_share_a_client(server: Running) -> None:
    async def main() -> int:
        async with AsyncClient(server.url, server.token) as client:
            parts = [fresh(60) for _ in range(16)]
            answers = await asyncio.gather(*(client.add_records(FUNCTION, each) for each in parts))
            return len({id_ for answer in answers for id_ in answer.ids})

    assert asyncio.run(main()) == 16 * 60


# Progress


def test_a_bar_is_shown_where_it_is_wanted(
    connect: Connect, server: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(server.url, server.token, progress=True).add_records(FUNCTION, fresh(90))
    assert "adding records" in capfd.readouterr().err
    for progress in (None, False):
        connect(server.url, server.token, progress=progress).add_records(FUNCTION, fresh(90))
    assert capfd.readouterr().err == ""


def test_both_clients_have_the_same_calls_with_their_docstrings() -> None:
    def calls(kind: type[Any]) -> dict[str, tuple[list[str], str | None]]:
        return {
            name: (list(inspect.signature(member).parameters), inspect.getdoc(member))
            for name in vars(kind)
            if inspect.isfunction(member := getattr(kind, name)) and not name.startswith("_")
        }

    blocking, awaited = calls(Client), calls(AsyncClient)
    assert set(blocking) == set(awaited)
    for name in set(blocking) - {"close"}:
        assert blocking[name] == awaited[name]
    for name, (parameters, docstring) in blocking.items():
        assert parameters[0] == "self", name
        assert docstring, name
        assert "session" not in docstring, name
