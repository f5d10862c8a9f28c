"""Seals: the bytes of a leaf, and checkpoints as text."""

from __future__ import annotations

from base64 import b64encode
from typing import Final
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from recordledger.domain.errors import NoteBroken
from recordledger.domain.proof.notes import SigningKey, sign_note
from recordledger.domain.proof.seals import Checkpoint, leaf_of, origin_of

LEDGER: Final = UUID("5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70")
KEY: Final = SigningKey(origin_of(LEDGER), b"k" * 32)
ROOT: Final = b64encode(b"r" * 32).decode()
ROWS: Final = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    st.uuids(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.binary(max_size=5),
)


def test_a_leaf_is_every_column_of_the_row() -> None:
    leaf = leaf_of(258, UUID(int=(1 << 64) | 411), 3, "held", b"state")
    assert leaf.hex(" ", 1) == (
        "01 00 00 00 00 00 00 01 02 "
        "00 00 00 00 00 00 00 01 00 00 00 00 00 00 01 9b "
        "00 00 00 00 00 00 00 03 00 00 00 04 68 65 6c 64 73 74 61 74 65"
    )


@for_all(ROWS, ROWS)
def test_different_rows_have_different_leaves(
    one: tuple[int, UUID, int, str, bytes], other: tuple[int, UUID, int, str, bytes]
) -> None:
    assert (leaf_of(*one) == leaf_of(*other)) is (one == other)


@pytest.mark.parametrize("position", [2**63, -(2**63) - 1])
def test_a_number_that_is_no_bigint_has_no_leaf(position: int) -> None:
    with pytest.raises(ValueError, match=r"too large|format requires"):
        leaf_of(position, LEDGER, 1, "held", b"")


def test_a_topic_that_is_no_unicode_has_no_leaf() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        leaf_of(1, LEDGER, 1, "\ud800", b"")


@pytest.mark.parametrize("size", [0, 1, 20_852_163, 2**63 - 1])
def test_a_checkpoint_is_found_again_in_its_note(size: int) -> None:
    checkpoint = Checkpoint(KEY.name, size, b"r" * 32)
    assert checkpoint.text == f"recordledger/{LEDGER}\n{size}\n{ROOT}\n"
    assert Checkpoint.open(checkpoint.signed(KEY), [KEY.verifier]) == checkpoint


def test_a_checkpoint_is_signed_in_its_own_name() -> None:
    other = SigningKey("another.example", b"o" * 32)
    note = Checkpoint(KEY.name, 7, b"r" * 32).signed(other)
    with pytest.raises(NoteBroken, match="another name signed it"):
        Checkpoint.open(note, [other.verifier])


@pytest.mark.parametrize(
    "text",
    [
        "a text\n",
        f"\n7\n{ROOT}\n",
        f"origin\n07\n{ROOT}\n",
        f"origin\n-7\n{ROOT}\n",
        f"origin\n\u0667\n{ROOT}\n",
        f"origin\n{10**19}\n{ROOT}\n",
        f"origin\n7\n{ROOT[:-4]}\n",
        "origin\n7\n!\n",
        f"origin\n7\n{ROOT[:-2]}J=\n",
        f"origin\n7\n{ROOT}\nan extension\n",
    ],
)
def test_what_is_no_checkpoint_of_a_ledger_is_refused(text: str) -> None:
    with pytest.raises(NoteBroken):
        Checkpoint.open(sign_note(text, KEY), [KEY.verifier])
