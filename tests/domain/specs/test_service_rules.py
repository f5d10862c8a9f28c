"""What a service may decide, and what becomes of one that cannot go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from recordledger.domain.records.events import Payload
from recordledger.domain.records.propagation import REMEDIES
from recordledger.domain.records.status import Status
from recordledger.domain.specs.service import Broken, Child, Done, Ended, Now, Service, Step, Wait
from recordledger.domain.specs.service_rules import (
    Awaited,
    ChildStanding,
    ServiceFault,
    ServiceLimits,
    require_children,
    require_decision,
    require_keys,
    require_version,
    standing_of,
)


class Counter(BaseModel):
    """What the services of these tests remember."""

    n: int = 0


class Scan(Service[Counter, Counter]):
    """A service that is never run here."""

    name = "scan"
    version = "3"
    continues = frozenset({"2"})
    Spec = Counter
    State = Counter

    def start(self, spec: Counter, now: Now) -> Step[Counter]:
        return Wait(spec)

    def advance(self, spec: Counter, state: Counter, now: Now) -> Step[Counter]:
        return Done(state.n)


def test_a_class_decides_from_its_arguments_alone() -> None:
    now = Now(datetime(2026, 3, 1, tzinfo=UTC), 1)
    assert Scan().start(Counter(n=1), now) == Wait(Counter(n=1))
    assert Scan().advance(Counter(), Counter(n=2), now) == Done(2)


def test_the_result_of_a_child_is_read_when_it_is_asked_for() -> None:
    results = iter([7])
    payload = Payload(digest=b"1" * 32, size_bytes=1)
    fine = Ended(1, Status.complete, payload, lambda: next(results))
    assert fine.is_complete
    assert fine.result == 7
    assert list(results) == []
    assert not Ended(2, Status.error, None, dict).is_complete


@pytest.mark.parametrize("status", [*Status, None])
def test_of_a_child_everything_something_or_nothing_can_be_expected(status: Status | None) -> None:
    standing = standing_of(status)
    assert (standing is ChildStanding.complete) == (status is Status.complete)
    is_open = status in (None, Status.waiting, Status.running, Status.held)
    assert (standing is ChildStanding.open) == is_open
    if standing is ChildStanding.troubled:
        assert status in REMEDIES


def child(number: int, status: Status, error: str | None = None) -> Awaited:
    return Awaited(f"x={number}", number, status, error, error and "no convergence")


def test_children_that_are_open_or_complete_are_no_trouble() -> None:
    require_children([child(1, Status.complete), child(2, Status.held), child(3, Status.running)])


def test_a_child_in_error_is_named_with_what_it_says_and_what_to_do() -> None:
    children = [child(1, Status.complete), child(2, Status.error, "ValueError")]
    with pytest.raises(ServiceFault) as caught:
        require_children(children)
    assert (caught.value.error_type, caught.value.cause) == ("ChildError", 2)
    assert str(caught.value) == (
        "child 'x=2', record 2, is in error (ValueError: no convergence). When they are complete "
        "after all, the service goes on by itself: recordledger reset 2"
    )


def test_what_a_reset_does_not_mend_comes_first_and_only_some_are_named() -> None:
    children = [child(0, Status.error), *(child(n, Status.cancelled) for n in range(1, 8))]
    with pytest.raises(ServiceFault) as caught:
        require_children(children)
    assert (caught.value.error_type, caught.value.cause) == ("ChildUnavailable", 1)
    said = str(caught.value)
    assert said.startswith("children 'x=1', record 1, is cancelled; 'x=2'")
    assert "'x=5', record 5, is cancelled; and 2 more. When" in said
    assert said.endswith("recordledger uncancel 1")


@pytest.mark.parametrize("version", ["2", "3", None])
def test_a_state_of_a_version_that_is_continued_is_gone_on_with(version: str | None) -> None:
    require_version(Scan, version)


def test_a_state_of_any_other_version_is_not() -> None:
    with pytest.raises(
        ServiceFault, match="written by version 1 of scan, which the installed version 3"
    ) as no:
        require_version(Scan, "1")
    assert (no.value.error_type, no.value.cause) == ("ServiceVersionMismatch", None)


def decision(step: object, n_iterations: int = 0, n_children: int = 0) -> Step[Any]:
    limits = ServiceLimits(children_per_iteration=2, children=3, iterations=4)
    return require_decision(step, Counter, n_iterations, n_children, limits)


@pytest.mark.parametrize(
    "step",
    [
        Done(None),
        Broken("NoConvergence", "after 3 rounds"),
        Wait(Counter()),
        Wait(
            Counter(),
            {"a": Child("psi4"), "b": Child("psi4")},
            awaited=frozenset({"c"}),
            until="any",
            wake_at=datetime(2026, 3, 1, tzinfo=UTC),
            progress=1.0,
        ),
    ],
)
def test_a_decision_is_taken_as_it_is(step: object) -> None:
    assert decision(step, n_iterations=3, n_children=1) is step


NAIVE = datetime(2026, 3, 1)  # noqa: DTZ001
WRONG: Any = 7


@pytest.mark.parametrize(
    ("step", "error_type", "message"),
    [
        (None, "ServiceDecisionInvalid", "it returned a NoneType, and must return Wait"),
        (Wait(WRONG), "ServiceStateInvalid", "is a int, and must be a Counter"),
        (
            Wait(Counter(), {WRONG: Child("f")}),
            "ServiceDecisionInvalid",
            "'7' is not a child's key",
        ),
        (Wait(Counter(), {"": Child("f")}), "ServiceDecisionInvalid", "'' is not a child's key"),
        (Wait(Counter(), {"\0": Child("f")}), "ServiceDecisionInvalid", "is not a child's key"),
        (Wait(Counter(), {"x" * 201: Child("f")}), "ServiceDecisionInvalid", "1 to 200 characters"),
        (Wait(Counter(), until=WRONG), "ServiceDecisionInvalid", "until is 7"),
        (Wait(Counter(), progress=1.5), "ServiceDecisionInvalid", "progress is 1.5"),
        (Wait(Counter(), progress=float("nan")), "ServiceDecisionInvalid", "progress is nan"),
        (Wait(Counter(), wake_at=NAIVE), "ServiceDecisionInvalid", "wake_at has no time zone"),
        (
            Wait(Counter(), {str(n): Child("f") for n in range(3)}),
            "ServiceLimitExceeded",
            "it asks for 3 children of one iteration, more than the limit of 2 (setting "
            "service_children_per_iteration)",
        ),
    ],
)
def test_what_is_no_decision_is_refused(step: object, error_type: str, message: str) -> None:
    with pytest.raises(ServiceFault) as caught:
        decision(step)
    assert caught.value.error_type == error_type
    assert message in str(caught.value)


def test_limits_count_what_was_decided_before() -> None:
    with pytest.raises(
        ServiceFault, match=r"4 children, more than the limit of 3 \(setting service_c"
    ):
        decision(Wait(Counter(), {"a": Child("f")}), n_children=3)
    with pytest.raises(
        ServiceFault, match=r"5 iterations, more than the limit of 4 \(setting service_iter"
    ):
        decision(Wait(Counter()), n_iterations=4)


def test_keys_of_new_children_are_new_and_those_of_old_ones_are_known() -> None:
    require_keys(["c"], ["a"], {"a": 1, "b": 2})
    with pytest.raises(ServiceFault, match="older child already has the key 'a'"):
        require_keys(["a"], [], {"a": 1})
    with pytest.raises(ServiceFault, match="no older child with the key 'b'"):
        require_keys([], ["b"], {"a": 1})
