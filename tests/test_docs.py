"""The reference pages say what the code says, and name everything there is."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Final

import pytest

from recordledger import domain
from recordledger.domain import errors
from recordledger.domain.errors import LedgerError
from recordledger.domain.records.events import Event
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"

DOMAIN: Final = [
    import_module(m.name) for m in walk_packages(domain.__path__, f"{domain.__name__}.")
]
EVENTS: Final[list[type[Event]]] = [
    found
    for module in DOMAIN
    for found in vars(module).values()
    if inspect.isclass(found) and issubclass(found, Event) and found.__module__ == module.__name__
]
ERRORS: Final[list[type[LedgerError]]] = [
    found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, LedgerError)
]


def run(docs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the generator of a folder of docs."""
    command = (sys.executable, str(docs / "generate.py"), *options)
    return subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the docs that may be spoilt."""
    return shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))


def headings(page: str) -> dict[str, str]:
    """Return the text under each heading of a page, by the heading."""
    parts = re.split(r"^#+ (.+)$", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_pages_made_from_the_code_are_fresh() -> None:
    checked = run(DOCS, "--check")
    assert checked.returncode == 0, f"run `make docs`\n{checked.stdout}{checked.stderr}"


def test_a_stale_page_is_shown_with_what_is_stale_and_written_anew(copied: Path) -> None:
    page = copied / "reference" / "errors.md"
    fresh = page.read_text("utf-8")
    page.write_text(fresh.replace("`not_found`", "`lost`"), "utf-8")
    checked = run(copied, "--check")
    assert checked.returncode == 1
    assert "docs/reference/errors.md" in checked.stdout
    assert "\n-| `lost`" in checked.stdout
    assert "\n+| `not_found`" in checked.stdout
    assert run(copied).returncode == 0
    assert page.read_text("utf-8") == fresh


def test_a_page_that_is_missing_or_that_nothing_makes_any_more_is_noticed(copied: Path) -> None:
    page = copied / "reference" / "errors.md"
    page.rename(copied / "reference" / "former.md")
    checked = run(copied, "--check")
    assert checked.returncode == 1
    assert "docs/reference/former.md is made by no function" in checked.stdout
    assert run(copied).returncode == 0
    assert page.exists()
    assert not (copied / "reference" / "former.md").exists()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_is_in_the_catalogue(event: type[Event]) -> None:
    found = headings("reference/events.md")
    if event is Event:
        assert "`operation_id`" in found["What every event says"]
    else:
        text = found[event.__name__]
        assert f"`{event.topic}`, version {event.class_version}" in text
        assert inspect.cleandoc(event.__doc__ or "") in text
        own = set(event.model_fields) & set(inspect.get_annotations(event))
        assert own == set(re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_error_is_explained(error: type[LedgerError]) -> None:
    text = headings("reference/errors.md")[error.__name__]
    assert f"Code `{error.code}`" in text
    assert inspect.cleandoc(error.__doc__ or "") in text


@pytest.mark.parametrize("status", Status)
def test_every_status_says_what_can_happen_in_it(status: Status) -> None:
    text = headings("reference/statuses.md")[status]
    _, _, leaving = text.partition("- left by:")
    listed = {event_type.__name__ for source, event_type in TRANSITIONS if source is status}
    assert set(re.findall(r"`(\w+)`", leaving)) == listed


def test_the_diagram_draws_every_status() -> None:
    text = headings("reference/statuses.md")["Statuses and transitions"]
    assert text.count("```mermaid\nstateDiagram-v2\n") == 1
    drawn = set(re.findall(r"^    (\S+) --> (\S+) : ", text, flags=re.MULTILINE))
    nodes = {node for edge in drawn for node in edge}
    assert nodes >= {str(status) for status in Status}


@pytest.mark.parametrize("page", ["statuses", "events", "errors"])
def test_links_between_generated_pages_lead_somewhere(page: str) -> None:
    text = (DOCS / "reference" / f"{page}.md").read_text("utf-8")
    for target, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", text):
        anchors = {heading.lower() for heading in headings(f"reference/{target or page + '.md'}")}
        assert anchor in anchors
