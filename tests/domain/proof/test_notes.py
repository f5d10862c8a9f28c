"""Signed notes: those of others are read, ours are theirs, and what was changed is refused."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from recordledger.domain.errors import NoteBroken
from recordledger.domain.proof.notes import (
    NOTE_CHARACTERS_MAX,
    SIGNATURES_MAX,
    SigningKey,
    VerifierKey,
    open_note,
    sign_note,
    split_note,
    written,
)
from tests.sizes import N_FLIPPED_NOTES

# The example of the specification c2sp.org/signed-note.
POEM: Final = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore \
NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
# The example in the documentation of the first implementation, golang.org/x/mod/sumdb/note.
PETER: Final = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_PRIVATE: Final = (
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
)
PETERS_TEXT: Final = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETERS_NOTE: Final = (
    PETERS_TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

ANN: Final = SigningKey("ledger.example/ann", b"a" * 32)
BOB: Final = SigningKey("ledger.example/bob", b"b" * 32)
TEXT: Final = "a text\n\nof two parts\n"


def test_the_note_of_another_implementation_is_read_and_written_alike() -> None:
    peter = VerifierKey.parse(PETER)
    assert open_note(PETERS_NOTE, [peter]) == (PETERS_TEXT, [peter])
    secret = SigningKey.parse(PETERS_PRIVATE)
    assert secret.verifier == peter
    assert sign_note(PETERS_TEXT, secret) == PETERS_NOTE
    assert (str(peter), secret.secret) == (PETER, PETERS_PRIVATE)


def test_the_example_of_the_specification_is_taken_apart() -> None:
    text, [signature] = split_note(POEM)
    assert text.endswith("\n\ned è subito sera.\n")
    assert (signature.name, len(signature.signature)) == ("quasimodo.example/salvatore", 64)
    assert written(text, [signature]) == POEM


def test_a_note_may_have_signatures_of_people_one_does_not_know() -> None:
    note = sign_note(TEXT, ANN, BOB)
    assert open_note(note, [BOB.verifier]) == (TEXT, [BOB.verifier])
    assert open_note(note, [BOB.verifier, ANN.verifier])[1] == [ANN.verifier, BOB.verifier]
    stranger = SigningKey(ANN.name, b"c" * 32)
    for keys in ([stranger.verifier], []):
        with pytest.raises(NoteBroken, match="not signed by"):
            open_note(note, keys)


def test_the_secret_is_not_shown() -> None:
    assert "seed" not in repr(ANN)
    assert b64encode(ANN.seed).decode() not in repr(ANN)


@settings(max_examples=N_FLIPPED_NOTES)
@for_all(st.data())
def test_a_note_with_one_byte_changed_is_refused(data: st.DataObject) -> None:
    note = bytearray(sign_note(TEXT, ANN).encode())
    at = data.draw(st.integers(0, len(note) - 1))
    note[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((NoteBroken, UnicodeDecodeError)):
        open_note(note.decode(), [ANN.verifier])


@for_all(st.text())
def test_any_text_is_a_note_or_refused(text: str) -> None:
    for reading in (split_note, VerifierKey.parse, SigningKey.parse):
        try:
            reading(text)
        except NoteBroken:
            continue


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "\n\n— a AAAAAAAA\n",
        "text\n\n— a AAAAAAAA",
        "text\n\n- a AAAAAAAA\n",
        "text\n\n— a b AAAAAAAA\n",
        "text\n\n— a+b AAAAAAAA\n",
        "text\n\n—  AAAAAAAA\n",
        "text\n\n— a \n",
        "text\n\n— a AAAA\n",
        "text\n\n— a AAAAAAAB=\n",
        "text\n\n— a äAAAAAAA\n",
        "text\r\n\n— a AAAAAAAA\n",
        "text\n\n" + "— a AAAAAAAA\n" * (SIGNATURES_MAX + 1),
        "x" * NOTE_CHARACTERS_MAX + "\n\n— a AAAAAAAA\n",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteBroken):
        split_note(note)


@pytest.mark.parametrize("text", ["", "no end of line", "\x07\n", "a\n\n— b AAAAAAAA"])
def test_what_cannot_be_the_text_of_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(NoteBroken):
        sign_note(text, ANN)


@pytest.mark.parametrize("name", ["", "two words", "a+b"])
def test_what_is_no_name_does_not_sign(name: str) -> None:
    with pytest.raises(NoteBroken):
        sign_note(TEXT, SigningKey(name, b"a" * 32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        "a b" + PETER.removeprefix("PeterNeumann"),
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("c74f20a3", "C74F20A3"),
        PETER[:-4],
        PETER.replace("+ARpc", "+ARpd"),
        "PeterNeumann+c74f20a3+" + b64encode(b"\2" + b"x" * 32).decode(),
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(NoteBroken):
        VerifierKey.parse(text)


@pytest.mark.parametrize(
    "text", [PETER, PETERS_PRIVATE.replace("c74f20a3", "c74f20a4"), PETERS_PRIVATE[:-4]]
)
def test_what_is_no_secret_key_is_refused(text: str) -> None:
    with pytest.raises(NoteBroken):
        SigningKey.parse(text)
