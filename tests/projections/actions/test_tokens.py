"""Tokens: whoever shows one comes in, until it is revoked or over; nobody can read it anywhere."""

from __future__ import annotations

from datetime import timedelta

import pytest

from recordledger.domain.admin.access import Role
from recordledger.projections.actions.tokens import (
    SERVER,
    authenticate,
    issue_token,
    revoke_token,
    token_hash,
)
from recordledger.projections.tables import tokens

from ..stage import ALICE, Stage, together


@pytest.mark.parametrize("role", Role)
def test_whoever_shows_a_token_is_its_user(stage: Stage, role: Role) -> None:
    new = issue_token(stage.ledger, "alice", role, actor=ALICE)
    found = authenticate(stage.ledger, new.secret)
    assert found == new.token
    assert found is not None
    assert (found.user, found.role, found.expires_at) == ("alice", role, None)
    stage.require_equal()


def test_a_wrong_token_opens_nothing(stage: Stage) -> None:
    new = issue_token(stage.ledger, "alice", Role.admin)
    for wrong in ("", "x", new.secret[:-1], new.secret + "x", new.secret.upper(), "\0", "\ud7ff"):
        assert authenticate(stage.ledger, wrong) is None


def test_secrets_are_long_and_never_the_same(stage: Stage) -> None:
    secrets = {issue_token(stage.ledger, "alice", Role.user).secret for _ in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("rl_") and len(secret) > 40 for secret in secrets)


def test_a_secret_is_not_in_the_database(stage: Stage) -> None:
    new = issue_token(stage.ledger, "alice", Role.admin)
    (row,) = stage.ask("SELECT * FROM tokens")
    (event,) = stage.ask("SELECT topic, state FROM ledger_events")
    for place in (repr(row), repr(event)):
        assert new.secret not in place
        assert new.secret.removeprefix("rl_") not in place
    assert row[4] == token_hash(new.secret)


def test_a_revoked_token_opens_nothing_any_more(stage: Stage) -> None:
    one, two = (issue_token(stage.ledger, "alice", Role.user) for _ in range(2))
    assert revoke_token(stage.ledger, one.token.id, actor=ALICE)
    assert authenticate(stage.ledger, one.secret) is None
    assert authenticate(stage.ledger, two.secret) == two.token
    n = stage.head()
    assert not revoke_token(stage.ledger, one.token.id, actor=ALICE)
    assert not revoke_token(stage.ledger, 10**9, actor=ALICE)
    assert stage.head() == n
    stage.require_equal()


def test_revocations_at_once_revoke_once(stage: Stage) -> None:
    new = issue_token(stage.ledger, "alice", Role.user)
    revoke = [lambda: revoke_token(stage.ledger, new.token.id, actor=ALICE)] * 4
    assert sorted(together(*revoke)) == [False, False, False, True]
    assert stage.head() == 2


def test_a_token_is_over_when_it_says_so(stage: Stage) -> None:
    (now,) = stage.ask("SELECT clock_timestamp()")[0]
    over, good = (
        issue_token(stage.ledger, "alice", Role.user, expires_at=now + timedelta(seconds=seconds))
        for seconds in (0, 3600)
    )
    assert authenticate(stage.ledger, over.secret) is None
    assert authenticate(stage.ledger, good.secret) == good.token
    stage.require_equal()


def test_tokens_are_listed_in_pages(stage: Stage) -> None:
    issued = [issue_token(stage.ledger, f"user{n}", Role.user).token for n in range(5)]
    with stage.ledger.datastore.reading() as db:
        first = tokens.page(db, after=0, limit=3)
        rest = tokens.page(db, after=first[-1].id, limit=3)
    assert first + rest == issued


def test_the_server_itself_issues_the_first_token(stage: Stage) -> None:
    issue_token(stage.ledger, "local", Role.admin)
    (row,) = stage.ask("SELECT state FROM ledger_events")
    event = stage.ledger.event_mapper.event_of("token_issued", bytes(row[0]))
    assert event.actor == SERVER
