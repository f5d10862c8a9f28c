"""What the client's calls return: typed values that show themselves well."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any, ClassVar, Final, Generic, TypeVar, overload

from pydantic import ConfigDict, Field

from recordledger.domain.admin.divergence import Fault
from recordledger.domain.admin.job import JobState
from recordledger.domain.records.status import Status

from ..schemas import (
    Answer,
    AttemptOut,
    ChangeOut,
    CommentOut,
    Conflict,
    DivergenceOut,
    ErrorGroupOut,
    EventOut,
    JobOut,
    LogEventOut,
    ManagerOut,
    MomentOut,
    OperationAnswer,
    OperationOut,
    OriginOut,
    PoliciesAnswer,
    QueueAnswer,
    QueueLaneOut,
    RecordOut,
    Refusal,
    ServerAnswer,
    ServiceAnswer,
    TokenOut,
    TreeAnswer,
    TreeNodeOut,
    WebhookAnswer,
    WebhookAttemptOut,
    WebhookOut,
    WhyAnswer,
)
from .tables import html_fields, html_table, printable, shown, text_table
from .words import duration, in_words, summary

OPEN: Final = frozenset({Status.waiting, Status.running})

_FROZEN = ConfigDict(frozen=True)
_LONG: Final = 2_000
_LINES_SAID: Final = 10


class Record(RecordOut):
    """A record as it was when it was read. Payloads are there if they were asked for."""

    model_config = _FROZEN

    @property
    def is_finished(self) -> bool:
        """Whether nobody is going to work on it unless somebody asks: it neither waits nor runs."""
        return self.status not in OPEN

    @property
    def error(self) -> str | None:
        """What went wrong, on one line, in the attempt that ended in an error; None if nothing."""
        if self.error_type is None:
            return None
        return f"{self.error_type}: {self.error_message or ''}".rstrip(": ")

    def __repr__(self) -> str:
        """Return one line with what one wants to know first."""
        parts = [f"Record {self.id}", self.status, shown(self.function), f"tag={shown(self.tag)}"]
        if self.attempt:
            parts.append(f"attempt={self.attempt}")
        if self.compute_s is not None:
            parts.append(f"{self.compute_s:.3g} s")
        if self.error:
            parts.append(shown(self.error))
        return f"<{' '.join(parts)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        fields = {
            name: shown(getattr(self, name), _LONG)
            for name in type(self).model_fields
            if name not in ("id", "version")
        }
        return html_fields(fields, title=f"Record {self.id}")


class Manager(ManagerOut):
    """A manager as it was when it was read."""

    model_config = _FROZEN

    def __repr__(self) -> str:
        """Return one line with what one wants to know first."""
        return (
            f"<Manager {self.id} {self.state} {shown(self.name)}@{shown(self.hostname)} "
            f"tags={shown(self.tags)}>"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        fields = {
            name: shown(getattr(self, name), _LONG)
            for name in type(self).model_fields
            if name != "id"
        }
        return html_fields(fields, title=f"Manager {self.id}")


class Token(TokenOut):
    """A token, without its secret."""

    model_config = _FROZEN


class NewToken(Answer):
    """A token that was just issued. `secret` is what to hand over; it is shown this once."""

    model_config = _FROZEN

    token: Token
    secret: str = Field(repr=False)


class Webhook(WebhookOut):
    """A webhook, without its secret, and how far it was told."""

    model_config = _FROZEN


class WebhookDetails(WebhookAnswer):
    """A webhook and what has happened to it."""

    model_config = _FROZEN


class NewWebhook(Answer):
    """A webhook that was just added. `secret` is what messages are signed with; shown this once."""

    model_config = _FROZEN

    webhook: Webhook
    secret: str = Field(repr=False)


class WebhookAttempt(WebhookAttemptOut):
    """An attempt to tell a webhook something."""

    model_config = _FROZEN


class Server(ServerAnswer):
    """Which server and which ledger this is, who one is to it, and what it takes."""

    model_config = _FROZEN


class Divergence(DivergenceOut):
    """A row of a table that was found not to be what the log says."""

    model_config = _FROZEN

    def __str__(self) -> str:
        """Return one line."""
        what = {
            Fault.missing: "the row is missing",
            Fault.extra: "there should be no such row",
            Fault.changed: f"not what the log says: {', '.join(self.columns)}",
        }[self.fault]
        return printable(f"{self.table} {', '.join(self.key)}: {what}")


class RepairedRow(Answer):
    """What became of one divergence; `refusal` says why it is still open, if it is."""

    model_config = _FROZEN

    divergence: Divergence
    refusal: str | None

    def __str__(self) -> str:
        """Return one line."""
        became = self.divergence.state if self.refusal is None else f"still open, {self.refusal}"
        return f"{self.divergence}: {became}"


class SelfAudit(Answer):
    """How far the self-audit is, and what it has found that is still open, oldest first.

    `age_s` says how long ago that was looked at which waits longest; None if nothing was.
    `n_unproved` counts records, managers and so on that were not proved yet, or found wrong.
    """

    model_config = _FROZEN

    position: int
    age_s: float | None
    n_ranges: int
    n_unproved: int
    divergences: list[Divergence]

    def __repr__(self) -> str:
        """Return what one wants to know first."""
        if self.age_s is None:
            return "The self-audit has not run yet: `recordledger work` does it."
        unproved = f"; {self.n_unproved:,} are not proved" if self.n_unproved else ""
        return (
            f"Everything that is proved was looked at in the last {self.age_s:.0f} s{unproved}. "
            f"{len(self.divergences) or 'No'} rows are known not to be what the log says."
        )


T = TypeVar("T")
RecordT = TypeVar("RecordT", bound="Record | None")


class Table(list[T], Generic[T]):
    """A list that shows itself as a table."""

    noun: ClassVar[str] = "rows"
    columns: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        """Return a table in text."""
        if not self:
            return f"no {self.noun}"
        return text_table(self.columns, self._rows(), title=self._title())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(self.columns, self._rows(), title=self._title())

    def _rows(self) -> list[list[str]]:
        return [[shown(getattr(item, name, None)) for name in self.columns] for item in self]

    def _title(self) -> str:
        return f"{len(self):,} {self.noun.removesuffix('s') if len(self) == 1 else self.noun}"


class Records(Table[RecordT]):
    """Records in the order of the call. `missing_ok=True` leaves None where there is none.

    Attributes:
        as_of: of which moment they are, if one was named.
    """

    noun = "records"
    columns = ("id", "status", "function", "tag", "priority", "attempt", "compute_s", "error")

    def __init__(self, found: Iterable[RecordT] = (), as_of: MomentOut | None = None) -> None:
        super().__init__(found)
        self.as_of = as_of

    @property
    def counts(self) -> dict[Status, int]:
        """How many of these are in each status."""
        return dict(Counter(record.status for record in self if record is not None))

    def _title(self) -> str:
        statuses = ", ".join(f"{number:,} {status}" for status, number in self.counts.items())
        return f"{super()._title()}: {statuses or 'none of them found'}"


class RecordChange(ChangeOut):
    """What happened to a record between two moments; None is not to be there."""

    model_config = _FROZEN


class Diff(Table[RecordChange]):
    """What changed between two moments, by record.

    Attributes:
        a, b: the moments.
        counts: how many records went from one status to another, of all that changed.
        is_complete: whether these are all of them.
    """

    noun = "records"
    columns = (
        "record_id",
        "from_status",
        "to_status",
        "from_tag",
        "to_tag",
        "n_events",
        "actors",
        "kind",
        "reason",
        "happened_at",
    )

    def __init__(
        self,
        changes: Iterable[RecordChange],
        a: MomentOut,
        b: MomentOut,
        counts: Mapping[tuple[Status | None, Status | None], int],
        *,
        is_complete: bool,
    ) -> None:
        super().__init__(changes)
        self.a = a
        self.b = b
        self.counts = dict(counts)
        self.is_complete = is_complete

    @property
    def total(self) -> int:
        """How many records changed, also those that are left out here."""
        return sum(self.counts.values())

    def _title(self) -> str:
        ways = ", ".join(
            f"{n:,} {before or 'not there'} -> {after or 'not there'}"
            for (before, after), n in self.counts.items()
        )
        changed = f"{self.total:,} record{'' if self.total == 1 else 's'} changed"
        return f"{changed} from position {self.a.position} to {self.b.position}: {ways}"


class Managers(Table[Manager]):
    """Managers, oldest first."""

    noun = "managers"
    columns = ("id", "state", "name", "hostname", "tags", "programs", "heartbeat_at")


class Explanation(WhyAnswer):
    """Why a record was where it was when it was asked for. `str` of it is the reason in words."""

    model_config = _FROZEN

    def __repr__(self) -> str:
        """Return the reason, what would change it, and who is nearest to taking the record."""
        status = self.status or "erased"
        lines = [f"Record {self.record_id}: {status} ({self.code})", self.text]
        if self.remedy:
            lines.append(f"To change that:  {self.remedy}")
        for each in self.nearest:
            who = (
                f"  manager {each.manager_id} ({each.name}): {each.state}, tags {shown(each.tags)}"
            )
            if each.lacks:
                who += f", lacks {', '.join(lack.requirement for lack in each.lacks)}"
            if each.suspended_until is not None:
                who += f", suspended until {shown(each.suspended_until)}"
            lines.append(who)
        return "\n".join(map(printable, lines))

    def __str__(self) -> str:
        """Return the reason in words."""
        return printable(self.text)

    def _repr_html_(self) -> str:
        fields = {
            name: shown(value, _LONG)
            for name, value in self
            if name not in ("record_id", "nearest") and value not in (None, [], {})
        }
        return html_fields(fields, title=f"Record {self.record_id}")


class ServiceView(ServiceAnswer):
    """Where a service stood when it was asked for, or after one of its iterations."""

    model_config = _FROZEN

    def __repr__(self) -> str:
        """Return where it stands, what it waits for, and the end of what it has said."""
        lines = [f"Service {self.record_id} ({self.function}): {self.status}", *self._facts()]
        if self.output:
            lines.append("It has said:")
            lines += [f"  {line}" for line in self.output.splitlines()[-_LINES_SAID:]]
        return "\n".join(map(printable, lines))

    def _facts(self) -> list[str]:
        progress = "" if self.progress is None else f", {100 * self.progress:.0f} %"
        facts = [f"Iteration {self.iteration}{progress}; {self.n_children:,} children so far"]
        if self.awaited:
            counts = Counter(str(child.status or "erased") for child in self.awaited)
            statuses = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
            those = "any" if self.until == "any" else "all"
            facts.append(f"It waits for {those} of {self.n_awaited:,} children: {statuses}")
        if self.wake_at is not None:
            facts.append(f"It goes on at {shown(self.wake_at)} UTC in any case")
        return facts

    def _repr_html_(self) -> str:
        fields = {
            "status": str(self.status),
            "iteration": str(self.iteration),
            "progress": "" if self.progress is None else f"{100 * self.progress:.0f} %",
            "waits": "; ".join(self._facts()[1:]),
            "state": shown(self.state, _LONG),
            "output": shown(self.output, _LONG),
        }
        return html_fields(fields, title=f"Service {self.record_id} ({self.function})")


class Tree(TreeAnswer):
    """A record and what is below it; shows itself as a tree, with the statuses."""

    model_config = _FROZEN

    def __repr__(self) -> str:
        """Return the tree as indented lines."""
        return "\n".join("  " * depth + printable(text) for depth, text in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<div style='margin-left:{2 * depth}em'>{escape(printable(text))}</div>"
            for depth, text in self._lines()
        )
        return f"<div style='font-family:monospace'>{rows}</div>"

    def _lines(self) -> list[tuple[int, str]]:
        """Return each line with its depth: every record below the one that asked for it."""
        below: dict[int | None, list[TreeNodeOut]] = {}
        for node in self.nodes:
            below.setdefault(node.parent_id, []).append(node)
        lines: list[tuple[int, str]] = []
        todo = [(0, node) for node in below.get(None, [])]
        while todo:
            depth, node = todo.pop()
            lines.append((depth, _node(node)))
            if node.record_id and node.n_more > 0:
                todo.append((depth + 1, node.model_copy(update={"record_id": 0})))
            if node.record_id and not node.is_repeated:
                children = below.get(node.record_id, [])
                todo += [(depth + 1, child) for child in reversed(children)]
        return lines


def _node(node: TreeNodeOut) -> str:
    if not node.record_id:
        return f"... and {node.n_more:,} more"
    name = f"{shown(node.key)}: " if node.parent_id is not None else ""
    seen = " (see above)" if node.is_repeated else ""
    return f"{name}{node.record_id} {node.function} {node.status}{seen}"


class QueueLane(QueueLaneOut):
    """Tasks of one tag that require the same programs, and who could take them."""

    model_config = _FROZEN


class Queue(Table[QueueLane]):
    """What waits, by tag and programs: first what nobody can take, then the deepest.

    Attributes:
        totals: of all lanes, those that are left out too: `n_lanes`, `n_blocked`, `n_waiting`,
            `n_paused`, and `n_managers` that are alive.
    """

    noun = "lanes"
    columns = (
        "tag",
        "required_programs",
        "n_waiting",
        "n_running",
        "n_paused",
        "oldest_id",
        "oldest_created_at",
        "n_managers",
        "blocked",
    )

    def __init__(self, lanes: Iterable[QueueLane], totals: QueueAnswer) -> None:
        super().__init__(lanes)
        self.totals = totals

    def _title(self) -> str:
        totals = self.totals
        blocked = f", {totals.n_blocked:,} of them blocked" if totals.n_blocked else ""
        return (
            f"{totals.n_waiting:,} records wait in {totals.n_lanes:,} lanes{blocked}; "
            f"{totals.n_managers:,} managers are alive"
        )


class Tokens(Table[Token]):
    """Tokens, oldest first."""

    noun = "tokens"
    columns = ("id", "user", "role", "issued_at", "expires_at", "revoked_at")


class Webhooks(Table[Webhook]):
    """Webhooks, oldest first."""

    noun = "webhooks"
    columns = ("id", "enabled", "url", "kinds", "position", "n_failures", "why")


class WebhookAttempts(Table[WebhookAttempt]):
    """Attempts to tell a webhook something, newest first."""

    noun = "attempts"
    columns = ("attempted_at", "message_id", "n_events", "upto", "status_code", "error")


class Counts(Mapping[Status, int]):
    """How many records are in each status: `counts["waiting"]`, `counts.total`.

    Attributes:
        as_of: of which moment they are, if one was named.
    """

    def __init__(self, counts: Mapping[Status, int], as_of: MomentOut | None = None) -> None:
        self._counts = {status: counts.get(status, 0) for status in Status}
        self.as_of = as_of

    @property
    def total(self) -> int:
        """The number of all records."""
        return sum(self._counts.values())

    def __getitem__(self, status: str) -> int:
        """Return the number of records in a status, which may be given by name."""
        return self._counts[Status(status)] if status in self._counts else self._unknown(status)

    def __iter__(self) -> Iterator[Status]:
        """Iterate over all nine statuses."""
        return iter(self._counts)

    def __len__(self) -> int:
        """Return the number of statuses."""
        return len(self._counts)

    def __repr__(self) -> str:
        """Return the statuses that have records, and the total."""
        return f"Counts({', '.join(f'{name}={n:,}' for name, n in self._some())})"

    def _repr_html_(self) -> str:
        return html_table(("status", "records"), [(name, f"{n:,}") for name, n in self._some()])

    def _some(self) -> list[tuple[str, int]]:
        some = [(str(status), number) for status, number in self._counts.items() if number]
        return [*some, ("total", self.total)]

    def _unknown(self, status: str) -> int:
        raise KeyError(f"{status!r} is no status; there are {', '.join(self._counts)}")


@dataclass(frozen=True, slots=True)
class BulkMetadata:
    """What became of the entries of a bulk call, by their index in the caller's order.

    Attributes:
        operation_ids: of each request that the call was cut into, in order.
        errors: the entries that were refused: `idx`, `code`, `message`.
    """

    operation_ids: list[str]
    errors: list[Refusal]

    @property
    def operation_id(self) -> str | None:
        """The operation, if it was exactly one; a long call is several, see `operation_ids`."""
        return self.operation_ids[0] if len(self.operation_ids) == 1 else None

    def _figures(self) -> dict[str, str]:
        """Return what to show besides the errors."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the numbers, and the first errors."""
        figures = ", ".join(f"{name}={text}" for name, text in self._figures().items())
        errors = "".join(f"\n  {idx}: {code}: {text}" for idx, code, text in self._error_rows()[:5])
        more = len(self.errors) - 5
        errors += f"\n  and {more:,} more in .errors" if more > 0 else ""
        return f"{type(self).__name__}({figures}, errors={len(self.errors):,}){errors}"

    def _repr_html_(self) -> str:
        figures = self._figures() | {"operations": ", ".join(self.operation_ids[:3])}
        table = html_fields(figures, title=type(self).__name__)
        if self.errors:
            table += html_table(("index", "code", "message"), self._error_rows(), title="errors")
        return table

    def _error_rows(self) -> list[tuple[str, str, str]]:
        return [
            (str(error.idx), shown(error.code), shown(error.message, 200)) for error in self.errors
        ]


@dataclass(frozen=True, slots=True, repr=False)
class InsertMetadata(BulkMetadata):
    """What became of the records to add.

    Attributes:
        ids: for each entry its record's id, new or found; None where the entry was refused.
        inserted_idx: the entries that became new records.
        existing_idx: the entries whose record was there before.
    """

    ids: list[int | None]
    inserted_idx: list[int]
    existing_idx: list[int]

    def _figures(self) -> dict[str, str]:
        return {
            "ids": f"[{shown(self.ids, 40)}]",
            "inserted": f"{len(self.inserted_idx):,}",
            "existing": f"{len(self.existing_idx):,}",
        }


@dataclass(frozen=True, slots=True, repr=False)
class ReturnMetadata(BulkMetadata):
    """What became of the results that were handed in.

    Attributes:
        accepted_idx: taken as the outcome of the record.
        late_idx: kept aside, because the attempt was over.
        duplicate_idx: there already.
    """

    accepted_idx: list[int]
    late_idx: list[int]
    duplicate_idx: list[int]

    def _figures(self) -> dict[str, str]:
        return {
            "accepted": f"{len(self.accepted_idx):,}",
            "late": f"{len(self.late_idx):,}",
            "duplicate": f"{len(self.duplicate_idx):,}",
        }


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class UpdateMetadata:
    """What became of the records that something was to be done to, in the caller's order.

    Attributes:
        updated_idx: indexes of the records that were changed (or would be, in a dry run).
        errors: the records that were refused: `idx`, `code`, `message`.
        n_children_updated: how many relatives below them were changed besides.
        n_parents_updated: how many relatives above them; a job counts all with the children.
        operation_id: what `undo` takes; None if nothing was changed.
        n_selected: how many records it was about, each counted once.
        ids: what a query has found, so that the indexes mean something; None where ids were
            given, and for jobs.
        new_ids: of `resubmit_records`: the new records, None where one was refused; empty for
            jobs.
        job_id: the job that did it, if there were many.
        is_done: False as long as the job goes on.
        dry_run: whether nothing has happened.
    """

    updated_idx: list[int]
    errors: list[Refusal]
    n_children_updated: int
    operation_id: str | None
    n_parents_updated: int = 0
    n_selected: int = 0
    ids: list[int] | None = None
    new_ids: list[int | None] = field(default_factory=list[int | None])
    job_id: int | None = None
    is_done: bool = True
    dry_run: bool = False

    @property
    def n_updated(self) -> int:
        """How many of the records that were meant were changed."""
        return len(self.updated_idx)

    def __repr__(self) -> str:
        """Return the fields as Python writes them; long lists by their beginnings and lengths."""
        figures = {
            "updated_idx": _few(self.updated_idx),
            "errors": _few([(each.idx, each.code, each.message) for each in self.errors]),
            "n_children_updated": f"{self.n_children_updated}",
            "operation_id": f"{self.operation_id!r}",
        }
        for name in ("n_parents_updated", "job_id", "dry_run"):
            if value := getattr(self, name):
                figures[name] = f"{value!r}"
        for name, ids in (("new_ids", self.new_ids), ("ids", self.ids)):
            if ids:
                figures[name] = _few(ids)
        if not self.is_done:
            figures["is_done"] = "False"
        return f"UpdateMetadata({', '.join(f'{name}={text}' for name, text in figures.items())})"

    def _repr_html_(self) -> str:
        figures = {
            "updated": f"{self.n_updated:,} of {self.n_selected:,}",
            "children": f"{self.n_children_updated:,}",
            "parents": f"{self.n_parents_updated:,}",
            "operation": self.operation_id or "",
            "job": "" if self.job_id is None else f"{self.job_id}",
        }
        title = "UpdateMetadata" + (" (dry run)" if self.dry_run else "")
        table = html_fields(figures, title=title)
        if self.errors:
            rows = [(str(e.idx), shown(e.code), shown(e.message, 200)) for e in self.errors]
            table += html_table(("index", "code", "message"), rows, title="errors")
        return table


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class UndoMetadata:
    """What became of an undo.

    Attributes:
        operation_id: the undo itself, which can be undone; None if nothing was changed.
        n_undone: how many records are again what they were.
        conflicts: the records that were left as they are: `record_id`, `code`, `message`.
        job_id: the job that did it, if there were many.
        is_done: False as long as the job goes on.
        dry_run: whether nothing has happened.
    """

    operation_id: str | None
    n_undone: int
    conflicts: list[Conflict]
    job_id: int | None = None
    is_done: bool = True
    dry_run: bool = False

    def __repr__(self) -> str:
        """Return the fields; of many conflicts the first ones."""
        conflicts = _few([(each.record_id, each.code, each.message) for each in self.conflicts])
        more = "".join(
            f", {name}={value!r}"
            for name, value in (("job_id", self.job_id), ("dry_run", self.dry_run))
            if value
        )
        return (
            f"UndoMetadata(n_undone={self.n_undone}, conflicts={conflicts}, "
            f"operation_id={self.operation_id!r}{more})"
        )


def _few(values: Sequence[Any], n_max: int = 5) -> str:
    """Return a list as Python writes it; of a long one its beginning and its length.

    >>> _few([1, 2]), _few(range(1000))
    ('[1, 2]', '[0, 1, 2, 3, 4, ... 1,000 in all]')
    """
    texts = [repr(value) for value in values[:n_max]]
    if len(values) > n_max:
        texts.append(f"... {len(values):,} in all")
    return f"[{', '.join(texts)}]"


class Comment(CommentOut):
    """What somebody wrote about a record."""

    model_config = _FROZEN


class Comments(Table[Comment]):
    """Comments on a record, oldest first."""

    noun = "comments"
    columns = ("commented_at", "author", "text")


class PastOperation(OperationOut):
    """Something that people or policies did to records."""

    model_config = _FROZEN


class OperationDetails(OperationAnswer):
    """Something that people or policies did to records, and whether it was undone."""

    model_config = _FROZEN


class Operations(Table[PastOperation]):
    """Operations, newest first."""

    noun = "operations"
    columns = ("id", "started_at", "action", "actor", "n_changes", "reason", "undoes")


class Job(JobOut):
    """An operation on many records, and how far it had come when it was read."""

    model_config = _FROZEN

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen: it is finished or cancelled."""
        return self.state in (JobState.finished, JobState.cancelled)


class Jobs(Table[Job]):
    """Jobs, newest first."""

    noun = "jobs"
    columns = ("id", "state", "action", "n_total", "n_done", "n_refused", "actor", "created_at")


class Origin(OriginOut):
    """Where something that was imported came from."""

    model_config = _FROZEN


class Origins(Table[Origin]):
    """Where imported records, managers or datasets came from, by their ids here."""

    noun = "origins"
    columns = ("kind", "id", "origin_id", "ledger_id", "imported_at", "imported_by")


class ErrorGroup(ErrorGroupOut):
    """Records in error that say the same."""

    model_config = _FROZEN


class ErrorGroups(Table[ErrorGroup]):
    """What records in error say, most frequent first."""

    noun = "kinds of error"
    columns = ("n_records", "error_type", "error_message", "newest_ids", "newest_at")

    def _title(self) -> str:
        return f"{len(self):,} {'kind of error' if len(self) == 1 else self.noun}"


class Policies(PoliciesAnswer):
    """What the server does to records by itself."""

    model_config = _FROZEN


class HistoryEvent(EventOut):
    """One event: who did what, when and why."""

    model_config = _FROZEN

    @property
    def in_words(self) -> str:
        """What happened, as a sentence."""
        return in_words(self)

    @property
    def summary(self) -> str:
        """What this kind of event says besides who and when, in a few words."""
        return summary(self)


class LogEvent(LogEventOut):
    """One event of the log: what it happened to (`stream` and `id`), who did it, when and why."""

    model_config = _FROZEN

    @property
    def in_words(self) -> str:
        """What happened to what, as a sentence."""
        return f"{self.stream} {self.id}: {in_words(self)}"

    @property
    def summary(self) -> str:
        """What this kind of event says besides who and when, in a few words."""
        return summary(self)


class LogEvents(Table[LogEvent]):
    """Events of several things, in the order of the call."""

    noun = "events"
    columns = ("timestamp", "stream", "id", "kind", "summary", "actor", "reason")

    def __init__(self, subject: str, events: Iterable[LogEvent] = ()) -> None:
        super().__init__(events)
        self.subject = subject

    @property
    def in_words(self) -> str:
        """What happened, a line an event, times in UTC."""
        return _in_lines(self)

    def _title(self) -> str:
        return f"{self.subject}: {super()._title()}"


@dataclass(frozen=True, slots=True, repr=False)
class Attempts(Sequence[AttemptOut]):
    """Every attempt of a record, in order; shows itself as a table."""

    record_id: int
    attempts: tuple[AttemptOut, ...]

    @overload
    def __getitem__(self, index: int) -> AttemptOut: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AttemptOut, ...]: ...
    def __getitem__(self, index: int | slice) -> AttemptOut | tuple[AttemptOut, ...]:
        """Return an attempt by its place, from 0."""
        return self.attempts[index]

    def __len__(self) -> int:
        """Return the number of attempts."""
        return len(self.attempts)

    def __repr__(self) -> str:
        """Return a table in text, times in UTC."""
        return text_table(_ATTEMPT_COLUMNS, self._rows(), title=f"Record {self.record_id}")

    def _repr_html_(self) -> str:
        return html_table(_ATTEMPT_COLUMNS, self._rows(), title=f"Record {self.record_id}")

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for each in self.attempts:
            took = ""
            if each.ended_at is not None:
                took = duration((each.ended_at - each.started_at).total_seconds())
            ended = "runs" if each.ended_by is None else each.ended_by.replace("_", " ")
            error = f"{each.error_type}: {each.error_message}" if each.error_type else ""
            rows.append(
                [
                    str(each.number),
                    "" if each.manager_id is None else str(each.manager_id),
                    each.started_at.strftime("%Y-%m-%d %H:%M:%S"),
                    took,
                    ended + (", result late" if each.late else ""),
                    shown(error, 100),
                ]
            )
        return rows


class EventSequence(Sequence[HistoryEvent]):
    """Events, oldest first; shows itself as a table."""

    events: tuple[HistoryEvent, ...]

    @abstractmethod
    def _title(self) -> str:
        """Return what stands above the table."""

    @overload
    def __getitem__(self, index: int) -> HistoryEvent: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HistoryEvent, ...]: ...
    def __getitem__(self, index: int | slice) -> HistoryEvent | tuple[HistoryEvent, ...]:
        """Return an event by its place, from 0."""
        return self.events[index]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.events)

    @property
    def in_words(self) -> str:
        """What happened, a line an event, times in UTC."""
        return _in_lines(self.events)

    def __repr__(self) -> str:
        """Return the timeline in text, times in UTC."""
        return text_table(_HISTORY_COLUMNS, self._rows(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(_HISTORY_COLUMNS, self._rows(), title=self._title())

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        before: datetime | None = None
        for event in self.events:
            passed = "" if before is None else duration((event.timestamp - before).total_seconds())
            before = event.timestamp
            what = event.summary + (f" ({event.reason})" if event.reason else "")
            rows.append(
                [
                    str(event.version),
                    event.timestamp.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
                    passed,
                    event.kind.replace("_", " "),
                    shown(event.actor, 30),
                    shown(what, 120),
                ]
            )
        return rows


@dataclass(frozen=True, repr=False)
class History(EventSequence):
    """Every event of a record, oldest first; shows itself as a timeline."""

    record_id: int
    events: tuple[HistoryEvent, ...]

    def _title(self) -> str:
        return f"Record {self.record_id}"


@dataclass(frozen=True, repr=False)
class ManagerHistory(EventSequence):
    """Every event of a manager, oldest first; shows itself as a timeline."""

    manager_id: int
    events: tuple[HistoryEvent, ...]

    def _title(self) -> str:
        return f"Manager {self.manager_id}"


_ATTEMPT_COLUMNS: Final = ("attempt", "manager", "started (UTC)", "took", "ended by", "error")
_HISTORY_COLUMNS: Final = ("#", "when (UTC)", "after", "what", "by", "")


def _in_lines(events: Iterable[HistoryEvent | LogEvent]) -> str:
    return "\n".join(
        f"{event.timestamp.strftime('%Y-%m-%d %H:%M:%S')}  {printable(event.in_words)}"
        for event in events
    )
