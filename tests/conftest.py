"""Fixtures for tests that need PostgreSQL: a real one, started at the first use."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.postgres import new_database, new_template, running_server


def pytest_collection_finish() -> None:
    """Look no more for garbage among thousands of tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """The URL of a server on which databases may be created."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server_url: str) -> Iterator[str]:
    """The name of a database with the ledger's schema and no rows, to copy from."""
    # Imported late, so that tests that need no schema do not need this module either.
    from recordledger.projections.tables.schema import migrate

    with new_template(postgres_server_url, migrate) as name:
        yield name


@pytest.fixture
def database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a database of this test's own, with the ledger's schema and no rows."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of a database of this test's own, without the ledger's schema."""
    with new_database(postgres_server_url) as url:
        yield url
