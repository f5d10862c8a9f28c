"""The sealer: the key in its file, the seals one after the other, and checkpoints as files.

The secret key is in no database and behind no address: only who can read the file can sign. Beside
it is kept what was signed last, so that nothing is signed which contradicts that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path
from threading import Event
from typing import Final

from recordledger.domain.errors import LedgerError, NoteBroken, SealBroken, SealKeyRefused
from recordledger.domain.proof.notes import SigningKey, VerifierKey
from recordledger.domain.proof.seals import Checkpoint, origin_of
from recordledger.projections.ledger import Ledger
from recordledger.projections.proof.seals import (
    SEAL_EVENTS_MAX,
    Seal,
    change_key,
    keys_of,
    newest_seal,
    seal_next,
)
from recordledger.projections.reading.queries import ledger_id

CHECKPOINT_SUFFIX: Final = ".checkpoint"
_CHECKPOINT_BYTES_MAX: Final = 1_000_000


class SealFileFault(LedgerError):
    """A file of the sealer cannot be read or written; the message says which and why."""

    code = "seal_file"


class Sealer:
    """Seals one ledger with the key in a file, and exports checkpoints to a directory."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        home: Path,
        key_file: Path | None = None,
        checkpoint_dir: Path | None = None,
    ) -> None:
        """Prepare; the key is read, or made, at the first seal.

        Args:
            ledger: which.
            home: below it is the secret key, if nothing else is said.
            key_file: where the secret key is, or will be.
            checkpoint_dir: where checkpoints go, one file each; None for nowhere.
        """
        self._ledger = ledger
        self._home = home
        self._given_key_file = key_file
        self._checkpoint_dir = checkpoint_dir
        self._key: SigningKey | None = None

    @property
    def key_file(self) -> Path:
        """Where the secret key is, or will be."""
        if self._given_key_file is None:
            name = f"{ledger_id(self._ledger)}.key"
            self._given_key_file = self._home / "seals" / name
        return self._given_key_file

    @property
    def signed_file(self) -> Path:
        """Where it is kept what was signed last."""
        return self.key_file.with_name(self.key_file.name + ".newest")

    def run(self, stop: Event) -> int:
        """Seal what is new, and export the newest checkpoint; return how many events were sealed.

        Raises: as `seal` and `export`.
        """
        n_sealed = 0
        while not stop.is_set():
            seal = self.seal()
            n_sealed += 0 if seal is None else seal.n_new
            # What comes while it seals is for the next time.
            if seal is None or seal.n_new < SEAL_EVENTS_MAX:
                break
        self.export()
        return n_sealed

    def seal(self) -> Seal | None:
        """Seal at most `SEAL_EVENTS_MAX` new events; return the seal, or None if there are none.

        Raises:
            SealKeyRefused: there is no key, or not the ledger's.
            SealBroken: what was sealed before no longer exists as it was.
            SealFileFault: a file cannot be read or written.
        """
        key = self.key()
        seal = seal_next(self._ledger, key, signed=self._signed(key), events_max=SEAL_EVENTS_MAX)
        if seal is not None:
            # After the commit, so that it is never ahead of the database.
            _write(self.signed_file, seal.note)
        return seal

    def export(self) -> Path | None:
        """See to it that the newest checkpoint is in the directory; return its file if it is new.

        Raises:
            SealBroken: there is another checkpoint of as many events.
            SealFileFault: the file cannot be written.
        """
        if self._checkpoint_dir is None:
            return None
        seal = newest_seal(self._ledger)
        return None if seal is None else _export(self._checkpoint_dir, seal, self.key().verifier)

    def key(self) -> SigningKey:
        """Return the secret key; it is made if there is none and nothing was ever sealed.

        Raises:
            SealKeyRefused: there is none, and another one was in use.
            SealFileFault: the file cannot be read or written.
        """
        if self._key is None:
            self._key = self._read_key() or self._make_key()
        return self._key

    def change_key(self) -> VerifierKey:
        """Make a new key and let it seal from now on; return its public half.

        The newest seal is signed by both keys. The old file stays, under a name with its id.

        Raises:
            SealKeyRefused: the key in the file is not the ledger's.
            SealFileFault: a file cannot be read or written.
        """
        old = self._read_key()
        new = _fresh_key(origin_of(ledger_id(self._ledger)))
        # First, so that no crash leaves the ledger with a key that is nowhere.
        draft = self.key_file.with_name(f"{self.key_file.name}.{new.verifier.id.hex()}")
        _write(draft, new.secret + "\n", only_new=True)
        try:
            seal = change_key(self._ledger, old, new)
        except LedgerError:
            draft.unlink(missing_ok=True)
            raise
        with _as_fault(self.key_file):
            if old is not None:
                former = f"{self.key_file.name}.{old.verifier.id.hex()}"
                self.key_file.replace(self.key_file.with_name(former))
            draft.replace(self.key_file)
        self._key = new
        if seal is not None:
            _write(self.signed_file, seal.note)
        return new.verifier

    def _read_key(self) -> SigningKey | None:
        try:
            return SigningKey.parse(self.key_file.read_text("utf-8").strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, NoteBroken) as error:
            raise SealFileFault(f"cannot read a key from {self.key_file}: {error}") from error

    def _make_key(self) -> SigningKey:
        if known := keys_of(self._ledger):
            raise SealKeyRefused(
                f"the ledger is sealed with the key {known[-1]}, which is not in {self.key_file}: "
                "copy the file here, or start with a new key by `recordledger seal --new-key`"
            )
        key = _fresh_key(origin_of(ledger_id(self._ledger)))
        _write(self.key_file, key.secret + "\n", only_new=True)
        return key

    def _signed(self, key: SigningKey) -> Checkpoint | None:
        """Return what this key has signed last, as far as this machine knows."""
        try:
            note = self.signed_file.read_text("utf-8")
            return Checkpoint.open(note, [key.verifier])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, NoteBroken) as error:
            raise SealFileFault(
                f"cannot read the last signed checkpoint from {self.signed_file}: {error}"
            ) from error


def read_checkpoints(folder: Path) -> dict[str, str]:
    """Return the checkpoints in a directory and those below it, by file name.

    Raises:
        SealFileFault: there is no checkpoint, or one cannot be read.
    """
    with _as_fault(folder):
        files = sorted(folder.rglob(f"*{CHECKPOINT_SUFFIX}"))
    if not files:
        raise SealFileFault(f"there is no file *{CHECKPOINT_SUFFIX} in {folder}")
    return {str(each.relative_to(folder)): read_note(each) for each in files}


def read_note(path: Path) -> str:
    """Return the text of a small file.

    Raises:
        SealFileFault: it cannot be read, or is too large.
    """
    with _as_fault(path), path.open("rb") as file:
        data = file.read(_CHECKPOINT_BYTES_MAX + 1)
    if len(data) > _CHECKPOINT_BYTES_MAX:
        raise SealFileFault(f"{path} is too large to be a checkpoint")
    # What is no text is found to be no checkpoint, with its name.
    return data.decode(errors="replace")


def _fresh_key(origin: str) -> SigningKey:
    return SigningKey(origin, secrets.token_bytes(32))


def _export(folder: Path, seal: Seal, key: VerifierKey) -> Path | None:
    path = folder / f"{seal.size:016d}-{key.id.hex()}{CHECKPOINT_SUFFIX}"
    if path.exists():
        if read_note(path) == seal.note:
            return None
        raise SealBroken(
            f"{path} is a different checkpoint of the same number of events: history was rewritten"
        )
    _write(path, seal.note, only_new=True, mode=0o644)
    return path


def _write(path: Path, text: str, *, only_new: bool = False, mode: int = 0o600) -> None:
    """Write a file so that a reader sees all of it or nothing, whatever is switched off when."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _as_fault(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if only_new:
                # Unlike a renaming, this never takes the place of a file.
                os.link(draft, path)
            else:
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_fault(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise SealFileFault(f"{path}: {error.strerror or error}") from error
