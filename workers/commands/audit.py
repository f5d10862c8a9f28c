"""Commands that check the ledger: the audit of its log, and the self-audit of its tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from .databases import (
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    open_ledger,
    running_database,
)
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table


@click.command("self-audit")
@click.option("--repair", is_flag=True, help="Repair the rows that were found.")
@click.option("--table", help="Only rows of this table; with --repair.")
@click.option("--key", multiple=True, help="Only this row; once for each part of its key.")
@click.option("--reason", help="Reason; kept with the events of the repairs.")
@JSON
@exits_on_ledger_errors
def self_audit(
    repair: bool, table: str | None, key: tuple[str, ...], reason: str | None, as_json: bool
) -> None:
    """Print how far the self-audit is, and the rows that it found not to be what the log says.

    `recordledger work` does it all the time. With --repair, each of these rows is compared with the
    log again and repaired. It takes a token of role admin.

    \b
    Examples:
      recordledger self-audit
      recordledger self-audit --repair --reason 'restored from a stale file'
      recordledger self-audit --repair --table records --key 411

    Exit status is 1 when a row is still wrong afterwards.
    """
    from recordledger.api.client import Client

    if not repair and (table or key or reason):
        raise click.UsageError("--table, --key and --reason can only be used with --repair")
    if key and not table:
        raise click.UsageError("--key can only be used with --table")
    with Client() as client:
        if repair:
            done = client.repair(table, key or None, reason=reason)
            if as_json:
                print_json(done)
            for each in () if as_json else done:
                click.echo(str(each))
            sys.exit(1 if any(each.refusal for each in done) else 0)
        found = client.self_audit()
    if as_json:
        print_json(found)
    else:
        click.echo(repr(found))
        if found.divergences:
            rows = [
                (each.id, each.table, " ".join(each.key), each.fault, each.columns, each.found_at)
                for each in found.divergences
            ]
            print_table(("", "table", "key", "fault", "columns", "found (UTC)"), rows)
    sys.exit(1 if found.divergences else 0)


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option(
    "--tolerance",
    "tolerance_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for which a waiting task may be passed over by claims.",
)
@click.option("--keep-going", is_flag=True, help="Continue after the first broken invariant.")
@click.option("--log-only", is_flag=True, help="Do not compare the tables with the log; faster.")
@JSON
@exits_on_ledger_errors
def audit(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    tolerance_s: float,
    keep_going: bool,
    log_only: bool,
    as_json: bool,
) -> None:
    """Check every named invariant from the log, and print one line for each.

    The log is read once, in order, and the tables are compared with it; nothing is changed. It may
    run while the ledger is in use. It stops at the first event that breaks an invariant, and
    says which. Without --database-url it looks at the embedded database of `recordledger up`, which
    must be running.

    Exit status is 0 when every invariant holds, and 1 when one is broken or the database does not
    answer. docs/audit.md says what each line means.
    """
    from rich.console import Console
    from rich.progress import Progress

    from recordledger.projections.proof.audit import audit as audit_ledger

    ledger = open_ledger(running_database(home, database_url), database_schema)
    try:
        with Progress(transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task("reading the log", total=None)
            report = audit_ledger(
                ledger,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                tolerance_s=tolerance_s,
                stop_at_first=not keep_going,
                log_only=log_only,
            )
    finally:
        ledger.close()
    if as_json:
        print_json(report)
    else:
        click.echo(str(report))
    sys.exit(0 if report.holds else 1)


COMMANDS: Final = (
    audit,
    self_audit,
)
