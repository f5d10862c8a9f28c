"""The commands about services: adding and following one, where it stands, and the tree below it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from recordledger.workers.jobs.service_registry import ServiceRegistry
from recordledger.workers.jobs.service_runner import ServiceRunner
from tests.api.routes.test_management import own_tag
from tests.api.service import Service, Visit

from ..conftest import Cli, printed
from ..invented_services import SERVICES


@pytest.fixture
def _runner(service: Service) -> Iterator[None]:
    stop = Event()
    runner = ServiceRunner(service.ledger, ServiceRegistry(SERVICES))
    thread = Thread(target=runner.run, args=(stop,), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("_runner")
def test_a_service_is_followed_until_it_has_ended(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"n": 0, "of": own_tag()}))
    told = cli("add-service", "fan", "--spec", f"@{path}", "--follow", "--reason", "a try")
    assert told.exit_code == 0, told.output
    record_id = int(told.stdout.split()[1])
    assert told.stdout.splitlines()[-1] == f"service {record_id} is complete"
    again = cli("add-service", "fan", "--spec", f"@{path}")
    assert again.stdout == f"service {record_id} already existed\n"
    anew = printed(cli("add-service", "fan", "--spec", f"@{path}", "--new", "--json"))
    assert anew["ids"] != [record_id]


@pytest.mark.usefixtures("_runner")
def test_a_service_that_ends_badly_is_told_by_the_exit_status(cli: Cli) -> None:
    told = cli("add-service", f"absent-{own_tag()}", "--follow")
    assert told.exit_code == 1
    assert "is error" in told.stdout
    assert "ServiceNotInstalled: no service 'absent-" in told.stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{", "--spec is not JSON"),
        ("[1]", "--spec must be an object"),
        ("@nowhere.json", "No such file"),
    ],
)
def test_a_specification_that_is_none_is_not_sent(cli: Cli, spec: str, message: str) -> None:
    told = cli("add-service", "fan", "--spec", spec)
    assert told.exit_code == 2
    assert message in told.stderr


def test_a_service_and_what_is_below_it_are_shown(cli: Cli, ann: Visit) -> None:
    tag = own_tag()
    added = printed(cli("add-service", "fan", "--spec", f'{{"of": "{tag}"}}', "--json"))
    (service_id,) = added["ids"]
    (child_id,) = ann.create({"function": "math:sqrt", "kwargs": {"x": tag}})
    ann.post(f"/v1/services/{service_id}/start", None)
    ann.post(f"/v1/services/{service_id}/iterate", {"state": {"step": 7}, "children": [child_id]})
    told = cli("service", service_id)
    assert f"Service {service_id} (fan): running" in told.stdout
    assert 'State: {"step": 7}' in told.stdout
    assert printed(cli("service", service_id, "--iteration", "1", "--json"))["state"] == {"step": 7}
    below = cli("tree", service_id).stdout.splitlines()
    assert below[0].startswith(f"{service_id} ")
    assert below[1].startswith("  ")
    assert below[1].endswith(f"{child_id} math:sqrt waiting")
    assert cli("service", child_id).exit_code == 1
