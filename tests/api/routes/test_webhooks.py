"""Webhooks over HTTP and with both clients: added, changed, tested, removed, refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from recordledger import AsyncClient, Client
from recordledger.api.client import InvalidArgument, NotFound, Refused
from recordledger.domain.admin.access import Role
from recordledger.projections.actions import webhooks
from tests.postgres import new_database
from tests.webhook_receiver import Receiver, verify

from ..service import Service, Visit, is_problem, serving, task

N_MAX = 3


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A server that lets webhooks be on this machine, and a few of them only."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, webhooks_max=N_MAX, webhook_allow_private="127.0.0.0/8") as made,
    ):
        yield made


@pytest.fixture
def ann(service: Service) -> Iterator[Visit]:
    """An administrator, who leaves no webhook behind."""
    visit = service.visit(Role.admin)
    yield visit
    for each in webhooks.seen(service.ledger):
        webhooks.remove(service.ledger, each.webhook.id, actor="user:ann")


@pytest.fixture
def client(service: Service, ann: Visit) -> Iterator[Client]:
    with Client(service.url, ann.secret) as made:
        yield made


def added(visit: Visit, url: str = "http://127.0.0.1:9/", **more: Any) -> dict[str, Any]:
    answer = visit.post("/v1/webhooks", {"url": url, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_webhook_is_added_shown_changed_and_removed(ann: Visit) -> None:
    (record_id,) = ann.create(task())
    head = ann.get("/v1/events").json()["head"]
    new = added(ann, kinds=["held", "errored"], tags=["GPU"], actors=["user:ann"], reason="for us")
    secret, webhook = new["secret"], new["webhook"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert webhook == webhook | {
        "url": "http://127.0.0.1:9/",
        "enabled": True,
        "kinds": ["errored", "held"],
        "tags": ["gpu"],
        "actors": ["user:ann"],
        "dataset_id": None,
        "owner": "user:ann",
        "position": head,
        "n_failures": 0,
        "next_try_at": None,
    }
    path = f"/v1/webhooks/{webhook['id']}"
    assert ann.get("/v1/webhooks").json() == {"webhooks": [webhook]}
    changed = ann.http.patch(
        path, json={"kinds": [], "dataset_id": 7, "enabled": False, "reason": "a pause"}
    ).json()
    assert (changed["kinds"], changed["tags"], changed["dataset_id"]) == ([], ["gpu"], 7)
    assert (changed["enabled"], changed["why"]) == (False, "a pause")
    assert [(each["kind"], each["reason"]) for each in changed["events"]] == [
        ("webhook_added", "for us"),
        ("webhook_changed", "a pause"),
        ("webhook_disabled", "a pause"),
    ]
    again = ann.http.patch(path, json={"dataset_id": None, "enabled": True}).json()
    assert (again["dataset_id"], again["enabled"], again["why"]) == (None, True, None)
    assert ann.get(path).json() == again
    assert ann.http.patch(path, json={}).json() == again, "what says nothing changes nothing"
    for text in (ann.get("/v1/webhooks").text, ann.get(path).text, ann.get("/v1/events").text):
        assert secret not in text
        assert secret.removeprefix("whsec_") not in text
    assert "webhook" not in ann.get("/v1/events", params={"after": head}).text
    removed = ann.http.delete(path, params={"reason": "enough"})
    assert removed.json() == {"id": webhook["id"]}
    for answer in (ann.get(path), ann.http.patch(path, json={}), ann.http.delete(path)):
        is_problem(answer, 404, "webhook_not_found")
    assert record_id


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_input"),
        ({"url": 1}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1/", "secret": "mine"}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1/", "kinds": ["wrong"]}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1/", "kinds": ["token_issued"]}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1/", "after": 2**62}, 422, "beyond_head"),
        ({"url": "http://127.0.0.1/", "tags": ["a\u0000"]}, 422, "invalid_input"),
        ({"url": "https://10.0.0.1/"}, 422, "address_refused"),
        ({"url": "https://169.254.169.254/"}, 422, "address_refused"),
        ({"url": "https://[::1]/"}, 422, "address_refused"),
        ({"url": "ftp://127.0.0.1/"}, 422, "address_refused"),
        ({"url": "https://nowhere.invalid/"}, 422, "address_refused"),
        ({"url": "https://x.org/" + "x" * 2_000}, 422, "invalid_input"),
        ({"url": "https://\ud800.org/"}, 422, "invalid_input"),
    ],
)
def test_what_is_no_webhook_is_refused(
    ann: Visit, body: dict[str, Any], status: int, code: str
) -> None:
    is_problem(ann.post("/v1/webhooks", body), status, code)
    assert ann.get("/v1/webhooks").json() == {"webhooks": []}


def test_an_address_is_judged_when_it_is_changed_too(ann: Visit) -> None:
    path = f"/v1/webhooks/{added(ann)['webhook']['id']}"
    is_problem(ann.http.patch(path, json={"url": "https://10.0.0.1/"}), 422, "address_refused")
    assert ann.get(path).json()["url"] == "http://127.0.0.1:9/"


def test_there_are_only_so_many(ann: Visit) -> None:
    for _ in range(N_MAX):
        added(ann)
    is_problem(ann.post("/v1/webhooks", {"url": "http://127.0.0.1:9/"}), 409, "too_many_webhooks")


def test_a_test_says_what_came_of_it_and_changes_nothing(ann: Visit) -> None:
    with Receiver(lambda n: [200, 503][n]) as receiver:
        new = added(ann, receiver.url)
        path = f"/v1/webhooks/{new['webhook']['id']}"
        before = ann.get(path).json()
        good = ann.post(f"{path}/test").json()
        assert (good["has_arrived"], good["status_code"], good["error"]) == (True, 200, None)
        bad = ann.post(f"{path}/test").json()
        assert (bad["has_arrived"], bad["status_code"], bad["error"]) == (
            False,
            503,
            "answered 503",
        )
        first = receiver.received[0]
        assert verify(new["secret"], first.headers, first.body) == good["message_id"]
        assert first.message["type"] == "ledger.test"
        assert ann.get(path).json() == before
        assert ann.get(f"{path}/deliveries").json()["attempts"] == []


def test_both_clients_manage_webhooks(client: Client, service: Service) -> None:
    name = f"water {uuid4().hex}"
    dataset = client.add_dataset(name)
    with Receiver() as receiver:
        new = client.add_webhook(receiver.url, kind="held", dataset=name, after=0)
        assert "whsec_" not in repr(new)
        webhook_id = new.webhook.id
        assert (new.webhook.dataset_id, new.webhook.kinds) == (dataset.id, ["held"])
        assert client.test_webhook(webhook_id).has_arrived
    changed = client.modify_webhook(webhook_id, tag=["a", "b"], kind=[], dataset=0, reason="more")
    assert (changed.tags, changed.kinds, changed.dataset_id) == (["a", "b"], [], None)
    assert not client.modify_webhook(webhook_id, enabled=False).enabled
    assert [each.id for each in client.webhooks()] == [webhook_id]
    assert client.webhook_deliveries(webhook_id) == []
    with pytest.raises(InvalidArgument):
        client.modify_webhook(webhook_id)
    with pytest.raises(Refused):
        client.add_webhook("https://10.0.0.1/")

    async def remove() -> Any:
        async with AsyncClient(service.url, client.session.token) as other:
            assert (await other.webhook(webhook_id)).events[-1].kind == "webhook_disabled"
            return await other.remove_webhook(webhook_id, reason="enough")

    assert asyncio.run(remove()).id == webhook_id
    with pytest.raises(NotFound):
        client.webhook(webhook_id)
