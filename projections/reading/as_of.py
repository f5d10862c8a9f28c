"""Earlier moments: what the same question about records would have been answered then.

A moment is a position of the log; a time stands for the longest beginning of the log in which no
event is later. Records are folded from their events up to there; which of them meet conditions, and
how many they were, the tables of the timeline say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple

from recordledger.domain.dataset import DatasetAggregate, DatasetDeleted
from recordledger.domain.errors import BeforeTheBeginning, DatasetNotFound, FutureMoment
from recordledger.domain.records.events import Event
from recordledger.domain.records.filters import CONDITIONS, RecordFilter
from recordledger.domain.records.record import RecordAggregate, fold
from recordledger.domain.records.status import Status
from recordledger.domain.streams import Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log.mapper import timestamp_of
from ..store.database import Db, one
from ..store.statements import shipped, statements
from ..tables import datasets
from . import queries, timeline
from .queries import Source, cells_of

_SQL: Final = statements("reading.as_of")

AsOf = int | datetime
"""A position of the log, or a time."""


class Moment(NamedTuple):
    """A position of the log that has an event, and when that happened."""

    position: int
    happened_at: datetime


@dataclass(frozen=True, slots=True)
class PastRecord:
    """A record as it was; `is_erased`: not any more, and its payloads are destroyed."""

    record: RecordAggregate
    is_erased: bool


def moment_of(ledger: Ledger, as_of: AsOf) -> Moment:
    """Return the moment of a request: the last event that had happened then.

    Raises:
        FutureMoment: it has not come.
        BeforeTheBeginning: nothing had happened.
        TimelineBehind: when the last events happened is not known yet.
    """
    with ledger.datastore.reading() as db:
        first, head, now = one(db, _SQL["bounds"], prepare=True)
    if isinstance(as_of, datetime):
        if as_of > now:
            raise FutureMoment(as_of, head or 0, now)
        position = 0 if first is None else _position_at(ledger, as_of, head)
    else:
        if as_of > (head or 0):
            raise FutureMoment(as_of, head or 0, now)
        position = as_of
    with ledger.datastore.reading() as db:
        row = db.execute(_SQL["event_at"], {"position": position}, prepare=True).fetchone()
    if row is None:
        raise BeforeTheBeginning(as_of, first)
    return Moment(row[0], timestamp_of("event", row[1]))


def _position_at(ledger: Ledger, moment: datetime, head: int) -> int:
    """Return the position up to which no event is later; 0 if the first one is."""
    latest_at = timeline.how_far(ledger).latest_at
    if latest_at is None or latest_at <= moment:
        timeline.reach(ledger, head)
    with ledger.datastore.reading() as db:
        extent = timeline.extent(db)
        if extent.latest_at is not None and extent.latest_at <= moment:
            return extent.position
        row = db.execute(_SQL["mark_before"], {"moment": moment}, prepare=True).fetchone()
        position = int(row[0]) if row else 0
        # The first mark is not at the beginning, but no farther than that.
        parameters = {
            "after": position,
            "upto": extent.position,
            "limit": timeline.MARK_EVERY + 1,
        }
        for after, state in db.execute(_SQL["times_after"], parameters, prepare=True):
            if timestamp_of("event", state) > moment:
                break
            position = after
    return position


def get_records(ledger: Ledger, ids: Iterable[int], moment: Moment) -> dict[int, PastRecord]:
    """Return the records with these ids that there were, by id."""
    found: dict[int, PastRecord] = {}
    wanted = sorted(set(ids))
    with ledger.datastore.reading() as db:
        for start in range(0, len(wanted), _SLICE):
            found |= _folded(ledger, db, wanted[start : start + _SLICE], moment.position)
    return found


# Number of records that are folded at a time.
_SLICE: Final = 1_000


def _folded(ledger: Ledger, db: Db, ids: Sequence[int], position: int) -> dict[int, PastRecord]:
    histories: dict[int, list[Event]] = {}
    erased: set[int] = set()
    parameters = {
        "ids": [stream_uuid(Stream.record, id_) for id_ in ids],
        "position": position,
    }
    for originator_id, topic, state in db.execute(_SQL["histories"], parameters, prepare=True):
        _, id_ = stream_number(originator_id)
        if state is None:
            erased.add(id_)
        else:
            event = ledger.event_mapper.event_of(topic, state)
            histories.setdefault(id_, []).append(event)
    records = (fold(id_, events) for id_, events in histories.items())
    return {each.id: PastRecord(each, each.id in erased) for each in records if each.exists}


def query_records(
    ledger: Ledger,
    which: RecordFilter,
    limit: int,
    moment: Moment,
    before_id: int | None = None,
) -> list[PastRecord]:
    """Return at most `limit` records that met every condition then, newest first.

    Raises:
        DatasetNotFound: the dataset was not there.
        TimelineBehind: which records these were is not known yet.
    """
    timeline.reach(ledger, moment.position)
    with ledger.datastore.reading() as db:
        version = None
        if which.dataset is not None:
            version = dataset_version(db, which.dataset, moment)
        row = db.execute(_SQL["newest_id"], {"position": moment.position}, prepare=True).fetchone()
        below = None if row is None else int(row[0]) + 1
        if before_id is not None:
            below = before_id if below is None else min(before_id, below)
        sql, parameters = page_sql(which, limit, moment, below, version)
        # Planned for these values, as the pages of today.
        ids = [row[0] for row in db.execute(sql, parameters, prepare=False)]
    found = get_records(ledger, ids, moment)
    return [found[id_] for id_ in ids]


def counts(ledger: Ledger, moment: Moment) -> dict[Status, int]:
    """Return how many records were in each status, zeros included.

    Raises:
        TimelineBehind: how many they were is not known yet.
    """
    totals = Counter(dict.fromkeys(Status, 0))
    for (_, status), n_records in counts_by_tag(ledger, moment).items():
        totals[status] += n_records
    return dict(totals)


def counts_by_tag(ledger: Ledger, moment: Moment) -> dict[tuple[str, Status], int]:
    """Return how many records of each tag were in each status; zeros are left out.

    Raises:
        TimelineBehind: how many they were is not known yet.
    """
    timeline.reach(ledger, moment.position)
    with ledger.datastore.reading() as db:
        return timeline.counts_at(db, moment.position)


def page_sql(
    which: RecordFilter,
    limit: int,
    moment: Moment,
    before_id: int | None,
    dataset_version: int | None,
) -> tuple[LiteralString, dict[str, Any]]:
    """Return the statement of one page of a query about then, and its parameters.

    `before_id` is also what keeps the page from walking over records that are newer than the
    moment.
    """
    sql, parameters = queries.page_of(which, limit, before_id, "r.id", _past)
    return sql, parameters | {"position": moment.position, "version": dataset_version}


def _past(which: RecordFilter, parameters: dict[str, Any]) -> Source:
    """Return every state that a record was in at the position, and what of it never changes."""
    states: LiteralString = _SQL["states"]
    then: LiteralString = _SQL["then"]
    wanted: list[LiteralString] = [
        condition.attribute
        for name, condition in CONDITIONS.items()
        if condition.attribute is not None and getattr(which, name) is not None
    ]
    origins: list[LiteralString] = [
        "o." + each for each in dict.fromkeys(wanted) if each not in _CHANGING
    ]
    if origins:
        columns: LiteralString = ", ".join(origins)
        states = shipped(_SQL["with_origins"].format(states=states, columns=columns))
    candidates = _candidates(which, parameters)
    if candidates is None:
        return Source(states + " AS r", conditions=(shipped(then.replace("s.", "r.")),))
    sql = _SQL["looked_up"].format(candidates=candidates, states=states, then=then)
    return Source(shipped(sql), "d.record_id")


# The columns of `states`. What else there is of a record never changes: `record_states` has it
# once for each record.
_CHANGING: Final = frozenset({"id", "status", "tag", "manager_id", "modified_at"})


def _candidates(which: RecordFilter, parameters: dict[str, Any]) -> LiteralString | None:
    """Return among whom to look, newest first, each once; None to let the planner decide.

    A record that ran on a manager at a moment had been claimed by it before; and so on. A status
    has an index of its own, and a few of all records may be in it, or nearly all of them.

    Args:
        which: the conditions.
        parameters: those of the statement; what is needed here is added.
    """
    found: LiteralString
    if which.dataset is not None:
        conditions: LiteralString = " AND ".join(cells_of(which, parameters))
        return _SQL["in_cells"] + " AND " + conditions
    if which.ids is not None or which.status is not None:
        return None
    if which.manager_id is not None:
        found = _given("ever_run", which.manager_id, parameters)
    elif which.owner is not None:
        found = _given("owned", which.owner, parameters)
    elif which.tag is not None:
        found = _given("ever_tagged", which.tag, parameters)
    else:
        return None
    return found + " AND record_id < %(before_id)s" if "before_id" in parameters else found


def _given(
    name: LiteralString, values: Sequence[int | str], parameters: dict[str, Any]
) -> LiteralString:
    """Return candidates of these values; of a single one, an index has them in order."""
    distinct = list(dict.fromkeys(values))
    parameters[name] = distinct[0] if len(distinct) == 1 else distinct
    place: LiteralString = "%(" + name + ")s"
    given: LiteralString = "= " + place if len(distinct) == 1 else "= ANY(" + place + ")"
    return shipped(_SQL[name].format(given=given))


# Datasets --------------------------------------------------------------------------------------


def dataset_version(db: Db, dataset_id: int, moment: Moment) -> int:
    """Return the version that a dataset had.

    Raises:
        DatasetNotFound: it was not there.
    """
    parameters = {
        "id": stream_uuid(Stream.dataset, dataset_id),
        "position": moment.position,
    }
    row = db.execute(_SQL["dataset_version"], parameters, prepare=True).fetchone()
    if row is None or row[0] is None:
        raise DatasetNotFound(dataset_id)
    return int(row[0])


def dataset_at(ledger: Ledger, db: Db, wanted: int | str, moment: Moment) -> DatasetAggregate:
    """Return what a dataset was called, its version and its specifications; not all of it.

    Raises:
        DatasetNotFound: there was none of this id or name.
    """
    ids = [wanted]
    if isinstance(wanted, str):
        ids = [row[0] for row in db.execute(_SQL["dataset_ids"], prepare=True)]
    parameters = {
        "ids": [stream_uuid(Stream.dataset, int(id_)) for id_ in ids],
        "position": moment.position,
    }
    for originator_id, topic, state in db.execute(_SQL["dataset_names"], parameters, prepare=True):
        event = ledger.event_mapper.event_of(topic, state)
        if isinstance(event, DatasetDeleted):
            continue
        name: str = getattr(event, "name", "")
        if isinstance(wanted, int) or name.lower() == wanted.lower():
            _, id_ = stream_number(originator_id)
            version = dataset_version(db, id_, moment)
            had = datasets.specifications(db, id_, version)
            return DatasetAggregate(
                id_, version, name=name, specifications={each.name: each for each in had}
            )
    raise DatasetNotFound(wanted)


def entries_named(db: Db, dataset: DatasetAggregate, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers of the entries that a dataset had under these names, by name."""
    parameters = {
        "id": dataset.id,
        "names": list(dict.fromkeys(names)),
        "version": dataset.version,
    }
    return dict(db.execute(_SQL["entries_named"], parameters, prepare=False).fetchall())
