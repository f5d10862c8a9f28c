"""Where imported histories come from, and their rewriting with this ledger's ids and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from ..dataset import DatasetCreated, RecordsLinked
from ..records import events as e
from ..records.events import Event
from ..routing.manager import ProgramProbed

NOT_HERE: Final = 0
"""As an id: of something that was not in the archive. No id here is 0."""

_MANAGER: Final = re.compile(r"manager:(\d+)")
# RFC 9562 leaves version 8 to the maker of the id; operations of this ledger have 4 or 5.
_FOREIGN_VERSION: Final = 8
_VERSION_AND_VARIANT: Final = (0xF << 76) | (0x3 << 62)


def short_name(ledger_id: UUID) -> str:
    """Return what stands for a ledger in the names of actors."""
    return ledger_id.hex[:8]


def operation_of(ledger_id: UUID, operation_id: UUID) -> UUID:
    """Return the id here of another ledger's operation: always the same, and never one of ours."""
    digest = sha256(ledger_id.bytes + operation_id.bytes).digest()
    bare = int.from_bytes(digest[:16], "big") & ~_VERSION_AND_VARIANT
    return UUID(int=bare | (_FOREIGN_VERSION << 76) | (0x2 << 62))


def is_foreign(operation_id: UUID) -> bool:
    """Return whether an operation was done in another ledger, and its events were imported."""
    return operation_id.version == _FOREIGN_VERSION


@dataclass(frozen=True, slots=True)
class Ids:
    """What the aggregates of another ledger are called here, by their numbers there."""

    ledger_id: UUID
    records: Mapping[int, int] = field(default_factory=dict[int, int])
    managers: Mapping[int, int] = field(default_factory=dict[int, int])
    datasets: Mapping[int, int] = field(default_factory=dict[int, int])

    def actor(self, actor: str) -> str:
        """Return what an actor of that ledger is called here, so that nobody here is meant.

        An imported manager is an aggregate here too, and has its new number.
        """
        found = _MANAGER.fullmatch(actor)
        number = None if found is None else self.managers.get(int(found[1]))
        if number is not None:
            return f"manager:{number}"
        return f"{actor}@{short_name(self.ledger_id)}"


def translated(event: Event, ids: Ids) -> Event:
    """Return the events of another ledger rewritten for this one.

    The time, the reason and the outcome stay the same. What it says of an aggregate that did not
    come along is said of `NOT_HERE`.
    """
    record = ids.records.get
    changes: dict[str, Any] = {
        "actor": ids.actor(event.actor),
        "operation_id": operation_of(ids.ledger_id, event.operation_id),
    }
    if event.undoes is not None:
        changes["undoes"] = operation_of(ids.ledger_id, event.undoes)
    if event.cause is not None:
        changes["cause"] = record(event.cause, NOT_HERE)
    if (manager_id := getattr(event, "manager_id", None)) is not None:
        changes["manager_id"] = ids.managers.get(manager_id, NOT_HERE)
    match event:
        case e.Created(resubmission_of=int(original)):
            changes["resubmission_of"] = record(original, NOT_HERE)
        case e.Resubmitted(new_record_id=number):
            changes["new_record_id"] = record(number, NOT_HERE)
        case e.ServiceIterated(children=children):
            changes["children"] = tuple(record(child, NOT_HERE) for child in children)
            # The service knows its children by these names, whatever their numbers are.
            changes["keys"] = tuple(event.named_children)
        case ProgramProbed(record_id=number):
            changes["record_id"] = record(number, NOT_HERE)
        case DatasetCreated(cloned_from=int(original)):
            changes["cloned_from"] = ids.datasets.get(original, NOT_HERE)
        case RecordsLinked(record_ids=numbers):
            changes["record_ids"] = tuple(record(number, NOT_HERE) for number in numbers)
        case _:
            pass
    return event.model_copy(update=changes)
