"""Commands about what waits and who could take it: the queue, managers, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from .selection import RECORD_ID
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

if TYPE_CHECKING:
    from recordledger.api.client import Client, Manager

_ALIVE: Final = ("active", "draining")
_RUNNING_MAX: Final = 20


@click.command()
@click.argument("record_id", type=RECORD_ID)
@JSON
@exits_on_ledger_errors
def why(record_id: int, as_json: bool) -> None:
    """Say why the record RECORD_ID waits, runs or is gone, and what would change it.

    Exit status is 1 when there never was such a record.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.why(record_id)
    if as_json:
        print_json(found)
    else:
        click.echo(repr(found))


@click.command()
@click.option("--tag", multiple=True, help="Only with this tag. Repeatable.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number to print.",
)
@JSON
@exits_on_ledger_errors
def queue(tag: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Print what waits, by tag and required programs, and who could take it.

    First come the tasks that nobody can take, with the reason; `recordledger why ID` gives details.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.queue(list(tag) or None, limit=limit)
    if as_json:
        print_json(found.totals)
        return
    rows = [
        (
            each.tag,
            each.required_programs,
            f"{each.n_waiting:,}",
            f"{each.n_paused:,}",
            f"{each.n_running:,}",
            each.oldest_id,
            each.oldest_created_at,
            f"{each.n_managers:,}" if each.n_managers else (each.blocked or ""),
        )
        for each in found
    ]
    columns = (
        "tag",
        "programs",
        "waiting",
        "pausing",
        "running",
        "oldest",
        "created (UTC)",
        "managers",
    )
    print_table(columns, rows)
    totals = found.totals
    click.echo(
        f"{totals.n_waiting:,} records wait in {totals.n_lanes:,} lanes, {totals.n_blocked:,} of "
        f"them blocked; {totals.n_managers:,} managers are alive"
    )


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Include managers that have ended.")
@JSON
@click.pass_context
@exits_on_ledger_errors
def managers(context: click.Context, everything: bool, as_json: bool) -> None:
    """Print the managers that are alive, and what late results were rescued.

    The commands below look at one of them, or end it. (`recordledger manager` runs one.)
    """
    if context.invoked_subcommand is not None:
        return
    from recordledger.api.client import Client

    with Client() as client:
        found = client.managers(None if everything else _ALIVE)
        rescued = client.rescues()
    if as_json:
        print_json(found)
        return
    columns = (
        "id",
        "state",
        "name",
        "hostname",
        "tags",
        "programs",
        "suspended",
        "last heartbeat (UTC)",
    )
    rows = [
        (
            each.id,
            each.state,
            each.name,
            each.hostname,
            each.tags,
            each.programs,
            [one.program for one in each.suspended],
            each.heartbeat_at,
        )
        for each in found
    ]
    print_table(columns, rows)
    late, adopted = rescued.late, rescued.adopted
    click.echo(
        f"late results kept: {late.n_results:,} ({late.core_hours:,.1f} core-hours); adopted: "
        f"{adopted.n_results:,} ({adopted.core_hours:,.1f} core-hours rescued)"
    )


@managers.command("show")
@click.argument("manager")
@JSON
@exits_on_ledger_errors
def show_manager(manager: str, as_json: bool) -> None:
    """Print the manager MANAGER: its programs, its tasks and its history.

    MANAGER is an id, or a name that only one of them has.

    Exit status is 1 when there is no such manager.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = _one(client, manager)
        running = client.query_records(
            manager_id=found.id, status="running", limit=_RUNNING_MAX + 1
        ).all()
        history = client.manager_history(found.id)
    # One more than is shown was asked for, to know whether there are more.
    ids = [record.id for record in running]
    if as_json:
        plain = found.model_dump()
        print_json(plain | {"running": ids[:_RUNNING_MAX], "events": list(history.events)})
        return
    fields: dict[str, Any] = found.model_dump(exclude={"suspended"})
    more = ["and more"] if len(ids) > _RUNNING_MAX else []
    fields["runs"] = [*ids[:_RUNNING_MAX], *more]
    rows = [(name, value) for name, value in fields.items() if value not in (None, [], {})]
    print_table(("", f"manager {found.id}"), rows)
    if found.suspended:
        print_table(
            ("suspended", "until (UTC)", "error", "failures", "times", "probing"),
            [
                (
                    each.program,
                    each.until,
                    each.error_type,
                    each.n_failures,
                    each.n_times,
                    "yes" if each.probing else "",
                )
                for each in found.suspended
            ],
        )
    print_table(
        ("when (UTC)", "what", "by", ""),
        [
            (
                each.timestamp,
                each.kind.replace("_", " "),
                each.actor,
                ": ".join(filter(None, (each.summary, each.reason))),
            )
            for each in history
        ],
    )


@managers.command("drain")
@click.argument("manager")
@click.option("--reason", help="Reason; kept with the event.")
@JSON
@exits_on_ledger_errors
def drain(manager: str, reason: str | None, as_json: bool) -> None:
    """Give the manager MANAGER nothing more to do: it ends when it has finished what it runs.

    It gets the order with its next heartbeat. MANAGER is an id, or a name that only one that is
    alive has.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = _one(client, manager)
        state = client.drain_manager(found.id, reason)
    if as_json:
        print_json({"id": found.id, "state": state})
    else:
        click.echo(f"Manager {found.id} is {state}.")


@managers.command("deactivate")
@click.argument("manager")
@click.option("--reason", help="Reason; kept with every event.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@JSON
@exits_on_ledger_errors
def deactivate(manager: str, reason: str | None, yes: bool, as_json: bool) -> None:
    """End the manager MANAGER now: what it runs waits again, and its results will be late.

    One that still lives registers again. MANAGER is an id, or a name that only one that is alive
    has.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = _one(client, manager)
        if found.state in _ALIVE and not yes:
            running = client.query_records(
                manager_id=found.id, status="running", limit=_RUNNING_MAX + 1
            ).all()
            many = len(running) > _RUNNING_MAX
            n_records = f"more than {_RUNNING_MAX}" if many else str(len(running))
            text = f"This would end manager {found.id}, and {n_records} records would wait again."
            click.confirm(f"{text} Continue?", abort=True, err=True)
        requeued = client.deactivate_manager(found.id, reason)
    if as_json:
        print_json({"id": found.id, "requeued": requeued})
    else:
        click.echo(f"Manager {found.id} has ended; {len(requeued):,} records wait again.")


def _one(client: Client, id_or_name: str) -> Manager:
    """Return the manager with this id, or the only one with this name, if need be a past one.

    Raises:
        click.ClickException: there is none, or there are several.
    """
    if id_or_name.isdecimal():
        return client.manager(int(id_or_name))
    for states in (_ALIVE, None):
        named = [each for each in client.managers(states) if each.name == id_or_name]
        if len(named) == 1:
            return named[0]
        if named:
            ids = ", ".join(str(each.id) for each in named[-10:])
            raise click.ClickException(
                f"{len(named):,} managers are called {id_or_name!r}: give an id, like {ids}"
            )
    raise click.ClickException(f"no manager is called {id_or_name!r}")


COMMANDS: Final = (why, queue, managers)
