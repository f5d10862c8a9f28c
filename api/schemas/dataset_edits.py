"""Making and changing datasets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from .base import Answer, Message, Refusal
from .fields import PriorityName, ShortText, Text
from .submissions import RecordIn

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


class EditDatasetRequest(Message):
    """A change of a dataset that needs no more to be said."""

    expected_version: ExpectedVersion
    reason: Text | None = None


class ModifyDatasetRequest(EditDatasetRequest):
    """Another name or description for a dataset; None keeps what it is."""

    new_name: ShortText | None = None
    new_description: Text | None = None


class AddEntriesRequest(EditDatasetRequest):
    """Entries to add, in one operation."""

    entries: list[Any] = Field(
        description="Each an EntryIn; an invalid one is refused by its index and does not affect "
        "the others.",
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


class UnlinkRequest(WhichCells, EditDatasetRequest):
    """Cells to be emptied; their records are as they were."""

    all: bool = Field(default=False, description="Must be true if there is no condition.")


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


class DatasetEdited(Answer):
    """The outcome of a change; `operation_id` is None where there was nothing to change."""

    operation_id: str | None
    dataset_id: int
    version: int
    n_changed: int


class AddEntriesAnswer(Answer):
    """The outcome of each entry, by its index."""

    operation_id: str | None
    version: int
    inserted_idx: list[int]
    existing_idx: list[int]
    errors: list[Refusal]


class CellRefusal(Answer):
    """Why a cell got no record."""

    code: str
    message: str


class SubmitAnswer(Answer):
    """The outcome of the cells that had no record.

    `n_existing` of those that got one got a record that was there already. With a `job_id` (status
    202) the job has only begun, and reports the rest.
    """

    operation_id: str | None
    dataset_id: int
    n_selected: int
    n_linked: int
    n_existing: int
    errors: list[CellRefusal]
    job_id: int | None = None
