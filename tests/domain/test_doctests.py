"""The examples in the docstrings of the domain, and of the builders, are true."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

from recordledger import domain

MODULES = [
    "tests.examples",
    *(m.name for m in walk_packages(domain.__path__, f"{domain.__name__}.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_the_examples_are_found() -> None:
    attempted = {name: doctest.testmod(import_module(name)).attempted for name in MODULES}
    assert attempted["tests.examples"] == 2
    assert attempted["recordledger.domain.routing.lanes"] >= 3
    assert attempted["recordledger.domain.streams"] >= 2
