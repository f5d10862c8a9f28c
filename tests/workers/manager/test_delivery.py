"""What the server does not take neither stops the others nor comes again."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recordledger.api.client import Client
from recordledger.workers.manager.delivery import Delivered, Delivery
from recordledger.workers.manager.spool import Spool

from ..conditions import eventually
from ..conftest import Site

N_TASKS = 5


class Sender:
    """A delivery with its spool, in the name of a manager that has claimed some tasks."""

    def __init__(self, site: Site) -> None:
        server = site.client.server()
        added = site.client.add_records("noop", [{"n": n} for n in range(N_TASKS)])
        self.manager_id = site.client.register_manager("sender", ["*"]).manager_id
        tasks = site.client.claim(self.manager_id, N_TASKS).tasks
        assert [task.record_id for task in tasks] == list(added.ids)
        self.ids = [task.record_id for task in tasks]
        self.told: queue.SimpleQueue[Delivered] = queue.SimpleQueue()
        self.spool = Spool(site.folder / "state", server.ledger_id)
        self.spool.own(self.manager_id)
        client = Client(site.url, site.token, retries_s=0.1, progress=False)
        self.delivery = Delivery(client, self.spool, server.limits.body_bytes, self.told.put)
        self.delivery.start()

    def result(self, number: int, **more: Any) -> dict[str, Any]:
        return {"record_id": self.ids[number], "attempt": 1, "result": b"1", **more}

    def send(self, *results: dict[str, Any]) -> Delivered:
        """Deliver a batch, and return what was told of it."""
        self.delivery.put(self.spool.keep(self.manager_id, results))
        assert self.delivery.drain(30) == 0
        return self.told.get(timeout=30)

    def end(self) -> None:
        self.delivery.end()
        self.spool.close()


@pytest.fixture
def sender(site: Site) -> Iterator[Sender]:
    made = Sender(site)
    yield made
    made.end()


def statuses(site: Site, sender: Sender) -> list[str]:
    return [str(record.status) for record in site.client.get_records(sender.ids)]


def files(site: Site) -> list[str]:
    found = (site.folder / "state").rglob("*")
    return sorted(path.suffix for path in found if path.is_file() and path.name != "lock")


def test_what_is_acknowledged_is_told_and_gone_from_the_disk(site: Site, sender: Sender) -> None:
    told = sender.send(sender.result(0), sender.result(1))
    assert told == Delivered(frozenset((id_, 1) for id_ in sender.ids[:2]), 2)
    assert statuses(site, sender)[:3] == ["complete", "complete", "running"]
    assert files(site) == []


def test_what_was_never_ours_is_dropped_and_the_others_arrive(site: Site, sender: Sender) -> None:
    strange = sender.result(1) | {"attempt": 7}
    unknown = {"record_id": 10**9, "attempt": 1, "result": b"1"}
    told = sender.send(sender.result(0), strange, unknown, sender.result(2))
    assert told.n_accepted == 2
    assert statuses(site, sender)[:3] == ["complete", "running", "complete"]
    assert files(site) == []


def test_a_result_that_is_not_taken_becomes_an_error_that_says_why(
    site: Site, sender: Sender
) -> None:
    spoilt: list[tuple[dict[str, Any], str]] = [
        ({"result": b'"' + b"x" * 70_000 + b'"'}, "ResultTooLarge"),
        ({"result": b"\x00"}, "ResultRefused"),
        ({"result": b"[NaN]"}, "ResultRefused"),
        ({"provenance": {"energy": float("nan")}}, "ResultRefused"),
    ]
    bad = [sender.result(number, **more) for number, (more, _) in enumerate(spoilt)]
    told = sender.send(*bad, sender.result(4))
    assert told.n_accepted == 5
    assert statuses(site, sender) == ["error"] * 4 + ["complete"]
    for record, (_, error_type) in zip(
        site.client.get_records(sender.ids[:4]), spoilt, strict=True
    ):
        assert record.error_type == error_type
        assert (record.error_message or "").startswith("the result cannot be stored: ")


def test_results_for_a_manager_that_the_server_does_not_know_are_set_aside(
    site: Site, sender: Sender
) -> None:
    batch = sender.spool.keep(10**9, [sender.result(0)])
    sender.delivery.put(batch)
    assert sender.delivery.drain(30) == 0
    assert sender.told.get(timeout=30) == Delivered(batch.refs, 0)
    sender.send(sender.result(1))
    assert statuses(site, sender)[:3] == ["running", "complete", "running"]
    assert files(site) == [".refused"]


def test_a_damaged_file_is_set_aside_and_the_next_is_delivered(
    site: Site, sender: Sender, tmp_path: Path
) -> None:
    batch = sender.spool.keep(sender.manager_id, [sender.result(0)])
    assert batch.path is not None
    batch.path.write_bytes(b"\x01\x02")
    batch.forget()
    sender.delivery.put(batch)
    assert sender.told.get(timeout=30) == Delivered(batch.refs, 0)
    sender.send(sender.result(1))
    assert statuses(site, sender)[:3] == ["running", "complete", "running"]
    assert files(site) == [".damaged"]


def test_a_token_that_is_refused_costs_no_results(site: Site, sender: Sender) -> None:
    client = Client(site.url, "rl_" + "x" * 43, retries_s=0, progress=False)
    with_wrong_token = Delivery(client, sender.spool, 10**6, sender.told.put)
    with_wrong_token.start()
    batch = sender.spool.keep(sender.manager_id, [sender.result(0)])
    with_wrong_token.put(batch)
    assert with_wrong_token.drain(0.3) == 1
    with_wrong_token.end()
    assert files(site) == [".results"]
    sender.delivery.put(batch)
    eventually(lambda: statuses(site, sender)[0] == "complete")


def test_what_the_disk_did_not_take_is_written_when_there_is_room(
    site: Site, sender: Sender
) -> None:
    state = site.folder / "state"
    shutil.rmtree(state)
    state.write_text("no folder can be made here")
    site.stop_server()
    for number in range(3):
        sender.delivery.put(sender.spool.keep(sender.manager_id, [sender.result(number)]))
    assert sender.delivery.unsaved_bytes > 3 * 500
    state.unlink()
    eventually(lambda: sender.delivery.unsaved_bytes == 0)
    assert files(site) == [".results"] * 3
    site.start_server()
    assert sender.delivery.drain(30) == 0
    assert statuses(site, sender)[:4] == ["complete"] * 3 + ["running"]


def test_results_of_somebody_elses_manager_hold_up_no_others(site: Site, sender: Sender) -> None:
    token = site.client.issue_token("bob", "compute").secret
    with Client(site.url, token, progress=False) as bob:
        manager_id = bob.register_manager("bob", ["*"]).manager_id
    strange = sender.spool.keep(manager_id, [sender.result(0)])
    sender.delivery.put(strange)
    sender.delivery.put(sender.spool.keep(sender.manager_id, [sender.result(1)]))
    assert sender.told.get(timeout=30).n_accepted == 1
    assert statuses(site, sender)[:3] == ["running", "complete", "running"]
    assert sender.delivery.drain(0) == 1
    assert strange.path is not None
    assert strange.path.exists()
