"""Why, the queue and the history of managers with both clients, as users type it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from recordledger import Client
from recordledger.api.client import NotFound
from recordledger.domain.admin.access import Role
from tests.postgres import new_database

from ..service import Service, serving
from .both import Connect
from .both import connect as connect  # a fixture, for pytest to find
from .test_values import html_of

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


def added(client: Client, tag: str, n: int = 1) -> list[int]:
    kwargs = [{"nonce": uuid4().hex} for _ in range(n)]
    ids = client.add_records("m:f", kwargs, tag=tag, required_programs=["psi4>=1.9"]).ids
    return [id_ for id_ in ids if id_ is not None]


def test_why_shows_itself_in_words(client: Client) -> None:
    tag = f"own{uuid4().hex[:12]}"
    (record_id,) = added(client, tag)
    old = client.register_manager("old", [tag], {"psi4": "1.8"}).manager_id
    m7 = client.register_manager("m7", ["cpu"], {"psi4": "1.9.1"}).manager_id
    found = client.why(record_id)
    sentence = f"No manager on tag {tag} offers psi4>=1.9; manager {m7} (m7) on tag cpu does."
    assert str(found) == sentence
    assert repr(found).splitlines() == [
        f"Record {record_id}: waiting (programs_missing)",
        sentence,
        f"To change that:  recordledger modify {record_id} --new-tag cpu",
        f"  manager {m7} (m7): active, tags cpu",
        f"  manager {old} (old): active, tags {tag}, lacks psi4>=1.9",
    ]
    assert "programs_missing" in html_of(found)
    for manager_id in (old, m7):
        client.deactivate_manager(manager_id)
    with pytest.raises(NotFound):
        client.why(UNKNOWN)


def test_why_tells_of_an_erased_record(client: Client) -> None:
    (record_id,) = added(client, "erased")
    client.delete_records(record_id, soft_delete=False, reason="private")
    found = client.why(record_id)
    assert (found.status, found.code, found.actor) == (None, "erased", "user:ann")
    assert repr(found).startswith(f"Record {record_id}: erased (erased)\n")


def test_the_queue_shows_itself_as_a_table(client: Client) -> None:
    tag = f"own{uuid4().hex[:12]}"
    ids = added(client, tag, 3)
    found = client.queue(tag)
    (lane,) = found
    assert (lane.n_waiting, lane.oldest_id, lane.blocked) == (3, ids[0], "no_manager")
    assert lane.oldest["normal"].record_id == ids[0]
    assert repr(found).splitlines()[0] == (
        "3 records wait in 1 lanes, 1 of them blocked; 0 managers are alive"
    )
    assert found.totals.n_waiting == 3
    assert len(client.queue([tag, "other"], limit=5_000)) == 1
    assert repr(client.queue("nothing-here")) == "no lanes"


def test_a_manager_has_a_history(client: Client) -> None:
    manager_id = client.register_manager("m", ["gpu"]).manager_id
    client.drain_manager(manager_id, "maintenance")
    history = client.manager_history(manager_id)
    assert [event.kind for event in history] == ["manager_registered", "manager_draining"]
    assert repr(history).startswith(f"Manager {manager_id}\n")
    assert "(maintenance)" in repr(history)
    draining = client.managers("draining")
    assert [each.id for each in draining] == [manager_id]
    assert draining[0].lease_expires_at is not None
    assert manager_id in [each.id for each in client.managers(["active", "draining"])]
    assert manager_id not in [each.id for each in client.managers("active")]
    client.deactivate_manager(manager_id)
    assert manager_id in [each.id for each in client.managers()]
