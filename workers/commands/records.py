"""Commands that show records, errors, comments, operations and jobs, and change nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import click

from .moments import AS_OF
from .selection import RECORD_ID, conditions_of, with_conditions
from .terminal import JSON, console, exits_on_ledger_errors, print_json, print_table

_LIMIT = click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number to print.",
)


@click.command()
@click.argument("record_id", type=RECORD_ID)
@AS_OF
@JSON
@exits_on_ledger_errors
def show(record_id: int, as_of: int | datetime | None, as_json: bool) -> None:
    """Print the record RECORD_ID: what it is, where it stands, and what was written about it.

    As it was at an earlier moment, it comes without comments and relatives. Exit status is 1 when
    there is, or was, no such record.
    """
    from recordledger.api.client import Client, Comments

    comments, relatives = Comments(), dict[str, Any]()
    with Client() as client:
        record = client.get_records(
            record_id, include=("kwargs", "result", "traceback"), as_of=as_of
        )
        if as_of is None:
            comments = client.comments(record_id)
            relatives["children"] = client.children(record_id)
            relatives["parents"] = client.parents(record_id)
    if as_json:
        print_json(record.model_dump() | relatives | {"comments": comments})
        return
    fields = record.model_dump() | relatives
    rows = [
        (name, json.dumps(value) if isinstance(value, dict) else value)
        for name, value in fields.items()
        if value is not False and value not in (None, "", [], ())
    ]
    print_table(("", f"record {record_id}"), rows)
    if comments:
        found = [(each.commented_at, each.author, each.text) for each in comments]
        print_table(("when (UTC)", "who", "comment"), found)


@click.command("list")
@click.argument("ids", nargs=-1, type=RECORD_ID)
@with_conditions
@AS_OF
@_LIMIT
@JSON
@exits_on_ledger_errors
def list_records(
    ids: tuple[int, ...],
    limit: int,
    as_of: int | datetime | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Print records, newest first; all, or those that meet every condition, or met it then.

    With IDS, only those of them.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.query_records(
            ids=ids or None, **conditions_of(given), limit=limit, as_of=as_of
        ).all()
    if as_json:
        print_json(found)
        return
    columns = ("id", "status", "function", "tag", "priority", "attempt", "modified_at", "error")
    print_table(columns, [[getattr(each, name) for name in columns] for each in found])


@click.command()
@_LIMIT
@JSON
@exits_on_ledger_errors
def errors(limit: int, as_json: bool) -> None:
    """Print what the newest 100,000 records in error say, by type and message."""
    from recordledger.api.client import Client

    with Client() as client:
        groups = client.error_groups(limit=limit)
    if as_json:
        print_json(groups)
        return
    rows = [
        (each.n_records, each.error_type, each.error_message, each.newest_ids, each.newest_at)
        for each in groups
    ]
    print_table(("records", "type", "message", "such as", "newest (UTC)"), rows)


@click.command()
@click.argument("record_id", type=RECORD_ID)
@JSON
@exits_on_ledger_errors
def comments(record_id: int, as_json: bool) -> None:
    """Print what was written about the record RECORD_ID, oldest first."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.comments(record_id)
    if as_json:
        print_json(found)
        return
    rows = [(each.commented_at, each.author, each.text) for each in found]
    print_table(("when (UTC)", "who", "comment"), rows)


@click.command()
@click.option("--actor", help="Only of this actor, like user:ann or policy:failed-after@1.")
@click.option("--action", help="Only of this kind, like cancel.")
@_LIMIT
@JSON
@exits_on_ledger_errors
def operations(actor: str | None, action: str | None, limit: int, as_json: bool) -> None:
    """Print what people and policies have done to records, newest first."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.operations(actor=actor, action=action, limit=limit)
    if as_json:
        print_json(found)
        return
    columns = ("id", "started_at", "action", "actor", "n_changes", "reason")
    print_table(columns, [[getattr(each, name) for name in columns] for each in found])


@click.command()
@_LIMIT
@JSON
@exits_on_ledger_errors
def jobs(limit: int, as_json: bool) -> None:
    """Print the operations on many records, newest first, and how far they have come."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.jobs(limit=limit)
    if as_json:
        print_json(found)
        return
    columns = ("id", "state", "action", "n_done", "n_total", "n_refused", "actor", "created_at")
    print_table(columns, [[getattr(each, name) for name in columns] for each in found])


@click.command()
@click.argument("job_id", type=RECORD_ID)
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@JSON
@exits_on_ledger_errors
def job(job_id: int, wait: bool, as_json: bool) -> None:
    """Print how far the job JOB_ID has come."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.wait_for_job(job_id) if wait else client.job(job_id)
    if as_json:
        print_json(found)
        return
    print_table(("", f"job {job_id}"), list(found.model_dump(exclude={"id"}).items()))


@click.command()
@AS_OF
@exits_on_ledger_errors
def status(as_of: int | datetime | None) -> None:
    """Print how many records are in each status, and which managers are active.

    Of an earlier moment, only the statuses.
    """
    from rich.table import Table

    from recordledger.api.client import Client

    with Client() as client:
        found = client.counts(as_of=as_of)
        title = client.url
        if found.as_of is not None:
            title += f" at position {found.as_of.position}, {found.as_of.happened_at:%F %T}"
        counts = Table("status", "records", title=title)
        for name, n_records in found.items():
            counts.add_row(str(name), f"{n_records:,}")
        if found.as_of is not None:
            console().print(counts)
            return
        managers = Table("manager", "name", "host", "tags", "last heartbeat")
        for manager in client.managers():
            if manager.state != "active":
                continue
            managers.add_row(
                str(manager.id),
                manager.name,
                manager.hostname,
                " ".join(manager.tags),
                "" if manager.heartbeat_at is None else f"{manager.heartbeat_at:%F %T}",
            )
    shown = console()
    shown.print(counts)
    shown.print(managers)


COMMANDS: Final = (status, show, list_records, errors, comments, operations, jobs, job)
