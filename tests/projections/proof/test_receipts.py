"""Receipts of records of a real log: they verify anywhere, and no byte of them can be changed."""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

import pytest

from recordledger.domain.errors import (
    NoteBroken,
    NotSealedYet,
    ReceiptBroken,
    RecordNotFound,
    SealBroken,
)
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.status import Status
from recordledger.domain.specs.fingerprint import digest_of
from recordledger.projections.proof.receipts import make_receipt, verify_receipt
from recordledger.projections.proof.seals import change_key, seal_next
from recordledger.projections.reading.queries import history, ledger_id
from tests import independent

from ..forger import Forger
from ..stage import OK, Stage, bad, good
from .test_seals import forged, key_of, lived, sealed

__all__ = ["forged"]

CHANCE: Final = random.Random(411)  # noqa: S311


def completed(stage: Stage) -> int:
    """Let a record be done, and seal the log; return its id."""
    [record_id] = stage.submit()
    manager_id = stage.manager()
    stage.hand_in(manager_id, stage.claim(manager_id, 1), good())
    sealed(stage)
    return record_id


def receipt_of(stage: Stage) -> tuple[int, str, str]:
    """Return a record that is done, its receipt, and the ledger's public key."""
    record_id = completed(stage)
    return record_id, make_receipt(stage.ledger, record_id), str(key_of(stage).verifier)


def test_a_receipt_has_all_that_has_happened(stage: Stage) -> None:
    lived(stage)
    record_id, text, key = receipt_of(stage)
    content = json.loads(text)
    placed = history(stage.ledger, record_id)
    assert [each["topic"] for each in content["events"]] == ["created", "claimed", "completed"]
    assert [each["position"] for each in content["events"]] == [each.position for each in placed]
    for each, told in zip(placed, content["events"], strict=True):
        state = stage.ledger.event_mapper.state_of(each.recorded.event)
        assert b64decode(told["state"]) == state
        assert told["says"]["timestamp"] == each.recorded.event.timestamp.isoformat()
        assert told["says"]["actor"] == each.recorded.event.actor
    assert content["result"] == {"sha256": digest_of(OK).hex(), "size_bytes": len(OK)}
    assert (content["status"], content["record_id"]) == ("complete", record_id)
    assert content["key"] == key


def test_a_receipt_verifies_without_a_ledger(stage: Stage) -> None:
    record_id, text, key = receipt_of(stage)
    found = verify_receipt(text, key=key)
    assert (found.record_id, found.status, found.n_events) == (record_id, Status.complete, 3)
    assert found.ledger_id == ledger_id(stage.ledger)
    assert found.result == digest_of(OK).hex()
    assert found.changed_at == history(stage.ledger, record_id)[-1].recorded.event.timestamp
    assert found.n_sealed == stage.head()
    assert found.key_is_given
    assert "the given key" in str(found)
    own = verify_receipt(text.encode())
    assert not own.key_is_given
    assert "FROM THE RECEIPT ITSELF" in str(own)


def test_a_verifier_that_was_written_from_the_specification_agrees(stage: Stage) -> None:
    lived(stage, 300)
    record_id, text, key = receipt_of(stage)
    assert independent.verify(text, key) == (record_id, 3)
    for other in range(1, 5):
        assert independent.verify(make_receipt(stage.ledger, other), key)[0] == other


def test_records_of_every_kind_have_receipts(stage: Stage) -> None:
    erased, failed, waiting = stage.submit(3)
    manager_id = stage.manager()
    held = stage.claim(manager_id, 2)
    stage.hand_in(manager_id, {erased: held[erased]}, good())
    stage.hand_in(manager_id, {failed: held[failed]}, bad())
    stage.happen(failed, e.Failed)
    service = stage.service(waiting)
    stage.order(Action.erase, erased)
    sealed(stage)
    expected = {
        erased: None,
        failed: Status.failed,
        waiting: Status.waiting,
        service: Status.running,
    }
    for record_id, status in expected.items():
        found = verify_receipt(make_receipt(stage.ledger, record_id))
        assert found.status is status
        # What was destroyed stays named.
        assert found.result == (digest_of(OK).hex() if record_id == erased else None)
        assert ("no result" in str(found)) is (record_id != erased)


def test_a_receipt_of_an_older_key_is_signed_by_one(stage: Stage) -> None:
    record_id = completed(stage)
    new = key_of(stage, b"t")
    change_key(stage.ledger, key_of(stage), new)
    text = make_receipt(stage.ledger, record_id)
    assert verify_receipt(text, key=str(new.verifier)).key_is_given
    with pytest.raises(ReceiptBroken, match="signed with"):
        verify_receipt(text, key=str(key_of(stage).verifier))
    stage.do("DELETE FROM seal_keys")
    with pytest.raises(SealBroken, match="does not know"):
        make_receipt(stage.ledger, record_id)


def test_what_is_not_sealed_has_no_receipt_yet(stage: Stage) -> None:
    with pytest.raises(RecordNotFound):
        make_receipt(stage.ledger, 1)
    stage.submit()
    with pytest.raises(NotSealedYet):
        make_receipt(stage.ledger, 1)
    sealed(stage)
    assert verify_receipt(make_receipt(stage.ledger, 1)).status is Status.waiting
    stage.happen(1, e.Held)
    with pytest.raises(NotSealedYet) as refused:
        make_receipt(stage.ledger, 1)
    assert (refused.value.position, refused.value.sealed) == (2, 1)
    seal_next(stage.ledger, key_of(stage))
    assert verify_receipt(make_receipt(stage.ledger, 1)).status is Status.held


def test_an_event_that_was_changed_has_no_receipt(forged: Stage) -> None:
    record_id = completed(forged)
    Forger(forged.url).alter(1)
    with pytest.raises(SealBroken, match="position 1 differs from the sealed one"):
        make_receipt(forged.ledger, record_id)


def test_the_result_can_be_checked(stage: Stage) -> None:
    _, text, _ = receipt_of(stage)
    for result in (OK, b'{ "energy": -76.4 }\n'):
        assert "that result" in str(verify_receipt(text, result=result))
    for result in (b'{"energy":-76.5}', b"\xff", b"[" * 100_000):
        with pytest.raises(ReceiptBroken, match="not the record's"):
            verify_receipt(text, result=result)
    stage.submit()
    sealed(stage)
    with pytest.raises(ReceiptBroken, match="no result"):
        verify_receipt(make_receipt(stage.ledger, 2), result=OK)


def test_no_byte_of_a_receipt_can_be_changed(stage: Stage) -> None:
    _, text, key = receipt_of(stage)
    data = text.encode()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= CHANCE.randrange(1, 256)
        for given in (key, None):
            with pytest.raises(ReceiptBroken):
                verify_receipt(bytes(changed), key=given)
    for other in (data[:-1], data + b"\n", data + b" ", b" " + data, b"\xef\xbb\xbf" + data):
        with pytest.raises(ReceiptBroken):
            verify_receipt(other)


CHANGES: Final[list[Callable[[dict[str, Any]], None]]] = []


def change(how: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Take a function as one more way to change a receipt."""
    CHANGES.append(how)
    return how


@change
def without_the_last_event(content: dict[str, Any]) -> None:
    content["events"].pop()


@change
def without_the_first_event(content: dict[str, Any]) -> None:
    content["events"].pop(0)


@change
def in_another_order(content: dict[str, Any]) -> None:
    content["events"].reverse()


@change
def with_an_event_twice(content: dict[str, Any]) -> None:
    content["events"].append(content["events"][-1] | {"version": 4})


@change
def of_another_record(content: dict[str, Any]) -> None:
    content["record_id"] += 1


@change
def of_another_ledger(content: dict[str, Any]) -> None:
    content["ledger_id"] = "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70"


@change
def of_no_ledger(content: dict[str, Any]) -> None:
    content["ledger_id"] = "mine"


@change
def with_another_status(content: dict[str, Any]) -> None:
    content["status"] = "invalid"


@change
def with_another_result(content: dict[str, Any]) -> None:
    content["result"]["sha256"] = "00" * 32


@change
def saying_something_else(content: dict[str, Any]) -> None:
    content["events"][0]["says"]["actor"] = "user:mallory"


@change
def with_something_more(content: dict[str, Any]) -> None:
    content["remark"] = "trust me"


@change
def with_an_index_beyond(content: dict[str, Any]) -> None:
    content["events"][0]["index"] = 2**62


@change
def with_an_index_below(content: dict[str, Any]) -> None:
    content["events"][0]["index"] = -1


@change
def with_a_long_proof(content: dict[str, Any]) -> None:
    content["events"][0]["proof"] *= 100


@change
def with_half_a_character(content: dict[str, Any]) -> None:
    content["events"][0]["topic"] = "\ud800"


@change
def with_no_base64(content: dict[str, Any]) -> None:
    content["events"][0]["state"] = "!"


@change
def with_a_state_that_is_none(content: dict[str, Any]) -> None:
    content["events"][0]["state"] = b64encode(b"\xc1").decode()


@change
def with_a_note_that_is_none(content: dict[str, Any]) -> None:
    content["checkpoint"] = "sealed, honestly\n"


@change
def with_a_key_that_is_none(content: dict[str, Any]) -> None:
    content["key"] = "key"


@change
def without_events(content: dict[str, Any]) -> None:
    content["events"] = []


@change
def with_text_for_a_number(content: dict[str, Any]) -> None:
    content["record_id"] = str(content["record_id"])


@change
def without_a_format(content: dict[str, Any]) -> None:
    content["format"] = "recordledger-receipt/2"


@pytest.mark.parametrize("how", CHANGES, ids=lambda how: how.__name__)
def test_a_receipt_that_was_changed_is_refused(
    stage: Stage, how: Callable[[dict[str, Any]], None]
) -> None:
    _, text, _ = receipt_of(stage)
    content = json.loads(text)
    assert json.dumps(content, indent=1) + "\n" == text
    how(content)
    with pytest.raises(ReceiptBroken):
        verify_receipt(json.dumps(content, indent=1) + "\n")


def test_what_is_left_of_a_receipt_still_proves_what_it_has(stage: Stage) -> None:
    # What a receipt does not prove: that nothing has happened since.
    _, text, key = receipt_of(stage)
    content = json.loads(text)
    content["events"].pop()
    content |= {"status": "running", "result": None}
    found = verify_receipt(json.dumps(content, indent=1) + "\n", key=key)
    assert (found.status, found.n_events) == (Status.running, 2)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "{", "1" * 5000, "[" * 100_000, '"\\ud800"', b"\xff\xfe"]
)
def test_what_is_no_receipt_is_refused(text: str | bytes) -> None:
    with pytest.raises(ReceiptBroken):
        verify_receipt(text)


def test_a_key_that_is_none_is_refused(stage: Stage) -> None:
    _, text, key = receipt_of(stage)
    with pytest.raises(NoteBroken):
        verify_receipt(text, key=key[:-1])
    assert verify_receipt(text, key=f" {key}\n").key_is_given
