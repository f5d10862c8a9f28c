"""Commands that take a ledger out of its database, and bring archives into one."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from .databases import DATABASE_SCHEMA, DATABASE_URL, HOME, open_ledger, running_database
from .selection import RECORD_ID, filter_of, with_record_conditions
from .terminal import JSON, exits_on_ledger_errors, print_json, print_table

if TYPE_CHECKING:
    from recordledger.projections.archives.check import Contents
    from recordledger.projections.archives.export import ArchiveSelection
    from recordledger.projections.archives.import_ import ImportReport
    from recordledger.projections.ledger import Ledger

_PATH = click.Path(path_type=Path)


@click.command("export")
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option("--parquet", type=_PATH, help="Write tables here: a folder, or one FILE.parquet.")
@click.option("--archive", type=_PATH, help="Write an archive here: a new folder, or FILE.zip.")
@click.option("--ro-crate", type=_PATH, help="Write a dataset as an RO-Crate: a new folder.")
@click.option(
    "--table", "tables", multiple=True, help="With --parquet: only this table. Repeatable."
)
@click.option("--record", "records", multiple=True, type=RECORD_ID, help="Only this. Repeatable.")
@with_record_conditions
@click.option("--dataset", help="Only this dataset and its records, by name.")
@click.option(
    "--version", type=click.IntRange(1), help="With --ro-crate: a locked version. [newest]"
)
@click.option("--license", "license_url", help="With --ro-crate: the licence, as a URL.")
@click.option(
    "--author", "authors", multiple=True, help="With --ro-crate: name of an author. Repeatable."
)
@exits_on_ledger_errors
def export(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    parquet: Path | None,
    archive: Path | None,
    ro_crate: Path | None,
    tables: tuple[str, ...],
    version: int | None,
    license_url: str | None,
    authors: tuple[str, ...],
    **which: Any,
) -> None:
    """Write the ledger, or a part of it, into files: tables, an archive, or a published dataset.

    Everything is read at one moment; the ledger may be in use. Without --database-url it looks at
    the embedded database of `recordledger up`, which must be running.

    --parquet writes tables for analysis (records, events, attempts and so on), which DuckDB, Polars
    and pandas read. --archive writes the whole history with all payloads, or that of a selection
    with what belongs to it, for another ledger or for the shelf: docs/archives.md.

    \b
    Examples:
      recordledger export --parquet tables/
      recordledger export --archive ledger.zip
      recordledger export --archive errors.zip --status error --tag gpu
      recordledger export --ro-crate crate/ --dataset 'potential curves' --version 1 \\
        --license https://creativecommons.org/licenses/by/4.0/ --author 'Ann Example'
    """
    wanted = [path for path in (parquet, archive, ro_crate) if path is not None]
    if len(wanted) != 1:
        raise click.UsageError("give one of --parquet, --archive and --ro-crate")
    given = {name for name, value in which.items() if value}
    if parquet is not None and given:
        raise click.UsageError("--parquet writes whole tables; select rows when reading them")
    if ro_crate is not None and given != {"dataset"}:
        raise click.UsageError("--ro-crate takes --dataset and no other selection")
    url = running_database(home, database_url)
    with closing(open_ledger(url, database_schema)) as ledger:
        if parquet is not None:
            _write_tables(ledger, parquet, tables)
        elif archive is not None:
            _write_archive(ledger, archive, _selection(ledger, which))
        elif ro_crate is not None:
            from recordledger.projections.archives.ro_crate import export_ro_crate

            n_records = export_ro_crate(
                ledger,
                ro_crate,
                which["dataset"],
                version=version,
                license_url=license_url,
                authors=authors,
            )
            click.echo(f"{ro_crate}: {n_records:,} records")


def _write_tables(ledger: Ledger, path: Path, tables: tuple[str, ...]) -> None:
    from recordledger.projections.archives.analysis import export_tables

    with _progress() as say:
        written = export_tables(ledger, path, tables, progress=lambda name, n: say(name, n, None))
    for each in written:
        click.echo(f"{each.path}: {each.n_rows:,} rows")


def _write_archive(ledger: Ledger, path: Path, selection: ArchiveSelection) -> None:
    from recordledger.projections.archives.export import export_archive

    with _progress() as say:
        manifest = export_archive(
            ledger, path, selection, progress=lambda what, n: say(what, n, None)
        )
    counts = manifest.counts
    click.echo(
        f"{path}: {counts.records:,} records, {counts.managers:,} managers, "
        f"{counts.datasets:,} datasets; {counts.events:,} events, {counts.payloads:,} payloads"
    )
    if counts.erased_records:
        click.echo(
            f"{counts.erased_records:,} hard-deleted records are included as events without "
            "content."
        )


def _selection(ledger: Ledger, which: dict[str, Any]) -> ArchiveSelection:
    from recordledger.projections.archives.export import EVERYTHING, ArchiveSelection
    from recordledger.projections.reading.queries import select_ids

    filters = filter_of(which)
    if sum(map(bool, (which["records"], which["dataset"], filters is not None))) > 1:
        raise click.UsageError("give only one of --record, --dataset and conditions")
    if which["records"]:
        return ArchiveSelection(record_ids=which["records"])
    if which["dataset"]:
        return ArchiveSelection(dataset=which["dataset"])
    if filters is not None:
        return ArchiveSelection(record_ids=tuple(select_ids(ledger, filters, 2**31 - 1)))
    return EVERYTHING


@click.command("import")
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.argument("archive", type=click.Path(exists=True, path_type=Path))
@click.option("--check", is_flag=True, help="Only check the archive; no database is needed.")
@click.option("--dry-run", is_flag=True, help="Run the import, then roll it back.")
@click.option(
    "--release",
    is_flag=True,
    help="Let managers here run the records that were waiting or running there.",
)
@click.option("--user", help="User that the import is recorded for. [the account that runs it]")
@click.option("--reason", help="Reason; kept in the log.")
@click.option(
    "--events-max",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    help="Maximum number of events; larger archives are refused, as the import is one transaction.",
)
@JSON
@exits_on_ledger_errors
def import_(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    archive: Path,
    check: bool,
    dry_run: bool,
    release: bool,
    user: str | None,
    reason: str | None,
    events_max: int,
    as_json: bool,
) -> None:
    """Bring what is in ARCHIVE into a ledger: all of it, or nothing.

    The archive is checked first: every file, every payload and every event. Records, managers and
    datasets get new numbers; their histories stay as they are, and say where they come from. What
    came here before is left alone, so that an archive may be imported twice. What waited or ran
    there is held here until it is released.

    Exit status is 0 when it was imported, or passed the check, and 1 when it is damaged.
    """
    if check:
        from recordledger.projections.archives.check import check_archive

        with _progress() as say:
            _print_contents(check_archive(archive, progress=say), as_json=as_json)
        return
    from recordledger.projections.archives.import_ import import_archive

    url = running_database(home, database_url)
    with closing(open_ledger(url, database_schema)) as ledger, _progress() as say:
        report = import_archive(
            ledger,
            archive,
            actor=f"user:{user or getpass.getuser()}",
            reason=reason,
            release=release,
            dry_run=dry_run,
            events_max=events_max,
            progress=say,
        )
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _print_contents(found: Contents, *, as_json: bool) -> None:
    if as_json:
        print_json(found.manifest.model_dump() | {"archive_hash": found.archive_hash})
        return
    counts, manifest = found.manifest.counts, found.manifest
    click.echo(
        f"archive {found.archive_hash}\n"
        f"of ledger {manifest.ledger_id}, read at {manifest.read_at:%F %T} UTC, position "
        f"{manifest.head}\n"
        f"{counts.records:,} records, {counts.managers:,} managers, {counts.datasets:,} datasets; "
        f"{counts.events:,} events, {counts.payloads:,} payloads\n"
        "It is whole and unaltered, and every history in it is a legal one."
    )


def _print_report(report: ImportReport) -> None:
    would = "would be " if report.dry_run else ""
    click.echo(
        f"{len(report.records):,} records, {len(report.managers):,} managers, "
        f"{len(report.datasets):,} datasets {would}imported from ledger {report.ledger_id}: "
        f"{report.n_events:,} events, {report.n_payloads:,} payloads"
    )
    if report.n_known:
        click.echo(f"{report.n_known:,} were already here and are unchanged.")
    if report.n_erased:
        click.echo(f"{report.n_erased:,} records were hard-deleted there and were skipped.")
    for old, new in report.renamed.items():
        click.echo(f"The name {old!r} is taken: the dataset is called {new!r} here.")


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@click.option(
    "--of",
    "kind",
    type=click.Choice(["record", "manager", "dataset"]),
    default="record",
    show_default=True,
    help="Of what.",
)
@click.option(
    "--id",
    "number",
    type=RECORD_ID,
    help="Only of the record, manager or dataset with this number here.",
)
@click.option("--ledger", type=click.UUID, help="Only what was imported from this ledger.")
@click.option("--origin-id", type=RECORD_ID, help="Only what had this number there.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most.")
@JSON
@exits_on_ledger_errors
def origins(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    kind: str,
    number: int | None,
    ledger: UUID | None,
    origin_id: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print where imported records, managers or datasets came from, and what they are here."""
    from recordledger.domain.streams import Stream
    from recordledger.projections.tables import origins as table

    url = running_database(home, database_url)
    with (
        closing(open_ledger(url, database_schema)) as opened,
        opened.datastore.reading() as db,
    ):
        found = table.page(
            db, Stream[kind], limit, number=number, ledger_id=ledger, origin_id=origin_id
        )
    if as_json:
        print_json([each._asdict() | {"stream": each.stream.name} for each in found])
        return
    rows = [
        (each.number, each.origin_id, each.ledger_id, each.imported_at, each.imported_by)
        for each in found
    ]
    print_table((f"{kind} here", "there", "ledger", "imported (UTC)", "by"), rows)


@contextmanager
def _progress() -> Generator[Callable[[str, int, int | None], None]]:
    """Show on a terminal how far it has come."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=None)

        def say(what: str, n_done: int, n_all: int | None) -> None:
            bar.update(task, description=what, completed=n_done, total=n_all)

        yield say


COMMANDS: Final = (export, import_, origins)
