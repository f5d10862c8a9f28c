"""A dataset: what may be done to it, and what it is after its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from recordledger.domain import dataset as d
from recordledger.domain.dataset import (
    CHUNK_MAX,
    DATASET_EVENTS,
    ENTRIES_MAX,
    SPECIFICATIONS_MAX,
    DatasetAggregate,
    DatasetCreated,
    DatasetDeleted,
    DatasetDescribed,
    DatasetRenamed,
    DatasetSpecification,
    EntriesAdded,
    EntriesRemoved,
    EntriesRenamed,
    RecordsLinked,
    RecordsUnlinked,
    SpecificationAdded,
    SpecificationRemoved,
    VersionLocked,
    evolve_dataset,
)
from recordledger.domain.errors import (
    DatasetChanged,
    DatasetExists,
    DatasetLocked,
    EntryExists,
    EntryNotFound,
    ImpossibleHistory,
    InvalidInput,
    SpecificationExists,
    SpecificationNotFound,
    TooLarge,
)
from recordledger.domain.records.events import Event, Kind, Payload, Priority
from recordledger.domain.records.retries import Retry
from recordledger.domain.specs.fingerprint import digest_of
from tests.examples import T0, at, stamp

STAMP = stamp(timestamp=at(5), actor="ann")
SAID = STAMP.model_dump()
INPUTS = Payload(digest=digest_of(b"inputs"), size_bytes=6)
KWARGS = Payload(digest=digest_of(b"kwargs"), size_bytes=6)
HF = DatasetSpecification(
    number=1,
    name="hf",
    kind=Kind.task,
    function="psi4",
    kwargs=KWARGS,
    required_programs=("psi4>=1.9",),
    tag="gpu",
    priority=Priority.high,
    retry=Retry(2, 1.0, ("OSError",)),
)
CREATED = DatasetCreated(name="water", description="clusters", **stamp(actor="ann").model_dump())
HF_ADDED = SpecificationAdded(
    specification=1,
    name="hf",
    kind=Kind.task,
    function="psi4",
    kwargs=KWARGS,
    required_programs=("psi4>=1.9",),
    tag="gpu",
    priority=Priority.high,
    retries=2,
    retry_delay_s=1.0,
    retry_on=("OSError",),
    **SAID,
)
TWO_ADDED = EntriesAdded(first=1, names=("dimer", "trimer"), inputs=INPUTS, **SAID)
LOCKED = VersionLocked(number=1, **SAID)
DELETED = DatasetDeleted(**SAID)
NUMBERS = {"dimer": 1, "trimer": 2}


def folded(*history: Event) -> DatasetAggregate:
    dataset = DatasetAggregate(7)
    for event in history:
        dataset = evolve_dataset(dataset, event)
    return dataset


def water(*more: Event) -> DatasetAggregate:
    """A dataset of two entries and a specification."""
    return folded(CREATED, TWO_ADDED, HF_ADDED, *more)


# What it is after its events


def test_a_new_dataset_is_empty_and_belongs_to_whoever_made_it() -> None:
    assert not DatasetAggregate(7).is_live
    assert folded(CREATED) == DatasetAggregate(
        7,
        version=1,
        name="water",
        description="clusters",
        owner="ann",
        created_at=T0,
        modified_at=T0,
    )
    assert folded(CREATED).is_live


def test_every_event_leaves_its_trace() -> None:
    history: list[tuple[Event, Mapping[str, Any]]] = [
        (DatasetRenamed(name="ice", **SAID), {"name": "ice"}),
        (DatasetDescribed(description="solid", **SAID), {"description": "solid"}),
        (TWO_ADDED, {"n_entries": 2, "entries_added": 2}),
        (EntriesRenamed(entries=(1,), names=("pair",), **SAID), {"n_entries": 2}),
        (EntriesRemoved(entries=(1,), **SAID), {"n_entries": 1, "entries_added": 2}),
        (HF_ADDED, {"specifications": {"hf": HF}, "specifications_added": 1}),
        (RecordsLinked(specification=1, entries=(2,), record_ids=(411,), **SAID), {}),
        (RecordsUnlinked(specification=1, entries=(2,), **SAID), {}),
        (LOCKED, {"versions_locked": 1}),
        (SpecificationRemoved(specification=1, **SAID), {"specifications": {}}),
        (DELETED, {"n_entries": 0, "deleted_at": at(5), "versions_locked": 1}),
    ]
    dataset = folded(CREATED)
    for version, (event, expected) in enumerate(history, 2):
        dataset = evolve_dataset(dataset, event)
        assert (dataset.version, dataset.modified_at) == (version, at(5))
        assert {name: getattr(dataset, name) for name in expected} == expected
    assert not dataset.is_live


def test_a_removed_specification_leaves_the_others() -> None:
    mp2 = HF_ADDED.model_copy(update={"specification": 2, "name": "mp2"})
    dataset = water(mp2, SpecificationRemoved(specification=1, **SAID))
    assert list(dataset.specifications) == ["mp2"]
    assert dataset.by_number(2) == replace(HF, number=2, name="mp2")
    assert dataset.by_number(1) is None


IMPOSSIBLE: list[tuple[tuple[Event, ...], Event]] = [
    *(((), event) for event in (TWO_ADDED, HF_ADDED, LOCKED, DELETED)),
    ((CREATED,), CREATED),
    *(((CREATED, DELETED), event) for event in (CREATED, TWO_ADDED, DELETED)),
    ((CREATED, TWO_ADDED), TWO_ADDED),
    ((CREATED,), EntriesRemoved(entries=(1,), **SAID)),
    ((CREATED, TWO_ADDED), EntriesRenamed(entries=(1,), names=("a", "b"), **SAID)),
    ((CREATED, HF_ADDED), HF_ADDED),
    ((CREATED,), SpecificationRemoved(specification=1, **SAID)),
    ((CREATED,), RecordsLinked(specification=1, entries=(1,), record_ids=(4,), **SAID)),
    ((CREATED, HF_ADDED), RecordsLinked(specification=1, entries=(1,), record_ids=(), **SAID)),
    ((CREATED,), RecordsUnlinked(specification=1, entries=(1,), **SAID)),
    ((CREATED, LOCKED), LOCKED),
    ((CREATED,), Event(**SAID)),
]


@pytest.mark.parametrize(("history", "event"), IMPOSSIBLE)
def test_what_cannot_follow_is_no_history(history: tuple[Event, ...], event: Event) -> None:
    if type(event) is Event:
        event = type("Strange", (Event,), {"topic": "strange"})(**SAID)
    with pytest.raises(ImpossibleHistory, match=r"dataset 7, version \d+: \w+ cannot happen"):
        folded(*history, event)


def test_the_catalogue_names_every_event_of_a_dataset() -> None:
    types = [each for each in vars(d).values() if isinstance(each, type)]
    assert set(DATASET_EVENTS) == {each for each in types if issubclass(each, Event)} - {Event}


# What may be done


def test_a_dataset_is_made_under_a_name_that_nobody_has() -> None:
    [event] = d.create_dataset(STAMP, "water", "clusters", taken_by=None, cloned_from=3)
    assert event == DatasetCreated(name="water", description="clusters", cloned_from=3, **SAID)
    with pytest.raises(DatasetExists) as refused:
        d.create_dataset(STAMP, "water", "", taken_by=7, cloned_from=None)
    assert (refused.value.name, refused.value.dataset_id) == ("water", 7)


def test_a_name_changes_once_and_to_one_that_nobody_else_has() -> None:
    assert d.rename_dataset(water(), STAMP, "ice", None) == [DatasetRenamed(name="ice", **SAID)]
    # It may take another spelling of its own name.
    assert d.rename_dataset(water(), STAMP, "Water", 7) == [DatasetRenamed(name="Water", **SAID)]
    assert d.rename_dataset(water(), STAMP, "water", 7) == []
    with pytest.raises(DatasetExists):
        d.rename_dataset(water(), STAMP, "ice", 8)


def test_a_description_changes_once() -> None:
    described = DatasetDescribed(description="solid", **SAID)
    assert d.describe_dataset(water(), STAMP, "solid") == [described]
    assert d.describe_dataset(water(described), STAMP, "solid") == []


def test_a_dataset_is_deleted_unless_a_version_is_locked() -> None:
    assert d.delete_dataset(water(), STAMP) == [DELETED]
    with pytest.raises(DatasetLocked, match="1 locked versions") as refused:
        d.delete_dataset(water(LOCKED), STAMP)
    assert (refused.value.name, refused.value.n_versions) == ("water", 1)


def test_what_was_meant_for_another_version_is_refused() -> None:
    dataset = water()
    dataset.require_version(None)
    dataset.require_version(3)
    with pytest.raises(DatasetChanged) as refused:
        dataset.require_version(2)
    assert (refused.value.expected, refused.value.version) == (2, 3)


def test_entries_are_new_or_there_or_contradict_others() -> None:
    given = [("a", b"1"), ("b", b"2"), ("c", b"3"), ("c", b"3"), ("a", b"1"), ("c", b"4")]
    addition = d.sort_entries(water(), given, {"a": b"1", "b": b"1"})
    assert addition.new_idx == [2]
    assert addition.existing_idx == [0, 3, 4]
    assert {idx: why.names for idx, why in addition.refusals.items()} == {1: ("b",), 5: ("c",)}


def test_a_dataset_takes_so_many_entries_and_no_more() -> None:
    full = replace(water(), entries_added=ENTRIES_MAX - 1)
    assert d.sort_entries(full, [("a", b"1")], {}).new_idx == [0]
    with pytest.raises(TooLarge) as refused:
        d.sort_entries(full, [("a", b"1"), ("b", b"1")], {})
    assert refused.value.limit == ENTRIES_MAX


def test_entries_are_numbered_on_through_the_chunks() -> None:
    events = d.add_entries(water(), STAMP, [(["a", "b"], INPUTS), (["c"], KWARGS)])
    assert events == [
        EntriesAdded(first=3, names=("a", "b"), inputs=INPUTS, **SAID),
        EntriesAdded(first=5, names=("c",), inputs=KWARGS, **SAID),
    ]
    assert water(*events).n_entries == 5


def test_entries_get_other_names_and_may_swap_them() -> None:
    assert d.rename_entries(water(), STAMP, {"dimer": "pair", "trimer": "trimer"}, NUMBERS) == [
        EntriesRenamed(entries=(1,), names=("pair",), **SAID)
    ]
    assert d.rename_entries(water(), STAMP, {"dimer": "trimer", "trimer": "dimer"}, NUMBERS) == [
        EntriesRenamed(entries=(1, 2), names=("trimer", "dimer"), **SAID)
    ]
    assert d.rename_entries(water(), STAMP, {"dimer": "dimer"}, NUMBERS) == []


@pytest.mark.parametrize(
    ("names", "clashing"),
    [({"dimer": "trimer"}, ("trimer",)), ({"dimer": "x", "trimer": "x"}, ("x",))],
)
def test_two_entries_never_have_the_same_name(
    names: dict[str, str], clashing: tuple[str, ...]
) -> None:
    with pytest.raises(EntryExists) as refused:
        d.rename_entries(water(), STAMP, names, NUMBERS)
    assert refused.value.names == clashing


def test_so_many_entries_are_renamed_at_once_and_no_more() -> None:
    with pytest.raises(TooLarge) as refused:
        d.rename_entries(water(), STAMP, {str(n): "x" for n in range(CHUNK_MAX + 1)}, {})
    assert refused.value.size == CHUNK_MAX + 1


def test_entries_are_removed_all_or_none() -> None:
    names = ["trimer", "dimer", "trimer"]
    assert d.remove_entries(water(), STAMP, names, NUMBERS) == [
        EntriesRemoved(entries=(1, 2), **SAID)
    ]
    with pytest.raises(EntryNotFound) as refused:
        d.remove_entries(water(), STAMP, ["dimer", "tetramer", "pentamer"], NUMBERS)
    assert refused.value.names == ("tetramer", "pentamer")
    with pytest.raises(EntryNotFound):
        d.rename_entries(water(), STAMP, {"tetramer": "x"}, NUMBERS)


def test_what_is_removed_or_linked_comes_in_bounded_events() -> None:
    many = {str(n): n for n in range(1, CHUNK_MAX + 2)}
    events = d.remove_entries(water(), STAMP, many, many)
    sizes = [len(event.entries) for event in events if isinstance(event, EntriesRemoved)]
    assert sizes == [CHUNK_MAX, 1]
    linked = d.link_records(STAMP, {1: [(n, 400 + n) for n in many.values()], 2: [(1, 5)]})
    assert [type(event) for event in linked] == [RecordsLinked] * 3
    assert linked[1:] == [
        RecordsLinked(
            specification=1, entries=(CHUNK_MAX + 1,), record_ids=(401 + CHUNK_MAX,), **SAID
        ),
        RecordsLinked(specification=2, entries=(1,), record_ids=(5,), **SAID),
    ]
    assert d.unlink_records(STAMP, {1: [2, 3], 2: []}) == [
        RecordsUnlinked(specification=1, entries=(2, 3), **SAID)
    ]


def test_a_specification_is_numbered_and_added_once() -> None:
    unnumbered = replace(HF, number=0)
    [event] = d.add_specification(folded(CREATED), STAMP, unnumbered)
    assert event == HF_ADDED
    assert d.add_specification(water(), STAMP, unnumbered) == []
    with pytest.raises(SpecificationExists) as refused:
        d.add_specification(water(), STAMP, replace(unnumbered, tag="cpu"))
    assert refused.value.name == "hf"


def test_a_dataset_takes_so_many_specifications_and_no_more() -> None:
    full = replace(folded(CREATED), specifications_added=SPECIFICATIONS_MAX)
    with pytest.raises(TooLarge):
        d.add_specification(full, STAMP, HF)


def test_specifications_are_named_or_all_and_in_the_order_of_their_numbers() -> None:
    mp2 = HF_ADDED.model_copy(update={"specification": 2, "name": "mp2"})
    dataset = water(mp2)
    assert [each.name for each in d.specifications_named(dataset, None)] == ["hf", "mp2"]
    names = ["mp2", "hf", "mp2"]
    assert [each.number for each in d.specifications_named(dataset, names)] == [1, 2]
    for ask in (
        lambda: d.specifications_named(dataset, ["hf", "ccsd"]),
        lambda: d.remove_specifications(dataset, STAMP, ["ccsd"]),
    ):
        with pytest.raises(SpecificationNotFound) as refused:
            ask()
        assert refused.value.names == ("ccsd",)
    assert d.remove_specifications(dataset, STAMP, ["hf"]) == [
        SpecificationRemoved(specification=1, **SAID)
    ]


def test_a_dataset_may_be_seen_with_the_specifications_of_an_older_version() -> None:
    assert water().with_specifications({}).specifications == {}


def test_a_version_is_locked_under_the_next_number() -> None:
    [event] = d.lock_version(water(LOCKED), STAMP, "as published", "10.1000/182")
    assert event == VersionLocked(number=2, label="as published", doi="10.1000/182", **SAID)
    for empty in (folded(CREATED), folded(CREATED, TWO_ADDED), folded(CREATED, HF_ADDED)):
        with pytest.raises(InvalidInput, match="nothing to lock"):
            d.lock_version(empty, STAMP, "", None)
