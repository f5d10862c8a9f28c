"""How Hypothesis runs in this folder, and that nothing in it needs a database."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.sizes import PROFILE

# Here too, for runs that begin in this folder (`--confcutdir=tests/domain`).
settings.load_profile(PROFILE)


@pytest.fixture(scope="session")
def postgres_server_url() -> str:
    """There is none in this folder."""
    pytest.fail("the rules are tested without a database")
