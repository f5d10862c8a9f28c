"""Why a record is where it is: one reason at a time, in words and as facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest

from recordledger.domain.errors import RecordNotFound
from recordledger.domain.records.events import Event, Kind
from recordledger.domain.records.record import fold
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager import ManagerAggregate
from recordledger.domain.routing.manager_state import ManagerState
from recordledger.domain.routing.matching import Cause, ManagerSigns
from recordledger.domain.routing.why import (
    BEFORE_MAX,
    CHILDREN_MAX,
    Circumstances,
    StatusExplanation,
    explain,
)
from recordledger.domain.specs.service_rules import Awaited
from tests.examples import (
    RECORD_ID,
    at,
    cancelled,
    claimed,
    completed,
    created,
    erased,
    errored,
    failed,
    failure,
    held,
    imported,
    invalidated,
    late_result,
    lease_expired,
    reset,
    result_adopted,
    retried,
    reverted,
    service_iterated,
    service_started,
    soft_deleted,
    undeleted,
)

from .test_matching import manager

NOW = at(1_000)
EARLY = at(30)


def seen(which: ManagerAggregate, heartbeat_at: datetime | None = None) -> ManagerSigns:
    return ManagerSigns(which, heartbeat_at or at(990), at(1_110))


def why(*history: Event, circumstances: Circumstances | None = None) -> StatusExplanation:
    record = fold(RECORD_ID, history)
    return explain(record, history, circumstances or Circumstances(now=NOW))


def waiting(
    *managers: ManagerAggregate,
    required_programs: tuple[str, ...] = ("psi4>=1.9",),
    tag: str = "gpu",
    n_before: int = 0,
    now: datetime = NOW,
) -> StatusExplanation:
    """Return why a task of tag gpu that requires psi4>=1.9 waits while these managers are alive."""
    circumstances = Circumstances(
        now=now,
        alive=[seen(each) for each in managers],
        n_waiting=n_before + 1,
        n_before=n_before,
    )
    event = created(required_programs=required_programs, tag=tag)
    return why(event, circumstances=circumstances)


# Waiting


def test_without_managers_nobody_can_take_it() -> None:
    found = waiting()
    assert (found.code, found.status, found.n_able) == (Cause.no_manager, Status.waiting, 0)
    assert found.text == "No manager is alive, so nobody can take it until one registers."
    assert found.remedy == "recordledger manager --tag gpu"
    assert waiting(tag="*").remedy == "recordledger manager --tag '*'"


def test_the_tags_that_are_claimed_are_told_if_its_own_is_not() -> None:
    found = waiting(manager(7, "cpu", "big", programs={}))
    assert found.code is Cause.tag_not_claimed
    assert found.text == "No manager claims the tag gpu; those that are alive claim big, cpu."
    assert (found.claimed_tags, found.remedy, found.nearest) == (("big", "cpu"), None, ())


def test_many_tags_are_not_all_named() -> None:
    found = waiting(manager(7, *(f"t{n:02}" for n in range(12)), programs={}))
    assert found.text.endswith("t08, t09 and 2 more.")
    assert len(found.claimed_tags) == 12


def test_a_manager_of_another_tag_that_could_run_it_is_named_with_what_to_do() -> None:
    found = waiting(manager(7, "cpu", name="m7"), manager(8, "big", programs={}))
    assert found.code is Cause.tag_not_claimed
    assert found.text.endswith("claim big, cpu. Manager 7 (m7) on tag cpu could run it.")
    assert found.remedy == "recordledger modify 411 --new-tag cpu"
    (nearest,) = found.nearest
    assert (nearest.manager_id, nearest.claims_tag, nearest.lacks) == (7, False, ())


def test_a_record_of_the_wildcard_tag_needs_a_manager_that_lists_it() -> None:
    found = waiting(manager(7, "cpu", name="m7"), tag="*")
    assert found.code is Cause.no_wildcard_manager
    assert found.text == (
        "Its tag is *, which is for managers that list *, and there is none; those that are alive "
        "claim cpu. Manager 7 (m7) on tag cpu could run it."
    )
    assert found.remedy == "recordledger modify 411 --new-tag cpu"


def test_a_missing_program_is_told_with_who_lacks_least() -> None:
    found = waiting(
        manager(1, programs={}, name="bare"),
        manager(2, programs={"psi4": "1.8"}, name="old"),
        manager(3, programs={"xtb": None}, name="other"),
        manager(4, programs={"psi4": "1.8"}, state=ManagerState.draining),
        required_programs=("psi4>=1.9", "xtb"),
    )
    assert found.code is Cause.programs_missing
    assert found.text == (
        "No manager on tag gpu offers all of psi4>=1.9, xtb; the nearest is manager 3 (other), "
        "which lacks psi4>=1.9."
    )
    assert [each.manager_id for each in found.nearest] == [3, 2, 4, 1]
    assert found.remedy is None


def test_another_version_is_nearer_than_none() -> None:
    found = waiting(manager(1, programs={}), manager(2, programs={"psi4": "1.8"}, name="old"))
    assert found.text == (
        "No manager on tag gpu offers psi4>=1.9; the nearest is manager 2 (old), which lacks "
        "psi4>=1.9 (it has 1.8)."
    )


def test_a_manager_of_another_tag_that_has_the_programs_is_the_nearest() -> None:
    found = waiting(
        manager(1, programs={}),
        manager(6, "cpu", state=ManagerState.draining),
        manager(7, "cpu", name="m7"),
        manager(8, "cpu", suspended=["psi4"]),
    )
    assert found.code is Cause.programs_missing
    assert found.text == ("No manager on tag gpu offers psi4>=1.9; manager 7 (m7) on tag cpu does.")
    assert found.remedy == "recordledger modify 411 --new-tag cpu"
    assert [(each.manager_id, each.claims_tag) for each in found.nearest] == [(7, False), (1, True)]


def test_the_circuit_breaker_is_told_with_whom_it_lets_try_first() -> None:
    later = manager(1, suspended=["psi4"])
    later = replace(later, suspended={"psi4": replace(later.suspended["psi4"], until=at(2_000))})
    found = waiting(
        later, manager(2, suspended=["psi4"], name="sick"), manager(3, "cpu", name="m3"), now=EARLY
    )
    assert found.code is Cause.programs_suspended
    assert found.text == (
        "The circuit breaker keeps it from every manager that could take it. The first to try "
        "again is manager 2 (sick): it gets no tasks of psi4 until 2026-03-01 12:01:00 UTC, after "
        "10 failures in a row, the last by OSError. Manager 3 (m3) on tag cpu could run it."
    )
    assert [each.manager_id for each in found.nearest] == [3, 2, 1]
    assert found.nearest[1].suspended_until == at(60)


def test_tasks_without_programs_are_suspended_too() -> None:
    sick = manager(2, suspended=["(none)"])
    found = waiting(sick, required_programs=(), now=EARLY)
    assert "it gets no tasks without programs until" in found.text


def test_when_the_suspension_is_over_one_task_is_tried() -> None:
    found = waiting(manager(2, suspended=["psi4"]), now=at(60))
    assert found.code is Cause.programs_suspended
    assert "with its next claim it gets one of the tasks of psi4 to try, after 10" in found.text


def test_those_that_drain_claim_nothing_more() -> None:
    found = waiting(manager(2, state=ManagerState.draining, name="m2"))
    assert found.code is Cause.managers_draining
    assert (
        found.text == "The managers that could take it are draining and claim nothing: "
        "manager 2 (m2)."
    )
    assert (found.n_able, found.nearest[0].state) == (0, ManagerState.draining)


def test_otherwise_it_is_in_the_queue() -> None:
    found = waiting(manager(2, name="m2"), manager(3, "cpu"), n_before=17)
    assert (found.code, found.n_able, found.n_waiting, found.n_before) == (
        Cause.in_queue,
        1,
        18,
        17,
    )
    assert found.text == (
        "It is in the queue, and 17 tasks of the same tag and programs are before it. 1 manager "
        "can take it: manager 2 (m2), last heartbeat at 2026-03-01 12:16:30 UTC."
    )
    assert found.remedy is None


def test_the_place_in_the_queue_is_not_counted_for_ever() -> None:
    able = [manager(number) for number in range(1, 9)]
    found = waiting(*able, n_before=BEFORE_MAX + 1)
    assert "more than 1,000 tasks of the same tag and programs are before it" in found.text
    assert "8 managers can take it" in found.text
    assert "manager 5 (node) and 3 more" in found.text
    assert (found.n_able, len(found.nearest)) == (8, 5)
    assert "no task of the same tag and programs is before it" in waiting(*able).text
    assert "1 task of the same tag and programs is before it" in waiting(*able, n_before=1).text


def test_who_can_take_it_is_told_by_the_newest_sign_of_life() -> None:
    alive = [
        seen(manager(1), at(10)),
        ManagerSigns(manager(2), None, None),
        seen(manager(3), at(20)),
    ]
    found = why(created(), circumstances=Circumstances(now=NOW, alive=alive))
    assert [each.manager_id for each in found.nearest] == [3, 1, 2]
    alone = why(created(), circumstances=Circumstances(now=NOW, alive=alive[1:2]))
    assert alone.text.endswith("1 manager can take it: manager 2 (node).")


def test_the_pause_before_a_retry_is_told_with_the_error() -> None:
    history = (
        created(retries=3),
        claimed(),
        errored(outcome=failure("OSError"), timestamp=at(5)),
        retried(1, attempt=1, error_type="OSError", not_before=at(2_000)),
    )
    now = Circumstances(now=NOW, error_message="disk full")
    found = why(*history, circumstances=now)
    assert (found.code, found.retry_at) == (Cause.retry_pause, at(2_000))
    assert found.text == (
        "It pauses until 2026-03-01 12:33:20 UTC before retry 1 of 3, after OSError: disk full "
        "in attempt 1."
    )
    assert (found.error_type, found.error_message) == ("OSError", "disk full")
    late = why(*history, circumstances=replace(now, now=at(2_000)))
    assert late.text.endswith("That is over: the server's own job `retries` lets it be claimed.")


def test_a_service_waits_for_its_runner() -> None:
    found = why(created(kind=Kind.service))
    assert found.code is Cause.service_not_started
    assert found.text == "It is a service, and waits for the service runner."
    children = {Status.waiting: 1, Status.complete: 3}
    again = why(created(kind=Kind.service), circumstances=Circumstances(now=NOW, children=children))
    assert again.text.endswith("Children: 1 waiting, 3 complete.")


# Running


def test_who_runs_it_is_told_with_the_lease() -> None:
    holder = seen(manager(9, name="m9"))
    history = (created(), claimed(9, timestamp=at(900)))
    found = why(*history, circumstances=Circumstances(now=NOW, holder=holder))
    assert found.code is Cause.running
    assert found.text == (
        "Manager 9 (m9) has had it since 2026-03-01 12:15:00 UTC, as attempt 1. Its last "
        "heartbeat was at 2026-03-01 12:16:30 UTC; its lease runs until 2026-03-01 12:18:30 UTC."
    )
    assert (found.manager_id, found.attempt, found.started_at) == (9, 1, at(900))
    assert (found.heartbeat_at, found.lease_expires_at) == (at(990), at(1_110))


def test_a_lease_that_is_over_is_told() -> None:
    holder = seen(manager(9, name="m9"))
    found = why(created(), claimed(9), circumstances=Circumstances(now=at(1_110), holder=holder))
    assert found.code is Cause.lease_over
    assert found.text.endswith(
        "its lease ran out at 2026-03-01 12:18:30 UTC: the server's own job `lease-reaper` gives "
        "the task back."
    )


@pytest.mark.parametrize("holder", [None, ManagerSigns(manager(9), None, None)])
def test_a_manager_that_has_just_ended_is_told_without_its_lease(
    holder: ManagerSigns | None,
) -> None:
    found = why(created(), claimed(9), circumstances=Circumstances(now=NOW, holder=holder))
    assert found.code is Cause.running
    assert found.text.endswith("since 2026-03-01 12:00:00 UTC, as attempt 1.")


@pytest.mark.parametrize(
    ("children", "says"),
    [
        ({Status.waiting: 2, Status.complete: 1}, "for its children. Children: 2 waiting, 1 com"),
        ({Status.running: 1}, "for its children. Children: 1 running."),
        ({Status.complete: CHILDREN_MAX}, "for the service runner. Children: 10,000 complete or m"),
        ({}, "and waits for the service runner."),
    ],
)
def test_a_running_service_waits_for_its_children_or_for_its_runner(
    children: dict[Status, int], says: str
) -> None:
    history = (created(kind=Kind.service), service_started(), service_iterated(children=(412,)))
    found = why(*history, circumstances=Circumstances(now=NOW, children=children))
    assert (found.code, found.children) == (Cause.service_running, children)
    assert "in iteration 1, started at 2026-03-01 12:00:00 UTC" in found.text
    assert says in found.text


BLOCKING = (
    Awaited("x=1", 412, Status.held),
    Awaited("x=2", 413, Status.running),
)


def test_a_running_service_names_who_holds_it_up_and_what_to_do() -> None:
    history = (created(kind=Kind.service), service_started(), service_iterated(children=(412,)))
    now = Circumstances(now=NOW, blocking=BLOCKING)
    found = why(*history, circumstances=now)
    assert found.text.endswith(
        "It waits for, among others: 'x=1', record 412, is held; 'x=2', record 413, is running."
    )
    assert found.remedy == "recordledger release 412"
    quiet = why(*history, circumstances=Circumstances(now=NOW, blocking=BLOCKING[1:]))
    assert quiet.remedy is None


@pytest.mark.parametrize(
    ("error_type", "blocking", "remedy"),
    [
        ("ChildError", (Awaited("x=1", 412, Status.error),), "reset 411"),
        ("ChildUnavailable", (Awaited("x=1", 412, Status.cancelled),), "uncancel 412"),
        ("ChildUnavailable", (), "reset 411"),
    ],
)
def test_a_service_in_error_because_of_its_children_says_what_brings_it_on(
    error_type: str, blocking: tuple[Awaited, ...], remedy: str
) -> None:
    history = (created(kind=Kind.service), service_started(), errored(outcome=failure(error_type)))
    found = why(*history, circumstances=Circumstances(now=NOW, blocking=blocking))
    assert found.code is Cause.service_error
    assert found.remedy == f"recordledger {remedy}"


# Ended


def test_a_complete_record_tells_whose_attempt_it_was() -> None:
    found = why(created(), claimed(9), completed(timestamp=at(60)))
    assert found.code is Cause.completed
    assert found.text == "Manager 9 completed attempt 1 at 2026-03-01 12:01:00 UTC."
    service = why(created(kind=Kind.service), service_started(), completed())
    assert service.text.startswith("The service completed attempt 1")


def test_a_late_result_that_was_adopted_is_told_as_such() -> None:
    history = (created(), claimed(9), lease_expired(), late_result(9))
    found = why(*history, result_adopted(actor="user:ann", reason="it is right"))
    assert (found.code, found.attempt) == (Cause.result_adopted, 1)
    assert found.text == (
        "It is complete by the late result of attempt 1, which was adopted by user:ann at "
        "2026-03-01 12:00:00 UTC: it is right."
    )


@pytest.mark.parametrize(
    ("history", "code", "says"),
    [
        (
            (created(), claimed(), errored()),
            Cause.no_retries,
            "It was submitted without retries.",
        ),
        (
            (created(retries=2, retry_on=("OSError",)), claimed(), errored()),
            Cause.error_not_retried,
            "Errors of this type are not retried: retry_on is OSError.",
        ),
        (
            (created(retries=2), claimed(), errored(outcome=failure("ResultTooLarge"))),
            Cause.error_not_retried,
            "Errors of this type are not retried: another attempt would fail in the same way.",
        ),
        (
            (
                created(retries=1),
                *(claimed(), errored(), retried(1, attempt=1)),
                *(claimed(attempt=2), errored(attempt=2)),
            ),
            Cause.retries_used_up,
            "It has had 1 of 1 retry.",
        ),
        (
            (
                created(retries=3),
                *(claimed(), errored(), reset()),
                reverted("error", outcome=failure(), retries_used=3),
            ),
            Cause.retries_used_up,
            "It has had 3 of 3 retries.",
        ),
        (
            (created(kind=Kind.service, retries=2), service_started(), errored()),
            Cause.service_error,
            "Services are not retried by themselves.",
        ),
    ],
)
def test_an_error_tells_why_no_retry_followed(
    history: tuple[Event, ...], code: Cause, says: str
) -> None:
    found = why(*history, circumstances=Circumstances(now=NOW, error_message="it broke"))
    assert found.code is code
    assert ": it broke ended attempt" in found.text
    assert found.text.endswith(says)
    assert found.remedy == "recordledger reset 411"


def test_an_error_whose_message_was_destroyed_is_told_by_its_type() -> None:
    assert why(created(), claimed(), errored()).text.startswith("ValueError ended attempt 1 at")


@pytest.mark.parametrize(
    ("history", "code", "done", "opposite"),
    [
        ((created(), held()), Cause.held, "held", "release"),
        ((created(), imported()), Cause.held, "held when it was imported", "release"),
        ((created(), cancelled()), Cause.cancelled, "cancelled", "uncancel"),
        ((created(), soft_deleted()), Cause.deleted, "deleted", "undelete"),
        (
            (created(), claimed(), errored(), failed()),
            Cause.failed,
            "declared failed",
            "revive",
        ),
        (
            (created(), claimed(), completed(), invalidated()),
            Cause.invalidated,
            "invalidated",
            "uninvalidate",
        ),
    ],
)
def test_what_somebody_did_is_told_with_what_takes_it_back(
    history: tuple[Event, ...], code: Cause, done: str, opposite: str
) -> None:
    *before, last = history
    said = {"actor": "user:ann", "timestamp": at(60)}
    found = why(*before, last.model_copy(update={**said, "reason": "wrong basis set"}))
    assert found.code is code
    when = "2026-03-01 12:01:00 UTC"
    assert found.text == f"It was {done} by user:ann at {when}: wrong basis set."
    assert found.remedy == f"recordledger {opposite} 411"
    assert (found.actor, found.at, found.reason) == ("user:ann", at(60), "wrong basis set")
    assert why(*before, last.model_copy(update=said)).text.endswith(f"at {when}.")
    asked = why(*before, last.model_copy(update={**said, "reason": "why not?"}))
    assert asked.text.endswith(": why not?")
    caused = why(*before, last.model_copy(update={**said, "cause": 17}))
    assert caused.text == f"It was {done} by user:ann at {when}, because of record 17."
    assert caused.remedy == f"recordledger undo {UUID(int=1)}"
    assert (caused.caused_by, caused.operation_id) == (17, UUID(int=1))


def test_the_newest_cancellation_counts() -> None:
    history = (created(), cancelled(actor="bob"), soft_deleted(), undeleted())
    assert why(*history).actor == "bob"


def test_an_erased_record_is_known_by_its_bare_events() -> None:
    found = why(created(), erased(actor="user:ann", reason="private"))
    assert (found.code, found.status, found.remedy) == (Cause.erased, None, None)
    assert found.text == (
        "It was erased by user:ann at 2026-03-01 12:00:00 UTC: private. Its payloads are "
        "destroyed; its events remain without content."
    )


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(RecordNotFound):
        why()
