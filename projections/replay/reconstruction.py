"""The tables as they once were: the log folded up to there, beside the live ones."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, TypeAlias

from psycopg import Connection
from psycopg.errors import DuplicateSchema
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal

from recordledger.domain.errors import BeforeTheBeginning, FutureMoment, InvalidInput

from ..ledger import Ledger
from ..store.database import as_ledger_errors, connect, cursor_of, one
from ..store.statements import statements
from ..tables.inline import PROJECTIONS
from .replay import Progress, fill, jobs_for
from .shadow import Shadow, is_shadow

_SQL: Final = statements("replay.reconstruction")
_ROWS: Final = 10_000

AsOf: TypeAlias = int | datetime
"""A position of the log, or a time: then the longest beginning of the log without a later event."""


def position_of(ledger: Ledger, as_of: AsOf) -> int:
    """Return the position up to which the log is meant.

    A time is looked for in the whole log, since times are not in the order of positions.

    Raises:
        FutureMoment: it has not come.
        BeforeTheBeginning: nothing had happened.
        UnreadableEvent: the log has bytes that are no event.
    """
    with (
        as_ledger_errors(),
        connect(ledger.url, ledger.schema) as connection,
        connection.transaction(),
    ):
        first, newest, now = one(connection, _SQL["bounds"])
        if isinstance(as_of, datetime):
            is_past, position = as_of <= now, position_at(ledger, connection, as_of, newest)
        else:
            is_past, position = as_of <= newest, as_of
        if not is_past:
            raise FutureMoment(as_of, newest, now)
        if first is None or position < first:
            raise BeforeTheBeginning(as_of, first)
        return position


def position_at(
    ledger: Ledger, connection: Connection[TupleRow], moment: datetime, newest: int
) -> int:
    """Return the last position before the first event that is later; 0 if there is none."""
    timestamp_of = ledger.event_mapper.timestamp_of
    before = 0
    with connection.cursor("times") as rows:
        rows.itersize = _ROWS
        rows.execute(_SQL["times"], {"upto": newest}, binary=True)
        for position, topic, state in rows:
            if timestamp_of(topic, state) > moment:
                return before
            before = position
    return before


@contextmanager
def replay_to(
    ledger: Ledger, as_of: AsOf, *, progress: Progress | None = None, jobs: int | None = None
) -> Generator[Connection[TupleRow]]:
    """Give a connection that sees the projections as they were; they are gone afterwards.

    Its search path is at them, with the log up to there as `ledger_events`, and it can only read.
    Payloads are those that there are now: what was destroyed since is gone at any moment.

    Args:
        ledger: which.
        as_of: when.
        progress: called with the number of events folded so far, and of all.
        jobs: processes that fold; as many as there are processors if the log is long enough.

    Raises:
        FutureMoment: it has not come.
        BeforeTheBeginning: nothing had happened.
        ImpossibleHistory, UnknownEvent, UnreadableEvent: the log up to there cannot be folded.
    """
    position = position_of(ledger, as_of)
    shadow = Shadow(ledger.schema, PROJECTIONS)
    with (
        as_ledger_errors(),
        connect(ledger.url, ledger.schema) as owner,
        shadow.kept(owner, logged=False),
    ):
        _fill(ledger, shadow, position, progress, jobs)
        with connect(ledger.url, shadow.name) as connection:
            _end_log(connection, shadow, position)
            connection.execute("SET default_transaction_read_only = on")
            yield connection


def keep(
    ledger: Ledger,
    as_of: AsOf,
    into: str,
    *,
    progress: Progress | None = None,
    jobs: int | None = None,
) -> int:
    """Keep the projections as they were, in a new schema of their own; return the position.

    They are tables like the live ones, with all indexes, and nothing changes them any more. Drop
    them with `DROP SCHEMA ... CASCADE`.

    Args:
        ledger: which.
        as_of: when.
        into: the schema, which must not exist.
        progress: called with the number of events folded so far, and of all.
        jobs: processes that fold; as many as there are processors if the log is long enough.

    Raises:
        InvalidInput: there is a schema of this name, or it would be taken for a shadow.
        FutureMoment: it has not come.
        BeforeTheBeginning: nothing had happened.
        ImpossibleHistory, UnknownEvent, UnreadableEvent: the log up to there cannot be folded.
    """
    if is_shadow(into, ledger.schema):
        raise InvalidInput(
            f"{into} is a name for temporary schemas, which are removed; choose another one"
        )
    position = position_of(ledger, as_of)
    shadow = Shadow(ledger.schema, PROJECTIONS, into)
    with as_ledger_errors(), connect(ledger.url, ledger.schema) as owner:
        try:
            with owner.transaction():
                shadow.create(owner, logged=True)
        except DuplicateSchema:
            raise InvalidInput(
                f"there is a schema {into} already: choose another name, or first "
                f"DROP SCHEMA {Identifier(into).as_string(owner)} CASCADE"
            ) from None
        try:
            _fill(ledger, shadow, position, progress, jobs)
            with owner.transaction():
                shadow.complete(owner)
                shadow.forget_live(owner)
                owner.execute(
                    SQL("COMMENT ON SCHEMA {} IS {}").format(
                        Identifier(into),
                        Literal(f"The tables of {ledger.schema} at position {position}"),
                    )
                )
        except BaseException:
            shadow.drop(owner)
            raise
    return position


def _fill(
    ledger: Ledger, shadow: Shadow, position: int, progress: Progress | None, jobs: int | None
) -> None:
    with connect(ledger.url, shadow.name) as connection:
        n_jobs = jobs_for(cursor_of(connection), jobs)
        fill(ledger, connection, shadow, position, jobs=n_jobs, progress=progress)


def _end_log(connection: Connection[Any], shadow: Shadow, position: int) -> None:
    """Let the log that is seen end at a position."""
    connection.execute(
        SQL("CREATE OR REPLACE VIEW {} AS SELECT * FROM {} WHERE notification_id <= {}").format(
            Identifier(shadow.name, "ledger_events"),
            Identifier(shadow.live, "ledger_events"),
            Literal(position),
        )
    )
