"""Why a record is where it is: why it waits, runs, or is gone, in words and as facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar, assert_never
from uuid import UUID

from ..errors import RecordNotFound
from ..records import events as e
from ..records.events import Event, Kind
from ..records.propagation import REMEDIES
from ..records.record import RecordAggregate
from ..records.status import Status
from ..specs.service_rules import CHILD_UNAVAILABLE, Awaited
from .breaker import NO_PROGRAM
from .lanes import WILDCARD, Lane
from .manager_state import ManagerState
from .matching import (
    Cause,
    Fit,
    Lack,
    ManagerSigns,
    claims_tag,
    fit,
    missing_requirements,
    obstacle,
    suspended_of,
)

NEAREST_MAX: Final = 5
BEFORE_MAX: Final = 1_000
CHILDREN_MAX: Final = 10_000
BLOCKING_MAX: Final = 3
_LISTED_MAX: Final = 10

AnyEvent = TypeVar("AnyEvent", bound=Event)


@dataclass(frozen=True, slots=True)
class Nearest:
    """A manager that can take the task, or would need least to be able to.

    Attributes:
        claims_tag: whether it claims the record's tag.
        lacks: what it lacks of the required programs.
        suspended_until: when the circuit breaker gives it a task of these programs again.
    """

    manager_id: int
    name: str
    state: ManagerState
    tags: tuple[str, ...]
    claims_tag: bool
    lacks: tuple[Lack, ...]
    suspended_until: datetime | None
    heartbeat_at: datetime | None

    def __str__(self) -> str:
        """Return how people call it."""
        return f"manager {self.manager_id} ({self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusExplanation:
    """Why a record is where it is. What does not apply is None or empty.

    Attributes:
        code: one for each reason.
        text: the reason in words.
        remedy: the command that would change it, if there is one.
        nearest: who can take it, or would need least to be able to; at most `NEAREST_MAX`.
        retry_at: when the pause before the next retry is over.
        claimed_tags: what the managers that are alive claim, if none of them claims its tag.
        n_able: how many managers can take it now.
        n_waiting: how many records of its tag and programs wait.
        n_before: how many of those are claimed before it; counted up to `BEFORE_MAX` + 1.
        manager_id: who runs it, or had the attempt that ended.
        started_at: of the attempt that runs.
        at, actor, reason, operation_id: of the event that brought it here.
        caused_by: the relative whose change brought this about.
        children: how many children of a service are in each status; of `CHILDREN_MAX` at most.
    """

    record_id: int
    status: Status | None
    code: Cause
    text: str
    remedy: str | None = None
    nearest: tuple[Nearest, ...] = ()
    retry_at: datetime | None = None
    retries: int | None = None
    retries_used: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    tag: str | None = None
    required_programs: tuple[str, ...] = ()
    claimed_tags: tuple[str, ...] = ()
    n_able: int | None = None
    n_waiting: int | None = None
    n_before: int | None = None
    manager_id: int | None = None
    attempt: int | None = None
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    at: datetime | None = None
    actor: str | None = None
    reason: str | None = None
    operation_id: UUID | None = None
    caused_by: int | None = None
    children: Mapping[Status, int] = field(default_factory=dict[Status, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What an explanation needs to know besides the record; what does not matter is left out.

    Attributes:
        now: by the database's clock.
        alive: the managers that are alive, for a task that waits.
        n_waiting, n_before: as in the explanation.
        holder: the manager of the attempt that runs.
        children: of a service.
        blocking: children that a service waits for, the most troublesome first; `BLOCKING_MAX`.
        error_message: what the newest error says; None if it was destroyed.
    """

    now: datetime
    alive: Sequence[ManagerSigns] = ()
    n_waiting: int = 0
    n_before: int = 0
    holder: ManagerSigns | None = None
    children: Mapping[Status, int] = field(default_factory=dict[Status, int])
    error_message: str | None = None
    blocking: Sequence[Awaited] = ()


def explain(
    record: RecordAggregate, history: Sequence[Event], now: Circumstances
) -> StatusExplanation:
    """Return why a record is where it is.

    Args:
        record: as it is after its history.
        history: all its events, oldest first; bare ones if it was erased.
        now: how things stand around it.

    Raises:
        RecordNotFound: it never was.
    """
    match record.status:
        case None if not history:
            raise RecordNotFound(record.id)
        case None:
            told = _past_action(record, Cause.erased, "erased", _newest(history, e.Erased))
            text = f"{told.text} Its payloads are destroyed; its events remain without content."
            return replace(told, text=text)
        case Status.waiting if record.kind is Kind.service:
            return _service_not_started(record, now)
        case Status.waiting if record.not_before is not None:
            return _pausing(record, record.not_before, history, now)
        case Status.waiting:
            return _waiting(record, now)
        case Status.running if record.kind is Kind.service:
            return _service_running(record, now)
        case Status.running:
            return _running(record, now)
        case Status.complete:
            return _complete(record, history)
        case Status.error:
            return _in_error(record, history, now)
        case Status.failed:
            return _past_action(record, Cause.failed, "declared failed", _newest(history, e.Failed))
        case Status.held:
            held = _newest(history, (e.Held, e.Imported))
            how = "held when it was imported" if isinstance(held, e.Imported) else "held"
            return _past_action(record, Cause.held, how, held)
        case Status.cancelled:
            ended = _newest(history, e.Cancelled)
            return _past_action(record, Cause.cancelled, "cancelled", ended)
        case Status.deleted:
            gone = _newest(history, e.SoftDeleted)
            return _past_action(record, Cause.deleted, "deleted", gone)
        case Status.invalid:
            denied = _newest(history, e.Invalidated)
            return _past_action(record, Cause.invalidated, "invalidated", denied)
        case _:  # pragma: no cover
            assert_never(record.status)


# Waiting


def _waiting(record: RecordAggregate, now: Circumstances) -> StatusExplanation:
    lane = Lane(record.tag, record.required_programs)
    fits = [(seen, fit(seen.manager, lane)) for seen in now.alive]
    cause = obstacle(lane, {found for _, found in fits})
    explained = StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=cause or Cause.in_queue,
        text="",
        tag=record.tag,
        required_programs=record.required_programs,
        n_able=sum(found is Fit.able for _, found in fits),
        n_waiting=now.n_waiting,
        n_before=now.n_before,
        retries_used=record.retries_used,
        retries=record.retry.retries,
    )

    def those(wanted: Fit) -> list[Nearest]:
        found = [_nearest(seen, lane) for seen, each in fits if each is wanted]
        return sorted(found, key=_distance)

    # The cause is the same for the whole lane; only the text is about this record.
    if cause is None:
        able = those(Fit.able)
        return replace(explained, text=_queued(able, now), nearest=tuple(able[:NEAREST_MAX]))
    if cause is Cause.no_manager:
        text = "No manager is alive, so nobody can take it until one registers."
        return replace(
            explained, text=text, remedy=f"recordledger manager --tag {_typed(lane.tag)}"
        )
    # Managers are alive, but none is able: `near` have the tag, `far` could run it with theirs.
    elsewhere = [each for each in those(Fit.other_tag) if _could_run(each)]
    match cause:
        case Cause.programs_suspended:
            near, far = those(Fit.suspended), elsewhere
            text = _suspended(near[0], lane, now)
        case Cause.managers_draining:
            near, far = those(Fit.draining), elsewhere
            text = (
                f"The managers that could take it are draining and claim nothing: {_named(near)}."
            )
        case Cause.programs_missing:
            near, far = those(Fit.lacking), elsewhere
            all_of = "all of " if len(lane.required_programs) > 1 else ""
            offer = f"No manager on tag {lane.tag} offers {all_of}{_listed(lane.required_programs)}"
            first = near[0]
            text = (
                f"{offer}; {far[0]} on tag {far[0].tags[0]} does."
                if far
                else f"{offer}; the nearest is {first}, which lacks {_listed(first.lacks)}."
            )
        case _:
            near, far = [], elsewhere
            tags = sorted({tag for seen in now.alive for tag in seen.manager.tags})
            explained = replace(explained, claimed_tags=tuple(tags))
            text = (
                f"No manager claims the tag {lane.tag}; those that are alive claim {_listed(tags)}."
            )
            if lane.tag == WILDCARD:
                text = (
                    "Its tag is *, which is for managers that list *, and there is none; those "
                    f"that are alive claim {_listed(tags)}."
                )
    # The text for missing programs has named the first of `far` already.
    if far and cause is not Cause.programs_missing:
        text += f" {str(far[0]).capitalize()} on tag {far[0].tags[0]} could run it."
    nearest = (*far[:1], *near, *far[1:])[:NEAREST_MAX]
    remedy = f"recordledger modify {record.id} --new-tag {far[0].tags[0]}" if far else None
    return replace(explained, text=text, nearest=nearest, remedy=remedy)


def _nearest(seen: ManagerSigns, lane: Lane) -> Nearest:
    manager = seen.manager
    suspended = suspended_of(manager, lane.required_programs)
    return Nearest(
        manager_id=manager.id,
        name=manager.name,
        state=manager.state or ManagerState.lost,
        tags=manager.tags,
        claims_tag=claims_tag(manager, lane.tag),
        lacks=missing_requirements(manager, lane.required_programs),
        suspended_until=max((manager.suspended[name].until for name in suspended), default=None),
        heartbeat_at=seen.heartbeat_at,
    )


def _could_run(each: Nearest) -> bool:
    is_free = each.state is ManagerState.active and each.suspended_until is None
    return is_free and not each.lacks


def _distance(each: Nearest) -> tuple[Any, ...]:
    until = each.suspended_until.timestamp() if each.suspended_until else 0.0
    heard = each.heartbeat_at.timestamp() if each.heartbeat_at else 0.0
    n_absent = sum(lack.is_absent for lack in each.lacks)
    is_leaving = each.state is not ManagerState.active
    return len(each.lacks), n_absent, is_leaving, until, -heard, each.manager_id


def _queued(able: Sequence[Nearest], now: Circumstances) -> str:
    if now.n_before > BEFORE_MAX:
        before = f"more than {BEFORE_MAX:,} tasks of the same tag and programs are before it"
    elif now.n_before:
        verb = "is" if now.n_before == 1 else "are"
        before = f"{_counted(now.n_before, 'task')} of the same tag and programs {verb} before it"
    else:
        before = "no task of the same tag and programs is before it"
    heard = f", last heartbeat at {_moment(able[0].heartbeat_at)}" if able[0].heartbeat_at else ""
    who = f"{_counted(len(able), 'manager')} can take it: {_named(able)}"
    return f"It is in the queue, and {before}. {who}{heard}."


def _suspended(first: Nearest, lane: Lane, now: Circumstances) -> str:
    manager = next(seen.manager for seen in now.alive if seen.manager.id == first.manager_id)
    suspended = suspended_of(manager, lane.required_programs)
    program = max(suspended, key=lambda name: manager.suspended[name].until)
    found = manager.suspended[program]
    what = "tasks without programs" if program == NO_PROGRAM else f"tasks of {program}"
    until = f"it gets no {what} until {_moment(found.until)}"
    if found.until <= now.now:
        until = f"with its next claim it gets one of the {what} to try"
    return (
        "The circuit breaker keeps it from every manager that could take it. The first to try "
        f"again is {first}: {until}, after {_counted(found.n_failures, 'failure')} in a row, the "
        f"last by {found.error_type}."
    )


def _pausing(
    record: RecordAggregate, until: datetime, history: Sequence[Event], now: Circumstances
) -> StatusExplanation:
    errored = _newest(history, e.Errored)
    error = _error(errored.outcome.error_type, now.error_message)
    is_over = until <= now.now
    text = (
        f"It pauses until {_moment(until)} before retry {record.retries_used} of "
        f"{record.retry.retries}, after {error} in attempt {errored.attempt}."
    )
    if is_over:
        text += " That is over: the server's own job `retries` lets it be claimed."
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=Cause.retry_pause,
        text=text,
        retry_at=until,
        retries=record.retry.retries,
        retries_used=record.retries_used,
        error_type=errored.outcome.error_type,
        error_message=now.error_message,
        attempt=errored.attempt,
        at=errored.timestamp,
    )


def _service_not_started(record: RecordAggregate, now: Circumstances) -> StatusExplanation:
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=Cause.service_not_started,
        text=f"It is a service, and waits for the service runner.{_children(now.children)}",
        children=now.children,
    )


# Running


def _running(record: RecordAggregate, now: Circumstances) -> StatusExplanation:
    holder = now.holder
    explained = StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=Cause.running,
        text="",
        manager_id=record.manager_id,
        attempt=record.attempt,
        started_at=record.started_at,
        heartbeat_at=holder and holder.heartbeat_at,
        lease_expires_at=holder and holder.lease_expires_at,
    )
    name = f" ({holder.manager.name})" if holder else ""
    text = (
        f"Manager {record.manager_id}{name} has had it since {_moment(record.started_at)}, as "
        f"attempt {record.attempt}."
    )
    lease = explained.lease_expires_at
    if lease is None:
        return replace(explained, text=text)
    heard = f"{text} Its last heartbeat was at {_moment(explained.heartbeat_at)}"
    if lease > now.now:
        return replace(explained, text=f"{heard}; its lease runs until {_moment(lease)}.")
    silent = (
        f"{heard}, and its lease ran out at {_moment(lease)}: the server's own job "
        "`lease-reaper` gives the task back."
    )
    return replace(explained, code=Cause.lease_over, text=silent)


def _service_running(record: RecordAggregate, now: Circumstances) -> StatusExplanation:
    n_open = now.children.get(Status.waiting, 0) + now.children.get(Status.running, 0)
    awaited = "its children" if n_open else "the service runner"
    text = (
        f"It is a service in iteration {record.iteration}, started at "
        f"{_moment(record.started_at)}, and waits for {awaited}.{_children(now.children)}"
    )
    if now.blocking:
        text += f" It waits for, among others: {'; '.join(map(str, now.blocking))}."
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=Cause.service_running,
        text=text,
        remedy=_remedy_of(now),
        attempt=record.attempt,
        started_at=record.started_at,
        children=now.children,
    )


def _remedy_of(now: Circumstances) -> str | None:
    """Return the command that would let a service's first child go on; None if nothing is to do."""
    for child in now.blocking[:1]:
        return _remedy(child.record_id, child.status)
    return None


def _remedy(record_id: int, status: Status | None) -> str | None:
    """Return the command that would bring a record out of a status; None if none would."""
    action = None if status is None else REMEDIES.get(status)
    return action and f"recordledger {action} {record_id}"


def _children(children: Mapping[Status, int]) -> str:
    if not children:
        return ""
    known = ", ".join(f"{n:,} {status}" for status, n in children.items() if n)
    more = " or more" if sum(children.values()) >= CHILDREN_MAX else ""
    return f" Children: {known}{more}."


# Ended


def _complete(record: RecordAggregate, history: Sequence[Event]) -> StatusExplanation:
    event = next(
        event for event in reversed(history) if isinstance(event, e.Completed | e.ResultAdopted)
    )
    if isinstance(event, e.ResultAdopted):
        what = f"complete by the late result of attempt {event.attempt}, which was adopted"
        told = _past_action(record, Cause.result_adopted, what, event)
        return replace(told, text=told.text.replace("It was", "It is", 1), attempt=event.attempt)
    who = "The service" if record.manager_id is None else f"Manager {record.manager_id}"
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=Cause.completed,
        text=f"{who} completed attempt {event.attempt} at {_moment(event.timestamp)}.",
        manager_id=record.manager_id,
        attempt=event.attempt,
        at=event.timestamp,
        actor=event.actor,
        operation_id=event.operation_id,
    )


def _in_error(
    record: RecordAggregate, history: Sequence[Event], now: Circumstances
) -> StatusExplanation:
    event = _newest(history, e.Errored)
    error_type = event.outcome.error_type or ""
    retry, n_used = record.retry, record.retries_used
    remedy = _remedy(record.id, record.status)
    if record.kind is Kind.service:
        code, because = Cause.service_error, "Services are not retried by themselves."
        if error_type == CHILD_UNAVAILABLE:
            remedy = _remedy_of(now) or remedy
    elif retry.retries == 0:
        code, because = Cause.no_retries, "It was submitted without retries."
    elif not retry.qualifies(error_type):
        code = Cause.error_not_retried
        rule = (
            f"retry_on is {_listed(retry.on)}"
            if retry.on
            else "another attempt would fail in the same way"
        )
        because = f"Errors of this type are not retried: {rule}."
    else:
        code = Cause.retries_used_up
        because = f"It has had {n_used} of {_counted(retry.retries, 'retry')}."
    ended = f"{_error(error_type, now.error_message)} ended attempt {event.attempt}"
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=code,
        text=f"{ended} at {_moment(event.timestamp)}. {because}",
        remedy=remedy,
        error_type=error_type,
        error_message=now.error_message,
        retries=retry.retries,
        retries_used=n_used,
        manager_id=record.manager_id,
        attempt=event.attempt,
        at=event.timestamp,
        actor=event.actor,
        operation_id=event.operation_id,
    )


def _past_action(
    record: RecordAggregate, code: Cause, done: str, event: Event
) -> StatusExplanation:
    """Return who has brought a record here, and what would bring it back."""
    because = "" if event.cause is None else f", because of record {event.cause}"
    reason = "" if event.reason is None else f": {event.reason}"
    remedy = _remedy(record.id, record.status)
    if remedy and event.cause is not None:
        # The opposite of what was done to the relative, for all whom it has changed.
        remedy = f"recordledger undo {event.operation_id}"
    end = "" if reason.endswith((".", "!", "?")) else "."
    when = _moment(event.timestamp)
    return StatusExplanation(
        record_id=record.id,
        status=record.status,
        code=code,
        text=f"It was {done} by {event.actor} at {when}{because}{reason}{end}",
        remedy=remedy,
        at=event.timestamp,
        actor=event.actor,
        reason=event.reason,
        operation_id=event.operation_id,
        caused_by=event.cause,
    )


# Words


def _newest(
    history: Sequence[Event], kind: type[AnyEvent] | tuple[type[AnyEvent], ...]
) -> AnyEvent:
    return next(event for event in reversed(history) if isinstance(event, kind))


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _error(error_type: str | None, message: str | None) -> str:
    return f"{error_type}: {message}" if message else f"{error_type}"


def _counted(n: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def _listed(things: Sequence[object], n_max: int = _LISTED_MAX) -> str:
    more = len(things) - n_max
    return ", ".join(map(str, things[:n_max])) + (f" and {more:,} more" if more > 0 else "")


def _named(found: Sequence[Nearest]) -> str:
    return _listed(found, NEAREST_MAX)


def _typed(tag: str) -> str:
    return "'*'" if tag == WILDCARD else tag
