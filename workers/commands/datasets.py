"""Commands about datasets: what is in them, submission, how far they are, results, versions."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from recordledger.domain.records.status import Status

from .terminal import JSON, exits_on_ledger_errors, json_object, print_json, print_table

if TYPE_CHECKING:
    from recordledger.api.client import Results

_NAME = click.argument("name")
_REASON = click.option("--reason", help="Reason; kept with every event.")
_YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_VERSION = click.option("--version", type=click.IntRange(1), help="Of this locked version.")
_SPECIFICATIONS = click.option(
    "--specification", "specifications", multiple=True, help="Only this one. Repeatable."
)
_ENTRIES = click.option("--entry", "entries", multiple=True, help="Only this one. Repeatable.")
_PATTERN = click.option("--pattern", help="Only entries like this: `*` anything, `?` a character.")
_SHOWN_MAX: Final = 20


@click.group("dataset")
def dataset() -> None:
    """Datasets: entries x specifications -> records.

    \b
    Examples:
      recordledger dataset create water
      recordledger dataset add water --entries molecules.jsonl
      recordledger dataset add water --specification hf --function 'chem:energy' \\
          --kwargs '{"basis": "sto-3g"}'
      recordledger dataset submit water
      recordledger dataset status water
      recordledger dataset results water --output energies.csv
    """


@dataset.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number to print.",
)
@JSON
@exits_on_ledger_errors
def list_datasets(limit: int, as_json: bool) -> None:
    """Print the datasets, newest first."""
    from recordledger.api.client import Client

    with Client() as client:
        found = client.datasets(limit=limit)
    if as_json:
        print_json(found)
        return
    columns = ("id", "name", "n_entries", "n_records", "counts", "owner", "modified_at")
    print_table(columns, [[getattr(each, name) for name in columns] for each in found])


@dataset.command("create")
@_NAME
@click.option("--description", default="", help="Description.")
@_REASON
@JSON
@exits_on_ledger_errors
def create(name: str, description: str, reason: str | None, as_json: bool) -> None:
    """Make the empty dataset NAME."""
    from recordledger.api.client import Client

    with Client() as client:
        made = client.add_dataset(name, description, reason=reason)
    if as_json:
        print_json({"id": made.id, "name": name})
    else:
        click.echo(f"dataset {made.id}, {name!r}, is ready and empty")


@dataset.command("add")
@_NAME
@click.option(
    "--entries",
    "source",
    type=click.File(encoding="utf-8-sig"),
    help="Entries to add: a file of JSON, JSON lines or CSV; - for the input.",
)
@click.option("--specification", help="Name of a specification to add.")
@click.option("--function", help="Of the specification: 'module:function'.")
@click.option("--kwargs", default="{}", help="Of the specification: arguments, as JSON.")
@click.option("--program", "programs", multiple=True, help="Of the specification. Repeatable.")
@click.option("--tag", default="default", show_default=True, help="Of the specification.")
@click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    default="normal",
    show_default=True,
    help="Of the specification.",
)
@click.option("--retries", type=click.IntRange(0), default=0, help="Of the specification.")
@_REASON
@JSON
@exits_on_ledger_errors
def add(
    name: str,
    source: TextIO | None,
    specification: str | None,
    function: str | None,
    kwargs: str,
    programs: tuple[str, ...],
    tag: str,
    priority: Any,
    retries: int,
    reason: str | None,
    as_json: bool,
) -> None:
    """Add entries, or a specification, or both, to the dataset NAME.

    Entries are objects with `name`, `input` and `attributes`, or a mapping from name to input. Of a
    CSV file the column `name` is the name, and the others are the input.

    Exit status is 0 when everything was added or already existed, and 1 when some entries were
    refused.
    """
    from recordledger.api.client import Client

    if source is None and specification is None:
        raise click.UsageError("give what to add: --entries, --specification or both")
    if (specification is None) != (function is None):
        raise click.UsageError("a specification needs both --specification and --function")
    given = None if source is None else list(_entries_in(source))
    base = json_object(kwargs, "--kwargs")
    added, is_new = None, None
    with Client() as client:
        found = client.dataset(name)
        if specification is not None and function is not None:
            is_new = found.add_specification(
                specification,
                function,
                base,
                required_programs=programs,
                tag=tag,
                priority=priority,
                retries=retries,
                reason=reason,
            )
        if given is not None:
            added = found.add_entries(given, reason=reason)
    if as_json:
        print_json({"entries": added, "specification_added": is_new})
    else:
        if is_new is not None:
            click.echo(f"{specification!r} {'was added' if is_new else 'already existed'}")
        if added is not None:
            n_new, n_old = len(added.inserted_idx), len(added.existing_idx)
            click.echo(f"{n_new:,} entries were added, {n_old:,} already existed")
            rows = [(each.idx, each.code, each.message) for each in added.errors[:_SHOWN_MAX]]
            if rows:
                print_table(("index", "code", "why"), rows, f"{len(added.errors):,} refused")
    if added is not None and added.errors:
        sys.exit(1)


@dataset.command("submit")
@_NAME
@_SPECIFICATIONS
@_ENTRIES
@_PATTERN
@click.option("--tag", help="Instead of the specifications' own.")
@click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    help="Instead of the specifications' own.",
)
@click.option(
    "--find-existing/--all-new",
    default=True,
    show_default=True,
    help="Whether to use existing records of the same specification.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until a job for many cells ends.",
)
@_REASON
@JSON
@exits_on_ledger_errors
def submit(name: str, as_json: bool, **given: Any) -> None:
    """Give every cell of the dataset NAME that has no record one.

    Exit status is 0 when all of them have one, and 1 when some were refused.
    """
    from recordledger.api.client import Client

    with Client() as client:
        done = client.dataset(name).submit(**_chosen(given))
    if as_json:
        print_json(done)
    else:
        if done.is_done:
            found = f", {done.n_existing:,} of which already existed" if done.n_existing else ""
            click.echo(f"{done.n_linked:,} of {done.n_selected:,} cells have a record now{found}")
        else:
            click.echo(
                f"job {done.job_id} fills {done.n_selected:,} cells:  "
                f"recordledger job {done.job_id} --wait"
            )
        rows = [(each.code, each.message) for each in done.errors[:_SHOWN_MAX]]
        if rows:
            print_table(("code", "why"), rows, f"{len(done.errors):,} refused")
    if done.errors:
        sys.exit(1)


@dataset.command("status")
@_NAME
@click.option("--entries", "by_entry", is_flag=True, help="Each entry with its records.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number of entries to print.",
)
@_VERSION
@JSON
@exits_on_ledger_errors
def status(name: str, by_entry: bool, limit: int, version: int | None, as_json: bool) -> None:
    """Print how far the dataset NAME is: its cells by specification and status."""
    from recordledger.api.client import Client

    if version is not None and not by_entry:
        raise click.UsageError("a locked version can only be shown with --entries")
    with Client() as client:
        found = client.dataset(name)
        shown: Any = found.table(limit=limit, version=version) if by_entry else found.status()
    if as_json:
        print_json(shown)
    else:
        click.echo(repr(shown))


@dataset.command("results")
@_NAME
@_SPECIFICATIONS
@click.option(
    "--status",
    multiple=True,
    type=click.Choice([str(status) for status in Status]),
    default=["complete"],
    show_default=True,
    help="Only records in this status. Repeatable.",
)
@_VERSION
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to write instead: .csv, .json or .parquet (needs PyArrow).",
)
@JSON
@exits_on_ledger_errors
def results(
    name: str,
    specifications: tuple[str, ...],
    status: tuple[str, ...],
    version: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the results of the dataset NAME, or write them into a file."""
    from recordledger.api.client import Client

    if output is not None and output.suffix not in _WRITERS:
        raise click.UsageError(f"the output must end in {', '.join(_WRITERS)}")
    with Client() as client:
        found = client.dataset(name).results(
            specifications=list(specifications) or None, status=list(status), version=version
        )
    if output is not None:
        _WRITERS[output.suffix](found, output)
        click.echo(f"{len(found):,} results are in {output}", err=as_json)
    elif as_json:
        print_json(found)
    else:
        click.echo(repr(found))


@dataset.command("remove")
@_NAME
@click.option("--entry", "entries", multiple=True, help="An entry. Repeatable.")
@click.option("--specification", "specifications", multiple=True, help="A specification.")
@_YES
@_REASON
@JSON
@exits_on_ledger_errors
def remove(
    name: str,
    entries: tuple[str, ...],
    specifications: tuple[str, ...],
    yes: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Take entries or specifications out of the dataset NAME; their records are as they were."""
    from recordledger.api.client import Client

    if not entries and not specifications:
        raise click.UsageError("give what to remove: --entry, --specification or both")
    if not yes:
        n_both = f"{len(entries)} entries and {len(specifications)} specifications"
        click.confirm(f"This would remove {n_both} from {name!r}. Continue?", abort=True, err=True)
    n_entries = n_specifications = 0
    with Client() as client:
        found = client.dataset(name)
        if entries:
            n_entries = found.remove_entries(entries, reason=reason)
        if specifications:
            n_specifications = found.remove_specifications(specifications, reason=reason)
    if as_json:
        print_json({"n_entries": n_entries, "n_specifications": n_specifications})
    else:
        click.echo(f"{n_entries:,} entries and {n_specifications:,} specifications were removed")


@dataset.command("clone")
@_NAME
@click.argument("new_name")
@_VERSION
@click.option("--link-records", is_flag=True, help="Copy the links to the records too.")
@_REASON
@JSON
@exits_on_ledger_errors
def clone(
    name: str,
    new_name: str,
    version: int | None,
    link_records: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Make the dataset NEW_NAME with the entries and specifications of the dataset NAME."""
    from recordledger.api.client import Client

    with Client() as client:
        new = client.dataset(name).clone(
            new_name, version=version, link_records=link_records, reason=reason
        )
        info = new.info()
    if as_json:
        print_json(info)
    else:
        click.echo(
            f"dataset {new.id}, {new_name!r}, has {info.n_entries:,} entries, "
            f"{len(info.specifications):,} specifications and {info.n_records:,} records"
        )


@dataset.command("lock")
@_NAME
@click.option("--label", default="", help="Label of this version.")
@click.option("--doi", help="Where it was published.")
@_REASON
@JSON
@exits_on_ledger_errors
def lock(name: str, label: str, doi: str | None, reason: str | None, as_json: bool) -> None:
    """Keep the dataset NAME, as it is now, readable for ever."""
    from recordledger.api.client import Client

    with Client() as client:
        number = client.dataset(name).lock(label, doi, reason=reason)
    if as_json:
        print_json({"version": number})
    else:
        click.echo(f"version {number} of {name!r} stays readable")


@dataset.command("delete")
@_NAME
@_YES
@_REASON
@JSON
@exits_on_ledger_errors
def delete(name: str, yes: bool, reason: str | None, as_json: bool) -> None:
    """End the dataset NAME; its records are as they were.

    Exit status is 1 when there is none, or when a version of it is locked.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.dataset(name)
        if not yes:
            n_entries = found.info().n_entries
            text = f"This would delete dataset {name!r} with {n_entries:,} entries. Continue?"
            click.confirm(text, abort=True, err=True)
        found.delete(reason=reason)
    if as_json:
        print_json({"id": found.id, "deleted": True})
    else:
        click.echo(f"dataset {name!r} is deleted; its records are unchanged")


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the client takes them: what was not given is None."""
    return {
        name: list(value) or None if name in ("specifications", "entries") else value
        for name, value in given.items()
    }


def _entries_in(source: TextIO) -> Iterator[dict[str, Any]]:
    """Yield the entries that a file holds, by its name and by what it looks like."""
    if source.name.endswith(".csv"):
        for row in csv.DictReader(source):
            name = row.pop("name", None)
            if name is None:
                raise click.UsageError("the CSV file has no column `name`")
            yield {"name": name, "input": {key: _value(text) for key, text in row.items()}}
        return
    text = source.read()
    try:
        whole: Any = json.loads(text)
    except ValueError:
        whole = [_line(line, number) for number, line in enumerate(text.splitlines(), 1) if line]
    if isinstance(whole, dict) and "name" not in whole:
        yield from ({"name": name, "input": each} for name, each in whole.items())  # pyright: ignore[reportUnknownVariableType]
    else:
        yield from whole if isinstance(whole, list) else [whole]  # pyright: ignore[reportUnknownVariableType]


def _line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise click.UsageError(f"line {number} of the entries is not JSON: {error}") from error


def _value(text: str | None) -> Any:
    """Return a cell of a CSV file: a number if it is one, nothing if it is empty, else text."""
    for kind in (int, float):
        try:
            number = kind(text or "")
        except ValueError:
            continue
        # JSON has no NaN and no infinity: that is what somebody has written there.
        return number if math.isfinite(number) else text
    return text or None


def _write_csv(found: Results, output: Path) -> None:
    columns = found.as_columns()
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        rows: Iterator[tuple[Any, ...]] = zip(*columns.values(), strict=True)
        writer.writerows([_plain(cell) for cell in row] for row in rows)


def _plain(cell: Any) -> Any:
    return json.dumps(cell) if type(cell) in (list, dict) else cell


def _write_json(found: Results, output: Path) -> None:
    from pydantic_core import to_json

    output.write_bytes(to_json(found, indent=2))


def _write_parquet(found: Results, output: Path) -> None:
    table = found.to_arrow()
    from importlib import import_module

    import_module("pyarrow.parquet").write_table(table, output)


_WRITERS: Final = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}

COMMANDS: Final = (dataset,)
