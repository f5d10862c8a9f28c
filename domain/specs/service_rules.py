"""The rules for services: what a decision may be, and the outcome of one that cannot go on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from ..records.propagation import REMEDIES
from ..records.status import Status
from .service import Broken, Done, Service, Step, Wait

CHILD_ERROR: Final = "ChildError"
CHILD_UNAVAILABLE: Final = "ChildUnavailable"
DECISION_INVALID: Final = "ServiceDecisionInvalid"
LIMIT_EXCEEDED: Final = "ServiceLimitExceeded"
NOT_INSTALLED: Final = "ServiceNotInstalled"
SPEC_INVALID: Final = "ServiceSpecInvalid"
STATE_INVALID: Final = "ServiceStateInvalid"
VERSION_MISMATCH: Final = "ServiceVersionMismatch"

KEY_CHARACTERS_MAX: Final = 200
_NAMED_MAX: Final = 5


class ChildStanding(Enum):
    """What a service can expect of a child."""

    open = auto()
    complete = auto()
    troubled = auto()


_STANDINGS: Final[Mapping[Status, ChildStanding]] = {
    Status.waiting: ChildStanding.open,
    Status.running: ChildStanding.open,
    Status.held: ChildStanding.open,
    Status.complete: ChildStanding.complete,
    Status.error: ChildStanding.troubled,
    Status.failed: ChildStanding.troubled,
    Status.cancelled: ChildStanding.troubled,
    Status.deleted: ChildStanding.troubled,
    Status.invalid: ChildStanding.troubled,
}


def standing_of(status: Status | None) -> ChildStanding:
    """Return what can be expected of a record; of one that is not there yet, everything."""
    return ChildStanding.open if status is None else _STANDINGS[status]


class ServiceFault(Exception):
    """The service cannot go on: its record becomes an error of this type.

    Attributes:
        error_type: as people see it in the record.
        cause: the child because of which it is so.
    """

    def __init__(self, error_type: str, message: str, cause: int | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.cause = cause


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """How much a service may ask for. It becomes the error `ServiceLimitExceeded` beyond it.

    Attributes:
        children_per_iteration: new children of one decision.
        children: children altogether.
        depth: services above each other: one that no service asked for has depth 1.
        iterations: decisions altogether.
        bytes: of a state, a result, or a child's specification.
    """

    children_per_iteration: int = 10_000
    children: int = 100_000
    depth: int = 20
    iterations: int = 10_000
    bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Awaited:
    """A child that a service waits for, as it is now."""

    key: str
    record_id: int
    status: Status
    error_type: str | None = None
    error_message: str | None = None

    def __str__(self) -> str:
        """Return the description for people."""
        said = f" ({self.error_type}: {self.error_message})" if self.error_type else ""
        status = "in error" if self.status is Status.error else self.status
        return f"{self.key!r}, record {self.record_id}, is {status}{said}"


def require_children(awaited: Iterable[Awaited]) -> None:
    """Return if something can be expected of all children.

    Raises:
        Fault: it cannot, and the service has not said that it decides about that itself.
    """
    troubled = [each for each in awaited if standing_of(each.status) is ChildStanding.troubled]
    if not troubled:
        return
    lost = [each for each in troubled if each.status is not Status.error]
    first = (lost or troubled)[0]
    error_type = CHILD_UNAVAILABLE if lost else CHILD_ERROR
    raise ServiceFault(
        error_type, f"{_named(lost or troubled)}. {_remedy(lost or troubled)}", first.record_id
    )


def _named(children: Sequence[Awaited]) -> str:
    n_more = len(children) - _NAMED_MAX
    more = f"; and {n_more:,} more" if n_more > 0 else ""
    word = "child" if len(children) == 1 else "children"
    return f"{word} {'; '.join(map(str, children[:_NAMED_MAX]))}{more}"


def _remedy(children: Sequence[Awaited]) -> str:
    first = children[0]
    command = f"recordledger {REMEDIES[first.status]} {first.record_id}"
    return f"When they are complete after all, the service goes on by itself: {command}"


def require_version(service: type[Service[Any, Any]], state_version: str | None) -> None:
    """Return if a state that this version of a service made can be gone on with.

    Raises:
        Fault: it cannot.
    """
    known = {service.version, *service.continues}
    if state_version is None or state_version in known:
        return
    raise ServiceFault(
        VERSION_MISMATCH,
        f"its state was written by version {state_version} of {service.name}, which the installed "
        f"version {service.version} cannot continue; install a version that "
        "does and reset the record, or resubmit it to start from the beginning",
    )


def require_decision(
    step: object, state: type[Any], n_iterations: int, n_children: int, limits: ServiceLimits
) -> Step[Any]:
    """Return what a service has returned if it is a decision, and within the limits.

    What only the ledger knows (older keys, specifications, depth) is checked when it is stored.

    Args:
        step: what `start` or `advance` returned.
        state: what its state must be.
        n_iterations: decisions that were made before.
        n_children: children of all of them.
        limits: which count.

    Raises:
        Fault: it is not a decision, or exceeds a limit.
    """
    match step:
        case Done() | Broken():
            return step
        case Wait():
            if not isinstance(step.state, state):
                raise ServiceFault(
                    STATE_INVALID,
                    f"the returned state is a {type(step.state).__name__}, and must be a "
                    f"{state.__name__}",
                )
            _require_sound(step)
            _require_within(step, n_iterations, n_children, limits)
            return step
        case _:
            raise ServiceFault(
                DECISION_INVALID,
                f"it returned a {type(step).__name__}, and must return Wait, Done or Broken",
            )


def _require_sound(step: Wait[Any]) -> None:
    keys: list[object] = [*step.children, *step.awaited]
    for key in keys:
        if not isinstance(key, str) or not 0 < len(key) <= KEY_CHARACTERS_MAX or "\0" in key:
            raise ServiceFault(
                DECISION_INVALID,
                f"{str(key)[:120]!r} is not a child's key: it must be a string of 1 to "
                f"{KEY_CHARACTERS_MAX} characters",
            )
    until: object = step.until
    if until not in ("all", "any"):
        raise ServiceFault(DECISION_INVALID, f"until is {until!r}, and must be 'all' or 'any'")
    if step.progress is not None and not 0 <= step.progress <= 1:
        raise ServiceFault(
            DECISION_INVALID, f"progress is {step.progress}, and must be from 0 to 1"
        )
    if step.wake_at is not None and step.wake_at.tzinfo is None:
        raise ServiceFault(DECISION_INVALID, "wake_at has no time zone")


def _require_within(
    step: Wait[Any], n_iterations: int, n_children: int, limits: ServiceLimits
) -> None:
    n_new = len(step.children)
    for what, n, limit, setting in (
        ("children of one iteration", n_new, limits.children_per_iteration,
         "service_children_per_iteration"),
        ("children", n_children + n_new, limits.children, "service_children"),
        ("iterations", n_iterations + 1, limits.iterations, "service_iterations"),
    ):  # fmt: skip
        require_limit(what, n, limit, setting)


def require_limit(what: str, n: int, limit: int, setting: str) -> None:
    """Return if a service stays within a limit.

    Raises:
        Fault: it does not.
    """
    if n > limit:
        raise ServiceFault(
            LIMIT_EXCEEDED,
            f"it asks for {n:,} {what}, more than the limit of {limit:,} (setting {setting})",
        )


def require_keys(
    step_keys: Collection[str], awaited: Collection[str], known: Collection[str]
) -> None:
    """Return if new keys are new and awaited ones are known.

    Raises:
        Fault: one is not.
    """
    for key in step_keys:
        if key in known:
            raise ServiceFault(DECISION_INVALID, f"an older child already has the key {key!r}")
    for key in awaited:
        if key not in known:
            raise ServiceFault(DECISION_INVALID, f"there is no older child with the key {key!r}")
