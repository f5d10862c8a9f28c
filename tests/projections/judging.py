"""Compare what people were answered, while others changed the same records, with the log.

The log is in one order, so each answer can be held against what a record was at the time: an update
that was answered and then overwritten by somebody who had not seen it does not stand there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import EVENT_OF, Event, Rerouted
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.records.transitions import remembered
from recordledger.domain.streams import Stream, stream_number
from recordledger.projections.actions.operations import OperationRequest

from .stage import Stage

# What may happen to a record without standing in the way of an undo.
_HARMLESS: Final = {"commented", "late_result", "resubmitted"}
_CONFLICTS: Final = {"changed_since", "not_undoable", "not_found"}


@dataclass(frozen=True)
class Said:
    """An answer: which records were changed, and which were refused with which code."""

    operation: UUID | None
    updated: set[int] = field(default_factory=set[int])
    refused: dict[int, str] = field(default_factory=dict[int, str])
    new_ids: list[int] = field(default_factory=list[int])
    n_undone: int = 0


@dataclass(frozen=True)
class Asked:
    """An order, its answer, and the newest positions of the log before and after it."""

    order: OperationRequest
    ids: frozenset[int]
    said: Said
    begin: int
    end: int


@dataclass(frozen=True)
class TakenBack:
    """An undo of an operation, its answer, and the newest position of the log after it."""

    undone: UUID
    said: Said
    end: int


@dataclass(frozen=True)
class Step:
    """An event at its position, and what its record was before and after it."""

    position: int
    event: Event
    before: RecordAggregate
    after: RecordAggregate


class Log:
    """The whole log, by record and by operation."""

    def __init__(self, stage: Stage) -> None:
        """Read it."""
        self.steps: dict[int, list[Step]] = {}
        self.of_operation: dict[UUID, dict[int, list[Step]]] = {}
        for record_id, position, event in _events(stage):
            steps = self.steps.setdefault(record_id, [])
            before = steps[-1].after if steps else RecordAggregate(record_id)
            step = Step(position, event, before, evolve(before, event))
            steps.append(step)
            of_records = self.of_operation.setdefault(event.operation_id, {})
            of_records.setdefault(record_id, []).append(step)

    def done_by(self, operation: UUID | None) -> dict[int, list[Step]]:
        """Return what an operation did, by record."""
        return {} if operation is None else self.of_operation.get(operation, {})

    def between(self, record_id: int, begin: int, end: int) -> Iterator[RecordAggregate]:
        """Give all that a record was while the log grew from one position to another."""
        steps = self.steps.get(record_id, [])
        for step, later in pairwise([*steps, None]):
            assert step is not None
            if step.position <= end and (later is None or later.position > begin):
                yield step.after


def _events(stage: Stage) -> Iterator[tuple[int, int, Event]]:
    mapper = stage.ledger.event_mapper
    rows = stage.ask(
        "SELECT notification_id, originator_id, topic, state FROM ledger_events"
        " ORDER BY notification_id"
    )
    for position, originator_id, topic, state in rows:
        stream, number = stream_number(originator_id)
        if stream is Stream.record:
            yield number, position, mapper.event_of(topic, bytes(state))


def judge(stage: Stage, asked: Sequence[Asked], taken_back: Sequence[TakenBack]) -> str:
    """Return how many answers were compared with the log.

    Raises:
        AssertionError: an answer is not true.
    """
    log = Log(stage)
    for each in asked:
        _judge_order(log, each)
    n_reverted = sum(_judge_undo(log, each) for each in taken_back)
    n_updated = sum(len(each.said.updated) for each in asked)
    n_modified = sum(len(each.said.updated) for each in asked if each.order.action is Action.modify)
    return (
        f"compared with the log: {n_updated} changes of {len(asked)} orders ({n_modified} of tag "
        f"and priority), {n_reverted} of {len(taken_back)} undos"
    )


def _judge_order(log: Log, asked: Asked) -> None:
    """What was answered as done was done once, by the event that was meant; the rest was not."""
    said, action = asked.said, asked.order.action
    done = log.done_by(said.operation)
    assert said.updated.isdisjoint(said.refused)
    assert said.updated | said.refused.keys() == asked.ids
    for record_id in asked.ids:
        meant = [step for step in done.get(record_id, []) if type(step.event) is EVENT_OF[action]]
        if record_id in said.refused:
            assert meant == [], (asked, record_id)
        elif action is Action.modify:
            _judge_modified(log, asked, record_id, meant)
        else:
            assert len(meant) == 1, (asked, record_id)


def _judge_modified(log: Log, asked: Asked, record_id: int, meant: Sequence[Step]) -> None:
    """A record got its tag and priority by this order, or had both already while it was served."""
    wanted = asked.order.tag, asked.order.priority
    assert len(meant) <= 1
    for step in meant:
        assert isinstance(step.event, Rerouted)
        assert (step.after.tag, step.after.priority) == wanted
    if not meant:
        were = {(was.tag, was.priority) for was in log.between(record_id, asked.begin, asked.end)}
        assert wanted in were, (asked, record_id, were)


def _judge_undo(log: Log, taken: TakenBack) -> int:
    """What was taken back is what it was before, and nothing else had happened; return how much."""
    said = taken.said
    changed, reverted = log.done_by(taken.undone), log.done_by(said.operation)
    assert len(reverted) == said.n_undone
    assert reverted.keys().isdisjoint(said.refused)
    assert reverted.keys() | said.refused.keys() == changed.keys()
    assert set(said.refused.values()) <= _CONFLICTS
    for record_id, [step] in reverted.items():
        assert _image(step.after) == _image(changed[record_id][0].before, step), (taken, record_id)
        assert list(_since(log, changed[record_id], step.position)) == [], (taken, record_id)
    for record_id, code in said.refused.items():
        if code == "changed_since":
            assert list(_since(log, changed[record_id], taken.end + 1)), (taken, record_id)
    return len(reverted)


def _since(log: Log, own: Iterable[Step], end: int) -> Iterator[Step]:
    """Give what else had happened to a record since an operation, and stands in its undo's way."""
    positions = [step.position for step in own]
    for step in log.steps[next(iter(own)).after.id]:
        between = positions[0] < step.position < end and step.position not in positions
        if between and step.event.topic not in _HARMLESS:
            yield step


def _image(record: RecordAggregate, undone_by: Step | None = None) -> tuple[object, ...]:
    """Return what an undo restores. What ran waits again, unless only its route had changed."""
    status, manager_id = record.status, record.manager_id
    stops = undone_by is not None and not isinstance(undone_by.event, Rerouted)
    if stops and status is not None and remembered(status) is not status:
        status, manager_id = remembered(status), None
    return status, record.prior, record.tag, record.priority, record.outcome, manager_id
