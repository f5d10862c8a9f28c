"""Merkle trees: what RFC 9162 says, by known trees and by its definitions; and broken proofs."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from recordledger.domain.errors import ProofBroken, SealBroken
from recordledger.domain.proof.merkle import (
    EMPTY_ROOT,
    PROOF_HASHES_MAX,
    Frontier,
    Nodes,
    Tile,
    TileCollector,
    TileKey,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    leaf_hash,
    node_hash,
    require_consistent,
    root_at,
    root_from_inclusion,
    root_of,
)
from tests import independent

# The tree with which implementations of Certificate Transparency are tested, and its roots as it
# grows from one leaf to eight.
KNOWN_LEAVES: Final = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
KNOWN_ROOTS: Final = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# Around the places where a tile becomes full.
SIZES: Final = st.one_of(
    st.integers(1, 40), st.sampled_from([254, 255, 256, 257, 511, 512, 513, 769]), st.just(1000)
)


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(size)]


def grown(hashes: list[bytes], step: int) -> tuple[Frontier, dict[TileKey, bytes]]:
    """Return the edge and the tiles of a tree that has grown step by step."""
    frontier, tiles = Frontier(), dict[TileKey, bytes]()
    for start in range(0, len(hashes), step):
        for tile in frontier.extend(hashes[start : start + step]):
            assert (tile.level, tile.number) not in tiles
            tiles[tile.level, tile.number] = tile.hashes
    for tile in frontier.edges():
        tiles[tile.level, tile.number] = tile.hashes
    return frontier, tiles


def tree(size: int) -> tuple[list[bytes], Nodes]:
    hashes = leaves_of(size)
    return hashes, Nodes(grown(hashes, 300)[1])


@pytest.mark.parametrize("size", range(1, 9))
def test_the_known_tree_has_the_known_roots(size: int) -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in KNOWN_LEAVES[:size]]
    assert root_of(hashes).hex() == KNOWN_ROOTS[size - 1]
    assert grown(hashes, 3)[0].root().hex() == KNOWN_ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert root_of([]) == Frontier().root() == root_at(0, TileCollector()) == EMPTY_ROOT
    assert EMPTY_ROOT.hex().startswith("e3b0c44298fc1c14")
    assert Frontier().extend([]) == Frontier().edges() == []


def test_the_known_tree_has_the_known_proofs() -> None:
    # As in RFC 9162, section 2.1.5, for the tree with seven leaves.
    hashes, node = tree(7)
    a, b, c, d, e, f, j = hashes
    g, i = node_hash(a, b), node_hash(e, f)
    h = node_hash(c, d)
    k, left = node_hash(i, j), node_hash(g, h)
    assert inclusion_proof(0, 7, node) == [b, h, k]
    assert inclusion_proof(3, 7, node) == [c, g, k]
    assert inclusion_proof(4, 7, node) == [f, j, left]
    assert inclusion_proof(6, 7, node) == [i, left]
    assert consistency_proof(3, 7, node) == [c, d, g, k]
    assert consistency_proof(4, 7, node) == [k]
    assert consistency_proof(6, 7, node) == [i, j, left]


@settings(deadline=None)
@for_all(SIZES, st.integers(1, 400))
def test_a_tree_has_the_defined_root_however_it_has_grown(size: int, step: int) -> None:
    hashes = leaves_of(size)
    frontier, tiles = grown(hashes, step)
    assert frontier.size == size
    assert frontier.root() == independent.merkle_tree_hash(hashes)
    assert frontier_of(size, tiles).root() == frontier.root()


def test_a_tree_of_more_than_256_tiles_has_three_levels() -> None:
    hashes = leaves_of(256 * 256 + 3)
    frontier, tiles = grown(hashes, 20_000)
    assert sorted({level for level, _ in tiles}) == [0, 1, 2]
    assert frontier.edges() == [
        Tile(0, 256, b"".join(hashes[-3:])),
        Tile(2, 0, root_of(hashes[: 256 * 256])),
    ]
    assert frontier_of(len(hashes), tiles).root() == frontier.root() == root_of(hashes)
    node = Nodes(tiles)
    proof = inclusion_proof(4711, len(hashes), node)
    assert root_from_inclusion(hashes[4711], 4711, len(hashes), proof) == frontier.root()
    assert root_at(65_536, node) == root_of(hashes[:65_536])


@settings(deadline=None)
@for_all(SIZES, st.data())
def test_proofs_are_the_defined_ones_and_lead_to_the_root(size: int, data: st.DataObject) -> None:
    hashes, node = tree(size)
    root = root_of(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, node)
    assert proof == independent.path(index, hashes)
    assert root_from_inclusion(hashes[index], index, size, proof) == root
    first = data.draw(st.integers(1, size))
    older = root_at(first, node)
    assert older == root_of(hashes[:first])
    proof = consistency_proof(first, size, node)
    assert proof == independent.subproof(first, hashes, True)
    require_consistent(first, older, size, root, proof)
    require_consistent(0, EMPTY_ROOT, size, root, [])


@pytest.mark.parametrize("size", range(1, 18))
def test_every_proof_in_small_trees_leads_to_the_root(size: int) -> None:
    hashes, node = tree(size)
    root = root_of(hashes)
    for index in range(size):
        proof = inclusion_proof(index, size, node)
        assert root_from_inclusion(hashes[index], index, size, proof) == root
        assert independent.root_by_path(hashes[index], index, size, proof) == root
        proof = consistency_proof(index + 1, size, node)
        require_consistent(index + 1, root_at(index + 1, node), size, root, proof)


@settings(deadline=None)
@for_all(st.integers(1, 300), st.randoms(use_true_random=False))
def test_a_changed_inclusion_proof_leads_elsewhere(size: int, chance: random.Random) -> None:
    hashes, node = tree(size)
    index = chance.randrange(size)
    proof = inclusion_proof(index, size, node)
    root = root_of(hashes)

    def is_refused(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bool:
        try:
            return root_from_inclusion(leaf, index, size, proof) != root
        except ProofBroken:
            return True

    assert is_refused(leaf_hash(b"another"), index, size, proof)
    assert is_refused(hashes[index], index, size, [*proof, proof[-1] if proof else root])
    for at in range(len(proof)):
        assert is_refused(hashes[index], index, size, proof[:at] + proof[at + 1 :])
        flipped = bytearray(proof[at])
        flipped[chance.randrange(32)] ^= 1 << chance.randrange(8)
        assert is_refused(
            hashes[index], index, size, [*proof[:at], bytes(flipped), *proof[at + 1 :]]
        )
    if size > 1:
        assert is_refused(hashes[index], (index + 1) % size, size, proof)


@settings(deadline=None)
@for_all(st.integers(2, 300), st.randoms(use_true_random=False))
def test_a_changed_consistency_proof_is_refused(size: int, chance: random.Random) -> None:
    hashes, node = tree(size)
    first = chance.randrange(1, size)
    proof = consistency_proof(first, size, node)
    older, newer = root_at(first, node), root_of(hashes)
    other = leaf_hash(b"another")

    def refused(first: int, older: bytes, newer: bytes, proof: list[bytes]) -> None:
        with pytest.raises(ProofBroken):
            require_consistent(first, older, size, newer, proof)

    refused(first, other, newer, proof)
    refused(first, older, other, proof)
    refused(first, older, newer, [*proof, other])
    refused(first, older, newer, [])
    for at in range(len(proof)):
        refused(first, older, newer, proof[:at] + proof[at + 1 :])
        refused(first, older, newer, [*proof[:at], other, *proof[at + 1 :]])


def test_what_cannot_be_a_proof_is_refused() -> None:
    hashes, node = tree(5)
    root = root_of(hashes)
    for index, size in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(ProofBroken, match="does not exist in a tree"):
            root_from_inclusion(hashes[0], index, size, [])
    for proof in ([b"short"], [hashes[0]] * (PROOF_HASHES_MAX + 1)):
        with pytest.raises(ProofBroken, match="must be a list of SHA-256"):
            root_from_inclusion(hashes[0], 0, 5, proof)
        with pytest.raises(ProofBroken, match="must be a list of SHA-256"):
            require_consistent(3, root, 5, root, proof)
    for first in (6, -1):
        with pytest.raises(ProofBroken, match="cannot contain"):
            require_consistent(first, root, 5, root, [])
    for first, older in ((5, hashes[0]), (0, root)):
        with pytest.raises(ProofBroken, match="do not agree"):
            require_consistent(first, older, 5, root, [])
    with pytest.raises(ProofBroken, match="do not agree"):
        require_consistent(5, root, 5, root, [root])
    with pytest.raises(ProofBroken, match="too short"):
        require_consistent(3, root_at(3, node), 5, root, [])


def test_tiles_that_are_missing_or_cut_short_are_no_hashes() -> None:
    _, tiles = grown(leaves_of(300), 300)
    for damaged in ({}, tiles | {(0, 1): tiles[0, 1][:-1]}):
        with pytest.raises(SealBroken, match="tile 1 of level 0"):
            frontier_of(300, damaged)
        with pytest.raises(SealBroken, match="tile 1 of level 0"):
            Nodes(damaged)(0, 299)


def test_a_proof_needs_a_few_tiles_of_a_long_log() -> None:
    wanted = TileCollector()
    assert inclusion_proof(123_456_789, 1_000_000_000, wanted)
    assert len(wanted.tiles) <= 8
