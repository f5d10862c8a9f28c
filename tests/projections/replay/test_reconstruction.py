"""Going back: the tables as they were at a position of the log, or at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from psycopg import Connection
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from recordledger.domain.errors import BeforeTheBeginning, FutureMoment, InvalidInput
from recordledger.domain.records import events as e
from recordledger.projections.replay.reconstruction import keep, position_at, position_of, replay_to
from recordledger.projections.store.database import cursor_of
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.status_counts import by_status

from ..stage import Stage, drop_shadow, good
from .test_replay import collected, furnish, schemas


def rows_of(connection: Connection[TupleRow], schema: str | None = None) -> dict[str, list[str]]:
    """Return what is in each projection, in a schema or in the search path."""
    found: dict[str, list[str]] = {}
    for table in PROJECTIONS:
        name = Identifier(table) if schema is None else Identifier(schema, table)
        rows = connection.execute(SQL("SELECT * FROM {}").format(name)).fetchall()
        # A count of zero is the same as no row.
        counted = table in ("status_counts", "dataset_counts")
        found[table] = sorted(str(row) for row in rows if not (counted and row[-1] == 0))
    return found


def test_at_every_moment_the_tables_are_what_they_were_then(stage: Stage) -> None:
    seen: list[tuple[int, dict[str, list[str]]]] = []

    def look() -> None:
        with stage.connected() as connection:
            seen.append((stage.newest(), rows_of(connection)))

    furnish(stage)
    look()
    children = stage.submit(3)
    service_id = stage.service(*children)
    look()
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id), good())
    look()
    collected(stage)
    look()
    stage.happen(service_id, e.Cancelled)
    stage.happen(children[0], e.Invalidated)
    assert len({position for position, _ in seen}) == len(seen)
    for position, before in seen:
        with replay_to(stage.ledger, position) as connection:
            assert rows_of(connection) == before
            log = connection.execute("SELECT max(notification_id) FROM ledger_events").fetchone()
            assert log == (position,)


def test_what_is_seen_cannot_be_changed_and_is_gone_afterwards(stage: Stage) -> None:
    stage.submit(2)
    before = schemas(stage)
    with replay_to(stage.ledger, 1) as connection:
        assert sum(by_status(cursor_of(connection)).values()) == 1
        with pytest.raises(ReadOnlySqlTransaction):
            connection.execute("DELETE FROM records")
    assert schemas(stage) == before


# Which position


def test_a_time_is_the_longest_beginning_without_a_later_event(stage: Stage) -> None:
    """Times are not in the order of positions: what is late in the log may have been early."""
    (record_id,) = stage.submit()
    [created] = stage.events(record_id)
    minutes = [10, 20, 40, 30, 50, 45]
    for minute in minutes:
        at = created.timestamp + timedelta(minutes=minute)
        stage.happen(record_id, e.Commented, text="a remark", timestamp=at)

    def position_after(minute: float) -> int:
        return _position_at(stage, created.timestamp + timedelta(minutes=minute))

    # Positions are 1 for the record, and 2 to 7 for the remarks.
    assert [position_after(minute) for minute in (0, 9, 10, 20, 39, 40, 49, 50, 60)] == [
        1, 1, 2, 3, 3, 5, 5, 7, 7,
    ]  # fmt: skip


def _position_at(stage: Stage, moment: datetime) -> int:
    """Return the position of a time that may not have come yet: the clock is the database's."""
    with stage.connected() as connection, connection.transaction():
        return position_at(stage.ledger, connection, moment, stage.newest())


def test_a_position_between_two_events_is_the_one_before(stage: Stage) -> None:
    ids = stage.submit(3)
    stage.do("SELECT nextval(pg_get_serial_sequence('ledger_events', 'notification_id'))")
    stage.happen(ids[0], e.Held)
    assert stage.newest() == 5
    with replay_to(stage.ledger, 4) as connection:
        assert {str(status): n for status, n in by_status(cursor_of(connection)).items()} == {
            "waiting": 3
        }


@pytest.mark.parametrize("ahead", [1, 10**6])
def test_a_position_that_has_not_come_is_refused(stage: Stage, ahead: int) -> None:
    stage.submit()
    with pytest.raises(FutureMoment, match="is in the future: the log ends at position 1") as error:
        position_of(stage.ledger, 1 + ahead)
    assert (error.value.asked, error.value.head) == (1 + ahead, 1)


def test_a_time_that_has_not_come_is_refused(stage: Stage) -> None:
    stage.submit()
    with pytest.raises(FutureMoment):
        position_of(stage.ledger, datetime.now(UTC) + timedelta(hours=1))


@pytest.mark.parametrize("as_of", [0, -1, datetime(2001, 1, 1, tzinfo=UTC)])
def test_what_was_before_everything_is_refused(stage: Stage, as_of: int | datetime) -> None:
    stage.submit()
    with pytest.raises(BeforeTheBeginning, match="begins at position 1"):
        position_of(stage.ledger, as_of)


def test_an_empty_log_has_no_moments(stage: Stage) -> None:
    with pytest.raises(BeforeTheBeginning, match="is empty"):
        position_of(stage.ledger, datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(FutureMoment):
        position_of(stage.ledger, 1)


# Kept


def test_the_tables_as_they_were_are_kept_in_a_schema(stage: Stage) -> None:
    furnish(stage)
    drop_shadow(stage.url, stage.schema)
    position = stage.newest()
    with stage.connected() as connection:
        before = rows_of(connection)
    collected(stage)
    names = schemas(stage)
    assert keep(stage.ledger, position, "Friday's") == position
    try:
        assert sorted({*schemas(stage)} - {*names}) == ["Friday's"]
        with stage.connected() as connection:
            assert rows_of(connection, "Friday's") == before
            # The live ledger is as free as before.
            connection.execute("ALTER TABLE payloads ALTER COLUMN codec TYPE text")
            lanes = connection.execute('SELECT count(*) FROM "Friday\'s".lanes').fetchone()
            assert lanes is not None
            assert lanes[0] > 0
        indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = 'records'"
        assert sorted(stage.ask(indexes, ["Friday's"])) == sorted(
            stage.ask(indexes, [stage.schema])
        )
        with pytest.raises(InvalidInput, match='DROP SCHEMA "Friday\'s" CASCADE'):
            keep(stage.ledger, position, "Friday's")
    finally:
        stage.do('DROP SCHEMA "Friday\'s" CASCADE')
    stage.require_equal()


def test_what_cannot_be_folded_leaves_no_schema(stage: Stage) -> None:
    stage.submit()
    names = schemas(stage)
    with pytest.raises(FutureMoment):
        keep(stage.ledger, 7, "friday")
    with pytest.raises(InvalidInput, match="a name for temporary schemas"):
        keep(stage.ledger, 1, f"{stage.schema}_shadow_01234567")
    assert schemas(stage) == names
