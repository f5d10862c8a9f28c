"""Verification of the log: every hash is computed again, and compared with what was sealed."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow, tuple_row

from recordledger.domain.audit.findings import Finding
from recordledger.domain.errors import InvalidInput, NoteBroken
from recordledger.domain.proof.merkle import (
    HASH_BYTES,
    TILE_WIDTH,
    Frontier,
    Tile,
    TileKey,
    leaf_hash,
)
from recordledger.domain.proof.notes import VerifierKey
from recordledger.domain.proof.seals import Checkpoint, leaf_of, origin_of
from recordledger.domain.specs.fingerprint import digest_of

from ..ledger import Ledger
from ..reading.queries import ledger_id
from ..replay.replay import Progress
from ..store.database import as_ledger_errors, connect
from ..store.statements import statements
from ..tables.payloads import decompress

_SQL: Final = statements("proof.seals")
_LOG: Final = statements("log.ledger_events")
_ROWS: Final = 10_000
# Each may have many megabytes.
_PAYLOADS: Final = 10


class _RootClaim(NamedTuple):
    """A statement that the first `size` events have this root."""

    size: int
    root: bytes
    position: int | None
    name: str
    finding: Finding


@dataclass(slots=True)
class Verification:
    """What was found.

    Attributes:
        n_events: how many events the log has.
        n_sealed: how many of them the newest seal covers, or the newest checkpoint that was given.
        keys: the public keys with which signatures were checked.
        keys_are_given: whether the verifier gave these, or else they are from the database.
        findings: what was checked, and what is wrong.
    """

    n_events: int = 0
    n_sealed: int = 0
    n_seals: int = 0
    keys: Sequence[str] = ()
    keys_are_given: bool = False
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def holds(self) -> bool:
        """Whether there is a seal, and nothing contradicts it."""
        return self.n_seals > 0 and not any(finding.is_broken for finding in self.findings)

    def __str__(self) -> str:
        """Return a line for each thing that was checked, what is wrong with it, and a summary."""
        lines: list[str] = []
        for finding in self.findings:
            lines.append(str(finding))
            lines += [f"  {breach}" for breach in finding.breaches]
        whose = (
            "that were given" if self.keys_are_given else "that the DATABASE contains (see --key)"
        )
        lines += [f"keys {whose}:", *(f"  {key}" for key in self.keys)]
        n_open = max(0, self.n_events - self.n_sealed)
        lines.append(
            f"{self.n_sealed:,} events are sealed; the log has {self.n_events:,}, "
            f"and {n_open:,} of them are not sealed yet"
        )
        if self.holds:
            lines.append("The log agrees with its seals.")
        elif self.n_seals:
            lines.append("The log does NOT agree with its seals.")
        else:
            lines.append("The log has no seal, so nothing is proven.")
        return "\n".join(lines)


def verify_log(
    ledger: Ledger,
    *,
    keys: Sequence[VerifierKey] = (),
    checkpoints: Mapping[str, str] | None = None,
    with_payloads: bool = True,
    progress: Progress | None = None,
    breaches_max: int = 20,
) -> Verification:
    """Compute every hash of the log again, and compare with what was sealed.

    It may run while the ledger is in use: all is read in one snapshot, and nothing is changed.

    Args:
        ledger: which.
        keys: the public keys that may have signed; without them those that the database names.
        checkpoints: signed checkpoints that were kept elsewhere, by a name for each.
        with_payloads: whether to compute the digests of payloads again, too.
        progress: called with the number of events read so far, and of all.
        breaches_max: how many breaches of each kind are kept; all are counted.
    """
    name = origin_of(ledger_id(ledger))
    with as_ledger_errors(), connect(ledger.url, ledger.schema) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        with connection.transaction(force_rollback=True):
            run = _Run(connection, name, keys, breaches_max)
            found = run.verify(checkpoints or {}, progress)
            if with_payloads:
                run.verify_payloads()
            return found


def verify_in(
    connection: Connection[TupleRow], ledger: Ledger, *, breaches_max: int = 20
) -> Verification:
    """Do the same as `verify_log`, in the snapshot that a connection has."""
    return _Run(connection, origin_of(ledger_id(ledger)), (), breaches_max).verify({}, None)


class _Run:
    """One verification."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        origin: str,
        keys: Sequence[VerifierKey],
        breaches_max: int,
    ) -> None:
        def finding(name: str, what: str, unit: str) -> Finding:
            return Finding(name, what, unit, breaches_max=breaches_max)

        self._connection = connection
        self._origin = origin
        self._events = finding("events", "each matches its stored hash", "events")
        self._tiles = finding(
            "tiles", "the stored hashes of the tree follow from the events", "tiles"
        )
        self._seals = finding("seals", "each root follows from the events up to it", "seals")
        self._signatures = finding("signatures", "each is by one of the keys", "signatures")
        self._checkpoints = finding("checkpoints", "each is of this log", "checkpoints")
        self._keys = keys or self._known_keys()
        self._found = Verification(keys=[str(key) for key in self._keys], keys_are_given=bool(keys))
        self._found.findings = [self._events, self._tiles, self._seals, self._signatures]

    def verify(self, checkpoints: Mapping[str, str], progress: Progress | None) -> Verification:
        found = self._found
        row = self._connection.execute("SELECT count(*) FROM ledger_events").fetchone()
        found.n_events = int(row[0]) if row else 0
        if checkpoints:
            found.findings.append(self._checkpoints)
        kept = sorted(self._claimed(checkpoints), key=lambda claim: claim.size)
        with self._rows("verify_seals", _SQL["all_seals"]) as seals:
            claims = heapq.merge(self._sealed(seals), kept, key=lambda claim: claim.size)
            self._compare(claims, progress)
        return found

    def verify_payloads(self) -> None:
        """Compute the digest of every payload again."""
        finding = Finding(
            "payloads",
            "each matches its digest",
            "payloads",
            breaches_max=self._events.breaches_max,
        )
        self._found.findings.append(finding)
        with self._rows("verify_payloads", _SQL["payloads"], itersize=_PAYLOADS) as rows:
            for digest, size_bytes, codec, data in rows:
                finding.n_checked += 1
                try:
                    content = data if codec == "raw" else decompress(data, size_bytes)
                except InvalidInput:
                    content = b""
                if len(content) != size_bytes or digest_of(content) != digest:
                    finding.report(f"payload {digest.hex()} was changed")

    # What was claimed

    def _known_keys(self) -> list[VerifierKey]:
        known: list[VerifierKey] = []
        for (text,) in self._connection.execute(_SQL["keys"]):
            try:
                known.append(VerifierKey.parse(text))
            except NoteBroken as error:
                self._signatures.report(f"the database contains the key {text[:100]!r}: {error}")
        return known

    def _sealed(self, rows: Iterable[Any]) -> Iterator[_RootClaim]:
        """Give what the seals in the database claim."""
        for size, position, root, note in rows:
            self._found.n_seals += 1
            self._found.n_sealed = max(self._found.n_sealed, size)
            name = f"the seal at {size} events"
            self._signatures.n_checked += 1
            try:
                signed = Checkpoint.open(note, self._keys)
            except NoteBroken as error:
                self._signatures.report(f"{name}: {error}")
            else:
                if signed != Checkpoint(self._origin, size, root):
                    self._signatures.report(f"{name}: its signed text differs")
            yield _RootClaim(size, root, position, name, self._seals)

    def _claimed(self, checkpoints: Mapping[str, str]) -> Iterator[_RootClaim]:
        """Give what checkpoints that were kept elsewhere claim."""
        for name, note in checkpoints.items():
            try:
                signed = Checkpoint.open(note, self._keys)
            except NoteBroken as error:
                self._checkpoints.n_checked += 1
                self._checkpoints.report(f"{name}: {error}")
                continue
            if signed.origin != self._origin:
                self._checkpoints.n_checked += 1
                self._checkpoints.report(f"{name}: its origin is {signed.origin}")
                continue
            self._found.n_seals += 1
            self._found.n_sealed = max(self._found.n_sealed, signed.size)
            yield _RootClaim(signed.size, signed.root, None, name, self._checkpoints)

    # What there is

    def _compare(self, claims: Iterator[_RootClaim], progress: Progress | None) -> None:
        """Read the log once, and look at each claim where it belongs."""
        claim = next(claims, None)
        everything = {"after": -(2**63), "upto": 2**63 - 1}
        with (
            self._rows("verify_tiles", _SQL["leaf_tiles"]) as leaves,
            self._rows("verify_log", _LOG["read_log"], **everything) as log,
        ):
            kept = _KeptTiles(self._connection, leaves)
            walk = _Walk(kept, self._events, self._tiles)
            while True:
                while claim is not None and claim.size <= walk.size:
                    self._judge(claim, walk)
                    claim = next(claims, None)
                row = next(log, None)
                if row is None:
                    break
                walk.take(row)
                if progress and walk.size % _ROWS == 0:
                    progress(walk.size, self._found.n_events)
            walk.end()
        while claim is not None:
            claim.finding.n_checked += 1
            claim.finding.report(
                f"{claim.name}: the log has {walk.size} events only; {claim.size} were sealed"
            )
            claim = next(claims, None)
        if progress:
            progress(walk.size, self._found.n_events)

    @staticmethod
    def _judge(claim: _RootClaim, walk: _Walk) -> None:
        claim.finding.n_checked += 1
        if claim.root != walk.root():
            claim.finding.report(f"{claim.name}: the log has another root at that size")
        elif claim.position not in (None, walk.position):
            claim.finding.report(
                f"{claim.name}: it ends at position {walk.position}, not at {claim.position}"
            )

    @contextmanager
    def _rows(
        self, name: str, sql: Any, *, itersize: int = _ROWS, **parameters: Any
    ) -> Generator[Iterator[Any]]:
        """Give the rows of a statement, some at a time."""
        with self._connection.cursor(name, row_factory=tuple_row) as cursor:
            cursor.itersize = itersize
            cursor.execute(sql, parameters, binary=True)
            yield iter(cursor)


class _Walk:
    """The tree as it grows along the log, compared with what is kept of it."""

    def __init__(self, kept: _KeptTiles, events: Finding, tiles: Finding) -> None:
        self.size = 0
        self.position = 0
        self._kept = kept
        self._events = events
        self._tiles = tiles
        self._frontier = Frontier()
        # What was read and is not in the tree yet, all in one tile.
        self._hashes: list[bytes] = []
        self._positions: list[int] = []

    def take(self, row: Any) -> None:
        """Take the next row of the log."""
        self._hashes.append(leaf_hash(leaf_of(*row)))
        self.position = row[0]
        self._positions.append(self.position)
        self.size += 1
        if self.size % TILE_WIDTH == 0:
            self._add()

    def root(self) -> bytes:
        """Return the root of the tree over all rows so far."""
        self._add()
        return self._frontier.root()

    def end(self) -> None:
        """Look at what is not full."""
        self._add()
        self._require(self._frontier.edges())

    def _add(self) -> None:
        kept = self._kept.leaves(self._frontier.size, len(self._hashes))
        self._events.n_checked += len(kept)
        for position, there, now in zip(self._positions, kept, self._hashes, strict=False):
            if there != now:
                self._events.report(f"position {position}: the event differs from the sealed one")
        self._require(self._frontier.extend(self._hashes))
        self._hashes.clear()
        self._positions.clear()

    def _require(self, tiles: Iterable[Tile]) -> None:
        for tile in tiles:
            is_right = self._kept.is_right(tile)
            self._tiles.n_checked += is_right is not None
            if is_right is False:
                self._tiles.report(f"tile {tile.number} of level {tile.level} does not follow")


class _KeptTiles:
    """The tiles in the database, in the order in which a walk along the log comes by.

    Those of leaves are streamed; the others are so much fewer that they are held.
    """

    def __init__(self, connection: Connection[TupleRow], leaves: Iterator[Any]) -> None:
        row = connection.execute("SELECT coalesce(max(size), 0) FROM seals").fetchone()
        self._sealed = int(row[0]) if row else 0
        upper = connection.execute(_SQL["upper_tiles"], binary=True)
        self._upper: dict[TileKey, bytes] = {(level, number): kept for level, number, kept in upper}
        self._leaves = leaves
        self._number, self._current = -1, b""

    def leaves(self, start: int, count: int) -> list[bytes]:
        """Return the kept hashes of some events of one tile, from an index on; of sealed ones."""
        number, offset = divmod(start, TILE_WIDTH)
        while self._number < number:
            self._number, self._current = next(self._leaves, (2**63, b""))
        tile = self._current if self._number == number else b""
        end = min(offset + count, self._width(0, number), len(tile) // HASH_BYTES)
        return [tile[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(offset, end)]

    def is_right(self, tile: Tile) -> bool | None:
        """Return whether a tile is kept as it was computed; None if nothing of it is sealed.

        The hashes of events are compared one by one elsewhere.
        """
        width = min(self._width(tile.level, tile.number), len(tile.hashes) // HASH_BYTES)
        if not width:
            return None
        end = width * HASH_BYTES
        if tile.level:
            kept = self._upper.get((tile.level, tile.number), b"")
            return kept[:end] == tile.hashes[:end]
        return self._number == tile.number and len(self._current) >= end

    def _width(self, level: int, number: int) -> int:
        """Return how many hashes a tile must have, for what is sealed."""
        there = (self._sealed >> 8 * level) - number * TILE_WIDTH
        return max(0, min(there, TILE_WIDTH))
