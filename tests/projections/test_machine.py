"""Everything together: random requests to a real ledger, beside a model in plain Python.

Each run has some hundred requests.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from recordledger.domain.errors import ImpossibleHistory, ManagerNotActive
from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Outcome, Priority
from recordledger.domain.records.record import RecordAggregate
from recordledger.domain.records.retries import Retry
from recordledger.domain.records.status import Status
from recordledger.domain.routing.lanes import Lane
from recordledger.projections.actions.managing import (
    ClaimedTasks,
    claim,
    deactivate_manager,
    heartbeat,
    lose_silent_managers,
    relinquish,
    return_results,
)
from recordledger.projections.actions.submission import NewRecord, create_records
from recordledger.projections.ledger import Operation
from recordledger.projections.reading.queries import counts, get_records
from recordledger.projections.tables.payloads import payload_of, store
from tests.domain.specification import ROWS
from tests.examples import ONE_OF_EACH
from tests.sizes import N_LEDGER_RUNS, N_LEDGER_STEPS

from .model import LedgerModel, ModelAgent, Want
from .stage import ALICE, AT_ONCE_S, BOB, HOUR_S, Stage, bad, empty, good, key, result, spec, staged

TAGS: Final = ("cpu", "gpu", "*")
PROGRAMS: Final = ("p1", "p2")
CONTENTS: Final = (
    b"{}",
    b"-76.4",
    b"Traceback",
    b"state",
    b"no convergence",
    b"wrong minimum",
)

# What people and policies do to a record; the rest is what managers do.
MANAGEMENT: Final = (
    e.ResultAdopted,
    e.Reset,
    e.Failed,
    e.Revived,
    e.Held,
    e.Released,
    e.Cancelled,
    e.Uncancelled,
    e.Invalidated,
    e.Uninvalidated,
    e.SoftDeleted,
    e.Undeleted,
    e.Resubmitted,
    e.Commented,
    e.Rerouted,
    e.Erased,
)

PICKS: Final = st.integers(0, 2**16)
WANTS: Final = st.builds(
    Want,
    st.sampled_from("abcdef"),
    st.frozensets(st.sampled_from(PROGRAMS)),
    st.sampled_from(TAGS),
    st.sampled_from(Priority),
    st.integers(0, 2),
)
# Which attempt of a record is named, counted from its newest: mostly the right one.
WHICH: Final = st.sampled_from([0, 0, 0, 0, -1, -1, 1])
NAMED: Final = st.lists(st.tuples(PICKS, WHICH), max_size=4)

Answer = TypeVar("Answer")


def not_rare(event: Event) -> bool:
    """Return whether this may happen often: nothing happens to a record after its erasure."""
    return not isinstance(event, e.Erased | e.Commented)


class LedgerMachine(RuleBasedStateMachine):
    """Requests of everybody, one after the other; each is asked of the ledger and of the model."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = LedgerModel()
        self.n_keys = 0
        self.stack = contextlib.ExitStack()
        empty(self.url)
        self.stage: Stage = self.stack.enter_context(staged(self.url))
        self.ledger = self.stage.ledger

    def teardown(self) -> None:
        try:
            self.stage.require_sound()
        finally:
            self.stack.close()

    # Picking, asking

    def _record_id(self, pick: int) -> int:
        """Return a record, or now and then one that was never there."""
        ids = [*self.model.records, 10**9]
        return ids[pick % len(ids)]

    def _manager_id(self, pick: int) -> int:
        """Return a manager; one in ten picks is of those that have ended too."""
        every = list(self.model.agents)
        active = [id_ for id_, agent in self.model.agents.items() if agent.state == "active"]
        ids = active if active and pick % 10 else every
        return ids[pick // 10 % len(ids)]

    def _named(self, named: list[tuple[int, int]]) -> dict[int, int]:
        """Return attempts by record."""
        attempts: dict[int, int] = {}
        for pick, which in named:
            record = self.model.records.get(id_ := self._record_id(pick))
            attempts[id_] = (record.cards.n_attempts if record else 1) + which
        return attempts

    def _ask(self, manager_id: int, ask: Callable[[], Answer]) -> Answer | None:
        """Ask for a manager; if it has ended, see that it is told so."""
        state = self.model.agents[manager_id].state
        if state == "active":
            return ask()
        with pytest.raises(ManagerNotActive, match=state):
            ask()
        return None

    # Users

    @initialize(wants=st.lists(WANTS, min_size=6, max_size=10))
    def furnish(self, wants: list[Want]) -> None:
        """Let what the events of the model name be there, and somebody who asks for work."""
        with self.ledger.datastore.writing() as db:
            store(db, {payload_of(content).digest: content for content in CONTENTS})
        self.ledger.lanes.intern(
            Lane(tag, programs) for tag in TAGS for programs in ((), ("p1",), ("p2",), PROGRAMS)
        )
        self.submit(wants, find_existing=False)
        for tags, impatient in ((["*"], False), (["gpu", "*"], True), (["cpu", "gpu"], False)):
            self.register(tags, frozenset(PROGRAMS), impatient=impatient)

    @rule(wants=st.lists(WANTS, min_size=1, max_size=5), find_existing=st.booleans())
    def submit(self, wants: list[Want], *, find_existing: bool) -> None:
        expected = self.model.submit(wants, find_existing=find_existing)
        entries = [
            NewRecord(spec(w.name, programs=w.programs), w.tag, w.priority, Retry(w.retries))
            for w in wants
        ]
        answer = create_records(self.ledger, entries, actor=ALICE, find_existing=find_existing)
        newest = max(self.model.records, default=0)
        made: dict[tuple[str, frozenset[str]], int] = {}
        existing_idx: list[int] = []
        for index, (id_, (given, want)) in enumerate(zip(answer["ids"], expected, strict=True)):
            if given is None:
                assert id_ > newest
                newest = made[want.name, want.programs] = id_
                self.model.create(id_, want)
            else:
                assert id_ == (made[want.name, want.programs] if given < 0 else given)
                existing_idx.append(index)
        assert answer["existing_idx"] == existing_idx

    @rule(picks=st.lists(st.tuples(PICKS, PICKS), min_size=1, max_size=4))
    @precondition(lambda self: self.model.there())
    def manage(self, picks: list[tuple[int, int]]) -> None:
        """Let something legal happen to some records, in one operation."""
        happening: dict[int, Event] = {}
        for pick, what in picks:
            there = self.model.there()
            id_ = list(there)[pick % len(there)]
            possible = [
                event
                for event in there[id_].cards.possible()
                if isinstance(event, MANAGEMENT) and (what % 40 == 0 or not_rare(event))
            ]
            happening[id_] = possible[what % len(possible)]
        self._happen(happening)
        for id_, event in happening.items():
            self.model.records[id_].happen(event)

    @rule(pick=PICKS, what=PICKS)
    @precondition(lambda self: self.model.there())
    def manage_wrongly(self, pick: int, what: int) -> None:
        """Let something happen that the table does not have; nothing comes of it."""
        there = self.model.there()
        id_ = list(there)[pick % len(there)]
        status = there[id_].status
        wrong = [event_type for event_type in ONE_OF_EACH if (status, event_type) not in ROWS]
        head = self.stage.head()
        with pytest.raises(ImpossibleHistory):
            self._happen({id_: ONE_OF_EACH[wrong[what % len(wrong)]]()})
        assert self.stage.head() == head

    def _happen(self, happening: dict[int, Event]) -> None:
        def work(operation: Operation) -> None:
            found = operation.lock(happening)
            stamp = operation.stamp.model_dump()
            for id_, event in happening.items():
                operation.happen(
                    found.get(id_, RecordAggregate(id_)), [event.model_copy(update=stamp)]
                )

        self.ledger.operate(work, actor=ALICE)

    # Managers

    @rule(
        tags=st.lists(st.sampled_from(TAGS), min_size=1, max_size=3, unique=True),
        programs=st.frozensets(st.sampled_from(PROGRAMS)),
        impatient=st.booleans(),
    )
    @precondition(lambda self: self.model.n_active() < 5)
    def register(self, tags: list[str], programs: frozenset[str], *, impatient: bool) -> None:
        lease_s = AT_ONCE_S if impatient else HOUR_S
        manager_id = self.stage.manager(
            *tags, programs=dict.fromkeys(programs, "1"), lease_s=lease_s
        )
        assert manager_id not in self.model.agents
        self.model.agents[manager_id] = ModelAgent(tuple(tags), programs, impatient)

    @rule(pick=PICKS, limit=st.integers(1, 6), twice=st.booleans())
    def claim(self, pick: int, limit: int, *, twice: bool) -> None:
        self._claim(self._manager_id(pick), limit, twice=twice)

    def _claim(self, manager_id: int, limit: int, *, twice: bool) -> None:
        self.n_keys += 1
        request = key(str(self.n_keys), actor=BOB)

        def ask() -> ClaimedTasks:
            return claim(self.ledger, manager_id, limit, user=BOB, request=request)

        answer = self._ask(manager_id, ask)
        if answer is None:
            return
        if twice:
            assert ask() == answer
        got = {task["record_id"]: task["attempt"] for task in answer["tasks"]}
        expected = self.model.claim(manager_id, limit)
        assert list(got.items()) == list(expected.items())

    @rule(shifts=st.lists(st.tuples(PICKS, st.integers(1, 6), PICKS), min_size=1, max_size=3))
    def work(self, shifts: list[tuple[int, int, int]]) -> None:
        """Let managers claim, and return some of what they have: well, badly, or not at all."""
        for pick, limit, how in shifts:
            manager_id = self._manager_id(pick)
            if self.model.agents[manager_id].state != "active":
                continue
            self._claim(manager_id, limit, twice=False)
            held = list(self.model.held_by(manager_id).items())
            self._return(manager_id, held[: how % 5], good() if how % 3 else bad())

    @rule(
        pick=PICKS, named=NAMED, n_own=st.integers(1, 5), newest=st.booleans(), well=st.booleans()
    )
    def hand_in(
        self, pick: int, named: list[tuple[int, int]], n_own: int, *, newest: bool, well: bool
    ) -> None:
        """Return some of what a manager has or had, and more; the first of it twice."""
        # Of anybody: who has ended still hands in.
        manager_id = list(self.model.agents)[pick % len(self.model.agents)]
        had = self.model.had_by(manager_id)
        attempts = [*self._named(named).items(), *(had[-n_own:] if newest else had[:n_own])]
        self._return(manager_id, attempts + attempts[:1], good() if well else bad())

    def _return(
        self,
        manager_id: int,
        attempts: list[tuple[int, int]],
        what: tuple[Outcome, dict[bytes, bytes]],
    ) -> None:
        results = [result(id_, attempt, what) for id_, attempt in attempts]
        answer = return_results(self.ledger, manager_id, results, user=BOB)
        expected = self.model.hand_in(manager_id, attempts, what[0])
        assert answer["accepted_idx"] == expected.accepted
        assert answer["late_idx"] == expected.late
        assert answer["duplicate_idx"] == expected.duplicate
        assert [(index, code) for index, code, _ in answer["errors"]] == expected.errors

    @rule(pick=PICKS, named=NAMED)
    def relinquish(self, pick: int, named: list[tuple[int, int]]) -> None:
        manager_id, attempts = self._manager_id(pick), self._named(named)
        back = relinquish(self.ledger, manager_id, attempts, user=BOB)
        assert back == self.model.give_back(manager_id, attempts)

    @rule(pick=PICKS, named=NAMED, all_of_it=st.booleans())
    def heartbeat(self, pick: int, named: list[tuple[int, int]], *, all_of_it: bool) -> None:
        manager_id, attempts = self._manager_id(pick), self._named(named)
        if all_of_it:
            attempts |= self.model.held_by(manager_id)
        answer = self._ask(
            manager_id, lambda: heartbeat(self.ledger, manager_id, attempts, user=BOB)
        )
        if answer is not None:
            assert answer["stale"] == self.model.beat(manager_id, attempts)

    @rule(pick=PICKS, how=st.integers(0, 7))
    def lose_or_end(self, pick: int, how: int) -> None:
        """Let a manager fall silent, or end; or let the reaper go round."""
        manager_id = self._manager_id(pick)
        agent = self.model.agents[manager_id]
        if how == 0:
            had = deactivate_manager(self.ledger, manager_id, actor=BOB, owner=BOB)
            assert had == self.model.end(manager_id)
        elif how < 3:
            assert lose_silent_managers(self.ledger) == self.model.reap()
        elif agent.state == "active":
            self.stage.silence(manager_id)
            agent.silent = True

    @rule(seed=st.integers(0, 2**32))
    def a_busy_day(self, seed: int) -> None:
        """Let all of this happen in a likely mixture; Hypothesis alone likes extremes."""
        chance = random.Random(seed)  # noqa: S311

        def picks() -> tuple[int, int]:
            return chance.randrange(2**16), chance.randrange(2**16)

        def named() -> list[tuple[int, int]]:
            return [
                (chance.randrange(2**16), chance.choice([0, 0, 0, -1, 1]))
                for _ in range(chance.randint(0, 4))
            ]

        def want() -> Want:
            programs = frozenset(chance.sample(PROGRAMS, chance.choice([0, 0, 1, 2])))
            priority = chance.choice(list(Priority))
            return Want(
                chance.choice("abcdefghijklmnop"),
                programs,
                chance.choice(TAGS),
                priority,
                chance.choice([0, 2]),
            )

        day: list[tuple[int, Callable[[], None]]] = [
            (
                3,
                lambda: self.submit(
                    [want() for _ in range(7)], find_existing=chance.random() < 0.5
                ),
            ),
            (6, lambda: self.manage([picks() for _ in range(chance.randint(1, 4))])),
            (1, lambda: self.manage_wrongly(*picks())),
            (5, lambda: self.work([(picks()[0], chance.randint(1, 6), picks()[1])])),
            (3, lambda: self.claim(picks()[0], chance.randint(1, 6), twice=chance.random() < 0.5)),
            (
                3,
                lambda: self.hand_in(
                    picks()[0],
                    named(),
                    chance.randint(1, 5),
                    newest=chance.random() < 0.5,
                    well=chance.random() < 0.6,
                ),
            ),
            (1, lambda: self.relinquish(picks()[0], named())),
            (2, lambda: self.heartbeat(picks()[0], named(), all_of_it=chance.random() < 0.5)),
            (2, lambda: self.lose_or_end(picks()[0], chance.randrange(8))),
        ]
        weights, requests = zip(*day, strict=True)
        for request in chance.choices(requests, weights, k=25):
            if self.model.n_active() < 3:
                self.register(["*"], frozenset(PROGRAMS), impatient=chance.random() < 0.5)
            if self.model.there():
                request()
            self.the_ledger_is_that_of_the_model()

    # What holds after every request

    @invariant()
    def the_ledger_is_that_of_the_model(self) -> None:
        self._require_records()
        self._require_queue()
        expected = self.model.counts()
        assert counts(self.ledger) == {status: expected[status] for status in Status}

    def _require_records(self) -> None:
        there = self.model.there()
        found = get_records(self.ledger, self.model.records)
        assert found.keys() == there.keys()
        for id_, record in found.items():
            model = there[id_].cards
            assert [*record.prior, record.status] == model.cards
            assert record.version == there[id_].n_events
            assert (record.attempt, record.manager_id) == (model.n_attempts, model.holder)
            assert (record.tag, record.priority) == (model.tag, model.priority)
            assert (record.outcome, record.retries_used) == (model.outcome, model.retries_used)

    def _require_queue(self) -> None:
        rows = self.stage.ask(
            "SELECT l.tag, l.required_programs, q.rank, q.record_id"
            " FROM claim_queue q JOIN lanes l ON l.id = q.lane_id"
        )
        queue = sorted((tag, tuple(programs), rank, id_) for tag, programs, rank, id_ in rows)
        assert queue == self.model.queue()


def test_whatever_is_asked_the_ledger_does_what_the_model_does(reused_database_url: str) -> None:
    machine = type("Machine", (LedgerMachine,), {"url": reused_database_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            max_examples=N_LEDGER_RUNS,
            stateful_step_count=N_LEDGER_STEPS,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
