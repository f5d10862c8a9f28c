"""Merkle trees of a log as in RFC 9162, section 2.1: hashes, proofs, and what checks them.

A tree is kept as tiles: a tile of level 0 holds up to 256 leaf hashes, one of level 1 the hashes of
up to 256 full tiles of level 0, and so on. Every proof is made of a few tiles, however long the log
is, and a full tile never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from ..errors import ProofBroken, SealBroken

HASH_BYTES: Final = 32
TILE_WIDTH: Final = 256
_TILE_BITS: Final = 8
EMPTY_ROOT: Final = sha256(b"").digest()
# No log that counts its events in 63 bits needs longer ones.
PROOF_HASHES_MAX: Final = 130

Node = Callable[[int, int], bytes]
"""Gives the hash of a full subtree: the i-th, from 0, of those with 2**height leaves."""

TileKey = tuple[int, int]
"""Level and number of a tile."""


class Tile(NamedTuple):
    """Some hashes of a level, side by side; `number` of 256 hashes each, from 0, come before it."""

    level: int
    number: int
    hashes: bytes


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes, or over the roots of full subtrees of one size."""
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    while len(row) > 1:
        # What has no right neighbour goes up as it is.
        last = row[-1:] if len(row) % 2 else []
        pairs = zip(row[::2], row[1::2], strict=False)
        row = [sha256(b"\1" + left + right).digest() for left, right in pairs] + last
    return row[0]


class Frontier:
    """The right edge of a tree: of each level the hashes of the tile that is not full yet."""

    def __init__(self, size: int = 0, edges: Iterable[Sequence[bytes]] = ()) -> None:
        """Begin with a tree of `size` leaves, whose edges are these, from the leaves up."""
        self.size = size
        self._edges = [list(edge) for edge in edges]

    def extend(self, hashes: Sequence[bytes]) -> list[Tile]:
        """Append leaf hashes; return the tiles that have become full."""
        full: list[Tile] = []
        fresh, level, before = list(hashes), 0, self.size
        self.size += len(fresh)
        while fresh:
            if level == len(self._edges):
                self._edges.append([])
            row = self._edges[level] + fresh
            number = before // TILE_WIDTH
            fresh = list[bytes]()
            for start in range(0, len(row) - TILE_WIDTH + 1, TILE_WIDTH):
                chunk = row[start : start + TILE_WIDTH]
                full.append(Tile(level, number + start // TILE_WIDTH, b"".join(chunk)))
                fresh.append(root_of(chunk))
            self._edges[level] = row[len(fresh) * TILE_WIDTH :]
            level, before = level + 1, number
        return full

    def edges(self) -> list[Tile]:
        """Return the tiles that are begun and not full."""
        return [
            Tile(level, self.size >> (_TILE_BITS * (level + 1)), b"".join(edge))
            for level, edge in enumerate(self._edges)
            if edge
        ]

    def root(self) -> bytes:
        """Return the root of the tree."""
        peaks: list[bytes] = []
        for edge in reversed(self._edges):
            start = 0
            for bit in reversed(range(_TILE_BITS)):
                if len(edge) >> bit & 1:
                    peaks.append(root_of(edge[start : start + (1 << bit)]))
                    start += 1 << bit
        if not peaks:
            return EMPTY_ROOT
        root = peaks.pop()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root


def edge_keys(size: int) -> list[tuple[TileKey, int]]:
    """Return which tiles are begun and not full in a tree, from the leaves up, and how far."""
    keys: list[tuple[TileKey, int]] = []
    level = 0
    while size:
        size, width = divmod(size, TILE_WIDTH)
        keys.append(((level, size), width))
        level += 1
    return keys


def frontier_of(size: int, tiles: Mapping[TileKey, bytes]) -> Frontier:
    """Return the edge of a tree out of its tiles, which may have grown since.

    Raises:
        SealBroken: a tile is missing, or has too few hashes.
    """
    edges = [_hashes(tiles, key, 0, width) for key, width in edge_keys(size)]
    return Frontier(size, edges)


class TileCollector:
    """A `Node` that finds out which tiles a proof is made of."""

    def __init__(self) -> None:
        """Begin with none."""
        self.tiles: set[TileKey] = set()

    def __call__(self, height: int, index: int) -> bytes:
        """Note the tile."""
        self.tiles.add(_place(height, index)[0])
        return b""


class Nodes:
    """A `Node` out of tiles."""

    def __init__(self, tiles: Mapping[TileKey, bytes]) -> None:
        """Take tiles by level and number."""
        self._tiles = tiles

    def __call__(self, height: int, index: int) -> bytes:
        """Return the hash of a subtree.

        Raises:
            SealBroken: a tile is missing, or has too few hashes.
        """
        key, start, width = _place(height, index)
        return root_of(_hashes(self._tiles, key, start, width))


def _place(height: int, index: int) -> tuple[TileKey, int, int]:
    """Return in which tile a subtree's hashes are, from which on, and how many."""
    level, inside = divmod(height, _TILE_BITS)
    number, start = divmod(index << inside, TILE_WIDTH)
    return (level, number), start, 1 << inside


def _hashes(tiles: Mapping[TileKey, bytes], key: TileKey, start: int, width: int) -> list[bytes]:
    tile = tiles.get(key, b"")
    end = (start + width) * HASH_BYTES
    if len(tile) < end:
        raise SealBroken(f"tile {key[1]} of level {key[0]} is missing or too short")
    return [tile[at : at + HASH_BYTES] for at in range(start * HASH_BYTES, end, HASH_BYTES)]


def root_at(size: int, node: Node) -> bytes:
    """Return the root over the first `size` leaves."""
    return _range_hash(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Return the hashes that lead from a leaf up to the root of the tree of this size.

    Args:
        index: the leaf's, from 0; less than the size.
        size: leaves of the tree.
        node: where hashes come from.
    """
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            path.append(_range_hash(split, end, node))
            end = split
        else:
            path.append(_range_hash(start, split, node))
            start = split
    return path[::-1]


def consistency_proof(first: int, second: int, node: Node) -> list[bytes]:
    """Return the hashes that show that one tree begins with the leaves of another.

    Args:
        first: leaves of the older tree, at least 1.
        second: leaves of the newer one, at least as many.
        node: where hashes come from.
    """
    path: list[bytes] = []
    start, end = 0, second
    while first != end:
        split = _split(start, end)
        if first <= split:
            path.append(_range_hash(split, end, node))
            end = split
        else:
            path.append(_range_hash(start, split, node))
            start = split
    # The checker knows the older tree itself.
    if start:
        path.append(_range_hash(start, end, node))
    return path[::-1]


def _split(start: int, end: int) -> int:
    """Return where the right part of a tree begins: after the most leaves that make a full one."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _range_hash(start: int, end: int, node: Node) -> bytes:
    """Return the hash over some leaves that are a subtree, and may be an incomplete one."""
    height = (end - start - 1).bit_length()
    if end - start == 1 << height:
        return node(height, start >> height)
    split = _split(start, end)
    return node_hash(_range_hash(start, split, node), _range_hash(split, end, node))


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root to which an inclusion proof leads from a leaf's hash (section 2.1.3.2).

    Raises:
        ProofBroken: a proof for this place in a tree of this size looks different.
    """
    _require_hashes(proof)
    if not 0 <= index < size:
        raise ProofBroken(f"leaf {index} does not exist in a tree of {size} leaves")
    place, last, root = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise ProofBroken("the inclusion proof is too long")
        if place & 1 or place == last:
            root = node_hash(sibling, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise ProofBroken("the inclusion proof is too short")
    return root


def require_consistent(
    first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the proof shows that the tree of size `second` begins with the one of `first`.

    It is the algorithm of section 2.1.4.2. Every tree begins with the empty one.

    Raises:
        ProofBroken: it does not.
    """
    _require_hashes(proof)
    if not 0 <= first <= second:
        raise ProofBroken(f"a tree of {second} leaves cannot contain one of {first}")
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        if proof or first_root != expected:
            raise ProofBroken(f"the trees of {first} and {second} leaves do not agree")
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise ProofBroken("the consistency proof is too short")
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    older = newer = path[0]
    for sibling in path[1:]:
        if not last:
            raise ProofBroken("the consistency proof is too long")
        if place & 1 or place == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    if last or older != first_root or newer != second_root:
        raise ProofBroken(f"the trees of {first} and {second} leaves do not agree")


def _require_hashes(proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX or any(len(each) != HASH_BYTES for each in proof):
        raise ProofBroken("the proof must be a list of SHA-256 hashes")
