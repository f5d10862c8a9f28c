"""Where in the log users did something, compared with the log: the self-audit of `user_blocks`.

The log is searched once, stretch by stretch, a few in each lap. What is noted of a stretch is
compared with that, and a checksum of it is remembered; from then on it is enough that the checksum
is the same, for the log does not change. Of what is not searched yet, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from psycopg.sql import SQL, Composable

from recordledger.domain.errors import UnreadableEvent

from ..log import user_blocks
from ..log.user_blocks import BLOCK_SIZE, Noted
from ..replay.replay import Difference
from ..store.database import Db
from ..store.statements import statements
from .aggregates import DIFFERENCES_MAX, Expected

_SQL: Final = statements("log.user_blocks")
_TABLE: Final = "user_blocks"
_BLOCKS: Final = 1_024
# Positions of a stretch.
_STRETCH: Final = _BLOCKS * BLOCK_SIZE
_OF_STRETCH: Final = SQL("block BETWEEN %(low)s AND %(high)s")
_ONE_ROW: Final = SQL("actor = %(actor)s AND block = %(block)s")


class BlockAudit:
    """Compares what is noted with the log; remembers what need not be read again."""

    def __init__(self, shadow: Expected) -> None:
        """Know nothing yet."""
        self._shadow = shadow
        self._position = 0
        # Of the stretch that the log has not come to the end of.
        self._found: set[Noted] = set()
        self._proved: dict[int, int] = {}
        self._unreadable: set[int] = set()

    def search(self, db: Db, head: int) -> bool:
        """Search the log to the end of a stretch; return whether it is searched up to its head."""
        first = self._position + 1
        stretch = first // _STRETCH
        last = min(head, (stretch + 1) * _STRETCH - 1)
        if first > last:
            return True
        try:
            self._found |= user_blocks.between(db, first, last)
        except UnreadableEvent:
            # Who looks at its history says so. Of the stretch, nobody knows what is right.
            self._unreadable.add(stretch)
        self._position = last
        if (last + 1) % _STRETCH == 0:
            is_right = stretch not in self._unreadable and not self._compare(
                db, stretch, self._found, DIFFERENCES_MAX
            )
            if is_right:
                self._proved[stretch] = self._checksums(db).get(stretch, 0)
            self._found = set()
        return last >= head

    def compare(self, db: Db, head: int) -> list[Difference]:
        """Return the rows that are not what they should be, as far as the log is searched.

        Args:
            db: in the transaction of the last search.
            head: the newest position.
        """
        checksums = self._checksums(db)
        current = (self._position + 1) // _STRETCH
        found: list[Difference] = []
        for stretch in sorted({*checksums, *range(current + 1)}):
            if not self._is_known(stretch, head):
                continue
            is_whole = 0 <= stretch < current
            if is_whole and self._proved.get(stretch) == checksums.get(stretch, 0):
                continue
            noted: set[Noted] = set()
            if is_whole:
                first = stretch * _STRETCH
                try:
                    noted = user_blocks.between(db, first, first + _STRETCH - 1)
                except UnreadableEvent:
                    # It could be read when it was searched.
                    self._unreadable.add(stretch)
                    continue
            elif stretch == current:
                noted = self._found
            some = self._compare(db, stretch, noted, DIFFERENCES_MAX - len(found))
            if is_whole and not some:
                self._proved[stretch] = checksums.get(stretch, 0)
            found += some
            if len(found) >= DIFFERENCES_MAX:
                break
        return found

    def knows(self, block: int, head: int) -> bool:
        """Return whether it can be said what should be noted of a block."""
        return self._is_known(block // _BLOCKS, head)

    def _is_known(self, stretch: int, head: int) -> bool:
        if stretch in self._unreadable:
            return False
        # Between what was searched and the head of the log there is what was not.
        is_searched = self._position >= head
        current = (self._position + 1) // _STRETCH
        return is_searched or not current <= stretch <= head // _STRETCH

    def compare_row(self, db: Db, actor: str, block: int) -> list[Difference]:
        """Return what is wrong with one row, if anything is.

        Raises:
            UnreadableEvent: there is an event in the block that cannot be read.
        """
        first = block * BLOCK_SIZE
        noted = user_blocks.between(db, first, first + BLOCK_SIZE - 1) & {(actor, block)}
        return self._differences(db, noted, _ONE_ROW, {"actor": actor, "block": block}, 1)

    def _compare(
        self, db: Db, stretch: int, noted: Iterable[Noted], limit: int
    ) -> list[Difference]:
        low = stretch * _BLOCKS
        ends = {"low": low, "high": low + _BLOCKS - 1}
        return self._differences(db, noted, _OF_STRETCH, ends, limit)

    def _differences(
        self,
        db: Db,
        noted: Iterable[Noted],
        mine: Composable,
        parameters: dict[str, Any],
        limit: int,
    ) -> list[Difference]:
        rows = sorted(noted)
        parameters |= {
            "actors": [actor for actor, _ in rows],
            "blocks": [block for _, block in rows],
        }
        said = SQL(_SQL["expected"])
        return self._shadow.differences(db, _TABLE, said, parameters, mine=mine, limit=limit)

    def _checksums(self, db: Db) -> dict[int, int]:
        statement = SQL(_SQL["checksums"]).format(live=self._shadow.live(_TABLE))
        return dict(db.execute(statement, {"blocks": _BLOCKS}).fetchall())
