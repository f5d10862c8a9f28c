"""The table `rescue_counts`: results that came late, and those of them that were adopted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from psycopg import Connection

from recordledger.domain.records.events import Event, LateResult, Outcome, ResultAdopted

from ..log.mapper import EventMapper, MsgpackTranscoder
from ..store.database import Db
from ..store.statements import statements
from .changes import Changes
from .table import CountedFrom, Parts, ProjectionTable

_SQL = statements("tables.late_results")
_KINDS: Final[dict[type[Event], str]] = {LateResult: "late", ResultAdopted: "adopted"}


class Rescued(NamedTuple):
    """Results of one kind: how many, and the time that computing them took, in seconds.

    `core_s` counts each second as often as the task had processor cores.
    """

    n_results: int = 0
    compute_s: float = 0.0
    core_s: float = 0.0


def write(db: Db, changes: Changes) -> None:
    """Add what has happened."""
    _add(db, (recorded.event for recorded in changes.happened))


def lock_counts(db: Db) -> None:
    """Lock the counts, for a transaction that counts in several steps."""
    db.execute(_SQL["hold"])


def fill(connection: Connection[Any]) -> None:
    """Count what a log holds from before there was this table."""
    event_of = EventMapper(MsgpackTranscoder()).event_of
    with connection.cursor("rescues") as rows:
        rows.execute(_SQL["of_old_logs"], {"topics": [found.topic for found in _KINDS]})
        for batch in iter(lambda: rows.fetchmany(1_000), []):
            _add(connection, (event_of(topic, bytes(state)) for topic, state in batch))


def totals(db: Db) -> dict[str, Rescued]:
    """Return what was late, and what of it was adopted."""
    found = {kind: Rescued() for kind in _KINDS.values()}
    for kind, n_results, compute_ms, core_ms in db.execute(_SQL["totals"], prepare=True):
        found[kind] = Rescued(n_results, compute_ms / 1000, core_ms / 1000)
    return found


def sums_of(events: Iterable[Event]) -> dict[str, list[int]]:
    """Return, by kind, how many results these events add, and what they had cost."""
    sums: dict[str, list[int]] = {}
    for event in events:
        if type(event) in _KINDS and isinstance(event, LateResult | ResultAdopted):
            added = sums.setdefault(_KINDS[type(event)], [0, 0, 0])
            for place, n in enumerate((1, *_cost_ms(event.outcome))):
                added[place] += n
    return sums


def _sums(_: Db, changes: Changes) -> list[tuple[str | int, ...]]:
    sums = sums_of(recorded.event for recorded in changes.happened)
    return [(kind, *added) for kind, added in sums.items()]


TABLE: Final = ProjectionTable(
    name="rescue_counts",
    key=("kind",),
    counted=CountedFrom(),
    events=frozenset(_KINDS),
    write=write,
    columns={
        "kind": "text",
        "n_results": "bigint",
        "compute_ms": "bigint",
        "core_ms": "bigint",
    },
    rows=_sums,
    parts=Parts("rescue_count_parts", _SQL["add_up"]),
)


def _add(db: Db | Connection[Any], events: Iterable[Event]) -> None:
    # In the order of the key, so that two transactions never wait for each other in a circle.
    for kind, (n_results, compute_ms, core_ms) in sorted(sums_of(events).items()):
        db.execute(
            _SQL["add"],
            {"kind": kind, "n_results": n_results, "compute_ms": compute_ms, "core_ms": core_ms},
        )


def _cost_ms(outcome: Outcome) -> tuple[int, int]:
    # Whole milliseconds: sums of floats would depend on the order in which they are added.
    compute_ms = round(1000 * (outcome.compute_s or 0.0))
    return compute_ms, compute_ms * (outcome.cores or 1)
