"""What people say of datasets, as the ledger takes it, and datasets as answers have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from recordledger.domain.dataset import (
    DatasetAggregate,
    DatasetSpecification,
    require_entries,
    specifications_named,
)
from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.records.events import Kind, Priority
from recordledger.domain.records.retries import parse_retry
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import parse_requirements, parse_tag
from recordledger.domain.specs.canonical import canonical_json
from recordledger.domain.specs.fingerprint import specify
from recordledger.projections.actions.dataset_edits import CellSelection, NewEntry
from recordledger.projections.ledger import Ledger
from recordledger.projections.reading import as_of
from recordledger.projections.reading.as_of import Moment
from recordledger.projections.store.database import Db
from recordledger.projections.tables import datasets, payloads
from recordledger.projections.tables.datasets import Content, Entry

from ..http.errors import refusal_of
from ..schemas.dataset_edits import EntryIn, SpecificationIn, WhichCells

# A cell's arguments are made from these again for every entry.
KWARGS_BYTES_MAX: Final = 1 << 20
ATTRIBUTES_BYTES_MAX: Final = 1 << 16


def cells_of(
    ledger: Ledger, query: Mapping[str, Any], moment: Moment | None = None
) -> dict[str, Any]:
    """Return which cells of a dataset a query is about, as `RecordFilter` has them; all by number.

    With a moment, names are those that there were then.

    Raises:
        InvalidInput: conditions on cells, and no dataset.
        DatasetNotFound: there is no such dataset.
        SpecificationNotFound: it has no such specification.
        EntryNotFound: it has no such entry.
    """
    specifications, entries = query.get("specification"), query.get("entry")
    if "dataset" not in query:
        if specifications is not None or entries is not None:
            raise InvalidInput(
                "specification and entry can only be used with dataset; name the dataset"
            )
        return {}
    with ledger.datastore.reading() as db:
        if moment is None:
            dataset = datasets.get(db, query["dataset"])
        else:
            dataset = as_of.dataset_at(ledger, db, query["dataset"], moment)
        found: dict[str, Any] = {"dataset": dataset.id}
        if specifications is not None:
            named = specifications_named(dataset, specifications)
            found["specification"] = tuple(each.number for each in named)
        if entries is not None:
            if moment is None:
                found_now = datasets.entries_named(db, dataset.id, entries)
                numbers = {name: number for name, (number, _) in found_now.items()}
            else:
                numbers = as_of.entries_named(db, dataset, entries)
            wanted = require_entries(dataset, entries, numbers)
            found["entry"] = tuple(numbers[name] for name in wanted)
    return found


def selection_of(asked: WhichCells) -> CellSelection:
    """Return which cells a request is about.

    Raises:
        InvalidInput: the attributes are no JSON.
    """
    attributes = asked.attributes
    return CellSelection(
        specifications=None if asked.specifications is None else tuple(asked.specifications),
        entries=None if asked.entries is None else tuple(asked.entries),
        pattern=asked.pattern,
        attributes=None if attributes is None else canonical_json(attributes).decode(),
    )


def new_entry(given: Any, payload_bytes_max: int) -> NewEntry:
    """Return an entry to add.

    Raises:
        InvalidInput: it is not valid; the message says why.
        TooLarge: it says too much.
    """
    try:
        entry = EntryIn.model_validate(given)
    except ValidationError as error:
        raise refusal_of(error, "the entry") from error
    content = Content(canonical_json(entry.input), canonical_json(entry.attributes))
    _require_size("the entry's input", content.input, payload_bytes_max, "payload_bytes_max")
    _require_size(
        "the entry's attributes", content.attributes, ATTRIBUTES_BYTES_MAX, "ATTRIBUTES_BYTES_MAX"
    )
    return NewEntry(entry.name, content)


def new_specification(given: SpecificationIn) -> tuple[DatasetSpecification, bytes]:
    """Return a specification to add, without its number yet, and the payload of its arguments.

    Raises:
        InvalidInput: something in it cannot be one; the message says what.
        TooLarge: its arguments are too large.
    """
    required_programs = parse_requirements(given.required_programs)
    # For its complaints: the records' own specifications are made when they are submitted.
    specify(given.function, given.kwargs, required_programs, size_bytes_max=2 * KWARGS_BYTES_MAX)
    kwargs = canonical_json(given.kwargs)
    _require_size("the specification's kwargs", kwargs, KWARGS_BYTES_MAX, "KWARGS_BYTES_MAX")
    specification = DatasetSpecification(
        number=0,
        name=given.name,
        kind=Kind(given.kind),
        function=given.function,
        kwargs=payloads.payload_of(kwargs),
        required_programs=required_programs,
        tag=parse_tag(given.tag),
        priority=Priority[given.priority],
        retry=parse_retry(given.retries, given.retry_delay_s, given.retry_on),
    )
    return specification, kwargs


def _require_size(what: str, data: bytes, limit: int, setting: str) -> None:
    if len(data) > limit:
        raise TooLarge(what, len(data), limit, setting)


# Answers ---------------------------------------------------------------------------------------


def dataset_out(dataset: DatasetAggregate, counts: Mapping[Status, int]) -> dict[str, Any]:
    """Return a dataset as `DatasetOut` has it."""
    return {
        "id": dataset.id,
        "version": dataset.version,
        "name": dataset.name,
        "description": dataset.description,
        "owner": dataset.owner,
        "cloned_from": dataset.cloned_from,
        "created_at": dataset.created_at,
        "modified_at": dataset.modified_at,
        "n_entries": dataset.n_entries,
        "n_records": sum(counts.values()),
        "counts": dict(counts),
    }


def dataset_answer(db: Db, dataset: DatasetAggregate, version: int | None) -> dict[str, Any]:
    """Return a dataset as `DatasetAnswer` has it, with the specifications of a locked version.

    Raises:
        VersionNotFound: there is no such locked version.
    """
    locked = datasets.versions(db, dataset.id)
    at = datasets.version_numbered(db, dataset, version)
    counts = datasets.counts_of_all(db, [dataset.id]).get(dataset.id, {})
    found = datasets.specifications(db, dataset.id, at)
    kwargs = payloads.load(db, [each.kwargs.digest for each in found])
    return dataset_out(dataset, counts) | {
        "specifications": [
            _specification_out(each) | {"kwargs": from_json(kwargs[each.kwargs.digest])}
            for each in found
        ],
        "locked_versions": [each._asdict() for each in locked],
    }


def _specification_out(specification: DatasetSpecification) -> dict[str, Any]:
    retry = specification.retry
    return {
        "name": specification.name,
        "kind": specification.kind,
        "function": specification.function,
        "required_programs": specification.required_programs,
        "tag": specification.tag,
        "priority": specification.priority.name,
        "retries": retry.retries,
        "retry_delay_s": retry.delay_s,
        "retry_on": retry.on,
    }


def status_out(
    dataset: DatasetAggregate, counts: Mapping[int, Mapping[Status, int]]
) -> dict[str, Any]:
    """Return how far a dataset is, as `DatasetStatusAnswer` has it."""
    rows: list[dict[str, Any]] = []
    totals: dict[Status, int] = {}
    for each in sorted(dataset.specifications.values(), key=lambda each: each.number):
        found = counts.get(each.number, {})
        n_missing = dataset.n_entries - sum(found.values())
        rows.append({"name": each.name, "counts": dict(found), "n_missing": n_missing})
        for status, n in found.items():
            totals[status] = totals.get(status, 0) + n
    return {
        "dataset_id": dataset.id,
        "name": dataset.name,
        "version": dataset.version,
        "n_entries": dataset.n_entries,
        "specifications": rows,
        "counts": totals,
        "n_missing": sum(row["n_missing"] for row in rows),
    }


def entries_out(db: Db, found: Sequence[Entry], bytes_max: int) -> list[dict[str, Any]]:
    """Return entries with what they say, at least one, and as many as an answer can hold."""
    shown: list[dict[str, Any]] = []
    contents: dict[bytes, list[Content]] = {}
    n_bytes = 0
    for entry in found:
        n_bytes += entry.size_bytes
        if shown and n_bytes > bytes_max:
            break
        if entry.inputs not in contents:
            # They come in the order in which they were added: the one before is done with.
            contents = datasets.contents_of(db, [entry.inputs])
        content = contents[entry.inputs][entry.place]
        shown.append(
            {
                "name": entry.name,
                "input": from_json(content.input),
                "attributes": from_json(content.attributes),
            }
        )
    return shown


def table_out(
    db: Db, dataset_id: int, at: int, found: Sequence[Entry], columns: Sequence[int]
) -> list[dict[str, Any]]:
    """Return entries with their records, as `TableRow` has them."""
    by_place: dict[tuple[int, int], dict[str, Any]] = {
        (cell.entry, cell.specification): {"record_id": cell.record_id, "status": cell.status}
        for cell in datasets.cells(db, dataset_id, at, [each.number for each in found], columns)
    }
    return [
        {
            "entry": entry.name,
            "cells": [by_place.get((entry.number, column)) for column in columns],
        }
        for entry in found
    ]


def no_condition(asked: BaseModel) -> bool:
    """Return whether a request says nothing about which cells it means."""
    return all(getattr(asked, name) is None for name in WhichCells.model_fields)
