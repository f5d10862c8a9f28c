"""The full matrix of status and operation, as `matrix.md` has it, on a live PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from recordledger.domain.records.actions import Action
from recordledger.domain.records.status import Status
from recordledger.projections.actions.managing import lose_silent_managers, relinquish
from recordledger.projections.actions.operations import OperationRequest, manage
from recordledger.projections.reading.queries import get_records

from ..stage import ALICE, BOB, Stage, bad, good

TABLE: Final = Path(__file__).with_name("matrix.md")

Table = dict[tuple[str, str], str]

# How a record gets into a status from the one before, or from nothing.
FROM_NOTHING: Final = {
    "waiting": "",
    "running": "claim",
    "complete": "claim succeed",
    "error": "claim err",
    "cancelled": "cancel",
    "deleted": "delete",
    "invalid": "claim succeed invalidate",
    "held": "hold",
    "failed": "claim err fail",
}
FURTHER: Final = {"cancelled": "cancel", "deleted": "delete", "invalid": "invalidate"}
ORDERS: Final = {
    "adopt nothing": OperationRequest(Action.adopt),
    "modify": OperationRequest(Action.modify, tag="elsewhere"),
    "comment": OperationRequest(Action.comment, text="wrong minimum"),
    **{
        str(action): OperationRequest(action)
        for action in Action
        if action not in (Action.undo, Action.modify, Action.comment)
    },
}

# QCFractal 0.71, driven through its own client (the notes on its semantics), with its names.
OBSERVED: Final = """
| status | reset | cancel | uncancel | soft_delete | undelete | invalidate | uninvalidate | modify | comment | hard_delete | manager_returns_success | manager_returns_failure |
| waiting | refused | cancelled | refused | deleted | refused | refused | refused | = | = | (gone) | - | - |
| running | refused | cancelled | refused | deleted | refused | refused | refused | = | = | (gone) | complete | error |
| complete | refused | refused | refused | deleted | refused | invalid | refused | refused | = | (gone) | rejected | rejected |
| error | waiting | cancelled | refused | deleted | refused | refused | refused | = | = | (gone) | rejected | rejected |
| cancelled | refused | refused | waiting | deleted | refused | refused | refused | refused | = | (gone) | - | - |
| deleted | refused | refused | refused | refused | waiting | refused | refused | refused | = | (gone) | - | - |
| invalid | refused | refused | refused | deleted | refused | refused | complete | refused | = | (gone) | rejected | rejected |
| running>cancelled | refused | refused | waiting | deleted | refused | refused | refused | refused | = | (gone) | rejected | rejected |
| error>cancelled | refused | refused | error | deleted | refused | refused | refused | refused | = | (gone) | rejected | rejected |
| running>deleted | refused | refused | refused | refused | waiting | refused | refused | refused | = | (gone) | rejected | rejected |
| complete>deleted | refused | refused | refused | refused | complete | refused | refused | refused | = | (gone) | rejected | rejected |
| error>deleted | refused | refused | refused | refused | error | refused | refused | refused | = | (gone) | rejected | rejected |
| waiting>cancelled>deleted | refused | refused | refused | refused | cancelled | refused | refused | refused | = | (gone) | - | - |
| complete>invalid>deleted | refused | refused | refused | refused | invalid | refused | refused | refused | = | (gone) | rejected | rejected |
"""  # noqa: E501
OUR_NAMES: Final = {
    "soft_delete": "delete",
    "hard_delete": "erase",
    "manager_returns_success": "returns success",
    "manager_returns_failure": "returns failure",
}
# What counts as the same. A rejected result is lost there (worse), and kept aside here.
OUR_ANSWERS: Final = {
    "(gone)": {"gone"},
    "rejected": {"late", "known"},
    "-": {"not_your_attempt"},
}


def read_table(text: str) -> Table:
    """Return the cells of the last table of a Markdown text, by row and column."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = max(index for index, row in enumerate(rows) if row[0] == "status")
    return {
        (row[0], column): cell
        for row in rows[head + 1 :]
        for column, cell in zip(rows[head][1:], row[1:], strict=True)
    }


EXPECTED: Final = read_table(TABLE.read_text("utf-8"))
ROWS: Final = list(dict.fromkeys(row for row, _ in EXPECTED))
COLUMNS: Final = list(dict.fromkeys(column for _, column in EXPECTED))


def steps_to(row: str) -> list[str]:
    """Return what is done to a new record to get it into a row."""
    first, *rest = row.split(">")
    return [*FROM_NOTHING[first].split(), *(FURTHER[word] for word in rest)]


@dataclass
class Cell:
    """A record on its way to a cell of the table."""

    row: str
    column: str
    steps: list[str]
    id: int = 0
    attempt: int = 1


def prepared(stage: Stage) -> tuple[int, list[Cell]]:
    """Return a record in every cell, and the manager that had their attempts."""
    cells = [Cell(row, column, steps_to(row)) for row in ROWS for column in COLUMNS]
    for cell in cells:
        tag = "run" if "claim" in cell.steps else "idle"
        if cell.column == "adopt":
            tag = f"late-{tag}"
        [cell.id] = stage.submit(tag=tag)
        if tag == "late-run":
            cell.attempt = 2
    by_id = {cell.id: cell for cell in cells}
    first = stage.manager("late-idle", "late-run")
    overtaken = stage.claim(first, 1000)
    assert {by_id[id_].column for id_ in overtaken} == {"adopt"}
    assert set(relinquish(stage.ledger, first, overtaken, user=BOB)) == set(overtaken)
    assert len(stage.hand_in(first, overtaken)["late_idx"]) == len(overtaken) == len(ROWS)
    runner = stage.manager("run", "late-run")
    claimed = stage.claim(runner, 1000)
    assert all(by_id[id_].steps.pop(0) == "claim" for id_ in claimed)
    while remaining := sorted((cell for cell in cells if cell.steps), key=lambda c: c.steps[0]):
        for step, group in groupby(remaining, key=lambda cell: cell.steps[0]):
            take_step(stage, runner, step, list(group))
    return runner, cells


def take_step(stage: Stage, manager_id: int, step: str, cells: list[Cell]) -> None:
    """Do the same to many records."""
    if step in ("succeed", "err"):
        held = {cell.id: cell.attempt for cell in cells}
        answer = stage.hand_in(manager_id, held, good() if step == "succeed" else bad())
        assert len(answer["accepted_idx"]) == len(cells)
    else:
        answer_ = manage(stage.ledger, ORDERS[step], [cell.id for cell in cells], actor=ALICE)
        assert answer_["errors"] == []
    for cell in cells:
        cell.steps.pop(0)


def done(stage: Stage, manager_id: int, column: str, cells: list[Cell]) -> Iterator[str]:
    """Do what a column says to the records of that column; yield what became of each."""
    ids = [cell.id for cell in cells]
    before = get_records(stage.ledger, ids)
    special: dict[int, str] = {}
    match column:
        case "returns success" | "returns failure":
            what = good() if column == "returns success" else bad()
            answer = stage.hand_in(manager_id, {cell.id: cell.attempt for cell in cells}, what)
            special |= {ids[index]: code for index, code, _ in answer["errors"]}
            special |= dict.fromkeys((ids[index] for index in answer["late_idx"]), "late")
            special |= dict.fromkeys((ids[index] for index in answer["duplicate_idx"]), "known")
        case "relinquishes":
            held = {cell.id: cell.attempt for cell in cells}
            back = relinquish(stage.ledger, manager_id, held, user=BOB)
            special |= dict.fromkeys(set(ids) - set(back), "-")
        case "is lost":
            stage.silence(manager_id)
            [lost] = lose_silent_managers(stage.ledger).values()
            special |= dict.fromkeys(set(ids) - set(lost), "-")
        case _:
            managed = manage(stage.ledger, ORDERS[column], ids, actor=ALICE)
            for index, code, message in managed["errors"]:
                special[ids[index]] = "refused" if code == "transition_forbidden" else code
                if code == "transition_forbidden":
                    assert f"with status {before[ids[index]].status} cannot" in message
            assert len(managed["updated_idx"]) + len(managed["errors"]) == len(ids)
    after = get_records(stage.ledger, ids)
    for id_ in ids:
        unchanged = id_ in after and after[id_].status is before[id_].status
        if id_ in special:
            assert unchanged
            if special[id_] != "late":
                assert after[id_] == before[id_]
        yield special.get(id_) or cell_of(after[id_].status if id_ in after else None, unchanged)


def cell_of(status: Status | None, unchanged: bool) -> str:
    return "gone" if status is None else "=" if unchanged else str(status)


def found_by(stage: Stage) -> Table:
    """Return the table as it is found by trying everything."""
    manager_id, cells = prepared(stage)
    found: Table = {}
    # A manager is lost only once, so that comes last.
    for column in sorted(COLUMNS, key=lambda column: column == "is lost"):
        own = [cell for cell in cells if cell.column == column]
        for cell, became in zip(own, done(stage, manager_id, column, own), strict=True):
            found[cell.row, column] = became
    return found


def differences(expected: Table, found: Table) -> list[str]:
    return [
        f"{row} / {column}: the table says {cell}, and it is {found.get((row, column))}"
        for (row, column), cell in expected.items()
        if found.get((row, column)) != cell
    ]


def test_every_operation_does_to_every_status_what_the_table_says(stage: Stage) -> None:
    assert differences(EXPECTED, found_by(stage)) == []
    stage.require_equal()


def test_the_table_is_whole() -> None:
    assert len(EXPECTED) == len(ROWS) * len(COLUMNS)
    assert {row for row in ROWS if ">" not in row} == {str(status) for status in Status}
    assert set(ROWS) == {*map(str, Status), *stacks()}
    people = {str(action) for action in Action} - {"undo"}
    managers = {"returns success", "returns failure", "relinquishes", "is lost"}
    assert set(COLUMNS) == people | managers | {"adopt nothing"}


def stacks() -> Iterable[str]:
    """Yield the rows of everything that can lie under a cancellation and a deletion."""
    for status in Status:
        if status not in (Status.deleted, Status.cancelled, Status.waiting, Status.invalid):
            yield f"{status}>deleted"
    for name in ("running", "error", "held"):
        yield f"{name}>cancelled"
    for name in ("waiting", "running", "error", "held"):
        yield f"{name}>cancelled>deleted"
    yield "complete>invalid>deleted"


def test_what_qcfractal_does_right_is_done_the_same() -> None:
    observed = read_table(OBSERVED)
    assert len(observed) == 14 * 12
    for (row, column), cell in observed.items():
        ours = EXPECTED[row, OUR_NAMES.get(column, column)]
        assert ours in OUR_ANSWERS.get(cell, {cell}), (row, column)
