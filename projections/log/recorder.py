"""The log: the library's recorder, with an append that is fast at any batch size and never hangs.

What differs from the library and why is measured in docs/adr/0003-the-logs-order.md: one binary
array a column instead of text composites, no pipeline mode, and an advisory lock, taken last,
instead of a table lock that also waits for VACUUM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg.errors import UniqueViolation

from recordledger.domain.records.events import Event

from ..store.database import Db, cursor_of
from ..store.statements import shipped, statements
from .user_blocks import BLOCK_SIZE, USER, Runs

# The advisory lock of the log: any fixed number that nothing else in the database uses.
LOG_LOCK: Final = 7_301_956_001
CHANNEL: Final = "ledger_events"

_SQL = statements("log.ledger_events")
# The bytes of an event that all records share, and those of each record's own.
_SHARED: Final = shipped(_SQL["append_shared"].format(state="%(state)b", states="", column=""))
_ALIKE: Final = shipped(
    _SQL["append_shared"].format(
        state="record.state", states=", %(state)b::bytea[]", column=", state"
    )
)
_NOBODY: Final = Runs([], [], [])


class LedgerRecorder(PostgresApplicationRecorder):
    """The library's recorder over the table `ledger_events`, which the migrations make."""

    def create_table(self) -> None:
        """Do nothing: the migrations own the schema."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events in a transaction of their own; return their positions."""
        if not stored_events:
            return []
        with self.datastore.get_connection() as connection, connection.transaction():
            return append(cursor_of(connection), stored_events)


def append_shared(
    db: Db, event: Event, state: bytes | list[bytes], ids: list[int], versions: list[int]
) -> None:
    """Append an event of many records, as the last thing of the transaction that `db` is in.

    Args:
        db: inside the transaction.
        event: what happens to all of them.
        state: its bytes; those for each record, if they differ.
        ids: the records, in the order in which the log shall have them.
        versions: the number of the event in the history of each.

    Raises:
        IntegrityError: one of the versions exists already: another transaction was first.
    """
    parameters: dict[str, Any] = {
        "lock": LOG_LOCK,
        "channel": CHANNEL,
        "ids": ids,
        "versions": versions,
        "topic": event.topic,
        "size": BLOCK_SIZE,
        "actor": event.actor,
        "is_by_user": event.actor.startswith(USER),
        "state": state,
    }
    try:
        db.execute(_SHARED if isinstance(state, bytes) else _ALIKE, parameters, prepare=True)
    except UniqueViolation as error:
        raise IntegrityError(str(error)) from error


def append(db: Db, stored_events: Sequence[StoredEvent], by_users: Runs = _NOBODY) -> list[int]:
    """Append the events, as the last thing of the transaction that `db` is in.

    Args:
        db: inside the transaction.
        stored_events: what is to be appended.
        by_users: which of them are by users.

    Returns:
        Their positions, in the order given.

    Raises:
        IntegrityError: one of the versions exists already: another transaction was first.
    """
    try:
        rows = db.execute(
            _SQL["append_by_users" if by_users.actors else "append"],
            {
                "lock": LOG_LOCK,
                "channel": CHANNEL,
                "ids": [event.originator_id for event in stored_events],
                "versions": [event.originator_version for event in stored_events],
                "topics": [event.topic for event in stored_events],
                "states": [event.state for event in stored_events],
                "size": BLOCK_SIZE,
                **by_users._asdict(),
            },
            prepare=True,
        ).fetchall()
    except UniqueViolation as error:
        raise IntegrityError(str(error)) from error
    return [row[0] for row in rows]
