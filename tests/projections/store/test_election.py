"""Elections: one leads at a time, and another takes over when it is gone."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from recordledger.domain.errors import StoreUnavailable
from recordledger.projections.store.election import Election

from ..stage import Stage, together, until


def standing(stage: Stage, job: str = "reaper", schema: str = "recordledger") -> Election:
    return Election(stage.url, job, schema)


def test_of_several_that_stand_one_leads(stage: Stage) -> None:
    elections = [standing(stage) for _ in range(4)]
    leading = together(*(election.leading for election in elections))
    assert sorted(leading) == [False, False, False, True]
    assert [election.leading() for election in elections] == leading
    for election in elections:
        election.resign()


def test_who_resigns_is_followed_at_once(stage: Stage) -> None:
    first, second = standing(stage), standing(stage)
    assert first.leading()
    assert not second.leading()
    first.resign()
    with stage.connected() as connection:
        until(second.leading, connection, deadline_s=5)
    assert not first.leading()
    second.resign()
    second.resign()


def test_different_jobs_and_ledgers_have_different_leaders(stage: Stage) -> None:
    elections = [standing(stage), standing(stage, "sealer"), standing(stage, schema="another")]
    assert [election.leading() for election in elections] == [True, True, True]
    for election in elections:
        election.resign()


def test_who_loses_the_connection_leads_no_more_and_may_stand_again(stage: Stage) -> None:
    election, other = standing(stage), standing(stage)
    assert election.leading()
    ended = stage.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert ended == [(True,)]
    with stage.connected() as connection:
        until(other.leading, connection, deadline_s=5)
    with pytest.raises(StoreUnavailable):
        election.leading()
    assert not election.leading()
    other.resign()
    with stage.connected() as connection:
        until(partial(leads, election), connection, deadline_s=5)
    election.resign()


def leads(election: Election) -> bool:
    with contextlib.suppress(StoreUnavailable):
        return election.leading()
    return False
