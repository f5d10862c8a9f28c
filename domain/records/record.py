"""A record: its state, how an event changes it, and what a command may cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, assert_never

from ..errors import (
    ImpossibleHistory,
    NotYourAttempt,
    RecordNotFound,
    RetryNotDue,
    TransitionForbidden,
    WrongKind,
)
from . import events as e
from .actions import Action
from .commands import (
    Change,
    Claim,
    Create,
    EndRetryPause,
    ExpireLease,
    FinishService,
    IterateService,
    LoseManager,
    RecordCommand,
    Relinquish,
    Return,
    StartService,
)
from .events import EVENT_OF, Event, Kind, Outcome, Payload, Priority, Stamp
from .policies import ADOPT_LATE_RESULTS, AUTO_RESET
from .retries import NO_RETRY, Retry
from .status import Status
from .transitions import ENDS, REVERTIBLE, TRANSITIONS, Destination, remembered, sources

RETRY_POLICY: Final = "policy:retry"


@dataclass(frozen=True, slots=True)
class RecordAggregate:
    """The state of one record, folded from its history.

    Attributes:
        version: number of its events; 0 for a record that does not exist yet.
        status: None before `Created` and after `Erased`.
        prior: what it was before each cancellation or deletion that still holds, oldest first.
        attempt: number of the newest attempt; 0 before the first claim.
        manager_id: who has the running attempt, or had the one that was accepted.
        started_at, finished_at: of the newest attempt.
        outcome: of the last accepted attempt; None again after a reset.
        retry: what its submitter wants done about errors; `retries_used` retries were made.
        not_before: until when it may not be claimed, while the pause before a retry lasts.
    """

    id: int
    version: int = 0
    status: Status | None = None
    prior: tuple[Status, ...] = ()
    kind: Kind = Kind.task
    spec: Payload | None = None
    function: str = ""
    required_programs: tuple[str, ...] = ()
    tag: str = ""
    priority: Priority = Priority.normal
    owner: str = ""
    created_at: datetime | None = None
    modified_at: datetime | None = None
    attempt: int = 0
    manager_id: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    retry: Retry = NO_RETRY
    retries_used: int = 0
    not_before: datetime | None = None
    iteration: int = 0
    service_state: Payload | None = None

    @property
    def exists(self) -> bool:
        """Whether the record was created and not erased."""
        return self.status is not None

    @property
    def claimable(self) -> bool:
        """Whether a manager may take it: these, and only these, stand in the claim queue."""
        return self.status is Status.waiting and self.kind is Kind.task and self.not_before is None


def fold(record_id: int, history: Iterable[Event]) -> RecordAggregate:
    """Return the state of a record after its whole history, oldest event first.

    It is what `evolve` makes of it, event by event, in half the time: nobody else has this record
    before it is returned, so it is changed in place.

    Raises:
        ImpossibleHistory: as `evolve` does.
    """
    record = RecordAggregate(record_id)
    for event in history:
        for name, value in changed_fields(record, event).items():
            object.__setattr__(record, name, value)
    return record


def evolve(record: RecordAggregate, event: Event) -> RecordAggregate:
    """Return the record after the event. It applies what has happened, and judges nothing.

    Raises:
        ImpossibleHistory: the transition table does not have this event in this status, so the
            log was damaged or rewritten.
    """
    return replace(record, **changed_fields(record, event))


def changed_fields(record: RecordAggregate, event: Event) -> dict[str, Any]:
    """Return the new values of those fields of a record that an event changes.

    Raises:
        ImpossibleHistory: as `evolve` does.
    """
    changes = _status_after(record, event)
    changes["version"] = record.version + 1
    changes["modified_at"] = event.timestamp
    if event.ends_pause:
        changes["not_before"] = None
    # Status, version and pause are those after the event; what follows is the event's own part.
    match event:
        case e.Created():
            changes |= {
                "kind": event.kind,
                "spec": event.spec,
                "function": event.function,
                "required_programs": event.required_programs,
                "tag": event.tag,
                "priority": event.priority,
                "owner": event.actor,
                "created_at": event.timestamp,
                "retry": Retry(event.retries, event.retry_delay_s or 0.0, event.retry_on or ()),
            }
        case e.Claimed(attempt=attempt, manager_id=manager_id):
            changes |= _started(event, attempt, manager_id)
        case e.ServiceStarted(attempt=attempt):
            changes |= _started(event, attempt, None)
        case e.Completed(outcome=outcome) | e.Errored(outcome=outcome):
            changes |= {"outcome": outcome, "finished_at": event.timestamp}
        case e.ResultAdopted(outcome=outcome):
            changes |= {"outcome": outcome, "finished_at": event.timestamp, "manager_id": None}
        case e.Reset(retry=retry, not_before=not_before):
            changes |= {"outcome": None, "manager_id": None, "finished_at": None}
            changes |= {"retries_used": retry or 0, "not_before": not_before}
        case e.Revived():
            changes |= {"outcome": None, "manager_id": None, "finished_at": None, "retries_used": 0}
        case e.ServiceIterated(iteration=iteration, state=state):
            changes |= {"iteration": iteration, "service_state": state}
        case e.Reverted():
            changes |= {
                "outcome": event.outcome,
                "manager_id": event.manager_id,
                "finished_at": event.finished_at,
                "retries_used": event.retries_used,
            }
        case e.Rerouted(tag=tag, priority=priority):
            changes["tag"] = record.tag if tag is None else tag
            changes["priority"] = record.priority if priority is None else priority
        case _ if record.status is Status.running and type(event) in ENDS:
            # No manager has the attempt any longer, and it has no outcome.
            changes["manager_id"] = None
        case _:
            pass
    return changes


def decide(record: RecordAggregate, command: RecordCommand) -> list[Event]:
    """Return the events that the command causes; none if what it wants is already so.

    Raises:
        CommandRefused: one of its kinds; the rules do not allow it, and nothing changes.
    """
    if isinstance(command, Change):
        _require(record, type(command.event))
        return [command.event]
    # What is left needs more than its event: fields of the command, or a check of the state.
    common = _common(command.stamp)
    match command:
        case Create():
            _require(record, e.Created)
            common["cause"] = command.cause
            return [
                e.Created(
                    kind=command.kind,
                    spec=command.spec,
                    function=command.function,
                    required_programs=command.required_programs,
                    tag=command.tag,
                    priority=command.priority,
                    retries=command.retry.retries,
                    retry_delay_s=command.retry.delay_s or None,
                    retry_on=command.retry.on or None,
                    resubmission_of=command.resubmission_of,
                    refers_to=command.refers_to or None,
                    **common,
                )
            ]
        case Claim():
            _require(record, e.Claimed)
            if record.not_before is not None:
                raise RetryNotDue(record.id, record.not_before)
            return [
                e.Claimed(
                    attempt=record.attempt + 1,
                    manager_id=command.manager_id,
                    lease_expires_at=command.lease_expires_at,
                    **common,
                )
            ]
        case Return():
            return _decide_return(record, command, common)
        # The attempt may have ended meanwhile; then there is nothing to give back, lose or expire.
        case Relinquish(manager_id=manager_id, attempt=attempt):
            if not is_current(record, manager_id, attempt):
                return []
            return [e.Relinquished(attempt=attempt, manager_id=manager_id, **common)]
        case LoseManager(manager_id=manager_id):
            if not is_current(record, manager_id, record.attempt):
                return []
            return [e.ManagerLost(attempt=record.attempt, manager_id=manager_id, **common)]
        case ExpireLease(attempt=attempt):
            if record.status is not Status.running or record.attempt != attempt:
                return []
            return [e.LeaseExpired(attempt=attempt, **common)]
        case EndRetryPause(stamp=stamp):
            due = record.not_before is not None and record.not_before <= stamp.timestamp
            return [e.RetryDue(**common)] if due and record.status is Status.waiting else []
        case StartService(runner=runner):
            _require(record, e.ServiceStarted)
            return [e.ServiceStarted(attempt=record.attempt + 1, runner=runner, **common)]
        case IterateService():
            _require(record, e.ServiceIterated)
            return [
                e.ServiceIterated(
                    iteration=record.iteration + 1,
                    state=command.state,
                    children=command.children,
                    output=command.output,
                    keys=command.keys,
                    awaits=command.awaits,
                    any_child=command.any_child,
                    takes_errors=command.takes_errors,
                    wake_at=command.wake_at,
                    progress=command.progress,
                    code_version=command.code_version,
                    **common,
                )
            ]
        case FinishService(outcome=outcome, cause=cause):
            _require(record, e.Completed)
            # A running task may complete too, but only by a manager's return.
            if record.kind is not Kind.service:
                raise WrongKind(e.Completed.topic, record.kind)
            ended = e.Completed if outcome.error_type is None else e.Errored
            common["cause"] = cause
            return [ended(attempt=record.attempt, outcome=outcome, **common)]
        case _:  # pragma: no cover
            assert_never(command)


def is_current(record: RecordAggregate, manager_id: int, attempt: int) -> bool:
    """Return whether this manager has this attempt now; the fence that stale work stops at."""
    return (
        record.status is Status.running
        and record.attempt == attempt
        and record.manager_id == manager_id
    )


def _decide_return(record: RecordAggregate, command: Return, common: dict[str, Any]) -> list[Event]:
    outcome, attempt = command.outcome, command.attempt
    if is_current(record, command.manager_id, attempt):
        if outcome.error_type is None:
            return [e.Completed(attempt=attempt, outcome=outcome, **common)]
        errored = e.Errored(attempt=attempt, outcome=outcome, **common)
        reset = _automatic_reset(record, command, outcome.error_type, common)
        return [errored] if reset is None else [errored, reset]
    if not record.exists:
        raise RecordNotFound(record.id)
    past = command.past
    if past is None or past.manager_id != command.manager_id:
        raise NotYourAttempt(record.id, attempt, command.manager_id)
    if past.outcome is not None:
        return []
    late: Event = e.LateResult(
        attempt=attempt, manager_id=command.manager_id, outcome=outcome, **common
    )
    adoptable = (record.status, e.ResultAdopted) in TRANSITIONS and outcome.error_type is None
    if not (command.adopt_late and adoptable):
        return [late]
    by_policy: dict[str, Any] = common | {"actor": ADOPT_LATE_RESULTS, "action": "adopt"}
    return [late, e.ResultAdopted(attempt=attempt, outcome=outcome, **by_policy)]


def _automatic_reset(
    record: RecordAggregate, command: Return, error_type: str, common: dict[str, Any]
) -> Event | None:
    """Return the reset that follows on an error by itself; None if none does."""
    number = record.retries_used + 1
    automatic: dict[str, Any] = {"reason": f"{error_type} in attempt={command.attempt}"}
    if number <= record.retry.retries and record.retry.qualifies(error_type):
        pause = record.retry.pause(number)
        automatic["actor"] = RETRY_POLICY
        automatic["not_before"] = command.stamp.timestamp + pause if pause else None
    elif number <= command.auto_resets:
        automatic |= {"actor": AUTO_RESET, "action": "reset"}
    else:
        return None
    return e.Reset(retry=number, **(common | automatic))


def inverse(before: RecordAggregate, event: Event, stamp: Stamp, cause: int | None) -> Event | None:
    """Return the event that takes back what `event` did to a record that was `before`.

    Returns:
        None if nothing can: what was said, computed or destroyed stays so.
    """
    common: dict[str, Any] = {**_common(stamp), "cause": cause}
    opposite = _OPPOSITES.get(type(event))
    if opposite is not None:
        return opposite(**common)
    match event:
        case e.Rerouted():
            return e.Rerouted(tag=before.tag, priority=before.priority, **common)
        case e.Reset() | e.Failed() | e.Revived() | e.ResultAdopted() | e.Reverted():
            assert before.status is not None  # noqa: S101 - these happen to what exists
            lost = before.status is Status.running
            return e.Reverted(
                status=remembered(before.status),
                outcome=before.outcome,
                manager_id=None if lost else before.manager_id,
                finished_at=before.finished_at,
                retries_used=before.retries_used,
                **common,
            )
        case _:
            return None


_OPPOSITES: Final[Mapping[type[Event], type[Event]]] = {
    event: EVENT_OF[Action[action.row.opposite]]
    for action, event in EVENT_OF.items()
    if action.row.opposite is not None
}


def _common(stamp: Stamp) -> dict[str, Any]:
    return {
        "timestamp": stamp.timestamp,
        "actor": stamp.actor,
        "operation_id": stamp.operation_id,
        "reason": stamp.reason,
        "action": stamp.action,
        "undoes": stamp.undoes,
    }


def _require(record: RecordAggregate, event_type: type[Event]) -> None:
    """Refuse what the transition table does not list."""
    if not record.exists and (record.version or event_type is not e.Created):
        raise RecordNotFound(record.id)
    if (record.status, event_type) not in TRANSITIONS:
        allowed = tuple(str(source) for source in sources(event_type) if source is not None)
        raise TransitionForbidden(event_type.topic, str(record.status), allowed)
    if event_type.only not in (None, record.kind):
        raise WrongKind(event_type.topic, record.kind)


def _started(event: Event, attempt: int, manager_id: int | None) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "manager_id": manager_id,
        "started_at": event.timestamp,
        "finished_at": None,
    }


def _status_after(record: RecordAggregate, event: Event) -> dict[str, Any]:
    event_type = type(event)
    target = TRANSITIONS.get((record.status, event_type))
    if target is None or (record.status is None and record.version):
        raise ImpossibleHistory(
            f"record {record.id}",
            record.version + 1,
            f"{event.topic} cannot happen to a record that is {record.status or 'not there'}",
        )
    if event.only not in (None, record.kind):
        raise ImpossibleHistory(
            f"record {record.id}",
            record.version + 1,
            f"{event.topic} cannot happen to a {record.kind} record",
        )
    match target:
        case Status():
            if event.remembers and record.status is not None:
                return {"status": target, "prior": (*record.prior, remembered(record.status))}
            return {"status": target}
        case Destination.unchanged:
            return {}
        case Destination.gone:
            return {"status": None, "manager_id": None}
        case Destination.stated:
            return {"status": _stated(record, event)}
        case Destination.prior:
            return {"status": record.prior[-1], "prior": record.prior[:-1]}
        case _:  # pragma: no cover
            assert_never(target)


def _stated(record: RecordAggregate, event: Event) -> Status:
    assert isinstance(event, e.Reverted)  # noqa: S101 - no other event leads to what it states
    if event.status not in REVERTIBLE:
        raise ImpossibleHistory(
            f"record {record.id}",
            record.version + 1,
            f"{event.topic} cannot lead to {event.status!r}",
        )
    return Status(event.status)
