"""Commands that change records, and those that undo what was changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from recordledger.domain.records.actions import ON_RECORDS, Action, Option

from .selection import RECORD_ID, selection_of, with_conditions
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

if TYPE_CHECKING:
    from recordledger.api.client import UpdateMetadata

_REFUSALS_MAX: Final = 20
_STATUS = (
    "\n\nExit status is 0 if all was done, 1 if some of it was refused, and 2 if the command line "
    "is wrong."
)


# Actions that have no command of this shape: `delete --hard` erases, and a comment has its text
# as an argument.
_WITHOUT: Final = frozenset({Action.erase, Action.comment})
_HARD = click.option("--hard", is_flag=True, help="Destroy them for good (administrators).")


def _option_of(option: Option) -> Callable[[Any], Any]:
    """Return an option of an action as the command line has it."""
    name = option.name.replace("_", "-")
    unset = f" [{option.unset}]" if option.unset else ""
    text = f"{option.help[0].upper()}{option.help[1:]}.{unset}"
    if option.kind is bool:
        flags = option.flags or f"--{name}/--no-{name}"
        return click.option(flags, default=option.default, show_default=True, help=text)
    kind: Any = option.kind
    if option.choices:
        kind = click.Choice(option.choices)
    elif option.kind is int:
        kind = click.IntRange(option.least)
    return click.option(f"--{name}", type=kind, help=text)


def _command_of(action: Action) -> click.Command:
    row = action.row
    names = [option.name for option in row.options]

    @exits_on_ledger_errors
    def run(**given: Any) -> None:
        from recordledger.api.client import Client
        from recordledger.api.client.actions import method_of

        as_json, yes = given.pop("as_json"), given.pop("yes")
        selection = selection_of(given)
        meant = action
        if row.needs_option and not any(given[name] for name in names):
            flags = [f"--{name.replace('_', '-')}" for name in names]
            both = " or both" if len(flags) == 2 else ""
            raise click.UsageError(f"give what to {action}: {', '.join(flags)}{both}")
        if given.pop("hard", False):
            meant, given["soft_delete"] = Action.erase, False
        # `given` has only arguments of the client's method from here on, besides `selection`.
        with Client() as client:
            manage = getattr(client, method_of(action))
            by_query = "ids" not in selection
            asks = row.confirm == "always" or (row.confirm == "by query" and by_query)
            if asks and not yes and not given["dry_run"]:
                _confirm(manage, meant, selection, given)
            metadata = manage(**selection, **given)
        _report(metadata, meant, selection.get("ids"), as_json=as_json)

    # Decorators apply from the last option to the first, so that help lists them in order.
    run.__name__ = action
    wrapped: Any = run
    own = [_option_of(option) for option in row.options]
    if action is Action.delete:
        own.insert(0, _HARD)
    for option in reversed((*own, *_COMMON)):
        wrapped = option(wrapped)
    wrapped = with_conditions(wrapped)
    wrapped = click.argument("ids", nargs=-1, type=RECORD_ID)(wrapped)
    who = " (administrators)" if row.for_administrators else ""
    return click.command(
        str(action),
        help=f"{row.text}{who}. Select them by IDS or by conditions.{_STATUS}",
        short_help=f"{row.text.partition(';')[0]}{who}.",
    )(wrapped)


_COMMON: Final = (
    click.option("--all", "everything", is_flag=True, help="All records."),
    click.option("--reason", help="Reason; kept with every event."),
    click.option("--dry-run", is_flag=True, help="Report what would change, and change nothing."),
    click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
    JSON,
)


def _confirm(
    manage: Callable[..., UpdateMetadata],
    action: Action,
    selection: Mapping[str, Any],
    given: Mapping[str, Any],
) -> None:
    """Say how many it would be, and go on only if that is wanted."""
    from recordledger.api.client import Refused

    try:
        tried = manage(**selection, **{**given, "dry_run": True})
        relatives = tried.n_children_updated + tried.n_parents_updated
        n_records = f"{tried.n_updated:,} records" + (
            f" and {relatives:,} relatives" if relatives else ""
        )
    except Refused as refusal:
        if refusal.code != "too_large":
            raise
        n_records = "more than 100,000 records"
    click.confirm(f"This would make {n_records} {action.row.done}. Continue?", abort=True, err=True)


def _report(
    metadata: UpdateMetadata, action: Action, ids: list[int] | None, *, as_json: bool
) -> None:
    if as_json:
        print_json(metadata)
    else:
        would = "would be " if metadata.dry_run else ""
        relatives = metadata.n_children_updated + metadata.n_parents_updated
        click.echo(
            f"{metadata.n_updated:,} of {metadata.n_selected:,} records {would}{action.row.done}"
            + (f", and {relatives:,} relatives changed" if relatives else "")
        )
        new = [str(id_) for id_ in metadata.new_ids if id_ is not None]
        if new:
            click.echo(f"new records: {' '.join(new[:20])}{' ...' if len(new) > 20 else ''}")
        if metadata.operation_id is not None and action.row.undoable:
            click.echo(f"to undo:   recordledger undo {metadata.operation_id}")
        if metadata.errors:
            known = ids or metadata.ids or []
            rows = [
                (known[each.idx] if each.idx < len(known) else "", each.code, each.message)
                for each in metadata.errors[:_REFUSALS_MAX]
            ]
            print_table(("record", "code", "why"), rows, f"{len(metadata.errors):,} refused")
    if metadata.errors:
        sys.exit(1)


@click.command()
@click.argument("record_id", type=RECORD_ID)
@click.argument("text")
@JSON
@exits_on_ledger_errors
def comment(record_id: int, text: str, as_json: bool) -> None:
    """Write the remark TEXT about the record RECORD_ID.

    Exit status is 0 when it was written and 1 when it was refused.
    """
    from recordledger.api.client import Client

    with Client() as client:
        metadata = client.add_comment(record_id, text)
    _report(metadata, Action.comment, [record_id], as_json=as_json)


@click.command()
@click.argument("operation_id", type=click.UUID)
@click.option("--reason", help="Reason; kept with every event.")
@click.option("--dry-run", is_flag=True, help="Report what would change, and change nothing.")
@JSON
@exits_on_ledger_errors
def undo(operation_id: Any, reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Take back what the operation OPERATION_ID changed, where nobody has changed it since.

    Exit status is 0 when all of it was taken back, and 1 when some records stay as they are.
    """
    from recordledger.api.client import Client

    with Client() as client:
        metadata = client.undo(operation_id, reason=reason, dry_run=dry_run)
    if as_json:
        print_json(metadata)
    else:
        would = "would be" if dry_run else "are"
        click.echo(f"{metadata.n_undone:,} records {would} again what they were")
        if metadata.operation_id is not None:
            click.echo(f"to undo that:   recordledger undo {metadata.operation_id}")
        if metadata.conflicts:
            rows = [
                (each.record_id, each.code, each.message)
                for each in metadata.conflicts[:_REFUSALS_MAX]
            ]
            print_table(("record", "code", "why"), rows, f"{len(metadata.conflicts):,} left")
    if metadata.conflicts:
        sys.exit(1)


@click.command("cancel-job")
@click.argument("job_id", type=RECORD_ID)
@click.option("--reason", help="Why.")
@JSON
@exits_on_ledger_errors
def cancel_job(job_id: int, reason: str | None, as_json: bool) -> None:
    """Stop the job JOB_ID, and undo what it has done."""
    from recordledger.api.client import Client

    with Client() as client:
        job = client.cancel_job(job_id, reason=reason)
    if as_json:
        print_json(job)
    else:
        click.echo(f"Job {job.id} is {job.state}.")


COMMANDS: Final = (
    *(_command_of(action) for action in ON_RECORDS if action not in _WITHOUT),
    comment,
    undo,
    cancel_job,
)
