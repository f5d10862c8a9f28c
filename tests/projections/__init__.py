"""Tests of the projections."""

import pytest

# Assertions there explain themselves too.
pytest.register_assert_rewrite(f"{__name__}.stage", f"{__name__}.model")
