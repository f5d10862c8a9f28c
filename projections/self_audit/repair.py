"""Repairs: rows that were found to differ from the log are repaired on request.

The row is compared with the log once more, under the locks of those who may change it, and written
in the same transaction as the event that says so. What is live is updated and not replaced, so that
a transaction that waits for its lock finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from psycopg.errors import IntegrityError
from psycopg.sql import SQL, Identifier

from recordledger.domain.admin.divergence import (
    DivergenceAggregate,
    DivergenceGone,
    DivergenceRepaired,
    DivergenceState,
)
from recordledger.domain.errors import UnreadableEvent
from recordledger.domain.streams import Stream

from ..ledger import Ledger, Operation
from ..log.recorder import LOG_LOCK
from ..replay.replay import Difference
from ..store.database import Db, as_ledger_errors
from ..store.statements import statements
from ..tables import divergences
from ..tables.inline import INLINE
from .aggregates import OWNED, Expected, head_of, owner_of
from .counts import COUNTED, Counted
from .self_audit import is_counted, lock_divergences

_SQL: Final = statements("self_audit.self_audit")
# Whose row is counted over many and still belongs to one record, which is held: where in the key.
_OF_RECORDS: Final = {
    table.name: table.key.index(table.counted.record)
    for table in INLINE
    if table.counted is not None and table.counted.record is not None
}


class _NobodyKnows(Exception):
    """The history that says what is right cannot be folded. Said as a refusal."""


class Repair(NamedTuple):
    """The outcome of one divergence: its state, and why it is still open if it is."""

    divergence: DivergenceAggregate
    refusal: str | None = None


def repair(
    ledger: Ledger,
    *,
    actor: str,
    reason: str | None = None,
    table: str | None = None,
    key: Sequence[str] | None = None,
) -> list[Repair]:
    """Repair what is known to be wrong: all of it, what is in a table, or one row.

    Each row is a transaction of its own. Those that counts follow from come first.

    Raises:
        StoreUnavailable: the database does not answer; what was repaired is repaired.
    """
    with ledger.datastore.reading() as db:
        wanted = [
            each
            for each in divergences.open_now(db)
            if (table is None or each.table == table) and (key is None or each.key == tuple(key))
        ]
    if not wanted:
        return []
    done: dict[int, Repair] = {}
    with as_ledger_errors():
        shadow = Expected(ledger)
        try:
            left = sorted(wanted, key=lambda each: (is_counted(each), each.id))
            while left:
                for each in left:
                    done[each.id] = _repair(ledger, shadow, each.id, actor, reason) or Repair(each)
                # Rows may be in each other's way: what was refused is tried again if others went.
                n_before = len(left)
                left = [each for each in left if done[each.id].refusal is not None]
                if len(left) == n_before:
                    break
        finally:
            shadow.close()
    return [done[each.id] for each in wanted]


def _repair(
    ledger: Ledger, shadow: Expected, divergence_id: int, actor: str, reason: str | None
) -> Repair | None:
    try:
        with shadow.changing() as db:
            lock_divergences(db)
            divergence = divergences.lock(db, divergence_id)
            if divergence is None or divergence.state is not DivergenceState.open:
                return None if divergence is None else Repair(divergence)
            if (refusal := _refusal(db, divergence)) is not None:
                return Repair(divergence, refusal)
            _lock_row(db, shadow, divergence)
            n_wrong = _repair_row(ledger, db, shadow, divergence)
            operation = Operation(ledger, db, actor, reason)
            event_type = DivergenceRepaired if n_wrong else DivergenceGone
            event = event_type(**operation.stamp.model_dump())
            ended = operation.happen(divergence, [event])
            operation.write()
    except IntegrityError as error:
        why = f"another row is in the way ({str(error).splitlines()[0]})"
    except (_NobodyKnows, UnreadableEvent) as error:
        why = f"the right row cannot be computed from the log ({error})"
    else:
        return Repair(ended)
    with ledger.datastore.reading() as db:
        found = [each for each in divergences.open_now(db) if each.id == divergence_id]
    return Repair(found[0], why) if found else None


def _refusal(db: Db, divergence: DivergenceAggregate) -> str | None:
    """Return why a row cannot be repaired now: what it is counted from is wrong."""
    if not is_counted(divergence):
        return None
    sources = [
        f"{each.table} {', '.join(each.key)}"
        for each in divergences.open_now(db)
        if each.table in COUNTED[divergence.table] and not is_counted(each)
    ]
    return f"first repair what it is counted from, such as {sources[0]}" if sources else None


def _lock_row(db: Db, shadow: Expected, divergence: DivergenceAggregate) -> None:
    """Lock the row, and what it follows from, against changes."""
    table, key = divergence.table, divergence.key
    if not is_counted(divergence):
        owner = owner_of(table, key)
    elif table in _OF_RECORDS:
        owner = Stream.record, int(key[_OF_RECORDS[table]])
    elif table == "user_blocks":
        # A transaction that notes a block has the log already, and would wait for the table.
        db.execute(_SQL["hold_log"], {"lock": LOG_LOCK})
        return
    else:
        db.execute(SQL(_SQL["hold_table"]).format(live=shadow.live(table)))
        return
    if owner is None:
        return
    main = OWNED[owner[0]][0]
    held = [(main.table, main.owner)]
    if table == "services":
        held.append(("services", "record_id"))
    for name, column in held:
        statement = SQL(_SQL["hold_owner"]).format(live=shadow.live(name), key=Identifier(column))
        db.execute(statement, {"number": owner[1]})


def _repair_row(ledger: Ledger, db: Db, shadow: Expected, divergence: DivergenceAggregate) -> int:
    """Repair the row; return whether anything was wrong with it.

    Raises:
        _NobodyKnows, UnreadableEvent: the log cannot be read where it says what is right.
    """
    table, key = divergence.table, divergence.key
    n_wrong = 0
    owner = owner_of(table, key)
    if owner is not None and not is_counted(divergence):
        stream, number = owner
        compared = shadow.compare(db, stream, [number], limit=None)
        if number in compared.unreadable:
            raise _NobodyKnows(compared.unreadable[number])
        for each in _same(compared.differences, divergence):
            shadow.repair_row(db, each, by_shadow=True)
            n_wrong += 1
    if table in COUNTED:
        counted = Counted(ledger, shadow)
        if table == "rescue_counts":
            while not counted.search(db, head_of(db)[0]):
                pass
        for each in _same(counted.compare_table(db, table, {}, key), divergence):
            shadow.repair_row(db, each, by_shadow=False)
            n_wrong += 1
    return n_wrong


def _same(found: Sequence[Difference], divergence: DivergenceAggregate) -> list[Difference]:
    return [each for each in found if (each.table, each.key) == (divergence.table, divergence.key)]
