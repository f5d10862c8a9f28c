"""Histories of users and operations: everything is found, in order, and nothing is scanned for."""

from __future__ import annotations

import random
from uuid import UUID, uuid4

import pytest

from recordledger.domain.errors import OperationNotFound
from recordledger.domain.records.actions import Action
from recordledger.domain.streams import ID_MAX
from recordledger.projections.actions.submission import create_records
from recordledger.projections.ledger import Placed
from recordledger.projections.log import user_blocks
from recordledger.projections.log.user_blocks import BLOCK_SIZE
from recordledger.projections.reading import histories
from recordledger.projections.reading.event_log import HIDDEN, page
from recordledger.projections.reading.histories import of_operation, of_user
from recordledger.projections.replay.replay import check_replay
from recordledger.projections.store.database import connect

from ..stage import ALICE, BOB, Stage, entry

USERS = [f"user:{name}" for name in "abcde"]


def submit(stage: Stage, n: int, actor: str) -> list[int]:
    """Let somebody create records."""
    entries = [entry(uuid4().hex) for _ in range(n)]
    return create_records(stage.ledger, entries, actor=actor)["ids"]


def busy(stage: Stage, n: int = 60) -> None:
    """Let users and managers do things in turns, one or many records at a time."""
    chance = random.Random(5)  # noqa: S311
    ids = submit(stage, 30, ALICE)
    manager_id = stage.manager("gpu")
    for user in USERS:
        submit(stage, 3, user)
    for _ in range(n):
        match chance.randrange(4):
            case 0:
                stage.hand_in(manager_id, stage.claim(manager_id, 1))
            case 1:
                submit(stage, chance.randrange(1, 100), chance.choice(USERS))
            case _:
                of = chance.sample(ids, chance.randrange(1, 20))
                stage.order(Action.comment, *of, text="so", actor=chance.choice(USERS[:2]))


def walked(stage: Stage, actor: str, limit: int, *, newest_first: bool) -> list[Placed]:
    """Return what a user did, page by page."""
    found: list[Placed] = []
    edge: int | None = None
    while True:
        name = actor.removeprefix("user:")
        part = of_user(stage.ledger, name, limit, edge=edge, newest_first=newest_first)
        found += part.events
        if part.next_edge is None:
            return found
        edge = part.next_edge


def test_pages_of_a_user_are_what_the_whole_log_has_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_blocks, "BLOCKS_MAX", 3)
    busy(stage)
    whole = page(stage.ledger, 0, 10**6).events
    assert len(whole) > 10 * BLOCK_SIZE
    for actor in (ALICE, *USERS):
        did = [each for each in whole if each.recorded.event.actor == actor]
        assert did
        for limit in (1, 7, 1_000) if actor == USERS[-1] else (1_000,):
            assert walked(stage, actor, limit, newest_first=False) == did
            assert walked(stage, actor, limit, newest_first=True) == did[::-1]
    assert walked(stage, "user:nobody", 10, newest_first=True) == []


def test_blocks_are_noted_exactly_and_replay_agrees(stage: Stage) -> None:
    busy(stage, 20)
    whole = page(stage.ledger, 0, 10**6).events
    wanted = {
        (each.recorded.event.actor, each.position // BLOCK_SIZE)
        for each in whole
        if each.recorded.event.actor.startswith("user:")
    }
    assert set(stage.ask("SELECT actor, block FROM user_blocks")) == wanted
    stage.require_equal()
    stage.do("DELETE FROM user_blocks WHERE actor = %s", [USERS[0]])
    differences = check_replay(stage.ledger).differences
    assert {each.table for each in differences} == {"user_blocks"}


def test_an_older_log_is_noted_by_the_migration(stage: Stage) -> None:
    busy(stage, 20)
    noted = stage.ask("SELECT actor, block FROM user_blocks ORDER BY 1, 2")
    stage.do("DELETE FROM user_blocks")
    with connect(stage.ledger.url, stage.ledger.schema) as connection, connection.transaction():
        user_blocks.fill(connection)
    assert stage.ask("SELECT actor, block FROM user_blocks ORDER BY 1, 2") == noted


def test_what_happens_to_tokens_is_in_no_history(stage: Stage) -> None:
    from recordledger.domain.admin.access import Role
    from recordledger.projections.actions.tokens import issue_token

    issue_token(stage.ledger, "eve", Role.user, actor=ALICE)
    assert stage.ask("SELECT count(*) FROM user_blocks WHERE actor = %s", [ALICE]) == [(1,)]
    assert of_user(stage.ledger, "alice", 10).events == []
    assert HIDDEN


def test_two_users_in_one_operation_are_both_found(stage: Stage) -> None:
    (first, second) = submit(stage, 2, ALICE)
    stage.order(Action.hold, first, second, actor=BOB)
    mine = [each.recorded.event.topic for each in of_user(stage.ledger, "alice", 10).events]
    assert mine == ["created", "created"]
    assert len(of_user(stage.ledger, "bob", 10, kinds=["held"]).events) == 2
    assert of_user(stage.ledger, "bob", 10, kinds=["released"]).events == []
    assert of_user(stage.ledger, "bob", 10, edge=0).events == []
    assert of_user(stage.ledger, "bob", 10, edge=ID_MAX, newest_first=False).events == []


def test_pages_of_an_operation_are_all_that_it_did(stage: Stage) -> None:
    ids = stage.submit(7)
    done = stage.done(Action.cancel, *ids)
    undone = UUID(stage.undo(done)["operation_id"])
    for operation_id, topic in ((done, "cancelled"), (undone, "uncancelled")):
        found: list[Placed] = []
        after = (0, 0)
        while part := of_operation(stage.ledger, operation_id, after, 3):
            found += part
            after = (part[-1].recorded.number, part[-1].recorded.version)
        assert [each.recorded.number for each in found] == ids
        assert {each.recorded.event.topic for each in found} == {topic}
        assert [each for each in page(stage.ledger, 0, 10**6).events if each in found] == found
    with pytest.raises(OperationNotFound):
        histories.of_operation(stage.ledger, uuid4(), (0, 0), 3)
