"""Compares the tables of counts, the claim queue and operations with the rows they follow from.

These tables follow from the rows of all aggregates. So they are compared with what these rows add
up to, with the rows in the shadow in place of those that are known to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.sql import SQL, Composable, Identifier, Literal

from recordledger.domain.records.events import LateResult, ResultAdopted
from recordledger.domain.streams import Stream

from ..ledger import Ledger
from ..replay.replay import Difference
from ..store.database import Db
from ..store.statements import statements
from ..tables.inline import INLINE
from ..tables.late_results import sums_of
from ..tables.table import CountedFrom, ProjectionTable
from .aggregates import DIFFERENCES_MAX, Expected, head_of
from .user_blocks import BlockAudit

_SQL: Final = statements("self_audit.self_audit")
_OPERATIONS: Final = statements("tables.operations")
_TOPICS: Final = [LateResult.topic, ResultAdopted.topic]
# Number of positions of the log that are searched for late results in one snapshot.
_SEARCHED_AT_ONCE: Final = 200_000
_ALL: Final = SQL("true")
_TOLD: Final = ("action", "actor", "reason", "started_at", "undoes")

Wrong = Mapping[Stream, Iterable[int]]
"""Aggregates whose rows are known to be wrong, and whose right rows are in the shadow."""

_COUNTED: Final = [(table, table.counted) for table in INLINE if table.counted is not None]
COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    table.name: counted.sources for table, counted in _COUNTED
}
"""The tables that are compared here, and those that they follow from."""
_SOURCES: Final = {source for sources in COUNTED.values() for source in sources}


@dataclass(slots=True)
class _Rescues:
    """What came late, as far as the log was searched for it."""

    position: int = 0
    sums: dict[str, list[int]] = field(default_factory=dict[str, list[int]])


class Counted:
    """Compares the counted tables; remembers what need not be read from the log again."""

    def __init__(self, ledger: Ledger, shadow: Expected) -> None:
        """Know nothing yet."""
        self._ledger = ledger
        self._shadow = shadow
        self._rescues = _Rescues()
        self._blocks = BlockAudit(shadow)
        self._operations: dict[UUID, int] = {}

    def search_blocks(self, db: Db, head: int) -> bool:
        """Search a part of the log for what users did; return whether that was the last."""
        return self._blocks.search(db, head)

    def search(self, db: Db, head: int) -> bool:
        """Search a part of the log for what came late; return whether that was the last."""
        rescues, event_of = self._rescues, self._ledger.event_mapper.event_of
        upto = min(head, rescues.position + _SEARCHED_AT_ONCE)
        parameters = {"after": rescues.position, "upto": upto, "topics": _TOPICS}
        rows = db.execute(_SQL["rescues"], parameters)
        for kind, added in sums_of(event_of(topic, bytes(state)) for topic, state in rows).items():
            total = rescues.sums.setdefault(kind, [0, 0, 0])
            for place, n in enumerate(added):
                total[place] += n
        rescues.position = upto
        return upto >= head

    def can_compare(self, table: str, key: Sequence[str], head: int) -> bool:
        """Return whether the last comparison would have found this row, if it were wrong."""
        return table != "user_blocks" or self._blocks.knows(int(key[1]), head)

    def compare(self, db: Db, wrong: Wrong) -> list[Difference]:
        """Return the rows of all these tables that are not what they should be."""
        return [each for table in COUNTED for each in self.compare_table(db, table, wrong)]

    def compare_table(
        self, db: Db, table: str, wrong: Wrong, key: tuple[str, ...] | None = None
    ) -> list[Difference]:
        """Return the rows of one of these tables that are not what they should be.

        Args:
            db: in a transaction; for `rescue_counts` and `user_blocks`, that of the last search.
            table: its name.
            wrong: what is corrected by the shadow.
            key: only this row, where that spares looking at all.
        """
        [(found, counted)] = [each for each in _COUNTED if each[0].name == table]
        if counted.expected is not None:
            return self._recount(db, found, counted, counted.expected, wrong, key)
        checks: Mapping[str, Callable[[Db, Wrong, tuple[str, ...] | None], list[Difference]]] = {
            "operations": self._compare_operations,
            "rescue_counts": self._rescue_counts,
            "user_blocks": self._user_blocks,
        }
        return checks[table](db, wrong, key)

    def _recount(
        self,
        db: Db,
        table: ProjectionTable,
        counted: CountedFrom,
        expected: LiteralString,
        wrong: Wrong,
        key: tuple[str, ...] | None,
    ) -> list[Difference]:
        """Compare a table with what a statement counts."""
        only: Composable = _ALL
        mine: Composable = _ALL
        if table.zero is not None:
            mine = SQL("{} <> 0").format(Identifier(table.zero))
        elif key is not None and counted.record is not None:
            number = key[table.key.index(counted.record)]
            only, mine = _one(counted.only, number), _one(counted.record, number)
        return self._shadow.differences(
            db,
            table.name,
            self._expected(expected, wrong, only),
            counted.parameters,
            columns=(*table.key, *counted.columns) if counted.columns else (),
            mine=mine,
            look_first=key is None,
        )

    def _rescue_counts(self, db: Db, wrong: Wrong, key: tuple[str, ...] | None) -> list[Difference]:
        kinds = sorted(self._rescues.sums)
        columns = zip(*(self._rescues.sums[kind] for kind in kinds), strict=True)
        names = ("n_results", "compute_ms", "core_ms")
        empty: dict[str, list[Any]] = {name: [] for name in names}
        parameters = empty | dict(zip(names, map(list[Any], columns), strict=False))
        said = SQL(_SQL["expect_rescue_counts"])
        return self._shadow.differences(db, "rescue_counts", said, {"kinds": kinds, **parameters})

    def _user_blocks(self, db: Db, wrong: Wrong, key: tuple[str, ...] | None) -> list[Difference]:
        if key is None:
            return self._blocks.compare(db, head_of(db)[0])
        return self._blocks.compare_row(db, key[0], int(key[1]))

    def _compare_operations(
        self, db: Db, wrong: Wrong, key: tuple[str, ...] | None
    ) -> list[Difference]:
        """Compare how much each operation has changed, and what its first event says of it."""
        only = None if key is None else UUID(key[0])
        found = self._shadow.differences(
            db,
            "operations",
            self._expected(_OPERATIONS["expected"], wrong, _one("c.operation_id", only)),
            {},
            columns=("id", "n_changes"),
            mine=_one("id", only),
        )
        said = SQL(_SQL["expect_operations_told"])
        lacking = {UUID(each.key[0]) for each in found if each.live is None}
        checksums: dict[UUID, int] = dict(db.execute(_SQL["operation_checksums"]).fetchall())
        told = self._unproved(db, checksums, only, lacking, wrong)
        if not told["ids"]:
            return found
        by_key = {each.key: each for each in found}
        for each in self._shadow.differences(
            db, "operations", said, told, columns=("id", *_TOLD), mine=SQL("id = ANY(%(ids)s)")
        ):
            by_key[each.key] = _merged(each, by_key.get(each.key))
        if len(by_key) < DIFFERENCES_MAX:
            wrong_now = {UUID(each.key[0]) for each in by_key.values()}
            proved = (id_ for id_ in told["ids"] if id_ in checksums and id_ not in wrong_now)
            self._operations.update((id_, checksums[id_]) for id_ in proved)
        return list(by_key.values())

    def _unproved(
        self,
        db: Db,
        checksums: Mapping[UUID, int],
        only: UUID | None,
        lacking: Iterable[UUID],
        wrong: Wrong,
    ) -> dict[str, list[Any]]:
        """Return what operations that are not proved say in the log."""
        first = SQL(_SQL["first_of_operation"]).format(
            operation_changes=self._shadow.corrected("operation_changes", wrong)
        )
        if only is None:
            ids = [
                id_ for id_, checksum in checksums.items() if self._operations.get(id_) != checksum
            ]
        else:
            ids = [only] if only in checksums else []
        told: dict[str, list[Any]] = {
            name: [] for name in ("ids", "actions", "actors", "reasons", "times", "undoes")
        }
        for id_ in (*ids, *lacking):
            row = db.execute(first, {"id": id_}).fetchone()
            if row is None:
                continue
            event = self._ledger.event_mapper.event_of(row[0], bytes(row[1]))
            values = (id_, event.action, event.actor, event.reason, event.timestamp, event.undoes)
            for column, value in zip(told.values(), values, strict=True):
                column.append(value)
        return told

    def _expected(
        self, statement: LiteralString, wrong: Wrong, only: Composable = _ALL
    ) -> Composable:
        sources = {name: self._shadow.corrected(name, wrong) for name in _SOURCES}
        return SQL(statement).format(only=only, **sources)


def _one(column: str, value: object | None) -> Composable:
    """Return the condition that a column has this value; none for None."""
    if value is None:
        return _ALL
    name = SQL(".").join(map(Identifier, column.split(".")))
    return SQL("{} = {}").format(name, Literal(int(value) if isinstance(value, str) else value))


def _merged(one: Difference, other: Difference | None) -> Difference:
    """Return the two halves of a difference as one."""
    if other is None:
        return one
    halves = [
        None if a is None and b is None else {**(a or {}), **(b or {})}
        for a, b in ((one.live, other.live), (one.replayed, other.replayed))
    ]
    return Difference(one.table, one.key, *halves)
