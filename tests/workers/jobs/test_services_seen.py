"""Services as people see them: over HTTP, in the client, and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from recordledger.api.client import Client, NotFound, Refused
from recordledger.domain.admin.access import Role
from tests.api.service import Service, Visit, is_problem
from tests.projections.stage import Stage

from ..conftest import Cli, printed
from ..service_house import House


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A user who is no administrator."""
    secret = service.visit(Role.user, "eve").secret
    with Client(service.url, secret, progress=False) as made:
        yield made


@pytest.fixture
def house(service: Service) -> House:
    return House(Stage(service.ledger, service.settings.database_url))


def added(client: Client, name: str, **spec: object) -> int:
    [id_] = client.add_service(name, spec, tag="gpu").ids
    assert id_ is not None
    return id_


def own() -> str:
    return uuid4().hex


def test_a_user_adds_services_and_sees_how_they_come_on(client: Client, house: House) -> None:
    service = added(client, "fan", n=2, rounds=2, of=own())
    assert client.get_records(service).kind == "service"
    assert client.service(service).iteration == 0
    house.runner.run_until_idle()
    [first, second] = client.children(service)
    found = client.service(service)
    assert (found.status, found.iteration, found.progress) == ("running", 1, 0.0)
    assert [(child.key, child.record_id) for child in found.awaited] == [
        ("1/0", first),
        ("1/1", second),
    ]
    assert found.state == {"round": 1}
    assert client.get_records(service, include="stdout").stdout == "round 1\n"
    house.compute(limit=1)
    assert repr(client.service(service)) == (
        f"Service {service} (fan): running\n"
        "Iteration 1, 0 %; 2 children so far\n"
        "It waits for all of 2 children: 1 complete, 1 waiting\n"
        "Output:\n"
        "  round 1"
    )
    house.go()
    done = client.service(service)
    assert (done.status, done.progress, done.awaited) == ("complete", 1.0, [])
    assert done.output == "round 1\nround 2\n"
    assert client.get_records(service, include="stdout").stdout == "round 1\nround 2\n2 results\n"


def test_a_service_is_seen_as_it_was_after_any_iteration(client: Client, house: House) -> None:
    service = added(client, "fan", n=1, rounds=3, of=own())
    house.go()
    for number in (1, 2, 3):
        found = client.service(service, iteration=number)
        assert (found.iteration, found.state) == (number, {"round": number})
        assert found.output == f"round {number}\n"
        assert [child.key for child in found.awaited] == [f"{number}/0"]
    with pytest.raises(Refused, match="has 3 iterations; there is no iteration 4"):
        client.service(service, iteration=4)


def test_a_task_is_no_service_and_nothing_is_nothing(ann: Visit, client: Client) -> None:
    [task] = client.add_records("psi4", {"nonce": own()}).ids
    assert task is not None
    is_problem(ann.get(f"/v1/records/{task}/service"), 409, "wrong_kind")
    assert [node.record_id for node in client.tree(task).nodes] == [task]
    with pytest.raises(NotFound):
        client.tree(9_000_000_000)
    with pytest.raises(NotFound):
        client.service(9_000_000_000)


def test_the_tree_shows_the_children_of_children_and_what_they_are(
    client: Client, house: House
) -> None:
    service = added(client, "nest", depth=2, n=int(own()[:6], 16))
    house.runner.run_until_idle()
    [below] = client.children(service)
    [lowest] = client.children(below)
    [leaf] = client.children(lowest)
    tree = client.tree(service)
    assert repr(tree) == (
        f"{service} nest running\n"
        f"  below: {below} nest running\n"
        f"    below: {lowest} nest running\n"
        f"      leaf: {leaf} psi4 waiting"
    )
    html = tree._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert f"<div style='margin-left:6em'>leaf: {leaf} psi4 waiting</div>" in html
    house.go()
    assert f"leaf: {leaf} psi4 complete" in repr(client.tree(service))


def test_a_large_tree_says_what_it_leaves_out(client: Client, house: House) -> None:
    service = added(client, "fan", n=9, of=own())
    house.runner.run_until_idle()
    lines = repr(client.tree(service, children_limit=2)).splitlines()
    assert len(lines) == 4
    assert lines[-1] == "  ... and 7 more"
    assert len(client.tree(service, limit=4).nodes) == 4


def test_why_names_the_child_and_the_command_and_the_command_helps(
    client: Client, house: House, cli: Cli
) -> None:
    service = added(client, "fan", n=2, of=own())
    house.runner.run_until_idle()
    child = client.children(service)[0]
    client.hold_records(child)
    told = cli("why", service)
    assert f"'1/0', record {child}, is held" in told.stdout
    assert f"To change that:  recordledger release {child}" in told.stdout
    assert cli("release", child).exit_code == 0
    house.compute(fine=False)
    house.runner.run_until_idle()
    assert client.why(service).remedy == f"recordledger reset {service}"
    assert cli("reset", service).exit_code == 0
    house.go()
    assert client.get_records(service).status == "complete"


def test_the_commands_print_what_the_client_has(client: Client, house: House, cli: Cli) -> None:
    service = added(client, "fan", n=1, rounds=2, of=own())
    house.go()
    shown = cli("service", service, "--iteration", 1)
    assert f"Service {service} (fan): complete" in shown.stdout
    assert 'State: {"round": 1}' in shown.stdout
    assert printed(cli("service", service, "--json"))["iteration"] == 2
    assert cli("tree", service).stdout == repr(client.tree(service)) + "\n"
    assert len(printed(cli("tree", service, "--json"))["nodes"]) == 3
    assert cli("service", 9_000_000_000).exit_code == 1


def test_what_a_service_takes_by_reference_its_child_gets(ann: Visit, house: House) -> None:
    service = house.add("chain", start=int(own()[:6], 16))
    house.runner.run_until_idle()
    house.compute()
    house.runner.run_until_idle()
    manager_id = ann.register("gpu")
    [claimed] = ann.claim(manager_id)
    assert claimed["kwargs"] == {"x": {"y": [-76.4, 1]}}
    attempts = [{"record_id": claimed["record_id"], "attempt": claimed["attempt"]}]
    answer = ann.post(f"/v1/managers/{manager_id}/relinquish", {"attempts": attempts})
    assert answer.status_code == 200
    house.go()
    assert house.stage.status(service) == "complete"
