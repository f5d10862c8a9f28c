"""Seals of a real log: what was sealed is found again, and what was changed since is found out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import psycopg
import pytest

from recordledger.domain.errors import InvalidInput, SealBroken, SealKeyRefused, StoreUnavailable
from recordledger.domain.proof.merkle import leaf_hash, require_consistent
from recordledger.domain.proof.notes import SigningKey
from recordledger.domain.proof.seals import Checkpoint, leaf_of, origin_of
from recordledger.domain.records.actions import Action
from recordledger.projections.proof import seals
from recordledger.projections.proof.audit import audit
from recordledger.projections.proof.seals import (
    Seal,
    change_key,
    keys_of,
    newest_checkpoint,
    newest_seal,
    prove_consistency,
    seal_next,
)
from recordledger.projections.proof.verification import Verification, verify_log
from recordledger.projections.reading.queries import ledger_id
from tests import independent

from ..forger import Forger
from ..stage import Stage, good, staged, together

FIND: Final = random.Random(9162)  # noqa: S311


@pytest.fixture
def forged(database_url: str) -> Iterator[Stage]:
    """A stage on a database of its own: what is damaged here stays so."""
    with staged(database_url) as made:
        yield made


def key_of(stage: Stage, seed: bytes = b"s") -> SigningKey:
    return SigningKey(origin_of(ledger_id(stage.ledger)), seed * 32)


def sealed(stage: Stage, **how: Any) -> Seal:
    seal = seal_next(stage.ledger, key_of(stage), **how)
    assert seal is not None
    return seal


def lived(stage: Stage, n: int = 3) -> None:
    """Let some things happen, to records and managers."""
    ids = stage.submit(n)
    manager_id = stage.manager()
    held = stage.claim(manager_id, n)
    stage.hand_in(manager_id, dict(list(held.items())[:1]), good())
    stage.order(Action.comment, ids[-1], text="a remark")


def leaves(stage: Stage) -> list[bytes]:
    rows = stage.ask(
        "SELECT notification_id, originator_id, originator_version, topic, state"
        " FROM ledger_events ORDER BY notification_id"
    )
    return [
        leaf_hash(leaf_of(position, id_, version, topic, bytes(state)))
        for position, id_, version, topic, state in rows
    ]


def broken(found: Verification) -> set[str]:
    return {finding.name for finding in found.findings if finding.is_broken}


# Sealing


def test_a_seal_has_the_root_of_all_that_has_happened(stage: Stage) -> None:
    lived(stage)
    seal = sealed(stage)
    rows = leaves(stage)
    assert (seal.size, seal.n_new, seal.position) == (len(rows), len(rows), stage.newest())
    assert seal.root == independent.merkle_tree_hash(rows)
    signed = independent.checkpoint(seal.note, str(key_of(stage).verifier))
    assert signed == (key_of(stage).name, seal.size, seal.root)
    assert newest_checkpoint(stage.ledger) == seal.note
    assert keys_of(stage.ledger) == [key_of(stage).verifier]


def test_an_empty_log_and_one_without_news_are_not_sealed(stage: Stage) -> None:
    assert seal_next(stage.ledger, key_of(stage)) is None
    assert newest_seal(stage.ledger) is None
    assert newest_checkpoint(stage.ledger) is None
    stage.submit()
    seal = sealed(stage)
    assert seal_next(stage.ledger, key_of(stage)) is None
    assert newest_seal(stage.ledger) == Seal(seal.size, seal.position, seal.root, seal.note)


def test_positions_that_were_never_used_are_no_leaves(stage: Stage) -> None:
    stage.submit(2)
    stage.ask("SELECT nextval('ledger_events_notification_id_seq') FROM generate_series(1, 5)")
    stage.submit(2)
    assert stage.newest() == 9
    assert sealed(stage).size == 4
    assert verify_log(stage.ledger).holds


def test_a_log_that_is_sealed_bit_by_bit_has_one_seal_more_each_time(stage: Stage) -> None:
    stage.submit(700)
    rows = leaves(stage)
    taken: list[Seal] = []
    while seal := seal_next(stage.ledger, key_of(stage), events_max=FIND.randint(1, 300)):
        taken.append(seal)
        assert seal.root == independent.merkle_tree_hash(rows[: seal.size])
    assert taken[-1].size == 700
    found = verify_log(stage.ledger)
    assert found.holds, str(found)
    assert (found.n_events, found.n_sealed, found.n_seals) == (700, 700, len(taken))
    for first in taken:
        proof = prove_consistency(stage.ledger, first.size, 700)
        require_consistent(first.size, first.root, 700, taken[-1].root, proof)


def test_what_cannot_be_consistent_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="0 events are sealed"):
        prove_consistency(stage.ledger, 1, 1)
    stage.submit(3)
    sealed(stage)
    assert prove_consistency(stage.ledger, 3, 3) == []
    for first, second in ((0, 3), (3, 2), (1, 4)):
        with pytest.raises(InvalidInput):
            prove_consistency(stage.ledger, first, second)


def test_two_sealers_at_once_seal_each_event_once(stage: Stage) -> None:
    stage.submit(400)

    def run() -> list[int]:
        taken: list[int] = []
        while seal := seal_next(stage.ledger, key_of(stage), events_max=30):
            taken.append(seal.n_new)
        return taken

    assert sum(map(sum, together(run, run))) == 400
    found = verify_log(stage.ledger)
    assert found.holds, str(found)


def test_a_sealer_that_is_killed_leaves_what_was_before(stage: Stage) -> None:
    stage.submit(300)
    sealed(stage, events_max=260)
    append = seals._append  # pyright: ignore[reportPrivateUsage]

    def killed(*arguments: Any) -> Seal:
        append(*arguments)
        raise psycopg.OperationalError("the connection is lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seals, "_append", killed)
        with pytest.raises(StoreUnavailable):
            sealed(stage)
    seal = newest_seal(stage.ledger)
    assert seal is not None
    assert seal.size == 260
    assert sealed(stage).size == 300
    assert verify_log(stage.ledger).holds


def test_sealing_does_not_keep_writers_waiting(stage: Stage) -> None:
    stage.submit(3)
    with stage.ledger.datastore.writing() as db:
        db.execute("LOCK TABLE seals IN EXCLUSIVE MODE")
        assert len(stage.submit(2)) == 2


# Keys


def test_a_key_that_is_not_the_ledgers_is_refused(stage: Stage) -> None:
    stage.submit()
    with pytest.raises(SealKeyRefused, match="signs for another"):
        seal_next(stage.ledger, SigningKey("another", b"s" * 32))
    sealed(stage)
    stage.submit()
    with pytest.raises(SealKeyRefused, match="sealed with the key"):
        seal_next(stage.ledger, key_of(stage, b"t"))


def test_a_new_key_is_vouched_for_by_the_old_one(stage: Stage) -> None:
    stage.submit()
    first = sealed(stage)
    new = key_of(stage, b"t")
    both = change_key(stage.ledger, key_of(stage), new)
    assert both is not None
    for key in (key_of(stage), new):
        checkpoint = Checkpoint.open(both.note, [key.verifier])
        assert (checkpoint.size, checkpoint.root) == (first.size, first.root)
    stage.submit()
    with pytest.raises(SealKeyRefused, match="sealed with the key"):
        sealed(stage)
    assert seal_next(stage.ledger, new) is not None
    found = verify_log(stage.ledger)
    assert found.holds, str(found)
    assert not verify_log(stage.ledger, keys=[key_of(stage).verifier]).holds
    assert not verify_log(stage.ledger, keys=[key_of(stage, b"u").verifier]).holds
    with pytest.raises(SealKeyRefused, match="used before"):
        change_key(stage.ledger, new, key_of(stage))
    with pytest.raises(SealKeyRefused, match="sealed with the key"):
        change_key(stage.ledger, key_of(stage), key_of(stage, b"u"))


def test_a_lost_key_is_replaced_by_one_that_signs_alone(stage: Stage) -> None:
    assert change_key(stage.ledger, None, key_of(stage, b"t")) is None
    stage.submit()
    with pytest.raises(SealKeyRefused):
        sealed(stage)
    assert seal_next(stage.ledger, key_of(stage, b"t")) is not None
    assert change_key(stage.ledger, None, key_of(stage, b"u")) is not None


# Forgeries


def test_what_nobody_has_touched_is_verified(stage: Stage) -> None:
    lived(stage)
    seal = sealed(stage)
    lived(stage)
    kept = {"kept.checkpoint": seal.note}
    steps: list[tuple[int, int]] = []
    found = verify_log(
        stage.ledger,
        keys=[key_of(stage).verifier],
        checkpoints=kept,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert found.holds, str(found)
    n = found.n_events
    assert (found.n_sealed, found.n_seals, steps[-1]) == (seal.size, 2, (n, n))
    counted = {finding.name: finding.n_checked for finding in found.findings}
    assert counted == {
        "events": seal.size,
        "tiles": 1,
        "seals": 1,
        "signatures": 1,
        "checkpoints": 1,
        "payloads": stage.ask("SELECT count(*) FROM payloads")[0][0],
    }
    assert str(found).endswith("The log agrees with its seals.")


def test_without_a_seal_nothing_is_proven(stage: Stage) -> None:
    stage.submit()
    found = verify_log(stage.ledger)
    assert not found.holds
    assert "nothing is proven" in str(found)


@pytest.mark.parametrize("forgery", ["flip", "drop", "swap", "insert", "truncate"])
def test_each_forgery_is_found(forged: Stage, forgery: str) -> None:
    for _ in range(3):
        lived(forged, 20)
        sealed(forged)
    lived(forged)
    assert verify_log(forged.ledger).holds
    forger = Forger(forged.url, random.Random(forgery))  # noqa: S311
    for _ in range(3):
        with ExitStack() as undo:
            told = getattr(forger, forgery)(undo)
            found = verify_log(forged.ledger)
            assert not found.holds, told
            assert "events" in broken(found) or forgery == "truncate"
            report = audit(forged.ledger, log_only=True)
            assert "chain" in {finding.name for finding in report.broken}, told
    assert verify_log(forged.ledger).holds


def test_the_first_event_that_differs_is_named(forged: Stage) -> None:
    lived(forged, 300)
    sealed(forged)
    Forger(forged.url).alter(301)
    found = verify_log(forged.ledger)
    [event] = found.findings[0].breaches
    assert str(event) == "position 301: the event differs from the sealed one"
    assert broken(found) == {"events", "tiles", "seals"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE seal_tiles SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)",
        "UPDATE seal_tiles SET hashes = substr(hashes, 1, octet_length(hashes) - 32)",
        "DELETE FROM seal_tiles",
        "UPDATE seals SET root = set_byte(root, 0, get_byte(root, 0) # 1)",
        "UPDATE seals SET size = size - 1",
        "UPDATE seals SET position = position - 1",
        "UPDATE seals SET note = replace(note, E'\\n8\\n', E'\\n7\\n')",
        "UPDATE seals SET note = ''",
        "UPDATE seal_keys SET vkey = 'no key'",
    ],
)
def test_changed_seals_are_found(forged: Stage, statement: str) -> None:
    forged.submit(8)
    sealed(forged)
    assert verify_log(forged.ledger).holds
    forged.do(statement)
    assert not verify_log(forged.ledger).holds


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE seal_tiles SET hashes = set_byte(hashes, 0, 1 # get_byte(hashes, 0))", "root of"),
        ("DELETE FROM seal_tiles", "tile 0 of level 0"),
    ],
)
def test_nothing_is_sealed_upon_changed_hashes(forged: Stage, statement: str, message: str) -> None:
    forged.submit(8)
    sealed(forged)
    forged.submit()
    forged.do(statement)
    with pytest.raises(SealBroken, match=message):
        sealed(forged)


def test_a_payload_that_was_changed_is_found(forged: Stage) -> None:
    [record_id] = forged.submit()
    manager_id = forged.manager()
    long = b"[" + b"1," * 500 + b"2]"
    forged.hand_in(manager_id, forged.claim(manager_id, 1), good(long))
    sealed(forged)
    assert verify_log(forged.ledger).holds
    forged.do("UPDATE payloads SET data = set_byte(data, 9, 77) WHERE codec = 'raw'")
    assert broken(verify_log(forged.ledger)) == {"payloads"}
    forged.do("UPDATE payloads SET data = set_byte(data, 9, 77) WHERE codec = 'zstd'")
    found = verify_log(forged.ledger)
    assert found.findings[-1].n_breaches == found.findings[-1].n_checked == 2
    assert verify_log(forged.ledger, with_payloads=False).holds
    assert record_id == 1


def test_history_that_was_rewritten_with_all_its_hashes_is_not_signed_again(
    forged: Stage,
) -> None:
    lived(forged)
    seal = sealed(forged)
    key = key_of(forged)
    signed = Checkpoint.open(seal.note, [key.verifier])
    forger = Forger(forged.url)
    forger.alter(2)
    forger.forget_seals()
    with pytest.raises(SealBroken, match="history was rewritten"):
        sealed(forged, signed=signed)
    assert newest_seal(forged.ledger) is None
    sealed(forged)
    forged.submit()
    with pytest.raises(SealBroken, match="history was rewritten"):
        sealed(forged, signed=signed)


def test_a_log_that_was_put_back_to_an_older_state_is_not_signed_again(forged: Stage) -> None:
    lived(forged)
    sealed(forged)
    lived(forged)
    signed = Checkpoint.open(sealed(forged).note, [key_of(forged).verifier])
    forger = Forger(forged.url)
    # That the newest seal alone was lost is no harm.
    forger.forget_seals()
    assert sealed(forged, signed=signed).size == signed.size
    forger.cut_off(forged.newest() - 3)
    forger.forget_seals()
    with pytest.raises(SealBroken, match="restored to an older state"):
        sealed(forged, signed=signed)


def test_history_rewritten_with_another_key_is_found_by_whoever_knows_the_right_one(
    forged: Stage,
) -> None:
    lived(forged)
    sealed(forged)
    Forger(forged.url).rewrite(key_of(forged, b"f"))
    assert verify_log(forged.ledger).holds  # by the key that the database names now
    found = verify_log(forged.ledger, keys=[key_of(forged).verifier])
    assert broken(found) == {"signatures"}


def test_history_rewritten_with_the_right_key_is_found_by_a_checkpoint_that_was_kept(
    forged: Stage,
) -> None:
    lived(forged)
    kept = {"1.checkpoint": sealed(forged).note}
    lived(forged)
    sealed(forged)
    Forger(forged.url).rewrite(key_of(forged))
    right = [key_of(forged).verifier]
    assert verify_log(forged.ledger, keys=right).holds
    found = verify_log(forged.ledger, keys=right, checkpoints=kept)
    assert broken(found) == {"checkpoints"}
    assert "1.checkpoint: the log has another root at that size" in str(found)


def test_a_log_that_was_cut_off_with_its_seals_is_found_by_a_checkpoint_that_was_kept(
    forged: Stage,
) -> None:
    lived(forged)
    sealed(forged)
    lived(forged)
    kept = {"2.checkpoint": sealed(forged).note}
    Forger(forged.url).cut_off_the_last_seal()
    assert verify_log(forged.ledger).holds
    found = verify_log(forged.ledger, checkpoints=kept)
    assert "the log has 9 events only" in str(found)
    assert broken(found) == {"checkpoints"}


ANOTHER: Final = SigningKey("another", b"s" * 32)


def of_more_events(note: str) -> str:
    return note.replace("\n8\n", "\n9\n")


def no_note(_note: str) -> str:
    return "no note"


def of_another_ledger(_note: str) -> str:
    return Checkpoint(ANOTHER.name, 8, b"r" * 32).signed(ANOTHER)


@pytest.mark.parametrize("alter", [of_more_events, no_note, of_another_ledger])
def test_a_checkpoint_that_is_none_of_this_ledger_is_found(
    stage: Stage, alter: Callable[[str], str]
) -> None:
    stage.submit(8)
    note = sealed(stage).note
    keys = [key_of(stage).verifier, ANOTHER.verifier]
    assert verify_log(stage.ledger, keys=keys, checkpoints={"a": note}).holds
    found = verify_log(stage.ledger, keys=keys, checkpoints={"a": alter(note)})
    assert broken(found) == {"checkpoints"}
