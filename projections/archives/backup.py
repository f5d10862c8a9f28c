"""Backups with PostgreSQL's own tools, and the proof that what was restored is the same ledger."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import Connection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from recordledger.domain.errors import (
    BackupFailed,
    BackupInvalid,
    DatabaseNotEmpty,
    InvalidInput,
    ToolUnusable,
)

from ..ledger import Ledger
from ..proof.audit import AuditReport, audit
from ..replay.replay import ReplayReport, check_replay
from ..store.database import as_ledger_errors, connect, one
from ..store.embedded import BinariesMissing, binaries_directory
from ..store.statements import shipped, sql_file, statements
from ..tables import schema as schemas
from . import archive
from .archive import Facts, facts_of, sums_of

DUMP: Final = "ledger.dump"
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"

_SQL: Final = statements("archives.backup")
_WORDS_MAX: Final = 2_000
_REVOKE: Final = re.compile(r"^REVOKE [^;]+;", re.MULTILINE)

Tool = Literal["pg_dump", "pg_restore"]
Progress = Callable[[str], None]


class BackupManifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["recordledger-backup"] = "recordledger-backup"
    format_version: Literal[1] = 1
    written_by: str
    made_at: AwareDatetime
    ledger_id: UUID
    schema_name: str
    schema_version: int
    head: int
    n_events: int
    server_version: int
    tool_version: str
    dump: Facts


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of a ledger that was restored."""

    manifest: BackupManifest
    replay: ReplayReport
    audit: AuditReport


def backup(url: str, schema: str, folder: Path) -> BackupManifest:
    """Write a backup of the ledger as it is at one moment; it may be in use meanwhile.

    Args:
        url: the database.
        schema: of the database, that holds the ledger.
        folder: where to, not there yet or empty. It appears whole, or not at all.

    Raises:
        InvalidInput: there is something in the folder.
        ToolUnusable: there is no `pg_dump` that is new enough for the server.
        BackupFailed: it ended with an error.
        SchemaMismatch: the database has no ledger of this version.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} already exists and is not empty; give another path")
    schemas.check(url, schema)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{token_hex(4)}")
    unfinished.mkdir(mode=0o700)
    try:
        manifest = _dump(url, schema, unfinished)
        (unfinished / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        facts = {name: facts_of(unfinished / name) for name in (DUMP, MANIFEST)}
        (unfinished / SUMS).write_text(sums_of(facts), "utf-8")
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _dump(url: str, schema: str, folder: Path) -> BackupManifest:
    with as_ledger_errors(), closing(connect(url, schema)) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            moment = one(connection, _SQL["moment"])
            snapshot, ledger_id, head, n_events, schema_version, made_at = moment
            server = connection.info.server_version // 10_000
            program, version = find_tool("pg_dump", server)
            _run(
                program,
                url,
                "--format=custom",
                "--no-owner",
                "--no-acl",
                f'--schema="{schema}"',
                f"--snapshot={snapshot}",
                f"--file={folder / DUMP}",
            )
    return BackupManifest(
        written_by=archive.program(),
        made_at=made_at,
        ledger_id=ledger_id,
        schema_name=schema,
        schema_version=schema_version,
        head=head,
        n_events=n_events,
        server_version=server,
        tool_version=version,
        dump=facts_of(folder / DUMP),
    )


def check_backup(folder: Path) -> BackupManifest:
    """Return what a backup says of itself, if its files are what they must be.

    Raises:
        BackupInvalid: they are not, or the folder is not a backup.
    """
    names = (DUMP, MANIFEST)
    try:
        present = {path.name for path in folder.iterdir()}
        facts = {name: facts_of(folder / name) for name in names}
        sums = (folder / SUMS).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackupInvalid(f"{folder} is not a backup: {error}") from error
    if extra := present - {*names, SUMS}:
        raise BackupInvalid(
            f"{folder} has {', '.join(sorted(extra))}, which does not belong to a backup"
        )
    if sums != sums_of(facts):
        raise BackupInvalid(f"{folder} was changed or truncated: its files differ from {SUMS}")
    try:
        manifest = BackupManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BackupInvalid(
            f"{MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
    if manifest.dump != facts[DUMP]:
        raise BackupInvalid(f"{DUMP} differs from the file described in {MANIFEST}")
    return manifest


def restore(url: str, folder: Path, *, progress: Progress | None = None) -> Verified:
    """Restore a backup into a database without a ledger, and prove that it is the same ledger.

    A ledger in which nothing has ever happened is replaced. Nobody may use it meanwhile.

    Args:
        url: the database, as the role that shall own the ledger.
        folder: the backup.
        progress: called with what is done next.

    Raises:
        BackupInvalid: the backup is damaged, or what was restored is not what it holds.
        DatabaseNotEmpty: there is a ledger with events, or something else in its place.
        ToolUnusable: there is no `pg_restore` that is new enough for the backup.
        BackupFailed: it ended with an error; nothing was restored.
        SchemaMismatch: the backup is of an older or newer version; it was restored as it is.
    """
    say = progress or _silent
    say("checking the backup")
    manifest = check_backup(folder)
    made_with = int(manifest.tool_version.partition(".")[0])
    program, _ = find_tool("pg_restore", made_with)
    with as_ledger_errors(), closing(connect(url, manifest.schema_name)) as connection:
        _drop_empty_schema(connection, manifest.schema_name)
        say("restoring")
        _run(
            program,
            url,
            "--no-owner",
            "--no-acl",
            "--exit-on-error",
            "--single-transaction",
            str(folder / DUMP),
        )
        # Privileges are not in the dump, since roles may have other names here.
        for statement in _REVOKE.findall(sql_file("tables.schema")):
            connection.execute(shipped(statement))
        connection.execute("ANALYZE")
    return verify(url, manifest, progress=progress)


def verify(url: str, manifest: BackupManifest, *, progress: Progress | None = None) -> Verified:
    """Return what replay and audit say of a restored ledger, if it is the one of the backup.

    Raises:
        BackupInvalid: it is another one, or replay or audit find something wrong.
        SchemaMismatch: its schema is not the one that this code works with.
    """
    say = progress or _silent
    schemas.check(url, manifest.schema_name)
    with as_ledger_errors(), closing(connect(url, manifest.schema_name)) as connection:
        found = connection.execute(_SQL["who"]).fetchone()
    expected = (manifest.ledger_id, manifest.head, manifest.n_events)
    if found != expected:
        raise BackupInvalid(
            f"the database has ledger, position and events {found}, and the backup has {expected}"
        )
    with closing(Ledger(url, manifest.schema_name, pool_size=2)) as ledger:
        say("folding the log")
        replayed = check_replay(ledger)
        if not replayed.equal:
            first = next(iter(map(str, replayed.differences)), "payloads are missing")
            raise BackupInvalid(f"the tables differ from the log: {first}")
        say("auditing the log")
        audited = audit(ledger, log_only=True)
        if not audited.holds:
            raise BackupInvalid(f"the audit found errors: {audited}")
    return Verified(manifest, replayed, audited)


def _drop_empty_schema(connection: Connection[Any], schema: str) -> None:
    """Drop the schema if nothing has ever happened in it."""
    row = connection.execute(_SQL["is_there"], {"schema": schema}).fetchone()
    if row is None:
        return
    n_tables, has_log = row
    if n_tables and not has_log:
        raise DatabaseNotEmpty(f"the schema {schema} contains something other than a ledger")
    if has_log and connection.execute("SELECT FROM ledger_events LIMIT 1").fetchone() is not None:
        raise DatabaseNotEmpty(
            f"the schema {schema} holds a ledger with events; restore into an empty database"
        )
    connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))


# PostgreSQL's tools


def find_tool(name: Tool, major_min: int) -> tuple[str, str]:
    """Return a tool of PostgreSQL of at least this major version, and its version.

    Of several, the oldest that will do: a newer one may ask for what an older server lacks.

    Raises:
        ToolUnusable: it is missing or too old.
    """
    found = sorted(_tools(name))
    for major, program, version in found:
        if major >= major_min:
            return program, version
    there = f"there is only version {found[-1][2]}" if found else "it was not found"
    raise ToolUnusable(
        f"this needs {name} of PostgreSQL {major_min} or newer, and {there}; install it where PATH "
        "finds it"
    )


def _tools(name: Tool) -> Iterator[tuple[int, str, str]]:
    candidates = [shutil.which(name)]
    with suppress(BinariesMissing):
        candidates.append(shutil.which(name, path=str(binaries_directory())))
    for program in candidates:
        if program is None:
            continue
        done = subprocess.run(  # noqa: S603 - a tool of PostgreSQL
            [program, "--version"], capture_output=True, text=True, check=False, env=_environment()
        )
        if version := re.search(r"\(PostgreSQL\) ((\d+)\S*)", done.stdout):
            yield int(version[2]), program, version[1]


def _run(program: str, url: str, *options: str) -> None:
    """Run a tool on a database. The password is not among its arguments, which all can see."""
    given: dict[str, Any] = conninfo_to_dict(url)
    environment = _environment()
    if (password := given.pop("password", None)) is not None:
        environment["PGPASSWORD"] = str(password)
    done = subprocess.run(  # noqa: S603 - a tool of PostgreSQL
        [program, f"--dbname={make_conninfo(**given)}", "--no-password", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        words = done.stderr[-_WORDS_MAX:].decode(errors="replace").strip()
        raise BackupFailed(f"{Path(program).name} ended with {done.returncode}: {words}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _silent(_: str) -> None:
    pass
