"""The page about the services shows specifications that run, and every key there is."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from .driver import ROOT, Driver, provided

PAGE: Final = (ROOT / "docs" / "services-shipped.md").read_text("utf-8")
SECTIONS: Final = re.split(r"^## `(\w+)`$", PAGE, flags=re.MULTILINE)
OF: Final[dict[str, str]] = dict(zip(SECTIONS[1::2], SECTIONS[2::2], strict=True))


def example(name: str) -> dict[str, Any]:
    blocks: list[str] = re.findall(r"^```json\n(.*?)^```$", OF[name], re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return dict(json.loads(blocks[0]))


def test_every_service_has_its_section() -> None:
    assert set(OF) == set(provided("recordledger.services"))


@pytest.mark.parametrize("name", OF)
def test_the_examples_run(name: str) -> None:
    pytest.importorskip("scipy")
    result = Driver().run(name, example(name)).result
    for key in result:
        assert f"`{key}`" in OF[name], f"the result has {key}, and the page does not"
    if name == "graph":
        found = {node: report["outcome"] for node, report in result["nodes"].items()}
        assert found == {
            "bond": "complete",
            "energy": "complete",
            "alarm": "impossible",
            "in_time": "complete",
        }
        # Far from its own minimum, at the distance that the other node found.
        assert result["results"]["energy"]["distance"] == pytest.approx(1.4, abs=1e-3)


@pytest.mark.parametrize("name", OF)
def test_every_key_and_its_default_are_explained(name: str) -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|(.*)\|$", OF[name], flags=re.MULTILINE)
    explained = {key: row for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    for key, field in provided("recordledger.services")[name].Spec.model_fields.items():
        assert key in explained
        if isinstance(field.default, int | float):
            numbers = re.findall(r"[\d.]+(?:e-?\d+)?", explained[key][2])
            is_said = float(field.default) in map(float, numbers)
            assert is_said or str(field.default).lower() in explained[key][2]
