"""The service runner, on a real ledger: from a service's class to its record's history."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recordledger.domain.errors import Superseded
from recordledger.domain.records import events as e
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import Priority
from recordledger.domain.records.status import Status
from recordledger.domain.specs.service_rules import ServiceLimits
from tests.postgres import new_database
from tests.projections.stage import ALICE, Stage, empty, staged

from ..invented_services import SERVICES, Fan
from ..service_house import House


@pytest.fixture(scope="module")
def own_database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    with new_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def stage(own_database_url: str) -> Iterator[Stage]:
    empty(own_database_url)
    with staged(own_database_url) as made:
        yield made


@pytest.fixture
def house(stage: Stage) -> House:
    return House(stage)


def test_a_service_runs_from_its_specification_to_its_result(house: House) -> None:
    service = house.add("fan", n=3, rounds=2)
    house.go()
    assert house.stage.status(service) is Status.complete
    assert house.result(service) == {f"2/{x}": {"energy": -76.4} for x in range(3)}
    assert house.said(service) == "round 1\nround 2\n3 results\n"
    assert house.stage.topics(service) == [
        "created",
        "service_started",
        "service_iterated",
        "service_iterated",
        "completed",
    ]
    house.stage.require_equal()


def test_children_inherit_what_the_service_has_and_say_whose_they_are(house: House) -> None:
    service = house.add("fan", tag="cpu", priority=Priority.high, n=2)
    house.runner.run_until_idle()
    children = house.children(service)
    assert len(children) == 2
    for id_ in children:
        record = house.stage.record(id_)
        assert (record.tag, record.priority, record.owner) == ("cpu", Priority.high, ALICE)
        [created] = house.stage.events(id_)
        assert created.cause == service


def test_services_share_the_children_that_they_both_want(house: House) -> None:
    first, second = house.add("fan", n=3, of="a"), house.add("fan", n=4, of="a")
    apart = house.add("fan", n=3, of="a", shared=False)
    house.runner.run_until_idle()
    assert house.children(second)[:3] == house.children(first)
    assert set(house.children(apart)).isdisjoint(house.children(second))
    house.go()
    assert set(house.stage.statuses(first, second, apart).values()) == {"complete"}
    house.stage.require_equal()


def test_services_wait_for_services(house: House) -> None:
    service = house.add("nest", depth=3, n=1)
    house.go()
    assert house.result(service)["below"]["below"]["below"]["below"] == {"energy": -76.4}
    house.stage.require_equal()


def test_what_another_service_waits_for_is_not_held_back_by_the_limit(house: House) -> None:
    house.runner = house.another("narrow", active_max=1)
    service, later = house.add("nest", depth=2, n=1), house.add("fan", n=1)
    house.runner.run_until_idle()
    assert house.stage.status(service) is Status.running
    assert house.stage.status(later) is Status.waiting
    house.go()
    assert set(house.stage.statuses(service, later).values()) == {"complete"}


def test_an_existing_service_that_waits_is_not_held_back_once_another_waits_for_it(
    house: House,
) -> None:
    house.runner = house.another("narrow", active_max=1)
    service = house.add("nest", depth=1, n=1, priority=Priority.high)
    below = house.add("nest", depth=0, n=1, priority=Priority.low)
    house.runner.run_until_idle()
    assert house.children(service) == [below]
    house.go()
    assert set(house.stage.statuses(service, below).values()) == {"complete"}
    house.stage.require_equal()


def test_high_priorities_go_first_and_then_the_older_ones(house: House) -> None:
    low = house.add("fan", n=1, priority=Priority.low)
    old, new = house.add("fan", n=2), house.add("fan", n=3)
    high = house.add("fan", n=4, priority=Priority.high)
    picked = [house.runner.pick(1) for _ in range(4)]
    assert picked == [[high], [old], [new], [low]]


def test_a_child_in_error_makes_the_service_one_and_its_reset_resets_both(house: House) -> None:
    service = house.add("fan", n=2)
    house.runner.run_until_idle()
    house.compute(fine=False, limit=1)
    house.runner.run_until_idle()
    error_type, message = house.error(service)
    child = house.children(service)[0]
    assert error_type == "ChildError"
    assert message == (
        f"child '1/0', record {child}, is in error (ValueError: no convergence). When they are "
        f"complete after all, the service goes on by itself: recordledger reset {child}"
    )
    assert house.stage.order(Action.reset, service)["n_children_updated"] == 1
    house.go()
    assert house.stage.status(service) is Status.complete
    assert house.stage.topics(service) == [
        *("created", "service_started", "service_iterated", "errored"),
        *("reset", "service_started", "completed"),
    ]
    house.stage.require_equal()


def test_a_child_that_is_reset_alone_lets_the_service_go_on_when_it_completes(
    house: House,
) -> None:
    service = house.add("nest", depth=1, n=1)
    house.runner.run_until_idle()
    house.compute(fine=False)
    house.runner.run_until_idle()
    [below] = house.children(service)
    [leaf] = house.children(below)
    assert house.error(service)[0] == house.error(below)[0] == "ChildError"
    house.stage.done(Action.reset, leaf)
    house.runner.run_until_idle()
    assert house.stage.status(below) is Status.error
    house.go()
    assert house.stage.status(service) is Status.complete
    reset = next(each for each in house.stage.events(service) if isinstance(each, e.Reset))
    assert reset.reason == "the children that caused the error are complete"
    assert reset.actor == "server:service-runner"
    house.stage.require_equal()


LOSSES = {
    "invalidate": ("complete", "invalid", "uninvalidate"),
    "delete": ("complete", "deleted", "undelete"),
    "cancel": ("waiting", "cancelled", "uncancel"),
    "fail": ("error", "failed", "revive"),
}


@pytest.mark.parametrize("action", LOSSES)
def test_a_child_of_which_nothing_can_be_expected_is_never_waited_for(
    house: House, action: str
) -> None:
    before, after, remedy = LOSSES[action]
    service = house.add("fan", n=2)
    house.runner.run_until_idle()
    child = house.children(service)[0]
    if before != "waiting":
        house.compute(fine=before == "complete", limit=1)
    house.stage.done(Action[action], child, **({"propagate": False} if after == "invalid" else {}))
    # What took the service away as well is taken back, for the service alone.
    if house.stage.status(service) is not Status.running:
        back = {"deleted": e.Undeleted, "cancelled": e.Uncancelled}
        house.stage.happen(service, back[after])
    assert house.stage.statuses(child) == {child: after}
    house.runner.run_until_idle()
    error_type, message = house.error(service)
    assert error_type == "ChildUnavailable"
    assert f"record {child}, is {after}" in message
    assert message.endswith(f"recordledger {remedy} {child}")
    house.stage.require_equal()
    # It goes on by itself when the child has come back and ended well.
    house.stage.done(Action[remedy], child)
    house.go()
    assert house.stage.status(service) is Status.complete


def test_a_service_decides_about_errors_itself_if_it_says_so(house: House) -> None:
    service = house.add("fan", n=2, takes_errors=True)
    house.runner.run_until_idle()
    house.compute(fine=False, limit=1)
    house.runner.run_until_idle()
    assert house.stage.status(service) is Status.running
    house.go()
    assert house.result(service) == {"1/0": "error", "1/1": {"energy": -76.4}}


ODD = {
    "raises": ("ZeroDivisionError", "nothing can be divided by it"),
    "exits": ("SystemExit", "the function called sys.exit(3)"),
    "nothing": ("ServiceDecisionInvalid", "it returned a NoneType, and must return Wait, Done"),
    "wrong state": ("ServiceStateInvalid", "is a Nothing, and must be a FanState"),
    "wrong child": ("ServiceDecisionInvalid", "the child 'a' is a dict, not a Child"),
    "child without a form": ("ServiceDecisionInvalid", "the child 'a' cannot be created: kwargs.x"),
    "child of no function": ("ServiceDecisionInvalid", "'no function' is not a function"),
    "old key": ("ServiceDecisionInvalid", "an older child already has the key '1'"),
    "unknown key": ("ServiceDecisionInvalid", "there is no older child with the key 'who'"),
    "bad key": ("ServiceDecisionInvalid", "'' is not a child's key"),
    "result without a form": ("ResultNotSerializable", "cannot be stored as JSON"),
    "spawns": ("ServiceLimitExceeded", "children, more than the limit of"),
    "turns": (
        "ServiceLimitExceeded",
        "iterations, more than the limit of 12 (setting service_iter",
    ),
    "itself": ("CircularFamily", "it is the same record or its ancestor"),
    "gives up": ("NoConvergence", "after 3 rounds"),
}


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("how", ODD)
def test_what_a_service_must_not_do_is_an_error_of_its_record(
    house: House, how: str, at: int
) -> None:
    limits = ServiceLimits(children=100, children_per_iteration=50, iterations=12, depth=5)
    house.runner = house.another("strict", limits=limits)
    service, other = house.add("odd", how=how, at=at, of=""), house.add("fan", n=1)
    house.go()
    error_type, message = house.error(service)
    assert (error_type, ODD[how][1] in message) == (ODD[how][0], True), message
    assert house.stage.status(other) is Status.complete
    house.stage.require_equal()


def test_services_are_not_nested_without_end(house: House) -> None:
    house.runner = house.another("strict", limits=ServiceLimits(depth=4))
    top = house.add("odd", how="deeper")
    house.runner.run_until_idle()
    family = [top]
    while below := house.children(family[-1]):
        family += below
    assert len(family) == 4
    assert house.error(family[-1])[0] == "ServiceLimitExceeded"
    assert house.error(top)[0] == "ChildError"


def test_a_service_that_is_not_installed_or_not_understood_is_an_error(house: House) -> None:
    absent, wrong = house.add("absent"), house.add("fan", n="many", colour="red")
    house.go()
    error_type, message = house.error(absent)
    assert error_type == "ServiceNotInstalled"
    assert "no service 'absent' is installed" in message
    assert all(f" {name}" in message.partition("(installed:")[2] for name in SERVICES)
    error_type, message = house.error(wrong)
    assert error_type == "ServiceSpecInvalid"
    assert "n: Input should be a valid integer" in message
    assert "colour: Extra inputs are not permitted" in message


def test_an_error_of_its_code_is_kept_and_reset_goes_on_from_the_last_good_state(
    house: House,
) -> None:
    service = house.add("odd", how="raises", at=2)
    house.go()
    outcome = house.stage.record(service).outcome
    assert outcome is not None
    traceback = (house.bytes_of(outcome.traceback) or b"").decode()
    assert traceback.rstrip().endswith("ZeroDivisionError: nothing can be divided by it")
    assert "in advance" in traceback
    house.stage.done(Action.reset, service)
    house.go()
    assert house.stage.record(service).iteration == 1
    assert house.stage.topics(service)[-3:] == ["reset", "service_started", "errored"]


def test_a_newer_version_goes_on_only_if_it_says_so(house: House) -> None:
    class Newer(Fan):
        version = "2"

    class Newest(Newer):
        version = "3"
        continues = frozenset({"1", "2"})

    service = house.add("fan", n=1, rounds=3)
    house.runner.run_until_idle()
    house.runner = house.another("newer", services={"fan": Newer})
    house.go()
    error_type, message = house.error(service)
    assert error_type == "ServiceVersionMismatch"
    assert "written by version 1 of fan, which the installed version 2" in message
    house.runner = house.another("newest", services={"fan": Newest})
    house.stage.done(Action.reset, service)
    house.go()
    assert house.stage.status(service) is Status.complete
    versions = [
        each.code_version
        for each in house.stage.events(service)
        if isinstance(each, e.ServiceIterated)
    ]
    assert versions == ["1", "3", "3"]


def test_a_service_goes_on_at_its_alarm_and_not_before(house: House) -> None:
    service = house.add("clock", wait_s=3600)
    house.go()
    assert house.stage.status(service) is Status.running
    house.stage.do("UPDATE services SET wake_at = now()")
    house.go()
    assert house.result(service) == {"ended": [], "open": []}


def test_a_service_goes_on_when_any_child_has_ended(house: House) -> None:
    service = house.add("clock", wait_s=0, n=3, until="any")
    house.runner.run_until_idle()
    for _ in range(3):
        house.compute(limit=1)
        house.runner.run_until_idle()
        house.stage.require_equal()
    assert house.result(service) == {"ended": ["2"], "open": []}
    assert house.said(service) == "['0']\n['1']\n"


def test_a_cancelled_service_goes_on_where_it_was(house: House) -> None:
    service = house.add("fan", n=2, rounds=2)
    house.runner.run_until_idle()
    house.compute()
    house.runner.run_until_idle()
    house.stage.done(Action.cancel, service)
    house.go()
    assert house.stage.status(service) is Status.cancelled
    house.stage.done(Action.uncancel, service)
    house.go()
    assert house.stage.record(service).iteration == 2
    assert house.stage.status(service) is Status.complete
    house.stage.require_equal()


def test_a_step_is_not_stored_if_the_service_has_gone_on(house: House) -> None:
    service = house.add("fan", n=2, shared=False)
    slow = house.another("slow", lease_s=0.01)
    assert slow.pick(1) == [service]
    store = slow.decide(service)
    house.stage.wait(lambda: house.runner.pick(1) == [service])  # when the lease is over
    house.runner.advance(service)
    n_events = house.stage.head()
    with pytest.raises(Superseded):
        store()
    assert house.stage.head() == n_events
    assert len(house.children(service)) == 2


def test_a_runner_keeps_what_it_works_on_and_loses_what_it_does_not_know_of(house: House) -> None:
    known, unknown = house.add("fan", n=1, of="a"), house.add("fan", n=1, of="b")
    assert house.runner.pick(1) == [known]
    # The answer to this pick is lost on its way to the runner.
    lost = "INSERT INTO service_leases VALUES (%s, 'first', now() + interval '0.2 s')"
    assert house.stage.do(lost, [unknown]) == 1
    soon = "UPDATE service_leases SET lease_expires_at = now() + interval '0.2 s'"
    assert house.stage.do(soon) == 2
    house.runner.pick(0)
    other = house.another("other")
    house.stage.wait(lambda: other.pick(2) == [unknown])
    assert house.stage.ask("SELECT record_id, runner FROM service_leases ORDER BY 1") == [
        (known, "first"),
        (unknown, "other"),
    ]


def test_what_a_runner_has_in_hand_no_other_one_gets(house: House) -> None:
    ids = [house.add("fan", n=1, of=str(x)) for x in range(6)]
    other = house.another("other")
    first, second = house.runner.pick(2), other.pick(10)
    assert (first, second) == (ids[:2], ids[2:])
    assert house.runner.pick(10) == []
