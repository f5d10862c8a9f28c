"""Fixtures of this folder: a stage with an empty ledger for each test, and a server to be hurt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recordledger.projections.store.embedded import EmbeddedPostgres
from tests.postgres import new_database, temporary_home

from .stage import Stage, empty, staged


@pytest.fixture(scope="session")
def reused_database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a ledger that one test after the other has for itself."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def stage(reused_database_url: str) -> Iterator[Stage]:
    """A stage with an empty ledger."""
    empty(reused_database_url)
    with staged(reused_database_url) as made:
        made.n_deadlocks_before = made.n_deadlocks()
        yield made


@pytest.fixture(scope="session")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop and start, and whose superuser is known."""
    with (
        temporary_home() as home,
        EmbeddedPostgres(home, settings={"fsync": "off"}, create_databases=True) as postgres,
    ):
        yield postgres
