"""The examples in the docstrings of the domain, and of the builders, are true."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules

import pytest

from recordledger import domain

MODULES = [
    "tests.examples",
    *(f"{domain.__name__}.{m.name}" for m in iter_modules(domain.__path__)),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_the_examples_are_found() -> None:
    attempted = {name: doctest.testmod(import_module(name)).attempted for name in MODULES}
    assert attempted["tests.examples"] == 2
    assert attempted["recordledger.domain.lanes"] >= 3
    assert attempted["recordledger.domain.streams"] >= 2
