"""The errors of the ledger, as a tree. Facts are attributes, `code` is stable. No HTTP here.

LedgerError
├── CommandRefused          the rules do not allow the request
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
│   └── InvalidInput        the request is invalid
│       ├── TooLarge
│       ├── FutureMoment
│       ├── BeforeTheBeginning
│       └── ArchiveInvalid  the archive is truncated, altered or inconsistent
│           ├── ArchiveUnknown
│           └── ArchiveFromFuture
├── ImpossibleHistory       the log holds what the rules do not allow
├── UnknownEvent            the log holds an event that this version does not know
├── UnreadableEvent         the log holds bytes that cannot be decoded
├── SchemaMismatch          this version cannot use the database's schema
├── NoteBroken              a note, checkpoint or key is malformed, or not signed as required
├── ProofBroken             a proof does not lead to the root of the tree
├── ReceiptBroken           a receipt is not valid
├── SealBroken              the log does not match the seal
├── SealKeyRefused          the seal key is not the one of this ledger
├── NotSealedYet            the record's newest events are not sealed yet
├── NothingSealed
├── TimelineBehind          the tables of the past have not reached the position
├── LibraryMissing          an extra of the package is not installed
├── BackupFailed            a backup could not be made or restored
│   ├── BackupInvalid
│   └── ToolUnusable
└── StoreUnavailable        the database does not answer
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
    """Return the items, comma-separated; at most `_SHOWN_MAX` of them."""
    shown = [str(item) for item in islice(items, _SHOWN_MAX + 1)]
    return ", ".join([*shown[:_SHOWN_MAX], "..."] if len(shown) > _SHOWN_MAX else shown)


class LedgerError(Exception):
    """Base class of the errors that the ledger raises on purpose."""

    code: ClassVar[str] = "ledger_error"


class CommandRefused(LedgerError):
    """The rules do not allow the request. Nothing was changed."""

    code = "refused"


class RecordNotFound(CommandRefused):
    """The record does not exist or was hard-deleted."""

    code = "not_found"

    def __init__(self, record_id: int) -> None:
        super().__init__(f"there is no record {record_id}")
        self.record_id = record_id


class TransitionForbidden(CommandRefused):
    """The record's status does not allow this event."""

    code = "transition_forbidden"

    def __init__(self, event: str, status: str, allowed: tuple[str, ...]) -> None:
        where = " or ".join(allowed) if allowed else "new"
        super().__init__(
            f"a record with status {status} cannot be {event}; the status must be {where}"
        )
        self.event = event
        self.status = status
        self.allowed = allowed


class WrongKind(CommandRefused):
    """The event applies only to the other kind of record, task or service."""

    code = "wrong_kind"

    def __init__(self, event: str, kind: str) -> None:
        super().__init__(f"a {kind} record cannot be {event}")
        self.event = event
        self.kind = kind


class RetryNotDue(CommandRefused):
    """The record is waiting for its retry time."""

    code = "retry_not_due"

    def __init__(self, record_id: int, not_before: datetime) -> None:
        super().__init__(f"record {record_id} must not be retried before {not_before.isoformat()}")
        self.record_id = record_id
        self.not_before = not_before


class NotYourAttempt(CommandRefused):
    """The manager never claimed this attempt of the record."""

    code = "not_your_attempt"

    def __init__(self, record_id: int, attempt: int, manager_id: int) -> None:
        super().__init__(
            f"manager {manager_id} never claimed attempt {attempt} of record {record_id}; return "
            "only attempts that this manager has claimed"
        )
        self.record_id = record_id
        self.attempt = attempt
        self.manager_id = manager_id


class ManagerNotFound(CommandRefused):
    """The manager does not exist."""

    code = "manager_not_found"

    def __init__(self, manager_id: int) -> None:
        super().__init__(f"there is no manager {manager_id}; register it first")
        self.manager_id = manager_id


class ManagerNotActive(CommandRefused):
    """The manager was deactivated or declared lost. It must register again to claim."""

    code = "manager_not_active"

    def __init__(self, manager_id: int, state: str) -> None:
        super().__init__(f"manager {manager_id} is {state}; register it again to claim tasks")
        self.manager_id = manager_id
        self.state = state


class NotYourManager(CommandRefused):
    """The manager was registered with another user's token."""

    code = "not_your_manager"

    def __init__(self, manager_id: int) -> None:
        super().__init__(f"manager {manager_id} was registered with another user's token")
        self.manager_id = manager_id


class IdempotencyConflict(CommandRefused):
    """The idempotency key was used before with a different request."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used for a different request; use a new key for each "
            "request"
        )
        self.key = key


class StillReferenced(CommandRefused):
    """The record cannot be hard-deleted because other records or datasets refer to it."""

    code = "still_referenced"

    def __init__(
        self, record_id: int, parents: tuple[int, ...], datasets: tuple[str, ...] = ()
    ) -> None:
        reasons: list[str] = []
        if parents:
            reasons.append(f"is a child of {_some(parents)}; delete its parents first")
        if datasets:
            reasons.append(f"is in {_some(datasets)}; remove it from there first")
        super().__init__(f"record {record_id} {', and '.join(reasons)}")
        self.record_id = record_id
        self.parents = parents
        self.datasets = datasets


class NothingToAdopt(CommandRefused):
    """The record has no late result, or none of this attempt, that can be adopted."""

    code = "nothing_to_adopt"

    def __init__(self, record_id: int, attempt: int | None) -> None:
        of = "" if attempt is None else f" of attempt {attempt}"
        super().__init__(f"record {record_id} has no late result{of} to adopt")
        self.record_id = record_id
        self.attempt = attempt


class ChangedSince(CommandRefused):
    """The record has changed since the operation that is to be undone. It is left unchanged."""

    code = "changed_since"

    def __init__(self, record_id: int, event: str) -> None:
        super().__init__(f"record {record_id} has been {event} since then; it was left unchanged")
        self.record_id = record_id
        self.event = event


class NotUndoable(CommandRefused):
    """The operation's effect on the record cannot be undone."""

    code = "not_undoable"

    def __init__(self, record_id: int, event: str) -> None:
        super().__init__(f"record {record_id} was {event}, which cannot be undone")
        self.record_id = record_id
        self.event = event


class CircularFamily(CommandRefused):
    """The record would become its own ancestor."""

    code = "circular_family"

    def __init__(self, parent_id: int, child_id: int) -> None:
        super().__init__(
            f"record {child_id} cannot be a child of {parent_id}: it is the same record or its "
            "ancestor"
        )
        self.parent_id = parent_id
        self.child_id = child_id


class Superseded(CommandRefused):
    """The service has changed or was stopped since the decision was made."""

    code = "superseded"

    def __init__(self, record_id: int) -> None:
        super().__init__(
            f"service {record_id} has changed since this decision was made; decide again"
        )
        self.record_id = record_id


class OperationNotFound(CommandRefused):
    """No operation that changed records has this id."""

    code = "operation_not_found"

    def __init__(self, operation_id: UUID) -> None:
        super().__init__(f"there is no operation {operation_id} that changed records")
        self.operation_id = operation_id


class JobNotFound(CommandRefused):
    """The job does not exist."""

    code = "job_not_found"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class JobNotEnded(CommandRefused):
    """The job has not ended, so it cannot be undone yet."""

    code = "job_not_ended"

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(
            f"job {job_id} is {state}; cancel it, which undoes its changes, or wait until it ends"
        )
        self.job_id = job_id
        self.state = state


class DatasetNotFound(CommandRefused):
    """The dataset does not exist or was deleted."""

    code = "dataset_not_found"

    def __init__(self, dataset: int | str) -> None:
        super().__init__(f"there is no dataset {dataset!r}")
        self.dataset = dataset


class DatasetExists(CommandRefused):
    """Another dataset has this name. Names are compared without regard to case."""

    code = "dataset_exists"

    def __init__(self, name: str, dataset_id: int) -> None:
        super().__init__(f"dataset {dataset_id} already has the name {name!r}; choose another name")
        self.name = name
        self.dataset_id = dataset_id


class DatasetChanged(CommandRefused):
    """The dataset has changed since the version that the request names."""

    code = "dataset_changed"

    def __init__(self, name: str, expected: int, version: int) -> None:
        super().__init__(
            f"dataset {name!r} is at version {version}, but the request expects {expected}; read "
            "the dataset again and repeat the changes that still apply"
        )
        self.name = name
        self.expected = expected
        self.version = version


class DatasetLocked(CommandRefused):
    """The dataset has locked versions, which stay readable, so it cannot be deleted."""

    code = "dataset_locked"

    def __init__(self, name: str, n_versions: int) -> None:
        super().__init__(
            f"dataset {name!r} cannot be deleted: it has {n_versions} locked versions, which stay "
            "readable"
        )
        self.name = name
        self.n_versions = n_versions


class EntryNotFound(CommandRefused):
    """The dataset has no entries with these names."""

    code = "entry_not_found"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(f"dataset {dataset!r} has no entry {_some(map(repr, names))}")
        self.dataset = dataset
        self.names = names


class EntryExists(CommandRefused):
    """The dataset already has different entries with these names, or a name occurs twice."""

    code = "entry_exists"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(
            f"dataset {dataset!r} already has a different entry {_some(map(repr, names))}; names "
            "must be unique"
        )
        self.dataset = dataset
        self.names = names


class SpecificationNotFound(CommandRefused):
    """The dataset has no specifications with these names."""

    code = "specification_not_found"

    def __init__(self, dataset: str, names: tuple[str, ...]) -> None:
        super().__init__(f"dataset {dataset!r} has no specification {_some(map(repr, names))}")
        self.dataset = dataset
        self.names = names


class SpecificationExists(CommandRefused):
    """The dataset already has a different specification with this name."""

    code = "specification_exists"

    def __init__(self, dataset: str, name: str) -> None:
        super().__init__(
            f"dataset {dataset!r} already has a different specification {name!r}; choose another "
            "name, or remove the existing one first"
        )
        self.dataset = dataset
        self.name = name


class VersionNotFound(CommandRefused):
    """The dataset has no locked version with this number."""

    code = "version_not_found"

    def __init__(self, dataset: str, number: int) -> None:
        super().__init__(f"dataset {dataset!r} has no locked version {number}")
        self.dataset = dataset
        self.number = number


class InvalidInput(CommandRefused):
    """The request is invalid. The message contains the wrong value and what is accepted."""

    code = "invalid_input"


class TooLarge(InvalidInput):
    """A value exceeds a limit of the server. The message names the limit's setting and value."""

    code = "too_large"

    def __init__(self, what: str, size: int, limit: int, setting: str) -> None:
        super().__init__(f"{what} has {size}, more than the limit of {limit} (setting {setting})")
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
    """The log holds an event, or a version of one, that this version of the code does not know."""

    code = "unknown_event"

    def __init__(self, topic: str, version: int | None = None) -> None:
        named = topic if version is None else f"{topic} in version {version}"
        super().__init__(f"unknown event {named}; upgrade recordledger")
        self.topic = topic
        self.version = version


class UnreadableEvent(LedgerError):
    """The log holds bytes that cannot be decoded as the event they are stored as."""

    code = "unreadable_event"

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(f"the stored bytes are not a valid event {topic}: {why}")
        self.topic = topic
        self.why = why


class SchemaMismatch(LedgerError):
    """This version of the code cannot use the database's schema."""

    code = "schema_mismatch"


class StoreUnavailable(LedgerError):
    """The database does not answer. Nothing was changed; try again."""

    code = "store_unavailable"


class StorageFull(StoreUnavailable):
    """The database's disk is full. Nothing was changed; free some space."""

    code = "storage_full"


class WebhookNotFound(CommandRefused):
    """The webhook does not exist or was removed."""

    code = "webhook_not_found"

    def __init__(self, webhook_id: int) -> None:
        super().__init__(f"there is no webhook {webhook_id}")
        self.webhook_id = webhook_id


class TooManyWebhooks(CommandRefused):
    """The limit on webhooks is reached."""

    code = "too_many_webhooks"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"there are already {limit} webhooks, the maximum (setting webhooks_max); "
            "remove one first"
        )
        self.limit = limit


class AddressRefused(CommandRefused):
    """The address is not allowed for a webhook. The message gives the reason."""

    code = "address_refused"


class NoteBroken(LedgerError):
    """The text is not a valid signed note, checkpoint or key, or a signature does not verify."""

    code = "note_broken"


class ProofBroken(LedgerError):
    """The proof does not lead to the root of the tree: the data or the proof was changed."""

    code = "proof_broken"


class ReceiptBroken(LedgerError):
    """The receipt is not valid. The message gives the reason."""

    code = "receipt_broken"


class SealBroken(LedgerError):
    """The log, or its stored hashes, do not match the seal. Sealing stops."""

    code = "seal_broken"


class SealKeyRefused(LedgerError):
    """The seal key is not the key that this ledger is sealed with."""

    code = "seal_key_refused"


class NotSealedYet(LedgerError):
    """The newest events of the record are not sealed yet. Try again in a few seconds."""

    code = "not_sealed_yet"

    def __init__(self, record_id: int, position: int, sealed: int) -> None:
        super().__init__(
            f"record {record_id} has an event at position {position}, but the log is sealed only "
            f"up to {sealed}; try again in a few seconds (`recordledger work` seals the log)"
        )
        self.record_id = record_id
        self.position = position
        self.sealed = sealed


class NothingSealed(LedgerError):
    """No event of the log is sealed yet."""

    code = "nothing_sealed"

    def __init__(self) -> None:
        super().__init__("the log has no seal yet; `recordledger work` seals it")


class FutureMoment(InvalidInput):
    """The requested moment is after the end of the log."""

    code = "as_of_in_future"

    def __init__(self, asked: int | datetime, head: int, now: datetime) -> None:
        super().__init__(
            f"{_moment(asked)} is in the future: the log ends at position {head}, and the time is "
            f"{_moment(now)}"
        )
        self.asked = asked
        self.head = head
        self.now = now


class BeforeTheBeginning(InvalidInput):
    """The requested moment is before the first event of the log."""

    code = "as_of_before_beginning"

    def __init__(self, asked: int | datetime, first: int | None) -> None:
        begins = "is empty" if first is None else f"begins at position {first}"
        super().__init__(f"{_moment(asked)} is before the first event: the log {begins}")
        self.asked = asked
        self.first = first


class RebuildRunning(CommandRefused):
    """Another rebuild of this ledger's projections is running. Nothing was changed."""

    code = "rebuild_running"

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"another rebuild of {schema} is running or was killed a moment ago; wait until it ends"
        )
        self.schema = schema


class TimelineBehind(LedgerError):
    """The tables of the past have not reached the requested position yet."""

    code = "timeline_behind"

    def __init__(self, position: int, wanted: int) -> None:
        super().__init__(
            f"position {wanted} was requested, but the tables of the past have reached only "
            f"{position}; try again later and check that `recordledger work` is running"
        )
        self.position = position
        self.wanted = wanted


class LibraryMissing(LedgerError):
    """A required library is not installed. The message contains the command that installs it."""

    code = "library_missing"

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is required: pip install 'recordledger[{extra}]'")
        self.library = library


class ArchiveInvalid(InvalidInput):
    """The archive is truncated, altered or inconsistent. Nothing was imported."""

    code = "archive_invalid"

    def __init__(self, part: str, what: str) -> None:
        super().__init__(f"{part}: {what}")
        self.part = part


class ArchiveUnknown(ArchiveInvalid):
    """The folder is not an archive of a ledger, or a newer version wrote it."""

    code = "archive_unknown"


class ArchiveFromFuture(ArchiveInvalid):
    """By this database's clock, the archive's newest event lies in the future."""

    code = "archive_from_future"

    def __init__(self, newest: datetime, now: datetime) -> None:
        super().__init__(
            "the archive",
            f"its newest event is dated {newest.isoformat()}, but the time here is "
            f"{now.isoformat()}; wait, or correct the clocks",
        )
        self.newest = newest
        self.now = now


class BackupFailed(LedgerError):
    """A PostgreSQL tool failed to make or restore a backup. The message contains its output."""

    code = "backup_failed"


class BackupInvalid(BackupFailed):
    """The backup is truncated or altered, or the restored data does not match it."""

    code = "backup_invalid"


class ToolUnusable(BackupFailed):
    """A PostgreSQL tool is missing, or older than the server or the backup."""

    code = "backup_tool_unusable"


class DatabaseNotEmpty(CommandRefused):
    """The database already contains events. A backup can only be restored into an empty ledger."""

    code = "database_not_empty"


def _moment(asked: int | datetime) -> str:
    return f"position {asked}" if isinstance(asked, int) else asked.isoformat()
