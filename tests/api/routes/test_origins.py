"""Where imported records came from, over HTTP and with both clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from recordledger import Client
from recordledger.api.client import InvalidArgument, Refused
from recordledger.domain.admin.access import Role
from recordledger.projections.archives.export import export_archive
from recordledger.projections.archives.import_ import import_archive
from recordledger.projections.reading.queries import ledger_id
from tests.postgres import new_database
from tests.projections.stage import Stage, staged

from ..client.both import Connect
from ..client.both import connect as connect  # a fixture, for pytest to find
from ..client.test_values import html_of
from ..service import Service, serving


class Arrival(NamedTuple):
    """A ledger that serves. Records of a first one came to it by way of a second one."""

    service: Service
    first: str
    second: str


def carry(here: Stage, there: Stage, folder: Path) -> None:
    path = folder / f"{len(list(folder.iterdir()))}.zip"
    export_archive(here.ledger, path)
    import_archive(there.ledger, path, actor="user:root")


@pytest.fixture(scope="module")
def arrival(
    postgres_server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arrival]:
    folder = tmp_path_factory.mktemp("archives")
    with (
        new_database(postgres_server_url, template=migrated_template) as first_url,
        new_database(postgres_server_url, template=migrated_template) as second_url,
        new_database(postgres_server_url, template=migrated_template) as url,
    ):
        with staged(first_url) as first, staged(second_url) as second, staged(url) as here:
            # All three were made by copying, and would take themselves for the same ledger.
            for stage in (second, here):
                stage.do("UPDATE ledger_identity SET ledger_id = gen_random_uuid()")
            first.submit(3)
            second.submit(1)
            carry(first, second, folder)
            carry(second, here, folder)
            ids = [str(ledger_id(each.ledger)) for each in (first, second)]
        with serving(url, pool_size=4) as service:
            yield Arrival(service, *ids)


@pytest.fixture
def client(connect: Connect, arrival: Arrival) -> Client:
    return connect(arrival.service.url, arrival.service.visit(Role.reader, "ann").secret)


def test_all_origins_come_in_the_order_of_ids_here(client: Client, arrival: Arrival) -> None:
    found = client.origins()
    assert [(each.id, each.ledger_id, each.origin_id) for each in found] == [
        (1, arrival.second, 1),
        (2, arrival.first, 1),
        (2, arrival.second, 2),
        (3, arrival.first, 2),
        (3, arrival.second, 3),
        (4, arrival.first, 3),
        (4, arrival.second, 4),
    ]
    assert {each.kind for each in found} == {"record"}
    assert {each.imported_by for each in found if each.ledger_id == arrival.second} == {"user:root"}
    assert "origin_id" in html_of(found)
    assert client.origins(limit=3) == found[:3]
    assert list(client.origins("dataset")) == []


def test_what_something_was_called_there_can_be_asked_and_the_reverse(
    client: Client, arrival: Arrival
) -> None:
    assert [each.origin_id for each in client.origins(imported_id=3)] == [2, 3]
    (found,) = client.origins(ledger_id=UUID(arrival.first), origin_id=3)
    assert found.id == 4
    assert list(client.origins(ledger_id=str(UUID(int=0)))) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_no_page_ends_without_the_next_one_going_on(arrival: Arrival, limit: int) -> None:
    ann = arrival.service.visit(Role.reader, "ann")
    whole = ann.get("/v1/origins").json()
    assert whole["next_cursor"] is None
    found, query = [], f"/v1/origins?limit={limit}"
    page = ann.get(query).json()
    while True:
        found += page["origins"]
        if page["next_cursor"] is None:
            break
        assert len(page["origins"]) == limit
        page = ann.get(f"{query}&cursor={page['next_cursor']}").json()
    assert found == whole["origins"]


def test_what_is_no_id_and_what_is_never_imported_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="not a ledger's id"):
        client.origins(ledger_id="mine")
    with pytest.raises(InvalidArgument, match="imported_id"):
        client.origins(imported_id=0)
    with pytest.raises(Refused, match="kind"):
        client.origins("token")
