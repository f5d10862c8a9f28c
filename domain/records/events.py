"""Every fact that the log can hold about a record; each class says what is now true."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from .actions import Action


class Kind(StrEnum):
    """What a record is: run as a whole by a manager, or iterated on the server."""

    task = "task"
    service = "service"


class Priority(IntEnum):
    """The order within a tag: high before normal before low, then the older record first."""

    low = 0
    normal = 1
    high = 2


Digest = Annotated[bytes, Field(min_length=32, max_length=32)]


class Payload(BaseModel):
    """A reference to bytes that live outside the log, by the SHA-256 of their stored form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    size_bytes: int = Field(ge=0)


class Event(BaseModel):
    """A fact: who did it, when by the database's clock, in which operation, and why.

    `action` names what was asked for, if people or policies asked. `cause` is the record whose
    change brought this one about in the same operation; None if this record itself was meant.
    `undoes` is the operation that this one reverses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Its name in the log, and which shape its fields have there.
    topic: ClassVar[str]
    class_version: ClassVar[int] = 1
    # What it says as a sentence, with its own fields and `who` did it.
    words: ClassVar[str] = ""
    # The only kind of records that can have it.
    only: ClassVar[Kind | None] = None
    # Whether it puts the status that it leaves on the stack of what the record was.
    remembers: ClassVar[bool] = False
    # Whether the pause before a retry is over with it, if there was one.
    ends_pause: ClassVar[bool] = False

    timestamp: AwareDatetime
    actor: str
    operation_id: UUID
    reason: str | None = None
    action: str | None = None
    cause: int | None = None
    undoes: UUID | None = None


def events_of(module: str) -> tuple[type[Event], ...]:
    """Return the events that a module defines, in its order; to be called below the last."""
    return tuple(each for each in Event.__subclasses__() if each.__module__ == module)


class Outcome(BaseModel):
    """The outcome of one attempt.

    `compute_s` is wall time on the worker, in seconds; `cores` is how many processor cores the
    task was given there.

    What an error says is a payload, so that it can be destroyed with the record; its type stays in
    the bare event. Events that were stored before this was so hold the message itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: Payload | None = None
    error_type: str | None = None
    error_message: Payload | str | None = None
    traceback: Payload | None = None
    stdout: Payload | None = None
    stderr: Payload | None = None
    provenance: Payload | None = None
    compute_s: float | None = None
    cores: int | None = None

    @property
    def payloads(self) -> tuple[Payload, ...]:
        """The payloads that this outcome refers to, in the order of the fields."""
        refs = (
            self.result,
            self.error_message,
            self.traceback,
            self.stdout,
            self.stderr,
            self.provenance,
        )
        return tuple(ref for ref in refs if ref is not None and not isinstance(ref, str))


class Created(Event):
    """The record exists and waits to be claimed (a task) or started (a service).

    `refers_to` are the payloads that its specification refers to, which are kept for its sake.
    """

    topic = "created"
    words = "{who} created it"

    kind: Kind
    spec: Payload
    function: str
    required_programs: tuple[str, ...]
    tag: str
    priority: Priority
    retries: int = 0
    retry_delay_s: float | None = None
    retry_on: tuple[str, ...] | None = None
    resubmission_of: int | None = None
    refers_to: tuple[Payload, ...] | None = None


class Claimed(Event):
    """A manager has the task. Until the lease expires, nobody else may take it."""

    topic = "claimed"
    words = "{who} claimed it as attempt {attempt}"
    only = Kind.task
    ends_pause = True

    attempt: int
    manager_id: int
    lease_expires_at: AwareDatetime


class ServiceStarted(Event):
    """The service runner has begun, or taken up again, the iterations of the service."""

    topic = "service_started"
    words = "{who} started attempt {attempt}"
    only = Kind.service
    ends_pause = True

    attempt: int
    runner: str


class ServiceIterated(Event):
    """The service has a new state, and waits for the children it has asked for.

    `keys` are the service's own names of `children`, one for each; old events have none, and the
    ids stand for them. `awaits` are the keys of older children that it waits for, besides the new
    ones. `any_child` and `takes_errors` say what it waits for; until `wake_at` at the longest.
    `code_version` is that of the class that made the state.
    """

    topic = "service_iterated"
    words = "iteration {iteration} is over"
    only = Kind.service

    iteration: int
    state: Payload
    children: tuple[int, ...] = ()
    output: Payload | None = None
    keys: tuple[str, ...] | None = None
    awaits: tuple[str, ...] | None = None
    any_child: bool | None = None
    takes_errors: bool | None = None
    wake_at: AwareDatetime | None = None
    progress: float | None = None
    code_version: str | None = None

    @property
    def named_children(self) -> dict[str, int]:
        """The new children by key."""
        keys = map(str, self.children) if self.keys is None else self.keys
        return dict(zip(keys, self.children, strict=True))


class Completed(Event):
    """The current attempt ended well; its result is the record's result."""

    topic = "completed"
    words = "attempt {attempt} was completed by {who}"

    attempt: int
    outcome: Outcome


class Errored(Event):
    """The current attempt ended badly; the record has left the queue until it is reset."""

    topic = "errored"
    words = "attempt {attempt} of {who} ended in an error"

    attempt: int
    outcome: Outcome


class LateResult(Event):
    """A result came for an attempt that was over; it is kept aside and may be adopted."""

    topic = "late_result"
    words = "a late result of attempt {attempt} arrived from manager {manager_id}"

    attempt: int
    manager_id: int
    outcome: Outcome


class ResultAdopted(Event):
    """A late result was taken as the record's result; a running attempt is now stale."""

    topic = "result_adopted"
    words = "{who} adopted the late result of attempt {attempt}"
    ends_pause = True

    attempt: int
    outcome: Outcome


class LeaseExpired(Event):
    """The attempt's time ran out unextended; the record waits again."""

    topic = "lease_expired"
    words = "the lease of attempt {attempt} expired, and it waits again"

    attempt: int


class ManagerLost(Event):
    """The manager that had the attempt fell silent; the record waits again."""

    topic = "manager_lost"
    words = "manager {manager_id} was lost with attempt {attempt}, and it waits again"

    attempt: int
    manager_id: int


class Relinquished(Event):
    """The manager gave the attempt back; the record waits again."""

    topic = "relinquished"
    words = "manager {manager_id} returned attempt {attempt} unfinished, and it waits again"

    attempt: int
    manager_id: int


class Reset(Event):
    """The error is behind; the record waits for another attempt.

    `retry` numbers an automatic reset, from 1; it is None when a person asked for it. Until
    `not_before` nobody may claim it: `RetryDue` says that the time has come.
    """

    topic = "reset"
    words = "{who} reset it"

    retry: int | None = None
    not_before: AwareDatetime | None = None


class RetryDue(Event):
    """The pause before a retry is over: the record may be claimed."""

    topic = "retry_due"
    words = "the pause before the retry is over"
    ends_pause = True


class Failed(Event):
    """The error is final: the record is out of the queue for good."""

    topic = "failed"
    words = "{who} declared the error final"


class Revived(Event):
    """A failed record waits again, with a task made again from its specification."""

    topic = "revived"
    words = "{who} revived it"


class Held(Event):
    """The record keeps its place in the queue, but nobody may claim it."""

    topic = "held"
    words = "{who} held it"


class Released(Event):
    """The record may be claimed again."""

    topic = "released"
    words = "{who} released it"


class Cancelled(Event):
    """Nobody wants the record computed now; uncancelling brings it back as it was."""

    topic = "cancelled"
    words = "{who} cancelled it"
    remembers = True


class Uncancelled(Event):
    """The record is again what it was before it was cancelled; running became waiting."""

    topic = "uncancelled"
    words = "{who} undid the cancellation"


class Invalidated(Event):
    """The result must not be used; it stays readable."""

    topic = "invalidated"
    words = "{who} declared the result invalid"


class Uninvalidated(Event):
    """The result may be used again."""

    topic = "uninvalidated"
    words = "{who} declared the result valid again"


class SoftDeleted(Event):
    """The record is out of sight; undeleting brings it back as it was."""

    topic = "soft_deleted"
    words = "{who} deleted it"
    remembers = True


class Undeleted(Event):
    """The record is again what it was before it was deleted; running became waiting."""

    topic = "undeleted"
    words = "{who} undid the deletion"


class Resubmitted(Event):
    """A new record of the same specification was made from this one."""

    topic = "resubmitted"
    words = "{who} resubmitted it as record {new_record_id}"

    new_record_id: int


class Commented(Event):
    """Somebody wrote a remark; it changes nothing else.

    What was written is a payload, as an error's message is. Old events hold the text itself.
    """

    topic = "commented"
    words = "{who} wrote"

    text: Payload | str


class Rerouted(Event):
    """The record has another tag or priority; None keeps what it was."""

    topic = "rerouted"
    words = "{who} changed its tag or priority"

    tag: str | None = None
    priority: Priority | None = None


class Reverted(Event):
    """An operation was undone that no other event reverses: the record is what it was before it.

    It carries what is restored, so that it can be folded without looking back.
    """

    topic = "reverted"
    words = "{who} undid an operation, and it is {status} again"
    ends_pause = True

    status: str
    outcome: Outcome | None = None
    manager_id: int | None = None
    finished_at: AwareDatetime | None = None
    retries_used: int = 0


class Erased(Event):
    """The record was hard-deleted: its payloads are destroyed, its bare events stay."""

    topic = "erased"
    words = "{who} erased it"


class Imported(Event):
    """The record was imported from another ledger, with its history there.

    What is before this in its history happened there; only the numbers of aggregates and the names
    of actors and operations were changed, so that they are not taken for others here. A record
    that waited or ran is held here until somebody releases it. A manager claims nothing any more.

    `origin_ledger` is that ledger's id, `origin_id` its number there, and `archive_digest` the
    SHA-256 of the manifest of the archive in which it came.
    """

    topic = "imported"
    words = "{who} imported it from ledger {origin_ledger}, where it was {origin_id}"

    origin_ledger: UUID
    origin_id: int
    archive_digest: Digest


RECORD_EVENTS: Final = events_of(__name__)
BY_TOPIC: Final[Mapping[str, type[Event]]] = {event.topic: event for event in RECORD_EVENTS}

# The event that each action appends to the selected records.
EVENT_OF: Final[Mapping[Action, type[Event]]] = {
    action: BY_TOPIC[action.row.event] for action in Action if action.row.event is not None
}


class Stamp(BaseModel):
    """What every event of one operation shares; commands carry it to `decide`."""

    model_config = ConfigDict(frozen=True)

    timestamp: AwareDatetime
    actor: str
    operation_id: UUID
    reason: str | None = None
    action: str | None = None
    undoes: UUID | None = None
