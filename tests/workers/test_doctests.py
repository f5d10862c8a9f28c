"""The examples in the docstrings of the workers are true."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("recordledger.workers.demo.curves", "recordledger.workers.manager.config")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted >= 1
    assert found.failed == 0
