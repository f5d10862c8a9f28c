"""A ledger in plain Python, as the specification tells it: no SQL, no log, nobody else there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from recordledger.domain.records.events import Event, Outcome, Priority
from tests.domain.specification import GONE, Model
from tests.examples import (
    claimed,
    completed,
    created,
    errored,
    late_result,
    lease_expired,
    manager_lost,
    relinquished,
    retried,
)

PUT_AWAY = frozenset({"cancelled", "deleted", "invalid"})


class Want(NamedTuple):
    """An entry of a submission."""

    name: str
    programs: frozenset[str]
    tag: str
    priority: Priority
    retries: int


@dataclass
class ModelRecord:
    """A record: its cards, and what it was submitted with."""

    want: Want
    cards: Model = field(default_factory=Model)
    n_events: int = 0

    @property
    def status(self) -> str:
        return self.cards.status

    @property
    def claimable(self) -> bool:
        return self.status == "waiting" and not self.cards.pauses

    def happen(self, *events: Event) -> None:
        for event in events:
            self.cards.happen(event)
            self.n_events += 1

    def runs(self, manager_id: int) -> bool:
        return self.status == "running" and self.cards.holder == manager_id


@dataclass
class ModelAgent:
    """A manager. `impatient`: its lease is over as soon as it has begun."""

    tags: tuple[str, ...]
    programs: frozenset[str]
    impatient: bool
    state: str = "active"
    silent: bool = False


@dataclass
class Returned:
    """What became of a batch of results."""

    accepted: list[int] = field(default_factory=list[int])
    late: list[int] = field(default_factory=list[int])
    duplicate: list[int] = field(default_factory=list[int])
    errors: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


@dataclass
class LedgerModel:
    """All records and managers."""

    records: dict[int, ModelRecord] = field(default_factory=dict[int, ModelRecord])
    agents: dict[int, ModelAgent] = field(default_factory=dict[int, ModelAgent])

    # Questions

    def there(self) -> dict[int, ModelRecord]:
        """The records that were not erased."""
        return {id_: record for id_, record in self.records.items() if record.status != GONE}

    def held_by(self, manager_id: int) -> dict[int, int]:
        """The attempts of a manager, by record."""
        return {
            id_: record.cards.n_attempts
            for id_, record in self.records.items()
            if record.runs(manager_id)
        }

    def n_active(self) -> int:
        """How many managers may claim."""
        return sum(agent.state == "active" for agent in self.agents.values())

    def had_by(self, manager_id: int) -> list[tuple[int, int]]:
        """Every attempt that a manager ever had, as record and number."""
        return [
            (id_, attempt)
            for id_, record in self.records.items()
            for attempt, holder in record.cards.attempt_managers.items()
            if holder == manager_id
        ]

    def queue(self) -> list[tuple[str, tuple[str, ...], int, int]]:
        """Tag, programs, rank and id of what may be claimed, in the order of claiming."""
        return sorted(
            (record.cards.tag, tuple(sorted(record.want.programs)), -record.cards.priority, id_)
            for id_, record in self.records.items()
            if record.claimable
        )

    def counts(self) -> Counter[str]:
        """How many records are in each status."""
        return Counter(record.status for record in self.there().values())

    # What happens

    def submit(
        self, wants: Sequence[Want], *, find_existing: bool
    ) -> list[tuple[int | None, Want]]:
        """Return, for each entry, the record that is given back, or None for a new one."""
        found: dict[tuple[str, frozenset[str]], int | None] = {}
        answer: list[tuple[int | None, Want]] = []
        for want in wants:
            key = (want.name, want.programs)
            if not find_existing:
                answer.append((None, want))
                continue
            if key not in found:
                fits = (
                    id_
                    for id_, record in self.there().items()
                    if (record.want.name, record.want.programs) == key
                    and record.status not in PUT_AWAY
                )
                found[key] = min(fits, default=None)
                answer.append((found[key], want))
            else:
                answer.append((found[key] if found[key] is not None else -1, want))
        return answer

    def create(self, record_id: int, want: Want) -> None:
        record = self.records[record_id] = ModelRecord(want)
        record.happen(created(tag=want.tag, priority=want.priority, retries=want.retries))

    def claim(self, manager_id: int, limit: int) -> dict[int, int]:
        """Let a manager claim; return the attempts in the order in which it gets them."""
        agent = self.agents[manager_id]
        agent.silent = False
        taken: list[int] = []
        for tag in agent.tags:
            fits = [
                (-record.cards.priority, id_)
                for id_, record in self.records.items()
                if record.claimable
                and tag in ("*", record.cards.tag)
                and record.want.programs <= agent.programs
                and id_ not in taken
            ]
            taken += [id_ for _, id_ in sorted(fits)]
        for id_ in taken[:limit]:
            record = self.records[id_]
            record.happen(claimed(manager_id, attempt=record.cards.n_attempts + 1))
        return {id_: self.records[id_].cards.n_attempts for id_ in taken[:limit]}

    def hand_in(
        self, manager_id: int, results: Iterable[tuple[int, int]], outcome: Outcome
    ) -> Returned:
        """Let a manager return the same outcome for these attempts."""
        answer = Returned()
        for index, (id_, attempt) in enumerate(results):
            record = self.there().get(id_)
            if record is None:
                answer.errors.append((index, "not_found"))
            elif record.runs(manager_id) and record.cards.n_attempts == attempt:
                answer.accepted.append(index)
                _finish(record, attempt, outcome)
            elif record.cards.attempt_managers.get(attempt) != manager_id:
                answer.errors.append((index, "not_your_attempt"))
            elif attempt in record.cards.attempts_answered:
                answer.duplicate.append(index)
            else:
                answer.late.append(index)
                record.happen(late_result(manager_id, attempt=attempt, outcome=outcome))
        return answer

    def give_back(self, manager_id: int, given: Mapping[int, int]) -> list[int]:
        """Let a manager give back what it has of these."""
        held = self.held_by(manager_id)
        back = sorted(id_ for id_, attempt in given.items() if held.get(id_) == attempt)
        for id_ in back:
            self.records[id_].happen(relinquished(manager_id, attempt=held[id_]))
        return back

    def beat(self, manager_id: int, named: Mapping[int, int]) -> list[tuple[int, int]]:
        """Let a manager give a sign of life; return what is stale."""
        agent = self.agents[manager_id]
        agent.silent = False
        held = self.held_by(manager_id)
        if agent.impatient:
            for id_, attempt in held.items():
                if named.get(id_) != attempt:
                    self.records[id_].happen(lease_expired(attempt=attempt))
        return sorted(set(named.items()) - set(held.items()))

    def reap(self) -> dict[int, list[int]]:
        """Lose all who are silent; return what each had."""
        lost: dict[int, list[int]] = {}
        for manager_id, agent in self.agents.items():
            if agent.state == "active" and (agent.silent or agent.impatient):
                held = self.held_by(manager_id)
                for id_, attempt in held.items():
                    self.records[id_].happen(manager_lost(manager_id, attempt=attempt))
                agent.state = "lost"
                lost[manager_id] = sorted(held)
        return lost

    def end(self, manager_id: int) -> list[int]:
        """Let a manager end; return what it had."""
        agent = self.agents[manager_id]
        if agent.state == "active":
            agent.state = "inactive"
        return self.give_back(manager_id, self.held_by(manager_id))


def _finish(record: ModelRecord, attempt: int, outcome: Outcome) -> None:
    if outcome.error_type is None:
        record.happen(completed(attempt=attempt, outcome=outcome))
        return
    record.happen(errored(attempt=attempt, outcome=outcome))
    if record.cards.retries_used < record.want.retries:
        record.happen(retried(record.cards.retries_used + 1, attempt=attempt))
