"""Refusals and faults, as a tree; facts are attributes and `code` is stable. No HTTP here.

LedgerError
├── CommandRefused          the request is understood, and the rules say no
│   ├── RecordNotFound
│   ├── TransitionForbidden
│   ├── WrongKind
│   ├── RetryNotDue
│   ├── NotYourAttempt
│   ├── ManagerNotFound
│   ├── ManagerNotActive
│   ├── NotYourManager
│   ├── IdempotencyConflict
│   ├── StillReferenced
│   ├── NothingToAdopt
│   ├── ChangedSince
│   ├── NotUndoable
│   ├── CircularFamily
│   ├── Superseded
│   ├── OperationNotFound
│   ├── JobNotFound
│   ├── JobNotEnded
│   ├── DatasetNotFound
│   ├── DatasetExists
│   ├── DatasetChanged
│   ├── DatasetLocked
│   ├── EntryNotFound
│   ├── EntryExists
│   ├── SpecificationNotFound
│   ├── SpecificationExists
│   ├── VersionNotFound
│   ├── WebhookNotFound
│   ├── TooManyWebhooks
│   ├── AddressRefused
│   ├── DatabaseNotEmpty
│   ├── RebuildRunning
│   └── InvalidInput        the request itself is wrong
│       ├── TooLarge
│       ├── FutureMoment
│       ├── BeforeTheBeginning
│       └── ArchiveInvalid  an archive is not what it says that it is
│           ├── ArchiveUnknown
│           └── ArchiveFromFuture
├── ImpossibleHistory       the log holds what the rules do not allow
├── UnknownEvent            the log holds an event that this version does not know
├── UnreadableEvent         the log holds bytes that are no event
├── SchemaMismatch          the database is newer than the code, or is not a ledger
├── NoteBroken              a text is no signed note, checkpoint or key, or the wrong one
├── ProofBroken             a proof does not lead to the root
├── ReceiptBroken           a receipt is not what a ledger has written
├── SealBroken              the log is not what was sealed
├── SealKeyRefused          the key for seals is not the ledger's
├── NotSealedYet            the newest events wait for their seal
├── NothingSealed
├── TimelineBehind          the tables of the past do not go so far yet
├── LibraryMissing          an extra of the package is not installed
├── BackupFailed            a backup could not be made, or not be restored
│   ├── BackupInvalid
│   └── ToolUnusable
└── StoreUnavailable        the database does not answer now
    └── StorageFull
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import ClassVar, Final
from uuid import UUID

_SHOWN_MAX: Final = 20


def _some(items: Iterable[object]) -> str:
    """Return a list as one reads it, of many the first ones only."""
    shown = [str(item) for item in islice(items, _SHOWN_MAX + 1)]
    return ", ".join([*shown[:_SHOWN_MAX], "..."] if len(shown) > _SHOWN_MAX else shown)


class LedgerError(Exception):
    """Base of everything that the ledger raises on purpose."""

    code: ClassVar[str] = "ledger_error"


class CommandRefused(LedgerError):
    """The request was understood, and the rules say no. Nothing has changed."""

    code = "refused"


class RecordNotFound(CommandRefused):
    """There is no record with this id, or it was hard-deleted."""

    code = "not_found"

    def __init__(self, record_id: int) -> None:
        super().__init__(f"there is no record {record_id}")
        self.record_id = record_id


class TransitionForbidden(CommandRefused):
    """The record is in a status in which this cannot happen to it."""

    code = "transition_forbidden"

    def __init__(self, event: str, status: str, allowed: tuple[str, ...]) -> None:
        where = " or ".join(allowed) if allowed else "new"
        super().__init__(
            f"a record that is {status} cannot be {event}: it would have to be {where}"
        )
        self.event = event
        self.status = status
        self.allowed = allowed


class WrongKind(CommandRefused):
    """A task was treated as a service, or a service as a task."""

    code = "wrong_kind"

    def __init__(self, event: str, kind: str) -> None:
        super().__init__(f"a {kind} record cannot be {event}")
        self.event = event
        self.kind = kind


class RetryNotDue(CommandRefused):
    """The pause before the record's next retry is not over."""

    code = "retry_not_due"

    def __init__(self, record_id: int, not_before: datetime) -> None:
        super().__init__(
            f"record {record_id} is not to be tried again before {not_before.isoformat()}"
        )
        self.record_id = record_id
        self.not_before = not_before


class NotYourAttempt(CommandRefused):
    """The manager never had this attempt of the record."""

    code = "not_your_attempt"

    def __init__(self, record_id: int, attempt: int, manager_id: int) -> None:
        super().__init__(
            f"manager {manager_id} never had attempt {attempt} of record {record_id}; "
            "return only what a claim of this manager gave out"
        )
        self.record_id = record_id
        self.attempt = attempt
        self.manager_id = manager_id


class ManagerNotFound(CommandRefused):
    """There is no manager with this id."""

    code = "manager_not_found"

    def __init__(self, manager_id: int) -> None:
        super().__init__(f"there is no manager {manager_id}; register first")
        self.manager_id = manager_id


class ManagerNotActive(CommandRefused):
    """The manager was deactivated or declared lost; it must register anew to claim."""

    code = "manager_not_active"

    def __init__(self, manager_id: int, state: str) -> None:
        super().__init__(f"manager {manager_id} is {state}; register anew to claim again")
        self.manager_id = manager_id
        self.state = state


class NotYourManager(CommandRefused):
    """The token belongs to somebody else than the manager it speaks for."""

    code = "not_your_manager"

    def __init__(self, manager_id: int) -> None:
        super().__init__(f"manager {manager_id} was registered with another user's token")
        self.manager_id = manager_id


class IdempotencyConflict(CommandRefused):
    """The idempotency key was used before, for another request."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used for another request; use a new key for a new request"
        )
        self.key = key


class StillReferenced(CommandRefused):
    """Something refers to the record, so that it cannot be destroyed."""

    code = "still_referenced"

    def __init__(
        self, record_id: int, parents: tuple[int, ...], datasets: tuple[str, ...] = ()
    ) -> None:
        reasons: list[str] = []
        if parents:
            reasons.append(f"is a child of {_some(parents)}; delete these first")
        if datasets:
            reasons.append(f"is in {_some(datasets)}; remove it from there first")
        super().__init__(f"record {record_id} {', and '.join(reasons)}")
        self.record_id = record_id
        self.parents = parents
        self.datasets = datasets


class NothingToAdopt(CommandRefused):
    """The record has no late result, or not of this attempt, that could become its result."""

    code = "nothing_to_adopt"

    def __init__(self, record_id: int, attempt: int | None) -> None:
        of = "" if attempt is None else f" of attempt {attempt}"
        super().__init__(f"record {record_id} has no late result{of} that could be adopted")
        self.record_id = record_id
        self.attempt = attempt


class ChangedSince(CommandRefused):
    """The record has changed since the operation that is to be undone; it is left as it is."""

    code = "changed_since"

    def __init__(self, record_id: int, event: str) -> None:
        super().__init__(f"record {record_id} has since been {event}; it stays as it is")
        self.record_id = record_id
        self.event = event


class NotUndoable(CommandRefused):
    """What the operation did to the record cannot be taken back."""

    code = "not_undoable"

    def __init__(self, record_id: int, event: str) -> None:
        super().__init__(f"that record {record_id} was {event} cannot be taken back")
        self.record_id = record_id
        self.event = event


class CircularFamily(CommandRefused):
    """A record would become its own ancestor."""

    code = "circular_family"

    def __init__(self, parent_id: int, child_id: int) -> None:
        super().__init__(
            f"record {child_id} cannot be a child of {parent_id}: it is its ancestor or itself"
        )
        self.parent_id = parent_id
        self.child_id = child_id


class Superseded(CommandRefused):
    """The service has gone on, or was stopped, since this was decided about it."""

    code = "superseded"

    def __init__(self, record_id: int) -> None:
        super().__init__(f"service {record_id} is not any more what it was when this was decided")
        self.record_id = record_id


class OperationNotFound(CommandRefused):
    """No operation on records has this id."""

    code = "operation_not_found"

    def __init__(self, operation_id: UUID) -> None:
        super().__init__(f"there is no operation {operation_id} that changed records")
        self.operation_id = operation_id


class JobNotFound(CommandRefused):
    """There is no job with this id."""

    code = "job_not_found"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class JobNotEnded(CommandRefused):
    """The job still goes on, so that what it does cannot be undone yet."""

    code = "job_not_ended"

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(
            f"job {job_id} is {state}: cancel it, which undoes what it has done, or wait for it"
        )
        self.job_id = job_id
        self.state = state


class DatasetNotFound(CommandRefused):
    """There is no dataset of this name or id, or it was deleted."""

    code = "dataset_not_found"

    def __init__(self, dataset: int | str) -> None:
        super().__init__(f"there is no dataset {dataset!r}")
        self.dataset = dataset


class DatasetExists(CommandRefused):
    """Another dataset has this name; capitals do not tell names apart."""

    code = "dataset_exists"

    def __init__(self, name: str, dataset_id: int) -> None:
        super().__init__(f"dataset {dataset_id} is called {name!r} already; choose another name")
        self.name = name
        self.dataset_id = dataset_id


class DatasetChanged(CommandRefused):
    """Somebody has changed the dataset since the version that the request was made for."""

    code = "dataset_changed"

    def __init__(self, name: str, expected: int, version: int) -> None:
        super().__init__(
            f"dataset {name!r} is at version {version}, and the request was made for {expected}: "
            "look at it again, and send what is still right"
        )
        self.name = name
        self.expected = expected
        self.version = version


class DatasetLocked(CommandRefused):
    """A version of the dataset was locked, which stays readable for ever."""

    code = "dataset_locked"

    def __init__(self, name: str, n_versions: int) -> None:
        super().__init__(
            f"dataset {name!r} has {n_versions} locked versions, which stay readable: it cannot be "
            "deleted"
        )
        self.name = name
        self.n_versions = n_versions


class EntryNotFound(CommandRefused):
    """The dataset has no entries of these names."""

    code = "entry_not_found"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(f"dataset {dataset!r} has no entry {_some(map(repr, names))}")
        self.dataset = dataset
        self.names = names


class EntryExists(CommandRefused):
    """The dataset has other entries of these names already, or two would have the same."""

    code = "entry_exists"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(
            f"dataset {dataset!r} has another entry {_some(map(repr, names))}; names are unique"
        )
        self.dataset = dataset
        self.names = names


class SpecificationNotFound(CommandRefused):
    """The dataset has no specifications of these names."""

    code = "specification_not_found"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(f"dataset {dataset!r} has no specification {_some(map(repr, names))}")
        self.dataset = dataset
        self.names = names


class SpecificationExists(CommandRefused):
    """The dataset has another specification of this name already."""

    code = "specification_exists"

    def __init__(self, dataset: str, name: str) -> None:
        super().__init__(
            f"dataset {dataset!r} has another specification {name!r}; choose another name, or "
            "remove that one first"
        )
        self.dataset = dataset
        self.name = name


class VersionNotFound(CommandRefused):
    """No version of the dataset was locked under this number."""

    code = "version_not_found"

    def __init__(self, dataset: str, number: int) -> None:
        super().__init__(f"dataset {dataset!r} has no locked version {number}")
        self.dataset = dataset
        self.number = number


class InvalidInput(CommandRefused):
    """The request itself is wrong; the message says where and what to do."""

    code = "invalid_input"


class TooLarge(InvalidInput):
    """Something is over a limit of the server, which is named with its value."""

    code = "too_large"

    def __init__(self, what: str, size: int, limit: int, setting: str) -> None:
        super().__init__(f"{what} has {size}, and the limit is {limit} (setting {setting})")
        self.what = what
        self.size = size
        self.limit = limit
        self.setting = setting


class ImpossibleHistory(LedgerError):
    """The log holds an event that the rules do not allow there: it was damaged or rewritten."""

    code = "impossible_history"

    def __init__(self, stream: str, version: int, what: str) -> None:
        super().__init__(f"{stream}, version {version}: {what}")
        self.stream = stream
        self.version = version


class UnknownEvent(LedgerError):
    """The log holds an event, or a version of it, that this version of the code does not know."""

    code = "unknown_event"

    def __init__(self, topic: str, version: int | None = None) -> None:
        named = topic if version is None else f"{topic} in version {version}"
        super().__init__(f"this version does not know the event {named}; upgrade recordledger")
        self.topic = topic
        self.version = version


class UnreadableEvent(LedgerError):
    """The log holds bytes that are not the event that they are said to be: they were damaged."""

    code = "unreadable_event"

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(f"the log holds bytes that are no event {topic}: {why}")
        self.topic = topic
        self.why = why


class SchemaMismatch(LedgerError):
    """The database's schema is not one that this version of the code can use."""

    code = "schema_mismatch"


class StoreUnavailable(LedgerError):
    """The database does not answer now. Nothing was half-done; try again."""

    code = "store_unavailable"


class StorageFull(StoreUnavailable):
    """The database's disk is full. Nothing was half-done; free some space."""

    code = "storage_full"


class WebhookNotFound(CommandRefused):
    """There is no webhook with this id, or it was removed."""

    code = "webhook_not_found"

    def __init__(self, webhook_id: int) -> None:
        super().__init__(f"there is no webhook {webhook_id}")
        self.webhook_id = webhook_id


class TooManyWebhooks(CommandRefused):
    """There are as many webhooks as the server lets; remove one."""

    code = "too_many_webhooks"

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are {limit} webhooks already (setting webhooks_max)")
        self.limit = limit


class AddressRefused(CommandRefused):
    """A webhook may not be at this address; the message says why."""

    code = "address_refused"


class NoteBroken(LedgerError):
    """A text is no signed note, checkpoint or key, or none that the right key has signed."""

    code = "note_broken"


class ProofBroken(LedgerError):
    """A proof does not lead to the root of the tree: what it is about was changed, or it was."""

    code = "proof_broken"


class ReceiptBroken(LedgerError):
    """A receipt is not what a ledger has written; the message says what is wrong with it."""

    code = "receipt_broken"


class SealBroken(LedgerError):
    """The log, or what is kept of its hashes, is not what was sealed. Nothing more is sealed."""

    code = "seal_broken"


class SealKeyRefused(LedgerError):
    """The key for seals that is here is not the one that the ledger is sealed with."""

    code = "seal_key_refused"


class NotSealedYet(LedgerError):
    """The newest events of the record wait for the next seal; ask again in some seconds."""

    code = "not_sealed_yet"

    def __init__(self, record_id: int, position: int, sealed: int) -> None:
        super().__init__(
            f"record {record_id} has an event at position {position}, and the log is sealed up to "
            f"{sealed}: ask again in some seconds. `recordledger work` seals"
        )
        self.record_id = record_id
        self.position = position
        self.sealed = sealed


class NothingSealed(LedgerError):
    """Nothing of the log is sealed yet."""

    code = "nothing_sealed"

    def __init__(self) -> None:
        super().__init__("nothing is sealed yet; `recordledger work` seals")


class FutureMoment(InvalidInput):
    """The moment that was asked for has not come: the log does not go so far."""

    code = "as_of_in_future"

    def __init__(self, asked: int | datetime, head: int, now: datetime) -> None:
        super().__init__(
            f"{_moment(asked)} is in the future: the log goes to position {head}, and its time is "
            f"{_moment(now)}"
        )
        self.asked = asked
        self.head = head
        self.now = now


class BeforeTheBeginning(InvalidInput):
    """The moment that was asked for is before the first event of the log."""

    code = "as_of_before_beginning"

    def __init__(self, asked: int | datetime, first: int | None) -> None:
        begins = "is empty" if first is None else f"begins at position {first}, later than that"
        super().__init__(f"nothing had happened at {_moment(asked)}: the log {begins}")
        self.asked = asked
        self.first = first


class RebuildRunning(CommandRefused):
    """Somebody else rebuilds the projections of this ledger now, and nothing was done."""

    code = "rebuild_running"

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"another rebuild of {schema} is running, or was killed a moment ago; wait for its end"
        )
        self.schema = schema


class TimelineBehind(LedgerError):
    """The tables of the past do not go so far yet; they are catching up with the log."""

    code = "timeline_behind"

    def __init__(self, position: int, wanted: int) -> None:
        super().__init__(
            f"the past is in tables up to position {position}, and {wanted} was asked for: they "
            "are catching up; ask again later, and see that `recordledger work` runs"
        )
        self.position = position
        self.wanted = wanted


class LibraryMissing(LedgerError):
    """What was asked for needs a library that is not installed; the message says how to get it."""

    code = "library_missing"

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"this needs {library}: pip install 'recordledger[{extra}]'")
        self.library = library


class ArchiveInvalid(InvalidInput):
    """The archive is cut short, altered, or contradicts itself; nothing of it was imported."""

    code = "archive_invalid"

    def __init__(self, part: str, what: str) -> None:
        super().__init__(f"{part}: {what}")
        self.part = part


class ArchiveUnknown(ArchiveInvalid):
    """This is no archive of a ledger, or one that a newer version has written."""

    code = "archive_unknown"


class ArchiveFromFuture(ArchiveInvalid):
    """By this database's clock, what is in the archive has not happened yet."""

    code = "archive_from_future"

    def __init__(self, newest: datetime, now: datetime) -> None:
        super().__init__(
            "the archive",
            f"its newest event is of {newest.isoformat()}, and here it is {now.isoformat()}: "
            "wait, or set the clocks",
        )
        self.newest = newest
        self.now = now


class BackupFailed(LedgerError):
    """PostgreSQL's own tool could not make or restore a backup; the message has its words."""

    code = "backup_failed"


class BackupInvalid(BackupFailed):
    """The backup is cut short, altered, or what was restored is not what it holds."""

    code = "backup_invalid"


class ToolUnusable(BackupFailed):
    """PostgreSQL's own tool is not there, or is older than the server or the backup."""

    code = "backup_tool_unusable"


class DatabaseNotEmpty(CommandRefused):
    """The database has a ledger with events already; a backup is restored into an empty one."""

    code = "database_not_empty"


def _moment(asked: int | datetime) -> str:
    return f"position {asked}" if isinstance(asked, int) else asked.isoformat()
