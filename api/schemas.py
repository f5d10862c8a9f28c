"""The shapes of requests and answers: what the server checks and what the client sends.

Both sides import this module, so it imports neither. In msgpack, bytes and timestamps travel as
such; in JSON, payloads travel as the JSON values that they are, and timestamps in ISO 8601.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from recordledger.domain.admin.access import Role
from recordledger.domain.admin.divergence import DivergenceState, Fault
from recordledger.domain.admin.job import JobState
from recordledger.domain.admin.webhook import URL_CHARACTERS_MAX
from recordledger.domain.records.retries import DELAY_S_MAX, PATTERNS_MAX, RETRIES_MAX
from recordledger.domain.records.status import Status
from recordledger.domain.routing.manager import ManagerState
from recordledger.domain.streams import ID_MAX

RecordId = Annotated[int, Field(ge=1, le=ID_MAX)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")
]
PriorityName = Literal["low", "normal", "high"]
_POSITION: Final = re.compile(r"@?(\d{1,19})", re.ASCII)


def moment_in(value: Any) -> Any:
    """Return a position or a time that somebody has named; positions may be written with an @.

    >>> moment_in("@411")
    411

    Raises:
        ValueError: it is neither; no time zone, for instance.
    """
    if isinstance(value, str):
        if found := _POSITION.fullmatch(value):
            value = int(found[1])
        else:
            value = datetime.fromisoformat(value)
    match value:
        case bool():
            pass
        case int() if 0 <= value <= ID_MAX:
            return value
        case datetime(tzinfo=zone) if zone is not None:
            return value
        case _:
            pass
    raise ValueError("it is neither a position of the log nor a time with a time zone")


AsOf = Annotated[
    int | AwareDatetime,
    BeforeValidator(moment_in),
    Field(
        description="As it was then: a position of the log, or a time: up to the last event before "
        "the first one that is later.",
        examples=[411, "2026-03-01T12:00:00Z"],
    ),
]

# Limits that hold whatever the settings say: they keep one request's cost bounded.
IDS_MAX: Final = 10_000
CLAIM_MAX: Final = 1_000
PAGE_MAX: Final = 1_000
MANAGED_MAX: Final = 1_000_000


class Message(BaseModel):
    """Base of every request: unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """Base of every answer: fields that a newer server adds are ignored by an older client."""

    model_config = ConfigDict(extra="ignore")


class Refusal(Answer):
    """Why one entry of a bulk call was refused: its index, a stable code and a sentence."""

    idx: int
    code: str
    message: str


class Problem(Answer):
    """An error (RFC 9457). `code` is stable; `detail` says what was wrong and what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


# Records ---------------------------------------------------------------------------------------


class RecordIn(Message):
    """A record to create."""

    function: str = Field(examples=["recordledger.workers.demo.functions:quadratic"])
    kwargs: dict[str, Any] = Field(default_factory=dict[str, Any], examples=[{"x": 1.5}])
    required_programs: list[str] = Field(
        default_factory=list[str], max_length=50, examples=[["psi4>=1.9"]]
    )
    tag: str = Field(default="default", examples=["gpu"])
    priority: PriorityName = "normal"
    retries: int = Field(
        default=0, ge=0, le=RETRIES_MAX, description="How many errors are reset by themselves."
    )
    retry_delay_s: float = Field(
        default=0,
        ge=0,
        le=DELAY_S_MAX,
        description="Pause before the first retry, in seconds; it doubles with each further one.",
    )
    retry_on: list[str] = Field(
        default_factory=list[str],
        max_length=PATTERNS_MAX,
        description="Patterns of the error types that qualify; `!` before one excludes.",
        examples=[["OSError", "*Timeout*"]],
    )
    kind: Literal["task", "service"] = Field(
        default="task", description="Whether managers run it as a whole, or the server iterates it."
    )


class CreateRequest(Message):
    """Records to create, in one operation: all valid ones or none."""

    records: list[Any] = Field(
        description="Each a RecordIn; a wrong one is refused by its index and spoils no other.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/RecordIn"}},
    )
    find_existing: bool = True
    reason: Text | None = None


class CreateAnswer(Answer):
    """What became of each entry, by its index: `ids` has None where an entry was refused."""

    operation_id: str | None
    ids: list[int | None]
    inserted_idx: list[int]
    existing_idx: list[int]
    errors: list[Refusal]


Include = Literal["kwargs", "result", "stdout", "stderr", "traceback", "provenance"]
AttemptInclude = Literal["result", "stdout", "stderr", "traceback", "provenance"]


class GetRequest(Message):
    """Records by id, in the order of the ids."""

    ids: list[RecordId] = Field(max_length=IDS_MAX)
    include: list[Include] = Field(default_factory=list[Include])
    missing_ok: bool = False
    as_of: AsOf | None = None


class MomentOut(Answer):
    """Of which moment an answer is: the position of the last event it knows, and when that was."""

    position: int
    happened_at: AwareDatetime


class RecordOut(Answer):
    """A record as it is, or was. Payloads are there only if they were asked for by `include`.

    `erased`: it was hard-deleted since then, so that its payloads are destroyed.
    """

    id: int
    status: Status
    kind: Literal["task", "service"]
    function: str
    required_programs: list[str]
    tag: str
    priority: PriorityName
    owner: str
    fingerprint: str
    created_at: AwareDatetime
    modified_at: AwareDatetime
    attempt: int
    manager_id: int | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    compute_s: float | None
    error_type: str | None
    error_message: str | None
    retries: int
    retry_delay_s: float = 0.0
    retry_on: list[str] = Field(default_factory=list[str])
    retries_used: int
    not_before: AwareDatetime | None = None
    version: int
    kwargs: dict[str, Any] | None = None
    result: Any = None
    stdout: str | None = None
    stderr: str | None = None
    traceback: str | None = None
    provenance: dict[str, Any] | None = None
    erased: bool = False


class GetAnswer(Answer):
    """The records, in the order of the ids asked for; None where there is none.

    `as_of` is there if it was asked for, here and in other answers.
    """

    records: list[RecordOut | None]
    as_of: MomentOut | None = None


class RecordQuery(Message):
    """Which records: those that meet every condition that is given. Newest first."""

    ids: list[RecordId] | None = Field(default=None, max_length=IDS_MAX)
    status: list[Status] | None = Field(default=None, max_length=9)
    tag: list[Text] | None = Field(default=None, max_length=100)
    owner: list[Text] | None = Field(default=None, max_length=100)
    manager_id: list[RecordId] | None = Field(default=None, max_length=100)
    function: list[Text] | None = Field(default=None, max_length=100)
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    modified_after: AwareDatetime | None = None
    modified_before: AwareDatetime | None = None
    dataset: RecordId | ShortText | None = Field(
        default=None, description="Records of this dataset, by id or name."
    )
    specification: list[Text] | None = Field(
        default=None, max_length=1_000, description="Of the dataset: only these, by name."
    )
    entry: list[Text] | None = Field(
        default=None, max_length=IDS_MAX, description="Of the dataset: only these, by name."
    )


class QueryRequest(Message):
    """One page of a query; `cursor` is the `next_cursor` of the page before."""

    query: RecordQuery = Field(default_factory=RecordQuery)
    include: list[Include] = Field(default_factory=list[Include])
    limit: int = Field(default=250, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(default=None, max_length=200)
    as_of: AsOf | None = None


class QueryAnswer(Answer):
    """One page; `next_cursor` is None on the last.

    To go on in a query of an earlier moment, name the position of its `as_of`.
    """

    records: list[RecordOut]
    next_cursor: str | None
    as_of: MomentOut | None = None


class ServiceChildOut(Answer):
    """A child of a service by the service's own name for it, as it is now."""

    key: str
    record_id: int
    status: Status | None


class ServiceAnswer(Answer):
    """Where a service stands, or stood after the iteration that was asked for.

    `awaited` are the children that it waits, or waited, for: the first ones of `n_awaited`.
    `output` is what it has said: in all iterations, or in the one that was asked for.
    """

    record_id: int
    status: Status
    function: str
    iteration: int
    decided_at: AwareDatetime | None
    code_version: str | None
    progress: float | None
    n_children: int
    awaited: list[ServiceChildOut]
    n_awaited: int
    until: Literal["all", "any"]
    takes_errors: bool
    wake_at: AwareDatetime | None
    due: bool
    state: Any
    output: str


class TreeNodeOut(Answer):
    """A record in the tree below a service; `n_more` of its children are not shown.

    `is_repeated`: another service has it too, and its children are shown there.
    """

    record_id: int
    parent_id: int | None
    key: str
    status: Status
    kind: Literal["task", "service"]
    function: str
    iteration: int
    awaited: bool
    n_more: int
    is_repeated: bool


class TreeAnswer(Answer):
    """A record and what is below it: parents before their children, level by level."""

    record_id: int
    nodes: list[TreeNodeOut]


class EventOut(Answer):
    """One event of a history. `data` holds the fields of its own kind; digests are in hex.

    A comment or an error's message whose text was destroyed is its digest and size, and `erased`.
    """

    position: int
    version: int
    kind: str
    timestamp: AwareDatetime
    actor: str
    operation_id: str
    reason: str | None
    data: dict[str, Any]


class LogEventOut(EventOut):
    """One event of the log, and what it happened to.

    Of the long lists of datasets there is only the beginning, and how long they are.
    """

    stream: Literal["record", "manager", "dataset", "job", "divergence"]
    id: int


class EventsAnswer(Answer):
    """A page of the log. Ask again from `next_after`; where that is the `head`, there is no more.

    A page may be empty before the end: with filters, only so much of the log is looked at.
    """

    events: list[LogEventOut]
    next_after: int
    head: int


class HistoryAnswer(Answer):
    """The events of one record, oldest first."""

    record_id: int
    events: list[EventOut]


class PeriodOut(Answer):
    """A time in which a record was in one status, and in one attempt if it ran.

    `end` is null while it is so, and `duration_s` then goes up to now. `began_by` and `ended_by`
    are kinds of events. `is_pause`: it could not be claimed before the time of a retry had come.
    """

    status: Status
    start: AwareDatetime
    end: AwareDatetime | None
    duration_s: float
    attempt: int | None
    manager_id: int | None
    is_pause: bool
    began_by: str
    ended_by: str | None


class TimelineAnswer(Answer):
    """The life of one record, as periods without gaps, and what the time is by the ledger."""

    record_id: int
    as_of: AwareDatetime
    periods: list[PeriodOut]


class LogHistoryAnswer(Answer):
    """A page of what was done; there is no more where `next_cursor` is null.

    A page may be empty before that, for conditions are looked at in what was read.
    """

    events: list[LogEventOut]
    next_cursor: str | None


class AttemptOut(Answer):
    """One attempt of a record, and what came of it.

    `ended_by` is the event that ended it. `late`: what came of it came when it was over. Outputs
    and the result are there only if they were asked for by `include`.
    """

    number: int
    manager_id: int | None
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    ended_by: str | None
    late: bool
    compute_s: float | None
    cores: int | None
    error_type: str | None
    error_message: str | None
    result: Any = None
    stdout: str | None = None
    stderr: str | None = None
    traceback: str | None = None
    provenance: dict[str, Any] | None = None


class AttemptsAnswer(Answer):
    """Every attempt of a record, in order."""

    record_id: int
    attempts: list[AttemptOut]


class CountsAnswer(Answer):
    """How many records are in each status."""

    counts: dict[Status, int]
    as_of: MomentOut | None = None


class ChangeOut(Answer):
    """What happened to a record between two moments.

    A status and a tag are None where the record was not there: before it was created, or after it
    was erased. `actors` are those of its newest events, of which the last one is told: its `kind`,
    and so on.
    """

    record_id: int
    from_status: Status | None
    to_status: Status | None
    from_tag: str | None
    to_tag: str | None
    n_events: int
    actors: list[str]
    kind: str
    happened_at: AwareDatetime
    actor: str
    action: str | None
    reason: str | None
    operation_id: str


class ChangeCountOut(Answer):
    """How many records went from one status to another; None is not to be there."""

    from_status: Status | None
    to_status: Status | None
    n_records: int


class DiffAnswer(Answer):
    """One page of what changed between two moments, by id; `next_cursor` is None on the last.

    `counts` are of all pages, and come with the first one.
    """

    a: MomentOut
    b: MomentOut
    changes: list[ChangeOut]
    counts: list[ChangeCountOut] | None
    next_cursor: str | None


# Managing records ------------------------------------------------------------------------------


class ManageRequest(Message):
    """What to do something to, and how: exactly one of `ids` and `query`.

    Of the fields from `new_tag` to `propagate`, each action takes its own and refuses the others.
    """

    ids: list[RecordId] | None = Field(default=None, max_length=MANAGED_MAX)
    query: RecordQuery | None = Field(
        default=None, description="The records that meet it when the request is served."
    )
    all: bool = Field(default=False, description="Must be true for a query without any condition.")
    new_tag: str | None = Field(default=None, description="Of `modify`.")
    new_priority: PriorityName | None = Field(default=None, description="Of `modify`.")
    text: Text | None = Field(default=None, min_length=1, description="Of `comment`.")
    attempt: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Of `adopt`: which late result; the newest if not given.",
    )
    delete_children: bool = Field(default=True, description="Of `delete` and `erase`.")
    propagate: bool = Field(
        default=True, description="Of `invalidate`: whether what was made from it follows."
    )
    reason: Text | None = None
    dry_run: bool = Field(default=False, description="Say what would happen, and change nothing.")


class ManageAnswer(Answer):
    """What became of each record, by its index in `ids` (of the request, or of this answer).

    `operation_id` is None where nothing was changed. `ids` are those that a query has found.
    `new_ids` are those of resubmitted records, in the order of the ids, None where there is none.
    With a `job_id` (status 202) the job has only begun, and tells the rest.
    """

    operation_id: str | None
    updated_idx: list[int]
    errors: list[Refusal]
    n_selected: int
    n_children_updated: int
    n_parents_updated: int
    new_ids: list[int | None] = Field(default_factory=list[int | None])
    ids: list[int] | None = None
    job_id: int | None = None


class CommentOut(Answer):
    """What somebody wrote about a record. `version` is its place in the record's history."""

    record_id: int
    version: int
    commented_at: AwareDatetime
    author: str
    text: str


class CommentsAnswer(Answer):
    """One page of comments, oldest first; `next_cursor` is None on the last."""

    comments: list[CommentOut]
    next_cursor: str | None


class RelativesAnswer(Answer):
    """One page of a record's children or parents, by id; `next_cursor` is None on the last."""

    ids: list[int]
    next_cursor: str | None


class ErrorGroupOut(Answer):
    """Records in error that say the same; `newest_ids` are up to five of them."""

    error_type: str | None
    error_message: str | None
    n_records: int
    newest_ids: list[int]
    newest_at: AwareDatetime | None


class ErrorsAnswer(Answer):
    """What the newest 100,000 records in error say, most frequent first."""

    groups: list[ErrorGroupOut]


# Operations, jobs and policies -----------------------------------------------------------------


class OperationOut(Answer):
    """Something that was done to records. `n_changes` counts events, of relatives too."""

    id: str
    action: str
    actor: str
    reason: str | None
    started_at: AwareDatetime
    undoes: str | None
    n_changes: int


class OperationAnswer(OperationOut):
    """An operation, with the operations that undid it, oldest first, and the job that did it."""

    undone_by: list[str]
    job_id: int | None


class OperationsAnswer(Answer):
    """One page of operations, newest first; `next_cursor` is None on the last."""

    operations: list[OperationOut]
    next_cursor: str | None


class UndoRequest(Message):
    """Take back what an operation changed, where nobody has changed it since."""

    reason: Text | None = None
    dry_run: bool = False


class Conflict(Answer):
    """A record that an undo has left as it is, and why."""

    record_id: int
    code: str
    message: str


class UndoAnswer(Answer):
    """How many records are again what they were; `operation_id` is None if there are none.

    With a `job_id` (status 202) the job has only begun, and tells the rest.
    """

    operation_id: str | None
    n_undone: int
    conflicts: list[Conflict]
    job_id: int | None = None


class JobOut(Answer):
    """An operation on many records, and how far it has come. `n_*` count records."""

    id: int
    operation_id: str
    action: str
    state: JobState
    actor: str
    reason: str | None
    n_total: int
    n_done: int
    n_updated: int
    n_relatives: int
    n_refused: int
    created_at: AwareDatetime
    modified_at: AwareDatetime


ImportedKind = Literal["record", "manager", "dataset"]
"""What archives bring."""


class OriginOut(Answer):
    """Where something that was imported came from.

    `id` is its id here, `origin_id` that in the ledger `ledger_id`. `archive_hash` is the
    SHA-256 of the manifest of the archive in which it came, in hexadecimal digits.
    """

    kind: ImportedKind
    id: int
    ledger_id: str
    origin_id: int
    archive_hash: str
    imported_at: AwareDatetime
    imported_by: str


class OriginsAnswer(Answer):
    """One page of origins, by ids here; `next_cursor` is None on the last."""

    origins: list[OriginOut]
    next_cursor: str | None


class JobsAnswer(Answer):
    """One page of jobs, newest first; `next_cursor` is None on the last."""

    jobs: list[JobOut]
    next_cursor: str | None


class JobRefusalOut(Refusal):
    """A record that a job was refused for; `idx` counts the job's distinct records."""

    record_id: int


class JobRefusalsAnswer(Answer):
    """One page of refusals, in the order of `idx`; `next_cursor` is None on the last."""

    refusals: list[JobRefusalOut]
    next_cursor: str | None


class CancelJobRequest(Message):
    """Stop a job, and undo what it has done."""

    reason: Text | None = None


class PoliciesAnswer(Answer):
    """What the server does to records by itself; `actors` are as whom, by policy."""

    auto_reset: dict[str, int]
    failed_after_s: float | None
    adopt_late_results: bool
    actors: dict[str, str]


# Datasets --------------------------------------------------------------------------------------

ExpectedVersion = Annotated[
    int | None,
    Field(
        default=None,
        ge=1,
        description="Refuse, with `dataset_changed`, if the dataset is in another version.",
    ),
]
EntryName = ShortText


class EntryIn(Message):
    """An entry to add. `input` goes into the arguments of its records, `attributes` do not."""

    name: EntryName
    input: dict[str, Any] = Field(default_factory=dict[str, Any])
    attributes: dict[str, Any] = Field(default_factory=dict[str, Any])


class SpecificationIn(RecordIn):
    """How entries are computed. `kwargs` are what an entry's `input` does not say otherwise."""

    name: ShortText


class CreateDatasetRequest(Message):
    """A dataset to make, which is empty."""

    name: ShortText
    description: Text = ""
    reason: Text | None = None


class ModifyDatasetRequest(Message):
    """Another name or description for a dataset; None keeps what it is."""

    new_name: ShortText | None = None
    new_description: Text | None = None
    expected_version: ExpectedVersion
    reason: Text | None = None


class EditDatasetRequest(Message):
    """A change of a dataset that needs no more to be said."""

    expected_version: ExpectedVersion
    reason: Text | None = None


class AddEntriesRequest(EditDatasetRequest):
    """Entries to add, in one operation."""

    entries: list[Any] = Field(
        description="Each an EntryIn; a wrong one is refused by its index and spoils no other.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/EntryIn"}},
    )


class RenameEntriesRequest(EditDatasetRequest):
    """New names by old ones; all of them or none."""

    names: dict[Text, ShortText] = Field(min_length=1, max_length=1_000)


class RemoveEntriesRequest(EditDatasetRequest):
    """Entries to take out of a dataset, with their cells; all of them or none."""

    names: list[Text] = Field(min_length=1, max_length=100_000)


class AddSpecificationRequest(EditDatasetRequest):
    """A specification to add."""

    specification: SpecificationIn


class RemoveSpecificationsRequest(EditDatasetRequest):
    """Specifications to take out of a dataset, with their cells; all of them or none."""

    names: list[Text] = Field(min_length=1, max_length=1_000)


class WhichCells(Message):
    """Which cells of a dataset: those that meet every condition that is given."""

    specifications: list[Text] | None = Field(
        default=None, max_length=1_000, description="By name; all if not given."
    )
    entries: list[Text] | None = Field(
        default=None, max_length=100_000, description="By name; all if not given."
    )
    pattern: Text | None = Field(
        default=None,
        description="Entries whose names are like this: `*` for anything, `?` for one character.",
    )
    attributes: dict[str, Any] | None = Field(
        default=None, description="Entries whose attributes contain these."
    )


class SubmitRequest(WhichCells):
    """Cells that are to get a record, if they have none."""

    find_existing: bool = True
    tag: str | None = Field(default=None, description="Instead of the specifications' own.")
    priority: PriorityName | None = Field(
        default=None, description="Instead of the specifications' own."
    )
    reason: Text | None = None


class UnlinkRequest(WhichCells):
    """Cells to be emptied; their records are as they were."""

    all: bool = Field(default=False, description="Must be true if there is no condition.")
    expected_version: ExpectedVersion
    reason: Text | None = None


class CloneRequest(Message):
    """A dataset with the same entries and specifications."""

    name: ShortText
    description: Text | None = None
    version: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="A locked version; None for what it is now."
    )
    link_records: bool = Field(default=False, description="Whether it has the same records too.")
    reason: Text | None = None


class LockVersionRequest(EditDatasetRequest):
    """Keep the dataset, as it is now, readable for ever."""

    label: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f]*$")] = ""
    doi: ShortText | None = None


class DatasetOut(Answer):
    """A dataset. `counts` are its cells by their records' statuses, `n_records` all of them."""

    id: int
    version: int
    name: str
    description: str
    owner: str
    cloned_from: int | None
    created_at: AwareDatetime
    modified_at: AwareDatetime
    n_entries: int
    n_records: int
    counts: dict[Status, int]


class SpecificationOut(Answer):
    """How the entries of a dataset are computed; `kwargs` only if they were asked for."""

    name: str
    kind: Literal["task", "service"]
    function: str
    required_programs: list[str]
    tag: str
    priority: PriorityName
    retries: int
    retry_delay_s: float
    retry_on: list[str]
    kwargs: dict[str, Any] | None = None


class LockedVersionOut(Answer):
    """A version that stays readable; `version` is what the dataset's own version was."""

    number: int
    version: int
    label: str
    doi: str | None
    n_entries: int
    locked_at: AwareDatetime
    locked_by: str


class DatasetAnswer(DatasetOut):
    """A dataset with its specifications, in the order in which they came, and locked versions."""

    specifications: list[SpecificationOut]
    locked_versions: list[LockedVersionOut]


class DatasetsAnswer(Answer):
    """One page of datasets, newest first; `next_cursor` is None on the last."""

    datasets: list[DatasetOut]
    next_cursor: str | None


class DatasetEdited(Answer):
    """What became of a change; `operation_id` is None where there was nothing to change."""

    operation_id: str | None
    dataset_id: int
    version: int
    n_changed: int


class AddEntriesAnswer(Answer):
    """What became of each entry, by its index."""

    operation_id: str | None
    version: int
    inserted_idx: list[int]
    existing_idx: list[int]
    errors: list[Refusal]


class EntryOut(Answer):
    """An entry; what it says only if that was asked for."""

    name: str
    input: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None


class EntriesAnswer(Answer):
    """One page of entries, in the order in which they came; `next_cursor` is None on the last."""

    entries: list[EntryOut]
    next_cursor: str | None


class DatasetHistoryAnswer(Answer):
    """One page of a dataset's events, oldest first; `next_cursor` is None on the last.

    Of lists longer than ten only the beginning is shown, and `n_...` says how long they are. If
    those of its records are wanted too, they follow record by record.
    """

    dataset_id: int
    events: list[LogEventOut]
    next_cursor: str | None


class CellRefusal(Answer):
    """Why a cell got no record."""

    code: str
    message: str


class SubmitAnswer(Answer):
    """What became of the cells that had no record.

    `n_existing` of those that got one got a record that was there already. With a `job_id` (status
    202) the job has only begun, and tells the rest.
    """

    operation_id: str | None
    dataset_id: int
    n_selected: int
    n_linked: int
    n_existing: int
    errors: list[CellRefusal]
    job_id: int | None = None


class SpecificationStatus(Answer):
    """The cells of one specification: by their records' statuses, and how many have none."""

    name: str
    counts: dict[Status, int]
    n_missing: int


class DatasetStatusAnswer(Answer):
    """The cells of a dataset, by specification and in all. Counts are kept: this is cheap."""

    dataset_id: int
    name: str
    version: int
    n_entries: int
    specifications: list[SpecificationStatus]
    counts: dict[Status, int]
    n_missing: int


class CellOut(Answer):
    """A cell that has a record. `status` is None if the record was erased since."""

    record_id: int
    status: Status | None


class TableRow(Answer):
    """An entry, and its records in the order of the specifications; None where there is none."""

    entry: str
    cells: list[CellOut | None]


class TableAnswer(Answer):
    """One page of entries x specifications; `next_cursor` is None on the last."""

    specifications: list[str]
    rows: list[TableRow]
    next_cursor: str | None


# Services --------------------------------------------------------------------------------------


class IterateRequest(Message):
    """The next state of a running service, from which it can go on, and its new children."""

    state: Any
    children: list[RecordId] = Field(default_factory=list[int], max_length=100_000)
    output: str | None = None


class FinishRequest(Message):
    """How a service ended: a result, or an error if `error_type` is set."""

    result: Any = None
    error_type: ShortText | None = None
    error_message: str | None = Field(default=None, max_length=1_000, pattern=r"^[^\x00]*$")


# Managers --------------------------------------------------------------------------------------


class RegisterRequest(Message):
    """How a manager presents itself. Seconds; None takes the server's defaults."""

    name: ShortText
    hostname: ShortText
    tags: list[str] = Field(min_length=1, max_length=100)
    programs: dict[ShortText, ShortText | None] = Field(
        default_factory=dict[str, str | None], max_length=1000
    )
    lease_s: float | None = Field(default=None, gt=0, le=86_400)
    heartbeat_s: float | None = Field(default=None, gt=0, le=86_400)


class RegisterAnswer(Answer):
    """The manager's id, new at every boot, and how often it must give a sign of life."""

    manager_id: int
    lease_s: float
    heartbeat_s: float


class AttemptRef(Message):
    """An attempt of a record; the number is the fencing token."""

    record_id: RecordId
    attempt: int = Field(ge=1, le=2**31 - 1)


class HeartbeatRequest(Message):
    """A sign of life, with everything that the manager has and has not had acknowledged."""

    held: list[AttemptRef] = Field(default_factory=list[AttemptRef], max_length=100_000)


class HeartbeatAnswer(Answer):
    """Until when the lease runs, and which attempts are not the manager's any more.

    `draining`: the manager gets no more tasks, and shall end when it has none left.
    """

    lease_expires_at: AwareDatetime
    stale: list[AttemptRef]
    draining: bool = False


class ClaimRequest(Message):
    """Ask for tasks."""

    limit: int = Field(default=20, ge=1, le=CLAIM_MAX)


class TaskOut(Answer):
    """A task to run."""

    record_id: int
    attempt: int
    function: str
    kwargs: dict[str, Any]


class ClaimAnswer(Answer):
    """Tasks, in the order in which to run them; none when nothing fits."""

    operation_id: str
    tasks: list[TaskOut]


class ResultIn(Message):
    """What came of one attempt: a result, or an error if `error_type` is set.

    `result` is a JSON value: as such in JSON, or already encoded as JSON bytes in msgpack.
    """

    record_id: RecordId
    attempt: int = Field(ge=1, le=2**31 - 1)
    result: Any = None
    error_type: str | None = Field(default=None, max_length=200)
    error_message: str | None = Field(default=None, max_length=10_000)
    traceback: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    provenance: dict[str, Any] | None = None
    compute_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cores: int | None = Field(
        default=None, ge=1, le=100_000, description="How many processor cores the task had."
    )


class ReturnRequest(Message):
    """Results; a malformed one is refused by its index and spoils no other."""

    results: list[Any] = Field(
        description="Each a ResultIn.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/ResultIn"}},
    )


class ReturnAnswer(Answer):
    """What became of each result, by its index.

    `late`: kept aside, the attempt was over. `duplicate`: it was there already.
    """

    operation_id: str | None
    accepted_idx: list[int]
    late_idx: list[int]
    duplicate_idx: list[int]
    errors: list[Refusal]


class RelinquishRequest(Message):
    """Attempts to give back unfinished."""

    attempts: list[AttemptRef] = Field(max_length=IDS_MAX)
    reason: Text | None = None


class RequeuedAnswer(Answer):
    """The records that wait again."""

    record_ids: list[int]


class DeactivateRequest(Message):
    """End a manager; what it has waits again."""

    reason: Text | None = None


class DrainRequest(Message):
    """Give a manager nothing more to do; it ends when it has finished what it has."""

    reason: Text | None = None


class DrainAnswer(Answer):
    """What the manager is now: draining, or what it was if it has ended."""

    state: ManagerState


class ProgramsRequest(Message):
    """All programs that the manager has now, name to version."""

    programs: dict[ShortText, ShortText | None] = Field(max_length=1000)


class ProgramsAnswer(Answer):
    """Whether they are others than before."""

    changed: bool


class SuspensionOut(Answer):
    """Why a manager gets no tasks of a program, and until when.

    `n_times` counts suspensions on end, `n_failures` the failures in a row. At `until` one task is
    tried; `probing` says that one is.
    """

    program: str
    n_times: int
    n_failures: int
    error_type: str
    since: AwareDatetime
    until: AwareDatetime
    probing: bool


class RescuedOut(Answer):
    """Results of one kind: how many, and what computing them had taken."""

    n_results: int
    compute_s: float
    core_hours: float


class RescuesAnswer(Answer):
    """Results that came when their attempt was over, and those of them that were adopted."""

    late: RescuedOut
    adopted: RescuedOut


class ManagerOut(Answer):
    """A manager as it is now."""

    id: int
    state: ManagerState
    name: str
    hostname: str
    owner: str
    tags: list[str]
    programs: dict[str, str | None]
    suspended: list[SuspensionOut] = Field(default_factory=list[SuspensionOut])
    lease_s: float
    heartbeat_s: float
    registered_at: AwareDatetime
    modified_at: AwareDatetime
    heartbeat_at: AwareDatetime | None = None
    lease_expires_at: AwareDatetime | None = None


class ManagersAnswer(Answer):
    """One page of managers; `next_cursor` is None on the last."""

    managers: list[ManagerOut]
    next_cursor: str | None


class ManagerHistoryAnswer(Answer):
    """Every event of one manager, oldest first."""

    manager_id: int
    events: list[EventOut]


# Routing ---------------------------------------------------------------------------------------


class LackOut(Answer):
    """A required program that a manager does not have as it is required.

    `version` is the one that it has; None if it is absent, or if nobody knows.
    """

    requirement: str
    is_absent: bool
    version: str | None


class NearestOut(Answer):
    """A manager that can take a task, or would need least to be able to."""

    manager_id: int
    name: str
    state: ManagerState
    tags: list[str]
    claims_tag: bool
    lacks: list[LackOut]
    suspended_until: AwareDatetime | None
    heartbeat_at: AwareDatetime | None


class WhyAnswer(Answer):
    """Why a record is where it is; what does not apply is None or empty.

    `code` is stable, `text` says it in words, and `remedy` is the command that would change it.
    `n_before` counts tasks of the same tag and programs that are claimed before, up to 1,001.
    """

    record_id: int
    status: Status | None = Field(description="None: it was erased.")
    code: str
    text: str
    remedy: str | None
    nearest: list[NearestOut] = Field(
        description="Managers that can take it, or would need least to; five at the most."
    )
    retry_at: AwareDatetime | None
    retries: int | None
    retries_used: int | None
    error_type: str | None
    error_message: str | None
    tag: str | None
    required_programs: list[str]
    claimed_tags: list[str]
    n_able: int | None
    n_waiting: int | None
    n_before: int | None
    manager_id: int | None
    attempt: int | None
    started_at: AwareDatetime | None
    heartbeat_at: AwareDatetime | None
    lease_expires_at: AwareDatetime | None
    at: AwareDatetime | None
    actor: str | None
    reason: str | None
    operation_id: str | None
    caused_by: int | None
    children: dict[Status, int]


class OldestOut(Answer):
    """The oldest task of a priority that can be claimed."""

    record_id: int
    created_at: AwareDatetime


class QueueLaneOut(Answer):
    """Tasks of one tag that require the same programs, and who could take them.

    `n_waiting` counts pausing tasks and services too; `oldest` is of what can be claimed, by
    priority. `blocked` is the code of why nobody can take them; None if somebody can.
    """

    tag: str
    required_programs: list[str]
    n_waiting: int
    n_running: int
    n_paused: int
    oldest_id: int | None
    oldest_created_at: AwareDatetime | None
    oldest: dict[PriorityName, OldestOut]
    n_managers: int
    manager_ids: list[int] = Field(description="Five of those that can take them, at the most.")
    blocked: str | None


class QueueAnswer(Answer):
    """The lanes with tasks to claim: first those that nobody can take, then the deepest.

    The totals count lanes that are left out as well; `n_managers` are alive.
    """

    lanes: list[QueueLaneOut]
    n_lanes: int
    n_blocked: int
    n_waiting: int
    n_paused: int
    n_managers: int


# Self-audit -------------------------------------------------------------------------------------


class DivergenceOut(Answer):
    """A row of a table that was found not to be what the log says.

    `key` are the values that tell the rows of the table apart; `columns` those that differ, if the
    row is there and should be. Nothing of what they hold is told.
    """

    id: int
    state: DivergenceState
    table: str
    key: list[str]
    fault: Fault
    columns: list[str]
    found_at: AwareDatetime
    ended_at: AwareDatetime | None
    ended_by: str | None


class SelfAuditAnswer(Answer):
    """How far the self-audit is, and what it has found that is still open, oldest first.

    `age_s` says how long ago that was looked at which waits longest; None if the self-audit never
    ran. `n_unproved` counts records, managers and so on that were not proved yet, or found wrong.
    """

    position: int
    age_s: float | None
    n_ranges: int
    n_unproved: int
    divergences: list[DivergenceOut]


class RepairRequest(Message):
    """What to put right: everything that is known, what is in a table, or one row of it."""

    table: ShortText | None = None
    key: Annotated[list[str], Field(min_length=1, max_length=10)] | None = None
    reason: Text | None = None


class RepairOut(Answer):
    """What became of one divergence; `refusal` says why it is still open, if it is."""

    divergence: DivergenceOut
    refusal: str | None


class RepairAnswer(Answer):
    """What became of each divergence that was to be repaired, oldest first."""

    repairs: list[RepairOut]


# Access and server -----------------------------------------------------------------------------


class TokenRequest(Message):
    """A token to issue."""

    user: ShortText
    role: Role
    expires_at: AwareDatetime | None = None


class TokenOut(Answer):
    """A token, without its secret."""

    id: int
    user: str
    role: Role
    issued_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None


class NewTokenAnswer(Answer):
    """A token that was just issued; `secret` is shown this once."""

    token: TokenOut
    secret: str


class TokensAnswer(Answer):
    """One page of tokens; `next_cursor` is None on the last."""

    tokens: list[TokenOut]
    next_cursor: str | None


Conditions = Annotated[list[ShortText], Field(max_length=100)]


class WebhookRequest(Message):
    """A webhook to add: its address, and what it is told; everything if nothing is said."""

    url: str = Field(max_length=URL_CHARACTERS_MAX, examples=["https://lab.example.org/ledger"])
    kinds: Conditions | None = None
    tags: Conditions | None = None
    actors: Conditions | None = None
    dataset_id: RecordId | None = None
    after: int | None = Field(
        default=None,
        ge=0,
        le=ID_MAX,
        description="Only what happened after this position; null: what happens from now on.",
    )
    reason: Text | None = None


class ChangeWebhookRequest(Message):
    """What is to be changed of a webhook; what is not there stays as it is."""

    url: str | None = Field(default=None, max_length=URL_CHARACTERS_MAX)
    kinds: Conditions | None = None
    tags: Conditions | None = None
    actors: Conditions | None = None
    dataset_id: RecordId | None = None
    enabled: bool | None = None
    reason: Text | None = None


class WebhookTestRequest(Message):
    """A test needs nothing said."""


class WebhookOut(Answer):
    """A webhook, without its secret, and how far it was told.

    Everything up to `position` that its filter lets through has arrived. `n_failures` attempts have
    failed since, the first at `failing_since`. `why` says why it is disabled.
    """

    id: int
    url: str
    enabled: bool
    why: str | None
    kinds: list[str]
    tags: list[str]
    actors: list[str]
    dataset_id: int | None
    owner: str
    created_at: AwareDatetime
    modified_at: AwareDatetime
    position: int
    n_failures: int
    failing_since: AwareDatetime | None
    next_try_at: AwareDatetime | None


class NewWebhookAnswer(Answer):
    """A webhook that was just added; `secret` is shown this once."""

    webhook: WebhookOut
    secret: str


class WebhooksAnswer(Answer):
    """All webhooks."""

    webhooks: list[WebhookOut]


class WebhookAnswer(WebhookOut):
    """A webhook and what has happened to it."""

    events: list[EventOut]


class WebhookRemoved(Answer):
    """Which webhook was removed."""

    id: int


class WebhookAttemptOut(Answer):
    """An attempt to tell a webhook the events after one position, up to another.

    `status_code` is of the answer, if there was one; `error` is None if the message has arrived.
    """

    message_id: str
    after: int
    upto: int
    n_events: int
    attempted_at: AwareDatetime
    duration_s: float
    status_code: int | None
    error: str | None


class WebhookAttemptsAnswer(Answer):
    """The newest attempts, newest first."""

    webhook_id: int
    attempts: list[WebhookAttemptOut]


class WebhookTested(Answer):
    """What came of a test."""

    message_id: str
    has_arrived: bool
    status_code: int | None
    error: str | None
    duration_s: float


class Limits(Answer):
    """What the server takes; the client cuts long calls to fit."""

    records_per_request: int
    results_per_request: int
    ids_per_request: int
    claim_per_request: int
    page: int
    body_bytes: int
    payload_bytes: int


class ServerAnswer(Answer):
    """Which server and which ledger this is, and what it takes."""

    version: str
    ledger_id: str
    time: datetime
    user: str
    role: Role
    limits: Limits


class ConsistencyAnswer(Answer):
    """What proves that the log of `second` events begins with that of `first`: hashes, base64."""

    first: int
    second: int
    proof: list[str]


class HealthAnswer(Answer):
    """Whether the process lives (health), or can serve requests now (readiness)."""

    status: Literal["ok", "unavailable"]
