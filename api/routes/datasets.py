"""Datasets: what is in them, submission, how far they are, clones and locked versions."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from recordledger.domain.admin.access import Permission
from recordledger.domain.dataset import specifications_named
from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.records.events import Priority
from recordledger.domain.routing.lanes import parse_tag
from recordledger.domain.streams import ID_MAX, Stream
from recordledger.projections.actions import dataset_edits, dataset_filling
from recordledger.projections.actions.dataset_edits import Edited, NewEntry, Who
from recordledger.projections.actions.dataset_filling import Filled, SubmissionTerms
from recordledger.projections.ledger import Placed
from recordledger.projections.reading import histories
from recordledger.projections.tables import datasets

from ..http.auth import Visitor, allowed
from ..http.cursors import Listing, cursor_of, last_id_of, last_pair_of, pair_cursor_of
from ..http.openapi import gives, takes
from ..http.rendering import log_out
from ..http.request_context import Call, desk_of
from ..http.wire import Accepted, Reply
from ..schemas.dataset_edits import (
    AddEntriesAnswer,
    AddEntriesRequest,
    AddSpecificationRequest,
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
from ..schemas.datasets import (
    DatasetAnswer,
    DatasetHistoryAnswer,
    DatasetsAnswer,
    DatasetStatusAnswer,
    EntriesAnswer,
    TableAnswer,
)
from ..schemas.fields import PAGE_MAX
from .dataset_requests import (
    dataset_answer,
    dataset_out,
    entries_out,
    new_entry,
    new_specification,
    no_condition,
    selection_of,
    status_out,
    table_out,
)
from .histories import Wanted
from .submissions import refused

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

DatasetId = Annotated[int, Path(ge=1, le=ID_MAX)]
Reader = Annotated[Visitor, allowed(Permission.read)]
Submitter = Annotated[Visitor, allowed(Permission.submit)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(max_length=200)]
LockedVersion = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="A locked version; what it is now if none.")
]

_EDITED: Final[dict[str, Any]] = {
    "operation_id": "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70",
    "dataset_id": 7,
    "version": 3,
    "n_changed": 1,
}
_FILLED: Final[dict[str, Any]] = {
    "operation_id": "5f7e6f9a-8a3c-4f5e-9d57-9d3a3f9a1f70",
    "dataset_id": 7,
    "n_selected": 6,
    "n_linked": 6,
    "n_existing": 2,
    "errors": [],
    "job_id": None,
}
_SPECIFICATION: Final[dict[str, Any]] = {
    "name": "hf/sto-3g",
    "function": "recordledger.workers.demo.functions:quadratic",
    "kwargs": {"a": 2.0},
    "required_programs": [],
    "tag": "default",
    "priority": "normal",
}


@router.post(
    "",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(CreateDatasetRequest, example={"name": "water clusters"}, changes=True),
)
async def create_dataset(request: Request, visitor: Submitter) -> Response:
    """Make an empty dataset. Names are unique; capitals do not tell them apart."""

    def work(call: Call) -> Reply:
        asked = call.parse(CreateDatasetRequest)
        who = _who(call, asked.reason)
        return _edited(
            dataset_edits.create(call.desk.ledger, asked.name, asked.description, who), 1
        )

    return await desk_of(request).answer(request, visitor, work)


@router.get("", response_model=DatasetsAnswer)
async def list_datasets(
    request: Request,
    visitor: Reader,
    name: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Response:
    """Get one page of the datasets, newest first, or the one of this name."""

    def work(call: Call) -> Reply:
        desk = call.desk
        before = ID_MAX if cursor is None else last_id_of(cursor, desk.ledger_id, Stream.dataset)
        with desk.ledger.datastore.reading() as db:
            if name is None:
                found = datasets.page(db, limit + 1, before)
            else:
                named = datasets.id_of(db, name)
                found = [] if named is None else [datasets.get(db, named)]
            counts = datasets.counts_of_all(db, [each.id for each in found])
        shown, next_cursor = found[:limit], None
        if len(found) > limit:
            next_cursor = cursor_of(desk.ledger_id, Stream.dataset, shown[-1].id)
        rows = [dataset_out(each, counts.get(each.id, {})) for each in shown]
        return {"datasets": rows, "next_cursor": next_cursor}

    return await desk_of(request).answer(request, visitor, work)


@router.get("/{dataset_id}", response_model=DatasetAnswer)
async def get_dataset(
    request: Request, visitor: Reader, dataset_id: DatasetId, version: LockedVersion = None
) -> Response:
    """Get a dataset, its locked versions, and the specifications that it has, or had."""

    def work(call: Call) -> Reply:
        with call.desk.ledger.datastore.reading() as db:
            return dataset_answer(db, datasets.get(db, dataset_id), version)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/modify",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(ModifyDatasetRequest, example={"new_name": "ice"}, changes=True),
)
async def modify_dataset(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Give a dataset another name or description."""

    def work(call: Call) -> Reply:
        asked = call.parse(ModifyDatasetRequest)
        if asked.new_name is None and asked.new_description is None:
            raise InvalidInput("say what to modify: new_name, new_description or both")
        edited = dataset_edits.modify(
            call.desk.ledger,
            dataset_id,
            _who(call, asked.reason),
            name=asked.new_name,
            description=asked.new_description,
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/delete",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(EditDatasetRequest, example={"reason": "superseded"}, changes=True),
)
async def delete_dataset(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """End a dataset; its records are as they were. Refused if a version of it is locked."""

    def work(call: Call) -> Reply:
        asked = call.parse(EditDatasetRequest)
        edited = dataset_edits.delete(
            call.desk.ledger,
            dataset_id,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, 1)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/entries",
    response_model=AddEntriesAnswer,
    openapi_extra=takes(
        AddEntriesRequest,
        example={"entries": [{"name": "dimer", "input": {"x": 1.5}, "attributes": {"n": 2}}]},
        changes=True,
    ),
)
async def add_entries(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Add entries, in one operation; a wrong one is refused and spoils no other.

    One that is there already, and says the same, is left as it is: sending them again is harmless.
    """
    return await desk_of(request).answer(
        request, visitor, lambda call: _add_entries(call, dataset_id)
    )


@router.get("/{dataset_id}/entries", response_model=EntriesAnswer)
async def list_entries(
    request: Request,
    visitor: Reader,
    dataset_id: DatasetId,
    content: Annotated[bool, Query(description="Whether with input and attributes.")] = True,
    version: LockedVersion = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Response:
    """Get one page of a dataset's entries, in the order in which they came."""

    def work(call: Call) -> Reply:
        desk = call.desk
        after = 0 if cursor is None else last_id_of(cursor, desk.ledger_id, Listing.entries)
        with desk.ledger.datastore.reading() as db:
            dataset = datasets.get(db, dataset_id)
            at = datasets.version_numbered(db, dataset, version)
            found = datasets.entries(db, dataset_id, at, after, limit + 1)
            if content:
                shown = entries_out(db, found[:limit], desk.settings.answer_bytes_max)
            else:
                shown = [{"name": entry.name} for entry in found[:limit]]
        next_cursor = None
        if len(found) > len(shown):
            last = found[len(shown) - 1]
            next_cursor = cursor_of(desk.ledger_id, Listing.entries, last.number)
        return {"entries": shown, "next_cursor": next_cursor}

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/entries/rename",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(
        RenameEntriesRequest, example={"names": {"dimer": "water dimer"}}, changes=True
    ),
)
async def rename_entries(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Give entries other names: all of them or none. Two may swap theirs."""

    def work(call: Call) -> Reply:
        asked = call.parse(RenameEntriesRequest)
        edited = dataset_edits.rename_entries(
            call.desk.ledger,
            dataset_id,
            asked.names,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/entries/remove",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(RemoveEntriesRequest, example={"names": ["dimer"]}, changes=True),
)
async def remove_entries(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Take entries out of a dataset, all of them or none; their records are as they were."""

    def work(call: Call) -> Reply:
        asked = call.parse(RemoveEntriesRequest)
        edited = dataset_edits.remove_entries(
            call.desk.ledger,
            dataset_id,
            asked.names,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/specifications",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(
        AddSpecificationRequest, example={"specification": _SPECIFICATION}, changes=True
    ),
)
async def add_specification(
    request: Request, visitor: Submitter, dataset_id: DatasetId
) -> Response:
    """Add a specification; the same one again is left as it is.

    The arguments of a record are the specification's `kwargs`, over which the entry's `input` wins.
    """

    def work(call: Call) -> Reply:
        asked = call.parse(AddSpecificationRequest)
        specification, kwargs = new_specification(asked.specification)
        edited = dataset_edits.add_specification(
            call.desk.ledger,
            dataset_id,
            specification,
            kwargs,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/specifications/remove",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(
        RemoveSpecificationsRequest, example={"names": ["hf/sto-3g"]}, changes=True
    ),
)
async def remove_specifications(
    request: Request, visitor: Submitter, dataset_id: DatasetId
) -> Response:
    """Take specifications out of a dataset, all of them or none; their records stay."""

    def work(call: Call) -> Reply:
        asked = call.parse(RemoveSpecificationsRequest)
        edited = dataset_edits.remove_specifications(
            call.desk.ledger,
            dataset_id,
            asked.names,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/submit",
    response_model=SubmitAnswer,
    responses=gives(_FILLED, job=SubmitAnswer),
    openapi_extra=takes(
        SubmitRequest, example={"specifications": ["hf/sto-3g"], "pattern": "di*"}, changes=True
    ),
)
async def submit_dataset(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Give every selected cell that has no record one.

    More than 2,000 cells are filled by a job: the answer is 202 and its id.
    """

    def work(call: Call) -> Reply:
        asked = call.parse(SubmitRequest)
        terms = SubmissionTerms(
            payload_bytes_max=call.desk.settings.payload_bytes_max,
            find_existing=asked.find_existing,
            tag=None if asked.tag is None else parse_tag(asked.tag),
            priority=None if asked.priority is None else Priority[asked.priority],
        )
        filled = dataset_filling.submit(
            call.desk.ledger, dataset_id, selection_of(asked), terms, _who(call, asked.reason)
        )
        return _filled(filled, is_new=False)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/unlink",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(UnlinkRequest, example={"entries": ["dimer"]}, changes=True),
)
async def unlink_records(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Empty the selected cells; their records are as they were, and free of the dataset."""

    def work(call: Call) -> Reply:
        asked = call.parse(UnlinkRequest)
        if no_condition(asked) and not asked.all:
            raise InvalidInput(
                "there is no condition, so every cell would be emptied; if that is what you want, "
                "say so: all=true"
            )
        edited = dataset_edits.unlink(
            call.desk.ledger,
            dataset_id,
            selection_of(asked),
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, edited["n_changed"])

    return await desk_of(request).answer(request, visitor, work)


@router.get("/{dataset_id}/status", response_model=DatasetStatusAnswer)
async def get_dataset_status(request: Request, visitor: Reader, dataset_id: DatasetId) -> Response:
    """Get how far a dataset is, by specification and in all. The counts are kept, not counted."""

    def work(call: Call) -> Reply:
        with call.desk.ledger.datastore.reading() as db:
            return status_out(datasets.get(db, dataset_id), datasets.counts(db, dataset_id))

    return await desk_of(request).answer(request, visitor, work)


@router.get("/{dataset_id}/table", response_model=TableAnswer)
async def get_dataset_table(
    request: Request,
    visitor: Reader,
    dataset_id: DatasetId,
    specification: Annotated[list[str] | None, Query(max_length=1_000)] = None,
    version: LockedVersion = None,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Response:
    """Get one page of a dataset's table: its entries with their records, and these' statuses.

    A locked version has the entries, specifications and records that it had; the statuses are
    those of now.
    """

    def work(call: Call) -> Reply:
        desk = call.desk
        after = 0 if cursor is None else last_id_of(cursor, desk.ledger_id, Listing.entries)
        with desk.ledger.datastore.reading() as db:
            dataset = datasets.get(db, dataset_id)
            at = datasets.version_numbered(db, dataset, version)
            known = {each.name: each for each in datasets.specifications(db, dataset_id, at)}
            columns = specifications_named(dataset.with_specifications(known), specification)
            found = datasets.entries(db, dataset_id, at, after, limit + 1)
            numbers = [each.number for each in columns]
            rows = table_out(db, dataset_id, at, found[:limit], numbers)
        next_cursor = None
        if len(found) > limit:
            next_cursor = cursor_of(desk.ledger_id, Listing.entries, found[limit - 1].number)
        return {
            "specifications": [each.name for each in columns],
            "rows": rows,
            "next_cursor": next_cursor,
        }

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/clone",
    response_model=SubmitAnswer,
    responses=gives(_FILLED, job=SubmitAnswer),
    openapi_extra=takes(
        CloneRequest, example={"name": "water clusters, again", "link_records": True}, changes=True
    ),
)
async def clone_dataset(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Make a dataset with the entries and specifications of this one, and its records if wanted.

    More than 2,000 records are linked by a job: the answer is 202 and its id.
    """

    def work(call: Call) -> Reply:
        asked = call.parse(CloneRequest)
        filled = dataset_filling.clone(
            call.desk.ledger,
            dataset_id,
            asked.name,
            _who(call, asked.reason),
            description=asked.description,
            version=asked.version,
            link_records=asked.link_records,
        )
        return _filled(filled, is_new=True)

    return await desk_of(request).answer(request, visitor, work)


@router.post(
    "/{dataset_id}/lock",
    response_model=DatasetEdited,
    responses=gives(_EDITED),
    openapi_extra=takes(
        LockVersionRequest, example={"label": "as published", "doi": "10.1000/182"}, changes=True
    ),
)
async def lock_dataset(request: Request, visitor: Submitter, dataset_id: DatasetId) -> Response:
    """Keep a dataset, as it is now, readable for ever: `n_changed` is the number of the version."""

    def work(call: Call) -> Reply:
        asked = call.parse(LockVersionRequest)
        edited = dataset_edits.lock_version(
            call.desk.ledger,
            dataset_id,
            asked.label,
            asked.doi,
            _who(call, asked.reason),
            expected_version=asked.expected_version,
        )
        return _edited(edited, 1)

    return await desk_of(request).answer(request, visitor, work)


@router.get("/{dataset_id}/events", response_model=DatasetHistoryAnswer)
async def get_dataset_history(
    request: Request,
    visitor: Reader,
    dataset_id: DatasetId,
    wanted: Wanted,
    records: Annotated[
        bool, Query(description="Whether its records' events follow, record by record.")
    ] = False,
    limit: Limit = 250,
    cursor: Cursor = None,
) -> Response:
    """Get one page of a dataset's events, oldest first; of long lists only the beginning.

    With `records`, those of the records that it has now come after its own, record by record. A
    page may be empty before the end, for conditions are looked at in what was read.
    """

    def work(call: Call) -> Reply:
        ledger, ledger_id = call.desk.ledger, call.desk.ledger_id
        # Record 0 stands for the dataset itself.
        after = (0, 0)
        if cursor is not None:
            after = last_pair_of(cursor, ledger_id, Listing.dataset_events)
        placed: list[Placed] = []
        with ledger.datastore.reading() as db:
            datasets.get(db, dataset_id)
            if after[0] == 0:
                own = ledger.history(db, Stream.dataset, dataset_id)[after[1] :]
                placed, is_last = own[:limit], not records and len(own) <= limit
            else:
                is_last = False
            if records and len(placed) < limit:
                room = limit - len(placed)
                found = histories.dataset_page(
                    ledger, db, dataset_id, after if after[0] else (0, 0), room
                )
                placed += found
                is_last = len(found) < room
        next_cursor = None
        if not is_last and placed:
            last = placed[-1].recorded
            number = last.number if last.stream is Stream.record else 0
            next_cursor = pair_cursor_of(ledger_id, Listing.dataset_events, (number, last.version))
        events = wanted.through(log_out(ledger, placed))
        return {"dataset_id": dataset_id, "events": events, "next_cursor": next_cursor}

    return await desk_of(request).answer(request, visitor, work)


def _add_entries(call: Call, dataset_id: int) -> Reply:
    asked = call.parse(AddEntriesRequest)
    settings = call.desk.settings
    limit = settings.records_per_request
    if len(asked.entries) > limit:
        raise TooLarge("the request's entries", len(asked.entries), limit, "records_per_request")
    entries: list[NewEntry] = []
    places: list[int] = []
    errors: list[dict[str, Any]] = []
    for index, given in enumerate(asked.entries):
        try:
            entries.append(new_entry(given, settings.payload_bytes_max))
            places.append(index)
        except InvalidInput as error:
            errors.append(refused(index, error))
    added = dataset_edits.add_entries(
        call.desk.ledger,
        dataset_id,
        entries,
        _who(call, asked.reason),
        expected_version=asked.expected_version,
    )
    errors += [
        {"idx": places[index], "code": code, "message": message}
        for index, code, message in added["refusals"]
    ]
    return {
        "operation_id": added["operation_id"] if added["inserted_idx"] else None,
        "version": added["version"],
        "inserted_idx": [places[index] for index in added["inserted_idx"]],
        "existing_idx": [places[index] for index in added["existing_idx"]],
        "errors": sorted(errors, key=lambda each: each["idx"]),
    }


def _who(call: Call, reason: str | None) -> Who:
    return Who(call.visitor.actor, reason, call.key)


def _edited(edited: Edited, n_changed: int) -> Reply:
    return {**edited, "operation_id": edited["operation_id"] if n_changed else None}


def _filled(filled: Filled, *, is_new: bool) -> Reply:
    has_changed = is_new or filled["n_linked"] or filled["job_id"] is not None
    answer = {
        "operation_id": filled["operation_id"] if has_changed else None,
        "dataset_id": filled["dataset_id"],
        "n_selected": filled["n_selected"],
        "n_linked": filled["n_linked"],
        "n_existing": filled["n_existing"],
        "errors": [{"code": code, "message": message} for code, message in filled["refusals"]],
        "job_id": filled["job_id"],
    }
    return answer if filled["job_id"] is None else Accepted(answer)
