"""Elections: one leads at a time, and another takes over when it is gone."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from recordledger.domain.errors import StoreUnavailable
from recordledger.projections.store.election import Election, settings_in_force

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


def in_force(stage: Stage, job: str = "reaper", schema: str = "recordledger") -> object:
    with stage.ledger.datastore.reading() as db:
        return settings_in_force(db, job, schema)


def test_the_leaders_settings_are_in_force_as_long_as_it_leads(stage: Stage) -> None:
    assert in_force(stage) is None
    first = Election(stage.url, "reaper", settings={"sweep_s": 1.5})
    second = Election(stage.url, "reaper", settings={"sweep_s": 9})
    assert first.leading()
    assert not second.leading()
    assert in_force(stage) == {"sweep_s": 1.5}
    assert in_force(stage, "sealer") is None
    assert in_force(stage, schema="another") is None
    first.resign()
    with stage.connected() as connection:
        until(lambda: in_force(stage) is None, connection, deadline_s=5)
        until(second.leading, connection, deadline_s=5)
    assert in_force(stage) == {"sweep_s": 9}
    second.resign()


def test_the_settings_of_who_was_killed_are_not_in_force(stage: Stage) -> None:
    election = Election(stage.url, "reaper", settings={"sweep_s": 1.5})
    assert election.leading()
    stage.ask("SELECT pg_terminate_backend(backend_pid) FROM job_leaders")
    with stage.connected() as connection:
        until(lambda: in_force(stage) is None, connection, deadline_s=5)
    assert stage.ask("SELECT settings FROM job_leaders") == [({"sweep_s": 1.5},)]
    election.resign()
