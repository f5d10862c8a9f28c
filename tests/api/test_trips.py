"""How many rooms a call enters, and that the walk in the docs is the way of a claim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.benchmarks.trips import Trip, room_of, trips
from tests.postgres import new_database

ARCHITECTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "ARCHITECTURE.md"
ROOMS_MAX: Final = {
    "submit 2 records": 13,
    "claim 1": 13,
    "return 1 result": 13,
    "cancel 2, no family": 12,
    "query a page": 8,
    "the same, as of a position": 11,
    "get one": 8,
    "why": 13,
}


@pytest.fixture(scope="module")
def made(postgres_server_url: str, migrated_template: str) -> Iterator[dict[str, Trip]]:
    """One trip of each kind."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield trips(url)


def walk() -> tuple[str, list[str]]:
    """Return the part of the page about a claim, and the files that its steps name, in order."""
    _, _, rest = ARCHITECTURE.read_text("utf-8").partition("## A claim, file by file\n")
    section, _, _ = rest.partition("\n## ")
    steps = [line for line in section.splitlines() if re.match(r"\d+\. ", line)]
    return section, [file for step in steps for file in re.findall(r"`(\w+/[\w/]+\.py)`", step)]


def test_a_call_enters_few_rooms(made: dict[str, Trip]) -> None:
    assert made.keys() == ROOMS_MAX.keys()
    assert {
        name: trip.rooms for name, trip in made.items() if len(trip.rooms) > ROOMS_MAX[name]
    } == {}


def test_the_walk_in_the_docs_is_the_way_of_a_claim(made: dict[str, Trip]) -> None:
    section, files = walk()
    claim = made["claim 1"]
    assert len(files) > 10
    assert [file for file in claim.files if file in files] == files
    assert f"{len(claim.rooms)} rooms" in section


def test_a_trip_reaches_from_the_client_to_the_log(made: dict[str, Trip]) -> None:
    for name in ("submit 2 records", "claim 1", "return 1 result", "cancel 2, no family"):
        assert {"api.client", "api.routes", "domain.records", "projections.log"} <= {
            *made[name].rooms
        }
    assert made["why"].files[0].startswith("api/client/")
    assert made["why"].crossings > len(made["why"].files)


def test_a_room_is_a_package_or_a_module_directly_in_a_layer() -> None:
    assert room_of("projections/tables/migrations/x.py") == "projections.tables"
    assert room_of("projections/ledger.py") == "projections.ledger"
