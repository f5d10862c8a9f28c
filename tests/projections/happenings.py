"""A ledger to which a little of everything happens at random, and the log folded by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from recordledger.domain import dataset as d
from recordledger.domain.errors import CommandRefused
from recordledger.domain.records.actions import Action
from recordledger.domain.records.events import EVENT_OF, Cancelled, Event, Imported, Priority
from recordledger.domain.records.record import RecordAggregate, evolve
from recordledger.domain.records.status import Status
from recordledger.domain.records.transitions import TRANSITIONS
from recordledger.domain.streams import Stream, stream_number

from .collection import Collection
from .stage import BOB, HOUR_S, Held, Stage, bad, good

TAGS: Final = ("gpu", "cpu", "big")
# What people do to records; an undo is done to an operation.
FREQUENT: Final = {Action.erase, Action.delete, Action.cancel, Action.comment}
ACTIONS: Final = tuple(action for action in Action if action is not Action.undo)


class Happenings:
    """Things that people and managers do, picked at random."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.random = random.Random(seed)  # noqa: S311
        self.ids: list[int] = []
        self.held: dict[int, Held] = {}
        self.lost: set[int] = set()
        self.operations: list[UUID] = []
        self.datasets = [Collection.made(stage, 2, name=f"random {n}") for n in range(2)]

    def go_on(self, n_steps: int) -> None:
        """Do so many things."""
        works: list[Callable[[], object]] = [
            self.submit,
            self.serve,
            self.claim,
            self.claim,
            self.hand_in,
            self.hand_in,
            self.fall_silent,
            self.collect,
            *[self.order] * 6,
            self.undo,
        ]
        for _ in range(n_steps):
            work = self.random.choice(works)
            try:
                work()
            except CommandRefused:
                continue

    def bring_about_what_is_rare(self) -> None:
        """Do what chance does not do often: fail, revive, take that back, invalidate, erase."""
        ids = self.stage.submit(6, tag="big", priority=Priority.high)
        self.ids += ids
        manager_id = self.stage.manager("big", user=BOB)
        held = self.stage.claim(manager_id)
        self.stage.hand_in(manager_id, {id_: held[id_] for id_ in ids[:3]}, bad())
        self.stage.hand_in(manager_id, {id_: held[id_] for id_ in ids[3:]}, good())
        for action in (Action.fail, Action.revive):
            operation = self.stage.done(action, *ids[:3])
            self.operations.append(operation)
        self.stage.undo(operation)
        self.stage.done(Action.invalidate, *ids[3:])
        self.stage.done(Action.uninvalidate, ids[3])
        self.stage.done(Action.erase, ids[4])
        (arrived,) = self.stage.submit()
        origin = {"origin_ledger": UUID(int=7), "origin_id": arrived, "archive_digest": b"\7" * 32}
        self.stage.happen(arrived, Cancelled)
        self.stage.happen(arrived, Imported, **origin)

    def some(self, n_max: int = 5) -> list[int]:
        return self.random.sample(self.ids, min(len(self.ids), self.random.randint(1, n_max)))

    def submit(self) -> None:
        self.ids += self.stage.submit(
            self.random.randint(1, 4),
            tag=self.random.choice(TAGS),
            priority=self.random.choice(list(Priority)),
            retries=self.random.randint(0, 1),
        )

    def serve(self) -> None:
        self.ids.append(self.stage.service(*self.some(3), tag=self.random.choice(TAGS)))

    def claim(self) -> None:
        manager_id = self.stage.manager(*self.random.sample(TAGS, 2), user=BOB, lease_s=HOUR_S)
        self.held[manager_id] = self.stage.claim(manager_id, self.random.randint(1, 6))

    def hand_in(self) -> None:
        if self.held:
            manager_id = self.random.choice(list(self.held))
            some = {
                id_: attempt
                for id_, attempt in self.held[manager_id].items()
                if self.random.random() < 0.7
            }
            self.stage.hand_in(manager_id, some, self.random.choice([good(), bad()]))

    def fall_silent(self) -> None:
        if alive := sorted(self.held.keys() - self.lost):
            manager_id = self.random.choice(alive)
            self.lost.add(manager_id)
            self.stage.silence(manager_id)
            self.stage.lose_silent()

    def order(self) -> None:
        """Do something that is possible to one record, and to others if they let it."""
        # One of a status that was chosen before: most records are in few statuses.
        statuses = self.stage.statuses(*self.ids)
        if not statuses:
            return
        status = self.random.choice(sorted(set(statuses.values())))
        one = self.random.choice([id_ for id_ in statuses if statuses[id_] == status])
        possible = [
            action
            for action in ACTIONS
            if action not in EVENT_OF or (Status(status), EVENT_OF[action]) in TRANSITIONS
        ]
        # Those that most statuses allow would leave no room for the others.
        rare = [action for action in possible if action not in FREQUENT] or possible
        action = self.random.choice(rare if self.random.random() < 0.8 else possible)
        options: dict[str, Any] = {
            "tag": self.random.choice(TAGS),
            "priority": self.random.choice(list(Priority)),
            "text": "hm",
        }
        others = self.some(3) if action is not Action.erase else []
        managed = self.stage.order(action, one, *others, **options)
        self.ids += managed["new_ids"].values()
        self.operations.append(UUID(managed["operation_id"]))

    def undo(self) -> None:
        if self.operations:
            self.stage.undo(self.random.choice(self.operations[-10:]))

    def collect(self) -> None:
        dataset = self.random.choice(self.datasets)
        name = f"e{self.random.randint(0, 8)}"
        works: list[Callable[[], object]] = [
            lambda: dataset.add({name: {"x": name}}),
            dataset.submit,
            lambda: dataset.remove(name),
            lambda: dataset.rename({name: f"e{self.random.randint(0, 8)}"}),
            lambda: dataset.unlink(entries=(name,)),
            lambda: dataset.specify(self.random.choice(["hf", "mp2"])),
        ]
        self.random.choice(works)()
        rows = self.stage.ask("SELECT id FROM records WHERE id > %s", [max(self.ids, default=0)])
        self.ids += [row[0] for row in rows]


@dataclass
class Past:
    """What everything was after one event after the other; shares only `evolve` with the ledger."""

    records: dict[int, RecordAggregate] = field(default_factory=dict[int, RecordAggregate])
    erased: set[int] = field(default_factory=set[int])
    cells: dict[int, dict[tuple[int, int], int]] = field(
        default_factory=dict[int, dict[tuple[int, int], int]]
    )

    def happen(self, stream: Stream, number: int, event: Event) -> None:
        """Let one event happen."""
        if stream is Stream.record:
            record = evolve(self.records.get(number, RecordAggregate(number)), event)
            self.records[number] = record
            if not record.exists:
                del self.records[number]
                self.erased.add(number)
        elif stream is Stream.dataset:
            cells = self.cells.setdefault(number, {})
            for cell in [cell for cell in cells if _empties(event, cell)]:
                del cells[cell]
            if isinstance(event, d.RecordsLinked):
                for entry, record_id in zip(event.entries, event.record_ids, strict=True):
                    cells[event.specification, entry] = record_id


def _empties(event: Event, cell: tuple[int, int]) -> bool:
    match event:
        case d.EntriesRemoved(entries=entries):
            return cell[1] in entries
        case d.SpecificationRemoved(specification=specification):
            return cell[0] == specification
        case d.RecordsUnlinked(specification=specification, entries=entries):
            return cell[0] == specification and cell[1] in entries
        case d.DatasetDeleted():
            return True
        case _:
            return False


def log_of(stage: Stage) -> list[tuple[int, Stream, int, Event]]:
    """Return the whole log: position, stream, number and event."""
    rows = stage.ask(
        "SELECT notification_id, originator_id, topic, state FROM ledger_events ORDER BY 1"
    )
    event_of = stage.ledger.event_mapper.event_of
    return [
        (position, *stream_number(id_), event_of(topic, bytes(state)))
        for position, id_, topic, state in rows
    ]


def pasts(log: list[tuple[int, Stream, int, Event]]) -> Iterator[tuple[int, Past]]:
    """Give each position, and what everything was then; the same object, which goes on."""
    past = Past()
    for position, stream, number, event in log:
        past.happen(stream, number, event)
        yield position, past


def position_at(log: list[tuple[int, Stream, int, Event]], moment: datetime) -> int:
    """Return where the longest beginning of the log ends in which no event is later; 0 for none."""
    last = 0
    for position, _, _, event in log:
        if event.timestamp > moment:
            break
        last = position
    return last
