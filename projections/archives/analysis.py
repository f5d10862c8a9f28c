"""The ledger as tables for analysis: Parquet files that DuckDB, Polars and pandas read directly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, LiteralString, NamedTuple, cast
from uuid import UUID

from psycopg import Connection
from pydantic import BaseModel

from recordledger.domain.errors import InvalidInput
from recordledger.domain.records.attempts import attempts
from recordledger.domain.records.events import Event, Outcome, Payload, Priority
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log.mapper import unpack_outcome
from ..reading.event_log import HIDDEN
from ..store.database import cursor_of
from ..store.statements import statements
from ..tables import payloads
from .parquet import TableWriter, Type
from .snapshots import rows_of, snapshot

_SQL: Final = statements("archives.export")
_TEXTS_AT_ONCE: Final = 500

Row = tuple[Any, ...]
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class _Source:
    """What tables are read from."""

    ledger: Ledger
    connection: Connection[Any]

    def rows(self, name: str, parameters: Mapping[str, Any] | None = None) -> Iterator[Row]:
        return rows_of(self.connection, _SQL[name], parameters)


class AnalysisTable(NamedTuple):
    """A table that can be written: its columns, and what gives its rows."""

    columns: Mapping[str, Type]
    rows: Callable[[_Source], Iterator[Row]]


class Written(NamedTuple):
    """A table that was written."""

    table: str
    path: Path
    n_rows: int


def export_tables(
    ledger: Ledger,
    path: Path,
    names: Sequence[str] = (),
    *,
    progress: Progress | None = None,
) -> list[Written]:
    """Write tables of the ledger as it is at one moment.

    Args:
        ledger: which.
        path: a folder, in which each table becomes a file; or a file for one table, `*.parquet`.
        names: which tables; all of them if none is named.
        progress: called with the name of a table and how many rows of it were written.

    Raises:
        InvalidInput: there is no such table, or several were to go into one file.
        LibraryMissing: PyArrow is not installed.
    """
    if unknown := sorted(set(names) - TABLES.keys()):
        raise InvalidInput(f"there is no table {unknown[0]!r}; the tables are {', '.join(TABLES)}")
    wanted = list(dict.fromkeys(names)) or list(TABLES)
    is_file = path.suffix == ".parquet"
    if is_file and len(wanted) > 1:
        raise InvalidInput(
            f"{path.name} is a file for one table; name the table, or give a folder for all"
        )
    (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
    written: list[Written] = []
    with snapshot(ledger) as connection:
        source = _Source(ledger, connection)
        about = _about(connection)
        for name in wanted:
            target = path if is_file else path / f"{name}.parquet"
            unfinished = target.with_name(f"{target.name}.part")
            with TableWriter(unfinished, TABLES[name].columns, about=about) as writer:
                for number, row in enumerate(TABLES[name].rows(source), start=1):
                    writer.add(row)
                    if progress and number % 1_000 == 0:
                        progress(name, number)
            unfinished.replace(target)
            written.append(Written(name, target, writer.n_rows))
    return written


def data_of(event: Event) -> str:
    """Return what an event says besides what all events say, as JSON; digests in hex."""
    own = {name: plain(value) for name, value in event if name not in Event.model_fields}
    return json.dumps({name: value for name, value in own.items() if value is not None})


def plain(value: object) -> Any:
    """Return a field's value as JSON has it."""
    match value:
        case bytes():
            return value.hex()
        case Enum():
            return value.name
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case BaseModel():
            return {name: plain(item) for name, item in value if item is not None}
        case tuple() | list():
            return [plain(item) for item in cast("Sequence[object]", value)]
        case dict():
            items = cast("dict[str, object]", value).items()
            return {name: plain(item) for name, item in items}
        case _:
            return value


def _about(connection: Connection[Any]) -> dict[str, str]:
    row = connection.execute(_SQL["position"]).fetchone()
    ledger_id, position, _, at = row or (None, 0, 0, None)
    return {"ledger_id": str(ledger_id), "position": str(position), "read_at": str(at)}


def _records(source: _Source) -> Iterator[Row]:
    for row in source.rows("records"):
        *first, outcome, error_type, message, retries, used, delay, on, not_before = row[:22]
        first[5] = Priority(first[5]).name
        said = Outcome() if outcome is None else unpack_outcome(outcome)
        iteration, version, prior, spec, spec_size = row[22:]
        yield (
            *first,
            error_type,
            message,
            said.compute_s,
            said.cores,
            *_named(said.result),
            retries,
            used,
            delay,
            on.split(",") if on else [],
            not_before,
            iteration,
            version,
            prior,
            spec.hex(),
            spec_size,
        )


def _named(payload: Payload | None) -> tuple[str | None, int | None]:
    return (None, None) if payload is None else (payload.digest.hex(), payload.size_bytes)


def _events(source: _Source) -> Iterator[Row]:
    event_of = source.ledger.event_mapper.event_of
    for position, originator_id, version, topic, state in source.rows(
        "log", {"hidden": list(HIDDEN)}
    ):
        stream, number = stream_number(originator_id)
        event = event_of(topic, state)
        yield (position, stream.name, number, version, topic, *event_columns(event))


def event_columns(event: Event) -> Row:
    """Return what all events say, and what this one says besides, as the columns have it."""
    return (
        event.timestamp,
        event.actor,
        str(event.operation_id),
        event.action,
        event.reason,
        event.cause,
        None if event.undoes is None else str(event.undoes),
        data_of(event),
    )


SPOKEN: Final[Mapping[str, Type]] = {
    "timestamp": "time",
    "actor": "label",
    "operation_id": "string",
    "action": "label",
    "reason": "string",
    "cause": "int64",
    "undoes": "string",
    "data": "string",
}


def _attempts(source: _Source) -> Iterator[Row]:
    """Give the attempts of all records, with what their errors say."""
    waiting: list[tuple[list[Any], Payload | str | None]] = []
    for record_id, history in _histories(source):
        for each in attempts(history).values():
            outcome = each.outcome or Outcome()
            row = [
                record_id,
                each.number,
                each.manager_id,
                each.started_at,
                each.ended_at,
                each.ended_by,
                each.late,
                None,
                outcome.error_type,
                None,
                outcome.compute_s,
                outcome.cores,
                *_named(outcome.result),
            ]
            if each.outcome is not None:
                row[7] = outcome.error_type is None
            waiting.append((row, outcome.error_message))
        if len(waiting) >= _TEXTS_AT_ONCE:
            yield from _with_texts(source, waiting)
            waiting = []
    yield from _with_texts(source, waiting)


def _with_texts(
    source: _Source, waiting: Sequence[tuple[list[Any], Payload | str | None]]
) -> Iterator[Row]:
    texts = payloads.texts(cursor_of(source.connection), (message for _, message in waiting))
    for row, message in waiting:
        row[9] = payloads.text_of(message, texts)
        yield tuple(row)


def _histories(source: _Source) -> Iterator[tuple[int, list[Event]]]:
    """Give every record with its history, those that were erased included."""
    event_of = source.ledger.event_mapper.event_of
    bounds = {"first": stream_uuid(Stream.record, 0), "end": stream_uuid(Stream.manager, 0)}
    current, history = 0, list[Event]()
    for _, originator_id, _, topic, state in source.rows("streams", bounds):
        number = stream_number(originator_id)[1]
        if number != current and history:
            yield current, history
            history = []
        current = number
        history.append(event_of(topic, state))
    if history:
        yield current, history


def _as_they_are(name: LiteralString) -> Callable[[_Source], Iterator[Row]]:
    def rows(source: _Source) -> Iterator[Row]:
        return source.rows(name)

    return rows


TABLES: Final[Mapping[str, AnalysisTable]] = {
    "records": AnalysisTable(
        {
            "id": "int64",
            "kind": "label",
            "status": "label",
            "function": "label",
            "tag": "label",
            "priority": "label",
            "required_programs": "strings",
            "owner": "label",
            "created_at": "time",
            "modified_at": "time",
            "attempt": "int32",
            "manager_id": "int64",
            "started_at": "time",
            "finished_at": "time",
            "error_type": "label",
            "error_message": "string",
            "compute_s": "float64",
            "cores": "int32",
            "result": "string",
            "result_size_bytes": "int64",
            "retries": "int32",
            "retries_used": "int32",
            "retry_delay_s": "float64",
            "retry_on": "strings",
            "not_before": "time",
            "iteration": "int32",
            "version": "int32",
            "prior": "strings",
            "fingerprint": "string",
            "specification_size_bytes": "int64",
        },
        _records,
    ),
    "events": AnalysisTable(
        {
            "position": "int64",
            "stream": "label",
            "id": "int64",
            "version": "int32",
            "kind": "label",
            **SPOKEN,
        },
        _events,
    ),
    "attempts": AnalysisTable(
        {
            "record_id": "int64",
            "attempt": "int32",
            "manager_id": "int64",
            "started_at": "time",
            "ended_at": "time",
            "ended_by": "label",
            "late": "bool",
            "succeeded": "bool",
            "error_type": "label",
            "error_message": "string",
            "compute_s": "float64",
            "cores": "int32",
            "result": "string",
            "result_size_bytes": "int64",
        },
        _attempts,
    ),
    "comments": AnalysisTable(
        {
            "record_id": "int64",
            "version": "int32",
            "commented_at": "time",
            "author": "label",
            "text": "string",
        },
        _as_they_are("comments"),
    ),
    "managers": AnalysisTable(
        {
            "id": "int64",
            "version": "int32",
            "state": "label",
            "name": "string",
            "hostname": "string",
            "tags": "strings",
            "programs": "string",
            "lease_s": "float64",
            "heartbeat_s": "float64",
            "owner": "label",
            "registered_at": "time",
            "modified_at": "time",
        },
        _as_they_are("managers"),
    ),
    "operations": AnalysisTable(
        {
            "id": "string",
            "action": "label",
            "actor": "label",
            "reason": "string",
            "started_at": "time",
            "undoes": "string",
            "n_changes": "int64",
        },
        _as_they_are("operations"),
    ),
    "datasets": AnalysisTable(
        {
            "id": "int64",
            "version": "int32",
            "name": "string",
            "description": "string",
            "owner": "label",
            "cloned_from": "int64",
            "created_at": "time",
            "modified_at": "time",
            "deleted_at": "time",
            "n_entries": "int32",
            "versions_locked": "int32",
        },
        _as_they_are("datasets"),
    ),
    "dataset_entries": AnalysisTable(
        {
            "dataset_id": "int64",
            "entry": "int32",
            "added_in": "int32",
            "removed_in": "int32",
            "name": "string",
            "attributes": "string",
        },
        _as_they_are("entries"),
    ),
    "dataset_cells": AnalysisTable(
        {
            "dataset_id": "int64",
            "specification": "label",
            "specification_number": "int32",
            "entry": "string",
            "entry_number": "int32",
            "record_id": "int64",
            "added_in": "int32",
            "removed_in": "int32",
        },
        _as_they_are("cells"),
    ),
}
"""What can be written, by name; docs/archives.md says what the columns mean."""
