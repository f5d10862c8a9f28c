"""A dataset as an RO-Crate: its results as a table, and who computed what, when and with what.

RO-Crate 1.2: a folder whose file `ro-crate-metadata.json` describes it in JSON-LD.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from recordledger.domain.dataset import DatasetAggregate, DatasetSpecification
from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.status import Status

from ..ledger import Ledger
from ..store.database import Db, cursor_of, one
from ..store.statements import statements
from ..tables import datasets, payloads, records
from ..tables.datasets import LockedVersion
from .archive import facts_of, program
from .parquet import TableWriter, Type
from .snapshots import snapshot

METADATA: Final = "ro-crate-metadata.json"
TABLE: Final = "results.parquet"
CSV: Final = "results.csv"
SPECIFICATIONS: Final = "specifications.json"

ACTIONS_MAX: Final = 5_000
"""Maximum number of records described one by one; else only their specifications are described."""

_SQL: Final = statements("archives.export")
_ENTRIES: Final = 250
_SPECIFICATION: Final = "https://w3id.org/ro/crate/1.2"
_NO_LICENCE: Final = "No licence was stated. Ask the authors."
_COMPLETED: Final = "http://schema.org/CompletedActionStatus"
_FAILED: Final = "http://schema.org/FailedActionStatus"
_POTENTIAL: Final = "http://schema.org/PotentialActionStatus"

COLUMNS: Final[Mapping[str, Type]] = {
    "entry": "string",
    "specification": "label",
    "record_id": "int64",
    "status": "label",
    "attributes": "string",
    "input": "string",
    "result": "string",
    "error_type": "label",
    "error_message": "string",
    "owner": "label",
    "manager_id": "int64",
    "attempt": "int32",
    "created_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "compute_s": "float64",
    "cores": "int32",
    "fingerprint": "string",
}

Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Row:
    """A cell of the dataset, with its record."""

    entry: str
    specification: DatasetSpecification
    record: RecordAggregate | None
    record_id: int
    attributes: str
    input: str
    result: str | None
    message: str | None

    def values(self) -> tuple[Any, ...]:
        record = self.record
        outcome = record and record.outcome
        return (
            self.entry,
            self.specification.name,
            self.record_id,
            "erased" if record is None else str(record.status),
            self.attributes,
            self.input,
            self.result,
            outcome and outcome.error_type,
            self.message,
            record and record.owner,
            record and record.manager_id,
            record and record.attempt,
            record and record.created_at,
            record and record.started_at,
            record and record.finished_at,
            outcome and outcome.compute_s,
            outcome and outcome.cores,
            record and record.spec and record.spec.digest.hex(),
        )


@dataclass(slots=True)
class _CrateRecords:
    """What is learnt of the records while the table is written."""

    n_rows: int = 0
    actions: list[Entity] = field(default_factory=list[Entity])
    agents: set[str] = field(default_factory=set[str])
    functions: set[str] = field(default_factory=set[str])
    spans: dict[str, list[datetime]] = field(default_factory=dict[str, list[datetime]])
    owners: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def take(self, row: _Row) -> None:
        self.n_rows += 1
        record, name = row.record, row.specification.name
        self.functions.add(row.specification.function)
        if record is None:
            return
        self.agents.add(record.owner)
        self.owners.setdefault(name, set()).add(record.owner)
        times = [at for at in (record.started_at, record.finished_at) if at is not None]
        if times:
            known = self.spans.setdefault(name, [times[0], times[0]])
            known[0], known[1] = min(known[0], *times), max(known[1], *times)
        if len(self.actions) <= ACTIONS_MAX:
            self.actions.append(_action_of(row, record))


def export_ro_crate(
    ledger: Ledger,
    folder: Path,
    dataset: str,
    *,
    version: int | None = None,
    license_url: str | None = None,
    authors: Sequence[str] = (),
) -> int:
    """Write a dataset as an RO-Crate, as it is at one moment; return how many records it has.

    Args:
        ledger: which.
        folder: where to, not there yet. It appears whole, or not at all.
        dataset: its name.
        version: the number of a locked version; what it is now if none is named.
        license_url: under which licence it may be used.
        authors: names, in order.

    Raises:
        InvalidInput: there is something at the path already.
        DatasetNotFound: there is no such dataset.
        VersionNotFound: it has no such locked version.
        LibraryMissing: PyArrow is not installed.
    """
    if folder.exists():
        raise InvalidInput(f"{folder} already exists; give another path")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{token_hex(4)}")
    unfinished.mkdir()
    try:
        with snapshot(ledger) as connection:
            db = cursor_of(connection)
            found = datasets.get(db, dataset)
            number = datasets.version_numbered(db, found, version)
            locked = next((v for v in datasets.versions(db, found.id) if v.number == version), None)
            specifications = datasets.specifications(db, found.id, number)
            _write_specifications(db, unfinished / SPECIFICATIONS, specifications)
            story = _CrateRecords()
            _write_rows(unfinished, _rows(ledger, db, found.id, number, specifications), story)
            about = one(connection, _SQL["position"])
        crate = _Crate(unfinished, found, locked, license_url or _NO_LICENCE, tuple(authors))
        graph = crate.graph(story, str(about[0]), about[3])
        document = {"@context": f"{_SPECIFICATION}/context", "@graph": graph}
        (unfinished / METADATA).write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return story.n_rows


def _write_specifications(
    db: Db, path: Path, specifications: Sequence[DatasetSpecification]
) -> None:
    contents = payloads.load(db, [each.kwargs.digest for each in specifications])
    told = [
        {
            "name": each.name,
            "kind": str(each.kind),
            "function": each.function,
            "kwargs": json.loads(contents[each.kwargs.digest]),
            "required_programs": list(each.required_programs),
        }
        for each in specifications
    ]
    path.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def _rows(
    ledger: Ledger,
    db: Db,
    dataset_id: int,
    version: int,
    specifications: Sequence[DatasetSpecification],
) -> Iterator[_Row]:
    """Give every cell that has a record, entry by entry, a page of them in memory at a time."""
    by_number = {each.number: each for each in specifications}
    after = 0
    while page := datasets.entries(db, dataset_id, version, after, _ENTRIES):
        after = page[-1].number
        entries = {each.number: each for each in page}
        inputs = datasets.contents_of(db, {each.inputs for each in page})
        cells = datasets.cells(db, dataset_id, version, entries, by_number)
        ids = sorted({cell.record_id for cell in cells})
        found = {record.id: record for record in records.get(db, ids, ledger.lanes)}
        outcomes = [each.outcome for each in found.values() if each.outcome is not None]
        texts = payloads.texts(db, (outcome.error_message for outcome in outcomes))
        results = payloads.load(db, {each.result.digest for each in outcomes if each.result})
        for cell in sorted(cells, key=lambda each: (each.entry, each.specification)):
            entry, record = entries[cell.entry], found.get(cell.record_id)
            outcome = record and record.outcome
            content = inputs[entry.inputs][entry.place]
            result = outcome and outcome.result and results.get(outcome.result.digest)
            yield _Row(
                entry=entry.name,
                specification=by_number[cell.specification],
                record=record,
                record_id=cell.record_id,
                attributes=content.attributes.decode(),
                input=content.input.decode(),
                result=result.decode() if result else None,
                message=payloads.text_of(outcome.error_message, texts) if outcome else None,
            )


def _write_rows(folder: Path, rows: Iterator[_Row], story: _CrateRecords) -> None:
    with ExitStack() as files:
        table = files.enter_context(TableWriter(folder / TABLE, COLUMNS))
        text = files.enter_context((folder / CSV).open("w", encoding="utf-8", newline=""))
        lines = csv.writer(text)
        lines.writerow(COLUMNS)
        for row in rows:
            values = row.values()
            table.add(values)
            lines.writerow(
                each.isoformat() if isinstance(each, datetime) else each for each in values
            )
            story.take(row)


def _action_of(row: _Row, record: RecordAggregate) -> Entity:
    action: Entity = {
        "@id": f"#record-{record.id}",
        "@type": "CreateAction",
        "name": f"Record {record.id}: {row.specification.function} for {row.entry}",
        "agent": _ref(_agent_id(record.owner)),
        "instrument": _ref(_function_id(row.specification.function)),
        "object": _ref(SPECIFICATIONS),
        "result": _ref(TABLE),
        "actionStatus": _COMPLETED if record.status is Status.complete else _POTENTIAL,
    }
    if record.outcome is not None and record.outcome.error_type is not None:
        action["actionStatus"] = _FAILED
        action["error"] = record.outcome.error_type
    if record.started_at is not None:
        action["startTime"] = _time(record.started_at)
    if record.finished_at is not None:
        action["endTime"] = _time(record.finished_at)
    if record.manager_id is not None:
        action["description"] = f"Attempt {record.attempt}, run by manager {record.manager_id}."
    return action


@dataclass(frozen=True, slots=True)
class _Crate:
    """What the metadata are made of."""

    folder: Path
    dataset: DatasetAggregate
    locked: LockedVersion | None
    license: str
    authors: tuple[str, ...]

    def graph(self, story: _CrateRecords, ledger_id: str, read_at: datetime) -> list[Entity]:
        """Return every entity: first the description itself, then the crate, then the rest."""
        actions = story.actions
        if len(actions) > ACTIONS_MAX:
            actions = self._summed_up(story)
        parts = [self._file(name) for name in (TABLE, CSV, SPECIFICATIONS)]
        people = [
            {"@id": f"#author-{number}", "@type": "Person", "name": name}
            for number, name in enumerate(self.authors, start=1)
        ]
        root = self._root(ledger_id, read_at)
        root["hasPart"] = [_ref(part["@id"]) for part in parts]
        root["mentions"] = [_ref(action["@id"]) for action in actions]
        if people:
            root["author"] = [_ref(person["@id"]) for person in people]
        licences: list[Entity] = []
        if "://" in self.license:
            root["license"] = _ref(self.license)
            licences = [{"@id": self.license, "@type": "CreativeWork", "name": self.license}]
        return [
            {
                "@id": METADATA,
                "@type": "CreativeWork",
                "about": _ref("./"),
                "conformsTo": _ref(_SPECIFICATION),
            },
            root,
            *parts,
            *people,
            *licences,
            *(self._agent(each) for each in sorted(story.agents)),
            *(self._function(each) for each in sorted(story.functions)),
            *actions,
        ]

    def _root(self, ledger_id: str, read_at: datetime) -> Entity:
        published = read_at if self.locked is None else self.locked.locked_at
        root: Entity = {
            "@id": "./",
            "@type": "Dataset",
            "name": self.dataset.name,
            "description": self.dataset.description or f"The dataset {self.dataset.name}.",
            "datePublished": _time(published),
            "dateModified": _time(read_at),
            "license": self.license,
            "identifier": f"urn:uuid:{ledger_id}#dataset-{self.dataset.id}",
            "creditText": f"Exported by {program()}",
        }
        if self.locked is not None:
            root["version"] = str(self.locked.number)
            if self.locked.doi:
                root["identifier"] = f"https://doi.org/{self.locked.doi}"
        return root

    def _file(self, name: str) -> Entity:
        kinds = {
            TABLE: ("application/vnd.apache.parquet", "The results, a row for each record"),
            CSV: ("text/csv", "The same results as text"),
            SPECIFICATIONS: ("application/json", "The computations: functions and arguments"),
        }
        facts = facts_of(self.folder / name)
        encoding, what = kinds[name]
        return {
            "@id": name,
            "@type": "File",
            "name": what,
            "encodingFormat": encoding,
            "contentSize": str(facts.size_bytes),
            "sha256": facts.sha256,
        }

    @staticmethod
    def _agent(owner: str) -> Entity:
        kind = "Person" if owner.startswith("user:") else "SoftwareApplication"
        return {"@id": _agent_id(owner), "@type": kind, "name": owner.partition(":")[2] or owner}

    @staticmethod
    def _function(function: str) -> Entity:
        return {
            "@id": _function_id(function),
            "@type": "SoftwareApplication",
            "name": function,
            "description": "The computations that managers of the ledger ran.",
        }

    @staticmethod
    def _summed_up(story: _CrateRecords) -> list[Entity]:
        """Return one action for each specification; the table has the rest, record by record."""
        return [
            {
                "@id": f"#specification-{number}",
                "@type": "CreateAction",
                "name": f"All records of the specification {name}",
                "agent": [_ref(_agent_id(owner)) for owner in sorted(story.owners[name])],
                "instrument": [_ref(_function_id(each)) for each in sorted(story.functions)],
                "object": _ref(SPECIFICATIONS),
                "result": _ref(TABLE),
                "startTime": _time(begin),
                "endTime": _time(end),
            }
            for number, (name, (begin, end)) in enumerate(sorted(story.spans.items()), start=1)
        ]


def _ref(entity_id: str) -> dict[str, str]:
    return {"@id": entity_id}


def _agent_id(actor: str) -> str:
    return f"#{_quoted(actor)}"


def _function_id(function: str) -> str:
    return f"#function-{_quoted(function)}"


def _quoted(name: str) -> str:
    return "".join(
        each if each.isalnum() or each in "-_.:" else f"-{ord(each):x}-" for each in name
    )


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
