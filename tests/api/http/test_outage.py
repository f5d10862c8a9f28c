"""When the database is away or its disk is full: 503, nothing half-done, and it resumes by itself.

Each test has a PostgreSQL of its own, since it stops it, kills it or fills its disk.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from recordledger.projections.store.embedded import EmbeddedPostgres
from recordledger.projections.tables.schema import migrate
from tests.postgres import temporary_home

from ..service import Service, Visit, eventually, is_problem, serving, task

MIB: Final = 1024 * 1024


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, with an up-to-date schema."""
    with (
        temporary_home() as home,
        EmbeddedPostgres(home, settings={"fsync": "off"}) as server,
    ):
        migrate(server.url)
        yield server


def restarted(postgres: EmbeddedPostgres, visit: Visit) -> None:
    """Start the database again, and wait until the API has noticed by itself."""
    postgres.start()
    eventually(lambda: visit.get("/ready").status_code == 200)


def is_away(answer: httpx2.Response) -> None:
    detail = is_problem(answer, 503, "store_unavailable")
    assert "nothing was half-done" in detail
    assert "postgresql://" not in detail
    assert int(answer.headers["retry-after"]) >= 1


def test_while_the_database_is_away_requests_get_503_and_then_it_goes_on(
    postgres: EmbeddedPostgres,
) -> None:
    with serving(postgres.url, database_timeout_s=0.3, token_cache_s=0) as service:
        ann = service.visit()
        ids = ann.create(task(), task())
        manager_id = ann.register()
        postgres.stop()
        body, key = {"records": [task()]}, uuid4().hex
        is_away(ann.post("/v1/records", body, key=key))
        is_away(ann.get(f"/v1/records/{ids[0]}"))
        is_away(ann.post(f"/v1/managers/{manager_id}/claim"))
        is_away(service.visit_with("rl_wrong").get("/v1/server"))
        assert ann.get("/health").status_code == 200
        assert ann.get("/ready").status_code == 503
        assert ann.get("/ready").json() == {"status": "unavailable"}
        assert "recordledger_database_up 0.0" in ann.get("/metrics").text
        restarted(postgres, ann)
        assert ann.n_records() == 2
        assert ann.post("/v1/records", body, key=key).status_code == 200
        assert ann.n_records() == 3
        assert len(ann.claim(manager_id)) == 3


def test_a_token_that_was_just_seen_does_not_hide_that_the_database_is_away(
    postgres: EmbeddedPostgres,
) -> None:
    with serving(postgres.url, database_timeout_s=0.3, token_cache_s=60) as service:
        ann = service.visit()
        ann.create(task())
        postgres.stop()
        is_away(ann.get("/v1/records/counts"))
        is_problem(ann.post("/v1/records", {"records": 5}), 422, "invalid_input")


def test_the_api_starts_before_the_database_does(postgres: EmbeddedPostgres) -> None:
    url = postgres.url
    postgres.stop()
    with serving(url, database_timeout_s=0.3) as service:
        nobody = service.visit(None)
        assert nobody.get("/ready").status_code == 503
        is_away(service.visit_with("rl_any").get("/v1/server"))
        restarted(postgres, nobody)
        assert service.visit().create(task()) == [1]


def test_a_database_that_comes_back_newer_is_not_used(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO recordledger.schema_migrations (version, name) VALUES (9999, 'later')"
        )
    url = postgres.url
    postgres.stop()
    with serving(url, database_timeout_s=0.3) as service:
        postgres.start()
        answer = service.visit_with("rl_any").get("/v1/server")
        assert "Upgrade recordledger" in is_problem(answer, 503, "schema_mismatch")
        assert service.visit(None).get("/ready").status_code == 503


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_was_acknowledged_before_the_database_was_killed_is_there_after(
    postgres: EmbeddedPostgres,
) -> None:
    with serving(postgres.url, database_timeout_s=0.3) as service:
        ann = service.visit()
        visits = [service.visit_with(ann.secret) for _ in range(4)]
        acknowledged: list[int] = []

        def submit(visit: Visit) -> int:
            """Submit until the database is gone; return how the last answer was."""
            while True:
                answer = visit.post("/v1/records", {"records": [task() for _ in range(20)]})
                if answer.status_code != 200:
                    is_away(answer)
                    return answer.status_code
                acknowledged.extend(answer.json()["ids"])

        with ThreadPoolExecutor(len(visits)) as threads:
            running = [threads.submit(submit, visit) for visit in visits]
            eventually(lambda: len(acknowledged) > 400)
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGKILL)
            assert {each.result() for each in running} == {503}
        # While it is dying it cannot be told from one that lives, and would not be started.
        eventually(lambda: postgres.poll() is not None)
        restarted(postgres, ann)
        found = ann.post("/v1/records/get", {"ids": sorted(acknowledged)})
        assert found.status_code == 200, found.text
        # What was not acknowledged is there as a whole submission or not at all.
        assert ann.n_records() % 20 == 0


# A full disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 320 MiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if sys.platform != "linux" or os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a small file system")
    with tempfile.TemporaryDirectory(prefix="rl-") as folder:
        command = [mount, "-t", "tmpfs", "-o", "size=320m,mode=755", "tmpfs", folder]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if mounted.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run([umount, folder], check=True)  # noqa: S603


def fill(disk: Path, bytes_left: int) -> Path:
    """Leave only so many bytes on a disk; return the file that takes the rest."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - bytes_left)
    return ballast


def settled(postgres: EmbeddedPostgres) -> None:
    """Have a whole new segment of the write-ahead log at hand, so that it is the tables that
    run out of space, as they do where the log has a disk of its own."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def write_to_the_log_alone(postgres: EmbeddedPostgres) -> None:
    """Write until the log needs a new file for which there is no room."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for _ in range(1000):
            connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")


def incompressible() -> dict[str, Any]:
    return task(kwargs={"noise": secrets.token_hex(128 * 1024)})


def counts_of(service: Service) -> list[int]:
    """Return how many rows there are wherever a submission leaves some."""
    tables = ("records", "claim_queue", "payloads", "payload_references", "idempotency_keys")
    with psycopg.connect(service.settings.database_url) as connection:
        found: list[int] = []
        for table in (*tables, "ledger_events"):
            query = SQL("SELECT count(*) FROM recordledger.{}").format(Identifier(table))
            row = connection.execute(query).fetchone()
            assert row is not None
            found.append(row[0])
        return found


def test_a_full_disk_refuses_what_is_new_half_does_nothing_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    options = {"min_wal_size": "64MB", "max_wal_size": "96MB", "fsync": "off"}
    with EmbeddedPostgres(small_disk, settings=options) as postgres:
        migrate(postgres.url)
        with serving(postgres.url, database_timeout_s=5) as service:
            ann = service.visit()
            ann.create(*(incompressible() for _ in range(4)))
            settled(postgres)
            ballast = fill(small_disk, 3 * MIB)
            n_sent = 0
            while True:
                before = counts_of(service)
                body, key = {"records": [incompressible() for _ in range(4)]}, uuid4().hex
                answer = ann.post("/v1/records", body, key=key)
                if answer.status_code != 200:
                    break
                n_sent += 1
                assert n_sent < 40, "the disk did not become full"
            assert "Free some space" in is_problem(answer, 503, "storage_full")
            assert int(answer.headers["retry-after"]) >= 1
            assert counts_of(service) == before
            # What needs no space goes on.
            assert ann.n_records() == before[0]
            assert ann.record(1, "kwargs")["kwargs"]["noise"]
            ballast.unlink()
            answer = ann.post("/v1/records", body, key=key)
            assert answer.status_code == 200, answer.text
            assert ann.post("/v1/records", body, key=key).json() == answer.json()
            assert ann.n_records() == before[0] + 4


def test_a_disk_so_full_that_the_database_goes_down_loses_nothing_acknowledged(
    small_disk: Path,
) -> None:
    options = {"min_wal_size": "32MB", "max_wal_size": "32MB", "fsync": "off"}
    with EmbeddedPostgres(small_disk, settings=options) as postgres:
        migrate(postgres.url)
        with serving(postgres.url, database_timeout_s=0.3) as service:
            ann = service.visit()
            ids = ann.create(*(task() for _ in range(20)))
            ballast = fill(small_disk, 0)
            with pytest.raises(psycopg.OperationalError):
                write_to_the_log_alone(postgres)
            body, key = {"records": [task()]}, uuid4().hex
            is_away(ann.post("/v1/records", body, key=key))
            eventually(lambda: postgres.poll() is not None)
            is_away(ann.get("/v1/records/counts"))
            ballast.unlink()
            restarted(postgres, ann)
            assert ann.post("/v1/records/get", {"ids": ids}).status_code == 200
            assert ann.post("/v1/records", body, key=key).status_code == 200
            assert ann.n_records() == 21
