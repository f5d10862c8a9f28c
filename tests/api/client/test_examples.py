"""The examples in the docstrings of the client's methods, run one by one on a served ledger."""

from __future__ import annotations

import doctest
import inspect
import socket
from collections.abc import Iterator
from itertools import count
from socket import getaddrinfo
from typing import Any, Final

import pytest

from recordledger.api.client import Client
from recordledger.api.client.actions import RecordActions
from recordledger.api.client.blocking import Dataset
from recordledger.api.schemas.claims import AttemptRef
from recordledger.api.schemas.returns import ResultIn
from recordledger.domain.proof.notes import SigningKey
from recordledger.domain.proof.seals import origin_of
from recordledger.projections.actions import bulk
from recordledger.projections.proof.seals import seal_next
from recordledger.projections.reading.queries import ledger_id
from tests.postgres import new_database

from ..service import Service, serving

FUNCTION: Final = "package.module:energy"

# What the examples of a client need and do not name: how to use it, not what to ask.
PLUMBING: Final = {"close", "found", "followed", "paged", "run", "url", "id"}


# What ends the manager, the webhook or the token of the examples comes after what needs it.
ENDING: Final = ("deactivate_manager", "drain_manager", "relinquish", "remove_webhook")


def methods_of(owner: type) -> list[str]:
    """Return the methods of a user, those that others depend on first."""
    names = [name for name in vars(owner) if not name.startswith("_") and name not in PLUMBING]
    return sorted(names, key=lambda name: (name in vars(RecordActions), name in ENDING, name))


def address_of(host: str, *args: Any, **named: Any) -> Any:
    """Look up an address; the one of the examples without the network."""
    return getaddrinfo("93.184.216.34" if host == "example.org" else host, *args, **named)


class NoOutput(doctest.OutputChecker):
    """Compares what an example prints if it says so; else its only promise is that it runs."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Return whether an example printed what it should."""
        return not want or super().check_output(want, got, optionflags)


class Examples:
    """A served ledger in which the ids of the examples exist: 411 to 415, manager 7, and so on."""

    def __init__(self, service: Service, client: Client, patch: pytest.MonkeyPatch) -> None:
        self.client = client
        self._service = service
        self._numbers = count(1)
        for sequence, first in (("record_ids", 411), ("manager_ids", 7)):
            with service.ledger.datastore.transaction() as connection:
                connection.execute("SELECT setval(%s, %s, false)", (sequence, first))
        kwargs = [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}, {"x": 4.0}]
        assert client.add_records(FUNCTION, kwargs, tag="gpu").ids == [411, 412, 413, 414]
        assert client.add_service("optimization", {"x0": [1.0, 2.0]}).ids == [415]
        assert client.register_manager("gpu-node", ["gpu"]).manager_id == 7
        client.claim(7, limit=3)
        done = ResultIn(record_id=411, attempt=1, result={"y": 1.0})
        failed = ResultIn(record_id=412, attempt=1, error_type="OSError", error_message="disk full")
        client.return_results(7, [done, failed])
        self.collection("water clusters")
        client.add_webhook("http://127.0.0.1:9/hook", kind="failed")
        client.issue_token("ben")
        with patch.context() as patched:
            patched.setattr(bulk, "AT_ONCE_MAX", 1)
            client.hold_records([413, 414], wait=False)
        while bulk.advance_jobs(service.ledger):
            pass

    def collection(self, name: str) -> Dataset:
        """Make a dataset of which one cell is complete, and none waits."""
        dataset = self.client.add_dataset(name)
        dataset.add_entries({"dimer": {"x": 1.0}})
        dataset.add_specification("hf", FUNCTION, tag="gpu")
        dataset.submit()
        return dataset

    def names(self, method: str, owner: type) -> dict[str, Any]:
        """Return what an example may name: everything up to it is sealed."""
        key = SigningKey(origin_of(ledger_id(self._service.ledger)), b"s" * 32)
        while seal_next(self._service.ledger, key):
            pass
        names: dict[str, Any] = {
            "client": self.client,
            "AttemptRef": AttemptRef,
            "ResultIn": ResultIn,
        }
        if owner is Dataset:
            names["dataset"] = self.collection(f"{method} {next(self._numbers)}")
        return names


@pytest.fixture(scope="module")
def examples(postgres_server_url: str, migrated_template: str) -> Iterator[Examples]:
    """A ledger for all examples; they run in the order of this module."""
    with (
        new_database(postgres_server_url, template=migrated_template) as url,
        serving(url, pool_size=4, webhook_allow_private="true") as service,
        Client(service.url, service.visit().secret, retries_s=5) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(socket, "getaddrinfo", address_of)
        yield Examples(service, client, patch)


@pytest.mark.parametrize(
    ("owner", "method"),
    [(owner, method) for owner in (Client, Dataset) for method in methods_of(owner)],
)
def test_every_method_has_an_example_that_works(
    examples: Examples, owner: type, method: str
) -> None:
    text = inspect.getdoc(getattr(owner, method)) or ""
    test = doctest.DocTestParser().get_doctest(
        text, examples.names(method, owner), method, None, None
    )
    assert any(f".{method}(" in each.source for each in test.examples), "it has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(NoOutput(), verbose=False)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
