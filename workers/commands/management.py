"""Commands that change records, and those that undo what was changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from .selection import RECORD_ID, selection_of, with_conditions
from .terminal import JSON, print_json, print_table, says_what_is_wrong

if TYPE_CHECKING:
    from recordledger.api.client import Client, UpdateMetadata

_REFUSALS_MAX: Final = 20
# What no undo takes back.
_FOR_GOOD: Final = frozenset({"destroyed", "commented", "resubmitted"})
_STATUS = (
    "\n\nExit status is 0 when everything was done, 1 when some of it was refused, and 2 when the "
    "command itself is wrong."
)


@dataclass(frozen=True, slots=True)
class Verb:
    """A command over records: which method of the client it is, and what it says of itself.

    Attributes:
        name: as one types it.
        method: of the client.
        done: what has become of a record, in the past tense.
        text: what it does.
        confirm: when to ask first: "never", "by query" (not for ids), or "always".
        options: its own.
    """

    name: str
    method: str
    done: str
    text: str
    confirm: str = "never"
    options: tuple[Callable[[Any], Any], ...] = ()


_CHILDREN = click.option(
    "--delete-children/--keep-children",
    default=True,
    show_default=True,
    help="Whether children that nobody else needs follow.",
)
_VERBS: Final = (
    Verb("reset", "reset_records", "reset", "Let records in error wait for another attempt."),
    Verb(
        "cancel",
        "cancel_records",
        "cancelled",
        "Cancel records that are not finished, with their families.",
        confirm="by query",
    ),
    Verb("uncancel", "uncancel_records", "uncancelled", "Bring cancelled records back."),
    Verb(
        "delete",
        "delete_records",
        "deleted",
        "Put records out of sight; they can be undeleted, unless it is --hard.",
        confirm="always",
        options=(
            click.option("--hard", is_flag=True, help="Destroy them for good (administrators)."),
            _CHILDREN,
        ),
    ),
    Verb("undelete", "undelete_records", "undeleted", "Bring deleted records back."),
    Verb(
        "invalidate",
        "invalidate_records",
        "invalidated",
        "Declare results not to be used; they stay readable.",
        options=(
            click.option(
                "--propagate/--no-propagate",
                default=True,
                show_default=True,
                help="Whether what was made from them becomes invalid too.",
            ),
        ),
    ),
    Verb("uninvalidate", "uninvalidate_records", "valid again", "Let results be used again."),
    Verb("hold", "hold_records", "held", "Keep waiting records from being claimed."),
    Verb("release", "release_records", "released", "Let held records be claimed again."),
    Verb("fail", "fail_records", "failed", "Declare errors final."),
    Verb("revive", "revive_records", "revived", "Let failed records wait again (administrators)."),
    Verb(
        "modify",
        "modify_records",
        "modified",
        "Give records another tag or priority.",
        options=(
            click.option("--new-tag", help="Routing string. [as it is]"),
            click.option(
                "--new-priority",
                type=click.Choice(["low", "normal", "high"]),
                help="The order within the tag. [as it is]",
            ),
        ),
    ),
    Verb(
        "resubmit",
        "resubmit_records",
        "resubmitted",
        "Make a new record of the same specification for each of these.",
    ),
    Verb(
        "adopt",
        "adopt_results",
        "complete by a late result",
        "Take a late result of each record as its result.",
        options=(
            click.option(
                "--attempt", type=click.IntRange(1), help="Which late result. [the newest]"
            ),
        ),
    ),
)


def _command_of(verb: Verb) -> click.Command:
    @says_what_is_wrong
    def run(**given: Any) -> None:
        from recordledger.api.client import Client

        as_json, yes = given.pop("as_json"), given.pop("yes")
        selection = selection_of(given)
        done = verb.done
        if verb.name == "modify" and not (given["new_tag"] or given["new_priority"]):
            raise click.UsageError("say what to modify: --new-tag, --new-priority or both")
        if "hard" in given:
            hard = given.pop("hard")
            given["soft_delete"] = not hard
            done = "destroyed" if hard else done
        with Client() as client:
            by_query = "ids" not in selection
            asks = verb.confirm == "always" or (verb.confirm == "by query" and by_query)
            if asks and not yes and not given["dry_run"]:
                _confirm(client, verb, done, selection, given)
            metadata = getattr(client, verb.method)(**selection, **given)
        _report(metadata, done, selection.get("ids"), as_json=as_json)

    run.__name__ = verb.name
    wrapped: Any = run
    for option in reversed((*verb.options, *_COMMON)):
        wrapped = option(wrapped)
    wrapped = with_conditions(wrapped)
    wrapped = click.argument("ids", nargs=-1, type=RECORD_ID)(wrapped)
    text = f"{verb.text} Name them by IDS, or by conditions.{_STATUS}"
    return click.command(verb.name, help=text)(wrapped)


_COMMON: Final = (
    click.option("--all", "everything", is_flag=True, help="All records there are."),
    click.option("--reason", help="Why; kept with every event."),
    click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    JSON,
)


def _confirm(
    client: Client,
    verb: Verb,
    done: str,
    selection: Mapping[str, Any],
    given: Mapping[str, Any],
) -> None:
    """Say how many it would be, and go on only if that is wanted."""
    from recordledger.api.client import Refused

    try:
        tried = getattr(client, verb.method)(**selection, **{**given, "dry_run": True})
        relatives = tried.n_children_updated + tried.n_parents_updated
        n_records = f"{tried.n_updated:,} records" + (
            f" and {relatives:,} relatives" if relatives else ""
        )
    except Refused as refusal:
        if refusal.code != "too_large":
            raise
        n_records = "more than 100,000 records"
    click.confirm(f"This would make {n_records} {done}. Go on?", abort=True, err=True)


def _report(metadata: UpdateMetadata, done: str, ids: list[int] | None, *, as_json: bool) -> None:
    if as_json:
        print_json(metadata)
    else:
        would = "would be " if metadata.dry_run else ""
        relatives = metadata.n_children_updated + metadata.n_parents_updated
        click.echo(
            f"{metadata.n_updated:,} of {metadata.n_selected:,} records {would}{done}"
            + (f", and {relatives:,} relatives changed" if relatives else "")
        )
        new = [str(id_) for id_ in metadata.new_ids if id_ is not None]
        if new:
            click.echo(f"new records: {' '.join(new[:20])}{' ...' if len(new) > 20 else ''}")
        if metadata.operation_id is not None and done not in _FOR_GOOD:
            click.echo(f"take it back:  recordledger undo {metadata.operation_id}")
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
@says_what_is_wrong
def comment(record_id: int, text: str, as_json: bool) -> None:
    """Write the remark TEXT about the record RECORD_ID.

    Exit status is 0 when it was written and 1 when it was refused.
    """
    from recordledger.api.client import Client

    with Client() as client:
        metadata = client.add_comment(record_id, text)
    _report(metadata, "commented", [record_id], as_json=as_json)


@click.command()
@click.argument("operation_id", type=click.UUID)
@click.option("--reason", help="Why; kept with every event.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@JSON
@says_what_is_wrong
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
            click.echo(f"take that back:  recordledger undo {metadata.operation_id}")
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
@says_what_is_wrong
def cancel_job(job_id: int, reason: str | None, as_json: bool) -> None:
    """Stop the job JOB_ID, and undo what it has done."""
    from recordledger.api.client import Client

    with Client() as client:
        job = client.cancel_job(job_id, reason=reason)
    if as_json:
        print_json(job)
    else:
        click.echo(f"Job {job.id} is {job.state}.")


COMMANDS: Final = (*map(_command_of, _VERBS), comment, undo, cancel_job)
