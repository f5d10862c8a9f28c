"""People change datasets in any order: a simple model and the live tables must agree.

The model is a dictionary of entries, a set of specifications and a dictionary of cells for each
dataset, and a copy of all that for each locked version.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from recordledger.domain.errors import EntryExists, EntryNotFound
from recordledger.domain.records.actions import Action
from tests.sizes import N_DATASET_RUNS, N_DATASET_STEPS

from ..collection import Collection
from ..invariants import violations
from ..stage import Stage

NAMES = [f"m{number}" for number in range(5)]
SPECIFICATIONS = ["hf", "mp2"]
one_dataset = st.integers(0, 1)
one_name = st.sampled_from(NAMES)
some_names = st.lists(one_name, min_size=1, max_size=3, unique=True)
one_specification = st.sampled_from(SPECIFICATIONS)

Seen = dict[tuple[str, str], int]


@dataclass
class Model:
    """What a dataset is: inputs by name, and records by the names of entry and specification."""

    entries: dict[str, int] = field(default_factory=dict[str, int])
    specifications: set[str] = field(default_factory=set[str])
    cells: Seen = field(default_factory=dict[tuple[str, str], int])

    def drop(self, names: set[str], specifications: set[str]) -> None:
        self.cells = {
            (entry, specification): record_id
            for (entry, specification), record_id in self.cells.items()
            if entry not in names and specification not in specifications
        }


class Curating(RuleBasedStateMachine):
    """Two datasets, whose entries have the same few inputs, so that they share records."""

    stage: Stage

    @initialize()
    def begin(self) -> None:
        self.n = next(COUNTER)
        self.datasets = [
            Collection.made(self.stage, 0, (), name=f"machine {self.n} {which}")
            for which in range(2)
        ]
        self.models = [Model(), Model()]
        self.locked: list[list[Model]] = [[], []]

    def at(self, which: int) -> tuple[Collection, Model]:
        return self.datasets[which], self.models[which]

    @rule(which=one_dataset, names=some_names, x=st.integers(0, 2))
    def add_entries(self, which: int, names: list[str], x: int) -> None:
        dataset, model = self.at(which)
        given = {name: {"x": f"{self.n} {x}"} for name in names}
        added = dataset.add(given)
        for index, name in enumerate(names):
            if name not in model.entries:
                assert index in added["inserted_idx"]
                model.entries[name] = x
            elif model.entries[name] == x:
                assert index in added["existing_idx"]
            else:
                assert index in [idx for idx, _, _ in added["refusals"]]

    @rule(which=one_dataset, names=some_names)
    def remove_entries(self, which: int, names: list[str]) -> None:
        dataset, model = self.at(which)
        if any(name not in model.entries for name in names):
            refused(EntryNotFound, dataset.remove, *names)
            return
        dataset.remove(*names)
        for name in names:
            del model.entries[name]
        model.drop(set(names), set())

    @rule(which=one_dataset, old=some_names, new=st.permutations(NAMES))
    def rename_entries(self, which: int, old: list[str], new: list[str]) -> None:
        dataset, model = self.at(which)
        names = dict(zip(old, new, strict=False))
        after = {names.get(name, name) for name in model.entries}
        if any(name not in model.entries for name in names):
            refused(EntryNotFound, dataset.rename, names)
        elif len(after) < len(model.entries):
            refused(EntryExists, dataset.rename, names)
        else:
            dataset.rename(names)
            model.entries = {names.get(name, name): x for name, x in model.entries.items()}
            model.cells = {
                (names.get(entry, entry), specification): record_id
                for (entry, specification), record_id in model.cells.items()
            }

    @rule(which=one_dataset, name=one_specification)
    def add_specification(self, which: int, name: str) -> None:
        dataset, model = self.at(which)
        assert dataset.specify(name)["n_changed"] == (name not in model.specifications)
        model.specifications.add(name)

    @rule(which=one_dataset)
    def remove_specifications(self, which: int) -> None:
        dataset, model = self.at(which)
        if model.specifications:
            name = min(model.specifications)
            dataset.unspecify(name)
            model.specifications.remove(name)
            model.drop(set(), {name})

    @rule(which=one_dataset, pattern=st.sampled_from(["*", "m?", "m0", "*2", "x"]))
    def submit(self, which: int, pattern: str) -> None:
        dataset, model = self.at(which)
        chosen = {
            name
            for name in model.entries
            if pattern in ("*", "m?", name) or (pattern == "*2" and name.endswith("2"))
        }
        missing = {
            (entry, specification)
            for entry in chosen
            for specification in model.specifications
            if (entry, specification) not in model.cells
        }
        assert dataset.submit(pattern=pattern)["n_linked"] == len(missing)
        found = {place: cell.record_id for place, cell in dataset.cells().items()}
        assert found.keys() - model.cells.keys() == missing
        model.cells |= {place: found[place] for place in missing}

    @rule(which=one_dataset, names=some_names)
    def unlink(self, which: int, names: list[str]) -> None:
        dataset, model = self.at(which)
        there = [name for name in names if name in model.entries]
        dataset.unlink(entries=tuple(there))
        model.drop(set(there), set())

    @rule(which=one_dataset, number=st.integers(0, 5), action=st.sampled_from(["cancel", "erase"]))
    def change_a_record(self, which: int, number: int, action: str) -> None:
        ids = sorted(set(self.models[which].cells.values()))
        if ids:
            record_id = ids[number % len(ids)]
            managed = self.stage.order(Action[action], record_id)
            assert action == "cancel" or managed["errors"][0][1] == "still_referenced"

    @rule(which=one_dataset)
    def lock(self, which: int) -> None:
        dataset, model = self.at(which)
        if model.entries and model.specifications:
            self.locked[which].append(deepcopy(model))
            assert dataset.lock() == len(self.locked[which])

    @invariant()
    def the_datasets_are_what_the_model_says(self) -> None:
        for dataset, model, locked in zip(self.datasets, self.models, self.locked, strict=True):
            self.require(dataset, model, None)
            for number, each in enumerate(locked, 1):
                self.require(dataset, each, number)
            found = dataset.dataset
            assert set(found.specifications) == model.specifications
            assert found.n_entries == len(model.entries)
            assert sum(sum(each.values()) for each in dataset.counts().values()) == len(model.cells)

    def require(self, dataset: Collection, model: Model, version: int | None) -> None:
        found: dict[str, Any] = dataset.inputs(version)
        expected = {name: {"x": f"{self.n} {x}"} for name, x in model.entries.items()}
        assert found == expected
        cells = {place: cell.record_id for place, cell in dataset.cells(version).items()}
        assert cells == model.cells

    @invariant()
    def the_tables_are_what_the_log_says(self) -> None:
        ids = {id_ for model in self.models for id_ in model.cells.values()}
        assert violations(self.stage, ids) == {}
        self.stage.require_sound()


def refused(error: type[Exception], call: Any, *args: Any) -> None:
    """Call, which must be refused with this error."""
    try:
        call(*args)
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")


def _numbers() -> Any:
    number = 0
    while True:
        yield number
        number += 1


COUNTER = _numbers()


def test_datasets_do_what_the_model_does(stage: Stage) -> None:
    machine: type[Curating] = type("Machine", (Curating,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=N_DATASET_RUNS,
            stateful_step_count=N_DATASET_STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=True,
        ),
    )
