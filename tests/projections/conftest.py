"""Fixtures of this folder: a stage on a database of each test's own, and a server to be hurt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recordledger.projections.embedded import EmbeddedPostgres

from .stage import Stage, staged


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A stage on a database of this test's own."""
    with staged(database_url) as made:
        yield made


@pytest.fixture(scope="session")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop and start, and whose superuser is known."""
    with tempfile.TemporaryDirectory(prefix="rl-") as home:
        Path(home).chmod(0o755)
        with EmbeddedPostgres(home, settings={"fsync": "off"}, create_databases=True) as postgres:
            yield postgres
