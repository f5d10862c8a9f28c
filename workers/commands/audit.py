"""The command about the self-audit: what it has found, and putting that right."""

from __future__ import annotations

import sys
from typing import Final

import click

from .terminal import JSON, print_json, print_table, says_what_is_wrong


@click.command("self-audit")
@click.option("--repair", is_flag=True, help="Put right what was found.")
@click.option("--table", help="Only rows of this table; with --repair.")
@click.option("--key", multiple=True, help="Only this row; once for each part of its key.")
@click.option("--reason", help="Why; on the events of the repairs.")
@JSON
@says_what_is_wrong
def self_audit(
    repair: bool, table: str | None, key: tuple[str, ...], reason: str | None, as_json: bool
) -> None:
    r"""Print how far the self-audit is, and the rows that it found not to be what the log says.

    `recordledger work` does it all the time. With --repair, each of these rows is held against the
    log again and put right. It takes a token of role admin.

    \b
    Examples:
      recordledger self-audit
      recordledger self-audit --repair --reason 'restored from a stale file'
      recordledger self-audit --repair --table records --key 411

    Exit status is 1 when a row is still wrong afterwards.
    """
    from recordledger.api.client import Client

    if not repair and (table or key or reason):
        raise click.UsageError("--table, --key and --reason go with --repair")
    if key and not table:
        raise click.UsageError("--key needs --table")
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


COMMANDS: Final = (self_audit,)
