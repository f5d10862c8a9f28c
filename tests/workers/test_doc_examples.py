"""The examples of the documentation run, against a real server and a real manager."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from .conftest import Site

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the code of a page in one language."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_examples_of_datasets_do_what_the_page_says(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.setenv("RECORDLEDGER_URL", site.url)
    monkeypatch.setenv("RECORDLEDGER_TOKEN", site.token)
    site.manager(allow=["recordledger.workers.demo.functions:*"])
    names: dict[str, Any] = {}
    first, *more = blocks("datasets.md", "python")
    exec(first, names)  # noqa: S102 - what the page tells people to type
    [shown] = blocks("datasets.md", "text")
    assert capsys.readouterr().out.strip() == shown.strip()
    for each in more:
        exec(each, names)  # noqa: S102
    assert list(names["curves"].columns) == ["H2", "HCl"]
    assert names["curves"].loc["r=0.75", "H2"] < 0
    assert [each.doi for each in names["dataset"].info().locked_versions] == ["10.1000/182"]
    names["client"].close()
