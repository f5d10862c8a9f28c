"""Tokens: issued once, revoked once; and what each role may do."""

from __future__ import annotations

import pytest

from recordledger.domain.admin.access import (
    PERMISSIONS,
    TOKEN_EVENTS,
    Permission,
    Role,
    TokenAggregate,
    TokenIssued,
    TokenRevoked,
    evolve_token,
    revoke,
)
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.events import Event
from recordledger.domain.specs.fingerprint import digest_of
from tests.examples import T0, at, created, stamp

HASH = digest_of(b"a secret")
ISSUED = TokenIssued(
    user="bob", role=Role.user, token_hash=HASH, expires_at=at(3600), **stamp().model_dump()
)
REVOKED = TokenRevoked(**stamp(timestamp=at(5)).model_dump())


def fold_token(*history: Event) -> TokenAggregate:
    token = TokenAggregate(3)
    for event in history:
        token = evolve_token(token, event)
    return token


def test_an_issued_token_acts_for_its_user_in_its_role() -> None:
    assert fold_token(ISSUED) == TokenAggregate(
        id=3,
        version=1,
        user="bob",
        role=Role.user,
        token_hash=HASH,
        issued_at=T0,
        expires_at=at(3600),
    )


def test_a_revoked_token_says_when_it_ended() -> None:
    token = fold_token(ISSUED, REVOKED)
    assert (token.revoked_at, token.version, token.user) == (at(5), 2, "bob")


@pytest.mark.parametrize(
    ("history", "event"),
    [
        ((), REVOKED),
        ((), created()),
        ((ISSUED,), ISSUED),
        ((ISSUED,), created()),
        ((ISSUED, REVOKED), ISSUED),
        ((ISSUED, REVOKED), REVOKED),
    ],
)
def test_nothing_else_can_have_happened_to_a_token(
    history: tuple[Event, ...], event: Event
) -> None:
    with pytest.raises(ImpossibleHistory, match=f"{event.topic} cannot happen") as caught:
        fold_token(*history, event)
    assert (caught.value.stream, caught.value.version) == ("token 3", len(history) + 1)


def test_a_token_is_revoked_once() -> None:
    assert revoke(fold_token(ISSUED), stamp(timestamp=at(5))) == [REVOKED]
    assert revoke(fold_token(ISSUED, REVOKED), stamp()) == []
    assert revoke(fold_token(), stamp()) == []


def test_only_a_whole_sha_256_is_kept_of_a_token() -> None:
    for wrong in (b"", b"a secret", HASH + b"x"):
        with pytest.raises(ValueError, match="token_hash"):
            TokenIssued(user="bob", role=Role.user, token_hash=wrong, **stamp().model_dump())


def test_each_role_has_its_permissions() -> None:
    assert {
        Role.reader: {Permission.read},
        Role.user: {Permission.read, Permission.submit},
        Role.compute: {Permission.compute},
        Role.admin: {Permission.read, Permission.submit, Permission.compute, Permission.admin},
    } == PERMISSIONS


def test_the_catalogue_names_every_event_of_a_token() -> None:
    assert set(TOKEN_EVENTS) == {TokenIssued, TokenRevoked}
