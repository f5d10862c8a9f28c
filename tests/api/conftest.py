"""Fixtures of the API's tests: one server for each module, over a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recordledger.domain.admin.access import Role
from tests.postgres import new_database

from .service import Service, Visit, serving


@pytest.fixture(scope="module")
def service(postgres_server_url: str, migrated_template: str) -> Iterator[Service]:
    """A served ledger that the tests of a module share; small limits, so that tests can exceed."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(
            url,
            pool_size=4,
            records_per_request=500,
            results_per_request=100,
            body_bytes_max=4 * 1024 * 1024,
            payload_bytes_max=256 * 1024,
            answer_bytes_max=2 * 1024 * 1024,
        ) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def ann(service: Service) -> Visit:
    """A visitor who may do everything."""
    return service.visit(Role.admin)
