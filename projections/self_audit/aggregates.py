"""What the rows of a few aggregates should be by the log, in a shadow beside the live ones.

Temporary tables of one connection are filled by the statements that fill the live ones. Looking
happens in read-only snapshots, in which nothing but temporary tables can be written.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import IsolationLevel
from psycopg.errors import DataError, IntegrityError
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from psycopg.types.json import Jsonb

from recordledger.domain.aggregates import AGGREGATES
from recordledger.domain.errors import ImpossibleHistory, UnknownEvent, UnreadableEvent
from recordledger.domain.records.events import Event
from recordledger.domain.streams import ID_MAX, Stream, stream_number, stream_uuid

from ..ledger import Ledger
from ..log.mapper import Recorded
from ..replay.replay import Difference, FoldedBatch
from ..store.database import Db, connect, cursor_of, one
from ..store.statements import shipped, statements
from ..tables.inline import INLINE, PROJECTIONS
from ..tables.lanes import LaneRegistry

_SQL: Final = statements("self_audit.self_audit")
_LOG: Final = statements("log.ledger_events")
# Number of aggregates that are folded together: their histories are in memory at once.
_FOLDED_AT_ONCE: Final = 256
# Number of folded aggregates after which the temporary tables are made again: deleted rows take
# space.
_FOLDED_MAX: Final = 5_000

_ALL: Final = SQL("true")

DIFFERENCES_MAX: Final = 2_000
"""Maximum number of differences of one table that are examined together."""


class Owned(NamedTuple):
    """A table each of whose rows follows from the history of one aggregate alone.

    Attributes:
        table: its name.
        owner: the column that has the number of the aggregate.
        columns: those that follow from it; all if empty.
        has_stream: whether the rows of all kinds of aggregates are in it, and say which is theirs.
    """

    table: str
    owner: str
    columns: tuple[str, ...] = ()
    has_stream: bool = False


def _owned(stream: Stream) -> Iterator[Owned]:
    """Give the tables with rows of a kind of aggregates, first its own, then those of all kinds."""
    for of in (stream, None):
        for table in INLINE:
            if table.owner is not None and table.owner.stream is of:
                yield Owned(table.name, table.owner.column, table.owner.columns, of is None)


OWNED: Final[Mapping[Stream, tuple[Owned, ...]]] = {
    stream: tuple(_owned(stream)) for stream in AGGREGATES
}
"""The tables by what their rows belong to; what is in none of them is counted over all."""


def owner_of(table: str, key: Sequence[str]) -> tuple[Stream, int] | None:
    """Return the aggregate that a row belongs to; None if it is counted over many."""
    columns = PROJECTIONS[table]
    for stream, tables in OWNED.items():
        for owned in tables:
            if owned.table != table:
                continue
            if owned.has_stream and key[columns.index("stream")] != str(int(stream)):
                continue
            return stream, int(key[columns.index(owned.owner)])
    return None


class Compared(NamedTuple):
    """The outcome of comparing some aggregates.

    Attributes:
        differences: the rows that are not what the log says.
        wrong: the aggregates they belong to, and those whose history cannot be folded.
        unreadable: those whose history cannot be folded, and why.
        is_whole: whether these are all differences.
    """

    differences: list[Difference]
    wrong: set[int]
    unreadable: dict[int, str]
    is_whole: bool


class Expected:
    """A connection with a temporary table for each projection."""

    def __init__(self, ledger: Ledger) -> None:
        """Connect."""
        self._ledger = ledger
        self._connection = connect(ledger.url, ledger.schema)
        self._is_held = False
        self._n_folded = 0
        self._texts: dict[tuple[str, Stream | None, str], LiteralString] = {}
        live = Identifier(ledger.schema)
        # Temporary tables come first unless they are named.
        self._usual: Final = SQL("{}, pg_temp").format(live)
        self._folding: Final = SQL("pg_temp, {}").format(live)
        self._connection.execute(SQL("SET search_path = {}").format(self._usual))
        for table in PROJECTIONS:
            self._connection.execute(
                SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING ALL)").format(
                    Identifier(table), Identifier(ledger.schema, table)
                )
            )
        # Not the ledger's own registry: what it remembers may not be what the table has.
        self._lanes = LaneRegistry(ledger.datastore)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Generator[Db]:
        """Give a cursor that sees the database as it is at one moment, and changes nothing."""
        if self._is_held:
            yield cursor_of(self._connection)
            return
        self._refresh()
        self._connection.isolation_level = IsolationLevel.REPEATABLE_READ
        self._connection.read_only = True
        with self._connection.transaction():
            yield cursor_of(self._connection)

    @contextmanager
    def held(self) -> Generator[None]:
        """Make all snapshots taken in between one."""
        with self.snapshot():
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    @contextmanager
    def changing(self) -> Generator[Db]:
        """Give a cursor in a transaction that may change what is live."""
        self._refresh()
        self._connection.isolation_level = IsolationLevel.READ_COMMITTED
        self._connection.read_only = False
        with self._connection.transaction():
            yield cursor_of(self._connection)

    def _refresh(self) -> None:
        if self._n_folded > _FOLDED_MAX:
            self._connection.read_only = False
            tables = SQL(", ").join(Identifier("pg_temp", table) for table in PROJECTIONS)
            self._connection.execute(SQL("TRUNCATE {}").format(tables))
            self._n_folded = 0
            self._lanes = LaneRegistry(self._ledger.datastore)

    # What the rows are

    def suspects(self, db: Db, stream: Stream, number: int, low: int, high: int) -> list[int]:
        """Return the numbers in [low, high] whose checksum differs from the proven one."""
        text = self._text("suspects", stream, "BETWEEN %(low)s AND %(high)s")
        parameters = {"stream": int(stream), "range": number, "low": low, "high": high}
        return [row[0] for row in db.execute(text, parameters)]

    def checksums(self, db: Db, stream: Stream, numbers: Sequence[int]) -> dict[int, int]:
        """Return the checksums of the rows of aggregates; 0 for those without any."""
        text = self._text("checksums", stream, "= ANY(%(numbers)s)")
        found = dict.fromkeys(numbers, 0)
        found.update(db.execute(text, {"numbers": list(numbers)}).fetchall())
        return found

    def outside(self, db: Db, stream: Stream, high: int) -> list[int]:
        """Return aggregates with numbers that the log has not come to, at most 1,000 a table."""
        found: set[int] = set()
        for owned in OWNED[stream]:
            for condition in ("< 0", "> %(high)s"):
                text = self._formatted(
                    "outside",
                    owner=Identifier(owned.owner),
                    live=self.live(owned.table),
                    mine=self._owned_rows(owned, stream, condition),
                )
                parameters = {"high": high, "limit": 1_000}
                found.update(row[0] for row in db.execute(text, parameters))
        return sorted(found)

    # What they should be

    def compare(
        self, db: Db, stream: Stream, numbers: Sequence[int], limit: int | None = DIFFERENCES_MAX
    ) -> Compared:
        """Fold the histories of aggregates, and compare the results with their rows.

        Args:
            db: in a transaction.
            stream: their kind.
            numbers: their numbers.
            limit: maximum number of differences of each table; None for all.
        """
        unreadable = self.fold(db, stream, numbers)
        readable = [number for number in numbers if number not in unreadable]
        found: list[Difference] = []
        is_whole = True
        for owned in OWNED[stream]:
            some = self.differences(
                db,
                owned.table,
                SQL("SELECT {} FROM pg_temp.{}").format(
                    _names(owned.columns), Identifier(owned.table)
                ),
                {"numbers": readable},
                columns=owned.columns,
                mine=self._owned_rows(owned, stream, "= ANY(%(numbers)s)"),
                limit=limit,
            )
            found += some
            is_whole = is_whole and (limit is None or len(some) < limit)
        wrong = {owner[1] for each in found if (owner := owner_of(each.table, each.key))}
        return Compared(
            found, set(numbers) if not is_whole else wrong | set(unreadable), unreadable, is_whole
        )

    def fold(
        self, db: Db, stream: Stream, numbers: Sequence[int], *, besides: bool = False
    ) -> dict[int, str]:
        """Fill the shadow with what the log says of aggregates.

        Args:
            db: in a transaction.
            stream: their kind.
            numbers: their numbers.
            besides: keep what is in the shadow.

        Returns:
            Those whose histories cannot be folded, and why.
        """
        self._look(db, self._folding)
        if not besides:
            for table in PROJECTIONS:
                db.execute(SQL("DELETE FROM pg_temp.{}").format(Identifier(table)))
        unreadable: dict[int, str] = {}
        for start in range(0, len(numbers), _FOLDED_AT_ONCE):
            part = numbers[start : start + _FOLDED_AT_ONCE]
            self._fold_part(db, stream, part, unreadable)
        self._n_folded += len(numbers)
        self._look(db, self._usual)
        return unreadable

    def differences(
        self,
        db: Db,
        table: str,
        said: Composable,
        parameters: Mapping[str, Any],
        *,
        columns: Sequence[str] = (),
        mine: Composable = _ALL,
        look_first: bool = False,
        limit: int | None = DIFFERENCES_MAX,
    ) -> list[Difference]:
        """Return the rows of a live table that are not what a query says.

        Args:
            db: in a transaction.
            table: its name.
            said: the query.
            parameters: of the query, and of `mine`.
            columns: which are compared; all if empty.
            mine: which rows are compared.
            look_first: whether there is probably no difference, in many rows.
            limit: maximum number of them; None for all.
        """
        key = PROJECTIONS[table]
        parts = {"columns": _names(columns), "live": self.live(table), "mine": mine, "said": said}
        if look_first:
            row = db.execute(self._formatted("same", **parts), parameters).fetchone()
            if row is not None and row[0]:
                return []
        text = self._formatted("differences", **parts, key=_names(key))
        rows = db.execute(text, {**parameters, "limit": limit})
        return [
            Difference(
                table,
                tuple(str((live or said)[name]).removeprefix("\\x") for name in key),
                live,
                said,
            )
            for live, said in rows
        ]

    def live(self, table: str) -> Composable:
        """Return the name of a live table."""
        return Identifier(self._ledger.schema, table)

    def corrected(self, table: str, wrong: Mapping[Stream, Iterable[int]]) -> Composable:
        """Return a live table, with the rows in the shadow instead of those of wrong aggregates."""
        for stream, tables in OWNED.items():
            for owned in tables:
                if owned.table == table and (numbers := sorted(wrong.get(stream, ()))):
                    return SQL(
                        "(SELECT * FROM {live} WHERE {owner} <> ALL({numbers})"
                        " UNION ALL SELECT * FROM pg_temp.{table})"
                    ).format(
                        live=self.live(table),
                        owner=Identifier(owned.owner),
                        numbers=Literal(numbers),
                        table=Identifier(table),
                    )
        return self.live(table)

    def repair_row(self, db: Db, difference: Difference, *, by_shadow: bool) -> None:
        """Bring one row to what it should be: by the shadow, or by what the difference says."""
        table = difference.table
        said, live = difference.replayed, difference.live
        row = said or live or {}
        same = SQL(" AND ").join
        parts: dict[str, Composable] = {
            "live": self.live(table),
            "is_the_row": same(_equal("t", "wanted", name) for name in PROJECTIONS[table]),
            "is_new": same(_equal("new", "wanted", name) for name in PROJECTIONS[table]),
            "source": Identifier("pg_temp", table)
            if by_shadow
            else SQL("jsonb_populate_record(NULL::{}, %(row)s)").format(self.live(table)),
        }
        if said is None:
            name = "remove"
        elif live is None:
            name = "add"
            # Nobody waits for it, as far as this table goes; that is counted apart.
            columns = [*said, "wanted"] if table == "services" and by_shadow else [*said]
            parts |= {
                "columns": _names(columns),
                "new_columns": SQL(", ").join(Identifier("new", each) for each in columns),
            }
        else:
            name = "put"
            parts["assignments"] = SQL(", ").join(
                SQL("{} = {}").format(Identifier(each), Identifier("new", each))
                for each in difference.columns
            )
        db.execute(self._formatted(name, **parts), {"row": Jsonb(row)})

    # Inside

    def _look(self, db: Db, path: Composed) -> None:
        db.execute(SQL("SET LOCAL search_path = {}").format(path))

    def _fold_part(
        self, db: Db, stream: Stream, numbers: Sequence[int], unreadable: dict[int, str]
    ) -> None:
        batch = FoldedBatch(self._ledger, self._lanes)
        for number, history in self._histories(db, stream, numbers, unreadable):
            try:
                batch.add(
                    stream,
                    number,
                    [
                        Recorded(stream, number, version, event)
                        for version, event in enumerate(history, start=1)
                    ],
                )
            except ImpossibleHistory as error:
                unreadable[number] = str(error)
        try:
            with db.connection.transaction():
                batch.write(db)
        except (KeyError, DataError, IntegrityError) as error:
            # Such as a payload that is not there; all others are still to be looked at.
            if len(numbers) == 1:
                unreadable[numbers[0]] = f"it cannot be written: {error!r}"
                return
            for number in numbers:
                self._fold_part(db, stream, [number], unreadable)

    def _histories(
        self, db: Db, stream: Stream, numbers: Sequence[int], unreadable: dict[int, str]
    ) -> Iterable[tuple[int, list[Event]]]:
        # Nobody has a history whose number is below zero.
        ids = [stream_uuid(stream, number) for number in numbers if number >= 0]
        rows = db.execute(_LOG["histories"], {"ids": ids}, prepare=True).fetchall()
        event_of = self._ledger.event_mapper.event_of
        for id_, events in groupby(rows, key=lambda row: row[0]):
            number = stream_number(id_)[1]
            try:
                yield number, [event_of(topic, bytes(state)) for _, topic, state in events]
            except (UnknownEvent, UnreadableEvent) as error:
                unreadable[number] = str(error)

    def _owned_rows(self, owned: Owned, stream: Stream, condition: LiteralString) -> Composable:
        own = SQL("{} {}").format(Identifier(owned.owner), SQL(condition))
        if owned.has_stream:
            return SQL("stream = {} AND {}").format(Literal(int(stream)), own)
        return own

    def _text(self, name: str, stream: Stream, condition: LiteralString) -> LiteralString:
        """Return a statement over the checksums of all rows of a kind of aggregate."""
        key = (name, stream, condition)
        if key not in self._texts:
            parts = [
                SQL(_SQL["checksum"]).format(
                    owner=Identifier(owned.owner),
                    row=SQL("ROW({})").format(_names(owned.columns)) if owned.columns else SQL("t"),
                    seed=Literal(zlib.crc32(owned.table.encode())),
                    live=self.live(owned.table),
                    mine=self._owned_rows(owned, stream, condition),
                )
                for owned in OWNED[stream]
            ]
            checksums = SQL(_SQL["checksums"]).format(rows=SQL(" UNION ALL ").join(parts))
            whole = (
                checksums
                if name == "checksums"
                else SQL(_SQL["suspects"]).format(checksums=checksums)
            )
            self._texts[key] = shipped(whole.as_string(self._connection))
        return self._texts[key]

    def _formatted(self, name: str, **parts: Composable) -> Composed:
        return SQL(_SQL[name]).format(**parts)


def _names(columns: Sequence[str]) -> Composable:
    return SQL(", ").join(map(Identifier, columns)) if columns else SQL("*")


def _equal(one: str, other: str, column: str) -> Composable:
    return SQL("{} = {}").format(Identifier(one, column), Identifier(other, column))


def head_of(db: Db) -> tuple[int, datetime]:
    """Return the newest position of the log, and when the snapshot was taken."""
    return one(db, _SQL["head"])


def newest_of(db: Db, stream: Stream) -> int:
    """Return the largest number of an aggregate of this kind in the log; 0 if there is none."""
    ends = {"first": stream_uuid(stream, 0), "last": stream_uuid(stream, ID_MAX)}
    row = db.execute(_SQL["newest_stream"], ends, prepare=True).fetchone()
    return 0 if row is None else stream_number(row[0])[1]
