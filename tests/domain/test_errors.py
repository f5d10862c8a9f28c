"""Every refusal and fault has a stable code, a meaning, and its facts as attributes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from recordledger.domain import errors
from recordledger.domain.errors import (
    AddressRefused,
    ArchiveFromFuture,
    ArchiveInvalid,
    BeforeTheBeginning,
    ChangedSince,
    CircularFamily,
    CommandRefused,
    DatasetChanged,
    DatasetExists,
    DatasetLocked,
    DatasetNotFound,
    EntryExists,
    EntryNotFound,
    FutureMoment,
    IdempotencyConflict,
    ImpossibleHistory,
    InvalidInput,
    JobNotEnded,
    JobNotFound,
    LedgerError,
    LibraryMissing,
    ManagerNotActive,
    ManagerNotFound,
    NothingSealed,
    NothingToAdopt,
    NotSealedYet,
    NotUndoable,
    NotYourAttempt,
    NotYourManager,
    OperationNotFound,
    RebuildRunning,
    RecordNotFound,
    SpecificationExists,
    SpecificationNotFound,
    StillReferenced,
    Superseded,
    TimelineBehind,
    TooLarge,
    TooManyWebhooks,
    TransitionForbidden,
    UnknownEvent,
    UnreadableEvent,
    VersionNotFound,
    WebhookNotFound,
    WrongKind,
)
from tests.examples import at

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ERRORS = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, LedgerError)
]


def drawn() -> Iterator[tuple[str, str]]:
    """Yield each error in the tree of the module's docstring, with its parent there."""
    above: list[str] = ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│ ├└─]*)([A-Z]\w+)(?:  |$)", line):
            level = len(found[1]) // 4 + 1
            del above[level:]
            yield found[2], above[-1]
            above.append(found[2])


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert dict(drawn()) == {error.__name__: error.mro()[1].__name__ for error in ERRORS}


def test_no_two_errors_have_the_same_code() -> None:
    codes = {error.code: error.__name__ for error in ERRORS}
    assert len(codes) == len(ERRORS)


def test_the_codes_are_stable() -> None:
    assert {error.code for error in ERRORS if issubclass(error, CommandRefused)} == {
        "refused",
        "not_found",
        "transition_forbidden",
        "wrong_kind",
        "not_your_attempt",
        "manager_not_found",
        "manager_not_active",
        "not_your_manager",
        "idempotency_conflict",
        "still_referenced",
        "nothing_to_adopt",
        "retry_not_due",
        "changed_since",
        "not_undoable",
        "circular_family",
        "superseded",
        "operation_not_found",
        "job_not_found",
        "job_not_ended",
        "dataset_not_found",
        "dataset_exists",
        "dataset_changed",
        "dataset_locked",
        "entry_not_found",
        "entry_exists",
        "specification_not_found",
        "specification_exists",
        "version_not_found",
        "webhook_not_found",
        "too_many_webhooks",
        "address_refused",
        "archive_invalid",
        "archive_unknown",
        "archive_from_future",
        "database_not_empty",
        "rebuild_running",
        "invalid_input",
        "too_large",
        "as_of_in_future",
        "as_of_before_beginning",
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_error_says_what_it_means(error: type[LedgerError]) -> None:
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "message", "facts"),
    [
        (RecordNotFound(411), "there is no record 411", {"record_id": 411}),
        (
            TransitionForbidden("claimed", "held", ("waiting",)),
            "a record with status held cannot be claimed; the status must be waiting",
            {"event": "claimed", "status": "held", "allowed": ("waiting",)},
        ),
        (
            TransitionForbidden("cancelled", "complete", ("waiting", "running")),
            "a record with status complete cannot be cancelled; the status must be waiting or "
            "running",
            {"allowed": ("waiting", "running")},
        ),
        (
            WrongKind("claimed", "service"),
            "a service record cannot be claimed",
            {"event": "claimed", "kind": "service"},
        ),
        (
            NotYourAttempt(411, 2, 7),
            "manager 7 never claimed attempt 2 of record 411; return only attempts that this "
            "manager has claimed",
            {"record_id": 411, "attempt": 2, "manager_id": 7},
        ),
        (ManagerNotFound(7), "there is no manager 7; register it first", {"manager_id": 7}),
        (
            ManagerNotActive(7, "lost"),
            "manager 7 is lost; register it again to claim tasks",
            {"manager_id": 7, "state": "lost"},
        ),
        (
            NotYourManager(7),
            "manager 7 was registered with another user's token",
            {"manager_id": 7},
        ),
        (
            IdempotencyConflict("k"),
            "idempotency key 'k' was used for a different request; use a new key for each request",
            {"key": "k"},
        ),
        (
            StillReferenced(411, (7, 8)),
            "record 411 is a child of 7, 8; delete its parents first",
            {"record_id": 411, "parents": (7, 8)},
        ),
        (
            StillReferenced(411, tuple(range(1, 31))),
            f"record 411 is a child of {', '.join(map(str, range(1, 21)))}, ...; "
            "delete its parents first",
            {"parents": tuple(range(1, 31))},
        ),
        (
            StillReferenced(411, (), ("dataset 'water'", "dataset 'ice'")),
            "record 411 is in dataset 'water', dataset 'ice'; remove it from there first",
            {"parents": (), "datasets": ("dataset 'water'", "dataset 'ice'")},
        ),
        (
            StillReferenced(411, (7,), ("dataset 'water'",)),
            "record 411 is a child of 7; delete its parents first, and is in dataset 'water'; "
            "remove it from there first",
            {},
        ),
        (DatasetNotFound("ice"), "there is no dataset 'ice'", {"dataset": "ice"}),
        (DatasetNotFound(7), "there is no dataset 7", {"dataset": 7}),
        (
            DatasetExists("ice", 7),
            "dataset 7 already has the name 'ice'; choose another name",
            {"name": "ice", "dataset_id": 7},
        ),
        (
            DatasetChanged("ice", 3, 5),
            "dataset 'ice' is at version 5, but the request expects 3; read the dataset again "
            "and repeat the changes that still apply",
            {"name": "ice", "expected": 3, "version": 5},
        ),
        (
            DatasetLocked("ice", 2),
            "dataset 'ice' cannot be deleted: it has 2 locked versions, which stay readable",
            {"n_versions": 2},
        ),
        (
            EntryNotFound("ice", tuple(map(str, range(30)))),
            f"dataset 'ice' has no entry {', '.join(repr(str(n)) for n in range(20))}, ...",
            {"dataset": "ice", "names": tuple(map(str, range(30)))},
        ),
        (
            EntryExists("ice", ("a",)),
            "dataset 'ice' already has a different entry 'a'; names must be unique",
            {"dataset": "ice", "names": ("a",)},
        ),
        (
            SpecificationNotFound("ice", ("hf",)),
            "dataset 'ice' has no specification 'hf'",
            {"dataset": "ice", "names": ("hf",)},
        ),
        (
            SpecificationExists("ice", "hf"),
            "dataset 'ice' already has a different specification 'hf'; choose another name, or "
            "remove the existing one first",
            {"dataset": "ice", "name": "hf"},
        ),
        (
            VersionNotFound("ice", 2),
            "dataset 'ice' has no locked version 2",
            {"dataset": "ice", "number": 2},
        ),
        (
            NothingToAdopt(411, None),
            "record 411 has no late result to adopt",
            {"record_id": 411, "attempt": None},
        ),
        (
            NothingToAdopt(411, 2),
            "record 411 has no late result of attempt 2 to adopt",
            {"attempt": 2},
        ),
        (
            ChangedSince(411, "claimed"),
            "record 411 has been claimed since then; it was left unchanged",
            {"record_id": 411, "event": "claimed"},
        ),
        (
            NotUndoable(411, "commented"),
            "record 411 was commented, which cannot be undone",
            {"record_id": 411, "event": "commented"},
        ),
        (
            CircularFamily(411, 7),
            "record 7 cannot be a child of 411: it is the same record or its ancestor",
            {"parent_id": 411, "child_id": 7},
        ),
        (
            Superseded(411),
            "service 411 has changed since this decision was made; decide again",
            {"record_id": 411},
        ),
        (
            OperationNotFound(UUID(int=7)),
            f"there is no operation {UUID(int=7)} that changed records",
            {"operation_id": UUID(int=7)},
        ),
        (JobNotFound(7), "there is no job 7", {"job_id": 7}),
        (WebhookNotFound(7), "there is no webhook 7", {"webhook_id": 7}),
        (
            TooManyWebhooks(5),
            "there are already 5 webhooks, the maximum (setting webhooks_max); remove one first",
            {"limit": 5},
        ),
        (AddressRefused("no"), "no", {}),
        (
            JobNotEnded(7, "running"),
            "job 7 is running; cancel it, which undoes its changes, or wait until it ends",
            {"job_id": 7, "state": "running"},
        ),
        (
            LibraryMissing("PyArrow", "tables"),
            "PyArrow is required: pip install 'recordledger[tables]'",
            {"library": "PyArrow"},
        ),
        (
            ArchiveInvalid("events.parquet", "it was altered"),
            "events.parquet: it was altered",
            {"part": "events.parquet"},
        ),
        (
            ArchiveFromFuture(at(60), at(0)),
            f"the archive: its newest event is dated {at(60).isoformat()}, but the time here is "
            f"{at(0).isoformat()}; wait, or correct the clocks",
            {"newest": at(60), "now": at(0)},
        ),
        (InvalidInput("a is nan"), "a is nan", {}),
        (
            NotSealedYet(411, 17, 12),
            "record 411 has an event at position 17, but the log is sealed only up to 12; try "
            "again in a few seconds (`recordledger work` seals the log)",
            {"record_id": 411, "position": 17, "sealed": 12},
        ),
        (NothingSealed(), "the log has no seal yet; `recordledger work` seals it", {}),
        (
            TooLarge("the specification", 12, 10, "payload_bytes_max"),
            "the specification has 12, more than the limit of 10 (setting payload_bytes_max)",
            {"what": "the specification", "size": 12, "limit": 10, "setting": "payload_bytes_max"},
        ),
        (
            FutureMoment(9, 7, NOON),
            "position 9 is in the future: the log ends at position 7, and the time is "
            "2026-11-21T12:00:00+00:00",
            {"asked": 9, "head": 7, "now": NOON},
        ),
        (
            BeforeTheBeginning(NOON, 3),
            "2026-11-21T12:00:00+00:00 is before the first event: the log begins at position 3",
            {"asked": NOON, "first": 3},
        ),
        (
            BeforeTheBeginning(0, None),
            "position 0 is before the first event: the log is empty",
            {"asked": 0, "first": None},
        ),
        (
            RebuildRunning("recordledger"),
            "another rebuild of recordledger is running or was killed a moment ago; wait until "
            "it ends",
            {"schema": "recordledger"},
        ),
        (
            TimelineBehind(7, 9),
            "position 9 was requested, but the tables of the past have reached only 7; try again "
            "later and check that `recordledger work` is running",
            {"position": 7, "wanted": 9},
        ),
        (
            ImpossibleHistory("record 411", 3, "no"),
            "record 411, version 3: no",
            {"stream": "record 411", "version": 3},
        ),
        (
            UnknownEvent("teleported"),
            "unknown event teleported; upgrade recordledger",
            {"topic": "teleported", "version": None},
        ),
        (
            UnknownEvent("claimed", 9),
            "unknown event claimed in version 9; upgrade recordledger",
            {"topic": "claimed", "version": 9},
        ),
        (
            UnreadableEvent("held", "incomplete input"),
            "the stored bytes are not a valid event held: incomplete input",
            {"topic": "held", "why": "incomplete input"},
        ),
    ],
    ids=lambda value: value.code if isinstance(value, LedgerError) else "",
)
def test_an_error_says_what_to_do_and_has_its_facts(
    error: LedgerError, message: str, facts: dict[str, object]
) -> None:
    assert str(error) == message
    assert {name: getattr(error, name) for name in facts} == facts
