"""Seals: the log hashed into a Merkle tree, off the write path, and proofs out of the tree.

The sealer reads the log in order, like any follower: positions are in the order of commits, so
what it has passed stays as it is. Hashes are kept as tiles (`domain.merkle`), so that sealing and
proving read a few rows, however long the log is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from recordledger.domain.errors import InvalidInput, SealBroken, SealKeyRefused
from recordledger.domain.proof.merkle import (
    HASH_BYTES,
    TILE_WIDTH,
    Frontier,
    Node,
    Nodes,
    Tile,
    TileCollector,
    TileKey,
    consistency_proof,
    edge_keys,
    frontier_of,
    inclusion_proof,
    root_at,
)
from recordledger.domain.proof.notes import SigningKey, VerifierKey
from recordledger.domain.proof.seals import Checkpoint, origin_of

from ..ledger import Ledger
from ..reading.queries import ledger_id
from ..store.database import Db
from ..store.statements import statements

Proof = TypeVar("Proof")

_SQL: Final = statements("proof.seals")
# Of one seal at most: so much is hashed in one transaction.
SEAL_EVENTS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Seal:
    """What the log was: `size` events, the last of them at `position`; `note` is signed.

    `n_new` is how many of them were sealed just now.
    """

    size: int
    position: int
    root: bytes
    note: str
    n_new: int = 0


def seal_next(
    ledger: Ledger,
    key: SigningKey,
    *,
    signed: Checkpoint | None = None,
    events_max: int = SEAL_EVENTS_MAX,
) -> Seal | None:
    """Seal the next events, in one transaction; return the seal, or None if there is nothing new.

    The first key that seals becomes the ledger's.

    Args:
        ledger: which.
        key: the ledger's secret key.
        signed: the last checkpoint that this key is known to have signed. Nothing that contradicts
            it is signed again, even if the owner of the database has made it all consistent.
        events_max: maximum number of events.

    Raises:
        SealKeyRefused: the key is not the ledger's.
        SealBroken: what was sealed before no longer exists as it was.
    """
    origin = origin_of(ledger_id(ledger))
    if key.name != origin:
        raise SealKeyRefused(f"the key signs for {key.name}, but this ledger is {origin}")
    with ledger.datastore.writing() as db:
        db.execute(_SQL["lock"])
        _require_key(db, key)
        newest = _newest(db)
        frontier = _frontier(db, newest)
        after = 0 if newest is None else newest.position
        row = db.execute(_SQL["hash"], {"after": after, "limit": events_max}).fetchone()
        positions, hashes = row or ([], b"")
        seal = _append(db, key, frontier, positions, hashes) if positions else None
        if signed is not None:
            # Last: a database that has lost its newest seal, and no event, may make it again.
            _require_continued(db, signed, frontier.size)
        return seal


def _require_key(db: Db, key: SigningKey) -> None:
    known = [row[0] for row in db.execute(_SQL["keys"])]
    ours = str(key.verifier)
    if not known:
        db.execute(_SQL["add_key"], {"vkey": ours})
    elif known[-1] != ours:
        raise SealKeyRefused(f"the ledger is sealed with the key {known[-1]}, not with {ours}")


def _frontier(db: Db, newest: Seal | None) -> Frontier:
    """Return the edge of the tree, which must have the root that was signed last."""
    if newest is None:
        return Frontier()
    keys = [key for key, _ in edge_keys(newest.size)]
    frontier = frontier_of(newest.size, _tiles(db, keys))
    if frontier.root() != newest.root:
        raise SealBroken(
            f"the stored hashes do not have the root of the seal at {newest.size} events: they "
            "were changed; `recordledger verify` gives details"
        )
    return frontier


def _require_continued(db: Db, signed: Checkpoint, size: int) -> None:
    """Return if the tree begins with what was signed."""
    if signed.size > size:
        raise SealBroken(
            f"{signed.size} events were sealed with this key, but the database has seals of "
            f"{size}: it was restored to an older state, or rewritten"
        )
    if _proved(db, lambda node: root_at(signed.size, node)) != signed.root:
        raise SealBroken(
            f"the first {signed.size} events differ from those sealed with this key before: "
            "history was rewritten"
        )


def _append(
    db: Db, key: SigningKey, frontier: Frontier, positions: Sequence[int], hashes: bytes
) -> Seal:
    before = frontier.size
    fresh = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
    tiles = frontier.extend(fresh) + frontier.edges()

    def last_position(tile: Tile) -> int | None:
        if tile.level:
            return None
        last = tile.number * TILE_WIDTH + len(tile.hashes) // HASH_BYTES - 1
        return positions[last - before] if last >= before else None

    # An edge of leaves that has not changed is as it was.
    changed = [(tile, last_position(tile)) for tile in tiles]
    changed = [(tile, last) for tile, last in changed if tile.level or last is not None]
    db.execute(
        _SQL["write_tiles"],
        {
            "levels": [tile.level for tile, _ in changed],
            "numbers": [tile.number for tile, _ in changed],
            "last_positions": [last for _, last in changed],
            "hashes": [tile.hashes for tile, _ in changed],
        },
    )
    checkpoint = Checkpoint(key.name, frontier.size, frontier.root())
    note = checkpoint.signed(key)
    seal = Seal(checkpoint.size, positions[-1], checkpoint.root, note, len(positions))
    db.execute(
        _SQL["write_seal"],
        {"size": seal.size, "position": seal.position, "root": seal.root, "note": seal.note},
    )
    return seal


def change_key(ledger: Ledger, old: SigningKey | None, new: SigningKey) -> Seal | None:
    """Let another key seal from now on; return the newest seal, signed by both, if there is one.

    Args:
        ledger: which.
        old: the key that was in use; None if it is lost, and then the new one signs alone.
        new: the key.

    Raises:
        SealKeyRefused: the old key is not the ledger's, or the new one was in use before.
    """
    with ledger.datastore.writing() as db:
        db.execute(_SQL["lock"])
        if old is not None:
            _require_key(db, old)
        if str(new.verifier) in [row[0] for row in db.execute(_SQL["keys"])]:
            raise SealKeyRefused("this key was used before; make another one")
        db.execute(_SQL["add_key"], {"vkey": str(new.verifier)})
        newest = _newest(db)
        if newest is None:
            return None
        _frontier(db, newest)
        checkpoint = Checkpoint(new.name, newest.size, newest.root)
        note = checkpoint.signed(new) if old is None else checkpoint.signed(new, old)
        db.execute(_SQL["sign_anew"], {"note": note, "size": newest.size})
        return Seal(newest.size, newest.position, newest.root, note)


def keys_of(ledger: Ledger) -> list[VerifierKey]:
    """Return the public keys that the ledger was sealed with, the one in use last.

    They are the database's word: anyone who wants proof has them from elsewhere.

    Raises:
        NoteBroken: one is no key.
    """
    with ledger.datastore.reading() as db:
        return [VerifierKey.parse(row[0]) for row in db.execute(_SQL["keys"])]


def newest_seal(ledger: Ledger) -> Seal | None:
    """Return the newest seal, if there is one."""
    with ledger.datastore.reading() as db:
        return _newest(db)


def newest_checkpoint(ledger: Ledger) -> str | None:
    """Return the newest signed checkpoint as text, if there is one."""
    seal = newest_seal(ledger)
    return None if seal is None else seal.note


def prove_consistency(ledger: Ledger, first: int, second: int) -> list[bytes]:
    """Return what proves that the log of `second` events begins with the one of `first`.

    Raises:
        InvalidInput: fewer events are sealed, or the second is the smaller one.
        SealBroken: the hashes that are kept are damaged.
    """
    if not 1 <= first <= second:
        raise InvalidInput("`first` is at least 1 and at most `second`")
    with ledger.datastore.reading() as db:
        newest = _newest(db)
        size = 0 if newest is None else newest.size
        if second > size:
            raise InvalidInput(f"{size} events are sealed, but {second} were requested")
        return _proved(db, lambda node: consistency_proof(first, second, node))


def prove_inclusion(db: Db, leaves: dict[int, bytes], size: int) -> list[tuple[int, list[bytes]]]:
    """Return for each event its index in the tree, and what proves that it is there.

    Args:
        db: the database.
        leaves: the events' hashes, by position; all of them are sealed.
        size: of the tree.

    Raises:
        SealBroken: an event is not what was sealed, or the hashes that are kept are damaged.
    """
    rows = db.execute(_SQL["places"], {"positions": list(leaves)}).fetchall()
    numbers: dict[int, int | None] = dict(rows)
    tiles = _tiles(db, {(0, number) for number in numbers.values() if number is not None})
    indexes = [_index(position, leaf, numbers, tiles) for position, leaf in leaves.items()]
    proofs = _proved(db, lambda node: [inclusion_proof(index, size, node) for index in indexes])
    return list(zip(indexes, proofs, strict=True))


def _index(
    position: int,
    leaf: bytes,
    numbers: dict[int, int | None],
    tiles: dict[TileKey, bytes],
) -> int:
    number = numbers[position]
    hashes = b"" if number is None else tiles.get((0, number), b"")
    for at in range(0, len(hashes), HASH_BYTES):
        if hashes[at : at + HASH_BYTES] == leaf:
            return (number or 0) * TILE_WIDTH + at // HASH_BYTES
    raise SealBroken(f"the event at position {position} differs from the sealed one")


def _proved(db: Db, prove: Callable[[Node], Proof]) -> Proof:
    """Return what `prove` makes of the tree's hashes; it is asked twice, first for which it needs.

    The tiles are read at once.
    """
    wanted = TileCollector()
    prove(wanted)
    node: Node = Nodes(_tiles(db, wanted.tiles))
    return prove(node)


def _tiles(db: Db, keys: Iterable[TileKey]) -> dict[TileKey, bytes]:
    wanted = sorted(keys)
    rows = db.execute(
        _SQL["tiles"],
        {"levels": [level for level, _ in wanted], "numbers": [number for _, number in wanted]},
        prepare=True,
    )
    return {(level, number): hashes for level, number, hashes in rows}


def _newest(db: Db) -> Seal | None:
    row = db.execute(_SQL["newest"], prepare=True).fetchone()
    return None if row is None else Seal(*row)
