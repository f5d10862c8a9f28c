"""The mapper: every event comes back as it went, in bytes that any msgpack reader understands."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin
from uuid import UUID

import msgpack
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel

from recordledger.domain.admin.access import TOKEN_EVENTS, Role, TokenIssued, TokenRevoked
from recordledger.domain.admin.divergence import (
    DIVERGENCE_EVENTS,
    DivergenceFound,
    DivergenceGone,
    DivergenceRepaired,
    RowFault,
)
from recordledger.domain.admin.job import (
    JOB_EVENTS,
    JobAdvanced,
    JobCancelled,
    JobCancelRequested,
    JobFinished,
    JobSubmitted,
)
from recordledger.domain.admin.webhook import (
    WEBHOOK_EVENTS,
    WebhookAdded,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookFilter,
    WebhookRemoved,
)
from recordledger.domain.aggregates import EVENT_TYPES
from recordledger.domain.dataset import (
    DATASET_EVENTS,
    DatasetCreated,
    DatasetDeleted,
    DatasetDescribed,
    DatasetRenamed,
    EntriesAdded,
    EntriesRemoved,
    EntriesRenamed,
    RecordsLinked,
    RecordsUnlinked,
    SpecificationAdded,
    SpecificationRemoved,
    VersionLocked,
)
from recordledger.domain.errors import UnknownEvent, UnreadableEvent
from recordledger.domain.records import events as e
from recordledger.domain.records.events import (
    RECORD_EVENTS,
    Event,
    Kind,
    Outcome,
    Payload,
    Priority,
)
from recordledger.domain.routing.manager import (
    MANAGER_EVENTS,
    ManagerDeactivated,
    ManagerDeclaredLost,
    ManagerDraining,
    ManagerRegistered,
    ProgramProbed,
    ProgramResumed,
    ProgramsChanged,
    ProgramSuspended,
)
from recordledger.domain.streams import ID_MAX, Stream, stream_uuid
from recordledger.projections.log.mapper import (
    VERSION_KEY,
    EventMapper,
    MsgpackTranscoder,
    Recorded,
    pack_outcome,
    unpack_outcome,
)
from recordledger.projections.log.upcasters import UPCASTERS, Shape, Upcaster, upcast

SHAPES: Final = Path(__file__).parent / "shapes"
MAPPER: Final = EventMapper(MsgpackTranscoder())
ALL_EVENTS: Final = (
    *RECORD_EVENTS,
    *MANAGER_EVENTS,
    *TOKEN_EVENTS,
    *JOB_EVENTS,
    *WEBHOOK_EVENTS,
    *DATASET_EVENTS,
    *DIVERGENCE_EVENTS,
)

# Building events from their models

LEAVES: Final[Mapping[Any, st.SearchStrategy[Any]]] = {
    str: st.text(st.characters(codec="utf-8")),
    int: st.integers(0, ID_MAX),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(min_size=32, max_size=32),  # the only bytes in events are digests
    UUID: st.uuids(),
    Any: st.none() | st.booleans() | st.integers(0, ID_MAX) | st.text(),  # options of a job
    AwareDatetime: st.datetimes(
        datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn apart
        datetime(9999, 12, 30),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))]),
    ),
    types.NoneType: st.none(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return what can stand in a field of this type."""
    origin: Any = get_origin(annotation)
    arguments = get_args(annotation)
    if origin in (types.UnionType, Union):
        return st.one_of(*map(values, arguments))
    if origin is Annotated:
        return values(arguments[0])
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=4)
    if issubclass(annotation, BaseModel):
        return models(annotation)
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return LEAVES[annotation]


def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return instances of a model, with all that its fields can hold."""
    fields = {name: values(field.annotation) for name, field in model.model_fields.items()}
    return st.builds(model, **fields)


@pytest.mark.parametrize("event_type", ALL_EVENTS)
@settings(deadline=None, max_examples=20)
@for_all(st.data())
def test_every_event_comes_back_as_it_went(event_type: type[Event], data: st.DataObject) -> None:
    event = data.draw(models(event_type))
    recorded = Recorded(Stream.record, data.draw(st.integers(0, ID_MAX)), 7, event)
    stored = MAPPER.to_stored_event(recorded)
    assert stored.topic == event_type.topic
    assert stored.originator_id == stream_uuid(Stream.record, recorded.number)
    assert stored.originator_version == 7
    assert MAPPER.to_domain_event(stored) == recorded


@pytest.mark.parametrize("event_type", ALL_EVENTS)
@settings(deadline=None, max_examples=10)
@for_all(st.data())
def test_the_bytes_are_a_plain_map_of_the_fields(
    event_type: type[Event], data: st.DataObject
) -> None:
    event = data.draw(models(event_type))
    shape = msgpack.unpackb(MAPPER.state_of(event), timestamp=3, strict_map_key=True)
    said = {name for name, value in event if value is not None}
    assert set(shape) - {VERSION_KEY} == said
    assert shape.get(VERSION_KEY, 1) == event_type.class_version
    assert all(map(is_plain, parts(shape)))


def parts(value: Any) -> Iterator[Any]:
    """Yield a value and everything inside it."""
    yield value
    if isinstance(value, dict):
        for name, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from parts(name)
            yield from parts(item)
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            yield from parts(item)


def is_plain(value: Any) -> bool:
    """Return whether msgpack has it without an extension, but for its own timestamp."""
    return type(value) in (dict, list, str, int, float, bytes, bool, datetime, type(None))


@settings(deadline=None, max_examples=50)
@for_all(models(Outcome))
def test_an_outcome_comes_back_from_the_records_table(outcome: Outcome) -> None:
    assert unpack_outcome(pack_outcome(outcome)) == outcome


@settings(deadline=None, max_examples=50)
@for_all(st.lists(models(Outcome), min_size=1, max_size=3))
def test_events_that_differ_in_their_outcomes_have_the_bytes_of_each(
    outcomes: list[Outcome],
) -> None:
    [first, *_] = EXAMPLES["completed"]
    events = [first.model_copy(update={"outcome": outcome}) for outcome in outcomes]
    assert MAPPER.states_of(first, outcomes) == [MAPPER.state_of(event) for event in events]


def test_one_mapper_serves_many_threads() -> None:
    events = [EXAMPLES[topic][0] for topic in EVENT_TYPES]
    expected = [MAPPER.state_of(event) for event in events]

    def encode(_: int) -> bool:
        return all([MAPPER.state_of(event) for event in events] == expected for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(encode, range(32)))


# Topics


def test_topics_are_short_and_each_is_one_event() -> None:
    assert len(EVENT_TYPES) == len(ALL_EVENTS) == len(set(ALL_EVENTS))
    assert {event_type.topic for event_type in ALL_EVENTS} == set(EVENT_TYPES)
    assert all(topic.isidentifier() and len(topic) <= 24 for topic in EVENT_TYPES)


def test_an_event_of_an_unknown_topic_is_not_skipped() -> None:
    stored = MAPPER.to_stored_event(Recorded(Stream.record, 1, 1, EXAMPLES["created"][0]))
    later = type(stored)(stored.originator_id, 1, "invented_later", stored.state)
    with pytest.raises(UnknownEvent, match="invented_later") as unknown:
        MAPPER.to_domain_event(later)
    assert unknown.value.topic == "invented_later"


def test_an_event_in_a_newer_shape_is_not_guessed_at() -> None:
    shape = msgpack.unpackb(MAPPER.state_of(EXAMPLES["held"][0]), timestamp=3)
    newer = msgpack.packb(shape | {VERSION_KEY: 2, "until": "tomorrow"}, datetime=True)
    with pytest.raises(UnknownEvent, match="held in version 2") as unknown:
        MAPPER.event_of("held", newer)
    assert unknown.value.version == 2


def test_a_field_that_the_event_does_not_have_is_refused() -> None:
    shape = msgpack.unpackb(MAPPER.state_of(EXAMPLES["held"][0]), timestamp=3)
    with pytest.raises(UnreadableEvent, match="held: until: Extra inputs are not permitted"):
        MAPPER.event_of("held", msgpack.packb(shape | {"until": "tomorrow"}, datetime=True))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (b"", "incomplete input"),
        (b"\xc1", "not valid msgpack"),
        (b"\x80", "timestamp: Field required"),
        (b"\x91\x01", "stored event is not a msgpack map"),
        (b"\x07", "stored event is not a msgpack map"),
        (msgpack.packb({"operation_id": b"short"}), "16-char"),
        (msgpack.packb({VERSION_KEY: "two"}), "not supported"),
    ],
)
def test_bytes_that_are_no_event_are_refused_with_what_is_wrong(state: bytes, why: str) -> None:
    with pytest.raises(UnreadableEvent, match=why):
        MAPPER.event_of("held", state)


@for_all(st.data())
def test_altered_bytes_are_another_event_or_none(data: st.DataObject) -> None:
    event = data.draw(st.sampled_from([examples[0] for examples in EXAMPLES.values()]))
    state = bytearray(MAPPER.state_of(event))
    state[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(MAPPER.event_of(event.topic, bytes(state)), Event)
    except (UnknownEvent, UnreadableEvent) as error:
        assert event.topic in str(error)  # noqa: PT017 - either is right


# Upcasters


def _v1_to_2(shape: Shape) -> Shape:
    return {**shape, "seen": [1]}


def _v2_to_3(shape: Shape) -> Shape:
    return {**shape, "seen": [*shape["seen"], 2]}


CHAIN: Final[Mapping[tuple[str, int], Upcaster]] = {
    ("held", 1): _v1_to_2,
    ("held", 2): _v2_to_3,
    ("released", 1): lambda shape: {**shape, "wrong": True},
}


@pytest.mark.parametrize(
    ("version", "seen"), [(1, {"seen": [1, 2]}), (2, {"seen": [0, 2]}), (3, {"seen": [0]})]
)
def test_a_shape_goes_through_every_step_to_the_newest(
    version: int, seen: dict[str, list[int]]
) -> None:
    old: Shape = {"seen": [0]} if version > 1 else {}
    assert upcast("held", old, version, 3, CHAIN) == seen


def test_a_missing_step_is_named() -> None:
    with pytest.raises(UnknownEvent) as unknown:
        upcast("held", {}, 1, 4, CHAIN)
    assert (unknown.value.topic, unknown.value.version) == ("held", 3)


def test_an_event_in_a_later_version_is_stored_with_it_and_read_through_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = MAPPER.state_of(EXAMPLES["commented"][0])
    monkeypatch.setattr(e.Commented, "class_version", 2)
    new = MAPPER.state_of(EXAMPLES["commented"][0])
    assert msgpack.unpackb(new, timestamp=3)[VERSION_KEY] == 2
    assert MAPPER.event_of("commented", new) == EXAMPLES["commented"][0]
    with pytest.raises(UnknownEvent):
        MAPPER.event_of("commented", old)


def test_every_old_shape_has_its_upcaster_and_no_other_is_there() -> None:
    needed = {
        (topic, version)
        for topic, event_type in EVENT_TYPES.items()
        for version in range(1, event_type.class_version)
    }
    assert set(UPCASTERS) == needed


# Stored shapes: what is in somebody's log must be read for ever

T: Final = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LATER: Final = datetime(2026, 3, 1, 12, 32, 15, 123457, tzinfo=UTC)
FULL: Final[Mapping[str, Any]] = {
    "timestamp": T,
    "actor": "user:alice",
    "operation_id": UUID("12345678-9abc-4def-8123-456789abcdef"),
    "reason": "wrong basis set: def2-SVP \u2192 def2-TZVP",
    "action": "cancel",
    "cause": 409,
    "undoes": UUID("12345678-9abc-4def-8123-000000000000"),
}
# What events could not say before records were managed.
LATER_FIELDS: Final = ("action", "cause", "undoes", "resubmission_of")
BARE: Final[Mapping[str, Any]] = {
    **{name: value for name, value in FULL.items() if name not in LATER_FIELDS},
    "reason": None,
}


def _ref(number: int) -> Payload:
    return Payload(digest=bytes([number]) * 32, size_bytes=number * 1000)


GOOD: Final = Outcome(
    result=_ref(1), stdout=_ref(2), stderr=_ref(3), provenance=_ref(4), compute_s=1.25
)
BAD: Final = Outcome(
    error_type="ConvergenceError",
    error_message="SCF failed after 100 iterations",
    traceback=_ref(5),
    stdout=_ref(2),
    stderr=_ref(3),
    provenance=_ref(4),
    compute_s=0.5,
)
# What was said has been a payload since an erasure destroys it; before, it was in the event.
SAID: Final = BAD.model_copy(update={"error_message": _ref(11)})
# How many processors a task was given has been told since some time after that.
WIDE: Final = GOOD.model_copy(update={"cores": 4})
WIDE_SAID: Final = SAID.model_copy(update={"cores": 4})
SPEC: Final[Mapping[str, Any]] = {
    "kind": Kind.task,
    "spec": _ref(6),
    "function": "qm:energy",
    "required_programs": ("psi4<2,>=1.9", "rdkit"),
    "tag": "gpu",
    "priority": Priority.high,
}

# For each topic, an event with everything that it can say, and others that say less. The first
# line of `shapes/<topic>.v1.hex` is the first of these as version 1 stored it, and so on. A change
# of an event needs a new class_version, an upcaster, and a file for the new version; the old
# files stay as they are, and so do these events, in what is then their newest shape. Only a field
# that may be missing needs none: an event that has it becomes the first, and the others stay.
_EXAMPLES: Final[Mapping[str, tuple[Event, ...]]] = {
    "created": (
        e.Created(**SPEC, retries=3, resubmission_of=410, **FULL),
        e.Created(**{**SPEC, "kind": Kind.service, "required_programs": ()}, **BARE),
    ),
    "claimed": (e.Claimed(attempt=2, manager_id=ID_MAX, lease_expires_at=LATER, **FULL),),
    "service_started": (e.ServiceStarted(attempt=1, runner="server:runner", **FULL),),
    "service_iterated": (
        e.ServiceIterated(
            iteration=4, state=_ref(7), children=(411, ID_MAX), output=_ref(8), **FULL
        ),
        e.ServiceIterated(iteration=1, state=_ref(7), **BARE),
    ),
    "completed": (
        e.Completed(attempt=1, outcome=GOOD, **FULL),
        e.Completed(attempt=1, outcome=Outcome(), **BARE),
    ),
    "errored": (e.Errored(attempt=1, outcome=BAD, **FULL),),
    "late_result": (
        e.LateResult(attempt=1, manager_id=7, outcome=GOOD, **FULL),
        e.LateResult(attempt=2, manager_id=7, outcome=BAD, **BARE),
    ),
    "result_adopted": (e.ResultAdopted(attempt=1, outcome=GOOD, **FULL),),
    "lease_expired": (e.LeaseExpired(attempt=1, **FULL),),
    "manager_lost": (e.ManagerLost(attempt=1, manager_id=7, **FULL),),
    "relinquished": (e.Relinquished(attempt=1, manager_id=7, **FULL),),
    "reset": (e.Reset(retry=2, **FULL), e.Reset(**BARE)),
    "failed": (e.Failed(**FULL),),
    "revived": (e.Revived(**FULL),),
    "held": (e.Held(**FULL), e.Held(**BARE)),
    "released": (e.Released(**FULL),),
    "cancelled": (e.Cancelled(**FULL),),
    "uncancelled": (e.Uncancelled(**FULL),),
    "invalidated": (e.Invalidated(**FULL),),
    "uninvalidated": (e.Uninvalidated(**FULL),),
    "soft_deleted": (e.SoftDeleted(**FULL),),
    "undeleted": (e.Undeleted(**FULL),),
    "resubmitted": (e.Resubmitted(new_record_id=412, **FULL),),
    "commented": (e.Commented(text="wrong minimum \N{PENSIVE FACE}", **FULL),),
    "rerouted": (
        e.Rerouted(tag="a_new_tag", priority=Priority.low, **FULL),
        e.Rerouted(**BARE),
    ),
    "erased": (e.Erased(**FULL),),
    "manager_registered": (
        ManagerRegistered(
            name="cluster",
            hostname="node7",
            tags=("gpu", "*"),
            programs={"psi4": "1.9.1", "rdkit": None},
            lease_s=120.0,
            heartbeat_s=30.0,
            **FULL,
        ),
    ),
    "manager_deactivated": (ManagerDeactivated(**FULL),),
    "manager_declared_lost": (ManagerDeclaredLost(**FULL),),
    "token_issued": (
        TokenIssued(user="alice", role=Role.admin, token_hash=b"\7" * 32, expires_at=LATER, **FULL),
        TokenIssued(user="alice", role=Role.reader, token_hash=b"\7" * 32, **BARE),
    ),
    "token_revoked": (TokenRevoked(**FULL),),
}


# What has been added since: these come first.
_WITH_NEWER_FIELDS: Final[Mapping[str, tuple[Event, ...]]] = {
    "created": (
        e.Created(
            **SPEC,
            retries=3,
            retry_delay_s=12.5,
            retry_on=("OSError", "!ValueError"),
            resubmission_of=410,
            refers_to=(_ref(3), _ref(4)),
            **FULL,
        ),
        e.Created(
            **SPEC,
            retries=3,
            retry_delay_s=12.5,
            retry_on=("OSError", "!ValueError"),
            resubmission_of=410,
            **FULL,
        ),
    ),
    "service_iterated": (
        e.ServiceIterated(
            iteration=4,
            state=_ref(7),
            children=(411, ID_MAX),
            output=_ref(8),
            keys=("x=1", "x=2"),
            awaits=("x=0",),
            any_child=True,
            takes_errors=True,
            wake_at=LATER,
            progress=0.25,
            code_version="2",
            **FULL,
        ),
    ),
    "reset": (e.Reset(retry=2, not_before=LATER, **FULL),),
    "completed": (e.Completed(attempt=1, outcome=WIDE, **FULL),),
    "result_adopted": (e.ResultAdopted(attempt=1, outcome=WIDE, **FULL),),
}


def _without_later_fields(event: Event) -> Event:
    known = {name: value for name, value in event if name not in LATER_FIELDS}
    return type(event)(**known)


def _in_order(examples: tuple[Event, ...]) -> tuple[Event, ...]:
    return (examples[0], _without_later_fields(examples[0]), *examples[1:])


EXAMPLES: Final[Mapping[str, tuple[Event, ...]]] = {
    **{
        topic: (*_WITH_NEWER_FIELDS.get(topic, ()), *_in_order(examples))
        for topic, examples in _EXAMPLES.items()
    },
    "retry_due": (e.RetryDue(**FULL),),
    "imported": (
        e.Imported(
            origin_ledger=UUID("12345678-9abc-4def-8123-111111111111"),
            origin_id=ID_MAX,
            archive_digest=b"\x0f" * 32,
            **FULL,
        ),
    ),
    "manager_draining": (ManagerDraining(**FULL),),
    "programs_changed": (ProgramsChanged(programs={"psi4": "1.9.2", "xtb": None}, **FULL),),
    "program_suspended": (
        ProgramSuspended(
            program="psi4", n_times=2, n_failures=11, error_type="OSError", until=LATER, **FULL
        ),
    ),
    "program_probed": (ProgramProbed(program="psi4", record_id=411, until=LATER, **FULL),),
    "program_resumed": (ProgramResumed(program="psi4", **FULL),),
    "errored": (
        e.Errored(attempt=1, outcome=WIDE_SAID, **FULL),
        e.Errored(attempt=1, outcome=SAID, **FULL),
        *_in_order(_EXAMPLES["errored"]),
    ),
    "late_result": (
        e.LateResult(attempt=1, manager_id=7, outcome=WIDE_SAID, **FULL),
        e.LateResult(attempt=1, manager_id=7, outcome=SAID, **FULL),
        *_in_order(_EXAMPLES["late_result"]),
    ),
    "commented": (
        e.Commented(text=_ref(12), **FULL),
        *_in_order(_EXAMPLES["commented"]),
    ),
    "reverted": (
        e.Reverted(
            status="error",
            outcome=WIDE_SAID,
            manager_id=7,
            finished_at=LATER,
            retries_used=2,
            **FULL,
        ),
        e.Reverted(
            status="error", outcome=SAID, manager_id=7, finished_at=LATER, retries_used=2, **FULL
        ),
        e.Reverted(
            status="error", outcome=BAD, manager_id=7, finished_at=LATER, retries_used=2, **FULL
        ),
        e.Reverted(status="waiting", **BARE),
    ),
    "job_submitted": (
        JobSubmitted(
            ids=_ref(9),
            n_total=30_000,
            options={"tag": None, "priority": 2, "propagate": True},
            text=_ref(12),
            **FULL,
        ),
        JobSubmitted(
            ids=_ref(9),
            n_total=30_000,
            options={"tag": None, "priority": 2, "propagate": True},
            **FULL,
        ),
    ),
    "job_advanced": (
        JobAdvanced(
            n_done=2_000, n_updated=1_990, n_relatives=7, n_refused=10, refusals=_ref(10), **FULL
        ),
        JobAdvanced(n_done=2_000, n_updated=2_000, n_relatives=0, n_refused=0, **BARE),
    ),
    "job_finished": (JobFinished(released=_ref(12), **FULL), JobFinished(**FULL)),
    "job_cancel_requested": (JobCancelRequested(**FULL),),
    "job_cancelled": (JobCancelled(released=_ref(12), **FULL), JobCancelled(**FULL)),
    "dataset_created": (
        DatasetCreated(name="water", description="clusters", cloned_from=7, **FULL),
        DatasetCreated(name="water", **BARE),
    ),
    "dataset_renamed": (DatasetRenamed(name="ice", **FULL),),
    "dataset_described": (DatasetDescribed(description="", **FULL),),
    "entries_added": (EntriesAdded(first=3, names=("dimer", "trimer"), inputs=_ref(9), **FULL),),
    "entries_renamed": (EntriesRenamed(entries=(3,), names=("pair",), **FULL),),
    "entries_removed": (EntriesRemoved(entries=(3, 2**31 - 1), **FULL),),
    "specification_added": (
        SpecificationAdded(
            specification=1,
            name="hf",
            kind=Kind.task,
            function="psi4",
            kwargs=_ref(9),
            required_programs=("psi4>=1.9",),
            tag="gpu",
            priority=Priority.high,
            retries=3,
            retry_delay_s=10.0,
            retry_on=("OSError",),
            **FULL,
        ),
        SpecificationAdded(
            specification=2,
            name="mp2",
            kind=Kind.service,
            function="psi4",
            kwargs=_ref(9),
            tag="gpu",
            priority=Priority.low,
            **BARE,
        ),
    ),
    "specification_removed": (SpecificationRemoved(specification=1, **FULL),),
    "records_linked": (
        RecordsLinked(specification=1, entries=(1, 2), record_ids=(411, ID_MAX), **FULL),
    ),
    "records_unlinked": (RecordsUnlinked(specification=1, entries=(2,), **FULL),),
    "version_locked": (
        VersionLocked(number=1, label="as published", doi="10.1000/182", **FULL),
        VersionLocked(number=2, **BARE),
    ),
    "dataset_deleted": (DatasetDeleted(**FULL),),
    "webhook_added": (
        WebhookAdded(
            url="https://lab.example.org/ledger",
            filter=WebhookFilter(
                kinds=("errored",), tags=("gpu",), actors=("user:ann",), dataset_id=7
            ),
            after=411,
            **FULL,
        ),
        WebhookAdded(url="https://x.org", filter=WebhookFilter(), after=0, **BARE),
    ),
    "webhook_changed": (
        WebhookChanged(url="https://x.org", filter=WebhookFilter(kinds=("held",)), **FULL),
        WebhookChanged(**BARE),
    ),
    "webhook_enabled": (WebhookEnabled(**FULL),),
    "webhook_disabled": (
        WebhookDisabled(failing_since=LATER, error="answered 500", **FULL),
        WebhookDisabled(**BARE),
    ),
    "webhook_removed": (WebhookRemoved(**FULL),),
    "divergence_found": (
        DivergenceFound(
            table="records",
            key=("411",),
            fault=RowFault.changed,
            columns=("status", "version"),
            **FULL,
        ),
        DivergenceFound(table="comments", key=("411", "3"), fault=RowFault.missing, **BARE),
    ),
    "divergence_repaired": (DivergenceRepaired(**FULL),),
    "divergence_gone": (DivergenceGone(**FULL),),
}


def shape_files() -> list[Path]:
    return sorted(SHAPES.glob("*.hex"))


def lines_of(path: Path) -> list[bytes]:
    return [bytes.fromhex(line) for line in path.read_text("ascii").splitlines()]


def test_there_is_a_stored_example_of_every_shape_that_ever_was() -> None:
    ever = {
        f"{topic}.v{version}.hex"
        for topic, event_type in EVENT_TYPES.items()
        for version in range(1, event_type.class_version + 1)
    }
    assert {path.name for path in shape_files()} == ever
    assert set(EXAMPLES) == set(EVENT_TYPES)


@pytest.mark.parametrize("path", shape_files(), ids=lambda path: path.stem)
def test_a_stored_example_is_read_as_the_event_that_it_was(path: Path) -> None:
    topic = path.name.partition(".")[0]
    decoded = [MAPPER.event_of(topic, state) for state in lines_of(path)]
    assert tuple(decoded) == EXAMPLES[topic]


@pytest.mark.parametrize("topic", EVENT_TYPES)
def test_what_is_written_today_is_the_newest_stored_example(topic: str) -> None:
    newest = SHAPES / f"{topic}.v{EVENT_TYPES[topic].class_version}.hex"
    written = [MAPPER.state_of(event).hex() for event in EXAMPLES[topic]]
    assert [state.hex() for state in lines_of(newest)] == written


@pytest.mark.parametrize("topic", EVENT_TYPES)
def test_the_first_example_says_all_that_its_event_can_say(topic: str) -> None:
    event = EXAMPLES[topic][0]
    assert type(event) is EVENT_TYPES[topic]
    assert [name for name, value in event if value is None] == []
