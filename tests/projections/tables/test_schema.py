"""The schema: the same by every way to it, and refused when it is not the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from recordledger.domain.admin.access import Role
from recordledger.domain.admin.webhook import WebhookState
from recordledger.domain.errors import SchemaMismatch, StoreUnavailable
from recordledger.domain.records.events import Kind
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.projections.reading import timeline
from recordledger.projections.store.database import DEFAULT_SCHEMA, connect
from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables import schema
from recordledger.projections.tables.inline import PROJECTIONS
from recordledger.projections.tables.schema import NEWEST, check, migrate, steps
from tests.postgres import new_database, with_database

from ..stage import staged

# What is in a schema, section by section, by what PostgreSQL itself keeps in its catalogue.
CATALOGUE: Final[dict[str, LiteralString]] = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity,
               c.reloptions, c.relacl::text, am.amname, c.reltablespace
          FROM pg_class c LEFT JOIN pg_am am ON am.oid = c.relam
         WHERE c.relnamespace = %(schema)s::regnamespace""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
               a.attcompression, a.attcollation, a.attacl::text, a.attoptions, a.attisdropped
          FROM pg_attribute a
          JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = %(schema)s::regnamespace AND a.attnum > 0""",
    "constraints": """
        SELECT c.conrelid::regclass::text, c.conname, c.contype, pg_get_constraintdef(c.oid),
               c.convalidated, c.condeferrable, c.condeferred, c.conislocal
          FROM pg_constraint c WHERE c.connamespace = %(schema)s::regnamespace""",
    "indexes": """
        SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indisunique,
               i.indisprimary, i.indisvalid, i.indisready
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = %(schema)s::regnamespace""",
    "triggers": """
        SELECT t.tgrelid::regclass::text, t.tgname, t.tgenabled, t.tgtype, t.tgisinternal,
               pg_get_triggerdef(t.oid)
          FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.relnamespace = %(schema)s::regnamespace""",
    "functions": """
        SELECT p.proname, pg_get_functiondef(p.oid), p.proacl::text
          FROM pg_proc p WHERE p.pronamespace = %(schema)s::regnamespace""",
    "sequences": """
        SELECT c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmax,
               s.seqmin, s.seqcache, s.seqcycle, d.refobjid::regclass::text, d.deptype
          FROM pg_sequence s
          JOIN pg_class c ON c.oid = s.seqrelid
          LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')
         WHERE c.relnamespace = %(schema)s::regnamespace""",
    "types": """
        SELECT t.typname, t.typtype, t.typcategory
          FROM pg_type t WHERE t.typnamespace = %(schema)s::regnamespace""",
    "privileges": """
        SELECT n.nspname, n.nspacl::text, pg_get_userbyid(n.nspowner),
               (SELECT count(*) FROM pg_default_acl a WHERE a.defaclnamespace = n.oid)
          FROM pg_namespace n WHERE n.nspname = %(schema)s""",
    "comments": """
        SELECT c.relname, d.objsubid, d.description
          FROM pg_description d JOIN pg_class c ON c.oid = d.objoid
         WHERE c.relnamespace = %(schema)s::regnamespace""",
    "migrations": "SELECT version, name FROM schema_migrations",
    "identity": "SELECT count(*) FROM ledger_identity",
}

# What another process runs: migrate as soon as it is told to, and say what came of it.
MIGRATOR: Final = """
import sys
from recordledger.projections.tables.schema import migrate
print("ready", flush=True)
sys.stdin.readline()
print(migrate(sys.argv[1]), flush=True)
"""


def catalogue(url: str) -> dict[str, list[str]]:
    with connect(url) as connection:
        return {
            section: sorted(
                str(row) for row in connection.execute(query, {"schema": DEFAULT_SCHEMA})
            )
            for section, query in CATALOGUE.items()
        }


def allowed_by(url: str, constraint: str) -> set[str]:
    """Return the values that a CHECK lists."""
    with connect(url) as connection:
        row = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = %s AND connamespace = %s::regnamespace",
            (constraint, DEFAULT_SCHEMA),
        ).fetchone()
    assert row is not None
    return set(re.findall(r"'(\w+)'::text", row[0]))


def note_version(url: str, version: int) -> None:
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO schema_migrations (version, name) VALUES (%s, 'later')", (version,)
        )


# The two ways to it


def test_a_fresh_install_is_what_all_migration_steps_lead_to(
    database_url: str, empty_database_url: str
) -> None:
    assert migrate(empty_database_url, stepwise=True) == NEWEST
    fresh, stepwise = catalogue(database_url), catalogue(empty_database_url)
    for section in CATALOGUE:
        assert stepwise[section] == fresh[section], section
    assert len(fresh["migrations"]) == len(steps())


def test_the_catalogue_would_show_a_difference(database_url: str, empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url) as connection:
        connection.execute("ALTER TABLE ledger_events ENABLE TRIGGER ledger_events_are_immutable")
        connection.execute("GRANT UPDATE ON ledger_events TO CURRENT_USER")
        connection.execute("ALTER TABLE records SET (fillfactor = 70)")
        connection.execute("ALTER TABLE payloads ALTER COLUMN data SET STORAGE EXTENDED")
        connection.execute("ALTER SEQUENCE record_ids CACHE 10")
        connection.execute("ALTER TABLE tokens ALTER COLUMN user_name DROP NOT NULL")
        connection.execute("CREATE INDEX another ON tokens (user_name)")
        connection.execute("ALTER TABLE status_counts ADD CHECK (n_records > -5)")
    one, other = catalogue(database_url), catalogue(empty_database_url)
    different = {section for section in CATALOGUE if one[section] != other[section]}
    assert {
        "relations",
        "columns",
        "constraints",
        "indexes",
        "triggers",
        "sequences",
    } <= different


def test_the_steps_are_numbered_from_one_without_a_gap() -> None:
    versions = [step.version for step in steps()]
    assert versions == list(range(1, NEWEST + 1))


@pytest.mark.parametrize("stepwise", [False, True])
def test_migrating_again_changes_nothing(database_url: str, *, stepwise: bool) -> None:
    before = catalogue(database_url)
    with connect(database_url) as connection:
        identity = connection.execute("SELECT * FROM ledger_identity").fetchall()
        assert migrate(database_url, stepwise=stepwise) == NEWEST
        assert connection.execute("SELECT * FROM ledger_identity").fetchall() == identity
    assert catalogue(database_url) == before
    check(database_url)


def test_processes_that_migrate_at_once_do_it_once(
    empty_database_url: str, database_url: str
) -> None:
    command = [sys.executable, "-c", MIGRATOR, empty_database_url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert answers == [f"{NEWEST}\n"] * 3
    assert catalogue(empty_database_url) == catalogue(database_url)


@pytest.mark.parametrize("name", ["another", "Another One", 'with "quotes" and \\'])
def test_two_ledgers_live_side_by_side_in_one_database(database_url: str, name: str) -> None:
    migrate(database_url, name)
    check(database_url, name)
    with staged(database_url) as here, staged(database_url, name) as there:
        there.submit(3)
        assert here.ask("SELECT count(*) FROM records") == [(0,)]
        assert there.ask("SELECT count(*) FROM records") == [(3,)]
        here.require_equal()
        there.require_equal()


# What is refused


def test_a_newer_schema_is_refused_by_all_who_look(database_url: str) -> None:
    note_version(database_url, NEWEST + 1)
    before = catalogue(database_url)
    for refuse in (check, migrate):
        with pytest.raises(SchemaMismatch) as refused:
            refuse(database_url)
        message = str(refused.value)
        assert f"version {NEWEST + 1}" in message
        assert f"up to {NEWEST}" in message
        assert "Upgrade recordledger" in message
    assert catalogue(database_url) == before


def test_an_older_schema_is_refused_until_it_is_migrated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "NEWEST", NEWEST + 1)
    with pytest.raises(SchemaMismatch, match=f"version {NEWEST} .*recordledger migrate"):
        check(database_url)


def test_a_later_step_is_taken_from_where_the_database_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = schema.Step(NEWEST + 1, "later", "CREATE TABLE later ()")
    monkeypatch.setattr(schema, "NEWEST", NEWEST + 1)
    monkeypatch.setattr(schema, "steps", lambda: [*steps(), later])
    with pytest.raises(SchemaMismatch):
        check(database_url)
    assert migrate(database_url) == NEWEST + 1
    check(database_url)
    with connect(database_url) as connection:
        rows = connection.execute("SELECT version, name FROM schema_migrations ORDER BY 1")
        assert rows.fetchall() == [(step.version, step.name) for step in [*steps(), later]]
        connection.execute("SELECT FROM later")


def test_a_fresh_install_takes_the_later_steps_too(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = schema.Step(NEWEST + 1, "later", "CREATE TABLE later ()")
    monkeypatch.setattr(schema, "NEWEST", NEWEST + 1)
    monkeypatch.setattr(schema, "steps", lambda: [*steps(), later])
    assert migrate(empty_database_url) == NEWEST + 1
    check(empty_database_url)
    with connect(empty_database_url) as connection:
        connection.execute("SELECT FROM later")


def test_a_step_that_fails_leaves_no_trace(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = schema.Step(NEWEST + 1, "broken", "CREATE TABLE later (); SELECT 1/0")
    before = catalogue(database_url)
    monkeypatch.setattr(schema, "steps", lambda: [*steps(), broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database_url)
    assert catalogue(database_url) == before


def test_a_database_without_a_ledger_is_refused(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"version 0 .*recordledger migrate"):
        check(empty_database_url)


def test_a_database_that_is_not_there_is_unavailable(postgres_server_url: str) -> None:
    nowhere = with_database(postgres_server_url, "no such database")
    for ask in (check, migrate):
        with pytest.raises(StoreUnavailable, match="no such database"):
            ask(nowhere)


def test_a_role_that_may_not_create_a_schema_is_told_so(own_server: EmbeddedPostgres) -> None:
    with new_database(own_server.url) as url:
        with psycopg.connect(own_server.admin_url, autocommit=True) as admin:
            admin.execute("DROP ROLE IF EXISTS guest")
            admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        guest: str = make_conninfo(url, user="guest", password="guest")  # noqa: S106
        with pytest.raises(SchemaMismatch, match=f"may not create the schema {DEFAULT_SCHEMA}"):
            migrate(guest)


# What the database allows is what the domain has


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("records_status_check", Status),
        ("records_kind_check", Kind),
        ("managers_state_check", ManagerState),
        ("tokens_role_check", Role),
        ("webhooks_state_check", WebhookState),
        ("payloads_codec_check", ("raw", "zstd")),
    ],
)
def test_the_lists_in_the_checks_are_those_of_the_domain(
    database_url: str, constraint: str, values: Iterable[StrEnum | str]
) -> None:
    assert allowed_by(database_url, constraint) == {str(value) for value in values}


def test_every_table_is_log_content_projection_proof_or_signal(database_url: str) -> None:
    with connect(database_url) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(
            sql.SQL("SELECT tablename FROM pg_tables WHERE schemaname = {}").format(DEFAULT_SCHEMA)
        ).fetchall()
    kept = {
        "ledger_events",
        "ledger_identity",
        "payloads",
        "lanes",
        "webhook_secrets",
        "webhook_deliveries",
        "schema_migrations",
    }
    forgotten = {
        "manager_heartbeats",
        "manager_failures",
        "service_leases",
        "idempotency_keys",
        "webhook_attempts",
        "self_audit_ranges",
        "job_leaders",
    }
    proof = {"seals", "seal_tiles", "seal_keys"}
    past = set(timeline.TABLES)
    assert {row[0] for row in rows} == kept | forgotten | proof | past | set(PROJECTIONS)
