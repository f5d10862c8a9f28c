"""A divergence: found, and then repaired, or gone by itself."""

from __future__ import annotations

import pytest

from recordledger.domain.admin.divergence import (
    DIVERGENCE_EVENTS,
    DivergenceAggregate,
    DivergenceFound,
    DivergenceGone,
    DivergenceRepaired,
    DivergenceState,
    RowFault,
    evolve_divergence,
)
from recordledger.domain.errors import ImpossibleHistory
from recordledger.domain.records.events import Event
from tests.examples import T0, at, created, stamp

FOUND = DivergenceFound(
    table="records",
    key=("411",),
    fault=RowFault.changed,
    columns=("status", "version"),
    **stamp().model_dump(),
)
REPAIRED = DivergenceRepaired(**stamp(timestamp=at(9), actor="bob").model_dump())
GONE = DivergenceGone(**stamp(timestamp=at(9)).model_dump())


def fold_divergence(*history: Event) -> DivergenceAggregate:
    divergence = DivergenceAggregate(3)
    for event in history:
        divergence = evolve_divergence(divergence, event)
    return divergence


def test_what_was_found_says_which_row_it_is_and_what_differs() -> None:
    assert fold_divergence(FOUND) == DivergenceAggregate(
        id=3,
        version=1,
        state=DivergenceState.open,
        table="records",
        key=("411",),
        fault=RowFault.changed,
        columns=("status", "version"),
        found_at=T0,
    )


def test_it_ends_once_by_a_repair_or_by_itself() -> None:
    repaired = fold_divergence(FOUND, REPAIRED)
    assert (repaired.state, repaired.ended_at, repaired.ended_by) == ("repaired", at(9), "bob")
    assert fold_divergence(FOUND, GONE).state is DivergenceState.gone


@pytest.mark.parametrize(
    ("history", "event"),
    [
        ((), REPAIRED),
        ((), created()),
        ((FOUND,), FOUND),
        ((FOUND, REPAIRED), GONE),
        ((FOUND, GONE), FOUND),
    ],
)
def test_nothing_else_can_have_happened_to_it(history: tuple[Event, ...], event: Event) -> None:
    with pytest.raises(ImpossibleHistory, match=f"{event.topic} cannot happen") as caught:
        fold_divergence(*history, event)
    assert (caught.value.stream, caught.value.version) == ("divergence 3", len(history) + 1)


@pytest.mark.parametrize(
    ("fault", "columns", "line"),
    [
        (RowFault.changed, ("status",), "records 411: status differs from the log"),
        (RowFault.changed, ("a", "b"), "records 411: a and b differ from the log"),
        (RowFault.missing, (), "records 411: the row is missing"),
        (RowFault.extra, (), "records 411: the log has no such row"),
    ],
)
def test_it_reads_as_a_sentence(fault: RowFault, columns: tuple[str, ...], line: str) -> None:
    divergence = DivergenceAggregate(1, table="records", key=("411",), fault=fault, columns=columns)
    assert str(divergence) == line


def test_the_catalogue_names_every_event_of_a_divergence() -> None:
    assert set(DIVERGENCE_EVENTS) == {DivergenceFound, DivergenceRepaired, DivergenceGone}
