"""Examples of everything: builders that fill in what does not matter, and given / when / then.

>>> given(created(), claimed(manager_id=7)).status
<Status.running: 'running'>
>>> _ = given(created()).when(claim(manager_id=7)).then(claimed(manager_id=7))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypedDict, Unpack
from uuid import UUID

from recordledger.domain.errors import CommandRefused
from recordledger.domain.records import events as e
from recordledger.domain.records.attempts import Attempt, attempts
from recordledger.domain.records.commands import (
    Claim,
    Create,
    ExpireLease,
    FinishService,
    IterateService,
    LoseManager,
    RecordCommand,
    Relinquish,
    Return,
    StartService,
)
from recordledger.domain.records.events import Event, Kind, Outcome, Payload, Priority, Stamp
from recordledger.domain.records.record import RETRY_POLICY, RecordAggregate, decide, fold
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from recordledger.domain.specs.fingerprint import digest_of

RECORD_ID: Final = 411
T0: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATION_ID: Final = UUID(int=1)
LEASE_S: Final = 120


class Said(TypedDict, total=False):
    """What every event says; each has a default in the examples."""

    timestamp: datetime
    actor: str
    operation_id: UUID
    reason: str | None
    action: str | None
    cause: int | None
    undoes: UUID | None


def _said(said: Said) -> dict[str, Any]:
    return {"timestamp": T0, "actor": "alice", "operation_id": OPERATION_ID} | dict(said)


def at(seconds: float) -> datetime:
    """Return the moment so many seconds after the examples begin."""
    return T0 + timedelta(seconds=seconds)


def stamp(**said: Unpack[Said]) -> Stamp:
    """Return a stamp that agrees with the events of the builders."""
    return Stamp(**_said(said))


def payload(content: bytes | str = b"{}") -> Payload:
    """Return the reference to some bytes."""
    data = content.encode() if isinstance(content, str) else content
    return Payload(digest=digest_of(data), size_bytes=len(data))


def success(result: str = "-76.4") -> Outcome:
    """Return what a good attempt hands in."""
    return Outcome(result=payload(result), compute_s=1.5)


def failure(error_type: str = "ValueError", message: str = "no convergence") -> Outcome:
    """Return what a bad attempt hands in."""
    return Outcome(
        error_type=error_type, error_message=payload(message), traceback=payload("Traceback")
    )


def created(
    *,
    kind: Kind = Kind.task,
    spec: Payload | None = None,
    function: str = "psi4",
    required_programs: tuple[str, ...] = ("psi4",),
    tag: str = "gpu",
    priority: Priority = Priority.normal,
    retries: int = 0,
    retry_delay_s: float = 0.0,
    retry_on: tuple[str, ...] = (),
    resubmission_of: int | None = None,
    **said: Unpack[Said],
) -> e.Created:
    """Return the event that makes a record."""
    return e.Created(
        kind=kind,
        spec=spec or payload(),
        function=function,
        required_programs=required_programs,
        tag=tag,
        priority=priority,
        retries=retries,
        retry_delay_s=retry_delay_s or None,
        retry_on=retry_on or None,
        resubmission_of=resubmission_of,
        **_said(said),
    )


def claimed(
    manager_id: int = 1,
    *,
    attempt: int = 1,
    lease_expires_at: datetime | None = None,
    **said: Unpack[Said],
) -> e.Claimed:
    """Return the event of a claim."""
    common = _said(said)
    expiry = lease_expires_at or common["timestamp"] + timedelta(seconds=LEASE_S)
    return e.Claimed(attempt=attempt, manager_id=manager_id, lease_expires_at=expiry, **common)


def service_started(
    *, attempt: int = 1, runner: str = "runner", **said: Unpack[Said]
) -> e.ServiceStarted:
    """Return the event of a service that begins or goes on."""
    return e.ServiceStarted(attempt=attempt, runner=runner, **_said(said))


def service_iterated(
    *,
    iteration: int = 1,
    state: Payload | None = None,
    children: tuple[int, ...] = (),
    output: Payload | None = None,
    **said: Unpack[Said],
) -> e.ServiceIterated:
    """Return the event of one iteration."""
    return e.ServiceIterated(
        iteration=iteration,
        state=state or payload("state"),
        children=children,
        output=output,
        **_said(said),
    )


def completed(
    *, attempt: int = 1, outcome: Outcome | None = None, **said: Unpack[Said]
) -> e.Completed:
    """Return the event of a good result."""
    return e.Completed(attempt=attempt, outcome=outcome or success(), **_said(said))


def errored(*, attempt: int = 1, outcome: Outcome | None = None, **said: Unpack[Said]) -> e.Errored:
    """Return the event of a bad result."""
    return e.Errored(attempt=attempt, outcome=outcome or failure(), **_said(said))


def late_result(
    manager_id: int = 1,
    *,
    attempt: int = 1,
    outcome: Outcome | None = None,
    **said: Unpack[Said],
) -> e.LateResult:
    """Return the event of a result that came when its attempt was over."""
    return e.LateResult(
        attempt=attempt, manager_id=manager_id, outcome=outcome or success(), **_said(said)
    )


def result_adopted(
    *, attempt: int = 1, outcome: Outcome | None = None, **said: Unpack[Said]
) -> e.ResultAdopted:
    """Return the event of a late result that was taken after all."""
    return e.ResultAdopted(attempt=attempt, outcome=outcome or success(), **_said(said))


def lease_expired(*, attempt: int = 1, **said: Unpack[Said]) -> e.LeaseExpired:
    """Return the event of a lease that ran out."""
    return e.LeaseExpired(attempt=attempt, **_said(said))


def manager_lost(manager_id: int = 1, *, attempt: int = 1, **said: Unpack[Said]) -> e.ManagerLost:
    """Return the event of an attempt whose manager fell silent."""
    return e.ManagerLost(attempt=attempt, manager_id=manager_id, **_said(said))


def relinquished(manager_id: int = 1, *, attempt: int = 1, **said: Unpack[Said]) -> e.Relinquished:
    """Return the event of an attempt given back."""
    return e.Relinquished(attempt=attempt, manager_id=manager_id, **_said(said))


def reset(
    *, retry: int | None = None, not_before: datetime | None = None, **said: Unpack[Said]
) -> e.Reset:
    """Return the event of a reset by a person, or with `retry` by a policy."""
    return e.Reset(retry=retry, not_before=not_before, **_said(said))


def retried(
    retry: int,
    *,
    attempt: int,
    error_type: str = "ValueError",
    not_before: datetime | None = None,
) -> e.Reset:
    """Return the reset that the retry policy adds to the error of this attempt."""
    reason = f"{error_type} in attempt={attempt}"
    return reset(retry=retry, not_before=not_before, actor=RETRY_POLICY, reason=reason)


def retry_due(**said: Unpack[Said]) -> e.RetryDue:
    """Return the event that the pause before a retry is over."""
    return e.RetryDue(**_said(said))


def failed(**said: Unpack[Said]) -> e.Failed:
    """Return the event of an error that is final."""
    return e.Failed(**_said(said))


def revived(**said: Unpack[Said]) -> e.Revived:
    """Return the event of a failed record that waits again."""
    return e.Revived(**_said(said))


def held(**said: Unpack[Said]) -> e.Held:
    """Return the event of a hold."""
    return e.Held(**_said(said))


def released(**said: Unpack[Said]) -> e.Released:
    """Return the event of a hold's end."""
    return e.Released(**_said(said))


def cancelled(**said: Unpack[Said]) -> e.Cancelled:
    """Return the event of a cancellation."""
    return e.Cancelled(**_said(said))


def uncancelled(**said: Unpack[Said]) -> e.Uncancelled:
    """Return the event of a cancellation undone."""
    return e.Uncancelled(**_said(said))


def invalidated(**said: Unpack[Said]) -> e.Invalidated:
    """Return the event of a result that must not be used."""
    return e.Invalidated(**_said(said))


def uninvalidated(**said: Unpack[Said]) -> e.Uninvalidated:
    """Return the event of a result that may be used again."""
    return e.Uninvalidated(**_said(said))


def soft_deleted(**said: Unpack[Said]) -> e.SoftDeleted:
    """Return the event of a soft deletion."""
    return e.SoftDeleted(**_said(said))


def undeleted(**said: Unpack[Said]) -> e.Undeleted:
    """Return the event of a soft deletion undone."""
    return e.Undeleted(**_said(said))


def resubmitted(*, new_record_id: int = 412, **said: Unpack[Said]) -> e.Resubmitted:
    """Return the event of a new record made from this one."""
    return e.Resubmitted(new_record_id=new_record_id, **_said(said))


def commented(text: str = "wrong minimum", **said: Unpack[Said]) -> e.Commented:
    """Return the event of a remark."""
    return e.Commented(text=payload(text), **_said(said))


def rerouted(
    *, tag: str | None = None, priority: Priority | None = None, **said: Unpack[Said]
) -> e.Rerouted:
    """Return the event of another tag or priority."""
    return e.Rerouted(tag=tag, priority=priority, **_said(said))


def reverted(
    status: str = "waiting",
    *,
    outcome: Outcome | None = None,
    manager_id: int | None = None,
    finished_at: datetime | None = None,
    retries_used: int = 0,
    **said: Unpack[Said],
) -> e.Reverted:
    """Return the event of an operation undone that has no natural opposite."""
    return e.Reverted(
        status=status,
        outcome=outcome,
        manager_id=manager_id,
        finished_at=finished_at,
        retries_used=retries_used,
        **_said(said),
    )


def erased(**said: Unpack[Said]) -> e.Erased:
    """Return the event of a hard deletion."""
    return e.Erased(**_said(said))


ELSEWHERE: Final = UUID("aaaaaaaa-0000-4000-8000-000000000001")
"""Another ledger."""


def imported(
    *, origin_ledger: UUID = ELSEWHERE, origin_id: int = 7, **said: Unpack[Said]
) -> e.Imported:
    """Return the event that what is before it happened in another ledger."""
    return e.Imported(
        origin_ledger=origin_ledger, origin_id=origin_id, archive_digest=b"\xab" * 32, **_said(said)
    )


ONE_OF_EACH: Final[Mapping[type[Event], Callable[[], Event]]] = {
    e.Created: created,
    e.Claimed: claimed,
    e.ServiceStarted: service_started,
    e.ServiceIterated: service_iterated,
    e.Completed: completed,
    e.Errored: errored,
    e.LateResult: late_result,
    e.ResultAdopted: result_adopted,
    e.LeaseExpired: lease_expired,
    e.ManagerLost: manager_lost,
    e.Relinquished: relinquished,
    e.Reset: reset,
    e.RetryDue: retry_due,
    e.Failed: failed,
    e.Revived: revived,
    e.Held: held,
    e.Released: released,
    e.Cancelled: cancelled,
    e.Uncancelled: uncancelled,
    e.Invalidated: invalidated,
    e.Uninvalidated: uninvalidated,
    e.SoftDeleted: soft_deleted,
    e.Undeleted: undeleted,
    e.Resubmitted: resubmitted,
    e.Commented: commented,
    e.Rerouted: rerouted,
    e.Reverted: reverted,
    e.Erased: erased,
    e.Imported: imported,
}

HISTORIES: Final[Mapping[Status, tuple[Event, ...]]] = {
    Status.waiting: (created(),),
    Status.running: (created(), claimed()),
    Status.complete: (created(), claimed(), completed()),
    Status.error: (created(), claimed(), errored()),
    Status.cancelled: (created(), cancelled()),
    Status.deleted: (created(), soft_deleted()),
    Status.invalid: (created(), claimed(), completed(), invalidated()),
    Status.held: (created(), held()),
    Status.failed: (created(), claimed(), errored(), failed()),
}
"""The shortest history of a task that leads to each status."""


def create(
    *,
    kind: Kind = Kind.task,
    spec: Payload | None = None,
    function: str = "psi4",
    required_programs: tuple[str, ...] = ("psi4",),
    tag: str = "gpu",
    priority: Priority = Priority.normal,
    retries: int = 0,
    retry_delay_s: float = 0.0,
    retry_on: tuple[str, ...] = (),
    resubmission_of: int | None = None,
    **said: Unpack[Said],
) -> Create:
    """Return the command that `created` answers."""
    return Create(
        stamp=stamp(**said),
        kind=kind,
        spec=spec or payload(),
        function=function,
        required_programs=required_programs,
        tag=tag,
        priority=priority,
        retry=Retry(retries, retry_delay_s, retry_on),
        resubmission_of=resubmission_of,
    )


def claim(
    manager_id: int = 1, *, lease_expires_at: datetime | None = None, **said: Unpack[Said]
) -> Claim:
    """Return the command that `claimed` answers."""
    stamped = stamp(**said)
    expiry = lease_expires_at or stamped.timestamp + timedelta(seconds=LEASE_S)
    return Claim(stamp=stamped, manager_id=manager_id, lease_expires_at=expiry)


def hand_in(
    outcome: Outcome | None = None,
    *,
    manager_id: int = 1,
    attempt: int = 1,
    past: Attempt | None = None,
    **said: Unpack[Said],
) -> Return:
    """Return the command that hands in an outcome; `given` looks up the past attempt itself."""
    return Return(
        stamp=stamp(**said),
        manager_id=manager_id,
        attempt=attempt,
        outcome=outcome or success(),
        past=past,
    )


def relinquish(manager_id: int = 1, *, attempt: int = 1, **said: Unpack[Said]) -> Relinquish:
    """Return the command that `relinquished` answers."""
    return Relinquish(stamp=stamp(**said), manager_id=manager_id, attempt=attempt)


def lose_manager(manager_id: int = 1, **said: Unpack[Said]) -> LoseManager:
    """Return the command that `manager_lost` answers."""
    return LoseManager(stamp=stamp(**said), manager_id=manager_id)


def expire_lease(*, attempt: int = 1, **said: Unpack[Said]) -> ExpireLease:
    """Return the command that `lease_expired` answers."""
    return ExpireLease(stamp=stamp(**said), attempt=attempt)


def start_service(*, runner: str = "runner", **said: Unpack[Said]) -> StartService:
    """Return the command that `service_started` answers."""
    return StartService(stamp=stamp(**said), runner=runner)


def iterate_service(
    *,
    state: Payload | None = None,
    children: tuple[int, ...] = (),
    output: Payload | None = None,
    **said: Unpack[Said],
) -> IterateService:
    """Return the command that `service_iterated` answers."""
    return IterateService(
        stamp=stamp(**said), state=state or payload("state"), children=children, output=output
    )


def finish_service(outcome: Outcome | None = None, **said: Unpack[Said]) -> FinishService:
    """Return the command that ends a service, well if not said otherwise."""
    return FinishService(stamp=stamp(**said), outcome=outcome or success())


@dataclass(frozen=True)
class Given:
    """A record with a history."""

    history: tuple[Event, ...]

    @property
    def record(self) -> RecordAggregate:
        """The record as it is after the history."""
        return fold(RECORD_ID, self.history)

    @property
    def status(self) -> Status | None:
        """The status after the history."""
        return self.record.status

    @property
    def attempts(self) -> dict[int, Attempt]:
        """The attempts in the history."""
        return attempts(self.history)

    def and_then(self, *events: Event) -> Given:
        """Return the record after some more has happened."""
        return Given((*self.history, *events))

    def when(self, command: RecordCommand) -> Then:
        """Let the record decide the command, with the past looked up as the ledger does."""
        if isinstance(command, Return) and command.past is None:
            command = replace(command, past=self.attempts.get(command.attempt))
        try:
            return Then(self, command, tuple(decide(self.record, command)), None)
        except CommandRefused as refusal:
            return Then(self, command, (), refusal)


@dataclass(frozen=True)
class Then:
    """What a command caused: events or a refusal, never both."""

    before: Given
    command: RecordCommand
    events: tuple[Event, ...]
    refusal: CommandRefused | None

    def then(self, *expected: Event) -> Self:
        """Assert that it caused exactly these events, and that they can follow on the history."""
        assert self.refusal is None, f"refused: {self.refusal!r}"
        assert self.events == expected
        assert self.after.record.version == len(self.before.history) + len(expected)
        return self

    def then_nothing(self) -> Self:
        """Assert that what it wants was already so."""
        return self.then()

    def then_refused(self, error: type[CommandRefused], **facts: object) -> Self:
        """Assert that it was refused by exactly this error with these attributes."""
        assert self.refusal is not None, f"not refused: {self.events}"
        assert type(self.refusal) is error
        assert {name: getattr(self.refusal, name) for name in facts} == facts
        return self

    @property
    def after(self) -> Given:
        """The record with the events that the command caused."""
        return self.before.and_then(*self.events)


def given(*history: Event) -> Given:
    """Return a record with this history; none at all is a record that does not exist."""
    return Given(history)


def given_status(status: Status | None) -> Given:
    """Return a record in this status; None is a record that does not exist."""
    return Given(() if status is None else HISTORIES[status])
