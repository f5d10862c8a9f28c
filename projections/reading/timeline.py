"""The timeline: what every record was, from when to when, in tables that follow the log.

Nobody waits for it: `advance` takes the next events into account, in their order and from a
checkpoint that moves in the same transaction. It is called by a job of `recordledger work`, and by
a query about a moment that the timeline has not reached. What it writes depends on the log alone,
and not on how much of it was read at a time: so replay can compare it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from recordledger.domain.errors import ImpossibleHistory, TimelineBehind
from recordledger.domain.records.events import Kind
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.records.status import Status
from recordledger.domain.streams import ID_MAX, Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log.mapper import EventMapper, timestamp_of
from ..store.database import Db, one
from ..store.statements import statements

_SQL: Final = statements("reading.timeline")

# The tables, and what identifies their rows.
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "timeline": ("only_row",),
    "timeline_marks": ("position",),
    "timeline_counts": ("position", "tag", "status"),
    "record_states": ("record_id",),
    "record_changes": ("position",),
}
# Number of events that are applied in one transaction.
BATCH: Final = 5_000
# Number of events that a query about the past applies itself, if the timeline is behind.
CATCH_UP_MAX: Final = 20_000
# Between two marks there are no more positions than this.
MARK_EVERY: Final = 256
# Counts are kept about so often; more seldom where there are very many tags, so that what is kept
# stays a small part of what has happened.
COUNT_EVERY: Final = 20_000
_EVENTS_PER_COUNT: Final = 8

RECORD_STREAMS: Final = {
    "first_record": stream_uuid(Stream.record, 0),
    "last_record": stream_uuid(Stream.record, ID_MAX),
}


class Extent(NamedTuple):
    """How far the timeline goes; the highest id of a record and the newest time up to there."""

    position: int
    newest_id: int
    latest_at: datetime | None


class _State(NamedTuple):
    """What a record is since the event at a position; None before there was one."""

    since: int | None
    record: RecordAggregate


class _Change(NamedTuple):
    """What an event at a position made of a record."""

    position: int
    before: _State
    after: RecordAggregate


def extent(db: Db) -> Extent:
    """Return how far the timeline goes."""
    return Extent(*one(db, _SQL["extent"], prepare=True))


def how_far(ledger: Ledger) -> Extent:
    """Return how far the timeline goes."""
    with ledger.datastore.reading() as db:
        return extent(db)


def advance(ledger: Ledger, limit: int = BATCH) -> int:
    """Apply at most `limit` more events; return their number.

    Raises:
        ImpossibleHistory: the log itself is broken.
        UnknownEvent: the log has an event that this version does not know.
        UnreadableEvent: the log has bytes that are no event.
    """
    with ledger.datastore.writing() as db:
        return _advance(db, ledger.event_mapper, limit, ID_MAX)


def reach(ledger: Ledger, position: int) -> None:
    """Return when the timeline goes as far as this position of the log.

    Raises:
        TimelineBehind: it is too far behind, and is now a part of the way nearer.
    """
    n_events = 0
    while True:
        reached = how_far(ledger).position
        if reached >= position:
            return
        if n_events >= CATCH_UP_MAX:
            raise TimelineBehind(reached, position)
        n_events += advance(ledger, BATCH) or BATCH


def forget(ledger: Ledger) -> None:
    """Empty the tables; they are filled again when the timeline is advanced."""
    with ledger.datastore.writing() as db:
        db.execute(_SQL["lock"])
        db.execute(_SQL["forget"])
        db.execute(_SQL["restart"])


def fill(db: Db, mapper: EventMapper, upto: int) -> None:
    """Fill empty tables up to a position: a shadow, which `search_path` is at."""
    db.execute(_SQL["begin"])
    while _advance(db, mapper, BATCH, upto):
        pass


def counts_at(db: Db, position: int) -> dict[tuple[str, Status], int]:
    """Return how many records of each tag were in each status; zeros are left out."""
    kept = db.execute(_SQL["newest_counts"], {"position": position}, prepare=True).fetchone()
    parameters = {"kept": kept[0] if kept else 0, "position": position}
    # Planned for these values: how much lies between them decides.
    rows = db.execute(_SQL["counts"], parameters, prepare=False)
    return {(tag, Status(status)): n for tag, status, n in rows}


def _advance(db: Db, mapper: EventMapper, limit: int, upto: int) -> int:
    position, newest_id, latest_at = one(db, _SQL["lock"], prepare=True)
    parameters = {"after": position, "upto": upto, "limit": limit}
    events = db.execute(_SQL["events"], parameters | RECORD_STREAMS, prepare=True).fetchall()
    if not events:
        return 0
    states = _states(db, (originator_id for _, originator_id, *_ in events))
    changes: list[_Change] = []
    marks: list[Extent] = []
    counted: list[int] = []
    for after, originator_id, version, topic, state in events:
        # What was the newest before is known now to be the last of its block of positions.
        if position and after // MARK_EVERY > position // MARK_EVERY:
            marks.append(Extent(position, newest_id, latest_at))
        if position and after // COUNT_EVERY > position // COUNT_EVERY:
            counted.append(position)
        stream, number = stream_number(originator_id)
        if stream is Stream.record:
            event = mapper.event_of(topic, state)
            before = states.get(number) or _State(None, RecordAggregate(number))
            if version != before.record.version + 1:
                missing = f"version {before.record.version + 1} is missing"
                raise ImpossibleHistory(f"record {number}", version, missing)
            record = evolve(before.record, event)
            changes.append(_Change(after, before, record))
            states[number] = _State(after, record)
            newest_id = max(newest_id, number)
            moment = event.timestamp
        else:
            moment = timestamp_of(topic, state)
        position = after
        latest_at = moment if latest_at is None else max(latest_at, moment)
    _write(db, changes, states, marks)
    for each in counted:
        keep_counts(db, each)
    db.execute(_SQL["move"], Extent(position, newest_id, latest_at)._asdict(), prepare=True)
    return len(events)


def _states(db: Db, originator_ids: Any) -> dict[int, _State]:
    """Return what the records among these are at the end of the timeline."""
    wanted: set[UUID] = set(originator_ids)
    named = map(stream_number, wanted)
    ids = [number for stream, number in named if stream is Stream.record]
    rows = db.execute(_SQL["states"], {"ids": ids}, prepare=True)
    return {row[0]: _State(row[1], _from_row(*row)) for row in rows}


def _from_row(
    record_id: int,
    _since: int,
    version: int,
    status: str | None,
    prior: str,
    kind: str,
    tag: str,
    manager_id: int | None,
    owner: str,
    function: str,
    created_at: datetime,
    modified_at: datetime,
) -> RecordAggregate:
    """Return as much of a record as can be asked for, and as the next event needs."""
    return RecordAggregate(
        id=record_id,
        version=version,
        status=None if status is None else Status(status),
        prior=tuple(map(Status, prior.split(","))) if prior else (),
        kind=Kind(kind),
        tag=tag,
        manager_id=manager_id,
        owner=owner,
        function=function,
        created_at=created_at,
        modified_at=modified_at,
    )


def _write(
    db: Db,
    changes: Sequence[_Change],
    states: Mapping[int, _State],
    marks: Sequence[Extent],
) -> None:
    if changes:
        db.execute(_SQL["add_changes"], _columns_of_changes(changes), prepare=True)
        changed = {change.after.id for change in changes}
        # In the order of the key, which is kind to the index.
        written = [states[id_] for id_ in sorted(changed)]
        db.execute(_SQL["write_states"], _columns_of_states(written), prepare=True)
    if marks:
        parameters = {
            "positions": [mark.position for mark in marks],
            "newest_ids": [mark.newest_id for mark in marks],
            "times": [mark.latest_at for mark in marks],
        }
        db.execute(_SQL["add_marks"], parameters, prepare=True)


def _columns_of_changes(changes: Sequence[_Change]) -> dict[str, list[Any]]:
    befores = [change.before.record for change in changes]
    afters = [change.after for change in changes]
    return {
        "position": [change.position for change in changes],
        "record_id": [after.id for after in afters],
        "since": [change.before.since for change in changes],
        "old_manager_id": [before.manager_id for before in befores],
        "old_modified_at": [before.modified_at for before in befores],
        "old_status": [before.status for before in befores],
        "old_tag": [before.tag if before.exists else None for before in befores],
        "new_status": [after.status for after in afters],
        "new_tag": [after.tag if after.exists else None for after in afters],
    }


def _columns_of_states(states: Sequence[_State]) -> dict[str, list[Any]]:
    records = [state.record for state in states]
    return {
        "record_id": [record.id for record in records],
        "since": [state.since for state in states],
        "version": [record.version for record in records],
        "status": [record.status for record in records],
        "prior": [",".join(record.prior) for record in records],
        "kind": [record.kind for record in records],
        "tag": [record.tag for record in records],
        "manager_id": [record.manager_id for record in records],
        "owner": [record.owner for record in records],
        "function": [record.function for record in records],
        "created_at": [record.created_at for record in records],
        "modified_at": [record.modified_at for record in records],
    }


def keep_counts(db: Db, position: int) -> None:
    """Keep the counts at a position, unless that would cost more than it saves."""
    kept = db.execute(_SQL["newest_counts"], {"position": position}, prepare=True).fetchone()
    if kept is not None and position - kept[0] < _EVENTS_PER_COUNT * kept[1]:
        return
    found = counts_at(db, position)
    if found:
        parameters = {
            "position": position,
            "tags": [tag for tag, _ in found],
            "statuses": [status for _, status in found],
            "numbers": list(found.values()),
        }
        db.execute(_SQL["keep_counts"], parameters, prepare=True)
