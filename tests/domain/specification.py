"""The table of the specification, copied by hand, and a simple model of a record beside it.

Nothing here looks at `TRANSITIONS` or at `evolve`: two accounts of one thing that must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from recordledger.domain.records import events as e
from recordledger.domain.records.events import Event, Kind, Outcome, Priority
from tests.examples import (
    at,
    cancelled,
    claimed,
    commented,
    completed,
    created,
    erased,
    errored,
    failed,
    failure,
    held,
    imported,
    invalidated,
    late_result,
    lease_expired,
    manager_lost,
    released,
    relinquished,
    rerouted,
    reset,
    resubmitted,
    result_adopted,
    retry_due,
    reverted,
    revived,
    service_iterated,
    service_started,
    soft_deleted,
    uncancelled,
    undeleted,
    uninvalidated,
)

ANY: Final = "waiting running complete error cancelled deleted invalid held failed"

# fmt: off
TABLE: Final[tuple[tuple[str, type[Event], str], ...]] = (
    ("(none)",                                   e.Created,         "waiting"),
    ("waiting",                                  e.Claimed,         "running"),
    ("waiting",                                  e.ServiceStarted,  "running"),
    ("running",                                  e.Completed,       "complete"),
    ("running",                                  e.Errored,         "error"),
    ("running",                                  e.ServiceIterated, "running"),
    ("waiting running error held failed",        e.ResultAdopted,   "complete"),
    ("running",                                  e.LeaseExpired,    "waiting"),
    ("running",                                  e.ManagerLost,     "waiting"),
    ("running",                                  e.Relinquished,    "waiting"),
    ("error",                                    e.Reset,           "waiting"),
    ("error",                                    e.Failed,          "failed"),
    ("failed",                                   e.Revived,         "waiting"),
    ("waiting",                                  e.Held,            "held"),
    ("held",                                     e.Released,        "waiting"),
    ("waiting running error held",               e.Cancelled,       "cancelled"),
    ("cancelled",                                e.Uncancelled,     "what it was"),
    ("complete",                                 e.Invalidated,     "invalid"),
    ("invalid",                                  e.Uninvalidated,   "complete"),
    ("waiting running complete error cancelled invalid held failed",
                                                 e.SoftDeleted,     "deleted"),
    ("deleted",                                  e.Undeleted,       "what it was"),
    ("complete error failed cancelled invalid",  e.Resubmitted,     "unchanged"),
    (ANY,                                        e.Commented,       "unchanged"),
    ("waiting running error held",               e.Rerouted,        "unchanged"),
    (ANY,                                        e.LateResult,      "unchanged"),
    # Not in product.md; docs/adr/0010-retries-with-a-pause.md says why.
    ("waiting",                                  e.RetryDue,        "unchanged"),
    # Not in product.md; docs/adr/0007-reverted.md says why.
    ("waiting held complete error failed",       e.Reverted,        "what the event says"),
    (ANY,                                        e.Erased,          "gone"),
    # Not in product.md; docs/adr/0016-archives.md says why.
    ("waiting running held",                     e.Imported,        "held"),
    ("complete error cancelled deleted invalid failed",
                                                 e.Imported,        "unchanged"),
)
# fmt: on

NONE: Final = "(none)"
GONE: Final = "gone"
STATUSES: Final = (NONE, *ANY.split())

ROWS: Final[dict[tuple[str, type[Event]], str]] = {
    (source, event_type): target
    for sources, event_type, target in TABLE
    for source in sources.split()
}
"""The table, one entry for each status and event."""

ONLY_TASKS: Final = (e.Claimed,)
ONLY_SERVICES: Final = (e.ServiceStarted, e.ServiceIterated)
N_MANAGERS: Final = 3


@dataclass
class Model:
    """A record as a pile of cards: the top one is what it is, those below are what it was."""

    cards: list[str] = field(default_factory=lambda: [NONE])
    kind: Kind = Kind.task
    tag: str = ""
    priority: Priority = Priority.normal
    n_attempts: int = 0
    holder: int | None = None
    outcome: Outcome | None = None
    retries_used: int = 0
    pauses: bool = False
    n_iterations: int = 0
    attempt_managers: dict[int, int | None] = field(default_factory=dict[int, "int | None"])
    attempts_answered: set[int] = field(default_factory=set[int])
    kept: dict[int, Outcome] = field(default_factory=dict[int, Outcome])

    @property
    def status(self) -> str:
        return self.cards[-1]

    def possible(self) -> list[Event]:
        """Every event that can happen next, in a few variants."""
        return [event for event in self._candidates() if self._allows(event)]

    def _allows(self, event: Event) -> bool:
        if isinstance(event, ONLY_TASKS) and self.kind is not Kind.task:
            return False
        if isinstance(event, ONLY_SERVICES) and self.kind is not Kind.service:
            return False
        return (self.status, type(event)) in ROWS

    def _candidates(self) -> list[Event]:
        now, after = self.n_attempts, self.n_attempts + 1
        holder = self.holder or 1
        unanswered = [
            late_result(manager_id, attempt=number)
            for number, manager_id in self.attempt_managers.items()
            if manager_id is not None
            and number not in self.attempts_answered
            and not (self.status == "running" and number == now)
        ]
        return [
            *(created(kind=kind, retries=retries) for kind in Kind for retries in (0, 2)),
            *(claimed(manager_id, attempt=after) for manager_id in range(1, N_MANAGERS + 1)),
            service_started(attempt=after),
            service_iterated(iteration=self.n_iterations + 1, children=(412, 413)),
            completed(attempt=now),
            errored(attempt=now),
            *unanswered,
            *(
                result_adopted(attempt=number, outcome=outcome)
                for number, outcome in self.kept.items()
                if outcome.error_type is None
            ),
            lease_expired(attempt=now),
            manager_lost(holder, attempt=now),
            relinquished(holder, attempt=now),
            reset(),
            reset(retry=self.retries_used + 1),
            reset(retry=self.retries_used + 1, not_before=at(3)),
            retry_due(),
            failed(),
            revived(),
            held(),
            released(),
            cancelled(),
            uncancelled(),
            invalidated(),
            uninvalidated(),
            soft_deleted(),
            undeleted(),
            resubmitted(),
            commented(),
            rerouted(tag="cpu"),
            rerouted(priority=Priority.high),
            reverted("waiting"),
            reverted("error", outcome=failure(), manager_id=2, retries_used=1),
            reverted("failed", outcome=failure()),
            erased(),
            imported(),
        ]

    def happen(self, event: Event) -> None:
        """Move the cards."""
        target = ROWS[self.status, type(event)]
        if target == GONE:
            self.cards = [GONE]
        elif target == "what it was":
            self.cards.pop()
        elif isinstance(event, e.Reverted):
            self.cards[-1] = event.status
        elif isinstance(event, e.Cancelled | e.SoftDeleted):
            if self.status == "running":
                self.cards[-1] = "waiting"
                self.holder = None
            self.cards.append(target)
        elif target != "unchanged":
            if isinstance(event, e.Imported) and self.status == "running":
                self.holder = None
            self.cards[-1] = target
        self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case e.Created():
                self.kind, self.tag, self.priority = event.kind, event.tag, event.priority
            case e.Claimed() | e.ServiceStarted():
                self.n_attempts += 1
                self.pauses = False
                self.holder = event.manager_id if isinstance(event, e.Claimed) else None
                self.attempt_managers[self.n_attempts] = self.holder
            case e.Completed() | e.Errored():
                self.outcome = event.outcome
                self.attempts_answered.add(event.attempt)
            case e.ResultAdopted():
                self.outcome, self.holder = event.outcome, None
                self.pauses = False
            case e.LateResult():
                self.attempts_answered.add(event.attempt)
                self.kept[event.attempt] = event.outcome
            case e.LeaseExpired() | e.ManagerLost() | e.Relinquished() | e.Erased():
                self.holder = None
            case e.Reset() | e.Revived():
                self.outcome = self.holder = None
                self.retries_used = (event.retry or 0) if isinstance(event, e.Reset) else 0
                self.pauses = isinstance(event, e.Reset) and event.not_before is not None
            case e.RetryDue():
                self.pauses = False
            case e.Reverted():
                self.outcome, self.holder = event.outcome, event.manager_id
                self.retries_used = event.retries_used
                self.pauses = False
            case e.ServiceIterated():
                self.n_iterations += 1
            case e.Rerouted():
                self.tag = event.tag or self.tag
                self.priority = self.priority if event.priority is None else event.priority
            case _:
                pass


def live(choices: Sequence[int]) -> tuple[list[Event], Model]:
    """Return a legal history and the model after it; each number chooses what happens next.

    Any numbers will do. Erasing is rare, or every long life would end early.
    """
    model = Model()
    history: list[Event] = []
    for choice in choices:
        possible = model.possible()
        if not possible:
            break
        event = possible[choice % len(possible)]
        if isinstance(event, e.Erased) and choice % 7:
            event = possible[0]
        model.happen(event)
        history.append(event)
    return history, model
