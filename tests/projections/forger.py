"""A forger: what somebody can do who owns the database, knows this code, and is bent on it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import TupleRow

from recordledger.domain.proof.notes import SigningKey
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.seals import seal_next
from recordledger.projections.store.database import connect

_COLUMNS: Final = "originator_id, originator_version, topic, state, notification_id"


class Forger:
    """Changes the log, and puts it back when what it was given to undo is undone."""

    def __init__(self, url: str, chance: random.Random | None = None) -> None:
        self._url = url
        self._chance = chance or random.Random(0)  # noqa: S311
        with self._connected() as db:
            db.execute("GRANT ALL ON ledger_events TO CURRENT_USER")
            db.execute("ALTER TABLE ledger_events DISABLE TRIGGER ledger_events_are_immutable")

    def flip(self, undo: ExitStack) -> str:
        """Change one bit of one byte of what a random event says."""
        position = self._some(1)[0]
        with self._connected() as db:
            row = self._row(db, position)
            state = bytearray(row[3])
            at, bit = self._chance.randrange(len(state)), self._chance.randrange(8)
            state[at] ^= 1 << bit
            self._put(db, position, state=bytes(state))
        undo.callback(self._restore, [position], [row])
        return f"bit {bit} of byte {at} of position {position}"

    def drop(self, undo: ExitStack) -> str:
        """Leave out a random event."""
        position = self._some(1)[0]
        with self._connected() as db:
            row = self._row(db, position)
            db.execute("DELETE FROM ledger_events WHERE notification_id = %s", [position])
        undo.callback(self._restore, [], [row])
        return f"position {position} left out"

    def swap(self, undo: ExitStack) -> str:
        """Let two random events change places."""
        one, other = self._some(2)
        with self._connected() as db:
            rows = [self._row(db, one), self._row(db, other)]
            db.execute("DELETE FROM ledger_events WHERE notification_id = ANY(%s)", [[one, other]])
            self._insert(db, (*rows[0][:4], other))
            self._insert(db, (*rows[1][:4], one))
        undo.callback(self._restore, [one, other], rows)
        return f"positions {one} and {other} swapped"

    def insert(self, undo: ExitStack) -> str:
        """Add an event in the past, in a place between two others."""
        with self._connected() as db:
            position = self._some(1)[0]
            row = self._row(db, position)
            # Make room by moving everything before it down.
            db.execute(
                "UPDATE ledger_events SET notification_id = -notification_id"
                " WHERE notification_id <= %s",
                [position],
            )
            moved = "SELECT max(originator_version) FROM ledger_events WHERE originator_id = %s"
            version = db.execute(moved, [row[0]]).fetchone()
            assert version is not None
            db.execute(
                "UPDATE ledger_events SET notification_id = -notification_id - 1"
                " WHERE notification_id < 0"
            )
            self._insert(db, (row[0], version[0] + 1, row[2], row[3], position))

        def restore() -> None:
            with self._connected() as db:
                db.execute("DELETE FROM ledger_events WHERE notification_id = %s", [position])
                db.execute(
                    "UPDATE ledger_events SET notification_id = -notification_id - 1"
                    " WHERE notification_id < %s",
                    [position],
                )
                db.execute(
                    "UPDATE ledger_events SET notification_id = -notification_id"
                    " WHERE notification_id < 0"
                )

        undo.callback(restore)
        return f"an event inserted at {position}"

    def truncate(self, undo: ExitStack) -> str:
        """Cut off the newest events, some sealed ones with them."""
        position = self._some(1)[0]
        with self._connected() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM ledger_events WHERE notification_id >= %s",  # noqa: S608
                [position],
            ).fetchall()
            db.execute("DELETE FROM ledger_events WHERE notification_id >= %s", [position])
        undo.callback(self._restore, [], rows)
        return f"cut off from position {position} on"

    def alter(self, position: int) -> None:
        """Change the last byte of an event, for good."""
        with self._connected() as db:
            state = bytearray(self._row(db, position)[3])
            state[-1] ^= 1
            self._put(db, position, state=bytes(state))

    def forget_seals(self) -> None:
        """Delete all hashes, seals and keys."""
        with self._connected() as db:
            db.execute("DELETE FROM seals")
            db.execute("DELETE FROM seal_tiles")
            db.execute("DELETE FROM seal_keys")

    def rewrite(self, key: SigningKey) -> None:
        """Change an event of the beginning, and compute and sign again all that depends on it."""
        with self._connected() as db:
            sizes = [row[0] for row in db.execute("SELECT size FROM seals ORDER BY size")]
        self.alter(1)
        self.forget_seals()
        with closing(Ledger(self._url, pool_size=2)) as ledger:
            for before, size in zip([0, *sizes], sizes, strict=False):
                assert seal_next(ledger, key, events_max=size - before) is not None

    def cut_off_the_last_seal(self) -> None:
        """Cut off what the last seal has sealed, and let all be as it was before."""
        with self._connected() as db:
            db.execute("DELETE FROM seals WHERE size = (SELECT max(size) FROM seals)")
            db.execute(
                "DELETE FROM ledger_events"
                " WHERE notification_id > (SELECT max(position) FROM seals)"
            )

    def cut_off(self, position: int) -> None:
        """Cut off all events after a position, for good."""
        with self._connected() as db:
            db.execute("DELETE FROM ledger_events WHERE notification_id > %s", [position])

    def _some(self, n: int) -> list[int]:
        """Return the positions of some random sealed events."""
        with self._connected() as db:
            rows = db.execute(
                "SELECT notification_id FROM ledger_events"
                " WHERE notification_id <= (SELECT max(position) FROM seals)"
                " ORDER BY notification_id"
            ).fetchall()
        return [row[0] for row in self._chance.sample(rows, n)]

    def _restore(self, positions: Sequence[int], rows: Sequence[Sequence[Any]]) -> None:
        with self._connected() as db:
            db.execute(
                "DELETE FROM ledger_events WHERE notification_id = ANY(%s)", [list(positions)]
            )
            for row in rows:
                self._insert(db, row)

    @staticmethod
    def _row(db: Connection[TupleRow], position: int) -> TupleRow:
        row = db.execute(
            f"SELECT {_COLUMNS} FROM ledger_events WHERE notification_id = %s",  # noqa: S608
            [position],
        ).fetchone()
        assert row is not None
        return row

    @staticmethod
    def _put(db: Connection[TupleRow], position: int, *, state: bytes) -> None:
        db.execute(
            "UPDATE ledger_events SET state = %s WHERE notification_id = %s", [state, position]
        )

    @staticmethod
    def _insert(db: Connection[TupleRow], row: Sequence[Any]) -> None:
        db.execute(
            f"INSERT INTO ledger_events ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s)",  # noqa: S608
            list(row),
        )

    def _connected(self) -> closing[Connection[TupleRow]]:
        return closing(connect(self._url))
