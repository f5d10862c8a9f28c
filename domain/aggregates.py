"""The kinds of aggregates: their initial state, their possible events, and how these change them.

A kind is declared here, once: the ledger, replay, the audit, the self-audit and imports read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from .admin.access import TOKEN_EVENTS, TokenAggregate, evolve_token
from .admin.divergence import DIVERGENCE_EVENTS, DivergenceAggregate, evolve_divergence
from .admin.job import JOB_EVENTS, JobAggregate, evolve_job
from .admin.webhook import WEBHOOK_EVENTS, WebhookAggregate, evolve_webhook
from .dataset import DATASET_EVENTS, DatasetAggregate, evolve_dataset
from .records.events import RECORD_EVENTS, Event, Imported
from .records.record import RecordAggregate, evolve
from .routing.manager import MANAGER_EVENTS, ManagerAggregate, evolve_manager
from .streams import Stream


class State(Protocol):
    """An aggregate: its kind, its number and its version, the number of its events."""

    @property
    def id(self) -> int:
        """Its number among those of its kind."""
        ...

    @property
    def version(self) -> int:
        """How many events it has."""
        ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S]):
    """A kind of aggregates.

    Attributes:
        new: makes the state before the first event, from the number.
        evolve: returns the state after an event.
        events: the types of the events that it can have.
        hidden: whether its events are left out where users read the log.
    """

    new: type[S]
    evolve: Callable[[S, Event], S]
    events: tuple[type[Event], ...]
    hidden: bool = False


AGGREGATES: Final[Mapping[Stream, Aggregate[Any]]] = {
    Stream.record: Aggregate(RecordAggregate, evolve, RECORD_EVENTS),
    Stream.manager: Aggregate(ManagerAggregate, evolve_manager, (*MANAGER_EVENTS, Imported)),
    Stream.token: Aggregate(TokenAggregate, evolve_token, TOKEN_EVENTS, hidden=True),
    Stream.job: Aggregate(JobAggregate, evolve_job, JOB_EVENTS),
    Stream.dataset: Aggregate(DatasetAggregate, evolve_dataset, (*DATASET_EVENTS, Imported)),
    Stream.webhook: Aggregate(WebhookAggregate, evolve_webhook, WEBHOOK_EVENTS, hidden=True),
    Stream.divergence: Aggregate(DivergenceAggregate, evolve_divergence, DIVERGENCE_EVENTS),
}

STREAM_OF: Final[Mapping[type[Any], Stream]] = {
    kind.new: stream for stream, kind in AGGREGATES.items()
}
"""The kind of an aggregate, by the type of its state."""

EVENT_TYPES: Final[Mapping[str, type[Event]]] = {
    event_type.topic: event_type for kind in AGGREGATES.values() for event_type in kind.events
}
"""All events that the log can hold, by their topics."""
