"""Changes of datasets: most are a row of `EDITS`, which the loop below it makes a route of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from fastapi import APIRouter
from starlette.responses import Response

from recordledger.domain.errors import InvalidInput, TooLarge
from recordledger.domain.records.events import Priority
from recordledger.domain.routing.lanes import parse_tag
from recordledger.projections.actions import dataset_edits, dataset_filling
from recordledger.projections.actions.dataset_edits import Edited, NewEntry, Who
from recordledger.projections.actions.dataset_filling import Filled, SubmissionTerms

from ..http.openapi import answer_body, request_body
from ..http.request_context import Call, endpoint
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
from .dataset_requests import new_entry, new_specification, no_condition, selection_of
from .datasets import DatasetId
from .records import Submitter
from .submissions import refused

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

Asked = TypeVar("Asked", bound=EditDatasetRequest)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEdit(Generic[Asked]):
    """A change of a dataset that is a route.

    Attributes:
        path: of the route, below the dataset's.
        name: of the route.
        text: what it does, in sentences.
        request: what its body must be.
        example: a body that is right.
        edit: the change.
        arguments: what `edit` takes from a request, besides what all changes take.
        always: whether it changes something whenever it is not refused, whatever it counts.
    """

    path: str
    name: str
    text: str
    request: type[Asked]
    example: dict[str, Any]
    edit: Callable[..., Edited]
    arguments: Callable[[Asked], Mapping[str, Any]]
    always: bool = False


def _modification(asked: ModifyDatasetRequest) -> Mapping[str, Any]:
    if asked.new_name is None and asked.new_description is None:
        raise InvalidInput("give new_name, new_description or both")
    return {"name": asked.new_name, "description": asked.new_description}


def _addition(asked: AddSpecificationRequest) -> Mapping[str, Any]:
    specification, kwargs = new_specification(asked.specification)
    return {"specification": specification, "kwargs": kwargs}


def _emptied(asked: UnlinkRequest) -> Mapping[str, Any]:
    if no_condition(asked) and not asked.all:
        raise InvalidInput(
            "there is no condition, so every cell would be emptied; set all=true if that is "
            "intended"
        )
    return {"selection": selection_of(asked)}


EDITS: Final[tuple[DatasetEdit[Any], ...]] = (
    DatasetEdit(
        path="modify",
        name="modify_dataset",
        text="Give a dataset another name or description.",
        request=ModifyDatasetRequest,
        example={"new_name": "ice"},
        edit=dataset_edits.modify,
        arguments=_modification,
    ),
    DatasetEdit(
        path="delete",
        name="delete_dataset",
        text="End a dataset; its records are as they were. Refused if a version of it is locked.",
        request=EditDatasetRequest,
        example={"reason": "superseded"},
        edit=dataset_edits.delete,
        arguments=lambda asked: {},
        always=True,
    ),
    DatasetEdit(
        path="entries/rename",
        name="rename_entries",
        text="Give entries other names: all of them or none. Two may swap theirs.",
        request=RenameEntriesRequest,
        example={"names": {"dimer": "water dimer"}},
        edit=dataset_edits.rename_entries,
        arguments=lambda asked: {"names": asked.names},
    ),
    DatasetEdit(
        path="entries/remove",
        name="remove_entries",
        text="Take entries out of a dataset, all of them or none; their records are as they were.",
        request=RemoveEntriesRequest,
        example={"names": ["dimer"]},
        edit=dataset_edits.remove_entries,
        arguments=lambda asked: {"names": asked.names},
    ),
    DatasetEdit(
        path="specifications",
        name="add_specification",
        text="Add a specification; the same one again is left as it is.\n\nThe arguments of a "
        "record are the specification's `kwargs`, over which the entry's `input` wins.",
        request=AddSpecificationRequest,
        example={"specification": _SPECIFICATION},
        edit=dataset_edits.add_specification,
        arguments=_addition,
    ),
    DatasetEdit(
        path="specifications/remove",
        name="remove_specifications",
        text="Take specifications out of a dataset, all of them or none; their records stay.",
        request=RemoveSpecificationsRequest,
        example={"names": ["hf/sto-3g"]},
        edit=dataset_edits.remove_specifications,
        arguments=lambda asked: {"names": asked.names},
    ),
    DatasetEdit(
        path="unlink",
        name="unlink_records",
        text="Empty the selected cells; their records are as they were, and free of the dataset.",
        request=UnlinkRequest,
        example={"entries": ["dimer"]},
        edit=dataset_edits.unlink,
        arguments=_emptied,
    ),
    DatasetEdit(
        path="lock",
        name="lock_dataset",
        text="Keep a dataset, as it is now, readable for ever: `n_changed` is the number of the "
        "version.",
        request=LockVersionRequest,
        example={"label": "as published", "doi": "10.1000/182"},
        edit=dataset_edits.lock_version,
        arguments=lambda asked: {"label": asked.label, "doi": asked.doi},
        always=True,
    ),
)


def _endpoint(row: DatasetEdit[Any]) -> Callable[..., Awaitable[Response]]:
    def edit(call: Call, dataset_id: DatasetId) -> Reply:
        asked = call.parse(row.request)
        edited = row.edit(
            call.desk.ledger,
            dataset_id,
            who=_who(call, asked.reason),
            expected_version=asked.expected_version,
            **row.arguments(asked),
        )
        return _edited(edited, has_changed=row.always or edited["n_changed"] > 0)

    edit.__name__ = edit.__qualname__ = row.name
    edit.__doc__ = row.text
    return endpoint(Submitter)(edit)


for _row in EDITS:
    router.add_api_route(
        f"/{{dataset_id}}/{_row.path}",
        _endpoint(_row),
        methods=["POST"],
        response_model=DatasetEdited,
        responses=answer_body(_EDITED),
        openapi_extra=request_body(_row.request, example=_row.example, changes=True),
    )


@router.post(
    "",
    response_model=DatasetEdited,
    responses=answer_body(_EDITED),
    openapi_extra=request_body(
        CreateDatasetRequest, example={"name": "water clusters"}, changes=True
    ),
)
@endpoint(Submitter)
def create_dataset(call: Call) -> Reply:
    """Make an empty dataset. Names are unique, ignoring case."""
    asked = call.parse(CreateDatasetRequest)
    who = _who(call, asked.reason)
    created = dataset_edits.create(call.desk.ledger, asked.name, asked.description, who)
    return _edited(created, has_changed=True)


@router.post(
    "/{dataset_id}/entries",
    response_model=AddEntriesAnswer,
    openapi_extra=request_body(
        AddEntriesRequest,
        example={"entries": [{"name": "dimer", "input": {"x": 1.5}, "attributes": {"n": 2}}]},
        changes=True,
    ),
)
@endpoint(Submitter)
def add_entries(call: Call, dataset_id: DatasetId) -> Reply:
    """Add entries, in one operation; a wrong one is refused and spoils no other.

    One that already exists with the same content is left unchanged: sending them again is harmless.
    """
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


@router.post(
    "/{dataset_id}/submit",
    response_model=SubmitAnswer,
    responses=answer_body(_FILLED, job=SubmitAnswer),
    openapi_extra=request_body(
        SubmitRequest, example={"specifications": ["hf/sto-3g"], "pattern": "di*"}, changes=True
    ),
)
@endpoint(Submitter)
def submit_dataset(call: Call, dataset_id: DatasetId) -> Reply:
    """Give every selected cell that has no record one.

    More than 2,000 cells are filled by a job: the answer is 202 and its id.
    """
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


@router.post(
    "/{dataset_id}/clone",
    response_model=SubmitAnswer,
    responses=answer_body(_FILLED, job=SubmitAnswer),
    openapi_extra=request_body(
        CloneRequest, example={"name": "water clusters, again", "link_records": True}, changes=True
    ),
)
@endpoint(Submitter)
def clone_dataset(call: Call, dataset_id: DatasetId) -> Reply:
    """Make a dataset with the entries and specifications of this one, and its records if wanted.

    More than 2,000 records are linked by a job: the answer is 202 and its id.
    """
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


def _who(call: Call, reason: str | None) -> Who:
    return Who(call.visitor.actor, reason, call.key)


def _edited(edited: Edited, *, has_changed: bool) -> Reply:
    return {**edited, "operation_id": edited["operation_id"] if has_changed else None}


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
