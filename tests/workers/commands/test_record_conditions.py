"""Conditions on records: all of them on HTTP, in both clients, in commands, datasets, the past."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest
from click import Context, Parameter

from recordledger import AsyncClient, Client
from recordledger.api.client import AsyncDataset, Dataset
from recordledger.api.client.actions import method_of
from recordledger.api.client.conditions import RecordConditions
from recordledger.api.schemas.records import RecordQuery
from recordledger.domain.records.actions import ON_RECORDS, Action
from recordledger.domain.records.filters import CONDITIONS
from recordledger.workers.cli import main
from tests.api.routes.test_management import own_tag
from tests.api.service import Service, Visit, task

from ..conftest import Cli, printed

NAMES: Final = set(CONDITIONS)
OF_CELLS: Final = {"dataset", "specification", "entry"}
CHANGED: Final = {"status", "manager_id"}  # by the cancelling of the scene's record
HOUR: Final = timedelta(hours=1)


class Scene(NamedTuple):
    """A record that runs, alone in its cell of a dataset that has another cell."""

    dataset: str
    record: dict[str, Any]
    position: int


@pytest.fixture(scope="module")
def scene(service: Service, ann: Visit) -> Scene:
    """Make the record; it is cancelled after `position`, which changes what can be changed."""
    tag = own_tag()
    with Client(service.url, ann.secret, progress=False) as client:
        dataset = client.add_dataset(f"water {tag}")
        for name in ("hf", "mp2"):
            dataset.add_specification(name, "demo:square", {"method": name, "of": tag}, tag=tag)
        dataset.add_entries({"m0": {"x": 0}, "m1": {"x": 1}})
        dataset.submit(specifications=["hf"], entries=["m0"])
        [ran] = ann.claim(ann.register(tag))
        dataset.submit()
    position = head(ann)
    record = ann.record(ran["record_id"])
    ann.post("/v1/records/cancel", {"ids": [record["id"]]})
    ann.create(task(tag=tag))
    return Scene(f"water {tag}", record, position)


def head(visit: Visit) -> int:
    return int(visit.get("/v1/events", params={"limit": 1}).json()["head"])


def parameters_of(command: str) -> dict[str, Parameter]:
    found = main.get_command(Context(main), command)
    assert found is not None
    return {str(each.name): each for each in found.params}


def keywords_of(method: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(method).parameters) - {"self", "include", "limit", "as_of"}


def met(name: str, scene: Scene) -> Any:
    """Return a value by which a condition is met by the record of the scene."""
    of_cells = {"dataset": scene.dataset, "specification": "hf", "entry": "m0"}
    if name in OF_CELLS:
        return of_cells[name]
    condition = CONDITIONS[name]
    value = scene.record[str(condition.attribute)]
    if condition.value is datetime:
        moment = datetime.fromisoformat(value)
        return moment + HOUR if condition.comparison == "<" else moment
    return value


def unmet(name: str, scene: Scene) -> Any:
    """Return a value by which it is not met."""
    condition = CONDITIONS[name]
    if condition.value is datetime:
        moment = met(name, scene)
        return moment + (-HOUR if condition.comparison == "<" else HOUR)
    if condition.value is int:
        return 2**40
    others = {"dataset": None, "specification": "mp2", "entry": "m1", "status": "failed"}
    return others.get(name, "nobody")


def in_a_request(name: str, value: Any) -> Any:
    value = value.isoformat() if isinstance(value, datetime) else value
    return [value] if CONDITIONS[name].is_list else value


def test_http_and_both_clients_offer_every_condition() -> None:
    assert set(RecordQuery.model_fields) == NAMES
    described = RecordQuery.model_json_schema()["properties"]
    assert {name: each["description"] for name, each in described.items()} == {
        name: condition.text for name, condition in CONDITIONS.items()
    }
    for client in (Client, AsyncClient):
        assert keywords_of(client.query_records) == NAMES
        assert "only this user's, like user:ann; one or several" in str(
            client.query_records.__doc__
        )
        for action in ON_RECORDS:
            if action is not Action.erase:
                assert keywords_of(getattr(client, method_of(action))) >= NAMES
    for dataset in (Dataset, AsyncDataset):
        assert keywords_of(dataset.records) == NAMES - {"ids", "dataset"}
        for action in ON_RECORDS:
            if action is not Action.erase:
                assert keywords_of(getattr(dataset, method_of(action))) >= NAMES - {
                    "ids",
                    "dataset",
                }


def test_type_checkers_see_every_condition_with_several_values_where_there_may_be() -> None:
    hints: Mapping[str, Any] = RecordConditions.__annotations__
    assert set(hints) == NAMES - {"ids", "dataset"}
    for name, hint in hints.items():
        text = getattr(hint, "__forward_arg__", str(hint))
        assert ("Iterable" in text) == CONDITIONS[name].is_list, name


def test_every_command_that_names_records_offers_every_condition() -> None:
    commands = [str(each) for each in ON_RECORDS if each not in (Action.erase, Action.comment)]
    for command in ("list", *commands):
        parameters = parameters_of(command)
        assert set(parameters) >= NAMES, command
        for name in NAMES - {"ids"}:
            assert f"--{name.replace('_', '-')}" in parameters[name].opts
    assert NAMES - {"ids", "specification", "entry"} <= set(parameters_of("export"))


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_finds_the_same_everywhere_now_and_then(
    name: str, scene: Scene, cli: Cli, service: Service, ann: Visit
) -> None:
    record_id = scene.record["id"]
    for value, expected in ((met(name, scene), True), (unmet(name, scene), False)):
        if value is None:
            continue
        for found in found_with(name, value, scene.position, scene, cli, service, ann):
            assert (record_id in found) is expected, value
        for found in found_with(name, value, None, scene, cli, service, ann):
            assert (record_id in found) is (expected and name not in CHANGED), value


def found_with(
    name: str,
    value: Any,
    as_of: int | None,
    scene: Scene,
    cli: Cli,
    service: Service,
    ann: Visit,
) -> Iterator[list[int]]:
    """Yield what each way to ask finds; the tag keeps out the records of other tests."""
    given = {"tag": scene.record["tag"], name: value}
    if name in OF_CELLS:
        given["dataset"] = scene.dataset
    body = {"query": {key: in_a_request(key, each) for key, each in given.items()}}
    answer = ann.post("/v1/records/query", body | ({"as_of": as_of} if as_of else {}))
    assert answer.status_code == 200, answer.text
    yield [each["id"] for each in answer.json()["records"]]
    yield [each["id"] for each in printed(cli("list", *options(given, as_of)))]
    yield asyncio.run(found_asynchronously(service.url, ann.secret, given, as_of))
    with Client(service.url, ann.secret, progress=False) as client:
        yield [each.id for each in client.query_records(**asked(given), as_of=as_of)]
        if name not in ("ids", "dataset"):
            given.pop("dataset", None)
            dataset = client.dataset(scene.dataset)
            yield [each.id for each in dataset.records(**given, as_of=as_of)]


async def found_asynchronously(
    url: str, secret: str | None, given: Mapping[str, Any], as_of: int | None
) -> list[int]:
    async with AsyncClient(url, secret, progress=False) as client:
        return [each.id async for each in client.query_records(**asked(given), as_of=as_of)]


def asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions as programs give them: `ids` is always several."""
    return {name: [each] if name == "ids" else each for name, each in given.items()}


def options(given: Mapping[str, Any], as_of: int | None) -> list[str]:
    """Return conditions as the command line has them."""
    found = ["--json", *(["--as-of", str(as_of)] if as_of else [])]
    for name, value in given.items():
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        found += [text] if name == "ids" else [f"--{name.replace('_', '-')}", text]
    return found
