"""What people ask of datasets, as operations."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Unpack, cast
from urllib.parse import urlencode

from pydantic import BaseModel

from recordledger.domain.admin.job import JobState
from recordledger.domain.records.status import Status

from ...schemas.dataset_edits import (
    AddEntriesAnswer,
    AddEntriesRequest,
    AddSpecificationRequest,
    CellRefusal,
    CloneRequest,
    CreateDatasetRequest,
    DatasetEdited,
    EditDatasetRequest,
    LockVersionRequest,
    ModifyDatasetRequest,
    RemoveEntriesRequest,
    RemoveSpecificationsRequest,
    RenameEntriesRequest,
    SubmitAnswer,
    SubmitRequest,
    UnlinkRequest,
)
from ...schemas.datasets import DatasetsAnswer, EntriesAnswer, TableAnswer
from ...schemas.fields import PriorityName
from ...schemas.records import Include
from .. import exchange, wire
from ..arguments import AsOf, conditions, listed
from ..conditions import RecordConditions, describes_conditions
from ..errors import ClientError, InvalidArgument, NotFound, WaitTimeout
from ..exchange import AnswerT, Operation, Session, Sleep
from ..parts import add_progress, moved
from ..progress import bar
from ..results.datasets import (
    DatasetDetails,
    DatasetEntry,
    DatasetRow,
    Datasets,
    DatasetStatus,
    DatasetSummary,
    DatasetTable,
    Entries,
    EntriesMetadata,
    Results,
    SubmitMetadata,
)
from ..results.events import LogEvents
from .histories import log_events
from .management import refusals_of, wait_for_job
from .records import Pages, get_records, query_records

_PAGE: Final = 1_000
_POLL_S: Final = (0.1, 2.0)
_FIELDS: Final = frozenset({"name", "input", "attributes"})


@dataclass(frozen=True, slots=True)
class Within:
    """Which dataset an operation is about, and the session of the client."""

    session: Session
    dataset_id: int

    def path(self, what: str = "") -> str:
        """Return the address of the dataset, or of something of it."""
        return f"/v1/datasets/{self.dataset_id}{what and '/' + what}"


class _DatasetsAnswer(DatasetsAnswer):
    datasets: list[DatasetSummary]  # type: ignore[assignment]


class _EntriesAnswer(EntriesAnswer):
    entries: list[DatasetEntry]  # type: ignore[assignment]


def add_dataset(
    session: Session, name: str, description: str = "", *, reason: str | None = None
) -> Operation[int]:
    """Make an empty dataset; return it.

    Args:
        name: unique; names that differ only in case are the same.
        description: what it is.
        reason: kept with the event.

    Raises:
        Refused: another dataset has this name.

    >>> dataset = client.add_dataset("S22", "non-covalent complexes")
    """
    request = wire.message(CreateDatasetRequest, name=name, description=description, reason=reason)
    answer = yield from _post(session, "/v1/datasets", DatasetEdited, request)
    return answer.dataset_id


def dataset(session: Session, name_or_id: str | int) -> Operation[int]:
    """Return a dataset by its name or id.

    Raises:
        NotFound: there is none.

    >>> dataset = client.dataset("water clusters")
    """
    if not isinstance(name_or_id, str):
        number = wire.record_id(name_or_id, what="name_or_id")
        return (yield from exchange.get(session, f"/v1/datasets/{number}", DatasetDetails)).id
    query = urlencode({"name": name_or_id})
    answer = yield from exchange.get(session, f"/v1/datasets?{query}", _DatasetsAnswer)
    if not answer.datasets:
        raise NotFound(f"there is no dataset {name_or_id!r}", code="dataset_not_found", status=404)
    return answer.datasets[0].id


def datasets(session: Session, *, limit: int = 100) -> Operation[Datasets]:
    """Return the datasets, newest first.

    Args:
        limit: maximum number of them.

    >>> [dataset.name for dataset in client.datasets()]
    """
    found = Datasets()
    query: dict[str, Any] = {}
    while len(found) < limit:
        query["limit"] = min(limit - len(found), _PAGE)
        path = f"/v1/datasets?{urlencode(query)}"
        answer = yield from exchange.get(session, path, _DatasetsAnswer)
        found += answer.datasets
        if answer.next_cursor is None:
            break
        query["cursor"] = answer.next_cursor
    return found


def info(within: Within, *, version: int | None = None) -> Operation[DatasetDetails]:
    """Return what the dataset is now: its specifications, locked versions, counts.

    Args:
        version: with the specifications of this locked version.

    >>> dataset.info().n_entries
    """
    path = within.path() + _query({"version": version})
    return (yield from exchange.get(within.session, path, DatasetDetails))


def add_entries(
    within: Within,
    entries: Iterable[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[EntriesMetadata]:
    """Add entries; one that already exists with the same content is left unchanged.

    `dataset.add_entries({"dimer": {"x": 1.5}})` gives inputs by name. A list of mappings can say
    more: `[{"name": "dimer", "input": {"x": 1.5}, "attributes": {"n": 2}}]`. Long lists are cut
    into several requests, each of which happens as a whole; if one fails, the error's `partial`
    says what the ones before it did.

    Args:
        entries: what to add. An entry's input goes into the arguments of its records, where it
            wins over the specification's; its attributes are for people and filters.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the events.

    >>> dataset.add_entries({"dimer": {"x": 1.5}, "trimer": {"x": 2.5}})
    """
    given: list[Any]
    if isinstance(entries, Mapping):
        named = cast("Mapping[str, Mapping[str, Any]]", entries)
        given = [{"name": name, "input": input_} for name, input_ in named.items()]
    else:
        given = list(entries)
    packed = [_packed(entry, idx) for idx, entry in enumerate(given)]
    fields = wire.message(AddEntriesRequest, entries=[], reason=reason)
    envelope = fields.model_dump(exclude={"entries"}, exclude_none=True)
    limits = (yield from exchange.server(within.session)).limits
    # The version is added later: it needs a few bytes.
    room_bytes = wire.room_bytes(envelope | {"expected_version": 2**31}, limits.body_bytes)
    parts = wire.spans(packed, limits.records_per_request, room_bytes, "entries")
    done: list[tuple[int, AddEntriesAnswer]] = []
    version = expected_version
    with bar(within.session.progress, len(packed), "adding entries") as progress:
        for part in parts:
            if version is not None:
                envelope["expected_version"] = version
            body = wire.pack_list(envelope, "entries", packed[part.start : part.stop])
            try:
                answer = yield from exchange.post(
                    within.session, within.path("entries"), AddEntriesAnswer, body
                )
            except ClientError as error:
                add_progress(error, _added(done) if done else None, part.start)
                raise
            done.append((part.start, answer))
            version = None if version is None else answer.version
            progress.update(len(part))
    return _added(done)


def _packed(entry: Any, idx: int) -> bytes:
    what = f"entries[{idx}]"
    if not isinstance(entry, Mapping):
        raise InvalidArgument(
            f"{what} is a {type(entry).__name__}; pass mappings with name, input and attributes",
            idx=idx,
        )
    document = dict(cast("Mapping[str, Any]", entry))
    if unknown := sorted(map(str, document.keys() - _FIELDS)):
        raise InvalidArgument(
            f"{what} has {', '.join(unknown)}; an entry has name, input and attributes", idx=idx
        )
    return wire.pack_json(document, what=what, idx=idx)


def _added(done: Sequence[tuple[int, AddEntriesAnswer]]) -> EntriesMetadata:
    return EntriesMetadata(
        operation_ids=[answer.operation_id for _, answer in done if answer.operation_id],
        errors=[moved(error, start) for start, answer in done for error in answer.errors],
        inserted_idx=[start + idx for start, answer in done for idx in answer.inserted_idx],
        existing_idx=[start + idx for start, answer in done for idx in answer.existing_idx],
        version=done[-1][1].version if done else 0,
    )


def entries(
    within: Within, *, version: int | None = None, limit: int | None = None, content: bool = True
) -> Operation[Entries]:
    """Return the entries, in the order in which they came.

    Args:
        version: those of this locked version.
        limit: maximum number of them.
        content: whether with input and attributes, or names only.

    >>> [entry.name for entry in dataset.entries(limit=10)]
    """
    found = Entries()
    cursor: str | None = None
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(limit - len(found), _PAGE)
        query = {"limit": size, "cursor": cursor, "version": version, "content": content}
        path = within.path("entries") + _query(query)
        answer = yield from exchange.get(within.session, path, _EntriesAnswer)
        found += answer.entries
        cursor = answer.next_cursor
        if cursor is None:
            break
    return found


def rename_entries(
    within: Within,
    names: Mapping[str, str],
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[int]:
    """Give entries other names, all of them or none; return how many have another one.

    Args:
        names: the new names by the old ones, 1,000 at most; two entries may swap theirs.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.rename_entries({"dimer": "water2"})
    """
    request = wire.message(
        RenameEntriesRequest, names=dict(names), expected_version=expected_version, reason=reason
    )
    return (yield from _edit(within, "entries/rename", request)).n_changed


def remove_entries(
    within: Within,
    names: str | Iterable[str],
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[int]:
    """Take entries out of the dataset, all of them or none; return how many.

    Their records are as they were, and may be hard-deleted then.

    Args:
        names: one or several.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the events.

    >>> dataset.remove_entries(["dimer"], reason="duplicate of water2")
    """
    request = wire.message(
        RemoveEntriesRequest,
        names=listed(names),
        expected_version=expected_version,
        reason=reason,
    )
    return (yield from _edit(within, "entries/remove", request)).n_changed


def add_specification(
    within: Within,
    name: str,
    function: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    required_programs: Sequence[str] = (),
    tag: str = "default",
    priority: PriorityName = "normal",
    retries: int = 0,
    retry_delay_s: float = 0.0,
    retry_on: Sequence[str] = (),
    kind: str = "task",
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[bool]:
    """Add a way to compute all entries; return whether it is new: the same one again is not.

    Args:
        name: unique in the dataset.
        function: an entry point's name or `module:function`.
        kwargs: arguments of all records; an entry's input wins over them.
        required_programs: what a manager must have, like `["psi4>=1.9"]`.
        tag: routing string; managers claim by tag.
        priority: "low", "normal" or "high": the order within the tag.
        retries: how many errors are to be reset automatically.
        retry_delay_s: pause before the first retry, in seconds.
        retry_on: patterns of the error types that qualify.
        kind: "task", or "service".
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.add_specification("pbe", "package.module:energy", {"basis": "def2-svp"})
    """
    specification = {
        "name": name,
        "function": function,
        "kwargs": dict(kwargs or {}),
        "required_programs": list(required_programs),
        "tag": tag,
        "priority": priority,
        "retries": retries,
        "retry_delay_s": retry_delay_s,
        "retry_on": list(retry_on),
        "kind": kind,
    }
    request = wire.message(
        AddSpecificationRequest,
        specification=specification,
        expected_version=expected_version,
        reason=reason,
    )
    return bool((yield from _edit(within, "specifications", request)).n_changed)


def remove_specifications(
    within: Within,
    names: str | Iterable[str],
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[int]:
    """Take specifications out of the dataset, all of them or none; return how many.

    Their records are as they were, and may be hard-deleted then.

    Args:
        names: one or several.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the events.

    >>> dataset.remove_specifications("hf")
    """
    request = wire.message(
        RemoveSpecificationsRequest,
        names=listed(names),
        expected_version=expected_version,
        reason=reason,
    )
    return (yield from _edit(within, "specifications/remove", request)).n_changed


def submit(
    within: Within,
    *,
    specifications: str | Iterable[str] | None = None,
    entries: str | Iterable[str] | None = None,
    pattern: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    find_existing: bool = True,
    tag: str | None = None,
    priority: PriorityName | None = None,
    reason: str | None = None,
    wait: bool = True,
) -> Operation[SubmitMetadata]:
    """Give every cell that has no record one. Cells that have one are left as they are.

    Args:
        specifications: only these.
        entries: only these.
        pattern: only entries whose names are like this: `*` for anything, `?` for one character.
        attributes: only entries whose attributes contain these.
        find_existing: use an existing record of the same specification, of this or of another
            dataset or of none; False always makes a new one.
        tag: instead of the specifications' own.
        priority: instead of the specifications' own.
        reason: kept with every event.
        wait: whether to wait for the job that fills more than 2,000 cells.

    >>> submitted = dataset.submit(specifications="hf", priority="high")
    """
    request = wire.message(
        SubmitRequest,
        specifications=listed(specifications),
        entries=listed(entries),
        pattern=pattern,
        attributes=attributes,
        find_existing=find_existing,
        tag=tag,
        priority=priority,
        reason=reason,
    )
    answer = yield from _post(within.session, within.path("submit"), SubmitAnswer, request)
    return (yield from _filled(within.session, answer, wait=wait))


def unlink_records(
    within: Within,
    *,
    specifications: str | Iterable[str] | None = None,
    entries: str | Iterable[str] | None = None,
    pattern: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    all: bool = False,  # noqa: A002 - as the other calls have it
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[int]:
    """Empty cells; return how many had a record. The records are as they were.

    Args:
        specifications: only these.
        entries: only these.
        pattern: only entries whose names are like this: `*` for anything, `?` for one character.
        attributes: only entries whose attributes contain these.
        all: must be said if there is no condition.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the events.

    >>> dataset.unlink_records(specifications="hf", entries=["dimer"])
    """
    request = wire.message(
        UnlinkRequest,
        specifications=listed(specifications),
        entries=listed(entries),
        pattern=pattern,
        attributes=attributes,
        all=all,
        expected_version=expected_version,
        reason=reason,
    )
    return (yield from _edit(within, "unlink", request)).n_changed


def status(within: Within) -> Operation[DatasetStatus]:
    """Return how far the dataset is: its cells by specification and by their records' statuses.

    >>> print(dataset.status())
    """
    return (yield from exchange.get(within.session, within.path("status"), DatasetStatus))


def wait(within: Within, *, timeout_s: float | None = None) -> Operation[DatasetStatus]:
    """Wait until no record of the dataset waits or runs; return how far it is then.

    Complete is finished, and so are error, held and the others: look at the `counts`.

    Args:
        timeout_s: for how long at most, in seconds; None waits for as long as it takes.

    Raises:
        WaitTimeout: time is up.

    >>> dataset.wait(timeout_s=3600)
    """
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s, n_before = _POLL_S[0], 0
    found = yield from status(within)
    with bar(within.session.progress, sum(found.counts.values()), "waiting") as progress:
        while True:
            progress.update(sum(found.counts.values()) - found.n_open - n_before)
            n_before = sum(found.counts.values()) - found.n_open
            if not found.n_open:
                return found
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise WaitTimeout(
                    f"{found.n_open:,} records of dataset {found.name!r} still wait or run. They "
                    "go on; wait again to see them end, or see managers() for who could run them"
                )
            yield Sleep(pause_s)
            pause_s = min(1.5 * pause_s, _POLL_S[1])
            found = yield from status(within)


def table(
    within: Within,
    *,
    specifications: str | Iterable[str] | None = None,
    version: int | None = None,
    limit: int | None = None,
) -> Operation[DatasetTable]:
    """Return the entries with their records, and what these are now.

    Args:
        specifications: only these.
        version: as it was in this locked version; statuses are those of now.
        limit: maximum number of entries.

    >>> print(dataset.table(specifications=["hf"]))
    """
    rows: list[DatasetRow] = []
    names: list[str] = []
    cursor: str | None = None
    while limit is None or len(rows) < limit:
        size = _PAGE if limit is None else min(limit - len(rows), _PAGE)
        answer = yield from _page(within, specifications, version, size, cursor)
        names = answer.specifications
        rows += _rows(answer)
        cursor = answer.next_cursor
        if cursor is None:
            break
    return DatasetTable(rows, names)


def results(
    within: Within,
    *,
    specifications: str | Iterable[str] | None = None,
    status: Status | str | Iterable[Status | str] | None = Status.complete,
    include: Include | Iterable[Include] = ("result",),
    version: int | None = None,
) -> Operation[Results]:
    """Return the results: a dict for each record, with entry, specification, id and status.

    `to_pandas()`, `to_polars()` and `to_arrow()` of the answer make a table of them.

    Args:
        specifications: only these.
        status: only records that are in one of these; None for any.
        include: which payloads to bring: "result", "kwargs", "stdout", "stderr", "traceback",
            "provenance".
        version: as it was in this locked version; statuses and results are those of now.

    >>> frame = dataset.results(specifications="hf").to_pandas()
    """
    wanted = None if status is None else {Status(each) for each in listed(status) or ()}
    names = cast("list[Include]", listed(include) or [])
    found = Results()
    session = within.session
    cursor: str | None = None
    n_entries = (yield from info(within)).n_entries
    with bar(session.progress, n_entries, "reading results") as progress:
        while True:
            answer = yield from _page(within, specifications, version, _PAGE, cursor)
            cells = [
                (row.entry, name, cell)
                for row in _rows(answer)
                for name, cell in row.cells.items()
                if cell is not None and (wanted is None or cell.status in wanted)
            ]
            ids = list(dict.fromkeys(cell.record_id for _, _, cell in cells))
            read = yield from get_records(session, ids, names, missing_ok=True)
            records = dict(zip(ids, read, strict=True))
            for entry, name, cell in cells:
                record = records[cell.record_id]
                found.append(
                    {
                        "entry": entry,
                        "specification": name,
                        "record_id": cell.record_id,
                        "status": None if record is None else record.status,
                        **{each: record and getattr(record, each) for each in names},
                    }
                )
            progress.update(len(answer.rows))
            cursor = answer.next_cursor
            if cursor is None:
                return found


@describes_conditions
def records(
    within: Within,
    *,
    include: Include | Iterable[Include] = (),
    limit: int | None = None,
    as_of: AsOf = None,
    **which: Unpack[RecordConditions],
) -> Pages:
    """Find records of the dataset, newest first; a record that is in several cells comes once.

    Args:
        include: which payloads to bring.
        limit: maximum number of records.
        as_of: as it was then: a position of the log, or a time; in UTC if it does not say.
        {which}

    >>> [record.id for record in dataset.records(specification="hf", status="error")]
    """
    return query_records(
        within.session,
        dataset=within.dataset_id,
        include=include,
        limit=limit,
        as_of=as_of,
        **which,
    )


def clone(
    within: Within,
    name: str,
    description: str | None = None,
    *,
    version: int | None = None,
    link_records: bool = False,
    reason: str | None = None,
) -> Operation[int]:
    """Make a dataset with the same entries and specifications; return it.

    Args:
        name: of the new one.
        description: of the new one; that of this one if not given.
        version: with what this locked version has.
        link_records: whether its cells have the same records; waits until they have.
        reason: kept with every event.

    >>> copy = dataset.clone("water clusters, copy", link_records=True)
    """
    request = wire.message(
        CloneRequest,
        name=name,
        description=description,
        version=version,
        link_records=link_records,
        reason=reason,
    )
    answer = yield from _post(within.session, within.path("clone"), SubmitAnswer, request)
    yield from _filled(within.session, answer, wait=True)
    return answer.dataset_id


def lock(
    within: Within,
    label: str = "",
    doi: str | None = None,
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[int]:
    """Keep the dataset, as it is now, readable for ever; return the number of this version.

    It can be read with `version=` of `entries`, `table` and `results`, however the dataset
    changes. A dataset with locked versions cannot be deleted, nor its records destroyed.

    Args:
        label: what people call it.
        doi: where it was published.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.lock("as published", doi="10.1000/182")
    """
    request = wire.message(
        LockVersionRequest, label=label, doi=doi, expected_version=expected_version, reason=reason
    )
    return (yield from _edit(within, "lock", request)).n_changed


def rename(
    within: Within,
    name: str,
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[None]:
    """Give the dataset another name.

    Args:
        name: unique; names that differ only in case are the same.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.rename("water clusters, 2026")
    """
    request = wire.message(
        ModifyDatasetRequest, new_name=name, expected_version=expected_version, reason=reason
    )
    yield from _edit(within, "modify", request)


def describe(
    within: Within,
    description: str,
    *,
    expected_version: int | None = None,
    reason: str | None = None,
) -> Operation[None]:
    """Give the dataset another description.

    Args:
        description: what it is.
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.describe("geometries of 2026, HF and PBE")
    """
    request = wire.message(
        ModifyDatasetRequest,
        new_description=description,
        expected_version=expected_version,
        reason=reason,
    )
    yield from _edit(within, "modify", request)


def delete(
    within: Within, *, expected_version: int | None = None, reason: str | None = None
) -> Operation[None]:
    """End the dataset; its records are as they were.

    Args:
        expected_version: refuse if the dataset has changed since this version.
        reason: kept with the event.

    >>> dataset.delete(reason="superseded")
    """
    request = wire.message(EditDatasetRequest, expected_version=expected_version, reason=reason)
    yield from _edit(within, "delete", request)


def history(
    within: Within,
    *,
    kind: str | Iterable[str] | None = None,
    actor: str | Iterable[str] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    records: bool = False,
    limit: int | None = 1_000,
) -> Operation[LogEvents]:
    """Return the dataset's history, oldest first; long lists are cut after their beginning.

    Args:
        kind: only of this kind, like `entries_added`, or of several.
        actor: only by this one, like `user:ann`, or by several.
        after: only those from then on; with a time zone.
        before: only those before then; with a time zone.
        records: whether the events of the records that it has now follow, record by record.
        limit: maximum number of events; None for all.

    Raises:
        InvalidArgument: a time has no zone.
        Refused: there is no such kind of event.

    >>> print(dataset.history(kind="entries_added"))
    """
    query = conditions(kind=kind, actor=actor, after=after, before=before)
    if records:
        query.append(("records", "true"))
    title = f"Dataset {within.dataset_id}"
    path = within.path("events")
    return (yield from log_events(within.session, path, query, limit, title))


def _filled(session: Session, answer: SubmitAnswer, *, wait: bool) -> Operation[SubmitMetadata]:
    n_linked, errors = answer.n_linked, answer.errors
    is_done = answer.job_id is None
    if answer.job_id is not None and wait:
        job = yield from wait_for_job(session, answer.job_id)
        refusals = yield from refusals_of(session, job)
        n_linked = job.n_updated
        errors = [CellRefusal(code=each.code, message=each.message) for each in refusals]
        is_done = job.state is JobState.finished
    return SubmitMetadata(
        n_selected=answer.n_selected,
        n_linked=n_linked,
        n_existing=answer.n_existing if answer.job_id is None else None,
        errors=errors,
        operation_id=answer.operation_id,
        job_id=answer.job_id,
        is_done=is_done,
    )


def _page(
    within: Within,
    specifications: str | Iterable[str] | None,
    version: int | None,
    limit: int,
    cursor: str | None,
) -> Operation[TableAnswer]:
    query = {"limit": limit, "cursor": cursor, "version": version}
    more = [("specification", name) for name in listed(specifications) or ()]
    path = within.path("table") + _query(query, more)
    return (yield from exchange.get(within.session, path, TableAnswer))


def _rows(answer: TableAnswer) -> list[DatasetRow]:
    return [
        DatasetRow(row.entry, dict(zip(answer.specifications, row.cells, strict=True)))
        for row in answer.rows
    ]


def _edit(within: Within, what: str, request: BaseModel) -> Operation[DatasetEdited]:
    return (yield from _post(within.session, within.path(what), DatasetEdited, request))


def _post(
    session: Session, path: str, shape: type[AnswerT], request: BaseModel
) -> Operation[AnswerT]:
    body = wire.pack(request.model_dump(exclude_none=True))
    return (yield from exchange.post(session, path, shape, body))


def _query(given: Mapping[str, Any], more: Sequence[tuple[str, str]] = ()) -> str:
    pairs = [(name, str(value)) for name, value in given.items() if value is not None]
    found = urlencode([*pairs, *more])
    return f"?{found}" if found else ""
