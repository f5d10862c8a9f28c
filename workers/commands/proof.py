"""Commands that seal the log, and that prove what it says: `seal`, `receipt` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

import click

from .databases import (
    CHECKPOINT_DIR,
    DATABASE_SCHEMA,
    DATABASE_URL,
    HOME,
    SEAL_KEY_FILE,
    open_ledger,
    running_database,
)
from .selection import RECORD_ID
from .terminal import JSON, exits_on_ledger_errors, print_json

if TYPE_CHECKING:
    from recordledger.domain.proof.notes import VerifierKey
    from recordledger.projections.proof.verification import Verification

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_RECEIPT_BYTES_MAX: Final = 256 * 1024 * 1024


@click.command()
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@SEAL_KEY_FILE
@CHECKPOINT_DIR
@click.option("--public-key", is_flag=True, help="Print the public key; seal nothing.")
@click.option("--new-key", is_flag=True, help="Create a new key, and seal with it from now on.")
@exits_on_ledger_errors
def seal(
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    seal_key_file: Path | None,
    checkpoint_dir: Path | None,
    public_key: bool,
    new_key: bool,
) -> None:
    """Seal what is new in the log now; `recordledger work` does so by itself.

    Prints the newest checkpoint. The secret key is made at the first seal, in a file of its own.
    Give the public key to those who shall be able to verify: it is what they trust.
    """
    from recordledger.api.client.connection import home_folder
    from recordledger.projections.proof.seals import newest_checkpoint

    from ..jobs.sealing import Sealer

    ledger = open_ledger(running_database(home, database_url), database_schema)
    try:
        sealer = Sealer(
            ledger,
            home=home or home_folder(),
            key_file=seal_key_file,
            checkpoint_dir=checkpoint_dir,
        )
        if new_key:
            click.echo(sealer.change_key())
        elif public_key:
            click.echo(sealer.key().verifier)
        else:
            sealer.run(Event())
            click.echo(newest_checkpoint(ledger) or "Nothing has happened yet.\n", nl=False)
    finally:
        ledger.close()


@click.command()
@click.argument("record_id", type=RECORD_ID)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. [receipt-RECORD_ID.json]",
)
@exits_on_ledger_errors
def receipt(record_id: int, output: Path | None) -> None:
    """Write the receipt of the record RECORD_ID: its history, with the proof.

    If the record has just changed, this waits some seconds for the next seal. `recordledger verify
    FILE` checks the file, anywhere and without a server. Keep it as it is: every byte counts.
    """
    from recordledger.api.client import Client

    with Client() as client:
        found = client.receipt(record_id)
    try:
        path = found.save(output or Path(f"receipt-{record_id}.json"))
    except OSError as error:
        raise click.ClickException(f"cannot write the receipt: {error}") from error
    click.echo(str(path))


@click.command()
@click.argument("receipt", required=False, type=_FILE)
@HOME
@DATABASE_URL
@DATABASE_SCHEMA
@SEAL_KEY_FILE
@click.option("--key", "keys", multiple=True, help="Public key of the ledger. Repeatable.")
@click.option(
    "--result", type=_FILE, help="With RECEIPT: file to compare with the record's result."
)
@click.option(
    "--checkpoints",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of checkpoints; the log is compared with all of them.",
)
@click.option(
    "--consistency",
    nargs=2,
    type=_FILE,
    metavar="OLD NEW",
    help="Check that the log of the second checkpoint begins with the log of the first. Asks "
    "the server; needs --key.",
)
@click.option("--log-only", is_flag=True, help="Skip recomputing the digests of payloads.")
@JSON
@exits_on_ledger_errors
def verify(
    receipt: Path | None,
    home: Path | None,
    database_url: str | None,
    database_schema: str,
    seal_key_file: Path | None,
    keys: tuple[str, ...],
    result: Path | None,
    checkpoints: Path | None,
    consistency: tuple[Path, Path] | None,
    log_only: bool,
    as_json: bool,
) -> None:
    """Verify the file RECEIPT, offline; without it, the whole log of a database.

    The whole log is read once in one snapshot, every hash is computed again, and all is compared
    with what was sealed and, by --checkpoints, with what was kept elsewhere; and every payload with
    the digest that it is stored under. Nothing is changed. The keys that the database names prove
    nothing against who owns it: give --key.

    \b
    Examples:
      recordledger verify receipt-411.json --key recordledger/5f7e...+1a2b3c4d+AY...
      recordledger verify --checkpoints /mnt/elsewhere/checkpoints

    Exit status is 0 when everything is as it was sealed, and 1 when it is not.
    """
    from recordledger.domain.proof.notes import VerifierKey

    if receipt is not None and (checkpoints or consistency):
        raise click.UsageError("a receipt cannot be combined with other checks")
    if result is not None and receipt is None:
        raise click.UsageError("--result can only be used with a receipt FILE")
    if receipt is not None:
        _verify_receipt(receipt, keys, result, as_json)
        return
    trusted = [VerifierKey.parse(each.strip()) for each in keys]
    if consistency:
        _verify_consistency(*consistency, trusted)
    else:
        ledger = running_database(home, database_url), database_schema
        kept = {} if checkpoints is None else _read_checkpoints(checkpoints)
        files = (home, seal_key_file)
        found = _verify_log(ledger, files, trusted, kept, with_payloads=not log_only)
        if as_json:
            print_json(found)
        else:
            click.echo(str(found))
        sys.exit(0 if found.holds else 1)


def _verify_receipt(path: Path, keys: tuple[str, ...], result: Path | None, as_json: bool) -> None:
    from recordledger.projections.proof.receipts import verify_receipt

    if len(keys) > 1:
        raise click.UsageError("a receipt has one key; give --key once")
    try:
        if path.stat().st_size > _RECEIPT_BYTES_MAX:
            raise click.ClickException(f"{path} is too large to be a receipt")
        found = verify_receipt(
            path.read_bytes(),
            key=keys[0] if keys else None,
            result=None if result is None else result.read_bytes(),
        )
    except OSError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(found)
    else:
        click.echo(str(found))


def _verify_consistency(old: Path, new: Path, keys: list[VerifierKey]) -> None:
    from recordledger.api.client import Client
    from recordledger.domain.errors import ProofBroken
    from recordledger.domain.proof.merkle import require_consistent
    from recordledger.domain.proof.seals import Checkpoint

    from ..jobs.sealing import read_note

    if not keys:
        raise click.UsageError("give the public key of the ledger with --key")
    first, second = (Checkpoint.open(read_note(path), keys) for path in (old, new))
    if first.origin != second.origin:
        raise ProofBroken(
            f"the checkpoints belong to different ledgers: {first.origin} and {second.origin}"
        )
    if not 0 < first.size <= second.size:
        raise click.UsageError("give the older checkpoint first")
    with Client() as client:
        proof = client.consistency(first.size, second.size)
    require_consistent(first.size, first.root, second.size, second.root, proof)
    click.echo(
        f"The log of {second.size:,} events begins with the {first.size:,} of the other checkpoint."
    )


def _read_checkpoints(folder: Path) -> dict[str, str]:
    from ..jobs.sealing import read_checkpoints

    return read_checkpoints(folder)


def _verify_log(
    database: tuple[str, str],
    files: tuple[Path | None, Path | None],
    trusted: list[VerifierKey],
    checkpoints: dict[str, str],
    *,
    with_payloads: bool,
) -> Verification:
    """Verify a whole log, also by what the sealer of this machine remembers, if it is here."""
    from rich.console import Console
    from rich.progress import Progress

    from recordledger.api.client.connection import home_folder
    from recordledger.projections.proof.verification import verify_log

    from ..jobs.sealing import Sealer, read_note

    ledger = open_ledger(*database)
    try:
        home, key_file = files
        ours = Sealer(ledger, home=home or home_folder(), key_file=key_file).signed_file
        if ours.exists():
            checkpoints = checkpoints | {str(ours): read_note(ours)}
        with Progress(transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task("hashing the log", total=None)
            return verify_log(
                ledger,
                keys=trusted,
                checkpoints=checkpoints,
                with_payloads=with_payloads,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        ledger.close()


COMMANDS: Final = (seal, receipt, verify)
