"""From one ledger into another by an archive, for tests of what arrives there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from recordledger.domain.audit.origins import Ids, translated
from recordledger.domain.records.events import Event, Imported
from recordledger.domain.streams import Stream
from recordledger.projections.archives.export import ArchiveSelection, export_archive
from recordledger.projections.archives.import_ import ImportReport, import_archive
from recordledger.projections.reading.queries import payload_contents
from tests.postgres import new_database

from ..stage import Stage, empty, staged

ROOT: Final = "user:root"


@pytest.fixture(scope="session")
def second_database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of another ledger, which one test after the other has for itself."""
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@contextmanager
def elsewhere_at(url: str) -> Generator[Stage]:
    """Give a stage with another, empty ledger, which has an id of its own."""
    empty(url)
    with staged(url) as made:
        made.do("UPDATE ledger_identity SET ledger_id = gen_random_uuid()")
        made.n_deadlocks_before = made.n_deadlocks()
        yield made


@pytest.fixture
def elsewhere(second_database_url: str) -> Iterator[Stage]:
    """A stage with another ledger, to import into."""
    with elsewhere_at(second_database_url) as made:
        yield made


def archived(stage: Stage, folder: Path, selection: ArchiveSelection | None = None) -> Path:
    """Write an archive; return where it is."""
    path = folder / f"archive{len(list(folder.iterdir()))}.zip"
    export_archive(stage.ledger, path, selection or ArchiveSelection())
    return path


def brought(stage: Stage, path: Path, **how: Any) -> ImportReport:
    """Import an archive, and require that the ledger is sound afterwards."""
    report = import_archive(stage.ledger, path, actor=ROOT, **how)
    # The audit compares the tables with the log, too.
    stage.require_sound()
    return report


def history(stage: Stage, stream: Stream, number: int) -> list[Event]:
    with stage.ledger.datastore.reading() as db:
        return [placed.recorded.event for placed in stage.ledger.history(db, stream, number)]


def require_same(here: Stage, there: Stage, report: ImportReport) -> None:
    """Require that what was imported has the histories that it had, in its new numbers."""
    ids = Ids(report.ledger_id, report.records, report.managers, report.datasets)
    for stream, numbers in (
        (Stream.record, report.records),
        (Stream.manager, report.managers),
        (Stream.dataset, report.datasets),
    ):
        for original, number in numbers.items():
            expected = [translated(event, ids) for event in history(there, stream, original)]
            found = history(here, stream, number)
            assert found[: len(expected)] == expected
            arrived = found[len(expected)]
            assert isinstance(arrived, Imported)
            assert (arrived.origin_ledger, arrived.origin_id) == (report.ledger_id, original)
            assert arrived.archive_digest.hex() == report.archive_hash


def payloads_of(stage: Stage) -> dict[bytes, bytes]:
    named = {bytes(row[0]) for row in stage.ask("SELECT digest FROM payload_references")}
    return payload_contents(stage.ledger, named)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << (place % 8)
    path.write_bytes(bytes(data))
